//! How many tasks a service has, and where they belong: replicated and global services and jobs.

mod global;
mod job;
mod replicated;

use tripod_model::swarm::ServiceMode;

use crate::planner::Planner;
use crate::restart::should_restart;

/// Makes and ends tasks until the service has those it asks for.
pub(crate) fn orchestrate(p: &mut Planner<'_, '_>) {
    match p.service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::reconcile(p, replicas),
        ServiceMode::Global {} => global::reconcile(p),
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => {
            job::replicated(p, max_concurrent, total_completions);
        }
        ServiceMode::GlobalJob {} => job::global(p),
    }
}

/// Whether a place needs no new task: one of its tasks is wanted, or the last one ended for good. A rollback
/// fills the latter sort again, so that it ends in the state before the update.
pub(crate) fn is_filled(p: &Planner<'_, '_>, indices: &[usize]) -> bool {
    if indices.iter().any(|&i| p.wanted(i)) {
        return true;
    }
    let last = indices.iter().rev().copied().find(|&i| !p.tasks[i].removed);
    last.is_some_and(|i| {
        p.pod(i).state.desired != tripod_model::pod::DesiredState::Remove
            && !p.rolling_back()
            && !should_restart(p, i)
    })
}
