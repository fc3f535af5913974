//! Places for pods. Pods that ask for the same are one class: nodes are filtered once for all of them. Without
//! constraints among pods, each further placement then costs a step in a heap; with them, a pass over the nodes that
//! are left.

mod asks;
mod facts;
mod preempt;
mod score;
mod topology;
mod volumes;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use tripod_model::pod::Pod;

pub use facts::{Reason, effective_taints, node_matches, tolerates};

use super::conditions::{self, Say};
use super::pod::KPod;
use super::work::Work;
use asks::Asks;
use facts::{Facts, Refusals};
use topology::Topology;

/// So many pods are placed by one plan: what is left comes with the next, so that nodes begin meanwhile.
const BATCH: usize = 2_000;
pub(super) const SCHEDULER: &str = "default-scheduler";

/// Gives nodes to the pods that have none, or says why there is none.
pub(super) fn decide(w: &mut Work<'_>) {
    let mut waiting: Vec<Arc<KPod>> = Vec::new();
    for (namespace, name) in &w.k.unplaced {
        let Some(pod) = w.k.pod(namespace, name) else {
            continue;
        };
        if is_ours(&pod.pod) && !pod.info.deleted {
            waiting.push(pod.clone());
        }
    }
    if waiting.is_empty() {
        return;
    }
    // They come by namespace and name, and the sort is stable.
    waiting.sort_by_key(|p| (Reverse(p.info.priority), p.pod.metadata.creation_timestamp));
    let mut facts = Facts::new(w);
    let mut left = waiting.as_slice();
    let mut placed = 0;
    while placed < BATCH && !left.is_empty() {
        // A run of pods of one priority; classes among them in the order of their first pod.
        let priority = left[0].info.priority;
        let run = left.iter().take_while(|p| p.info.priority == priority).count();
        let (now, rest) = left.split_at(run);
        left = rest;
        for class in classes(now) {
            placed += place_class(w, &mut facts, &class[..class.len().min(BATCH)]);
        }
    }
    // Pods for which there is no place do not count: they would be looked at again and again.
    if placed >= BATCH {
        w.again();
    }
}

fn is_ours(pod: &Pod) -> bool {
    let name = pod.spec.rest.get("schedulerName").and_then(Value::as_str);
    name.is_none_or(|n| n.is_empty() || n == SCHEDULER)
}

/// Pods that ask for the same.
fn classes(pods: &[Arc<KPod>]) -> Vec<Vec<Arc<KPod>>> {
    let mut order: Vec<Vec<Arc<KPod>>> = Vec::new();
    let mut known: HashMap<u64, usize> = HashMap::new();
    for pod in pods {
        let hash = *pod.class.get_or_init(|| class_of(pod));
        match known.get(&hash) {
            Some(&at) => order[at].push(pod.clone()),
            None => {
                known.insert(hash, order.len());
                order.push(vec![pod.clone()]);
            }
        }
    }
    order
}

fn class_of(pod: &KPod) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.namespace().hash(&mut hasher);
    for (key, value) in &pod.pod.metadata.labels {
        // What tells replicas apart and nothing selects by.
        if !key.starts_with("statefulset.kubernetes.io/") && !key.starts_with("apps.kubernetes.io/pod-index")
        {
            (key, value).hash(&mut hasher);
        }
    }
    let i = &pod.info;
    (i.requests.cpu, i.requests.memory, i.requests.ephemeral).hash(&mut hasher);
    i.requests.other.hash(&mut hasher);
    for (ip, protocol, port) in &i.host_ports {
        (ip, protocol, port).hash(&mut hasher);
    }
    for field in asks::FIELDS {
        pod.pod.spec.rest.text(field).hash(&mut hasher);
    }
    // Other volumes are of no account, and that of the token has a name of its own in each pod.
    volumes::names(pod).hash(&mut hasher);
    i.controller.hash(&mut hasher);
    for container in &pod.pod.spec.containers {
        container.image.hash(&mut hasher);
    }
    pod.pod.status.rest.text("nominatedNodeName").hash(&mut hasher);
    hasher.finish()
}

/// Places the pods of a class as far as there is room. How many got a place.
fn place_class(w: &mut Work<'_>, facts: &mut Facts, class: &[Arc<KPod>]) -> usize {
    let sample = class[0].clone();
    let asks = Asks::of(&sample);
    if asks.gated {
        for pod in class {
            gate(w, pod);
        }
        return 0;
    }
    if facts.nodes.is_empty() {
        for pod in class {
            pend(w, pod, "no nodes available to schedule pods", None);
        }
        return 0;
    }
    let claims = match volumes::of(w, &sample) {
        Ok(claims) => claims,
        Err(why) => {
            let total = facts.nodes.len();
            let text = format!("0/{total} nodes are available: {why}.");
            for pod in class {
                pend(w, pod, &text, None);
            }
            return 0;
        }
    };
    // Room that was made for these pods is theirs.
    for pod in class {
        if let Some(at) = nominated(facts, pod) {
            facts.count(at, pod, -1);
        }
    }
    let mut refusals = Refusals::default();
    let mut fits: Vec<usize> = Vec::new();
    for at in 0..facts.nodes.len() {
        match facts.judge(at, &asks, &claims) {
            None => fits.push(at),
            Some(reason) => refusals.add(at, reason),
        }
    }
    let mut topology = Topology::new(w, facts, &asks, &sample);
    let scores = score::Scores::new(facts, &asks, &fits);
    let own = siblings(w, facts, &sample);
    let mut choice = score::Choice::new(scores, facts, &asks, fits, own);
    let mut bound = 0;
    for (done, pod) in class.iter().enumerate() {
        let found = choice.next(facts, &asks, &topology, &mut refusals);
        let Some(at) = found else {
            fail(w, facts, &asks, &topology, &refusals, &class[done..]);
            break;
        };
        let node = facts.nodes[at].name.clone();
        if !volumes::settle(w, pod, &claims, &node) {
            choice.took(facts, &asks, at);
            continue;
        }
        bind(w, pod, &node);
        bound += 1;
        facts.take(at, &asks, 1);
        topology.take(facts, at);
        let placed = w.placed.entry(node).or_default();
        placed.1.push(pod.clone());
        choice.took(facts, &asks, at);
    }
    bound
}

