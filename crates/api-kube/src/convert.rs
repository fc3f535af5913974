//! Kinds that are shown in another form than they are stored in.

use bytes::Bytes;
use serde_json::Value;
use tripod_schema::Kind;

/// Whether stored bytes of this kind are served as they are.
pub(crate) fn is_plain(kind: &Kind) -> bool {
    !matches!(
        (kind.group, kind.version, kind.plural),
        ("events.k8s.io", ..) | ("autoscaling", "v1", _) | ("swarm.tripod.dev", _, "swarmclusters")
    )
}

/// A stored object in the form of a kind.
pub(crate) fn outward(kind: &Kind, stored: &Value) -> Value {
    let mut value = stored.clone();
    match (kind.group, kind.version, kind.plural) {
        ("swarm.tripod.dev", _, "swarmclusters") => {
            // Its status holds the authority's key, tokens and the unlock key.
            if let Some(status) = value["status"].as_object_mut() {
                status.retain(|key, _| {
                    !["caKey", "workerToken", "managerToken", "unlockKey"].contains(&key.as_str())
                });
            }
        }
        ("events.k8s.io", ..) => value = to_new_event(value),
        ("autoscaling", "v1", _) => to_old_autoscaler(&mut value),
        _ => {}
    }
    value
}

/// An object of a kind in its stored form.
pub(crate) fn inward(kind: &Kind, value: Value) -> Value {
    match kind.group {
        "events.k8s.io" => to_core_event(value),
        "autoscaling" if kind.version == "v1" => to_new_autoscaler(value),
        _ => value,
    }
}

/// The bytes of a stored object in the form of a kind.
pub(crate) fn outward_bytes(kind: &Kind, bytes: &Bytes) -> Bytes {
    if is_plain(kind) {
        return bytes.clone();
    }
    match serde_json::from_slice(bytes) {
        Ok(stored) => tripod_schema::value::to_bytes(&outward(kind, &stored)).into(),
        Err(_) => bytes.clone(),
    }
}

/// Names of members in core/v1 and in events.k8s.io/v1.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn renamed(
    mut value: Value,
    api_version: &str,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Value {
    if let Value::Object(map) = &mut value {
        for (from, to) in names {
            if let Some(member) = map.remove(from) {
                map.insert(to.into(), member);
            }
        }
        map.insert("apiVersion".into(), api_version.into());
    }
    value
}

fn to_new_event(value: Value) -> Value {
    renamed(value, "events.k8s.io/v1", EVENT_NAMES.into_iter())
}

fn to_core_event(value: Value) -> Value {
    renamed(value, "v1", EVENT_NAMES.into_iter().map(|(old, new)| (new, old)))
}

/// autoscaling/v2 as v1 shows it: the target of the processor is a field of its own.
fn to_old_autoscaler(value: &mut Value) {
    value["apiVersion"] = "autoscaling/v1".into();
    let of_cpu = |list: Option<Value>, path: &str| {
        let list = list.as_ref().and_then(Value::as_array)?;
        let cpu = list
            .iter()
            .find(|m| m.pointer("/resource/name").is_some_and(|n| n == "cpu"))?;
        cpu.pointer(path).cloned()
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(percent) = of_cpu(spec.remove("metrics"), "/resource/target/averageUtilization") {
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        spec.remove("behavior");
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(percent) = of_cpu(
            status.remove("currentMetrics"),
            "/resource/current/averageUtilization",
        ) {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        status.remove("conditions");
    }
}

fn to_new_autoscaler(mut value: Value) -> Value {
    value["apiVersion"] = "autoscaling/v2".into();
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(percent) = spec.remove("targetCPUUtilizationPercentage")
    {
        let target = serde_json::json!({"type": "Utilization", "averageUtilization": percent});
        let metric = serde_json::json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".into(), vec![metric].into());
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentCPUUtilizationPercentage");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_one_kind_seen_as_two() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "a"}, "count": 2});
        let new = to_new_event(core.clone());
        assert_eq!(
            new,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "m", "regarding": {"name": "a"}, "deprecatedCount": 2})
        );
        assert_eq!(to_core_event(new), core);
    }
}
