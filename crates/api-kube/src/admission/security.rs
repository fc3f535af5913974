//! Pod security: what the standards that a namespace enforces forbid.

use serde_json::Value;
use tripod_schema::failure::Result;
use tripod_schema::value::{at, is_true, list, text};

use super::{Scene, refused};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// Judges a pod, or a template of pods, by its namespace's labels.
pub(super) fn check(scene: &Scene<'_>, object: &Value) -> Result<()> {
    let pod = scene.kind.resource() == "pods";
    let (spec, meta) = if pod {
        (&object["spec"], &object["metadata"])
    } else {
        let template = match scene.kind.resource().as_str() {
            "cronjobs.batch" => object.pointer("/spec/jobTemplate/spec/template"),
            "podtemplates" => object.pointer("/template"),
            "deployments.apps"
            | "replicasets.apps"
            | "statefulsets.apps"
            | "daemonsets.apps"
            | "jobs.batch"
            | "replicationcontrollers" => object.pointer("/spec/template"),
            _ => None,
        };
        let Some(template) = template else { return Ok(()) };
        (&template["spec"], &template["metadata"])
    };
    let Some(namespace) = scene.get("namespaces", "", scene.namespace) else {
        return Ok(());
    };
    let label = |mode: &str| text(&namespace, &["metadata", "labels", &format!("{PREFIX}{mode}")]).to_owned();
    let annotations = &meta["annotations"];
    for mode in ["enforce", "warn"] {
        let level = label(mode);
        let faults = faults(&level, spec, annotations);
        if faults.is_empty() {
            continue;
        }
        let text = format!("violates PodSecurity \"{level}:latest\": {}", faults.join(", "));
        if mode == "enforce" && pod {
            return Err(refused(scene, object, text));
        }
        if mode == "warn" || !pod {
            scene.call.warn(if pod {
                text
            } else {
                format!("would {}", text.replacen("violates", "violate", 1))
            });
        }
    }
    Ok(())
}

fn faults(level: &str, spec: &Value, annotations: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if level == "baseline" || level == "restricted" {
        baseline(spec, annotations, &mut faults);
    }
    if level == "restricted" {
        restricted(spec, &mut faults);
    }
    faults
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|member| list(spec, &[member]))
}

/// The names of the containers for which something holds, as messages list them.
fn which(spec: &Value, holds: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<String> = containers(spec)
        .filter(|c| holds(c))
        .map(|c| format!("{:?}", text(c, &["name"])))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        many => Some(format!("containers {}", many.join(", "))),
    }
}

