//! Kinds of the whole cluster, of networking and access, and Tripod's own.

use serde_json::Value;

use super::format::{age, count, name, none, or, pairs, plain, texts};
use super::{AGE, NAME, Printer, col, num, wide};
use crate::value::{at, is_true, list, text};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    access(resource)
        .or_else(|| net(resource))
        .or_else(|| storage(resource))
        .or_else(|| own(resource))
}

fn access(resource: &str) -> Option<Printer> {
    Some(match resource {
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            (const { &[NAME, col("Created At")] }, |o, _| {
                vec![name(o), text(o, &["metadata", "creationTimestamp"]).into()]
            })
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => (
            const {
                &[
                    NAME,
                    col("Role"),
                    AGE,
                    wide("Users"),
                    wide("Groups"),
                    wide("ServiceAccounts"),
                ]
            },
            |o, now| {
                let role = format!(
                    "{}/{}",
                    text(o, &["roleRef", "kind"]),
                    text(o, &["roleRef", "name"])
                );
                let of = |kind: &str| {
                    let subjects = list(o, &["subjects"])
                        .iter()
                        .filter(|s| text(s, &["kind"]) == kind);
                    let names = subjects.map(|s| match text(s, &["namespace"]) {
                        "" => text(s, &["name"]).to_owned(),
                        namespace => format!("{namespace}/{}", text(s, &["name"])),
                    });
                    Value::from(names.collect::<Vec<_>>().join(", "))
                };
                vec![
                    name(o),
                    role.into(),
                    age(o, now),
                    of("User"),
                    of("Group"),
                    of("ServiceAccount"),
                ]
            },
        ),
        "certificatesigningrequests.certificates.k8s.io" => (
            const {
                &[
                    NAME,
                    AGE,
                    col("SignerName"),
                    col("Requestor"),
                    col("RequestedDuration"),
                    col("Condition"),
                ]
            },
            |o, now| {
                let seconds = at(o, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
                let mut state: Vec<&str> = list(o, &["status", "conditions"])
                    .iter()
                    .map(|c| text(c, &["type"]))
                    .collect();
                if state.is_empty() {
                    state.push("Pending");
                }
                if !text(o, &["status", "certificate"]).is_empty() {
                    state.push("Issued");
                }
                vec![
                    name(o),
                    age(o, now),
                    text(o, &["spec", "signerName"]).into(),
                    text(o, &["spec", "username"]).into(),
                    none(&seconds.map(super::duration).unwrap_or_default()),
                    state.join(",").into(),
                ]
            },
        ),
        "priorityclasses.scheduling.k8s.io" => (
            const {
                &[
                    NAME,
                    num("Value"),
                    col("Global-Default"),
                    AGE,
                    col("PreemptionPolicy"),
                ]
            },
            |o, now| {
                let default = is_true(o, &["globalDefault"]);
                vec![
                    name(o),
                    count(o, &["value"]),
                    default.into(),
                    age(o, now),
                    text(o, &["preemptionPolicy"]).into(),
                ]
            },
        ),
        "leases.coordination.k8s.io" => (const { &[NAME, col("Holder"), AGE] }, |o, now| {
            vec![name(o), text(o, &["spec", "holderIdentity"]).into(), age(o, now)]
        }),
        "runtimeclasses.node.k8s.io" => (const { &[NAME, col("Handler"), AGE] }, |o, now| {
            vec![name(o), text(o, &["handler"]).into(), age(o, now)]
        }),
        _ => return None,
    })
}

fn net(resource: &str) -> Option<Printer> {
    Some(match resource {
        "ingresses.networking.k8s.io" => (
            const {
                &[
                    NAME,
                    col("Class"),
                    col("Hosts"),
                    col("Address"),
                    col("Ports"),
                    AGE,
                ]
            },
            |o, now| {
                let hosts: Vec<&str> = list(o, &["spec", "rules"])
                    .iter()
                    .map(|r| text(r, &["host"]))
                    .filter(|h| !h.is_empty())
                    .collect();
                let addresses: Vec<&str> = list(o, &["status", "loadBalancer", "ingress"])
                    .iter()
                    .map(|i| match text(i, &["ip"]) {
                        "" => text(i, &["hostname"]),
                        ip => ip,
                    })
                    .collect();
                let tls = !list(o, &["spec", "tls"]).is_empty();
                vec![
                    name(o),
                    none(text(o, &["spec", "ingressClassName"])),
                    or(&hosts.join(","), "*"),
                    addresses.join(",").into(),
                    if tls { "80, 443" } else { "80" }.into(),
                    age(o, now),
                ]
            },
        ),
        "ingressclasses.networking.k8s.io" => (
            const { &[NAME, col("Controller"), col("Parameters"), AGE] },
            |o, now| {
                let parameters = &o["spec"]["parameters"];
                let text_of = match text(parameters, &["name"]) {
                    "" => String::new(),
                    name => format!("{}/{name}", text(parameters, &["kind"])),
                };
                vec![
                    name(o),
                    text(o, &["spec", "controller"]).into(),
                    none(&text_of),
                    age(o, now),
                ]
            },
        ),
        "networkpolicies.networking.k8s.io" => (const { &[NAME, col("Pod-Selector"), AGE] }, |o, now| {
            let selector = at(o, &["spec", "podSelector"]).map(crate::selector::selector_text);
            vec![name(o), none(&selector.unwrap_or_default()), age(o, now)]
        }),
        "ipaddresses.networking.k8s.io" => (const { &[NAME, col("ParentRef")] }, |o, _| {
            let parent = &o["spec"]["parentRef"];
            let reference = format!(
                "{}/{}/{}",
                text(parent, &["resource"]),
                text(parent, &["namespace"]),
                text(parent, &["name"])
            );
            vec![name(o), reference.into()]
        }),
        "servicecidrs.networking.k8s.io" => (const { &[NAME, col("CIDRs"), AGE] }, |o, now| {
            vec![name(o), texts(o, &["spec", "cidrs"]).into(), age(o, now)]
        }),
        _ => return None,
    })
}

fn storage(resource: &str) -> Option<Printer> {
    Some(match resource {
        "storageclasses.storage.k8s.io" => (
            const {
                &[
                    NAME,
                    col("Provisioner"),
                    col("ReclaimPolicy"),
                    col("VolumeBindingMode"),
                    col("AllowVolumeExpansion"),
                    AGE,
                ]
            },
            |o, now| {
                let default = text(
                    o,
                    &[
                        "metadata",
                        "annotations",
                        "storageclass.kubernetes.io/is-default-class",
                    ],
                ) == "true";
                let mut title = text(o, &["metadata", "name"]).to_owned();
                if default {
                    title.push_str(" (default)");
                }
                vec![
                    title.into(),
                    text(o, &["provisioner"]).into(),
                    text(o, &["reclaimPolicy"]).into(),
                    text(o, &["volumeBindingMode"]).into(),
                    is_true(o, &["allowVolumeExpansion"]).into(),
                    age(o, now),
                ]
            },
        ),
        "csidrivers.storage.k8s.io" => (
            const {
                &[
                    NAME,
                    col("AttachRequired"),
                    col("PodInfoOnMount"),
                    col("StorageCapacity"),
                    AGE,
                ]
            },
            |o, now| {
                vec![
                    name(o),
                    is_true(o, &["spec", "attachRequired"]).into(),
                    is_true(o, &["spec", "podInfoOnMount"]).into(),
                    is_true(o, &["spec", "storageCapacity"]).into(),
                    age(o, now),
                ]
            },
        ),
        "csinodes.storage.k8s.io" => (const { &[NAME, num("Drivers"), AGE] }, |o, now| {
            vec![name(o), list(o, &["spec", "drivers"]).len().into(), age(o, now)]
        }),
        "csistoragecapacities.storage.k8s.io" => (
            const { &[NAME, col("StorageClassName"), col("Capacity")] },
            |o, _| {
                vec![
                    name(o),
                    text(o, &["storageClassName"]).into(),
                    text(o, &["capacity"]).into(),
                ]
            },
        ),
        "volumeattachments.storage.k8s.io" => (
            const {
                &[
                    NAME,
                    col("Attacher"),
                    col("PV"),
                    col("Node"),
                    col("Attached"),
                    AGE,
                ]
            },
            |o, now| {
                vec![
                    name(o),
                    text(o, &["spec", "attacher"]).into(),
                    text(o, &["spec", "source", "persistentVolumeName"]).into(),
                    text(o, &["spec", "nodeName"]).into(),
                    is_true(o, &["status", "attached"]).into(),
                    age(o, now),
                ]
            },
        ),
        "volumeattributesclasses.storage.k8s.io" => (const { &[NAME, col("DriverName"), AGE] }, |o, now| {
            vec![name(o), text(o, &["driverName"]).into(), age(o, now)]
        }),
        _ => return None,
    })
}

/// Tripod's own kinds.
fn own(resource: &str) -> Option<Printer> {
    Some(match resource {
        "swarmservices.swarm.tripod.dev" => (
            const { &[NAME, col("Service"), col("Image"), AGE, wide("Labels")] },
            |o, now| {
                vec![
                    name(o),
                    text(o, &["spec", "name"]).into(),
                    plain(
                        o.pointer("/spec/task/container/image")
                            .or_else(|| o.pointer("/spec/taskTemplate/container/image")),
                    )
                    .into(),
                    age(o, now),
                    pairs(o, &["spec", "labels"]),
                ]
            },
        ),
        "ecsservices.ecs.tripod.dev" => (
            const {
                &[
                    NAME,
                    col("Service"),
                    col("Cluster"),
                    col("Status"),
                    col("Desired"),
                    col("Definition"),
                    AGE,
                ]
            },
            |o, now| {
                vec![
                    name(o),
                    text(o, &["spec", "name"]).into(),
                    text(o, &["spec", "cluster"]).into(),
                    text(o, &["status", "state"]).into(),
                    plain(o.pointer("/spec/desiredCount")).into(),
                    text(o, &["spec", "template", "taskDefinition"])
                        .rsplit('/')
                        .next()
                        .unwrap_or_default()
                        .into(),
                    age(o, now),
                ]
            },
        ),
        "taskdefinitions.ecs.tripod.dev" => (
            const { &[NAME, col("Family"), col("Revision"), col("Status"), AGE] },
            |o, now| {
                vec![
                    name(o),
                    text(o, &["spec", "family"]).into(),
                    plain(o.pointer("/spec/revision")).into(),
                    text(o, &["spec", "status"]).into(),
                    age(o, now),
                ]
            },
        ),
        "networks.tripod.dev" => (const { &[NAME, col("Network"), col("Driver"), AGE] }, |o, now| {
            vec![
                name(o),
                text(o, &["spec", "name"]).into(),
                text(o, &["spec", "driver"]).into(),
                age(o, now),
            ]
        }),
        _ => return None,
    })
}
