//! ReplicaSets and ReplicationControllers: as many pods as asked for.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::apps::v1::ReplicaSet;
use tripod_model::k8s_openapi::api::core::v1::ReplicationController;
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::conditions::{self, Say};
use super::kinds;
use super::object::KObject;
use super::pod::{KPod, Phase};
use super::selector;
use super::template::{claim_pods, count, pod_of};
use super::view::Controller;
use super::work::{Work, later};

/// What both kinds ask for.
struct Wanted {
    replicas: i32,
    min_ready: i64,
    selector: LabelSelector,
    component: &'static str,
}

/// Annotation by which a pod says how gladly it goes; the least goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Seconds until what was refused is tried again.
const RETRY: i64 = 10;

/// Decides about a ReplicaSet or ReplicationController.
pub(super) fn decide(w: &mut Work<'_>, controller: Controller, namespace: &str, name: &str) {
    let resource = match controller {
        Controller::ReplicationController => kinds::REPLICATION_CONTROLLERS,
        _ => kinds::REPLICA_SETS,
    };
    let Some(object) = w.k.get(resource, namespace, name).cloned() else {
        return;
    };
    let Some(wanted) = wanted(&object) else { return };
    let pods = claim_pods(w, &object, &wanted.selector);
    let mut failure = None;
    if !object.meta.is_deleted() {
        failure = manage(w, &object, &wanted, &pods);
    }
    status(w, &object, &wanted, &pods, failure);
}

fn wanted(object: &KObject) -> Option<Wanted> {
    if &*object.key.resource == kinds::REPLICA_SETS {
        let spec = object.get::<ReplicaSet>()?.spec.clone()?;
        return Some(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0).into(),
            selector: spec.selector,
            component: "replicaset-controller",
        });
    }
    let spec = object.get::<ReplicationController>()?.spec.clone()?;
    let labels = spec.selector.or_else(|| spec.template?.metadata?.labels)?;
    Some(Wanted {
        replicas: spec.replicas.unwrap_or(1),
        min_ready: spec.min_ready_seconds.unwrap_or(0).into(),
        selector: LabelSelector {
            match_labels: Some(labels),
            match_expressions: None,
        },
        component: "replication-controller",
    })
}

/// Makes or ends pods. What failed, as (reason, message).
fn manage(
    w: &mut Work<'_>,
    object: &KObject,
    wanted: &Wanted,
    pods: &[Arc<KPod>],
) -> Option<(&'static str, String)> {
    let active: Vec<&Arc<KPod>> = pods.iter().filter(|p| p.info.is_active()).collect();
    let have = count(&active);
    if have < wanted.replicas {
        return create(w, object, wanted, wanted.replicas - have);
    }
    let surplus = usize::try_from(have - wanted.replicas).unwrap_or(0);
    if surplus > 0 {
        for pod in victims(w, object, active, surplus) {
            let message = format!("Deleted pod: {}", pod.name());
            w.note(object, wanted.component, "SuccessfulDelete", message);
            w.delete_pod(&pod, None);
        }
    }
    None
}

fn create(w: &mut Work<'_>, object: &KObject, wanted: &Wanted, n: i32) -> Option<(&'static str, String)> {
    let pod = pod_of(&object.value()["spec"]["template"], object);
    let prefix = format!("{}-", object.name());
    for _ in 0..n {
        let mut pod = pod.clone();
        pod["metadata"]["generateName"] = prefix.as_str().into();
        match w.create_pod(pod) {
            Ok(name) => w.note(
                object,
                wanted.component,
                "SuccessfulCreate",
                format!("Created pod: {name}"),
            ),
            Err(error) => {
                w.warn(
                    object,
                    wanted.component,
                    "FailedCreate",
                    format!("Error creating: {error}"),
                );
                let at = later(w.now, RETRY);
                w.wake(at);
                return Some(("FailedCreate", error));
            }
        }
    }
    None
}

