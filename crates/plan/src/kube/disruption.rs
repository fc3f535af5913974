//! PodDisruptionBudgets: how many pods may go, and whether one may.

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::conditions::{self, Say};
use super::kinds::{self, DISRUPTION_BUDGETS};
use super::object::KObject;
use super::pod::KPod;
use super::selector;
use super::template::{count, share};
use super::work::{Work, later, stamp};

/// Seconds within which a pod that was let go is expected to be asked to go.
const PENDING: i64 = 120;

fn selects(budget: &KObject, pod: &KPod) -> bool {
    let typed = budget.get::<PodDisruptionBudget>();
    let selector = typed.and_then(|b| b.spec.as_ref()?.selector.clone());
    selector.is_some_and(|s| selector::matches(&s, &pod.pod.metadata.labels))
}

/// Decides about the status of a budget.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(DISRUPTION_BUDGETS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<PodDisruptionBudget>().and_then(|b| b.spec.clone()) else {
        return;
    };
    let pods: Vec<Arc<KPod>> =
        w.k.pods_in(namespace)
            .filter(|p| p.info.kube && selects(&object, p))
            .cloned()
            .collect();
    let live: Vec<&Arc<KPod>> = pods.iter().filter(|p| !p.info.phase.is_final()).collect();
    let expected = match (&spec.min_available, &spec.max_unavailable) {
        (Some(IntOrString::Int(_)), _) => count(&live),
        _ => wanted_by_owners(w, &live),
    };
    let desired = match (&spec.min_available, &spec.max_unavailable) {
        (Some(least), _) => share(Some(least), expected, true),
        (None, Some(most)) => (expected - share(Some(most), expected, true)).max(0),
        (None, None) => 1.min(expected),
    };
    let before = object.value()["status"].clone();
    let mut disrupted = before["disruptedPods"].clone();
    if let Some(map) = disrupted.as_object_mut() {
        map.retain(|pod, at| {
            let known = live.iter().any(|p| p.name() == pod && !p.info.deleted);
            let at = at.as_str().and_then(|t| t.parse().ok());
            known && at.is_some_and(|at| later(at, PENDING) > w.now)
        });
        if !map.is_empty() {
            let at = later(w.now, PENDING);
            w.wake(at);
        }
    }
    let leaving = |p: &KPod| p.info.deleted || disrupted.get(p.name()).is_some();
    let healthy = count(live.iter().filter(|p| p.info.ready && !leaving(p)));
    let allowed = if expected == 0 {
        0
    } else {
        (healthy - desired).max(0)
    };
    let mut status = json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed,
        "expectedPods": expected, "observedGeneration": object.meta.generation,
    });
    if disrupted.as_object().is_some_and(|m| !m.is_empty()) {
        status["disruptedPods"] = disrupted;
    }
    let mut list = before["conditions"].clone();
    let (text, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let say = Say {
        kind: "DisruptionAllowed",
        status: text,
        reason,
        message: "",
    };
    conditions::set(&mut list, say, w.now);
    if let Some(c) = list
        .as_array_mut()
        .and_then(|l| l.iter_mut().find(|c| c["type"] == "DisruptionAllowed"))
    {
        c["observedGeneration"] = object.meta.generation.into();
        c["message"] = "".into();
    }
    status["conditions"] = list;
    w.set_status(&object, status);
}

/// How many pods the owners of these pods ask for in all; a pod without an owner counts as one.
fn wanted_by_owners(w: &Work<'_>, pods: &[&Arc<KPod>]) -> i32 {
    let mut owners: Vec<&str> = pods.iter().filter_map(|p| p.info.controller.as_deref()).collect();
    owners.sort_unstable();
    owners.dedup();
    let bare = count(pods.iter().filter(|p| p.info.controller.is_none()));
    let sizes = owners.into_iter().filter_map(|uid| {
        let key = w.k.by_uid(uid)?;
        let value = w.k.get(&key.resource, &key.namespace, &key.name)?.value();
        let n = match &*key.resource {
            kinds::DAEMON_SETS => value["status"]["desiredNumberScheduled"].as_i64(),
            kinds::JOBS => value["spec"]["parallelism"].as_i64(),
            _ => value["spec"]["replicas"].as_i64(),
        };
        i32::try_from(n.unwrap_or(0)).ok()
    });
    bare + sizes.sum::<i32>()
}

