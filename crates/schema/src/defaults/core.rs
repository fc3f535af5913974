//! Services, storage, configuration and the rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{each, inner};
use crate::value::{default_to, object_mut};

pub(super) fn apply(resource: &str, object: &mut Value) {
    let map = object_mut(object, &[]);
    match resource {
        "services" => service(object_mut(object, &["spec"])),
        "secrets" => secret(map),
        "endpoints" => {
            for subset in each(map, "subsets") {
                for port in each(subset, "ports") {
                    default_to(port, "protocol", "TCP");
                }
            }
        }
        "endpointslices.discovery.k8s.io" => {
            for port in each(map, "ports") {
                default_to(port, "protocol", "TCP");
                default_to(port, "name", "");
            }
        }
        "persistentvolumes" => {
            let spec = object_mut(object, &["spec"]);
            default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            if let Some(path) = inner(spec, "hostPath") {
                default_to(path, "type", "");
            }
        }
        "persistentvolumeclaims" => {
            default_to(object_mut(object, &["spec"]), "volumeMode", "Filesystem");
        }
        "limitranges" => {
            for item in each(object_mut(object, &["spec"]), "limits") {
                limit(item);
            }
        }
        "storageclasses.storage.k8s.io" => {
            default_to(map, "reclaimPolicy", "Delete");
            default_to(map, "volumeBindingMode", "Immediate");
        }
        "priorityclasses.scheduling.k8s.io" => default_to(map, "preemptionPolicy", "PreemptLowerPriority"),
        "networkpolicies.networking.k8s.io" => policy(object_mut(object, &["spec"])),
        "ingresses.networking.k8s.io" => {}
        "ingressclasses.networking.k8s.io" => {
            if let Some(parameters) = inner(object_mut(object, &["spec"]), "parameters") {
                default_to(parameters, "scope", "Cluster");
            }
        }
        "csidrivers.storage.k8s.io" => driver(object_mut(object, &["spec"])),
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            default_to(map, "rules", Value::Null);
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            binding(map);
        }
        "certificatesigningrequests.certificates.k8s.io" => {
            let spec = object_mut(object, &["spec"]);
            if !spec.contains_key("usages") {
                spec.insert("usages".into(), json!(["digital signature", "key encipherment"]));
            }
        }
        _ => {}
    }
}

fn service(spec: &mut Map<String, Value>) {
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    for port in each(spec, "ports") {
        default_to(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        let unset = port.get("targetPort").is_none_or(|p| p == 0 || p == "");
        if unset {
            port.insert("targetPort".into(), number);
        }
    }
    if spec["sessionAffinity"] == "ClientIP" {
        let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            let ip = config.entry("clientIP").or_insert_with(|| json!({}));
            if let Some(ip) = ip.as_object_mut() {
                default_to(ip, "timeoutSeconds", 10_800);
            }
        }
    }
    let ty = spec["type"].as_str().unwrap_or_default().to_owned();
    let external_ips = spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|l| !l.is_empty());
    if ty == "NodePort" || ty == "LoadBalancer" || external_ips && ty == "ClusterIP" {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if ty != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Texts become data.
fn secret(map: &mut Map<String, Value>) {
    default_to(map, "type", "Opaque");
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        let data = map.entry("data").or_insert_with(|| json!({}));
        if let Value::Object(data) = data {
            for (key, value) in texts {
                let text = value.as_str().unwrap_or_default();
                data.insert(key, STANDARD.encode(text).into());
            }
        }
    }
}

fn limit(item: &mut Map<String, Value>) {
    if item.get("type").and_then(Value::as_str) != Some("Container") {
        return;
    }
    let fill = |item: &mut Map<String, Value>, from: &str, to: &str| {
        let Some(Value::Object(from)) = item.get(from).cloned() else {
            return;
        };
        let target = item.entry(to).or_insert_with(|| json!({}));
        if let Value::Object(target) = target {
            for (name, amount) in from {
                default_to(target, &name, amount);
            }
        }
    };
    fill(item, "max", "default");
    fill(item, "default", "defaultRequest");
    fill(item, "min", "defaultRequest");
}

fn policy(spec: &mut Map<String, Value>) {
    if !spec.contains_key("policyTypes") {
        let mut types = vec!["Ingress"];
        if spec.contains_key("egress") {
            types.push("Egress");
        }
        spec.insert("policyTypes".into(), types.into());
    }
    for (list, _) in [("ingress", "from"), ("egress", "to")] {
        for rule in each(spec, list) {
            for port in each(rule, "ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    }
}

fn driver(spec: &mut Map<String, Value>) {
    default_to(spec, "attachRequired", true);
    default_to(spec, "podInfoOnMount", false);
    default_to(spec, "storageCapacity", false);
    default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    default_to(spec, "volumeLifecycleModes", json!(["Persistent"]));
    default_to(spec, "requiresRepublish", false);
    default_to(spec, "seLinuxMount", false);
}

fn binding(map: &mut Map<String, Value>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = inner(map, "roleRef") {
        default_to(role, "apiGroup", GROUP);
    }
    for subject in each(map, "subjects") {
        if let Some("User" | "Group") = subject.get("kind").and_then(Value::as_str) {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}
