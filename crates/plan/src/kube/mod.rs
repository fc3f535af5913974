//! The controllers of the Kubernetes API, as functions of the view.
//!
//! [`KubeView`] holds every object with the indices that controllers need, and remembers which keys a change concerns.
//! [`reconcile_kube`] decides about such keys. Each decision looks at the view alone: executed and taken over, a second
//! plan has no writes until something changes or a wake comes.

pub mod admit;
mod balancer;
mod bootstrap;
pub mod conditions;
pub mod cron;
mod cron_job;
mod daemon;
mod deployment;
pub mod disruption;
mod endpoints;
mod events;
pub mod garbage;
mod history;
mod job;
pub mod kinds;
mod mirror;
mod nodes;
pub mod object;
pub mod place;
pub mod pod;
pub mod pods;
pub mod quantity;
mod quota;
mod replica;
pub mod report;
mod route;
pub mod selector;
mod spaces;
mod stateful;
pub mod storage;
mod template;
mod view;
mod work;

use tripod_model::Time;

pub use events::Note;
pub use object::{KObject, Meta, ObjKey};
pub use pod::{Amounts, KPod, Phase, PodInfo};
pub use storage::RECLAIM;
pub use view::{Controller, KubeView, WorkKey};
pub use work::{KubePlan, micro, stamp};

use crate::view::View;
use work::Work;

/// A plan takes up no further key once it has so many writes: what is left comes with the next one, so that others get
/// their turn.
const PLAN_WRITES: usize = 4_000;

/// What to do about these keys now. All writes of one plan agree with each other.
pub fn reconcile_kube<'k>(
    view: &View,
    dirty: impl IntoIterator<Item = &'k WorkKey>,
    now: Time,
    seed: u64,
) -> KubePlan {
    let mut work = Work::new(view, now, seed);
    for key in dirty {
        if work.plan.writes.len() >= PLAN_WRITES {
            work.plan.again.insert(key.clone());
            continue;
        }
        work.current = Some(key.clone());
        decide(&mut work, key);
    }
    work.current = None;
    let notes = std::mem::take(&mut work.notes);
    finish(work, notes)
}

/// The writes that tell what a node said of its pods, or others of objects.
pub fn record_events(view: &View, notes: Vec<Note>, now: Time, seed: u64) -> KubePlan {
    finish(Work::new(view, now, seed), notes)
}

fn finish(mut work: Work<'_>, notes: Vec<Note>) -> KubePlan {
    let writes = std::mem::take(&mut work.plan.writes);
    events::record(&mut work, notes);
    let events = std::mem::replace(&mut work.plan.writes, writes);
    KubePlan { events, ..work.plan }
}

fn decide(w: &mut Work<'_>, WorkKey(controller, key): &WorkKey) {
    let (namespace, name) = (&*key.namespace, &*key.name);
    let makes_pods = matches!(
        controller,
        Controller::Deployment
            | Controller::ReplicaSet
            | Controller::ReplicationController
            | Controller::StatefulSet
            | Controller::DaemonSet
    );
    // Nothing is made any more where all of it goes: to try, and to tell that it failed, would never end. (Jobs have
    // their pods to let go.)
    if makes_pods && !w.k.namespace_lives(namespace) {
        return;
    }
    match controller {
        Controller::Bootstrap => bootstrap::decide(w),
        Controller::Node => nodes::decide(w, name),
        Controller::Namespace => spaces::decide(w, name),
        Controller::Account => spaces::furnish(w, name),
        Controller::Garbage => garbage::decide(w, key),
        Controller::Quota => quota::decide(w, namespace, name),
        Controller::Claim => storage::decide_claim(w, namespace, name),
        Controller::Volume => storage::decide_volume(w, name),
        Controller::Deployment => deployment::decide(w, namespace, name),
        Controller::ReplicaSet | Controller::ReplicationController => {
            replica::decide(w, *controller, namespace, name);
        }
        Controller::StatefulSet => stateful::decide(w, namespace, name),
        Controller::DaemonSet => daemon::decide(w, namespace, name),
        Controller::Job => job::decide(w, namespace, name),
        Controller::CronJob => cron_job::decide(w, namespace, name),
        Controller::Pod => pods::decide(w, namespace, name),
        Controller::Disruption => disruption::decide(w, namespace, name),
        Controller::Endpoints => {
            endpoints::decide(w, namespace, name);
            balancer::decide(w, namespace, name);
        }
        Controller::Mirror => mirror::decide(w, namespace, name),
        Controller::Schedule => place::decide(w),
        Controller::Events => events::expire(w),
        // Tokens are signed where the keys are: see the engine.
        Controller::Token => spaces::token(w, &key.namespace, &key.name),
    }
}
