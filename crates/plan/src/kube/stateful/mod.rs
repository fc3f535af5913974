//! StatefulSets: pods with a number, a name and claims of their own, in order.

mod claims;
mod identity;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};

use super::history::{self, History};
use super::kinds::STATEFUL_SETS;
use super::object::KObject;
use super::pod::{KPod, Phase};
use super::template::{REVISION_HASH, claim_pods, count, share, some};
use super::work::Work;

const COMPONENT: &str = "statefulset-controller";

/// The working set of one StatefulSet.
struct Set<'w, 'v> {
    w: &'w mut Work<'v>,
    object: Arc<KObject>,
    spec: StatefulSetSpec,
    history: History,
    /// Name of the revision that pods below the partition have.
    current: String,
    /// By number, those within the range.
    pods: BTreeMap<i32, Arc<KPod>>,
    /// Beyond the range, the highest first.
    condemned: Vec<(i32, Arc<KPod>)>,
    start: i32,
    replicas: i32,
}

/// Decides about a StatefulSet.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(STATEFUL_SETS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<StatefulSet>().and_then(|s| s.spec.clone()) else {
        return;
    };
    let value = object.value();
    let collisions = value["status"]["collisionCount"]
        .as_i64()
        .and_then(|n| i32::try_from(n).ok());
    let history = history::of(w, &object, &spec.selector, &value["spec"]["template"], collisions);
    let current = value["status"]["currentRevision"]
        .as_str()
        .filter(|r| history.named(r).is_some());
    let current = current.unwrap_or(&history.latest.name).to_owned();
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let replicas = spec.replicas.unwrap_or(1);
    let (mut pods, mut condemned) = (BTreeMap::new(), Vec::new());
    for pod in claim_pods(w, &object, &spec.selector) {
        match ordinal(name, pod.name()) {
            Some(n) if n >= start && n < start + replicas => {
                pods.insert(n, pod);
            }
            Some(n) => condemned.push((n, pod)),
            None => {}
        }
    }
    condemned.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let mut set = Set {
        w,
        object,
        spec,
        history,
        current,
        pods,
        condemned,
        start,
        replicas,
    };
    if !set.object.meta.is_deleted() {
        set.claims_follow();
        if set.fill() && set.shrink() {
            set.roll();
        }
    }
    set.status();
}

