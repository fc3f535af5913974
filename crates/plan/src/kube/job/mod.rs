//! Jobs: pods that run to their end, so many times or once for each index.

mod indexes;
mod make;
mod policy;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::conditions::{self, Say};
use super::kinds::JOBS;
use super::object::KObject;
use super::pod::{KPod, Phase};
use super::template::{claim_pods, count, some};
use super::work::{Work, later, stamp};

const COMPONENT: &str = "job-controller";
/// Finalizer of pods whose end was not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Why a Job ends, when it is to.
#[derive(Clone)]
struct Verdict {
    success: bool,
    reason: String,
    message: String,
}

/// The working set of one Job.
struct Run<'w, 'v> {
    w: &'w mut Work<'v>,
    object: Arc<KObject>,
    value: Value,
    spec: JobSpec,
    pods: Vec<Arc<KPod>>,
    succeeded: i32,
    failed: i32,
    completed: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    list: Value,
    verdict: Option<Verdict>,
}

/// Decides about a Job.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(JOBS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<Job>().and_then(|s| s.spec.clone()) else {
        return;
    };
    if spec
        .managed_by
        .as_deref()
        .is_some_and(|m| m != "kubernetes.io/job-controller")
    {
        return;
    }
    let pods = match &spec.selector {
        Some(selector) => claim_pods(w, &object, selector),
        None => w.k.pods_of(&object.meta.uid).cloned().collect(),
    };
    let value = object.value();
    let n = |f: &str| {
        value["status"][f]
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .unwrap_or(0)
    };
    let set = |f: &str| indexes::parse(value["status"][f].as_str().unwrap_or_default());
    let mut run = Run {
        succeeded: n("succeeded"),
        failed: n("failed"),
        completed: set("completedIndexes"),
        failed_indexes: set("failedIndexes"),
        list: value["status"]["conditions"].clone(),
        verdict: None,
        w,
        object,
        value,
        spec,
        pods,
    };
    run.run();
}

