//! Tasks that ended and their replacements: conditions, delays, attempts. The history of a place is all there is
//! to know: nothing is remembered elsewhere.

use tripod_model::Time;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::TaskState;

use crate::draft::after;
use crate::planner::Planner;
use crate::task::place;

/// Nanoseconds before a replacement starts, when the policy names none.
pub(crate) const DEFAULT_DELAY: i64 = 5_000_000_000;
/// Nanoseconds beyond the grace period after which a replacement no longer waits for a task that does not end.
const STOP_PATIENCE: i64 = 60_000_000_000;

/// Replaces the tasks that ended although they were wanted.
pub(crate) fn ended(p: &mut Planner<'_, '_>) {
    for i in 0..p.tasks.len() {
        let pod = p.pod(i);
        if !p.wanted(i) || !pod.state.observed.is_final() {
            continue;
        }
        if p.goal() == DesiredState::Complete && pod.state.observed == TaskState::Complete {
            continue;
        }
        // One that failed before its own delay was over waits for it, so that loops keep their pace.
        if let Some(t) = pod.state.not_before
            && !p.d.reached(t)
        {
            continue;
        }
        let delay = delay(p.pod(i));
        restart(p, i, delay);
    }
}

/// Ends a task and makes its replacement, where the policy has one.
pub(crate) fn restart(p: &mut Planner<'_, '_>, i: usize, delay: i64) {
    let again = should_restart(p, i);
    let place = place(p.task(i));
    p.shut(i, DesiredState::Shutdown);
    if again {
        let not_before = (delay > 0).then(|| after(p.now(), delay));
        p.create_after_others(&place, not_before);
    }
}

/// Nanoseconds before the replacement of a task starts.
fn delay(pod: &Pod) -> i64 {
    let policy = pod.swarm().and_then(|t| t.template.restart_policy.as_ref());
    policy.and_then(|p| p.delay).unwrap_or(DEFAULT_DELAY).max(0)
}

/// Whether the policy has a task that ends, or ended, replaced.
pub(crate) fn should_restart(p: &Planner<'_, '_>, i: usize) -> bool {
    let pod = p.pod(i);
    let Some(policy) = &p.task(i).template.restart_policy else {
        return true;
    };
    let complete = pod.state.observed == TaskState::Complete;
    let job = p.goal() == DesiredState::Complete;
    match policy.condition.as_str() {
        "none" => return false,
        "on-failure" if complete => return false,
        _ if complete && job => return false,
        _ => {}
    }
    let Some(limit) = policy.max_attempts.filter(|&n| n > 0) else {
        return true;
    };
    let window = policy.window.filter(|&w| w > 0);
    let since = window.and_then(|w| pod.state.at.map(|at| after(at, -w)));
    restarts(p, i, since) < limit
}

/// How often the place of a task was restarted with the task's generation, since a time. The first task of a
/// generation is no restart.
fn restarts(p: &Planner<'_, '_>, i: usize, since: Option<Time>) -> u64 {
    let task = p.task(i);
    let Some(indices) = p.places.get(&place(task)) else {
        return 0;
    };
    let made = indices
        .iter()
        .filter(|&&k| p.task(k).service_generation == task.service_generation)
        .skip(1);
    let counted = made.filter(|&&k| {
        let created = p.pod(k).metadata.creation_timestamp;
        since.is_none_or(|s| created.is_none_or(|c| c > s))
    });
    counted.count() as u64
}

/// Lets tasks that were only to become ready run: their delay is over and the tasks before them ended.
pub(crate) fn promote(p: &mut Planner<'_, '_>) {
    let goal = p.goal();
    for i in 0..p.tasks.len() {
        let pod = p.pod(i);
        if p.tasks[i].removed || pod.state.desired != DesiredState::Ready || pod.state.observed.is_final() {
            continue;
        }
        if let Some(t) = pod.state.not_before
            && !p.d.reached(t)
        {
            continue;
        }
        if let Some(old) = p.stopping(&place(p.task(i))) {
            let grace = p
                .pod(old)
                .spec
                .termination_grace_period_seconds
                .unwrap_or(10)
                .max(0);
            let patience = grace.saturating_mul(1_000_000_000).saturating_add(STOP_PATIENCE);
            let created = p.pod(i).metadata.creation_timestamp.unwrap_or(p.now());
            if !p.d.reached(after(created, patience)) {
                continue;
            }
        }
        p.edit(i, |pod| {
            pod.state.desired = goal;
            pod.state.not_before = None;
        });
    }
}
