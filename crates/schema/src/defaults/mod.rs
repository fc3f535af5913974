//! Defaulting: what an object says when it does not say it.

mod core;
mod pod;
mod workloads;

use serde_json::{Map, Value};

use crate::kinds::Kind;

pub use pod::{pod_spec, qos_class};

/// Fills in the defaults of a kind.
pub fn apply(kind: &Kind, object: &mut Value) {
    let resource = kind.resource();
    match resource.as_str() {
        "pods" => {
            pod::pod_spec(crate::value::object_mut(object, &["spec"]));
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
        | "horizontalpodautoscalers.autoscaling" => workloads::apply(&resource, object),
        _ => core::apply(&resource, object),
    }
}

/// The objects of a list member.
pub(crate) fn each<'a>(
    map: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = map.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// An object member, if it is there.
pub(crate) fn inner<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::registry;
    use serde_json::json;

    #[test]
    fn deployments() {
        let kind = registry().find("apps", "v1", "deployments").unwrap();
        let mut d = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}});
        apply(kind, &mut d);
        let expected = json!({"metadata": {"name": "a"}, "spec": {
            "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
                    "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30}}}});
        assert_eq!(d, expected);
        let before = d.clone();
        apply(kind, &mut d);
        assert_eq!(d, before, "defaulting twice changes nothing");
    }

    #[test]
    fn services_and_claims() {
        let mut s = json!({"spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        apply(registry().find("", "v1", "services").unwrap(), &mut s);
        assert_eq!(
            s["spec"],
            json!({"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "type": "NodePort", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"})
        );
        let mut secret = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
        apply(registry().find("", "v1", "secrets").unwrap(), &mut secret);
        assert_eq!(
            secret,
            json!({"data": {"a": "eA==", "b": "eQ=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn quality_of_service() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            let spec = json!({"containers": [{"name": "a", "resources": resources}]});
            assert_eq!(qos_class(&spec), class);
        }
    }
}
