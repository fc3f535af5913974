//! Moving replicas to nodes that have fewer of them, when a user asks for it: `docker` never does so by itself when a
//! node comes back. A replica moves by starting a second one at its place, elsewhere; it ends when that one serves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tripod_model::Time;
use tripod_model::node::Node;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::{ServiceMode, SwarmService, TaskState, UpdateState};

use crate::draft::Draft;
use crate::planner::Planner;
use crate::rollout;
use crate::schedule::{self, branch};
use crate::task::{Place, place};
use crate::view::View;

/// A replica that is to run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Identifier of the service.
    pub service_id: String,
    /// Its name.
    pub service: String,
    /// Number of the replica.
    pub slot: u64,
    /// The task that ends.
    pub task_id: String,
    /// Node (`metadata.name`) on which it runs.
    pub from: String,
    /// Node on which its successor is to run.
    pub to: String,
}

/// A service that stays as it is, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Identifier of the service.
    pub service_id: String,
    /// Its name.
    pub service: String,
    /// The reason.
    pub reason: String,
}

/// What moving replicas comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalancing {
    /// In the order in which they would be made.
    pub moves: Vec<Move>,
    /// Replicated services that are left alone although they might be uneven.
    pub kept: Vec<Kept>,
}

/// All moves that would make the replicated services of a cluster even, as their nodes are now. A move makes a service
/// more even over the branches of its placement preferences or over its nodes, or leaves that as it is and makes the
/// nodes more even; the node is the one that the scheduler would choose.
pub fn rebalance(view: &View, now: Time) -> Rebalancing {
    let mut d = Draft::new(view, now, 0);
    let mut result = Rebalancing::default();
    let mut services: Vec<(&SwarmService, Vec<Pod>)> = Vec::new();
    for service in view.services() {
        if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
            continue;
        }
        match reason_to_keep(service) {
            Some(reason) => result.kept.push(Kept {
                service_id: service.metadata.name.clone(),
                service: service.spec.name.clone(),
                reason,
            }),
            None => {
                let pods = view.pods_of_service(&service.metadata.name);
                services.push((service, pods.map(|p| p.as_ref().clone()).collect()));
            }
        }
    }
    // What one service gives up may make room for another.
    loop {
        let before = result.moves.len();
        for (service, pods) in &mut services {
            while let Some((i, to)) = next(&d, pods) {
                let pod = &mut pods[i];
                let task = pod.swarm().cloned().unwrap_or_default();
                d.count(&pod.spec.node_name, pod, -1);
                let from = std::mem::replace(&mut pod.spec.node_name, to.clone());
                d.count(&to, pod, 1);
                result.moves.push(Move {
                    service_id: service.metadata.name.clone(),
                    service: service.spec.name.clone(),
                    slot: task.slot,
                    task_id: task.task_id,
                    from,
                    to,
                });
            }
        }
        if result.moves.len() == before {
            return result;
        }
    }
}

/// Why no replica of a service is moved now.
fn reason_to_keep(service: &SwarmService) -> Option<String> {
    let update = service.status.update.as_ref().map(|u| u.state);
    match update {
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {
            return Some("an update is in progress".into());
        }
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => {
            return Some("its update is paused".into());
        }
        _ => {}
    }
    let mounts = &service.spec.task_template.container.mounts;
    let volume = mounts
        .iter()
        .find(|m| m.type_ == "volume" && !m.source.is_empty())?;
    Some(format!(
        "its tasks keep data in volume {} of their nodes",
        volume.source
    ))
}

/// The next move of a service: which of its pods, and where to.
fn next(d: &Draft<'_>, pods: &[Pod]) -> Option<(usize, String)> {
    let runs = |p: &Pod| p.is_live() && p.state.observed == TaskState::Running;
    let mut wanted: BTreeMap<Place, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|p| p.is_live()) {
        *wanted.entry(place(pod.swarm()?)).or_default() += 1;
    }
    let movable = |p: &Pod| runs(p) && p.swarm().is_some_and(|t| wanted.get(&place(t)) == Some(&1));
    let sample = pods.iter().rev().find(|p| movable(p))?;
    let to = d.view.node(&schedule::best(d, sample)?)?;
    let mut best: Option<((i64, i64, u64), usize)> = None;
    for (i, pod) in pods.iter().enumerate().filter(|(_, p)| movable(p)) {
        let task = pod.swarm()?;
        let Some(from) = d.view.node(&pod.spec.node_name) else {
            continue;
        };
        if from.metadata.name == to.metadata.name || !improves(d, pod, from, to) {
            continue;
        }
        let rank = (of_service(d, from, &task.service_id), total(d, from), task.slot);
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, i));
        }
    }
    best.map(|(_, i)| (i, to.metadata.name.clone()))
}

fn of_service(d: &Draft<'_>, node: &Node, id: &str) -> i64 {
    d.node_sum(&node.metadata.name, |u| {
        u.by_service.get(id).copied().unwrap_or(0)
    })
}

fn total(d: &Draft<'_>, node: &Node) -> i64 {
    d.node_sum(&node.metadata.name, |u| u.active)
}