/// The number in a pod's name.
fn ordinal(set: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

impl Set<'_, '_> {
    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn min_ready(&self) -> i64 {
        self.spec.min_ready_seconds.unwrap_or(0).into()
    }

    /// Whether a pod runs, is ready, and has been for long enough.
    fn is_healthy(&mut self, pod: &KPod) -> bool {
        if pod.info.deleted || pod.info.phase != Phase::Running {
            return false;
        }
        match pod.info.available(self.min_ready(), self.w.now) {
            Ok(()) => true,
            Err(at) => {
                at.into_iter().for_each(|at| self.w.wake(at));
                false
            }
        }
    }

    fn partition(&self) -> i32 {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }

    fn rolls(&self) -> bool {
        let kind = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.type_.as_deref());
        kind != Some("OnDelete")
    }

    /// Makes the pods that are missing. Whether all are there and healthy as far as the order asks.
    fn fill(&mut self) -> bool {
        for n in self.start..self.start + self.replicas {
            let Some(pod) = self.pods.get(&n).cloned() else {
                self.create(n);
                if self.in_order() {
                    return false;
                }
                continue;
            };
            if pod.info.phase.is_final() && !pod.info.deleted {
                // It is made anew once it is gone.
                self.delete(&pod);
                if self.in_order() {
                    return false;
                }
                continue;
            }
            let waits = self.in_order() && !self.is_healthy(&pod);
            if pod.info.phase == Phase::Pending && !self.make_claims(pod.name()) {
                return false;
            }
            if waits {
                return false;
            }
        }
        true
    }

    fn delete(&mut self, pod: &KPod) {
        let text = format!(
            "delete Pod {} in StatefulSet {} successful",
            pod.name(),
            self.object.name()
        );
        if !pod.info.deleted {
            self.w.note(&self.object, COMPONENT, "SuccessfulDelete", text);
        }
        self.w.delete_pod(pod, None);
    }

    /// Ends pods beyond the range, the highest number first. Whether none is left that must be waited for.
    fn shrink(&mut self) -> bool {
        let in_order = self.in_order();
        let condemned = self.condemned.clone();
        // The one with the lowest number that is not well may always go; another that is not well holds up the order.
        let weakest = condemned
            .iter()
            .rev()
            .find(|(_, p)| !self.is_healthy(p))
            .map(|(n, _)| *n);
        for (n, pod) in condemned {
            if in_order && !pod.info.deleted && !self.is_healthy(&pod) && weakest != Some(n) {
                return false;
            }
            if pod.info.deleted {
                if in_order {
                    return false;
                }
                continue;
            }
            if !self.release_claims(&pod) {
                self.w.again();
                return false;
            }
            self.delete(&pod);
            if in_order {
                return false;
            }
        }
        true
    }

    /// Replaces pods of earlier revisions, the highest number first.
    fn roll(&mut self) {
        if !self.rolls() {
            return;
        }
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        let most = rolling.and_then(|r| r.max_unavailable.clone());
        let most = most.map_or(1, |m| share(Some(&m), self.replicas, true)).max(1);
        let lowest = self.start + self.partition();
        let mut away = 0;
        let latest = self.history.latest.name.clone();
        let pods: Vec<Arc<KPod>> = self.pods.range(lowest..).rev().map(|(_, p)| p.clone()).collect();
        for pod in &pods {
            away += i32::from(!self.is_healthy(pod));
        }
        for pod in pods {
            let healthy = self.is_healthy(&pod);
            if revision_of(&pod) != latest {
                if pod.info.deleted {
                    continue;
                }
                if healthy && away >= most {
                    return;
                }
                away += i32::from(healthy);
                self.delete(&pod);
                if most == 1 {
                    return;
                }
            } else if !healthy && most == 1 {
                return;
            }
        }
    }

    fn status(&mut self) {
        let value = self.object.value();
        let (mut ready, mut available, mut now, mut updated) = (0, 0, 0, 0);
        let all: Vec<Arc<KPod>> = self
            .pods
            .values()
            .chain(self.condemned.iter().map(|(_, p)| p))
            .cloned()
            .collect();
        let (current, latest) = (self.current.clone(), self.history.latest.name.clone());
        for pod in &all {
            let runs = pod.info.phase == Phase::Running && pod.info.ready;
            ready += i32::from(runs);
            if runs {
                match pod.info.available(self.min_ready(), self.w.now) {
                    Ok(()) => available += 1,
                    Err(at) => at.into_iter().for_each(|at| self.w.wake(at)),
                }
            }
            let lives = !pod.info.deleted;
            now += i32::from(lives && revision_of(pod) == current);
            updated += i32::from(lives && revision_of(pod) == latest);
        }
        let mut current = current;
        let done = self.rolls()
            && updated == self.replicas
            && ready == self.replicas
            && count(&all) == self.replicas;
        if done {
            (current, now) = (latest.clone(), updated);
        }
        let mut status = json!({
            "replicas": all.len(), "observedGeneration": self.object.meta.generation,
            "currentRevision": current, "updateRevision": latest, "availableReplicas": available,
            "collisionCount": self.history.collisions.unwrap_or(0),
        });
        for (field, n) in [
            ("readyReplicas", ready),
            ("currentReplicas", now),
            ("updatedReplicas", updated),
        ] {
            if let Some(n) = some(n) {
                status[field] = n.into();
            }
        }
        if value["status"]["conditions"].is_array() {
            status["conditions"] = value["status"]["conditions"].clone();
        }
        let object = self.object.clone();
        self.w.set_status(&object, status);
        let used: Vec<String> = all
            .iter()
            .map(|p| revision_of(p).to_owned())
            .chain([current])
            .collect();
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        history::trim(self.w, &self.history, limit, &|r| used.contains(&r.name));
    }
}

/// The name of a pod's revision.
fn revision_of(pod: &KPod) -> &str {
    pod.pod
        .metadata
        .labels
        .get(REVISION_HASH)
        .map_or("", String::as_str)
}

/// The owner of a claim, as a reference.
fn owner_reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true })
}
