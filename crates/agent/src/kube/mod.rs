//! Pods that run from their PodSpec: Kubernetes' and ECS's.
//!
//! One [`worker`] per pod; `step` decides, `status` says what is to be told, `place` makes network, namespaces, cgroup
//! and files of the pod, `translate` describes its containers, which then are the node's like all others.

mod actions;
mod atomic;
mod desc;
mod env;
mod http;
mod images;
mod inputs;
mod notes;
mod payload;
mod place;
mod probes;
mod quantity;
mod recover;
mod report;
mod resources;
mod status;
mod step;
mod table;
mod track;
mod translate;
mod volumes;
mod worker;

pub(crate) use inputs::Inputs;
pub(crate) use table::PodTable;
pub(crate) use worker::spawn;
