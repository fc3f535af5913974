//! The choice among nodes that fit: evenly over the branches of the placement preferences, then the node with the
//! fewest tasks of the service, then with the fewest tasks in all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use tripod_model::node::Node;

use super::filter::{Checks, Reason};

/// A node that fits.
pub(super) struct Candidate {
    pub(super) node: Arc<Node>,
    /// How many tasks it can still take.
    pub(super) room: i64,
    /// Tasks of the service fail there again and again.
    pub(super) failing: bool,
    /// Tasks of the service on it.
    pub(super) of_service: i64,
    /// Tasks on it.
    pub(super) total: i64,
    /// Set when it has no room left.
    pub(super) last_refusal: Option<Reason>,
}

/// Orders nodes: the least first. The index stands for the name, as candidates come in its order.
type Score = Reverse<(bool, i64, i64, usize)>;

enum Tree {
    Leaf(BinaryHeap<Score>),
    /// Branches with the number of tasks of the service in each.
    Fork(Vec<(i64, Tree)>),
}

/// Gives one node after the other.
pub(super) struct Spread {
    candidates: Vec<Candidate>,
    tree: Tree,
    limiting: Reason,
}

impl Spread {
    pub(super) fn new(candidates: Vec<Candidate>, preferences: &[String], checks: &Checks<'_>) -> Self {
        let all: Vec<usize> = (0..candidates.len()).collect();
        let tree = build(&candidates, &all, preferences);
        Self {
            candidates,
            tree,
            limiting: checks.limiting(),
        }
    }

    /// The name of the node for the next task.
    pub(super) fn next(&mut self) -> Option<String> {
        let i = pick(&mut self.tree, &mut self.candidates)?;
        let candidate = &mut self.candidates[i];
        if candidate.room == 0 {
            candidate.last_refusal = Some(self.limiting);
        }
        Some(candidate.node.metadata.name.clone())
    }

    /// The reasons of nodes that took all they can.
    pub(super) fn exhausted(&self) -> impl Iterator<Item = Reason> + '_ {
        self.candidates.iter().filter_map(|c| c.last_refusal)
    }
}

fn score(candidates: &[Candidate], i: usize) -> Score {
    let c = &candidates[i];
    Reverse((c.failing, c.of_service, c.total, i))
}

fn build(candidates: &[Candidate], members: &[usize], preferences: &[String]) -> Tree {
    let Some((first, rest)) = preferences.split_first() else {
        return Tree::Leaf(members.iter().map(|&i| score(candidates, i)).collect());
    };
    let mut branches: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &i in members {
        branches
            .entry(branch(&candidates[i].node, first))
            .or_default()
            .push(i);
    }
    let fork = branches.into_values().map(|members| {
        let tasks = members.iter().map(|&i| candidates[i].of_service).sum();
        (tasks, build(candidates, &members, rest))
    });
    Tree::Fork(fork.collect())
}

/// The value of a spread descriptor on a node; nodes without the label are a branch of their own.
pub(crate) fn branch(node: &Node, descriptor: &str) -> String {
    let lower = descriptor.to_ascii_lowercase();
    let description = &node.status.description;
    let of = |prefix: &str, labels: &BTreeMap<String, String>| {
        lower.starts_with(prefix).then(|| {
            labels
                .get(&descriptor[prefix.len()..])
                .cloned()
                .unwrap_or_default()
        })
    };
    match lower.as_str() {
        "node.id" => node.spec.swarm.node_id.clone(),
        "node.hostname" => description.hostname.clone(),
        _ => of("node.labels.", &node.spec.swarm.labels)
            .or_else(|| of("engine.labels.", &description.engine_labels))
            .unwrap_or_default(),
    }
}

fn pick(tree: &mut Tree, candidates: &mut [Candidate]) -> Option<usize> {
    match tree {
        Tree::Leaf(heap) => {
            let Reverse((.., i)) = heap.pop()?;
            let c = &mut candidates[i];
            c.room -= 1;
            c.of_service += 1;
            c.total += 1;
            if c.room > 0 {
                heap.push(score(candidates, i));
            }
            Some(i)
        }
        Tree::Fork(branches) => loop {
            let (at, _) = branches
                .iter()
                .enumerate()
                .min_by_key(|(k, (tasks, _))| (*tasks, *k))?;
            match pick(&mut branches[at].1, candidates) {
                Some(i) => {
                    branches[at].0 += 1;
                    return Some(i);
                }
                None => {
                    branches.remove(at);
                }
            }
        },
    }
}