/// Whether a service is more even with one of its tasks on the other node.
fn improves(d: &Draft<'_>, pod: &Pod, from: &Node, to: &Node) -> bool {
    let Some(task) = pod.swarm() else { return false };
    let placement = task.template.placement.as_ref();
    let preferences = placement.map_or(&[][..], |p| &p.preferences);
    for depth in 1..=preferences.len() {
        let path =
            |node: &Node| -> Vec<String> { preferences[..depth].iter().map(|p| branch(node, p)).collect() };
        let (ours, theirs) = (path(from), path(to));
        if ours != theirs {
            let in_branch = |wanted: &Vec<String>| -> i64 {
                let inside = d.view.nodes().filter(|n| path(n) == *wanted);
                inside.map(|n| of_service(d, n, &task.service_id)).sum()
            };
            return in_branch(&theirs) + 1 < in_branch(&ours);
        }
    }
    let (here, there) = (
        of_service(d, from, &task.service_id),
        of_service(d, to, &task.service_id),
    );
    there + 1 < here || there + 1 == here && total(d, to) + 1 < total(d, from)
}

/// Takes a rebalancing that was asked for a step further: one replica of the service at a time.
pub(crate) fn advance(p: &mut Planner<'_, '_>) {
    if !p.service.status.rebalancing {
        return;
    }
    let moving = (0..p.tasks.len()).find(|&i| p.wanted(i) && p.pod(i).state.moving);
    if let Some(old) = moving {
        follow(p, old);
        return;
    }
    if reason_to_keep(&p.service).is_some() {
        // An update makes new tasks anyway, and those are placed as the nodes are then.
        p.edit_service().status.rebalancing = false;
        return;
    }
    // What still ends, or is on its way up, counts on its node: even is judged when all is at rest.
    let restless = (0..p.tasks.len()).any(|i| {
        let state = &p.pod(i).state;
        let up = p.wanted(i) && state.observed != TaskState::Running;
        let down = !p.wanted(i) && !state.observed.is_final() && !p.on_lost_node(i);
        !p.tasks[i].removed && (up || down)
    });
    if restless {
        return;
    }
    let pods: Vec<Pod> = p.tasks.iter().map(|t| t.pod.as_ref().clone()).collect();
    let Some((i, to)) = next(p.d, &pods) else {
        p.edit_service().status.rebalancing = false;
        return;
    };
    let pod = p.tasks[i].pod.clone();
    let from = pod.spec.node_name.clone();
    p.d.explain(
        pod.as_ref(),
        "Rebalancing",
        format!("moves from node {from} to node {to}"),
    );
    p.edit(i, |pod| pod.state.moving = true);
    let (place, goal) = (place(p.task(i)), p.goal());
    p.create(&place, goal, None);
}

/// A replica is on its way: waits for its successor, or gives up when that comes to nothing.
fn follow(p: &mut Planner<'_, '_>, old: usize) {
    let here = p.places.get(&place(p.task(old))).cloned().unwrap_or_default();
    let newer: Vec<usize> = here
        .into_iter()
        .filter(|&i| i > old && !p.tasks[i].removed)
        .collect();
    let by_itself = |i: &usize| matches!(p.pod(*i).state.observed, TaskState::Failed | TaskState::Rejected);
    let nowhere = |i: &usize| {
        let state = &p.pod(*i).state;
        state.observed == TaskState::Pending && !state.error.is_empty()
    };
    let since = p.pod(old).metadata.creation_timestamp;
    let made = newer
        .iter()
        .filter(|&&i| p.pod(i).metadata.creation_timestamp >= since);
    let problem = made.clone().find(|i| by_itself(i) || nowhere(i)).copied();
    let waits = made.clone().any(|&i| p.wanted(i));
    if waits && problem.is_none() {
        return;
    }
    let reason = problem.map_or_else(
        || "its successor is gone".to_owned(),
        |i| p.pod(i).state.error.clone(),
    );
    for i in newer {
        if p.wanted(i) {
            p.shut(i, DesiredState::Shutdown);
        }
    }
    p.edit(old, |pod| pod.state.moving = false);
    p.edit_service().status.rebalancing = false;
    let service = p.service.clone();
    p.d.explain(
        service.as_ref(),
        "RebalanceStopped",
        format!("a replica stays where it is: {reason}"),
    );
}

/// Whether a task ends as soon as another one at its place serves.
pub(crate) fn leaves(p: &Planner<'_, '_>, i: usize, here: &[usize]) -> bool {
    p.pod(i).state.moving && here.iter().any(|&k| k != i && p.wanted(k))
}

/// Ends what has moved: a task that stays at its place serves, whatever template it is of.
pub(crate) fn finish(p: &mut Planner<'_, '_>, leaving: &[usize], staying: &[&[usize]]) {
    if leaving.is_empty() {
        return;
    }
    let arrived = staying
        .iter()
        .copied()
        .flatten()
        .any(|&i| rollout::is_settled(p, i));
    if arrived {
        for &i in leaving {
            p.shut(i, DesiredState::Shutdown);
        }
    }
}
