//! Services, configuration, storage, access and the rest.

use serde_json::Value;

use super::meta::selector;
use super::{Causes, bounds, one_of};
use crate::failure::Cause;
use crate::quantity::Quantity;
use crate::selector::{is_label, is_subdomain};
use crate::value::{int, list, text};

/// Bytes that the data of a config map or secret may have.
const DATA: usize = 1 << 20;

pub(super) fn check(resource: &str, object: &Value, causes: &mut Causes) {
    match resource {
        "services" => service(object, causes),
        "configmaps" => data(object, &["data", "binaryData"], causes),
        "secrets" => {
            data(object, &["data"], causes);
            secret(object, causes);
        }
        "persistentvolumes" => volume(object, causes),
        "persistentvolumeclaims" => claim(object, causes),
        "resourcequotas" => bounds::quota(object, causes),
        "limitranges" => bounds::limits(object, causes),
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            role(object, resource.starts_with("cluster"), causes);
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            binding(object, resource.starts_with("cluster"), causes);
        }
        "priorityclasses.scheduling.k8s.io" => priority(object, causes),
        "storageclasses.storage.k8s.io" => {
            one_of(
                object,
                &["reclaimPolicy"],
                "reclaimPolicy",
                &["Delete", "Retain"],
                causes,
            );
            let modes = ["Immediate", "WaitForFirstConsumer"];
            one_of(
                object,
                &["volumeBindingMode"],
                "volumeBindingMode",
                &modes,
                causes,
            );
        }
        "leases.coordination.k8s.io" => {
            if let Some(n) = int(object, &["spec", "leaseDurationSeconds"]).filter(|n| *n <= 0) {
                causes.push(Cause::invalid(
                    "spec.leaseDurationSeconds",
                    &n.into(),
                    "must be greater than 0",
                ));
            }
        }
        "runtimeclasses.node.k8s.io" => {
            let handler = text(object, &["handler"]);
            if !is_label(handler) {
                causes.push(Cause::invalid_text("handler", handler, super::meta::BAD_LABEL));
            }
        }
        "networkpolicies.networking.k8s.io" => {
            selector(&object["spec"]["podSelector"], "spec.podSelector", causes);
        }
        "ingresses.networking.k8s.io" => ingress(object, causes),
        "endpointslices.discovery.k8s.io" => {
            one_of(
                object,
                &["addressType"],
                "addressType",
                &["FQDN", "IPv4", "IPv6"],
                causes,
            );
        }
        _ => {}
    }
}

fn service(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    let ty = text(spec, &["type"]);
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec, &["type"], "spec.type", &types, causes);
    one_of(
        spec,
        &["sessionAffinity"],
        "spec.sessionAffinity",
        &["ClientIP", "None"],
        causes,
    );
    for member in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        one_of(
            spec,
            &[member],
            &format!("spec.{member}"),
            &["Cluster", "Local"],
            causes,
        );
    }
    let headless = text(spec, &["clusterIP"]) == "None";
    let ports = list(spec, &["ports"]);
    if ports.is_empty() && !headless && ty != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if ty == "ExternalName" {
        let name = text(spec, &["externalName"]);
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if !is_subdomain(name.trim_end_matches('.')) {
            causes.push(Cause::invalid_text(
                "spec.externalName",
                name,
                crate::selector::BAD_SUBDOMAIN,
            ));
        }
    }
    if headless && (ty == "NodePort" || ty == "LoadBalancer") {
        let why = format!("may not be set to 'None' for {ty} services");
        causes.push(Cause::invalid_text("spec.clusterIPs[0]", "None", why));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let number = int(port, &["port"]).unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            causes.push(Cause::invalid(
                format!("{path}.port"),
                &number.into(),
                "must be between 1 and 65535, inclusive",
            ));
        }
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !name.is_empty() && !is_label(name) {
            causes.push(Cause::invalid_text(
                format!("{path}.name"),
                name,
                super::meta::BAD_LABEL,
            ));
        } else if !name.is_empty() && !names.insert(name.to_owned()) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        one_of(
            port,
            &["protocol"],
            &format!("{path}.protocol"),
            &["SCTP", "TCP", "UDP"],
            causes,
        );
        if let Some(target) = int(port, &["targetPort"]).filter(|n| !(1..=65_535).contains(n)) {
            causes.push(Cause::invalid(
                format!("{path}.targetPort"),
                &target.into(),
                "must be between 1 and 65535, inclusive",
            ));
        }
        if !seen.insert((text(port, &["protocol"]).to_owned(), number)) {
            causes.push(Cause::duplicate(path, port));
        }
    }
}

