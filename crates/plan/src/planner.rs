//! Planning one service: its tasks as a working set on which the modules of this crate act in turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tripod_model::Time;
use tripod_model::node::{Node, NodeState};
use tripod_model::pod::{DesiredState, Pod, SwarmTask};
use tripod_model::swarm::{SwarmService, TaskState, UpdateState};

use crate::draft::{Draft, Task};
use crate::rollout::Staleness;
use crate::task::{Place, TaskMaker, place};
use crate::view::is_unplaced;
use crate::write::{Object, Write};
use crate::{allocate, enforce, orchestrate, reap, rebalance, restart, rollout, schedule};

/// The working set of one service.
pub(crate) struct Planner<'d, 'v> {
    pub(crate) d: &'d mut Draft<'v>,
    pub(crate) service: Arc<SwarmService>,
    original: Arc<SwarmService>,
    maker: Option<TaskMaker>,
    pub(crate) tasks: Vec<Task>,
    /// Indices into `tasks`, oldest first.
    pub(crate) places: BTreeMap<Place, Vec<usize>>,
    pub(crate) staleness: HashMap<i64, Staleness>,
}

/// Plans one service, or the end of the tasks of one that is gone.
pub(crate) fn plan_service(d: &mut Draft<'_>, id: &str) {
    match d.view.service(id).cloned() {
        Some(service) if service.metadata.deletion_timestamp.is_none() => {
            Planner::new(d, service).run();
        }
        _ => {
            // Only the working set's own methods are used: an empty service stands in.
            let mut p = Planner::load(d, Arc::default(), id);
            enforce::lost_nodes(&mut p);
            p.remove_all();
            p.finish();
        }
    }
}

impl<'d, 'v> Planner<'d, 'v> {
    fn new(d: &'d mut Draft<'v>, service: Arc<SwarmService>) -> Self {
        let id = service.metadata.name.clone();
        Self::load(d, service, &id)
    }

    fn load(d: &'d mut Draft<'v>, service: Arc<SwarmService>, id: &str) -> Self {
        let mut tasks: Vec<Task> = d
            .view
            .pods_of_service(id)
            .filter(|p| p.swarm().is_some())
            .cloned()
            .map(Task::stored)
            .collect();
        // Names end in random identifiers: age decides, and names only where it is equal.
        tasks.sort_by_cached_key(|task| age(&task.pod));
        let mut places: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (i, task) in tasks.iter().enumerate() {
            if let Some(t) = task.pod.swarm() {
                places.entry(place(t)).or_default().push(i);
            }
        }
        Self {
            d,
            original: service.clone(),
            service,
            maker: None,
            tasks,
            places,
            staleness: HashMap::new(),
        }
    }

    fn run(&mut self) {
        allocate::service(self);
        enforce::lost_nodes(self);
        enforce::unfit_nodes(self);
        restart::ended(self);
        orchestrate::orchestrate(self);
        rollout::advance(self);
        rebalance::advance(self);
        restart::promote(self);
        allocate::tasks(self);
        schedule::place(self);
        reap::history(self);
        self.finish();
    }

    /// Turns the working set into writes.
    pub(crate) fn finish(&mut self) {
        if self.service != self.original {
            let based_on = self.original.metadata.revision();
            self.d.write(Write::Update {
                object: Object::Service(self.service.clone()),
                based_on,
            });
        }
        for task in std::mem::take(&mut self.tasks) {
            if let Some(write) = task.into_write() {
                self.d.write(write);
            }
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.d.now
    }

    /// The service for changes of its status.
    pub(crate) fn edit_service(&mut self) -> &mut SwarmService {
        Arc::make_mut(&mut self.service)
    }

    /// Forgets what was derived from the specification, after a change of it.
    pub(crate) fn specification_changed(&mut self) {
        self.maker = None;
        self.staleness.clear();
    }

    pub(crate) fn pod(&self, i: usize) -> &Pod {
        &self.tasks[i].pod
    }

    /// The task at `i`. Only pods with one are loaded.
    pub(crate) fn task(&self, i: usize) -> &SwarmTask {
        static NONE: std::sync::OnceLock<SwarmTask> = std::sync::OnceLock::new();
        self.tasks[i]
            .pod
            .swarm()
            .unwrap_or_else(|| NONE.get_or_init(SwarmTask::default))
    }

    /// The node of a task, when it has one and the node exists.
    pub(crate) fn node_of(&self, i: usize) -> Option<&'v Arc<Node>> {
        self.d.view.node(&self.pod(i).spec.node_name)
    }

