//! Swarm's kinds: the cluster, services, and the template of a task. Field for field what the Docker Engine API
//! has (Swarm section), in this store's spelling. Durations are nanoseconds.

mod cluster;
mod service;
mod task;

pub use cluster::*;
pub use service::*;
pub use task::*;

/// Namespace of all of Swarm's namespaced objects.
pub const NAMESPACE: &str = "swarm";
