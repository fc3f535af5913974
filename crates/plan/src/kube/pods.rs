//! How a pod goes: asked with a grace period, ended by its node, removed; given up when its node is.

use tripod_model::Time;
use tripod_model::pod::Pod;

use super::pod::{KPod, PodInfo};
use super::work::{later, whole_seconds};

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
