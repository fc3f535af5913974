//! Kernel parameters of pods, and what a resize of a running pod may not change.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Causes;
use crate::defaults::qos_class;
use crate::failure::Cause;
use crate::value::{at, list, text};

/// Names of kernel parameters: segments between dots or slashes.
pub(super) fn sysctls(spec: &Value, field: &str, causes: &mut Causes) {
    let segment = |s: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = s.as_bytes();
        bytes.iter().all(|b| inner(*b)) && outer(bytes.first()) && outer(bytes.last())
    };
    let mut names = BTreeSet::new();
    for (i, sysctl) in list(spec, &["securityContext", "sysctls"]).iter().enumerate() {
        let path = format!("{field}.securityContext.sysctls[{i}].name");
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(path, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
            let why = "must have at most 253 characters and match regex \
                       ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            causes.push(Cause::invalid_text(path, name, why));
        } else if !names.insert(name.replace('/', ".")) {
            causes.push(Cause::duplicate(path, &name.into()));
        }
    }
}

/// A resize changes processors and memory, takes no limit away, and leaves the class of service as it is.
pub(super) fn resize(old: &Value, new: &Value, causes: &mut Causes) {
    for member in ["containers", "initContainers"] {
        let before = list(old, &["spec", member]);
        for (i, (a, b)) in before.iter().zip(list(new, &["spec", member])).enumerate() {
            if a.get("resources") == b.get("resources") {
                continue;
            }
            let path = format!("spec.{member}[{i}].resources");
            if member == "initContainers" && text(a, &["restartPolicy"]) != "Always" {
                let why = "resources for non-sidecar init containers are immutable";
                causes.push(Cause::forbidden(path, why));
                continue;
            }
            for list in ["limits", "requests"] {
                changed_list(a, b, list, &format!("{path}.{list}"), causes);
            }
        }
    }
    if !causes.is_empty() {
        return;
    }
    let (before, after) = (qos_class(&old["spec"]), qos_class(&new["spec"]));
    if before != after {
        let why = "Pod QOS Class may not change as a result of resizing";
        causes.push(Cause::invalid_text("spec", after, why));
    }
}

fn changed_list(old: &Value, new: &Value, list: &str, path: &str, causes: &mut Causes) {
    let amounts = |c: &Value| {
        at(c, &["resources", list])
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (before, after) = (amounts(old), amounts(new));
    for (name, amount) in &before {
        let what = list.trim_end_matches('s');
        match after.get(name) {
            None if name == "memory" || name == "cpu" => {
                let why = format!("resource {what}s cannot be removed");
                causes.push(Cause::forbidden(path, why));
            }
            same if same != Some(amount) && name != "memory" && name != "cpu" => {
                causes.push(Cause::forbidden(
                    path,
                    "only cpu and memory resources are mutable",
                ));
            }
            _ => {}
        }
    }
    for name in after.keys() {
        if !before.contains_key(name) && name != "memory" && name != "cpu" {
            causes.push(Cause::forbidden(
                path,
                "only cpu and memory resources are mutable",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_sysctls() {
        let check = |name: &str| {
            let mut causes = Vec::new();
            let spec = json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            sysctls(&spec, "spec", &mut causes);
            causes.is_empty()
        };
        for (name, good) in [
            ("kernel.shm_rmid_forced", true),
            ("net/ipv4/ip_local_port_range", true),
            ("kernel.shmmax", true),
            ("foo-", false),
            ("bar..", false),
            ("", false),
            ("A.b", false),
        ] {
            assert_eq!(check(name), good, "{name}");
        }
    }

    #[test]
    fn resizes() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let old =
            pod(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2", "memory": "1Gi"}}));
        for (new, wrong) in [
            (
                json!({"limits": {"cpu": "3", "memory": "1Gi"}, "requests": {"cpu": "3", "memory": "1Gi"}}),
                "",
            ),
            (
                json!({"limits": {"cpu": "3", "memory": "1Gi"}, "requests": {"cpu": "2", "memory": "1Gi"}}),
                "Pod QOS Class may not change",
            ),
            (
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2", "memory": "1Gi"}}),
                "resource limits cannot be removed",
            ),
            (
                json!({"limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"},
                       "requests": {"cpu": "2", "memory": "1Gi"}}),
                "only cpu and memory",
            ),
        ] {
            let mut causes = Vec::new();
            resize(&old, &pod(new.clone()), &mut causes);
            let text = format!("{causes:?}");
            assert_eq!(causes.is_empty(), wrong.is_empty(), "{new}: {text}");
            assert!(text.contains(wrong), "{new}: {text}");
        }
    }
}
