//! Pods that run from their PodSpec: Kubernetes' and ECS's.

mod table;

pub(crate) use table::PodTable;
