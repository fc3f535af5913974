//! What becomes of tasks when their node does: drained, lost, removed, or no longer fitting.

use tripod_model::node::{Availability, NodeState};
use tripod_model::pod::DesiredState;
use tripod_model::swarm::TaskState;

use crate::constraint;
use crate::draft::after;
use crate::planner::Planner;
use crate::restart::restart;

/// Nanoseconds after which tasks of a lost node are given up (SwarmKit: 24 h).
const ORPHAN_AFTER: i64 = 24 * 3600 * 1_000_000_000;

/// Marks tasks orphaned whose node was removed, or was down for a day.
pub(crate) fn lost_nodes(p: &mut Planner<'_, '_>) {
    for i in 0..p.tasks.len() {
        let pod = p.pod(i);
        if pod.spec.node_name.is_empty() || pod.state.observed.is_final() {
            continue;
        }
        let message = match p.node_of(i) {
            None => "Task belonged to a node that has been deleted",
            Some(node) if node.status.state == NodeState::Down => {
                let since = node.status.since.unwrap_or(p.now());
                if !p.d.reached(after(since, ORPHAN_AFTER)) {
                    continue;
                }
                "Task belonged to a node that has been down for too long"
            }
            Some(_) => continue,
        };
        let now = p.now();
        let replace = p.wanted(i) && !p.service.spec.mode.is_global() && !p.service.metadata.name.is_empty();
        if replace {
            restart(p, i, 0);
        }
        p.edit(i, |pod| {
            pod.state.observed = TaskState::Orphaned;
            pod.state.at = Some(now);
            pod.state.message = message.into();
            pod.state.serving = false;
            pod.status.phase = "Failed".into();
            pod.status.message = message.into();
        });
    }
}

/// Ends tasks on nodes that are down, drained or no longer satisfy the task's constraints, and has them replaced
/// elsewhere. Global services see to their nodes themselves.
pub(crate) fn unfit_nodes(p: &mut Planner<'_, '_>) {
    if p.service.spec.mode.is_global() {
        return;
    }
    for i in 0..p.tasks.len() {
        let pod = p.pod(i);
        if !p.wanted(i) || pod.state.observed.is_final() || pod.spec.node_name.is_empty() {
            continue;
        }
        let Some(node) = p.node_of(i) else { continue };
        if node.status.state == NodeState::Down || node.spec.swarm.availability == Availability::Drain {
            restart(p, i, 0);
        } else if !constraint::satisfied(&p.task(i).template, node) {
            let message = "assigned node no longer meets constraints";
            let pod = p.tasks[i].pod.clone();
            p.d.explain(pod.as_ref(), "ConstraintViolated", message);
            restart(p, i, 0);
            p.edit(i, |pod| pod.state.error = message.into());
        }
    }
}

/// Whether a global service keeps a task on a node.
pub(crate) fn keeps_global(node: &tripod_model::node::Node) -> bool {
    node.status.state != NodeState::Down && node.spec.swarm.availability != Availability::Drain
}

/// Whether a node takes new tasks.
pub(crate) fn takes_tasks(node: &tripod_model::node::Node) -> bool {
    node.status.state == NodeState::Ready
        && node.spec.swarm.availability == Availability::Active
        && !node.spec.unschedulable
}

/// Has the tasks of a place end.
pub(crate) fn shut_place(p: &mut Planner<'_, '_>, indices: &[usize], desired: DesiredState) {
    for &i in indices {
        p.shut(i, desired);
        p.forget_removed(i);
    }
}
