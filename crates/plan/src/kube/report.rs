//! Taking over a node's word on a pod that runs from its PodSpec: the status that the node computed, without losing
//! what others wrote into it.

use serde_json::{Map, Value, json};
use tripod_model::Time;
use tripod_model::k8s_openapi::api::core::v1::PodStatus;
use tripod_model::pod::{Pod, PodExtension};
use tripod_model::session::{PodEvent, PodReport};

use super::conditions;
use super::events::Note;

/// Conditions that are the node's.
const OF_NODE: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "ContainersReady",
    "Ready",
    "PodResizePending",
    "PodResizeInProgress",
];
/// Fields of the status that are others'.
const OF_OTHERS: [&str; 4] = [
    "qosClass",
    "nominatedNodeName",
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
];

/// The pod as it is after a report; `None` when that changes nothing, or comes late.
pub(crate) fn merge(pod: &Pod, report: &PodReport, status: &PodStatus, now: Time) -> Option<Pod> {
    let ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if ended(&pod.status.phase) && pod.status.phase != phase {
        return None;
    }
    let mut next = pod.clone();
    let before = std::mem::take(&mut next.status.rest);
    let mut after = match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for field in OF_OTHERS {
        if let Some(value) = before.get(field) {
            after.entry(field).or_insert_with(|| value.clone());
        }
    }
    let list = merge_conditions(before.get("conditions"), after.get("conditions"));
    after.insert("conditions".into(), list);
    let status = serde_json::from_value(Value::Object(after)).ok()?;
    next.status = status;
    if pod.extension != PodExtension::default() {
        state(&mut next, report, now);
    }
    (next != *pod).then_some(next)
}

fn merge_conditions(stored: Option<&Value>, reported: Option<&Value>) -> Value {
    let own = |c: &Value| OF_NODE.iter().any(|k| c["type"] == *k);
    let stored = stored.and_then(Value::as_array).cloned().unwrap_or_default();
    let reported = reported.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list: Vec<Value> = reported.into_iter().filter(|c| own(c)).collect();
    let known = json!(stored);
    for c in &mut list {
        // The time of a transition is that of the first report of it.
        let before = conditions::find(&known, c["type"].as_str().unwrap_or_default());
        if let Some(before) = before.filter(|b| b["status"] == c["status"]) {
            c["lastTransitionTime"] = before["lastTransitionTime"].clone();
        }
    }
    list.extend(stored.into_iter().filter(|c| !own(c)));
    list.into()
}

/// What other families read of a pod beside its status.
fn state(next: &mut Pod, report: &PodReport, now: Time) {
    let s = &mut next.state;
    if report.state > s.observed && !s.observed.is_final() {
        s.observed = report.state;
        s.at = Some(report.at.unwrap_or(now));
    }
    if !report.container_id.is_empty() {
        s.container_id.clone_from(&report.container_id);
    }
    s.exit_code = report.exit_code.or(s.exit_code);
    s.error.clone_from(&report.error);
    s.serving = report.serving;
    s.ports.clone_from(&report.ports);
    s.health.clone_from(&report.health);
}

/// What happened to a pod on its node, to be written as an event about it.
pub fn note(pod: &Pod, node: &str, event: &PodEvent) -> Note {
    Note {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        warning: event.warning,
        reason: event.reason.clone(),
        message: event.message.clone(),
        component: "kubelet".into(),
        host: node.to_owned(),
        field_path: event.field_path.clone(),
    }
}