fn data(object: &Value, members: &[&str], causes: &mut Causes) {
    let mut size = 0;
    for member in members {
        for (key, value) in object[*member].as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if key.is_empty() || key.len() > 253 || !key.bytes().all(inner) {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid_text(format!("{member}[{key}]"), key, why));
            } else if key == "." || key == ".." || key.starts_with("..") {
                causes.push(Cause::invalid_text(
                    format!("{member}[{key}]"),
                    key,
                    "must not start with '..'",
                ));
            }
            if *member == "binaryData" && object["data"].get(key).is_some() {
                let why = "duplicate of key present in data";
                causes.push(Cause::invalid_text(format!("data[{key}]"), key, why));
            }
        }
    }
    if size > DATA {
        causes.push(Cause::too_long("", DATA));
    }
}

/// What secrets of some types must hold.
fn secret(object: &Value, causes: &mut Causes) {
    let needed: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" => {
            if object["data"].get("username").is_none() && object["data"].get("password").is_none() {
                causes.push(Cause::required("data[username]", ""));
                causes.push(Cause::required("data[password]", ""));
            }
            &[]
        }
        "kubernetes.io/service-account-token" => {
            if text(
                object,
                &["metadata", "annotations", "kubernetes.io/service-account.name"],
            )
            .is_empty()
            {
                causes.push(Cause::required(
                    "metadata.annotations[kubernetes.io/service-account.name]",
                    "",
                ));
            }
            &[]
        }
        _ => &[],
    };
    for key in needed {
        if object["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
}

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

fn modes(object: &Value, causes: &mut Causes) {
    let modes = list(object, &["spec", "accessModes"]);
    if modes.is_empty() {
        causes.push(Cause::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    for mode in modes
        .iter()
        .filter_map(Value::as_str)
        .filter(|m| !MODES.contains(m))
    {
        causes.push(Cause::unsupported("spec.accessModes", mode, &MODES));
    }
}

fn volume(object: &Value, causes: &mut Causes) {
    modes(object, causes);
    if text(object, &["spec", "capacity", "storage"]).is_empty() {
        causes.push(Cause::required("spec.capacity", ""));
    }
    let policies = ["Delete", "Recycle", "Retain"];
    one_of(
        object,
        &["spec", "persistentVolumeReclaimPolicy"],
        "spec.persistentVolumeReclaimPolicy",
        &policies,
        causes,
    );
    const PLAIN: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let sources = object["spec"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, _)| !PLAIN.contains(&k.as_str()));
    match sources.count() {
        0 => causes.push(Cause::required("spec", "must specify a volume type")),
        1 => {}
        _ => causes.push(Cause::forbidden(
            "spec",
            "may not specify more than 1 volume type",
        )),
    }
    if object["spec"].get("local").is_some() && object["spec"].get("nodeAffinity").is_none() {
        causes.push(Cause::required(
            "spec.nodeAffinity",
            "Local volume requires node affinity",
        ));
    }
}

fn claim(object: &Value, causes: &mut Causes) {
    modes(object, causes);
    let storage = text(object, &["spec", "resources", "requests", "storage"]);
    match Quantity::parse(storage) {
        None => causes.push(Cause::required("spec.resources[storage]", "")),
        Some(q) if q.is_negative() || q.is_zero() => {
            causes.push(Cause::invalid_text(
                "spec.resources[storage]",
                storage,
                "must be greater than zero",
            ));
        }
        Some(_) => {}
    }
    one_of(
        object,
        &["spec", "volumeMode"],
        "spec.volumeMode",
        &["Block", "Filesystem"],
        causes,
    );
    if let Some(s) = object["spec"].get("selector") {
        selector(s, "spec.selector", causes);
    }
}

pub(super) fn amounts(map: Option<&Value>, field: &str, causes: &mut Causes) {
    for (name, amount) in map.and_then(Value::as_object).into_iter().flatten() {
        let quantity = amount.as_str().and_then(Quantity::parse);
        if quantity.is_some_and(Quantity::is_negative) {
            causes.push(Cause::invalid(
                format!("{field}[{name}]"),
                amount,
                "must be greater than or equal to 0",
            ));
        }
    }
}

fn role(object: &Value, cluster: bool, causes: &mut Causes) {
    for (i, rule) in list(object, &["rules"]).iter().enumerate() {
        let path = format!("rules[{i}]");
        if list(rule, &["verbs"]).is_empty() {
            causes.push(Cause::required(
                format!("{path}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        let urls = !list(rule, &["nonResourceURLs"]).is_empty();
        if urls {
            if !cluster {
                let why = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(
                    format!("{path}.nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    why,
                ));
            }
            if !list(rule, &["apiGroups"]).is_empty() || !list(rule, &["resources"]).is_empty() {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(
                    format!("{path}.nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    why,
                ));
            }
            continue;
        }
        for (member, word) in [("apiGroups", "apiGroup"), ("resources", "resource")] {
            if list(rule, &[member]).is_empty() {
                let why = format!(
                    "resource rules must supply at least one {}",
                    if word == "apiGroup" { "api group" } else { word }
                );
                causes.push(Cause::required(format!("{path}.{member}"), why));
            }
        }
    }
}

fn binding(object: &Value, cluster: bool, causes: &mut Causes) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    one_of(
        object,
        &["roleRef", "apiGroup"],
        "roleRef.apiGroup",
        &[GROUP],
        causes,
    );
    let kinds: &[&str] = if cluster {
        &["ClusterRole"]
    } else {
        &["Role", "ClusterRole"]
    };
    one_of(object, &["roleRef", "kind"], "roleRef.kind", kinds, causes);
    for (i, subject) in list(object, &["subjects"]).iter().enumerate() {
        let path = format!("subjects[{i}]");
        match text(subject, &["kind"]) {
            "ServiceAccount" => {
                if cluster && text(subject, &["namespace"]).is_empty() {
                    causes.push(Cause::required(format!("{path}.namespace"), ""));
                }
                one_of(subject, &["apiGroup"], &format!("{path}.apiGroup"), &[""], causes);
            }
            "User" | "Group" => one_of(
                subject,
                &["apiGroup"],
                &format!("{path}.apiGroup"),
                &[GROUP],
                causes,
            ),
            other => causes.push(Cause::unsupported(
                format!("{path}.kind"),
                other,
                &["ServiceAccount", "User", "Group"],
            )),
        }
    }
}

fn priority(object: &Value, causes: &mut Causes) {
    let (name, value) = (
        text(object, &["metadata", "name"]),
        int(object, &["value"]).unwrap_or(0),
    );
    const HIGHEST: i64 = 1_000_000_000;
    let system = ["system-cluster-critical", "system-node-critical"].contains(&name);
    if name.starts_with("system-") && !system {
        let why = "priority class names with 'system-' prefix are reserved for system use only";
        causes.push(Cause::forbidden("metadata.name", why));
    }
    if !system && value > HIGHEST {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        causes.push(Cause::forbidden("value", why));
    }
    one_of(
        object,
        &["preemptionPolicy"],
        "preemptionPolicy",
        &["Never", "PreemptLowerPriority"],
        causes,
    );
}

fn ingress(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    if list(spec, &["rules"]).is_empty() && spec.get("defaultBackend").is_none() {
        causes.push(Cause::invalid(
            "spec",
            spec,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (i, rule) in list(spec, &["rules"]).iter().enumerate() {
        for (j, path) in list(rule, &["http", "paths"]).iter().enumerate() {
            let at = format!("spec.rules[{i}].http.paths[{j}]");
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            one_of(path, &["pathType"], &format!("{at}.pathType"), &types, causes);
            let said = text(path, &["path"]);
            if text(path, &["pathType"]) != "ImplementationSpecific" && !said.starts_with('/') {
                causes.push(Cause::invalid_text(
                    format!("{at}.path"),
                    said,
                    "must be an absolute path",
                ));
            }
        }
    }
}
