//! The choice among nodes that fit: room left and balanced use, images that are there, what is preferred, and few
//! pods of the same class.

use std::collections::BinaryHeap;

use super::asks::Asks;
use super::facts::{Facts, NodeFacts, Refusals, node_matches, tolerates};
use super::topology::Topology;

const TOP: i64 = 100;
/// Images below count nothing, images above in full (bytes).
const IMAGE_SIZES: (i64, i64) = (23 << 20, 1 << 30);

/// What does not change while a class is placed, by node.
pub(super) struct Scores(Vec<i64>);

impl Scores {
    pub(super) fn new(facts: &Facts, asks: &Asks, fits: &[usize]) -> Self {
        let mut fixed = vec![0; facts.nodes.len()];
        let preferred = fits.iter().map(|&at| node_preference(asks, &facts.nodes[at]));
        let preferred: Vec<i64> = preferred.collect();
        let soft = fits.iter().map(|&at| {
            let node = &facts.nodes[at];
            let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
            i64::try_from(soft.filter(|t| !tolerates(&asks.tolerations, t)).count()).unwrap_or(TOP)
        });
        let soft: Vec<i64> = soft.collect();
        let (best, worst) = (
            preferred.iter().copied().max().unwrap_or(0).max(1),
            soft.iter().copied().max().unwrap_or(0).max(1),
        );
        for (i, &at) in fits.iter().enumerate() {
            let node = &facts.nodes[at];
            fixed[at] =
                2 * (preferred[i] * TOP / best) + 3 * (TOP - soft[i] * TOP / worst) + images(asks, node);
        }
        Self(fixed)
    }
}

fn node_preference(asks: &Asks, node: &NodeFacts) -> i64 {
    let terms = asks.node_preferred.iter();
    let matching = terms.filter(|t| node_matches(std::slice::from_ref(&t.preference), &node.node));
    matching.map(|t| i64::from(t.weight)).sum()
}

fn images(asks: &Asks, node: &NodeFacts) -> i64 {
    let present = asks.images.iter().filter_map(|image| {
        let tagged = image
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']));
        let latest = if tagged {
            image.clone()
        } else {
            format!("{image}:latest")
        };
        node.images.get(&latest)
    });
    let size: i64 = present.sum();
    let (least, most) = IMAGE_SIZES;
    (size.clamp(least, most) - least) * TOP / (most - least)
}

/// Room left after the pod, and evenness of processors and memory.
fn resources(node: &NodeFacts, asks: &Asks) -> i64 {
    // A pod that asks for nothing still takes something.
    let cpu = node.used.cpu + asks.requests.cpu.max(100);
    let memory = node.used.memory + asks.requests.memory.max(200 << 20);
    let part = |used: i64, has: i64| {
        if has <= 0 {
            TOP
        } else {
            (used.saturating_mul(TOP) / has).min(TOP)
        }
    };
    let (cpu, memory) = (part(cpu, node.has.cpu), part(memory, node.has.memory));
    let least = (TOP - cpu + TOP - memory) / 2;
    let balanced = TOP - (cpu - memory).abs() / 2;
    least + balanced
}

/// The next node for a pod of the class.
pub(super) struct Choice {
    fixed: Scores,
    /// Pods of the same owner on each node.
    own: Vec<i64>,
    heap: Option<BinaryHeap<(i64, std::cmp::Reverse<usize>)>>,
    fits: Vec<usize>,
}

impl Choice {
    pub(super) fn new(fixed: Scores, facts: &Facts, asks: &Asks, fits: Vec<usize>, own: Vec<i64>) -> Self {
        let mut choice = Self {
            own,
            fixed,
            heap: None,
            fits,
        };
        let heap = choice
            .fits
            .iter()
            .map(|&at| (choice.score(facts, asks, at), std::cmp::Reverse(at)));
        choice.heap = Some(heap.collect());
        choice
    }

    fn score(&self, facts: &Facts, asks: &Asks, at: usize) -> i64 {
        // Replicas of one thing go apart as far as the rest allows.
        self.fixed.0[at] + resources(&facts.nodes[at], asks) - 20 * self.own[at]
    }

    pub(super) fn next(
        &mut self,
        facts: &Facts,
        asks: &Asks,
        topology: &Topology,
        refusals: &mut Refusals,
    ) -> Option<usize> {
        if topology.constrains() {
            return self.search(facts, asks, topology, refusals);
        }
        while let Some((_, std::cmp::Reverse(at))) = self.heap.as_mut()?.pop() {
            match facts
                .room(at, asks)
                .or_else(|| topology.judge(facts, at).map(|r| vec![r]))
            {
                None => return Some(at),
                Some(reasons) => refusals.add(at, reasons),
            }
        }
        None
    }

    fn search(
        &mut self,
        facts: &Facts,
        asks: &Asks,
        topology: &Topology,
        refusals: &mut Refusals,
    ) -> Option<usize> {
        let mut best: Option<(i64, usize)> = None;
        let mut refused = Vec::new();
        for &at in &self.fits {
            match facts
                .room(at, asks)
                .or_else(|| topology.judge(facts, at).map(|r| vec![r]))
            {
                Some(reasons) => refused.push((at, reasons)),
                None => {
                    let score = self.score(facts, asks, at) + topology.preference(facts, at);
                    if best.is_none_or(|(b, _)| score > b) {
                        best = Some((score, at));
                    }
                }
            }
        }
        if best.is_none() {
            refused
                .into_iter()
                .for_each(|(at, reasons)| refusals.add(at, reasons));
        }
        best.map(|(_, at)| at)
    }

    /// The node that was chosen took the pod.
    pub(super) fn took(&mut self, facts: &Facts, asks: &Asks, at: usize) {
        self.own[at] += 1;
        let score = self.score(facts, asks, at);
        if let Some(heap) = &mut self.heap {
            heap.push((score, std::cmp::Reverse(at)));
        }
    }
}
