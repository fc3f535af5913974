//! What is remembered of tasks that ended: so many for each slot or node.

use tripod_model::pod::DesiredState;
use tripod_model::swarm::TaskState;

use crate::planner::Planner;

/// Deletes the oldest ended tasks of each place beyond the cluster's retention (negative: all are kept), and
/// tasks to be removed that have ended.
pub(crate) fn history(p: &mut Planner<'_, '_>) {
    let retention = p.d.view.cluster().map_or(5, |c| c.spec.task_history_retention);
    let policy = p.service.spec.task_template.restart_policy.as_ref();
    // The history is also the restart policy's memory.
    let attempts = policy.and_then(|r| r.max_attempts).filter(|&n| n > 0);
    let memory = attempts.map_or(0, |n| i64::try_from(n).unwrap_or(i64::MAX).saturating_add(1));
    let keep = usize::try_from(retention.max(memory)).unwrap_or(usize::MAX);
    let job = p.service.spec.mode.is_job();
    let mut reaped = Vec::new();
    for indices in p.places.values() {
        let mut here: Vec<usize> = indices.iter().copied().filter(|&i| !p.tasks[i].removed).collect();
        for &i in &here {
            if p.pod(i).state.desired == DesiredState::Remove {
                reaped.push(i);
            }
        }
        here.retain(|&i| p.pod(i).state.desired != DesiredState::Remove);
        // An update looks at what a task replaces until the task runs.
        let unsettled = here
            .iter()
            .any(|&i| p.wanted(i) && p.pod(i).state.observed < TaskState::Running);
        if retention < 0 || here.len() <= keep || (unsettled && here.len() <= keep.max(2)) {
            continue;
        }
        let surplus = here.len() - keep.max(usize::from(unsettled) * 2);
        let old = here.into_iter().filter(|&i| {
            let s = &p.pod(i).state;
            let result = job && s.observed == TaskState::Complete;
            s.desired > DesiredState::Complete && s.observed.is_final() && !p.tasks[i].is_new() && !result
        });
        reaped.extend(old.take(surplus));
    }
    for i in reaped {
        let state = &p.pod(i).state;
        if state.desired == DesiredState::Remove {
            p.forget_removed(i);
        } else {
            p.tasks[i].removed = true;
        }
    }
}
