//! Rolling updates and rollbacks: one planner for both. Everything is read off the tasks and the update's status,
//! so that another manager goes on where this one stopped.

mod change;
mod stale;

use tripod_model::Time;
use tripod_model::node::Availability;
use tripod_model::pod::DesiredState;
use tripod_model::swarm::{FailureAction, TaskState, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus};

use crate::draft::after;
use crate::planner::Planner;
use crate::project::serves;
use crate::task::Place;
use crate::{allocate, orchestrate, rebalance};

pub use change::{new_service, rollback_service, update_service};
pub(crate) use stale::Staleness;
pub use stale::is_task_dirty;

/// Nanoseconds for which a new task is watched when the configuration does not say (SwarmKit's default).
const DEFAULT_MONITOR: i64 = 5_000_000_000;
/// Nanoseconds after which a task that runs but does not listen no longer holds up the rollout.
const SERVE_PATIENCE: i64 = 30_000_000_000;

/// A slot or node under update.
struct Slot {
    place: Place,
    /// Tasks wanted that are of the present template.
    clean: Vec<usize>,
    /// Tasks wanted that are not.
    dirty: Vec<usize>,
    /// Tasks wanted that end as soon as another one serves, whatever the order of updates is.
    leaving: Vec<usize>,
    /// No task is wanted, and the last one, which ended for good, is of another template.
    ended_dirty: bool,
}

impl Slot {
    /// It has to be dealt with, and nobody has begun.
    fn is_due(&self) -> bool {
        self.clean.is_empty() && (!self.dirty.is_empty() || self.ended_dirty)
    }
}

/// Takes the rollout a step further: ends what was replaced, judges failures, begins with further slots, declares it
/// complete.
pub(crate) fn advance(p: &mut Planner<'_, '_>) {
    if p.service.spec.mode.is_job() || is_quiet(p) {
        return;
    }
    let mut slots = survey(p);
    let config = config(p);
    for slot in &mut slots {
        finish_slot(p, slot, &config);
    }
    let pending = slots.iter().any(|s| is_pending(p, s));
    match state(p) {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return,
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {}
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) | None if !pending => return,
        _ => begin(p),
    }
    same_generation(p);
    if judge_failures(p, &slots, &config) {
        return;
    }
    let flying = slots.iter().filter(|s| in_flight(p, s)).count();
    let limit = if config.parallelism == 0 {
        u64::MAX
    } else {
        config.parallelism
    };
    let due: Vec<&Slot> = slots
        .iter()
        .filter(|s| s.is_due() && !on_paused_node(p, s))
        .collect();
    if !due.is_empty() {
        let resting = slots.iter().filter(|s| is_resting(p, s, &config)).count();
        let free = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(flying + resting);
        for slot in due.into_iter().take(free) {
            replace(p, slot, &config);
        }
    } else if flying == 0 && !slots.iter().any(|s| is_pending(p, s)) {
        complete(p, &config);
    }
}

fn state(p: &Planner<'_, '_>) -> Option<UpdateState> {
    p.service.status.update.as_ref().map(|u| u.state)
}

/// Whether there is plainly nothing to do, as for most plans: no rollout, no task of another template, no two tasks
/// at one place.
fn is_quiet(p: &mut Planner<'_, '_>) -> bool {
    if matches!(
        state(p),
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    ) {
        return false;
    }
    let single = |indices: &Vec<usize>| indices.iter().filter(|&&i| p.wanted(i)).count() < 2;
    p.places.values().all(single) && (0..p.tasks.len()).all(|i| p.tasks[i].removed || !stale::is_dirty(p, i))
}

fn config(p: &Planner<'_, '_>) -> UpdateConfig {
    let spec = &p.service.spec;
    let chosen = if p.rolling_back() {
        &spec.rollback_config
    } else {
        &spec.update_config
    };
    let mut config = chosen.clone().unwrap_or_default();
    if config.monitor <= 0 {
        config.monitor = DEFAULT_MONITOR;
    }
    config
}

