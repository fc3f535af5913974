//! The operations of Swarm mode, as methods of [`crate::Manager`], with Docker's words in errors.

pub(crate) mod cluster;
mod data;
mod filters;
mod find;
mod networks;
mod nodes;
mod services;
mod tasks;

pub use cluster::ClusterUpdate;
pub(crate) use data::{config_bytes, secret_bytes};
pub use filters::Filters;
pub use networks::{NetworkRequest, cluster_network_spec};
pub(crate) use nodes::hostname;
pub use services::{ServiceCounts, ServiceUpdate};
pub use tasks::Task;
