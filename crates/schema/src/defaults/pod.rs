//! Pods.

use serde_json::{Map, Value, json};

use super::{each, inner};
use crate::quantity::Quantity;
use crate::value::{default_to, list, text};

/// Fills in a pod's spec.
pub fn pod_spec(spec: &mut Map<String, Value>) {
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "schedulerName", "default-scheduler");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    // Two names of one thing.
    match (
        spec.get("serviceAccountName").cloned(),
        spec.get("serviceAccount").cloned(),
    ) {
        (Some(name), _) => drop(spec.insert("serviceAccount".into(), name)),
        (None, Some(name)) => drop(spec.insert("serviceAccountName".into(), name)),
        (None, None) => {}
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for member in ["initContainers", "containers", "ephemeralContainers"] {
        for c in each(spec, member) {
            container(c, host_network);
        }
    }
    if let Some(overhead) = inner(spec, "resources") {
        requests(overhead);
    }
    for volume in each(spec, "volumes") {
        self::volume(volume);
    }
    for constraint in each(spec, "topologySpreadConstraints") {
        default_to(constraint, "nodeAffinityPolicy", "Honor");
        default_to(constraint, "nodeTaintsPolicy", "Ignore");
        // Shown only where they were said.
        constraint.retain(|k, v| {
            !(k == "nodeAffinityPolicy" && v == "Honor" || k == "nodeTaintsPolicy" && v == "Ignore")
        });
    }
}

fn container(c: &mut Map<String, Value>, host_network: bool) {
    default_to(c, "resources", json!({}));
    default_to(c, "terminationMessagePath", "/dev/termination-log");
    default_to(c, "terminationMessagePolicy", "File");
    let latest = is_latest(c.get("image").and_then(Value::as_str).unwrap_or_default());
    default_to(
        c,
        "imagePullPolicy",
        if latest { "Always" } else { "IfNotPresent" },
    );
    for port in each(c, "ports") {
        default_to(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default_to(port, "hostPort", number);
        }
    }
    if let Some(resources) = inner(c, "resources") {
        requests(resources);
    }
    for env in each(c, "env") {
        if let Some(reference) = inner(env, "valueFrom").and_then(|v| inner(v, "fieldRef")) {
            default_to(reference, "apiVersion", "v1");
        }
        if let Some(reference) = inner(env, "valueFrom").and_then(|v| inner(v, "resourceFieldRef")) {
            default_to(reference, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(c, probe) {
            default_to(probe, "timeoutSeconds", 1);
            default_to(probe, "periodSeconds", 10);
            default_to(probe, "successThreshold", 1);
            default_to(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    if let Some(lifecycle) = inner(c, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = inner(lifecycle, hook) {
                handler(hook);
            }
        }
    }
    if let Some(context) = inner(c, "securityContext") {
        let mount = context.get("procMount").cloned();
        if mount.is_some_and(|m| m.is_null()) {
            context.remove("procMount");
        }
    }
}

fn handler(handler: &mut Map<String, Value>) {
    if let Some(get) = inner(handler, "httpGet") {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
    if let Some(grpc) = inner(handler, "grpc") {
        default_to(grpc, "service", "");
    }
}

/// Limits are also requests where none are said.
fn requests(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Value::Object(requests) = requests {
        for (name, amount) in limits {
            default_to(requests, &name, amount);
        }
    }
}

/// Whether an image's name says no tag, or `latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn volume(volume: &mut Map<String, Value>) {
    let sources = volume.keys().filter(|k| *k != "name").count();
    if sources == 0 {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = inner(volume, source) {
            default_to(source, "defaultMode", 0o644);
        }
    }
    let downward = |items: &mut Map<String, Value>| {
        for item in each(items, "items") {
            if let Some(reference) = inner(item, "fieldRef") {
                default_to(reference, "apiVersion", "v1");
            }
            if let Some(reference) = inner(item, "resourceFieldRef") {
                default_to(reference, "divisor", "0");
            }
        }
    };
    if let Some(api) = inner(volume, "downwardAPI") {
        downward(api);
    }
    if let Some(projected) = inner(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = inner(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(api) = inner(source, "downwardAPI") {
                downward(api);
            }
        }
    }
    if let Some(path) = inner(volume, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(iscsi) = inner(volume, "iscsi") {
        default_to(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = inner(volume, "rbd") {
        default_to(rbd, "pool", "rbd");
        default_to(rbd, "user", "admin");
        default_to(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(image) = inner(volume, "image") {
        let latest = is_latest(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        default_to(
            image,
            "pullPolicy",
            if latest { "Always" } else { "IfNotPresent" },
        );
    }
    if let Some(ephemeral) = inner(volume, "ephemeral")
        && let Some(spec) = inner(ephemeral, "volumeClaimTemplate").and_then(|t| inner(t, "spec"))
    {
        default_to(spec, "volumeMode", "Filesystem");
    }
}

/// The quality of service that a pod's requests and limits come to.
pub fn qos_class(spec: &Value) -> &'static str {
    let containers = list(spec, &["containers"])
        .iter()
        .chain(list(spec, &["initContainers"]));
    let (mut any, mut guaranteed) = (false, true);
    for c in containers {
        for resource in ["cpu", "memory"] {
            let amount = |what: &str| {
                let text = text(c, &["resources", what, resource]);
                Quantity::parse(text).filter(|q| !q.is_zero())
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
