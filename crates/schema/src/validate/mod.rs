//! Validation: what is wrong with an object, in the words of the Kubernetes API.

mod bounds;
mod core;
mod limits;
mod meta;
mod pod;
mod required;
mod update;
mod workloads;

use serde_json::Value;

use crate::failure::{Cause, Failure, Result};
use crate::kinds::Kind;

/// What was found.
pub(crate) type Causes = Vec<Cause>;

/// Judges a new object that is complete.
///
/// # Errors
/// 422 with every fault.
pub fn create(kind: &Kind, object: &Value) -> Result<()> {
    let mut causes = Vec::new();
    meta::check(kind, object, &mut causes);
    spec(kind, object, &mut causes);
    verdict(kind, object, causes)
}

/// Judges an object that is about to replace another.
///
/// # Errors
/// 422 with every fault.
pub fn update(kind: &Kind, old: &Value, new: &Value, subresource: Option<&str>) -> Result<()> {
    let mut causes = Vec::new();
    meta::check(kind, new, &mut causes);
    meta::check_update(old, new, &mut causes);
    if subresource.is_none_or(|s| s != "status" && s != "approval") {
        // What is invalid already may stay, so that it can be mended, or go.
        if spec_of(old) != spec_of(new) {
            spec(kind, new, &mut causes);
        }
        update::check(kind, old, new, subresource, &mut causes);
    }
    verdict(kind, new, causes)
}

fn spec_of(object: &Value) -> Vec<(&String, &Value)> {
    let members = object.as_object().into_iter().flatten();
    members
        .filter(|(k, _)| *k != "metadata" && *k != "status")
        .collect()
}

fn verdict(kind: &Kind, object: &Value, causes: Causes) -> Result<()> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(kind, crate::value::name(object), causes))
}

fn spec(kind: &Kind, object: &Value, causes: &mut Causes) {
    required::check(kind, object, causes);
    if !causes.is_empty() {
        // What is missing would be told twice.
        return;
    }
    let resource = kind.resource();
    match resource.as_str() {
        "pods" => {
            pod::check(&object["spec"], "spec", causes);
            limits::sysctls(&object["spec"], "spec", causes);
        }
        "deployments.apps"
        | "replicasets.apps"
        | "statefulsets.apps"
        | "daemonsets.apps"
        | "replicationcontrollers"
        | "jobs.batch"
        | "cronjobs.batch"
        | "podtemplates"
        | "poddisruptionbudgets.policy"
        | "horizontalpodautoscalers.autoscaling" => workloads::check(&resource, object, causes),
        _ => core::check(&resource, object, causes),
    }
}

/// A number that must not be less than zero.
fn natural(object: &Value, path: &[&str], causes: &mut Causes) {
    if let Some(number) = crate::value::int(object, path).filter(|n| *n < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid(path.join("."), &number.into(), why));
    }
}

/// A text that must be one of a few; nothing where it is not there.
fn one_of(object: &Value, path: &[&str], field: &str, known: &[&str], causes: &mut Causes) {
    match crate::value::at(object, path) {
        Some(Value::String(text)) if !known.contains(&text.as_str()) => {
            causes.push(Cause::unsupported(field, text, known));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::registry;
    use serde_json::json;

    fn of(group: &str, plural: &str, object: Value) -> String {
        let kind = registry().preferred(group, plural).unwrap();
        let mut object = object;
        crate::defaults::apply(kind, &mut object);
        match create(kind, &object) {
            Ok(()) => String::new(),
            Err(failure) => {
                assert_eq!((failure.code, failure.reason), (422, "Invalid"));
                failure.message
            }
        }
    }

    #[test]
    fn pods() {
        let pod = |spec: Value| {
            of(
                "",
                "pods",
                json!({"metadata": {"name": "a", "namespace": "d"}, "spec": spec}),
            )
        };
        assert_eq!(pod(json!({"containers": [{"name": "c", "image": "i"}]})), "");
        assert_eq!(
            pod(json!({})),
            "Pod \"a\" is invalid: spec.containers: Required value"
        );
        assert_eq!(
            pod(json!({"containers": [{"name": "C_", "image": "i"}]}))
                .split(": a lowercase")
                .next()
                .unwrap(),
            "Pod \"a\" is invalid: spec.containers[0].name: Invalid value: \"C_\""
        );
        assert_eq!(
            pod(json!({"containers": [{"name": "c", "image": ""}]})),
            "Pod \"a\" is invalid: spec.containers[0].image: Required value"
        );
        assert!(
            pod(json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}))
                .contains("spec.containers[1].name: Duplicate value: \"c\"")
        );
        assert!(pod(json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]})).contains("spec.containers[0].volumeMounts[0].name: Not found: \"v\""));
        assert!(
            pod(json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]}))
                .contains("spec.restartPolicy: Unsupported value: \"Sometimes\"")
        );
        assert!(pod(json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]})).contains("must be less than or equal to cpu limit of 1"));
        assert!(
            pod(json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}]}))
                .contains("spec.containers[0].ports[0].containerPort: Invalid value: 70000")
        );
    }

    #[test]
    fn metadata_and_data() {
        let config = |meta: Value, data: Value| of("", "configmaps", json!({"metadata": meta, "data": data}));
        assert_eq!(config(json!({"name": "a"}), json!({"k": "v"})), "");
        assert!(
            config(json!({"name": "A"}), json!({}))
                .contains("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain")
        );
        assert!(
            config(json!({"name": "a", "labels": {"-": "b"}}), json!({}))
                .contains("metadata.labels: Invalid value: \"-\"")
        );
        assert!(
            config(json!({"name": "a"}), json!({"a/b": "v"})).contains("data[a/b]: Invalid value: \"a/b\"")
        );
    }

    #[test]
    fn workloads_and_services() {
        let deployment = |selector: Value, labels: Value| {
            of(
                "apps",
                "deployments",
                json!({"metadata": {"name": "a"}, "spec": {"selector": selector, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            )
        };
        assert_eq!(
            deployment(json!({"matchLabels": {"a": "b"}}), json!({"a": "b"})),
            ""
        );
        assert!(
            deployment(json!({"matchLabels": {"a": "b"}}), json!({"a": "c"}))
                .contains("`selector` does not match template `labels`")
        );
        let service = |spec: Value| of("", "services", json!({"metadata": {"name": "a"}, "spec": spec}));
        assert_eq!(service(json!({"ports": [{"port": 80}]})), "");
        assert!(service(json!({})).contains("spec.ports: Required value"));
        assert!(
            service(json!({"ports": [{"port": 80}, {"port": 81}]}))
                .contains("spec.ports[0].name: Required value")
        );
        assert!(
            service(json!({"ports": [{"port": 0}]}))
                .contains("spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive")
        );
        assert!(
            service(json!({"type": "Nope", "ports": [{"port": 80}]}))
                .contains("spec.type: Unsupported value: \"Nope\"")
        );
    }

    #[test]
    fn what_cannot_change() {
        let kind = registry().preferred("", "configmaps").unwrap();
        let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "b"}});
        let new = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "c"}});
        assert_eq!(
            update(kind, &old, &new, None).unwrap_err().message,
            "ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
        );
        let kind = registry().preferred("", "pods").unwrap();
        let pod = |image: &str, node: &str| json!({"metadata": {"name": "a"}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": image}]}});
        assert!(update(kind, &pod("i", "n"), &pod("j", "n"), None).is_ok());
        let refused = update(kind, &pod("i", "n"), &pod("i", "m"), None).unwrap_err();
        assert!(
            refused
                .message
                .contains("pod updates may not change fields other than")
        );
    }
}
