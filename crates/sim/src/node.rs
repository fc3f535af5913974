//! A node: its session with a leader and what becomes of the tasks it is told to run. Containers outlive the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use tripod_model::Time;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::PodReport;
use tripod_model::swarm::TaskState;
use tripod_plan::view::pod_key;

use crate::rng::Rng;

/// A container of a task.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) key: String,
    pub(crate) service: String,
    pub(crate) slot: u64,
    /// Where it is: ready, starting, running, or a final state.
    pub(crate) state: TaskState,
    /// When its present step is over.
    due: u64,
    stopping: bool,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        self.state == TaskState::Running
    }
}

/// A connection to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) manager: usize,
    pub(crate) id: u64,
    /// The leader has accepted it.
    pub(crate) open: bool,
    pub(crate) heard: u64,
    pub(crate) since: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The daemon runs.
    pub(crate) up: bool,
    pub(crate) containers: BTreeMap<String, Container>,
    /// What the leader wants, by key.
    assigned: BTreeMap<String, Arc<Pod>>,
    /// What was said in this session, by pod.
    reported: BTreeMap<String, (TaskState, bool)>,
    pub(crate) line: Option<Line>,
    pub(crate) dial_at: u64,
    /// Who is believed to lead.
    pub(crate) hint: Option<usize>,
    pub(crate) ran: usize,
}

impl Node {
    /// The daemon ends; what runs goes on.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.hang_up();
        self.hint = None;
    }

    /// The power fails: containers are gone too.
    pub(crate) fn power_off(&mut self) {
        self.crash();
        for container in self.containers.values_mut() {
            if !container.state.is_final() {
                container.state = TaskState::Failed;
            }
        }
    }

    pub(crate) fn hang_up(&mut self) {
        self.line = None;
        self.assigned.clear();
        self.reported.clear();
    }

    /// Takes an assignment. With `stale`, one that is full does not say what is to go: a fault.
    pub(crate) fn assign(&mut self, full: bool, pods: &[Arc<Pod>], removed: &[String], stale: bool) {
        let unsaid = |pod: &Pod| stale && full && pod.state.desired >= DesiredState::Shutdown;
        for pod in pods.iter().filter(|pod| !unsaid(pod)) {
            let key = pod_key(pod);
            self.reported
                .entry(pod.metadata.uid.clone())
                .or_insert((pod.state.observed, pod.state.serving));
            self.assigned.insert(key, pod.clone());
        }
        for key in removed {
            self.assigned.remove(key);
        }
        if !stale && (full || !removed.is_empty()) {
            for (uid, container) in &mut self.containers {
                let wanted = self.assigned.get(&container.key);
                if wanted.is_none_or(|pod| pod.metadata.uid != *uid) {
                    container.stopping = true;
                }
            }
        }
    }

    /// Lets time pass; what there is to report.
    pub(crate) fn act(&mut self, now: u64, wall: Time, failures: u64, rng: &mut Rng) -> Vec<PodReport> {
        for pod in self.assigned.values().cloned().collect::<Vec<_>>() {
            self.want(&pod, now, rng);
        }
        for container in self.containers.values_mut() {
            step(container, now, failures, rng, &mut self.ran);
        }
        let assigned = &self.assigned;
        self.containers.retain(|uid, c| {
            !c.state.is_final() || assigned.get(&c.key).is_some_and(|pod| pod.metadata.uid == *uid)
        });
        if self.line.is_none_or(|line| !line.open) {
            return Vec::new();
        }
        let pods: Vec<Arc<Pod>> = self.assigned.values().cloned().collect();
        pods.iter().filter_map(|pod| self.report(pod, wall)).collect()
    }

    /// Does what a pod asks for.
    fn want(&mut self, pod: &Pod, now: u64, rng: &mut Rng) {
        let (uid, Some(task)) = (&pod.metadata.uid, pod.swarm()) else {
            return;
        };
        let ends = pod.state.desired >= DesiredState::Shutdown;
        let over = pod.state.observed.is_final()
            || self.reported.get(uid).is_some_and(|(state, _)| state.is_final());
        match self.containers.get_mut(uid) {
            Some(container) => {
                container.stopping |= ends;
                if container.state == TaskState::Ready && pod.state.desired == DesiredState::Running && !ends
                {
                    container.state = TaskState::Starting;
                    container.due = now + rng.range(50, 600);
                }
            }
            None if ends || over => {}
            // One that ran here and left no container is not made again: it failed.
            None if pod.state.observed >= TaskState::Ready => {
                let lost = Container {
                    key: pod_key(pod),
                    service: task.service_id.clone(),
                    slot: task.slot,
                    state: TaskState::Failed,
                    due: now,
                    stopping: false,
                };
                self.containers.insert(uid.clone(), lost);
            }
            None => {
                let made = Container {
                    key: pod_key(pod),
                    service: task.service_id.clone(),
                    slot: task.slot,
                    state: TaskState::Preparing,
                    due: now + rng.range(20, 800),
                    stopping: false,
                };
                self.containers.insert(uid.clone(), made);
            }
        }
    }

    fn report(&mut self, pod: &Pod, wall: Time) -> Option<PodReport> {
        let uid = &pod.metadata.uid;
        let known = self
            .reported
            .get(uid)
            .copied()
            .unwrap_or((pod.state.observed, false));
        let state = match self.containers.get(uid) {
            Some(container) => container.state,
            None if pod.state.desired >= DesiredState::Shutdown && !known.0.is_final() => TaskState::Shutdown,
            None => return None,
        };
        let now = (state, state == TaskState::Running);
        if known.0.is_final() || now == known || state < known.0 {
            return None;
        }
        self.reported.insert(uid.clone(), now);
        Some(PodReport {
            pod: pod_key(pod),
            uid: uid.clone(),
            state,
            at: Some(wall),
            message: state.as_str().into(),
            error: match state {
                TaskState::Failed => "task: non-zero exit (1)".into(),
                _ => String::new(),
            },
            serving: state == TaskState::Running,
            ..PodReport::default()
        })
    }
}

fn step(container: &mut Container, now: u64, failures: u64, rng: &mut Rng, ran: &mut usize) {
    use TaskState::{Failed, Preparing, Ready, Running, Shutdown, Starting};
    if container.state.is_final() {
        return;
    }
    if container.stopping {
        match container.state {
            Running | Starting if container.due <= now && container.due != u64::MAX => {
                container.state = Shutdown;
            }
            Running | Starting => {
                if container.due == u64::MAX {
                    container.due = now + rng.range(20, 900);
                }
            }
            _ => container.state = Shutdown,
        }
        return;
    }
    match container.state {
        Preparing if container.due <= now => container.state = Ready,
        Starting if container.due <= now => {
            container.state = if rng.permille(failures) { Failed } else { Running };
            // From now on the time of its end, once it is to end.
            container.due = u64::MAX;
            *ran += usize::from(container.state == Running);
        }
        Running if failures > 0 && rng.index(20_000) == 0 => container.state = Failed,
        _ => {}
    }
}
