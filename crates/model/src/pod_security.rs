//! The Pod Security Standards: what a level forbids, in the words of the admission that checks it.

use serde_json::Value;

/// What a pod of this specification does that the level (`baseline`, `restricted`; anything else forbids nothing) does
/// not allow.
pub fn faults(level: &str, spec: &Value, annotations: &Value) -> Vec<String> {
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

fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |v, name| v.get(name))
}

fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

fn is_true(value: &Value, path: &[&str]) -> bool {
    at(value, path) == Some(&Value::Bool(true))
}

fn list<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels() {
        let spec =
            json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}], "hostPID": true});
        assert!(faults("privileged", &spec, &Value::Null).is_empty());
        let found = faults("baseline", &spec, &Value::Null);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].starts_with("privileged (container \"c\""));
        assert!(faults("restricted", &spec, &Value::Null).len() > 4);
    }
}
