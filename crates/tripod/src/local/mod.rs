//! Clusters on this machine: `tripod start`, `stop`, `delete`, `status` and their kin, and the same under the names of
//! `minikube` and `kind`.
//!
//! A cluster is a directory with a record of what it is. Each of its nodes is a network namespace at a bridge of this
//! machine, a first process with mounts, host name and processes of its own, and a daemon. They go on when the command
//! that started them has ended.

mod addons;
mod aws;
mod client;
mod cluster;
mod commands;
mod config;
mod context;
mod dashboard;
mod export;
mod images;
mod init;
pub(crate) mod kind;
mod kind_config;
mod kube;
mod kubeadm;
mod kubeconfig;
pub(crate) mod minikube;
mod mounts;
mod node;
mod nodes;
mod paths;
mod rebalance;
mod record;
mod registry;
mod services;
mod ssh;

pub(crate) use addons::addons;
pub(crate) use commands::{
    configure, copy, create, dashboard, delete, delete_cluster, env, export_logs, get, image, ip,
    load_archive, manage_nodes, pause, profile_list, service, service_list, ssh, start, status, stop,
    update_check,
};
pub(crate) use init::run as node_init;
pub(crate) use mounts::mount_on_nodes;
pub(crate) use rebalance::rebalance;
pub(crate) use registry::registry;
