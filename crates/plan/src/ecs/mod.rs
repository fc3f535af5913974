//! Decisions of Amazon ECS: what tasks are made of, how they live, what services and their deployments do.
//!
//! [`EcsView`] keeps what these decisions look at; [`reconcile_ecs`] decides about the services and clusters that
//! changes concern. Executed and taken over, a second plan has no writes until something changes or a wake comes.

mod deploy;
mod extension;
pub mod life;
pub mod place;
mod policies;
pub mod query;
mod secrets;
pub mod service;
pub mod task;
mod view;

use std::collections::BTreeSet;

use tripod_model::Time;
use tripod_model::ecs::{EcsService, EcsTaskState};
use tripod_model::object::{Kind, encode};
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::TaskState;

use crate::kube::ObjKey;
use crate::rng::Rng;
use crate::view::View;
use crate::write::{Object, RawObject, Write};

pub use policies::policies;
pub use view::{EcsView, Key};

/// Seconds for which a stopped task is remembered.
const REMEMBERED: i64 = 3600;

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EcsPlan {
    /// In order.
    pub writes: Vec<Write>,
    /// Decide about these keys again at these times, even if nothing changes.
    pub wakes: Vec<(Time, Key)>,
}

/// A plan in the making.
pub(crate) struct Work<'v> {
    pub(crate) view: &'v View,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) plan: EcsPlan,
    /// Pods that this plan puts on nodes, beside the view's.
    pub(crate) placed: Vec<Pod>,
}

impl Work<'_> {
    pub(crate) fn ecs(&self) -> &EcsView {
        self.view.ecs()
    }

    fn wake(&mut self, at: Time, key: &Key) {
        self.plan.wakes.push((at, key.clone()));
    }

    fn update_pod(&mut self, old: &Pod, new: Pod) {
        if *old != new {
            self.plan.writes.push(Write::Update {
                based_on: old.metadata.revision(),
                object: Object::Pod(new.into()),
            });
        }
    }

    fn update_service(&mut self, old: &EcsService, new: &EcsService) {
        if old != new {
            self.plan.writes.push(Write::Update {
                based_on: old.metadata.revision(),
                object: raw(new),
            });
        }
    }
}

/// An object as plans write kinds of their own.
pub fn raw<K: Kind>(object: &K) -> Object {
    let meta = object.meta();
    Object::Raw(std::sync::Arc::new(RawObject {
        key: ObjKey::new(K::RESOURCE, meta.namespace.as_str(), meta.name.as_str()),
        bytes: encode(object).into(),
    }))
}

/// What to do about these keys now.
pub fn reconcile_ecs<'k>(
    view: &View,
    dirty: impl IntoIterator<Item = &'k Key>,
    now: Time,
    seed: u64,
) -> EcsPlan {
    let mut work = Work {
        view,
        now,
        rng: Rng::new(seed),
        plan: EcsPlan::default(),
        placed: Vec::new(),
    };
    // Tasks first: a service is planned on what its tasks have come to in the next round.
    let keys: BTreeSet<&Key> = dirty.into_iter().collect();
    for key in keys {
        match key {
            Key::Tasks(namespace) => tasks(&mut work, key, namespace),
            Key::Service(namespace, name) => service::reconcile(&mut work, key, namespace, name),
        }
    }
    work.plan
}

/// Brings the tasks of a cluster on: those that end without a node, those that are to be forgotten.
fn tasks(w: &mut Work<'_>, key: &Key, namespace: &str) {
    let tasks: Vec<_> = w.ecs().tasks(namespace).cloned().collect();
    for pod in tasks {
        let Some(state) = &pod.state.ecs else { continue };
        if let Some(stopped) = state.stopped_at {
            let forget = life::after(stopped, REMEMBERED);
            if forget > w.now {
                w.wake(forget, key);
                continue;
            }
            w.plan.writes.push(Write::Delete {
                based_on: pod.metadata.revision(),
                object: Object::Pod(pod.clone()),
            });
            if let Some(secret) = secrets::of_task(w.view, &pod) {
                w.plan.writes.push(secret);
            }
            continue;
        }
        let mut next = Pod::clone(&pod);
        unplaced_end(&mut next, w.now);
        lost(w.view, &mut next, w.now);
        life::observe(&mut next, w.now);
        w.update_pod(&pod, next);
    }
}

/// A task that is to end and has no node ends here: nobody else could tell of it.
fn unplaced_end(pod: &mut Pod, now: Time) {
    if pod.state.desired >= DesiredState::Shutdown
        && pod.spec.node_name.is_empty()
        && !pod.state.observed.is_final()
    {
        end(pod, now);
    }
}

/// A task whose node is gone has ended.
fn lost(view: &View, pod: &mut Pod, now: Time) {
    let name = pod.spec.node_name.as_str();
    if name.is_empty() || pod.state.observed.is_final() {
        return;
    }
    let down = |n: &tripod_model::node::Node| n.status.state == tripod_model::node::NodeState::Down;
    if view.node(name).is_some_and(|n| !down(n)) {
        return;
    }
    life::stop(
        pod,
        "TerminationNotice",
        &format!("Host ({name}) terminated."),
        now,
    );
    end(pod, now);
    pod.state.observed = TaskState::Orphaned;
}

fn end(pod: &mut Pod, now: Time) {
    pod.state.observed = TaskState::Shutdown;
    pod.state.at = Some(now);
    pod.status.phase = "Failed".into();
}

/// A task's state; a pod that is no task has the empty one.
pub fn state(pod: &Pod) -> &EcsTaskState {
    static NONE: std::sync::OnceLock<EcsTaskState> = std::sync::OnceLock::new();
    pod.state
        .ecs
        .as_ref()
        .unwrap_or_else(|| NONE.get_or_init(EcsTaskState::default))
}