impl Run<'_, '_> {
    fn run(&mut self) {
        if self.is_over() {
            self.release_all();
            self.expire();
            return;
        }
        if self.object.meta.is_deleted() {
            self.release_all();
            return;
        }
        let suspended = self.spec.suspend == Some(true);
        self.settle_start(suspended);
        self.count_ended();
        self.judge();
        if let Some(verdict) = self.verdict.clone() {
            let ending = self.end_active();
            self.conclude(&verdict, ending);
        } else if suspended {
            self.end_active();
        } else {
            self.fill();
        }
        self.status();
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Whether the Job has ended, one way or the other.
    fn is_over(&self) -> bool {
        conditions::is(&self.list, "Complete", "True") || conditions::is(&self.list, "Failed", "True")
    }

    fn say(&mut self, kind: &str, status: &str, reason: &str, message: &str) -> bool {
        let say = Say {
            kind,
            status,
            reason,
            message,
        };
        let changed = conditions::set(&mut self.list, say, self.w.now);
        if changed
            && let Some(c) = self
                .list
                .as_array_mut()
                .and_then(|l| l.iter_mut().find(|c| c["type"] == kind))
        {
            c["lastProbeTime"] = c["lastTransitionTime"].clone();
        }
        changed
    }

    fn active(&self) -> impl Iterator<Item = &Arc<KPod>> {
        self.pods.iter().filter(|p| p.info.is_active())
    }

    /// Pods that were asked to go and have not ended.
    fn terminating(&self) -> i32 {
        count(
            self.pods
                .iter()
                .filter(|p| p.info.deleted && !p.info.phase.is_final()),
        )
    }

    fn settle_start(&mut self, suspended: bool) {
        let was = conditions::is(&self.list, "Suspended", "True");
        if suspended && !was {
            self.say("Suspended", "True", "JobSuspended", "Job suspended");
            self.w.note(&self.object, COMPONENT, "Suspended", "Job suspended");
            self.value["status"]["startTime"] = Value::Null;
        } else if !suspended {
            if was {
                self.say("Suspended", "False", "JobResumed", "Job resumed");
                self.w.note(&self.object, COMPONENT, "Resumed", "Job resumed");
                self.value["status"]["startTime"] = Value::Null;
            }
            if self.value["status"]["startTime"].is_null() {
                self.value["status"]["startTime"] = stamp(self.w.now);
            }
        }
    }

    /// Counts pods that ended, and lets go of them in the same transaction, so that none is counted twice.
    fn count_ended(&mut self) {
        for pod in self.pods.clone() {
            let tracked = pod.pod.metadata.finalizers.iter().any(|f| f == TRACKING);
            if !tracked {
                continue;
            }
            let index = indexes::of(&pod);
            let node_gone =
                !pod.pod.spec.node_name.is_empty() && self.w.view.node(&pod.pod.spec.node_name).is_none();
            let never_ran = pod.info.deleted && (pod.pod.spec.node_name.is_empty() || node_gone);
            match pod.info.phase {
                Phase::Succeeded => match index.filter(|_| self.is_indexed()) {
                    Some(i) => {
                        if i < self.spec.completions.unwrap_or(0) && self.completed.insert(i) {
                            self.succeeded += 1;
                        }
                    }
                    None => self.succeeded += 1,
                },
                Phase::Failed => self.count_failure(&pod, index),
                _ if never_ran => self.count_failure(&pod, index),
                _ => continue,
            }
            release(self.w, &pod);
        }
    }

    fn count_failure(&mut self, pod: &KPod, index: Option<i32>) {
        match policy::action(&self.spec, pod) {
            policy::Action::Ignore => return,
            policy::Action::FailJob(message) => {
                self.verdict.get_or_insert(Verdict {
                    success: false,
                    reason: "PodFailurePolicy".into(),
                    message,
                });
            }
            policy::Action::FailIndex => self.failed_indexes.extend(index),
            policy::Action::Count => {}
        }
        self.failed += 1;
        if let (Some(i), Some(limit)) = (index, self.spec.backoff_limit_per_index)
            && indexes::failures(pod) >= limit
            && !self.completed.contains(&i)
        {
            self.failed_indexes.insert(i);
        }
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.verdict.get_or_insert(Verdict {
            success: false,
            reason: reason.into(),
            message: message.into(),
        });
    }

    /// Whether the Job is to end now.
    fn judge(&mut self) {
        if let Some(known) = self.earlier_verdict() {
            self.verdict = Some(known);
            return;
        }
        if let Some(message) = policy::success(&self.spec, &self.completed) {
            self.verdict.get_or_insert(Verdict {
                success: true,
                reason: "SuccessPolicy".into(),
                message,
            });
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let limit = self
            .spec
            .backoff_limit
            .unwrap_or(if per_index { i32::MAX } else { 6 });
        let template = &self.spec.template.spec;
        let restarts = if template.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure") {
            self.active().map(|p| super::replica::restarts(p)).sum::<i64>()
        } else {
            0
        };
        if self.failed > limit || restarts > 0 && restarts >= i64::from(limit.max(1)) {
            self.fail(
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            );
        }
        if let (Some(seconds), Some(start)) = (self.spec.active_deadline_seconds, self.start()) {
            let due = later(start, seconds);
            if self.spec.suspend != Some(true) && self.w.reached(due) {
                self.fail(
                    "DeadlineExceeded",
                    "Job was active longer than specified deadline",
                );
            }
        }
        self.judge_indexes();
        self.judge_completions();
    }

    fn start(&self) -> Option<Time> {
        self.value["status"]["startTime"].as_str()?.parse().ok()
    }

    fn judge_indexes(&mut self) {
        if self.failed_indexes.is_empty() {
            return;
        }
        let most = self.spec.max_failed_indexes;
        if most.is_some_and(|m| count(&self.failed_indexes) > m) {
            self.fail(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        let total = self.spec.completions.unwrap_or(0);
        if count(&self.failed_indexes) + count(&self.completed) >= total {
            self.fail("FailedIndexes", "Job has failed indexes");
        }
    }

    fn judge_completions(&mut self) {
        let reached = match self.spec.completions {
            Some(n) if self.is_indexed() => count(&self.completed) >= n,
            Some(n) => self.succeeded >= n,
            // A queue of work: done when one saw its end and all have stopped.
            None => self.succeeded > 0 && self.active().next().is_none(),
        };
        if reached {
            self.verdict.get_or_insert(Verdict {
                success: true,
                reason: "CompletionsReached".into(),
                message: "Reached expected number of succeeded pods".into(),
            });
        }
    }

    /// The verdict of an earlier plan, whose pods are still ending.
    fn earlier_verdict(&self) -> Option<Verdict> {
        let known = |kind: &str| conditions::find(&self.list, kind).filter(|c| c["status"] == "True");
        let (condition, success) = match (known("FailureTarget"), known("SuccessCriteriaMet")) {
            (Some(c), _) => (c, false),
            (None, Some(c)) => (c, true),
            (None, None) => return None,
        };
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        Some(Verdict {
            success,
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// Asks all pods that run to go. Whether any has still to end.
    fn end_active(&mut self) -> bool {
        let active: Vec<Arc<KPod>> = self.active().cloned().collect();
        for pod in &active {
            let text = format!("Deleted pod: {}", pod.name());
            self.w.note(&self.object, COMPONENT, "SuccessfulDelete", text);
            self.w.delete_pod(pod, None);
        }
        !active.is_empty() || self.terminating() > 0
    }

    fn conclude(&mut self, verdict: &Verdict, ending: bool) {
        let kind = if verdict.success {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        };
        self.say(kind, "True", &verdict.reason, &verdict.message);
        if ending {
            return;
        }
        let kind = if verdict.success { "Complete" } else { "Failed" };
        if !self.say(kind, "True", &verdict.reason, &verdict.message) {
            return;
        }
        if verdict.success {
            self.value["status"]["completionTime"] = stamp(self.w.now);
            self.w.note(&self.object, COMPONENT, "Completed", "Job completed");
        } else {
            self.w
                .warn(&self.object, COMPONENT, &verdict.reason, verdict.message.as_str());
        }
    }

    fn release_all(&mut self) {
        for pod in self.pods.clone() {
            release(self.w, &pod);
        }
    }

    /// Removes a Job some time after its end, if it says so.
    fn expire(&mut self) {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else {
            return;
        };
        let mut ends = ["Complete", "Failed"].into_iter();
        let end = ends.find_map(|k| conditions::find(&self.list, k).filter(|c| c["status"] == "True"));
        let at = end.and_then(|c| c["lastTransitionTime"].as_str()?.parse::<Time>().ok());
        let Some(at) = at else { return };
        if self.w.reached(later(at, seconds.into())) && !self.object.meta.is_deleted() {
            let object = self.object.clone();
            self.w.delete(&object);
        }
    }

    fn status(&mut self) {
        let active = count(self.active());
        let ready = count(self.active().filter(|p| p.info.ready));
        let over = self.verdict.is_some();
        let mut status = json!({
            "ready": ready, "terminating": self.terminating(), "uncountedTerminatedPods": {},
        });
        let going = if over { 0 } else { active };
        for (field, n) in [
            ("active", going),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
        ] {
            if let Some(n) = some(n) {
                status[field] = n.into();
            }
        }
        if over {
            status["ready"] = 0.into();
        }
        for field in ["startTime", "completionTime"] {
            if self.value["status"].get(field).is_some_and(|v| !v.is_null()) {
                status[field] = self.value["status"][field].clone();
            }
        }
        if self.is_indexed() {
            if !self.completed.is_empty() {
                status["completedIndexes"] = indexes::text(&self.completed).into();
            }
            if self.spec.backoff_limit_per_index.is_some() {
                status["failedIndexes"] = indexes::text(&self.failed_indexes).into();
            }
        }
        if self.list.as_array().is_some_and(|l| !l.is_empty()) {
            status["conditions"] = self.list.clone();
        }
        let object = self.object.clone();
        self.w.set_status(&object, status);
    }
}

fn release(w: &mut Work<'_>, pod: &KPod) {
    if !pod.pod.metadata.finalizers.iter().any(|f| f == TRACKING) {
        return;
    }
    let others = pod.pod.metadata.finalizers.iter().any(|f| f != TRACKING);
    let ended = pod.info.phase.is_final() || pod.pod.spec.node_name.is_empty();
    if pod.info.deleted && !others && ended {
        w.remove_pod(pod);
        return;
    }
    w.update_pod(pod, |p| p.metadata.finalizers.retain(|f| f != TRACKING));
}
