//! Pods and what carries their templates' containers.

use serde_json::Value;
use tripod_model::Time;

use super::format::{age, name, none, since};
use super::{AGE, Column, NAME, Printer, col, wide};
use crate::value::{int, is_true, list, text};

const COLUMNS: &[Column] = &[
    NAME,
    col("Ready"),
    col("Status"),
    col("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(super) fn printer(resource: &str) -> Option<Printer> {
    (resource == "pods").then_some((COLUMNS, cells))
}

fn cells(pod: &Value, now: Time) -> Vec<Value> {
    let statuses = list(pod, &["status", "containerStatuses"]);
    let side = |c: &&Value| text(c, &["restartPolicy"]) == "Always";
    let sidecars = list(pod, &["spec", "initContainers"]).iter().filter(side);
    let sidecar_names: Vec<&str> = sidecars.map(|c| text(c, &["name"])).collect();
    let total = list(pod, &["spec", "containers"]).len() + sidecar_names.len();
    let inits = list(pod, &["status", "initContainerStatuses"]);
    let running_sidecars = inits
        .iter()
        .filter(|s| sidecar_names.contains(&text(s, &["name"])));
    let all = statuses.iter().chain(running_sidecars);
    let ready = all
        .clone()
        .filter(|s| is_true(s, &["ready"]) && s["state"].get("running").is_some())
        .count();
    let ready = ready.min(total);
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        reason(pod).into(),
        restarts(all, now).into(),
        age(pod, now),
        none(text(pod, &["status", "podIP"])),
        none(text(pod, &["spec", "nodeName"])),
        none(text(pod, &["status", "nominatedNodeName"])),
        gates(pod),
    ]
}

fn gates(pod: &Value) -> Value {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = list(pod, &["status", "conditions"]);
    let met = |gate: &&Value| {
        conditions
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && text(c, &["status"]) == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len()).into()
}

fn restarts<'a>(statuses: impl Iterator<Item = &'a Value>, now: Time) -> String {
    let (mut total, mut last) = (0, "");
    for status in statuses {
        total += int(status, &["restartCount"]).unwrap_or(0);
        last = last.max(text(status, &["lastState", "terminated", "finishedAt"]));
    }
    if total > 0 && !last.is_empty() {
        format!("{total} ({} ago)", since(last, now))
    } else {
        total.to_string()
    }
}

/// Why an ended or waiting container is where it is.
fn state_reason(status: &Value) -> Option<String> {
    let state = &status["state"];
    if let Some(waiting) = state.get("waiting") {
        return Some(text(waiting, &["reason"]).to_owned()).filter(|r| !r.is_empty());
    }
    let ended = state.get("terminated")?;
    let reason = text(ended, &["reason"]);
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    Some(match int(ended, &["signal"]) {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", int(ended, &["exitCode"]).unwrap_or(0)),
    })
}

/// The word of the status column.
fn reason(pod: &Value) -> String {
    let phase = text(pod, &["status", "phase"]);
    let mut reason = match text(pod, &["status", "reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".into();
    }
    let initializing = initializing(pod);
    if let Some(text) = &initializing {
        reason.clone_from(text);
    } else {
        reason = of_containers(pod, reason);
    }
    if !text(pod, &["metadata", "deletionTimestamp"]).is_empty() {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            reason = "Unknown".into();
        } else if phase != "Failed" && phase != "Succeeded" {
            reason = "Terminating".into();
        }
    }
    reason
}

fn initializing(pod: &Value) -> Option<String> {
    let containers = list(pod, &["spec", "initContainers"]);
    let statuses = list(pod, &["status", "initContainerStatuses"]);
    for (i, status) in statuses.iter().enumerate() {
        let spec = containers.iter().find(|c| c["name"] == status["name"]);
        let sidecar = spec.is_some_and(|c| text(c, &["restartPolicy"]) == "Always");
        let ended = status["state"].get("terminated");
        if ended.is_some_and(|e| int(e, &["exitCode"]) == Some(0))
            || (sidecar && is_true(status, &["started"]))
        {
            continue;
        }
        return Some(match state_reason(status) {
            Some(reason) if ended.is_some() || reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{i}/{}", containers.len()),
        });
    }
    None
}

fn of_containers(pod: &Value, mut reason: String) -> String {
    let mut running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        if let Some(text) = state_reason(status) {
            reason = text;
        } else if is_true(status, &["ready"]) && status["state"].get("running").is_some() {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let ready = list(pod, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True");
        reason = if ready { "Running" } else { "NotReady" }.into();
    }
    reason
}
