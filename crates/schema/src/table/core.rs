//! The core kinds beside pods, endpoints of services, and the kinds of networking.

use serde_json::Value;
use tripod_model::Time;

use super::format::{age, name, none, or, pairs, plain, since, texts};
use super::{AGE, Column, NAME, Printer, col, num, wide};
use crate::value::{at, int, is_true, list, text};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "services" => (
            const {
                &[
                    NAME,
                    col("Type"),
                    col("Cluster-IP"),
                    col("External-IP"),
                    col("Port(s)"),
                    AGE,
                    wide("Selector"),
                ]
            },
            service,
        ),
        "endpoints" => (const { &[NAME, col("Endpoints"), AGE] }, endpoints),
        "endpointslices.discovery.k8s.io" => (
            const { &[NAME, col("AddressType"), col("Ports"), col("Endpoints"), AGE] },
            slice,
        ),
        "configmaps" => (const { &[NAME, num("Data"), AGE] }, |o, now| {
            let size = |m: &str| o[m].as_object().map_or(0, serde_json::Map::len);
            vec![name(o), (size("data") + size("binaryData")).into(), age(o, now)]
        }),
        "secrets" => (const { &[NAME, col("Type"), num("Data"), AGE] }, |o, now| {
            let size = o["data"].as_object().map_or(0, serde_json::Map::len);
            vec![name(o), text(o, &["type"]).into(), size.into(), age(o, now)]
        }),
        "serviceaccounts" => (const { &[NAME, num("Secrets"), AGE] }, |o, now| {
            vec![name(o), list(o, &["secrets"]).len().into(), age(o, now)]
        }),
        "namespaces" => (const { &[NAME, col("Status"), AGE] }, |o, now| {
            vec![name(o), text(o, &["status", "phase"]).into(), age(o, now)]
        }),
        "nodes" => (NODES, node),
        "events" | "events.events.k8s.io" => (
            const {
                &[
                    col("Last Seen"),
                    col("Type"),
                    col("Reason"),
                    col("Object"),
                    wide("Subobject"),
                    wide("Source"),
                    col("Message"),
                    wide("First Seen"),
                    wide("Count"),
                    wide("Name"),
                ]
            },
            event,
        ),
        "persistentvolumeclaims" => (
            const {
                &[
                    NAME,
                    col("Status"),
                    col("Volume"),
                    col("Capacity"),
                    col("Access Modes"),
                    col("StorageClass"),
                    col("VolumeAttributesClass"),
                    AGE,
                    wide("VolumeMode"),
                ]
            },
            claim,
        ),
        "persistentvolumes" => (
            const {
                &[
                    NAME,
                    col("Capacity"),
                    col("Access Modes"),
                    col("Reclaim Policy"),
                    col("Status"),
                    col("Claim"),
                    col("StorageClass"),
                    col("VolumeAttributesClass"),
                    col("Reason"),
                    AGE,
                    wide("VolumeMode"),
                ]
            },
            volume,
        ),
        "resourcequotas" => (const { &[NAME, col("Request"), col("Limit"), AGE] }, quota),
        "limitranges" => (const { &[NAME, col("Created At")] }, |o, _| {
            vec![name(o), text(o, &["metadata", "creationTimestamp"]).into()]
        }),
        _ => return None,
    })
}

fn service(o: &Value, now: Time) -> Vec<Value> {
    let ty = text(o, &["spec", "type"]);
    let ports: Vec<String> = list(o, &["spec", "ports"])
        .iter()
        .map(|p| {
            let (port, protocol) = (plain(p.get("port")), text(p, &["protocol"]));
            match int(p, &["nodePort"]) {
                Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
                _ => format!("{port}/{protocol}"),
            }
        })
        .collect();
    let fixed = texts(o, &["spec", "externalIPs"]);
    let external = match ty {
        "ExternalName" => text(o, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = list(o, &["status", "loadBalancer", "ingress"]).iter();
            let mut all: Vec<&str> = ingress
                .map(|i| match text(i, &["ip"]) {
                    "" => text(i, &["hostname"]),
                    ip => ip,
                })
                .collect();
            if !fixed.is_empty() {
                all.push(&fixed);
            }
            if all.is_empty() {
                "<pending>".into()
            } else {
                all.join(",")
            }
        }
        _ => fixed,
    };
    vec![
        name(o),
        ty.into(),
        none(text(o, &["spec", "clusterIP"])),
        none(&external),
        none(&ports.join(",")),
        age(o, now),
        pairs(o, &["spec", "selector"]),
    ]
}

fn endpoints(o: &Value, now: Time) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(o, &["subsets"]) {
        let ports = list(subset, &["ports"]);
        for address in list(subset, &["addresses"]) {
            let ip = text(address, &["ip"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|p| format!("{ip}:{}", plain(p.get("port")))));
        }
    }
    vec![name(o), none(&shortened(&all)), age(o, now)]
}

/// Three at most, and how many more.
fn shortened(all: &[String]) -> String {
    match all {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a},{b},{c} + {} more...", rest.len()),
        all => all.join(","),
    }
}

fn slice(o: &Value, now: Time) -> Vec<Value> {
    let ports: Vec<String> = list(o, &["ports"]).iter().map(|p| plain(p.get("port"))).collect();
    let addresses: Vec<String> = list(o, &["endpoints"])
        .iter()
        .flat_map(|e| list(e, &["addresses"]))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![
        name(o),
        text(o, &["addressType"]).into(),
        or(&shortened(&ports), "<unset>"),
        or(&shortened(&addresses), "<unset>"),
        age(o, now),
    ]
}

