//! Room for a pod of high priority: on which node the fewest and least important pods would have to go.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use super::super::disruption;
use super::super::pod::KPod;
use super::super::work::Work;
use super::SCHEDULER;
use super::asks::Asks;
use super::facts::{Facts, Reason, Refusals};
use super::topology::Topology;

pub(super) enum Outcome {
    /// Room is being made on this node.
    Waits(String),
    /// There is none to be made, and why.
    Helpless(String),
}

/// Ends pods of lower priority so that a pod fits on some node.
pub(super) fn make_room(
    w: &mut Work<'_>,
    facts: &mut Facts,
    asks: &Asks,
    topology: &Topology,
    refusals: &Refusals,
    pod: &Arc<KPod>,
) -> Outcome {
    let total = facts.nodes.len();
    if asks.never_preempts {
        let text =
            format!("0/{total} nodes are available: {total} Preemption is not helpful for scheduling.");
        return Outcome::Helpless(text);
    }
    let nominated = pod
        .pod
        .status
        .rest
        .get("nominatedNodeName")
        .and_then(Value::as_str);
    if let Some((node, &at)) = nominated.and_then(|n| Some((n, facts.by_name.get(n)?))) {
        let mut ending = w
            .view
            .pods_of_node(node)
            .filter_map(|p| w.k.pod(&p.metadata.namespace, &p.metadata.name));
        if ending.any(|p| p.info.deleted && p.info.priority < asks.priority) {
            facts.take(at, asks, 1);
            return Outcome::Waits(node.to_owned());
        }
    }
    let mut best: Option<(Cost, usize, Vec<Arc<KPod>>)> = None;
    let mut useless = 0;
    for (&at, reasons) in &refusals.0 {
        if !reasons.iter().all(Reason::may_pass) {
            useless += 1;
            continue;
        }
        if let Some((cost, victims)) = victims_on(w, facts, asks, topology, reasons, at)
            && best.as_ref().is_none_or(|(b, ..)| cost < *b)
        {
            best = Some((cost, at, victims));
        }
    }
    let Some((_, at, victims)) = best else {
        let mut texts = Vec::new();
        if total > useless {
            texts.push(format!(
                "{} No preemption victims found for incoming pod",
                total - useless
            ));
        }
        if useless > 0 {
            texts.push(format!("{useless} Preemption is not helpful for scheduling"));
        }
        texts.sort();
        return Outcome::Helpless(format!("0/{total} nodes are available: {}.", texts.join(", ")));
    };
    let node = facts.nodes[at].name.clone();
    for victim in &victims {
        evict(w, victim, pod, &node);
        facts.count(at, victim, -1);
    }
    facts.take(at, asks, 1);
    Outcome::Waits(node)
}

/// Budgets broken, highest priority, sum of priorities, number, and how long the youngest has run: the least wins.
type Cost = (usize, i32, i64, usize, Reverse<Option<tripod_model::Time>>);

fn victims_on(
    w: &Work<'_>,
    facts: &mut Facts,
    asks: &Asks,
    topology: &Topology,
    reasons: &[Reason],
    at: usize,
) -> Option<(Cost, Vec<Arc<KPod>>)> {
    let name = facts.nodes[at].name.clone();
    let here = w.view.pods_of_node(&name);
    let pods = here.filter_map(|p| w.k.pod(&p.metadata.namespace, &p.metadata.name));
    let mut lower: Vec<Arc<KPod>> = pods
        .filter(|p| p.info.kube && p.info.is_active() && p.info.priority < asks.priority)
        .filter(|p| p.pod.extension == Default::default())
        .cloned()
        .collect();
    if lower.is_empty() {
        return None;
    }
    let among = reasons
        .iter()
        .any(|r| matches!(r, Reason::Apart | Reason::OthersApart | Reason::Spread));
    if among && topology.constrains() && facts.room(at, asks).is_none() {
        // Which of the pods are in the way is not known by sums: all of lower priority would have to go.
        return Some((cost(w, &lower), lower));
    }
    lower.iter().for_each(|p| facts.count(at, p, -1));
    let fits = facts.room(at, asks).is_none();
    let mut victims = Vec::new();
    // The most important are kept first, if the pod still fits with them.
    lower.sort_by_key(|p| (Reverse(p.info.priority), p.pod.status.start_time));
    for pod in &lower {
        facts.count(at, pod, 1);
        if fits && facts.room(at, asks).is_some() {
            facts.count(at, pod, -1);
            victims.push(pod.clone());
        }
    }
    victims.iter().for_each(|p| facts.count(at, p, 1));
    (fits && !victims.is_empty()).then(|| (cost(w, &victims), victims))
}

fn cost(w: &Work<'_>, victims: &[Arc<KPod>]) -> Cost {
    let priorities = || victims.iter().map(|v| v.info.priority);
    (
        disruption::broken(w, victims),
        priorities().max().unwrap_or(i32::MIN),
        priorities().map(i64::from).sum(),
        victims.len(),
        Reverse(victims.iter().filter_map(|v| v.pod.status.start_time).max()),
    )
}

fn evict(w: &mut Work<'_>, victim: &Arc<KPod>, by: &KPod, node: &str) {
    let text = format!("{SCHEDULER}: preempting to accommodate a higher priority pod");
    super::super::pods::disrupt(w, victim, "PreemptionByScheduler", &text, None);
    let text = format!("Preempted by pod {} on node {node}", by.pod.metadata.uid);
    w.tell_pod(&victim.pod.metadata, SCHEDULER, false, "Preempted", text);
}
