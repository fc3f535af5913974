//! How things are, in a word, and why: pure functions over stored objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tripod_store::StoredObject;

use crate::object::{Obj, list, text};
use crate::view::{Cell, Tone};

/// A state in a word, and why it is so.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Health {
    pub(crate) tone: Tone,
    pub(crate) word: String,
    pub(crate) why: String,
}

impl Health {
    fn new(tone: Tone, word: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            tone,
            word: word.into(),
            why: why.into(),
        }
    }

    pub(crate) fn cell(self) -> Cell {
        Cell::State(self.tone, self.word, self.why)
    }
}

/// The states of pods that were looked at before: a pod that has not changed need not be decoded again.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<Arc<str>, (u64, Health)>>);

impl Known {
    /// The states of all these pods.
    pub(crate) fn pods<'a>(
        &self,
        pods: impl Iterator<Item = &'a Arc<StoredObject>>,
    ) -> Vec<(&'a Arc<StoredObject>, Health)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<_> = pods
            .map(|stored| match known.get(&stored.uid) {
                Some((revision, health)) if *revision == stored.revision => (stored, health.clone()),
                _ => (stored, pod(&Obj::new(stored))),
            })
            .collect();
        *known = found
            .iter()
            .filter(|(stored, _)| !stored.uid.is_empty())
            .map(|(stored, health)| (stored.uid.clone(), (stored.revision, health.clone())))
            .collect();
        found
    }
}

/// How many replicas there are and should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) ready: i64,
    pub(crate) wanted: i64,
}

/// A pod's state as `kubectl get pods` words it; a Swarm task's as `docker service ps` does.
pub(crate) fn pod(pod: &Obj) -> Health {
    let state = pod.pod_state();
    let extension = pod.annotation(tripod_model::pod::EXTENSION_ANNOTATION);
    if extension.contains("\"swarm\":{") {
        return task(&state, pod);
    }
    if !pod.str("/metadata/deletionTimestamp").is_empty() {
        return Health::new(Tone::Busy, "Terminating", "");
    }
    if let Some(found) = waiting_init(pod) {
        return found;
    }
    let reason = pod.str("/status/reason");
    if !reason.is_empty() {
        return Health::new(Tone::Bad, reason, pod.str("/status/message"));
    }
    if let Some(found) = containers(pod) {
        return found;
    }
    match pod.str("/status/phase") {
        "Running" if ready_containers(pod).0 == ready_containers(pod).1 => {
            Health::new(Tone::Good, "Running", "")
        }
        "Running" => Health::new(Tone::Busy, "Running", condition(pod, "Ready")),
        "Succeeded" => Health::new(Tone::Calm, "Completed", ""),
        "Failed" => Health::new(Tone::Bad, "Failed", pod.str("/status/message")),
        _ => {
            let why = condition(pod, "PodScheduled");
            let tone = if why.is_empty() { Tone::Busy } else { Tone::Bad };
            Health::new(tone, "Pending", why)
        }
    }
}

/// A Swarm task.
fn task(state: &Value, pod: &Obj) -> Health {
    let (observed, desired) = (text(state, "/observed"), text(state, "/desired"));
    let error = match text(state, "/error") {
        "" => pod.str("/status/message"),
        error => error,
    };
    let word = if observed.is_empty() { "new" } else { observed };
    match (word, desired) {
        ("running", "shutdown" | "remove") => Health::new(Tone::Busy, "shutting down", ""),
        ("running", _) => Health::new(Tone::Good, word, ""),
        ("complete" | "shutdown" | "remove", _) => Health::new(Tone::Calm, word, error),
        ("failed" | "rejected" | "orphaned", _) => Health::new(Tone::Bad, word, error),
        (_, "shutdown" | "remove") => Health::new(Tone::Calm, word, error),
        _ if !error.is_empty() => Health::new(Tone::Bad, word, error),
        _ => Health::new(Tone::Busy, word, text(state, "/message")),
    }
}

/// The first init container that has not done its work.
fn waiting_init(pod: &Obj) -> Option<Health> {
    let statuses = pod.list("/status/initContainerStatuses");
    for (i, status) in statuses.iter().enumerate() {
        if status["started"] == true && status.pointer("/state/running").is_some() {
            continue;
        }
        if let Some(ended) = status.pointer("/state/terminated") {
            if ended["exitCode"] == 0 {
                continue;
            }
            let word = format!("Init:{}", nonempty(text(ended, "/reason"), "Error"));
            return Some(Health::new(Tone::Bad, word, text(ended, "/message")));
        }
        let reason = text(status, "/state/waiting/reason");
        if !reason.is_empty() && reason != "PodInitializing" {
            let why = text(status, "/state/waiting/message");
            return Some(Health::new(Tone::Bad, format!("Init:{reason}"), why));
        }
        let word = format!("Init:{i}/{}", pod.list("/spec/initContainers").len());
        return Some(Health::new(Tone::Busy, word, ""));
    }
    None
}

