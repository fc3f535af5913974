//! Pods that run from their PodSpec: Kubernetes' and ECS's.
//!
//! One [`worker`] per pod; `step` decides, `status` says what is to be told, `place` makes network, namespaces, cgroup
//! and files of the pod, `translate` describes its containers, which then are the node's like all others.

mod actions;
mod admit;
mod atomic;
mod desc;
mod env;
mod http;
mod image_volumes;
mod images;
mod inputs;
mod notes;
mod payload;
mod place;
mod probes;
mod quantity;
mod recover;
mod report;
mod resize;
mod resources;
mod status;
mod step;
mod table;
mod track;
mod translate;
mod usage;
mod volumes;
mod worker;

pub(crate) use image_volumes::snapshot as image_volume_snapshot;
pub(crate) use inputs::Inputs;
pub(crate) use table::PodTable;
pub(crate) use volumes::reclaim;
pub(crate) use worker::spawn;
