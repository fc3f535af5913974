//! Every decision as a pure function of a view, the time and a seed.
//!
//! The engine keeps a [`View`] up to date and asks [`reconcile`] what to do about the services that changes
//! concern; a [`Plan`] leaves no choices to its executor. Modules: `orchestrate` (how many tasks, where they
//! belong), `restart`, `rollout`, `schedule`, `allocate` (addresses and ports), `enforce` (nodes that go), `reap`
//! (history), `project` (what a node's network must do), `report` (what nodes say), `validate` (admission), and `kube`: the
//! controllers and the scheduler of the Kubernetes API.

pub mod allocate;
pub mod constraint;
mod draft;
pub mod ecs;
mod enforce;
pub mod iam;
pub mod kube;
pub mod network;
mod orchestrate;
mod planner;
pub mod project;
mod reap;
pub mod rebalance;
pub mod report;
mod restart;
mod rng;
pub mod rollout;
mod schedule;
pub mod task;
pub mod validate;
pub mod view;
mod write;

use tripod_model::Time;

pub use rng::Rng;
pub use view::View;
pub use write::{Explanation, Object, Plan, RawObject, Write};

/// What to do about these services now: all writes of one plan agree with each other. The plan for a service that is
/// gone ends its tasks. Executed and taken over into the view, a second plan has no writes until something changes
/// or `wake_at` comes (then hand in all services, or those that were planned).
pub fn reconcile<I>(view: &View, services: I, now: Time, seed: u64) -> Plan
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut draft = draft::Draft::new(view, now, seed);
    for id in services {
        planner::plan_service(&mut draft, id.as_ref());
    }
    draft.plan
}