/// The most telling container.
fn containers(pod: &Obj) -> Option<Health> {
    for status in pod.list("/status/containerStatuses") {
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            let mut why = text(status, "/state/waiting/message").to_owned();
            if let Some(code) = status
                .pointer("/lastState/terminated/exitCode")
                .and_then(Value::as_i64)
            {
                let last = nonempty(text(status, "/lastState/terminated/reason"), "exit");
                why = format!("{why} ({last}, {code})").trim_start().to_owned();
            }
            let busy = matches!(waiting, "ContainerCreating" | "PodInitializing");
            return Some(Health::new(
                if busy { Tone::Busy } else { Tone::Bad },
                waiting,
                why,
            ));
        }
    }
    let ended: Vec<&Value> = pod
        .list("/status/containerStatuses")
        .iter()
        .filter_map(|s| s.pointer("/state/terminated"))
        .collect();
    let failed = ended.iter().find(|t| t["exitCode"] != 0)?;
    let why = match text(failed, "/message") {
        "" => format!("exit status {}", failed["exitCode"]),
        message => message.to_owned(),
    };
    Some(Health::new(
        Tone::Bad,
        nonempty(text(failed, "/reason"), "Error"),
        why,
    ))
}

/// Ready containers, and all of them.
pub(crate) fn ready_containers(pod: &Obj) -> (usize, usize) {
    let statuses = pod.list("/status/containerStatuses");
    let all = pod.list("/spec/containers").len().max(statuses.len());
    (statuses.iter().filter(|s| s["ready"] == true).count(), all)
}

/// How often the containers of a pod were started again.
pub(crate) fn restarts(pod: &Obj) -> i64 {
    let statuses = pod.list("/status/containerStatuses");
    statuses.iter().filter_map(|s| s["restartCount"].as_i64()).sum()
}

/// Why a condition does not hold; empty when it does.
pub(crate) fn condition(object: &Obj, kind: &str) -> String {
    let found = object
        .list("/status/conditions")
        .iter()
        .find(|c| c["type"] == kind);
    match found {
        Some(c) if c["status"] != "True" => match (text(c, "/reason"), text(c, "/message")) {
            (reason, "") => reason.to_owned(),
            ("", message) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        },
        _ => String::new(),
    }
}

/// Replicas of a workload of the Kubernetes API.
pub(crate) fn counts(object: &Obj) -> Counts {
    let spec = |default: i64, p: &str| object.value.pointer(p).and_then(Value::as_i64).unwrap_or(default);
    match object.kind() {
        "DaemonSet" => Counts {
            ready: object.int("/status/numberReady"),
            wanted: object.int("/status/desiredNumberScheduled"),
        },
        "Job" => Counts {
            ready: object.int("/status/succeeded"),
            wanted: spec(1, "/spec/completions"),
        },
        _ => Counts {
            ready: object.int("/status/readyReplicas"),
            wanted: spec(1, "/spec/replicas"),
        },
    }
}

/// How a workload is: all there, on its way, or in need of somebody.
pub(crate) fn workload(object: &Obj, counts: Counts) -> Health {
    if !object.str("/metadata/deletionTimestamp").is_empty() {
        return Health::new(Tone::Busy, "Deleting", "");
    }
    let failed = list(&object.value, "/status/conditions").iter().find(|c| {
        let bad = ["ReplicaFailure", "Failed", "FailureTarget"]
            .iter()
            .any(|t| c["type"] == *t)
            && c["status"] == "True";
        bad || (c["type"] == "Progressing" && c["status"] == "False")
    });
    if let Some(c) = failed {
        return Health::new(
            Tone::Bad,
            nonempty(text(c, "/reason"), "Failed"),
            text(c, "/message"),
        );
    }
    if object.kind() == "Job" {
        let complete = list(&object.value, "/status/conditions")
            .iter()
            .any(|c| c["type"] == "Complete" && c["status"] == "True");
        return match complete {
            true => Health::new(Tone::Calm, "Complete", ""),
            false if object.bool("/spec/suspend") => Health::new(Tone::Calm, "Suspended", ""),
            false => Health::new(Tone::Busy, "Running", ""),
        };
    }
    if object.kind() == "CronJob" {
        return match object.bool("/spec/suspend") {
            true => Health::new(Tone::Calm, "Suspended", ""),
            false => Health::new(Tone::Good, "Active", ""),
        };
    }
    if object.bool("/spec/paused") {
        return Health::new(Tone::Calm, "Paused", "");
    }
    let behind = object.int("/status/observedGeneration") < object.int("/metadata/generation")
        && object.value.pointer("/status/observedGeneration").is_some();
    let updated = object
        .value
        .pointer("/status/updatedReplicas")
        .and_then(Value::as_i64);
    let rolling = object.kind() == "Deployment" && updated.is_some_and(|u| u < counts.wanted);
    match counts {
        c if behind || rolling => Health::new(
            Tone::Busy,
            "Rolling out",
            format!("{} / {}", updated.unwrap_or(0), c.wanted),
        ),
        c if c.ready >= c.wanted => Health::new(Tone::Good, "Healthy", ""),
        _ => Health::new(Tone::Busy, "Waiting", condition(object, "Available")),
    }
}

/// A node.
pub(crate) fn node(node: &Obj) -> Health {
    let ready = node
        .list("/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let drained = node.str("/spec/swarm/availability") == "drain";
    let closed = node.bool("/spec/unschedulable") || drained;
    let (up, why) = match ready {
        Some(c) => (c["status"] == "True", text(c, "/message").to_owned()),
        None => (
            node.str("/status/state") == "ready",
            node.str("/status/message").to_owned(),
        ),
    };
    match (up, closed) {
        (true, false) => Health::new(Tone::Good, "Ready", ""),
        (true, true) if drained => Health::new(Tone::Calm, "Drained", ""),
        (true, true) => Health::new(Tone::Calm, "Ready, closed", ""),
        (false, _) => Health::new(Tone::Bad, "Not ready", why),
    }
}

fn nonempty<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
