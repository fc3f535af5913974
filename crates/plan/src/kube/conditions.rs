//! Conditions of statuses, as lists of JSON objects.

use serde_json::{Value, json};
use tripod_model::Time;

use super::work::stamp;

/// A condition by type.
pub fn find<'v>(list: &'v Value, kind: &str) -> Option<&'v Value> {
    list.as_array()?.iter().find(|c| c["type"] == kind)
}

/// Whether a condition has a status.
pub fn is(list: &Value, kind: &str, status: &str) -> bool {
    find(list, kind).is_some_and(|c| c["status"] == status)
}

/// What a condition says now.
#[derive(Debug, Clone, Copy)]
pub struct Say<'a> {
    /// `Available` …
    pub kind: &'a str,
    /// `True`, `False`, `Unknown`.
    pub status: &'a str,
    /// One word.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// Sets a condition; the time of its transition stays while its status does. Whether anything changed.
pub fn set(list: &mut Value, say: Say<'_>, now: Time) -> bool {
    put(list, say, now, false)
}

/// As [`set`], with the time of the last update (`lastUpdateTime`) that Deployments have.
pub fn set_updated(list: &mut Value, say: Say<'_>, now: Time) -> bool {
    put(list, say, now, true)
}

fn put(list: &mut Value, say: Say<'_>, now: Time, updated: bool) -> bool {
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(all) = list.as_array_mut() else {
        return false;
    };
    let old = all.iter().position(|c| c["type"] == say.kind);
    let mut next = json!({
        "type": say.kind, "status": say.status, "lastTransitionTime": stamp(now),
    });
    for (key, value) in [("reason", say.reason), ("message", say.message)] {
        if !value.is_empty() {
            next[key] = value.into();
        }
    }
    if updated {
        next["lastUpdateTime"] = stamp(now);
    }
    let Some(at) = old else {
        all.push(next);
        return true;
    };
    let before = &all[at];
    let same = before["status"] == say.status;
    if same && before["reason"] == next["reason"] && (updated || before["message"] == next["message"]) {
        return false;
    }
    if same {
        next["lastTransitionTime"] = before["lastTransitionTime"].clone();
    }
    for (key, value) in before.as_object().into_iter().flatten() {
        // What others put there (observedGeneration, lastProbeTime) stays.
        if next.get(key).is_none() && !["reason", "message"].contains(&key.as_str()) {
            next[key] = value.clone();
        }
    }
    all[at] = next;
    true
}

/// Removes a condition. Whether it was there.
pub fn remove(list: &mut Value, kind: &str) -> bool {
    let Some(all) = list.as_array_mut() else {
        return false;
    };
    let before = all.len();
    all.retain(|c| c["type"] != kind);
    all.len() != before
}