/// The budgets that protect a pod.
fn budgets(w: &Work<'_>, pod: &KPod) -> Vec<Arc<KObject>> {
    let all = w.k.list(DISRUPTION_BUDGETS, pod.namespace());
    all.filter(|b| selects(b, pod)).cloned().collect()
}

fn allowed(budget: &KObject) -> i64 {
    budget.value()["status"]["disruptionsAllowed"]
        .as_i64()
        .unwrap_or(0)
}

/// How many of these pods would go against a budget.
pub(super) fn broken(w: &Work<'_>, pods: &[Arc<KPod>]) -> usize {
    let against = pods
        .iter()
        .filter(|p| budgets(w, p).iter().any(|b| allowed(b) <= 0));
    against.count()
}

/// What an eviction is answered when a budget forbids it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// For people: what the API answers (429).
    pub message: String,
    /// The budget, and what it lacks.
    pub cause: String,
}

/// Why a pod must not be evicted now; `None` when it may.
pub(crate) fn forbids(w: &Work<'_>, pod: &KPod) -> Option<Forbidden> {
    forbids_in(w.view, pod)
}

/// As [`forbids`], of the view alone: what the eviction subresource asks.
pub fn forbids_in(view: &crate::view::View, pod: &KPod) -> Option<Forbidden> {
    if pod.info.phase.is_final() || pod.pod.spec.node_name.is_empty() || pod.info.deleted {
        return None;
    }
    let all = view.kube().list(DISRUPTION_BUDGETS, pod.namespace());
    let all: Vec<&Arc<KObject>> = all.filter(|b| selects(b, pod)).collect();
    if all.len() > 1 {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Some(Forbidden {
            message: text.into(),
            cause: String::new(),
        });
    }
    let budget = all.first()?;
    let value = budget.value();
    let status = &value["status"];
    let n = |field: &str| status[field].as_i64().unwrap_or(0);
    let always = value["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    if !pod.info.ready && (always || n("currentHealthy") >= n("desiredHealthy") && n("desiredHealthy") > 0) {
        return None;
    }
    let behind = n("observedGeneration") < budget.meta.generation;
    if !behind && n("disruptionsAllowed") > 0 {
        return None;
    }
    let name = budget.name();
    Some(Forbidden {
        message: "Cannot evict pod as it would violate the pod's disruption budget.".into(),
        cause: format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            n("desiredHealthy"),
            n("currentHealthy")
        ),
    })
}

/// The budgets of a pod that may go, with it counted: `(budget, its new content)`.
pub fn spent(view: &crate::view::View, pod: &KPod, now: tripod_model::Time) -> Vec<(Arc<KObject>, Value)> {
    let all = view.kube().list(DISRUPTION_BUDGETS, pod.namespace());
    let all = all.filter(|b| selects(b, pod) && !pod.pod.spec.node_name.is_empty());
    all.map(|b| {
        let mut value = b.value();
        spend_in(&mut value, pod, now);
        (b.clone(), value)
    })
    .collect()
}

fn spend_in(value: &mut Value, pod: &KPod, now: tripod_model::Time) {
    let status = &mut value["status"];
    let left = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    status["disruptionsAllowed"] = (left - 1).max(0).into();
    super::object::at(status, &["disruptedPods"])[pod.name()] = stamp(now);
}

/// Counts a pod that goes against its budgets.
pub(super) fn spend(w: &mut Work<'_>, pod: &KPod) {
    let now = w.now;
    for budget in budgets(w, pod) {
        w.update(&budget, |v| spend_in(v, pod, now));
    }
}
