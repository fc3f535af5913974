//! What a Deployment says of itself: numbers, and whether it gets on.

use serde_json::{Value, json};
use tripod_model::Time;

use super::super::conditions::{self, Say};
use super::super::template::some;
use super::super::work::later;
use super::{REVISION, Rollout, Set};

impl Rollout<'_, '_> {
    fn sum(&self, of: impl Fn(&Set) -> i32) -> i32 {
        self.sets().map(of).sum()
    }

    fn new_actual(&self) -> i32 {
        self.new.as_ref().map_or(0, |n| n.actual)
    }

    /// Whether all pods are those of the present template, and available.
    pub(super) fn is_complete(&self) -> bool {
        self.new_actual() == self.replicas
            && self.sum(|s| s.actual) == self.replicas
            && self.sum(|s| s.available) == self.replicas
            && self.new.is_some()
    }

    /// Writes the status, and the revision's number.
    pub(super) fn status(&mut self) {
        let total = self.sum(|s| s.actual);
        let available = self.sum(|s| s.available);
        let mut status = json!({ "observedGeneration": self.object.meta.generation });
        let fields = [
            ("replicas", total),
            ("updatedReplicas", self.new_actual()),
            ("readyReplicas", self.sum(|s| s.ready)),
            ("availableReplicas", available),
            (
                "unavailableReplicas",
                (self.sum(|s| s.replicas).max(total) - available).max(0),
            ),
        ];
        for (field, n) in fields {
            if let Some(n) = some(n) {
                status[field] = n.into();
            }
        }
        status["terminatingReplicas"] = self.sum(|s| s.terminating).into();
        if let Some(n) = self.collisions {
            status["collisionCount"] = n.into();
        }
        let mut list = self.value["status"]["conditions"].clone();
        self.judge_availability(&mut list, available);
        self.judge_failure(&mut list);
        self.judge_progress(&mut list, &status);
        status["conditions"] = list;
        let revision = self.value["metadata"]["annotations"][REVISION].clone();
        let object = self.object.clone();
        self.w.update(&object, |v| {
            v["status"] = status;
            if revision.is_string() {
                super::super::object::at(v, &["metadata", "annotations"])[REVISION] = revision;
            }
        });
    }

    fn judge_availability(&self, list: &mut Value, available: i32) {
        let (_, unavailable) = self.bounds();
        let say = if available >= self.replicas - unavailable {
            Say {
                kind: "Available",
                status: "True",
                reason: "MinimumReplicasAvailable",
                message: "Deployment has minimum availability.",
            }
        } else {
            Say {
                kind: "Available",
                status: "False",
                reason: "MinimumReplicasUnavailable",
                message: "Deployment does not have minimum availability.",
            }
        };
        conditions::set_updated(list, say, self.w.now);
    }

    fn judge_failure(&self, list: &mut Value) {
        let failing = self.sets().find_map(|s| {
            let value = s.object.value();
            conditions::find(&value["status"]["conditions"], "ReplicaFailure").cloned()
        });
        match failing {
            Some(c) => {
                let say = Say {
                    kind: "ReplicaFailure",
                    status: "True",
                    reason: c["reason"].as_str().unwrap_or_default(),
                    message: c["message"].as_str().unwrap_or_default(),
                };
                conditions::set_updated(list, say, self.w.now);
            }
            None => {
                conditions::remove(list, "ReplicaFailure");
            }
        }
    }

    fn judge_progress(&mut self, list: &mut Value, status: &Value) {
        let Some(deadline) = self.spec.progress_deadline_seconds.filter(|n| *n != i32::MAX) else {
            conditions::remove(list, "Progressing");
            return;
        };
        let now = self.w.now;
        let known = conditions::find(list, "Progressing").cloned().unwrap_or_default();
        let reason = known["reason"].as_str().unwrap_or_default().to_owned();
        let paused = self.spec.paused == Some(true);
        let mut say = |status: &str, reason: &str, message: String| {
            let (kind, message) = ("Progressing", message.as_str());
            let say = Say {
                kind,
                status,
                reason,
                message,
            };
            conditions::set_updated(list, say, now);
        };
        if paused {
            if reason != "ProgressDeadlineExceeded" {
                say("Unknown", "DeploymentPaused", "Deployment is paused".into());
            }
            return;
        }
        if reason == "DeploymentPaused" {
            say("Unknown", "DeploymentResumed", "Deployment is resumed".into());
            self.w.wake(later(now, i64::from(deadline)));
            return;
        }
        if let Some((reason, message, failed)) = self.news.take() {
            say(if failed { "False" } else { "True" }, reason, message);
            self.w.wake(later(now, i64::from(deadline)));
            return;
        }
        let name = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.object.name()),
            None => format!("Deployment \"{}\"", self.object.name()),
        };
        if self.is_complete() {
            if reason != "NewReplicaSetAvailable" {
                let text = format!("{name} has successfully progressed.");
                say("True", "NewReplicaSetAvailable", text);
            }
            return;
        }
        if reason == "NewReplicaSetAvailable" && known["status"] == "True" && !self.is_rolling() {
            // A pod failed after the rollout was done: no progress is expected of it.
            return;
        }
        if progressed(&self.value["status"], status) {
            // The time of the last step is what the deadline counts from, also when the words stay the same.
            let before = known["lastTransitionTime"].clone();
            conditions::remove(list, "Progressing");
            let text = format!("{name} is progressing.");
            let say = Say {
                kind: "Progressing",
                status: "True",
                reason: "ReplicaSetUpdated",
                message: &text,
            };
            conditions::set_updated(list, say, now);
            if known["status"] == "True"
                && let Some(c) = list.as_array_mut().and_then(|l| l.last_mut())
            {
                c["lastTransitionTime"] = before;
            }
            self.w.wake(later(now, i64::from(deadline)));
            return;
        }
        let last: Option<Time> = known["lastUpdateTime"].as_str().and_then(|t| t.parse().ok());
        let due = later(last.unwrap_or(now), i64::from(deadline));
        if due <= now && reason != "ProgressDeadlineExceeded" {
            say(
                "False",
                "ProgressDeadlineExceeded",
                format!("{name} has timed out progressing."),
            );
        } else if due > now {
            self.w.wake(due);
        }
    }

    /// Whether pods of an earlier template are left, or the present one's set has not its size.
    fn is_rolling(&self) -> bool {
        self.old.iter().any(|s| s.replicas > 0 || s.actual > 0)
            || self
                .new
                .as_ref()
                .is_none_or(|n| n.replicas != self.replicas || n.actual != self.replicas)
    }
}

/// Whether the numbers say that the rollout got on.
fn progressed(before: &Value, after: &Value) -> bool {
    let n = |v: &Value, field: &str| v[field].as_i64().unwrap_or(0);
    let old = |v: &Value| n(v, "replicas") - n(v, "updatedReplicas");
    n(after, "updatedReplicas") > n(before, "updatedReplicas")
        || old(after) < old(before)
        || n(after, "readyReplicas") > n(before, "readyReplicas")
        || n(after, "availableReplicas") > n(before, "availableReplicas")
}