/// The slots as they are.
fn survey(p: &mut Planner<'_, '_>) -> Vec<Slot> {
    let places: Vec<(Place, Vec<usize>)> = p.places.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut slots = Vec::with_capacity(places.len());
    for (place, indices) in places {
        let here: Vec<usize> = indices.into_iter().filter(|&i| !p.tasks[i].removed).collect();
        let (mut clean, mut dirty, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
        for &i in &here {
            if !p.wanted(i) {
                continue;
            }
            let list = if rebalance::leaves(p, i, &here) {
                &mut leaving
            } else if stale::is_dirty(p, i) {
                &mut dirty
            } else {
                &mut clean
            };
            list.push(i);
        }
        let last = here
            .last()
            .copied()
            .filter(|&i| p.pod(i).state.desired != DesiredState::Remove);
        let ended_dirty = clean.is_empty()
            && dirty.is_empty()
            && orchestrate::is_filled(p, &here)
            && last.is_some_and(|i| stale::is_dirty(p, i));
        slots.push(Slot {
            place,
            clean,
            dirty,
            leaving,
            ended_dirty,
        });
    }
    slots
}

/// Ends the tasks whose replacement serves; with `stop-first`, also before that.
fn finish_slot(p: &mut Planner<'_, '_>, slot: &mut Slot, config: &UpdateConfig) {
    rebalance::finish(p, &slot.leaving, &[&slot.clean, &slot.dirty]);
    if slot.clean.is_empty() {
        keep_one(p, &mut slot.dirty);
        return;
    }
    if slot.clean.len() + slot.dirty.len() < 2 {
        return;
    }
    let kept = slot.clean.iter().copied().find(|&i| settled_at(p, i).is_some());
    match kept {
        Some(kept) => {
            let others: Vec<usize> = slot.clean.drain(..).filter(|&i| i != kept).collect();
            slot.clean.push(kept);
            for i in others.into_iter().chain(slot.dirty.drain(..)) {
                p.shut(i, DesiredState::Shutdown);
            }
        }
        None if config.order == UpdateOrder::StopFirst => {
            for i in slot.dirty.drain(..) {
                p.shut(i, DesiredState::Shutdown);
            }
        }
        None => {}
    }
}

/// Of several tasks that wait to be replaced, one that serves is enough.
fn keep_one(p: &mut Planner<'_, '_>, dirty: &mut Vec<usize>) {
    if dirty.len() < 2 {
        return;
    }
    if let Some(kept) = dirty.iter().copied().find(|&i| is_settled(p, i)) {
        for i in std::mem::replace(dirty, vec![kept]) {
            if i != kept {
                p.shut(i, DesiredState::Shutdown);
            }
        }
    }
}

/// Since when a task serves, or runs although it does not listen.
fn settled_at(p: &mut Planner<'_, '_>, i: usize) -> Option<Time> {
    let pod = p.pod(i);
    if pod.state.observed != TaskState::Running {
        return None;
    }
    let since = pod.state.running_at.or(pod.state.at).unwrap_or(p.now());
    if serves(pod) {
        return Some(since);
    }
    p.d.reached(after(since, SERVE_PATIENCE)).then_some(since)
}

/// Whether a task serves, or is not going to.
pub(crate) fn is_settled(p: &mut Planner<'_, '_>, i: usize) -> bool {
    settled_at(p, i).is_some()
}

/// When a task was done with starting: it serves, or it ended.
fn reached_at(p: &mut Planner<'_, '_>, i: usize) -> Option<Time> {
    let state = &p.pod(i).state;
    if state.observed.is_final() {
        return Some(state.at.unwrap_or(p.now()));
    }
    settled_at(p, i)
}

/// The tasks at a place that this rollout made.
fn made_here(p: &Planner<'_, '_>, place: &Place) -> Vec<usize> {
    let generation = p.service.status.update.as_ref().map_or(0, |u| u.generation);
    let here = p.places.get(place).map_or(&[][..], Vec::as_slice);
    here.iter()
        .copied()
        .filter(|&i| !p.tasks[i].removed && p.task(i).service_generation == generation)
        .collect()
}

/// When the first task that this rollout made at a place was done with starting.
fn first_reached(p: &mut Planner<'_, '_>, place: &Place) -> Option<Time> {
    let made = made_here(p, place);
    made.into_iter().filter_map(|i| reached_at(p, i)).min()
}

/// Whether the delay after a slot still runs. It counts against the parallelism as the slot itself did.
fn is_resting(p: &mut Planner<'_, '_>, slot: &Slot, config: &UpdateConfig) -> bool {
    config.delay > 0 && first_reached(p, &slot.place).is_some_and(|at| !p.d.reached(after(at, config.delay)))
}

/// Whether the new task of a slot is on the way up.
fn in_flight(p: &mut Planner<'_, '_>, slot: &Slot) -> bool {
    if first_reached(p, &slot.place).is_some() {
        return false;
    }
    let made = made_here(p, &slot.place);
    let here = p.places.get(&slot.place).map_or(&[][..], Vec::as_slice);
    slot.clean.iter().any(|&i| {
        let generation = p.task(i).service_generation;
        let own = |k: usize| p.task(k).service_generation == generation;
        // A slot that has had no task before is being filled, not updated.
        let older = here
            .iter()
            .any(|&k| !p.tasks[k].removed && p.task(k).service_generation < generation);
        let ended = here.iter().any(|&k| own(k) && p.pod(k).state.observed.is_final());
        older && !ended && (made.contains(&i) || p.pod(i).state.observed != TaskState::Running)
    })
}

/// Whether a slot has tasks that are to be replaced. Those on paused nodes are left alone.
fn is_pending(p: &Planner<'_, '_>, slot: &Slot) -> bool {
    (slot.is_due() || !slot.dirty.is_empty()) && !on_paused_node(p, slot)
}

fn on_paused_node(p: &Planner<'_, '_>, slot: &Slot) -> bool {
    slot.place.0 == 0
        && p.d
            .view
            .node_by_id(&slot.place.1)
            .is_some_and(|n| n.spec.swarm.availability == Availability::Pause)
}

/// Begins with a slot.
fn replace(p: &mut Planner<'_, '_>, slot: &Slot, config: &UpdateConfig) {
    let start_first = config.order == UpdateOrder::StartFirst;
    for &i in &slot.dirty {
        // One that does not run is no help while the new one starts.
        if !start_first || p.pod(i).state.observed != TaskState::Running {
            p.shut(i, DesiredState::Shutdown);
        }
    }
    if start_first {
        let goal = p.goal();
        p.create(&slot.place, goal, None);
    } else {
        p.create_after_others(&slot.place, None);
    }
}

fn begin(p: &mut Planner<'_, '_>) {
    let now = p.now();
    let generation = p.service.metadata.generation;
    p.edit_service().status.update = Some(UpdateStatus {
        state: UpdateState::Updating,
        started_at: Some(now),
        completed_at: None,
        message: "update in progress".into(),
        generation,
        failed_tasks: Vec::new(),
        last_batch_at: None,
    });
}

/// A rollout is of the present generation, also where the request that began it did not say so.
fn same_generation(p: &mut Planner<'_, '_>) {
    let generation = p.service.metadata.generation;
    if p.service
        .status
        .update
        .as_ref()
        .is_some_and(|u| u.generation != generation)
        && let Some(update) = &mut p.edit_service().status.update
    {
        update.generation = generation;
        update.failed_tasks.clear();
    }
}

/// Counts the new tasks that failed while they were watched, and pauses or rolls back when there are too many.
/// Whether this ends the step.
fn judge_failures(p: &mut Planner<'_, '_>, slots: &[Slot], config: &UpdateConfig) -> bool {
    if config.failure_action == FailureAction::Continue {
        return false;
    }
    let mut known = p
        .service
        .status
        .update
        .as_ref()
        .map_or_else(Vec::new, |u| u.failed_tasks.clone());
    let before = known.len();
    let mut total = 0;
    for slot in slots {
        let made = made_here(p, &slot.place);
        total += usize::from(!made.is_empty() || slot.is_due() || !slot.dirty.is_empty());
        // Its replacements are the restart policy's.
        let Some(&first) = made.first() else { continue };
        let id = &p.task(first).task_id;
        if failed_early(p, first, config.monitor) && !known.contains(id) {
            known.push(id.clone());
        }
    }
    if known.len() == before {
        return false;
    }
    let failed = known.last().cloned().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "counts of tasks")]
    let ratio = known.len() as f32 / total.max(1) as f32;
    if let Some(update) = &mut p.edit_service().status.update {
        update.failed_tasks = known;
    }
    if ratio <= config.max_failure_ratio {
        return false;
    }
    let cause = format!("due to failure or early termination of task {failed}");
    if p.rolling_back() {
        stop(p, UpdateState::RollbackPaused, format!("rollback paused {cause}"));
    } else if config.failure_action == FailureAction::Rollback && p.service.previous_spec.is_some() {
        roll_back(p, format!("update rolled back {cause}"));
    } else {
        stop(p, UpdateState::Paused, format!("update paused {cause}"));
    }
    true
}