/// Pods of the same owner on each node.
fn siblings(w: &Work<'_>, facts: &Facts, sample: &KPod) -> Vec<i64> {
    let mut own = vec![0; facts.nodes.len()];
    let Some(uid) = &sample.info.controller else {
        return own;
    };
    let stored = w.k.pods_of(uid).filter(|p| p.info.is_active());
    let stored = stored.map(|p| p.pod.spec.node_name.as_str());
    let new = w.placed.iter().flat_map(|(node, (_, pods))| {
        let of_owner = pods.iter().filter(|p| p.info.controller.as_ref() == Some(uid));
        of_owner.map(|_| node.as_str())
    });
    for node in stored.chain(new) {
        if let Some(&at) = facts.by_name.get(node) {
            own[at] += 1;
        }
    }
    own
}

fn nominated(facts: &Facts, pod: &KPod) -> Option<usize> {
    let node = pod.pod.status.rest.get("nominatedNodeName")?.as_str()?;
    facts.by_name.get(node).copied()
}

/// Nothing is left for these pods: says why, and tries to make room by pods of lower priority.
fn fail(
    w: &mut Work<'_>,
    facts: &mut Facts,
    asks: &Asks,
    topology: &Topology,
    refusals: &Refusals,
    pods: &[Arc<KPod>],
) {
    let base = refusals.text(facts.nodes.len());
    let mut helpless = None;
    for pod in pods {
        let outcome = match &helpless {
            Some(text) => preempt::Outcome::Helpless(String::clone(text)),
            None => preempt::make_room(w, facts, asks, topology, refusals, pod),
        };
        match outcome {
            preempt::Outcome::Helpless(text) => {
                pend(w, pod, &format!("{base} preemption: {text}"), None);
                helpless = Some(text);
            }
            preempt::Outcome::Waits(node) => pend(w, pod, &base, Some(&node)),
        }
    }
}

fn bind(w: &mut Work<'_>, pod: &KPod, node: &str) {
    let now = w.now;
    w.update_pod(pod, |p| {
        p.spec.node_name = node.to_owned();
        p.status.rest.remove("nominatedNodeName");
        scheduled(p, "True", "", "", now);
        if p.status.phase.is_empty() {
            p.status.phase = "Pending".into();
        }
    });
    let text = format!(
        "Successfully assigned {}/{} to {node}",
        pod.namespace(),
        pod.name()
    );
    w.tell_pod(&pod.pod.metadata, SCHEDULER, false, "Scheduled", text);
}

/// Sets the condition `PodScheduled`.
pub(super) fn scheduled(p: &mut Pod, status: &str, reason: &str, message: &str, now: tripod_model::Time) {
    let say = Say {
        kind: "PodScheduled",
        status,
        reason,
        message,
    };
    p.status
        .rest
        .edit("conditions", |list| conditions::set(list, say, now));
}

fn gate(w: &mut Work<'_>, pod: &KPod) {
    let now = w.now;
    w.update_pod(pod, |p| {
        let text = "Scheduling is blocked due to non-empty scheduling gates";
        scheduled(p, "False", "SchedulingGated", text, now);
    });
}

fn pend(w: &mut Work<'_>, pod: &KPod, text: &str, nominated: Option<&str>) {
    let now = w.now;
    let condition = super::pod::condition(&pod.pod, "PodScheduled");
    let known = condition.is_some_and(|c| c["message"] == text);
    let place = pod
        .pod
        .status
        .rest
        .get("nominatedNodeName")
        .and_then(Value::as_str);
    if known
        && condition.is_some_and(|c| c["status"] == "False" && c["reason"] == "Unschedulable")
        && (nominated.is_none() || nominated == place)
    {
        // Many may wait for long, and to find out by a copy that nothing changes is what would cost most.
        return;
    }
    w.update_pod(pod, |p| {
        scheduled(p, "False", "Unschedulable", text, now);
        if let Some(node) = nominated {
            p.status.rest.insert("nominatedNodeName", node.into());
        }
    });
    if !known {
        w.tell_pod(
            &pod.pod.metadata,
            SCHEDULER,
            true,
            "FailedScheduling",
            text.to_owned(),
        );
    }
}
