//! How a pod goes: asked with a grace period, ended by its node, removed; given up when its node is.

use tripod_model::Time;
use tripod_model::k8s_openapi::api::core::v1::{Taint, Toleration};
use tripod_model::node::Node;
use tripod_model::pod::Pod;

use super::conditions::{self, Say};
use super::place::{effective_taints, tolerates};
use super::pod::{KPod, PodInfo};
use super::work::{Work, later, whole_seconds};

/// What becomes of a pod that is asked to go.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// It is removed at once: no node runs it, or no grace is given.
    Now,
    /// It is marked, and its node ends it.
    Later(Box<Pod>),
    /// It was asked already, with no more time than now.
    Known,
}

/// What becomes of a pod that is asked to go, with `grace` seconds (its own when none are named). Grace 0 removes it
/// at once; a later, shorter grace shortens an earlier one.
pub fn deletion(pod: &KPod, grace: Option<i64>, now: Time) -> Deletion {
    deletion_of(&pod.pod, &pod.info, grace, now)
}

/// As [`deletion`], of a pod that is not in the view.
pub fn deletion_of(pod: &Pod, info: &PodInfo, grace: Option<i64>, now: Time) -> Deletion {
    let own = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    let grace = grace.unwrap_or(own).max(0);
    let held = !pod.metadata.finalizers.is_empty();
    let unplaced = pod.spec.node_name.is_empty() || info.phase.is_final();
    let grace = if unplaced { 0 } else { grace };
    if grace == 0 && !held {
        return Deletion::Now;
    }
    let now = whole_seconds(now);
    let asked = pod.metadata.deletion_grace_period_seconds;
    if pod.metadata.deletion_timestamp.is_some() && asked.is_some_and(|a| a <= grace) {
        return Deletion::Known;
    }
    let mut next = Box::new(pod.clone());
    let first = next.metadata.deletion_timestamp.is_none();
    next.metadata.deletion_timestamp = Some(later(now, grace));
    next.metadata.deletion_grace_period_seconds = Some(grace);
    if first && next.metadata.generation > 0 {
        next.metadata.generation += 1;
    }
    Deletion::Later(next)
}

/// Who ends pods of a node that is gone or tainted.
const TAINT_MANAGER: &str = "taint-eviction-controller";

/// Whether another family decides on a pod's end.
pub(crate) fn is_foreign(pod: &Pod) -> bool {
    pod.swarm().is_some() || pod.extension.ecs.is_some()
}

/// Decides about the end of a pod.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(pod) = w.k.pod(namespace, name).cloned().filter(|p| !is_foreign(&p.pod)) else {
        return;
    };
    let node_name = pod.pod.spec.node_name.as_str();
    let node = w.view.node(node_name).cloned();
    let lost = !node_name.is_empty() && node.is_none();
    let free = pod.pod.metadata.finalizers.is_empty();
    if pod.info.deleted {
        // One that has ended has nothing left to wait for but its finalizers.
        if free && (node_name.is_empty() || lost || pod.info.phase.is_final()) {
            w.remove_pod(&pod);
        }
        return;
    }
    if lost {
        let text = "PodGC: node no longer exists";
        if !pod.info.phase.is_final() {
            disrupt(w, &pod, "DeletionByPodGC", text, Some(0));
        } else if free {
            w.remove_pod(&pod);
        }
        return;
    }
    if let Some(node) = node {
        leave_tainted(w, &pod, &node);
    }
}

/// Ends a pod on a node whose taints it does not tolerate, or no longer.
pub(super) fn leave_tainted(w: &mut Work<'_>, pod: &KPod, node: &Node) {
    if pod.info.deleted || pod.info.phase.is_final() || is_foreign(&pod.pod) {
        return;
    }
    let taints = effective_taints(node);
    let hard: Vec<&Taint> = taints.iter().filter(|t| t.effect == "NoExecute").collect();
    if hard.is_empty() {
        return;
    }
    let list = pod.pod.spec.rest.get("tolerations").cloned().unwrap_or_default();
    let tolerations: Vec<Toleration> = serde_json::from_value(list).unwrap_or_default();
    // A pod that came after the taint has its whole time.
    let came = pod.pod.metadata.creation_timestamp.unwrap_or(w.now);
    let mut first: Option<Time> = None;
    for taint in hard {
        let matching: Vec<&Toleration> = tolerations
            .iter()
            .filter(|t| tolerates(std::slice::from_ref(*t), taint))
            .collect();
        let added = taint.time_added.as_ref().map_or(w.now, |t| t.0).max(came);
        let until = match matching.iter().filter_map(|t| t.toleration_seconds).min() {
            _ if matching.is_empty() => w.now,
            Some(seconds) => later(added, seconds.max(0)),
            None => continue,
        };
        first = Some(first.map_or(until, |f| f.min(until)));
    }
    let Some(at) = first else { return };
    if !w.reached(at) {
        return;
    }
    let text = "Taint manager: deleting due to NoExecute taint";
    disrupt(w, pod, "DeletionByTaintManager", text, None);
    let text = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
    w.tell_pod(
        &pod.pod.metadata,
        TAINT_MANAGER,
        false,
        "TaintManagerEviction",
        text,
    );
}

/// Asks a pod to go, and says in its status why.
pub(super) fn disrupt(w: &mut Work<'_>, pod: &KPod, reason: &str, message: &str, grace: Option<i64>) {
    let mut marked = pod.pod.as_ref().clone();
    let say = Say {
        kind: "DisruptionTarget",
        status: "True",
        reason,
        message,
    };
    let now = w.now;
    marked
        .status
        .rest
        .edit("conditions", |list| conditions::set(list, say, now));
    match deletion_of(&marked, &pod.info, grace, w.now) {
        Deletion::Now => w.remove_pod(pod),
        Deletion::Later(next) => {
            w.update_pod(pod, |p| *p = *next);
        }
        Deletion::Known => {}
    }
}