/// Whether a task ended by itself before, or shortly after, it ran.
fn failed_early(p: &Planner<'_, '_>, i: usize, monitor: i64) -> bool {
    let s = &p.pod(i).state;
    let by_itself = matches!(
        s.observed,
        TaskState::Failed | TaskState::Rejected | TaskState::Complete
    );
    let within = match (s.running_at, s.at) {
        (Some(ran), Some(ended)) => ended <= after(ran, monitor),
        _ => true,
    };
    by_itself && within
}

fn stop(p: &mut Planner<'_, '_>, state: UpdateState, message: String) {
    let service = p.service.clone();
    p.d.explain(service.as_ref(), "RolloutPaused", message.clone());
    if let Some(update) = &mut p.edit_service().status.update {
        update.state = state;
        update.message = message;
    }
}

fn roll_back(p: &mut Planner<'_, '_>, message: String) {
    let service = p.service.clone();
    p.d.explain(service.as_ref(), "RolledBack", message.clone());
    let now = p.now();
    let service = p.edit_service();
    if let Some(previous) = service.previous_spec.take() {
        service.spec = previous;
        service.metadata.generation += 1;
        service.status.updated_at = Some(now);
    }
    let generation = service.metadata.generation;
    if let Some(update) = &mut service.status.update {
        update.state = UpdateState::RollbackStarted;
        update.message = message;
        update.generation = generation;
        update.failed_tasks.clear();
    }
    p.specification_changed();
    allocate::service(p);
    orchestrate::orchestrate(p);
    advance(p);
}

/// Declares the rollout complete once the last new task was watched long enough.
fn complete(p: &mut Planner<'_, '_>, config: &UpdateConfig) {
    let places: Vec<Place> = p.places.keys().cloned().collect();
    let mut last = None;
    for place in &places {
        last = last.max(first_reached(p, place));
    }
    if let Some(last) = last
        && !p.d.reached(after(last, config.monitor))
    {
        return;
    }
    let now = p.now();
    let back = p.rolling_back();
    if let Some(update) = &mut p.edit_service().status.update {
        update.completed_at = Some(now);
        (update.state, update.message) = if back {
            (UpdateState::RollbackCompleted, "rollback completed".into())
        } else {
            (UpdateState::Completed, "update completed".into())
        };
    }
}
