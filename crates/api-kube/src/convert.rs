//! Kinds that are shown in another form than they are stored in.

use bytes::Bytes;
use serde_json::Value;
use tripod_schema::Kind;

use crate::autoscaler;

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
        ("autoscaling", "v1", _) => autoscaler::to_old(&mut value),
        _ => {}
    }
    value
}

/// An object of a kind in its stored form.
pub(crate) fn inward(kind: &Kind, value: Value) -> Value {
    match kind.group {
        "events.k8s.io" => to_core_event(value),
        "autoscaling" if kind.version == "v1" => autoscaler::to_new(value),
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