    /// Whether a task's node is gone or lost, so that nothing more will be heard of the task for now.
    pub(crate) fn on_lost_node(&self, i: usize) -> bool {
        !self.pod(i).spec.node_name.is_empty()
            && self.node_of(i).is_none_or(|n| n.status.state == NodeState::Down)
    }

    /// Whether a task is wanted: to become ready, to run or to complete.
    pub(crate) fn wanted(&self, i: usize) -> bool {
        self.pod(i).state.desired <= DesiredState::Complete && !self.tasks[i].removed
    }

    /// Changes a pod and keeps the sums of its node in step.
    pub(crate) fn edit(&mut self, i: usize, change: impl FnOnce(&mut Pod)) {
        let task = &mut self.tasks[i];
        if !task.pod.spec.node_name.is_empty() {
            self.d.count(&task.pod.spec.node_name, &task.pod, -1);
        }
        change(task.edit());
        if !task.pod.spec.node_name.is_empty() {
            self.d.count(&task.pod.spec.node_name, &task.pod, 1);
        }
    }

    /// Makes a task.
    pub(crate) fn create(&mut self, place: &Place, desired: DesiredState, not_before: Option<Time>) -> usize {
        let view = self.d.view;
        let maker = self
            .maker
            .get_or_insert_with(|| TaskMaker::new(&self.service, view.cluster().map(AsRef::as_ref)));
        let mut pod = maker.make(place, desired, self.d.now, &mut self.d.rng);
        pod.state.not_before = not_before;
        let i = self.tasks.len();
        self.tasks.push(Task::made(pod));
        self.places.entry(place.clone()).or_default().push(i);
        i
    }

    /// Makes a task that waits (`ready`) while an earlier one at its place has not ended.
    pub(crate) fn create_after_others(&mut self, place: &Place, not_before: Option<Time>) -> usize {
        let wait = not_before.is_some() || self.stopping(place).is_some();
        let desired = if wait { DesiredState::Ready } else { self.goal() };
        self.create(place, desired, not_before)
    }

    /// A task of a place that is to end and has not ended, on a node that can still say so.
    pub(crate) fn stopping(&self, place: &Place) -> Option<usize> {
        self.places.get(place)?.iter().copied().find(|&i| {
            !self.tasks[i].removed
                && !self.wanted(i)
                && !self.pod(i).state.observed.is_final()
                && !self.on_lost_node(i)
        })
    }

    /// What the service's tasks are to come to.
    pub(crate) fn goal(&self) -> DesiredState {
        if self.service.spec.mode.is_job() {
            DesiredState::Complete
        } else {
            DesiredState::Running
        }
    }

    /// Has a task end. One that no node has yet ends at once, as nobody else could report it.
    pub(crate) fn shut(&mut self, i: usize, desired: DesiredState) {
        if self.pod(i).state.desired >= desired {
            return;
        }
        if self.tasks[i].is_new() {
            // Made and ended by the same plan: nobody needs to hear of it.
            self.tasks[i].removed = true;
            return;
        }
        let now = self.d.now;
        self.edit(i, |pod| {
            if is_unplaced(pod) {
                pod.state.observed = TaskState::Shutdown;
                pod.state.at = Some(now);
                pod.state.message = "shutdown".into();
                pod.status.phase = "Failed".into();
            }
            pod.state.desired = desired;
            pod.state.not_before = None;
            pod.state.serving &= !pod.state.observed.is_final();
        });
        if desired == DesiredState::Remove {
            self.forget_removed(i);
        }
    }

    /// Deletes a task that is to be removed, once nothing of it is left on a node.
    pub(crate) fn forget_removed(&mut self, i: usize) {
        let pod = self.pod(i);
        let gone = pod.state.observed.is_final() || pod.spec.node_name.is_empty();
        if pod.state.desired == DesiredState::Remove && (gone || self.node_of(i).is_none()) {
            self.tasks[i].removed = true;
        }
    }

    /// Has everything end and go.
    fn remove_all(&mut self) {
        for i in 0..self.tasks.len() {
            self.shut(i, DesiredState::Remove);
            self.forget_removed(i);
        }
    }

    /// Whether a rollback is going on.
    pub(crate) fn rolling_back(&self) -> bool {
        self.service
            .status
            .update
            .as_ref()
            .is_some_and(|u| u.state == UpdateState::RollbackStarted)
    }
}

/// Sorts tasks by when they were made.
fn age(pod: &Pod) -> (Option<Time>, i64) {
    (
        pod.metadata.creation_timestamp,
        pod.swarm().map_or(0, |t| t.service_generation),
    )
}