/// The pods that go first: not placed, not running, not ready, of least cost, on crowded nodes, ready for the
/// shortest time, made last.
fn victims(w: &Work<'_>, object: &KObject, active: Vec<&Arc<KPod>>, n: usize) -> Vec<Arc<KPod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related(w, object, &active) {
        *crowd.entry(pod).or_default() += 1;
    }
    let mut pods: Vec<Arc<KPod>> = active.into_iter().cloned().collect();
    pods.sort_by_cached_key(|p| {
        let i = &p.info;
        let phase = match i.phase {
            Phase::Pending => 0,
            Phase::Unknown => 1,
            _ => 2,
        };
        let cost = p.pod.metadata.annotations.get(DELETION_COST);
        let cost: i32 = cost.and_then(|c| c.parse().ok()).unwrap_or(0);
        let node = p.pod.spec.node_name.as_str();
        (
            (!node.is_empty(), phase, i.ready, cost),
            Reverse(crowd.get(node).copied().unwrap_or(0)),
            Reverse(i.ready_since),
            Reverse(restarts(p)),
            Reverse(p.pod.metadata.creation_timestamp),
            p.name().to_owned(),
        )
    });
    pods.truncate(n);
    pods
}

/// Nodes of the active pods of all sets of the same owner.
fn related<'a>(w: &Work<'a>, object: &KObject, active: &[&'a Arc<KPod>]) -> Vec<&'a str> {
    let node = |p: &'a Arc<KPod>| p.pod.spec.node_name.as_str();
    let Some(owner) = object.meta.controller() else {
        return active.iter().map(|p| node(p)).collect();
    };
    let siblings =
        w.k.dependents(&owner.uid)
            .filter(|k| k.resource == object.key.resource);
    let uids = siblings.filter_map(|k| w.k.get(&k.resource, &k.namespace, &k.name));
    uids.flat_map(|set| w.k.pods_of(&set.meta.uid))
        .filter(|p| p.info.is_active())
        .map(node)
        .collect()
}

/// How often a pod's containers were started again.
pub(crate) fn restarts(pod: &KPod) -> i64 {
    let statuses = pod
        .pod
        .status
        .rest
        .get("containerStatuses")
        .and_then(Value::as_array);
    let counts = statuses
        .into_iter()
        .flatten()
        .filter_map(|s| s["restartCount"].as_i64());
    counts.max().unwrap_or(0)
}

fn status(
    w: &mut Work<'_>,
    object: &KObject,
    wanted: &Wanted,
    pods: &[Arc<KPod>],
    failure: Option<(&'static str, String)>,
) {
    let value = object.value();
    let labels: selector::Labels =
        serde_json::from_value(value["spec"]["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    let active: Vec<&Arc<KPod>> = pods.iter().filter(|p| p.info.is_active()).collect();
    let labelled = active.iter().filter(|p| {
        labels
            .iter()
            .all(|(k, v)| p.pod.metadata.labels.get(k) == Some(v))
    });
    let (mut ready, mut available) = (0, 0);
    for pod in &active {
        ready += i32::from(pod.info.ready);
        match pod.info.available(wanted.min_ready, w.now) {
            Ok(()) => available += 1,
            Err(Some(at)) => w.wake(at),
            Err(None) => {}
        }
    }
    let mut status = json!({
        "replicas": active.len(), "observedGeneration": object.meta.generation,
    });
    let terminating = count(pods.iter().filter(|p| p.info.deleted && !p.info.phase.is_final()));
    let fields = [
        ("fullyLabeledReplicas", count(labelled)),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ];
    for (field, n) in fields.into_iter().filter(|(_, n)| *n != 0) {
        status[field] = n.into();
    }
    if &*object.key.resource == kinds::REPLICA_SETS {
        status["terminatingReplicas"] = terminating.into();
    }
    let mut list = value["status"]["conditions"].clone();
    match &failure {
        Some((reason, message)) => {
            let say = Say {
                kind: "ReplicaFailure",
                status: "True",
                reason,
                message,
            };
            conditions::set(&mut list, say, w.now);
        }
        None => {
            conditions::remove(&mut list, "ReplicaFailure");
        }
    }
    if list.as_array().is_some_and(|l| !l.is_empty()) {
        status["conditions"] = list;
    }
    w.set_status(object, status);
}
