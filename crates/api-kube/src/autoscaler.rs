//! HorizontalPodAutoscalers: stored as autoscaling/v2, also shown as v1.
//!
//! Version 1 has a field for the processor's target only. What else there is it keeps in annotations, as JSON, so that
//! an object read and written in version 1 loses nothing.

use serde_json::{Map, Value, json};
use tripod_schema::value::object_mut;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Whether a metric is what version 1 has a field for.
fn is_cpu(metric: &Value, part: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][part]["averageUtilization"].is_number()
}

/// Takes the processor's utilization out of a list; the first one.
fn take_cpu(list: &mut Vec<Value>, part: &str) -> Option<Value> {
    let at = list.iter().position(|m| is_cpu(m, part))?;
    Some(list.remove(at)["resource"][part]["averageUtilization"].take())
}

fn list_of(parent: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match parent.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Version 2 as version 1 shows it.
pub(crate) fn to_old(value: &mut Value) {
    value["apiVersion"] = "autoscaling/v1".into();
    let mut notes = Map::new();
    let mut note = |name: &str, what: Value| drop(notes.insert(name.into(), what.to_string().into()));
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list_of(spec, "metrics");
        if let Some(percent) = take_cpu(&mut metrics, "target") {
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        if !metrics.is_empty() {
            note(METRICS, metrics.iter().map(|m| flat(m, "target")).collect());
        }
        if let Some(behavior) = spec.remove("behavior") {
            note(BEHAVIOR, behavior);
        }
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        let mut metrics = list_of(status, "currentMetrics");
        if let Some(percent) = take_cpu(&mut metrics, "current") {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        if !metrics.is_empty() {
            note(CURRENT, metrics.iter().map(|m| flat(m, "current")).collect());
        }
        let conditions = list_of(status, "conditions");
        if !conditions.is_empty() {
            note(CONDITIONS, conditions.into());
        }
    }
    if !notes.is_empty() {
        object_mut(value, &["metadata", "annotations"]).extend(notes);
    }
}

/// Version 1 as version 2.
pub(crate) fn to_new(mut value: Value) -> Value {
    value["apiVersion"] = "autoscaling/v2".into();
    let mut notes = Map::new();
    if let Some(annotations) = value
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        for name in [METRICS, CURRENT, CONDITIONS, BEHAVIOR] {
            let text = annotations.remove(name).unwrap_or_default();
            let said = text.as_str().and_then(|t| serde_json::from_str(t).ok());
            notes.extend(said.map(|v: Value| (name.to_owned(), v)));
        }
    }
    let list = |note: Option<&Value>, part: &str| -> Vec<Value> {
        let all = note.and_then(Value::as_array).into_iter().flatten();
        all.map(|m| nested(m, part)).collect()
    };
    let cpu = |percent: Value, part: &str| {
        let mut amount = json!({"averageUtilization": percent});
        if part == "target" {
            amount["type"] = "Utilization".into();
        }
        json!({"type": "Resource", "resource": {"name": "cpu", part: amount}})
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list(notes.get(METRICS), "target");
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.insert(0, cpu(percent, "target"));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        if let Some(behavior) = notes.get(BEHAVIOR) {
            spec.insert("behavior".into(), behavior.clone());
        }
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        let mut metrics = list(notes.get(CURRENT), "current");
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
            metrics.insert(0, cpu(percent, "current"));
        }
        if !metrics.is_empty() {
            status.insert("currentMetrics".into(), metrics.into());
        }
        if let Some(conditions) = notes.get(CONDITIONS) {
            status.insert("conditions".into(), conditions.clone());
        }
    }
    value
}

/// Members of a metric's source, by its type.
fn source_name(metric: &Value) -> String {
    let kind = metric["type"].as_str().unwrap_or_default();
    let mut chars = kind.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Names of an amount in version 1, beside those in version 2. `part`: `target` or `current`.
fn names(source: &str, part: &str) -> [(String, &'static str); 3] {
    let of_pod = ["resource", "containerResource"].contains(&source);
    let average = if of_pod || source == "object" || source == "external" || part == "current" {
        format!("{part}AverageValue")
    } else {
        "targetAverageValue".to_owned()
    };
    let value = if part == "target" {
        "targetValue"
    } else {
        "currentValue"
    };
    [
        (format!("{part}AverageUtilization"), "averageUtilization"),
        (average, "averageValue"),
        (value.to_owned(), "value"),
    ]
}

/// A metric as version 1 writes it: amounts and names beside each other.
fn flat(metric: &Value, part: &str) -> Value {
    let source = source_name(metric);
    let mut out = metric.clone();
    let Some(map) = out.get_mut(&source).and_then(Value::as_object_mut) else {
        return out;
    };
    let amount = map.remove(part).unwrap_or_default();
    for (old, new) in names(&source, part) {
        if let Some(said) = amount.get(new) {
            map.insert(old, said.clone());
        }
    }
    if let Some(Value::Object(mut about)) = map.remove("metric") {
        map.extend(about.remove("name").map(|n| ("metricName".to_owned(), n)));
        let selector = if source == "external" {
            "metricSelector"
        } else {
            "selector"
        };
        map.extend(about.remove("selector").map(|s| (selector.to_owned(), s)));
    }
    if let Some(object) = map.remove("describedObject") {
        map.insert("target".into(), object);
    }
    out
}

/// A metric of version 1 as version 2 writes it.
fn nested(metric: &Value, part: &str) -> Value {
    let source = source_name(metric);
    let mut out = metric.clone();
    let Some(map) = out.get_mut(&source).and_then(Value::as_object_mut) else {
        return out;
    };
    if source == "object"
        && let Some(object) = map.remove("target")
    {
        map.insert("describedObject".into(), object);
    }
    let mut amount = Map::new();
    for (old, new) in names(&source, part) {
        amount.extend(map.remove(&old).map(|said| (new.to_owned(), said)));
    }
    if part == "target" {
        let kind = match (
            amount.contains_key("averageUtilization"),
            amount.contains_key("averageValue"),
        ) {
            (true, _) => "Utilization",
            (_, true) => "AverageValue",
            _ => "Value",
        };
        amount.insert("type".into(), kind.into());
    }
    map.insert(part.into(), amount.into());
    if let Some(name) = map.remove("metricName") {
        let mut about = json!({"name": name});
        if let Some(selector) = map.remove("selector").or_else(|| map.remove("metricSelector")) {
            about["selector"] = selector;
        }
        map.insert("metric".into(), about);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_loses_nothing() {
        let two = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "5Mi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "7"}}},
                    {"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": {"kind": "X", "name": "x"}, "target": {"type": "Value", "value": "9"}}},
                    {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "9"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            },
            "status": {
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 9}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut one = two.clone();
        to_old(&mut one);
        assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(one["status"]["currentCPUUtilizationPercentage"], 9);
        assert!(one["spec"].get("metrics").is_none() && one["spec"].get("behavior").is_none());
        let noted = one["metadata"]["annotations"][METRICS].as_str().unwrap();
        assert!(noted.contains("\"targetAverageValue\":\"5Mi\""), "{noted}");
        let mut back = to_new(one);
        object_mut(&mut back, &["metadata"]).remove("annotations");
        assert_eq!(back, two);
    }
}