fn baseline(spec: &Value, annotations: &Value, faults: &mut Vec<String>) {
    let hosts: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|h| is_true(spec, &[h]))
        .map(|h| format!("{h}=true"))
        .collect();
    if !hosts.is_empty() {
        faults.push(format!("host namespaces ({})", hosts.join(", ")));
    }
    if let Some(who) = which(spec, |c| is_true(c, &["securityContext", "privileged"])) {
        faults.push(format!(
            "privileged ({who} must not set securityContext.privileged=true)"
        ));
    }
    const ALLOWED: [&str; 14] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
        "CAP_NONE",
    ];
    let adds = |c: &Value| {
        list(c, &["securityContext", "capabilities", "add"])
            .iter()
            .any(|cap| !cap.as_str().is_some_and(|cap| ALLOWED.contains(&cap)))
    };
    if let Some(who) = which(spec, adds) {
        faults.push(format!("non-default capabilities ({who} must not include added capabilities in securityContext.capabilities.add)"));
    }
    let volumes: Vec<String> = list(spec, &["volumes"])
        .iter()
        .filter(|v| v.get("hostPath").is_some())
        .map(|v| format!("{:?}", text(v, &["name"])))
        .collect();
    if !volumes.is_empty() {
        let word = if volumes.len() == 1 { "volume" } else { "volumes" };
        faults.push(format!("hostPath volumes ({word} {})", volumes.join(", ")));
    }
    let ports = |c: &Value| {
        list(c, &["ports"])
            .iter()
            .any(|p| p["hostPort"].as_i64().unwrap_or(0) != 0)
    };
    if let Some(who) = which(spec, ports) {
        faults.push(format!("hostPort ({who} uses a hostPort)"));
    }
    let unconfined = |v: &Value| text(v, &["securityContext", "seccompProfile", "type"]) == "Unconfined";
    if unconfined(spec) || containers(spec).any(unconfined) {
        faults.push("seccompProfile (must not be Unconfined)".into());
    }
    let apparmor = |v: &Value| text(v, &["securityContext", "appArmorProfile", "type"]) == "Unconfined";
    if apparmor(spec) || containers(spec).any(apparmor) {
        faults.push("forbidden AppArmor profile (Unconfined)".into());
    }
    if annotations.as_object().is_some_and(|a| {
        a.iter().any(|(k, v)| {
            k.starts_with("container.apparmor.security.beta.kubernetes.io/") && v == "unconfined"
        })
    }) {
        faults.push("forbidden AppArmor profile (unconfined)".into());
    }
    if let Some(who) = which(spec, |c| text(c, &["securityContext", "procMount"]) == "Unmasked") {
        faults.push(format!(
            "procMount ({who} must not set securityContext.procMount to \"Unmasked\")"
        ));
    }
    const SAFE: [&str; 10] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    ];
    let sysctls: Vec<&str> = list(spec, &["securityContext", "sysctls"])
        .iter()
        .map(|s| text(s, &["name"]))
        .filter(|s| !SAFE.contains(s))
        .collect();
    if !sysctls.is_empty() {
        faults.push(format!("forbidden sysctls ({})", sysctls.join(", ")));
    }
}

fn restricted(spec: &Value, faults: &mut Vec<String>) {
    if let Some(who) = which(spec, |c| {
        at(c, &["securityContext", "allowPrivilegeEscalation"]) != Some(&Value::Bool(false))
    }) {
        faults.push(format!("allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"));
    }
    let keeps = |c: &Value| {
        !list(c, &["securityContext", "capabilities", "drop"])
            .iter()
            .any(|cap| cap == "ALL")
    };
    let adds = |c: &Value| {
        list(c, &["securityContext", "capabilities", "add"])
            .iter()
            .any(|cap| cap != "NET_BIND_SERVICE")
    };
    if let Some(who) = which(spec, |c| keeps(c) || adds(c)) {
        faults.push(format!(
            "unrestricted capabilities ({who} must set securityContext.capabilities.drop=[\"ALL\"])"
        ));
    }
    const VOLUMES: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "image",
    ];
    let bad: Vec<String> = list(spec, &["volumes"])
        .iter()
        .filter(|v| {
            v.as_object()
                .is_some_and(|m| m.keys().any(|k| k != "name" && !VOLUMES.contains(&k.as_str())))
        })
        .map(|v| format!("{:?}", text(v, &["name"])))
        .collect();
    if !bad.is_empty() {
        faults.push(format!(
            "restricted volume types (volume {} uses a restricted volume type)",
            bad.join(", ")
        ));
    }
    let pod_says = at(spec, &["securityContext", "runAsNonRoot"]) == Some(&Value::Bool(true));
    let root = |c: &Value| match at(c, &["securityContext", "runAsNonRoot"]) {
        Some(said) => *said != Value::Bool(true),
        None => !pod_says,
    };
    if let Some(who) = which(spec, root) {
        faults.push(format!(
            "runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"
        ));
    }
    let zero = |v: &Value| at(v, &["securityContext", "runAsUser"]).and_then(Value::as_i64) == Some(0);
    if zero(spec) || containers(spec).any(zero) {
        faults.push("runAsUser=0 (pod must not set runAsUser=0)".into());
    }
    let fine = |v: &Value| {
        ["RuntimeDefault", "Localhost"].contains(&text(v, &["securityContext", "seccompProfile", "type"]))
    };
    let pod_fine = fine(spec);
    if let Some(who) = which(spec, |c| {
        !(fine(c) || pod_fine && c.pointer("/securityContext/seccompProfile").is_none())
    }) {
        faults.push(format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        ));
    }
}
