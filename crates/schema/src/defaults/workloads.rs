//! What makes pods.

use serde_json::{Map, Value, json};

use super::{each, inner, pod::pod_spec};
use crate::value::{default_to, object_mut};

pub(super) fn apply(resource: &str, object: &mut Value) {
    match resource {
        "podtemplates" => template(object_mut(object, &[])),
        "horizontalpodautoscalers.autoscaling" => autoscaler(object_mut(object, &["spec"])),
        "poddisruptionbudgets.policy" => {}
        "jobs.batch" => job(object_mut(object, &["spec"])),
        "cronjobs.batch" => {
            let spec = object_mut(object, &["spec"]);
            default_to(spec, "concurrencyPolicy", "Allow");
            default_to(spec, "suspend", false);
            default_to(spec, "successfulJobsHistoryLimit", 3);
            default_to(spec, "failedJobsHistoryLimit", 1);
            if let Some(job_spec) = inner(spec, "jobTemplate").and_then(|t| inner(t, "spec")) {
                template(job_spec);
            }
        }
        "replicationcontrollers" => {
            let labels = object.pointer("/spec/template/metadata/labels").cloned();
            if let Some(labels) = labels {
                default_to(object_mut(object, &["spec"]), "selector", labels.clone());
                if object.pointer("/metadata/labels").is_none() {
                    object_mut(object, &["metadata"]).insert("labels".into(), labels);
                }
            }
            let spec = object_mut(object, &["spec"]);
            default_to(spec, "replicas", 1);
            template(spec);
        }
        _ => {
            let spec = object_mut(object, &["spec"]);
            template(spec);
            match resource {
                "deployments.apps" => deployment(spec),
                "replicasets.apps" => default_to(spec, "replicas", 1),
                "statefulsets.apps" => stateful(spec),
                _ => daemons(spec),
            }
        }
    }
}

fn template(spec: &mut Map<String, Value>) {
    if let Some(template) = inner(spec, "template") {
        let meta = template.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(meta) = meta {
            meta.remove("creationTimestamp");
        }
        if let Some(spec) = inner(template, "spec") {
            pod_spec(spec);
        }
    }
}

fn deployment(spec: &mut Map<String, Value>) {
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    let strategy = spec.entry("strategy").or_insert_with(|| json!({}));
    let Value::Object(strategy) = strategy else { return };
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
        if let Value::Object(rolling) = rolling {
            default_to(rolling, "maxUnavailable", "25%");
            default_to(rolling, "maxSurge", "25%");
        }
    }
}

fn stateful(spec: &mut Map<String, Value>) {
    default_to(spec, "replicas", 1);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if let Value::Object(strategy) = strategy {
        default_to(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            if let Value::Object(rolling) = rolling {
                default_to(rolling, "partition", 0);
            }
        }
    }
    for claim in each(spec, "volumeClaimTemplates") {
        default_to(claim, "apiVersion", "v1");
        default_to(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = inner(claim, "spec") {
            default_to(spec, "volumeMode", "Filesystem");
        }
        default_to(claim, "status", json!({"phase": "Pending"}));
    }
}

fn daemons(spec: &mut Map<String, Value>) {
    default_to(spec, "revisionHistoryLimit", 10);
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if let Value::Object(strategy) = strategy {
        default_to(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            if let Value::Object(rolling) = rolling {
                default_to(rolling, "maxUnavailable", 1);
                default_to(rolling, "maxSurge", 0);
            }
        }
    }
}

fn job(spec: &mut Map<String, Value>) {
    template(spec);
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    default_to(spec, "parallelism", 1);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    default_to(
        spec,
        "backoffLimit",
        if per_index { i64::from(i32::MAX) } else { 6 },
    );
    let rules = spec.contains_key("podFailurePolicy");
    default_to(
        spec,
        "podReplacementPolicy",
        if rules { "Failed" } else { "TerminatingOrFailed" },
    );
    if let Some(policy) = inner(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                default_to(pattern, "status", "True");
            }
        }
    }
}

fn autoscaler(spec: &mut Map<String, Value>) {
    default_to(spec, "minReplicas", 1);
    if spec.contains_key("metrics") || spec.contains_key("targetCPUUtilizationPercentage") {
        return;
    }
    spec.insert(
        "metrics".into(),
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
    );
}