const NODES: &[Column] = &[
    NAME,
    col("Status"),
    col("Roles"),
    AGE,
    col("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

fn node(o: &Value, now: Time) -> Vec<Value> {
    let ready = list(o, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut status = vec![match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if is_true(o, &["spec", "unschedulable"]) {
        status.push("SchedulingDisabled");
    }
    let labels = at(o, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |ty: &str| {
        let addresses = list(o, &["status", "addresses"]);
        let found = addresses.iter().find(|a| text(a, &["type"]) == ty);
        none(found.map_or("", |a| text(a, &["address"])))
    };
    let info = |field: &str| or(text(o, &["status", "nodeInfo", field]), "<unknown>");
    vec![
        name(o),
        status.join(",").into(),
        none(&roles.join(",")),
        age(o, now),
        text(o, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event(o: &Value, now: Time) -> Vec<Value> {
    let pick = |a: &[&str], b: &[&str]| {
        let first = text(o, a);
        if first.is_empty() {
            text(o, b).to_owned()
        } else {
            first.to_owned()
        }
    };
    let about = if o.get("regarding").is_some() {
        "regarding"
    } else {
        "involvedObject"
    };
    let first = {
        let old = pick(&["firstTimestamp"], &["deprecatedFirstTimestamp"]);
        if old.is_empty() {
            text(o, &["eventTime"]).to_owned()
        } else {
            old
        }
    };
    let last = [
        text(o, &["series", "lastObservedTime"]).to_owned(),
        pick(&["lastTimestamp"], &["deprecatedLastTimestamp"]),
        first.clone(),
    ];
    let last = last.into_iter().find(|t| !t.is_empty()).unwrap_or_default();
    let source = {
        let component = pick(&["source", "component"], &["deprecatedSource", "component"]);
        let component = if component.is_empty() {
            pick(&["reportingComponent"], &["reportingController"])
        } else {
            component
        };
        let host = pick(&["source", "host"], &["deprecatedSource", "host"]);
        if host.is_empty() {
            component
        } else {
            format!("{component}, {host}")
        }
    };
    let count = int(o, &["series", "count"])
        .or_else(|| int(o, &["count"]))
        .or_else(|| int(o, &["deprecatedCount"]))
        .unwrap_or(1)
        .max(1);
    vec![
        since(&last, now).into(),
        text(o, &["type"]).into(),
        text(o, &["reason"]).into(),
        format!(
            "{}/{}",
            text(o, &[about, "kind"]).to_lowercase(),
            text(o, &[about, "name"])
        )
        .into(),
        text(o, &[about, "fieldPath"]).into(),
        source.into(),
        pick(&["message"], &["note"]).trim().into(),
        since(&first, now).into(),
        count.into(),
        name(o),
    ]
}

fn modes(o: &Value, path: &[&str]) -> Value {
    let short = list(o, path)
        .iter()
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        });
    short.collect::<Vec<_>>().join(",").into()
}

fn phase(o: &Value) -> Value {
    if text(o, &["metadata", "deletionTimestamp"]).is_empty() {
        text(o, &["status", "phase"]).into()
    } else {
        "Terminating".into()
    }
}

fn class_of(o: &Value) -> &str {
    match text(
        o,
        &[
            "metadata",
            "annotations",
            "volume.beta.kubernetes.io/storage-class",
        ],
    ) {
        "" => text(o, &["spec", "storageClassName"]),
        class => class,
    }
}

fn claim(o: &Value, now: Time) -> Vec<Value> {
    let bound = !text(o, &["spec", "volumeName"]).is_empty();
    vec![
        name(o),
        phase(o),
        text(o, &["spec", "volumeName"]).into(),
        if bound {
            text(o, &["status", "capacity", "storage"]).into()
        } else {
            "".into()
        },
        if bound {
            modes(o, &["status", "accessModes"])
        } else {
            "".into()
        },
        class_of(o).into(),
        or(text(o, &["spec", "volumeAttributesClassName"]), "<unset>"),
        age(o, now),
        or(text(o, &["spec", "volumeMode"]), "<unset>"),
    ]
}

fn volume(o: &Value, now: Time) -> Vec<Value> {
    let claim = match text(o, &["spec", "claimRef", "name"]) {
        "" => String::new(),
        name => format!("{}/{name}", text(o, &["spec", "claimRef", "namespace"])),
    };
    vec![
        name(o),
        text(o, &["spec", "capacity", "storage"]).into(),
        modes(o, &["spec", "accessModes"]),
        text(o, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(o),
        claim.into(),
        class_of(o).into(),
        or(text(o, &["spec", "volumeAttributesClassName"]), "<unset>"),
        text(o, &["status", "reason"]).into(),
        age(o, now),
        or(text(o, &["spec", "volumeMode"]), "<unset>"),
    ]
}

fn quota(o: &Value, now: Time) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in at(o, &["status", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let used = plain(at(o, &["status", "used", resource]));
        let text = format!("{resource}: {used}/{}", plain(Some(hard)));
        if resource.starts_with("limits") {
            limits.push(text);
        } else {
            requests.push(text);
        }
    }
    vec![
        name(o),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(o, now),
    ]
}
