//! The pods of a Job: how many at once, for which indexes, and how long after a failure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::object::at;
use super::super::pod::{KPod, Phase};
use super::super::template::{count, pod_of};
use super::super::work::later;
use super::{COMPONENT, FAILURES, IGNORED_FAILURES, INDEX, Run, TRACKING, indexes, policy};

/// Seconds after a first failure, doubled for each that follows, up to the second number.
const BACKOFF: (i64, i64) = (10, 600);

impl Run<'_, '_> {
    /// Whether a pod that is asked to go is replaced only once it has ended.
    fn waits_for_end(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    /// Makes pods that are missing, ends those that are too many.
    pub(super) fn fill(&mut self) {
        let active: Vec<Arc<KPod>> = self.active().cloned().collect();
        let parallel = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            None if self.succeeded > 0 => count(&active).min(parallel),
            None => parallel,
            Some(n) => parallel.min(n - self.done()),
        };
        let have = count(&active);
        if have > wanted {
            self.end_surplus(active, usize::try_from(have - wanted).unwrap_or(0));
            return;
        }
        let ending = if self.waits_for_end() {
            self.terminating()
        } else {
            0
        };
        let missing = usize::try_from(wanted - have - ending).unwrap_or(0);
        if missing == 0 {
            return;
        }
        if self.is_indexed() {
            self.make_indexed(&active, missing);
            return;
        }
        if !self.rested(None) {
            return;
        }
        for _ in 0..missing {
            if !self.make(None) {
                return;
            }
        }
    }

    fn done(&self) -> i32 {
        if self.is_indexed() {
            count(&self.completed) + count(&self.failed_indexes)
        } else {
            self.succeeded
        }
    }

    fn end_surplus(&mut self, mut active: Vec<Arc<KPod>>, n: usize) {
        active.sort_by_key(|p| {
            let placed = !p.pod.spec.node_name.is_empty();
            (
                placed,
                p.info.phase != Phase::Pending,
                p.info.ready,
                Reverse(p.pod.metadata.creation_timestamp),
            )
        });
        for pod in active.into_iter().take(n) {
            let text = format!("Deleted pod: {}", pod.name());
            self.w.note(&self.object, COMPONENT, "SuccessfulDelete", text);
            self.w.delete_pod(&pod, None);
        }
    }

    fn make_indexed(&mut self, active: &[Arc<KPod>], missing: usize) {
        let waits = self.waits_for_end();
        let ending = self
            .pods
            .iter()
            .filter(|p| waits && p.info.deleted && !p.info.phase.is_final());
        let taken: BTreeSet<i32> = active
            .iter()
            .chain(ending)
            .filter_map(|p| indexes::of(p))
            .collect();
        let total = self.spec.completions.unwrap_or(0);
        let free: Vec<i32> = (0..total)
            .filter(|i| !taken.contains(i) && !self.completed.contains(i) && !self.failed_indexes.contains(i))
            .collect();
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if !per_index && !self.rested(None) {
            return;
        }
        let mut made = 0;
        for index in free {
            if made == missing {
                return;
            }
            if per_index && !self.rested(Some(index)) {
                continue;
            }
            if !self.make(Some(index)) {
                return;
            }
            made += 1;
        }
    }

    /// Whether enough time has passed since pods failed one after the other.
    fn rested(&mut self, index: Option<i32>) -> bool {
        let ours = |p: &&Arc<KPod>| index.is_none() || indexes::of(p) == index;
        let good = self
            .pods
            .iter()
            .filter(ours)
            .filter(|p| p.info.phase == Phase::Succeeded);
        let last_good = good.filter_map(|p| policy::ended_at(p)).max();
        let bad = self
            .pods
            .iter()
            .filter(ours)
            .filter(|p| p.info.phase == Phase::Failed);
        let bad: Vec<_> = bad
            .filter_map(|p| policy::ended_at(p))
            .filter(|at| last_good.is_none_or(|g| *at > g))
            .collect();
        let Some(last) = bad.iter().max().copied() else {
            return true;
        };
        let times = u32::try_from(bad.len() - 1).unwrap_or(u32::MAX).min(16);
        let (first, most) = BACKOFF;
        let wait = first.saturating_mul(1_i64 << times).min(most);
        self.w.reached(later(last, wait))
    }

    /// Makes a pod; whether that was possible.
    fn make(&mut self, index: Option<i32>) -> bool {
        let template = self.value["spec"]["template"].clone();
        let mut pod = pod_of(&template, &self.object);
        let name = self.object.name().to_owned();
        pod["metadata"]["generateName"] = format!("{name}-").into();
        pod["metadata"]["finalizers"] = json!([TRACKING]);
        let uid = self.object.meta.uid.to_string();
        let labels = at(&mut pod, &["metadata", "labels"]);
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            if labels.get(key).is_none() {
                labels[key] = value.as_str().into();
            }
        }
        if let Some(index) = index {
            self.number(&mut pod, index);
        }
        match self.w.create_pod(pod) {
            Ok(name) => {
                let text = format!("Created pod: {name}");
                self.w.note(&self.object, COMPONENT, "SuccessfulCreate", text);
                true
            }
            Err(error) => {
                let text = format!("Error creating: {error}");
                self.w.warn(&self.object, COMPONENT, "FailedCreate", text);
                let at = later(self.w.now, 10);
                self.w.wake(at);
                false
            }
        }
    }

    /// Gives a pod its index: in its name, labels, and environment.
    fn number(&mut self, pod: &mut Value, index: i32) {
        let name = self.object.name().to_owned();
        pod["metadata"]["generateName"] = format!("{name}-{index}-").into();
        let failed = self
            .pods
            .iter()
            .filter(|p| indexes::of(p) == Some(index) && p.info.phase == Phase::Failed);
        let failures = failed.map(|p| indexes::failures(p) + 1).max();
        let annotations = at(pod, &["metadata", "annotations"]);
        annotations[INDEX] = index.to_string().into();
        if self.spec.backoff_limit_per_index.is_some() {
            annotations[FAILURES] = failures.unwrap_or(0).to_string().into();
            annotations[IGNORED_FAILURES] = "0".into();
        }
        at(pod, &["metadata", "labels"])[INDEX] = index.to_string().into();
        pod["spec"]["hostname"] = format!("{name}-{index}").into();
        let path = format!("metadata.labels['{INDEX}']");
        let variable = json!({
            "name": "JOB_COMPLETION_INDEX",
            "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } },
        });
        for list in ["containers", "initContainers"] {
            let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else {
                continue;
            };
            for container in containers {
                let mut env = container
                    .get("env")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                if !env.iter().any(|e| e["name"] == "JOB_COMPLETION_INDEX") {
                    env.push(variable.clone());
                }
                container["env"] = env.into();
            }
        }
    }
}
