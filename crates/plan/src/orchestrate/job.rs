//! Jobs: tasks that run to completion, some at a time or one on each node. An update starts a new iteration.

use std::collections::BTreeSet;

use tripod_model::pod::DesiredState;
use tripod_model::swarm::TaskState;

use super::is_filled;
use crate::constraint;
use crate::enforce::{keeps_global, shut_place, takes_tasks};
use crate::planner::Planner;

fn iteration(p: &Planner<'_, '_>) -> u64 {
    p.service.status.job.as_ref().map_or(0, |j| j.iteration)
}

/// Ends and forgets the tasks of earlier iterations.
fn drop_earlier(p: &mut Planner<'_, '_>) {
    let current = iteration(p);
    let old: Vec<usize> = (0..p.tasks.len())
        .filter(|&i| p.task(i).job_iteration.unwrap_or(0) < current)
        .collect();
    shut_place(p, &old, DesiredState::Remove);
}

/// `total` completions, `concurrent` at a time (0: all).
pub(super) fn replicated(p: &mut Planner<'_, '_>, concurrent: u64, total: u64) {
    drop_earlier(p);
    let current = iteration(p);
    let (mut complete, mut running, mut used) = (0_u64, 0_u64, BTreeSet::new());
    for (place, indices) in &p.places {
        let mine: Vec<usize> = indices
            .iter()
            .copied()
            .filter(|&i| p.task(i).job_iteration == Some(current))
            .collect();
        if mine
            .iter()
            .any(|&i| p.pod(i).state.observed == TaskState::Complete)
        {
            complete += 1;
        } else if is_filled(p, &mine) {
            // A place that failed for good counts too: it is not tried again.
            running += 1;
        } else {
            continue;
        }
        used.insert(place.0);
    }
    let concurrent = if concurrent == 0 { total } else { concurrent };
    let room = concurrent
        .saturating_sub(running)
        .min(total.saturating_sub(complete + running));
    let mut slot = 0;
    for _ in 0..room {
        slot += 1;
        while used.contains(&slot) {
            slot += 1;
        }
        used.insert(slot);
        p.create_after_others(&(slot, String::new()), None);
    }
}

/// One completion on each node.
pub(super) fn global(p: &mut Planner<'_, '_>) {
    drop_earlier(p);
    let current = iteration(p);
    let view = p.d.view;
    for node in view.nodes() {
        let place = (0, node.spec.swarm.node_id.clone());
        let fits = constraint::satisfied(&p.service.spec.task_template, node);
        let mine: Vec<usize> = p.places.get(&place).map_or_else(Vec::new, |v| {
            v.iter()
                .copied()
                .filter(|&i| p.task(i).job_iteration == Some(current))
                .collect()
        });
        if !keeps_global(node) || !fits {
            let unfinished: Vec<usize> = mine
                .into_iter()
                .filter(|&i| p.pod(i).state.observed != TaskState::Complete)
                .collect();
            shut_place(p, &unfinished, DesiredState::Shutdown);
        } else if takes_tasks(node) && !is_filled(p, &mine) {
            p.create_after_others(&place, None);
        }
    }
}
