//! Admission, transactions, controller loops and node sessions over the store.
//!
//! [`Engine`] is a daemon's part in a cluster: it may be in none. While the daemon is an unlocked manager,
//! [`Engine::manager`] gives the [`Manager`] on which every operation on the cluster is a method. All writes are
//! transactions with preconditions; all decisions come from `plan`; one controller loop per manager keeps the view of
//! the plans up to date and, on the leader, submits what they decide.

pub mod aws;
pub mod aws_logs;
mod awslogs;
mod ca;
mod controller;
mod db;
mod door;
mod ecs;
mod engine;
mod events;
mod holders;
mod inputs;
mod kube;
mod link;
mod manager;
mod members;
mod mirror;
mod paths;
mod raw;
mod reports;
mod request;
mod session;
mod swarm;

pub use db::{
    CONFIG_NAMES, Db, NETWORK_NAMES, NODE_IDS, SECRET_NAMES, SERVICE_NAMES, Snapshot, Stored, TypedTxn,
};
pub use door::{Blob, ByteStream, NodeDoor, OpenDoor, Process, log_bytes};
pub use engine::Engine;
pub use inputs::TokenIssuer;
pub use manager::Manager;
pub use members::LeaderSession;
pub use raw::{Certificate, WriteError};
pub use request::{InitRequest, JoinRequest, Membership, Options, RemoteManager, SwarmInfo};
pub use session::{NodeSession, Reporter};
pub use swarm::{
    ClusterUpdate, Filters, NetworkRequest, ServiceCounts, ServiceUpdate, Task, cluster_network_spec,
};
pub use tripod_raft::Watch;

use tripod_model::id;

/// A new Swarm identifier.
pub(crate) fn new_id() -> String {
    id::base36(rand::random())
}

/// A new `metadata.uid`: a random (version 4) UUID.
pub(crate) fn new_uid() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
