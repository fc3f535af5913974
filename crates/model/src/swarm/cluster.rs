//! The cluster as `docker swarm` and `docker info` see it.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::object::ObjectMeta;
use crate::swarm::Driver;

/// The cluster. There is one object of this kind; `metadata.name` is its identifier.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmCluster {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What the user can change.
    pub spec: SwarmSpec,
    /// What was settled when it was made, and its secrets.
    pub status: SwarmStatus,
}

crate::kind!(SwarmCluster, "swarm.tripod.dev/v1", "SwarmCluster", "swarmclusters.swarm.tripod.dev", namespaced: false);

/// What the user can change of a cluster (Docker's SwarmSpec).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmSpec {
    /// Always `default`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ended tasks kept per slot.
    pub task_history_retention: i64,
    /// Entries between snapshots.
    pub snapshot_interval: u64,
    /// Snapshots kept besides the newest.
    pub keep_old_snapshots: u64,
    /// Entries kept after a snapshot.
    pub log_entries_for_slow_followers: u64,
    /// Ticks.
    pub election_tick: i64,
    /// Ticks.
    pub heartbeat_tick: i64,
    /// Nanoseconds between a node's heartbeats.
    pub heartbeat_period: i64,
    /// Nanoseconds for which node certificates are valid.
    pub node_cert_expiry: i64,
    /// Counts forced CA rotations.
    pub force_rotate: u64,
    /// External authorities, as given.
    pub external_cas: Vec<serde_json::Value>,
    /// CA certificate given by the user for rotation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    /// Managers need the unlock key after a restart.
    pub autolock: bool,
    /// Default log driver of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
}

impl Default for SwarmSpec {
    fn default() -> Self {
        Self {
            name: "default".into(),
            labels: BTreeMap::new(),
            task_history_retention: 5,
            snapshot_interval: 10_000,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: 500,
            election_tick: 10,
            heartbeat_tick: 1,
            heartbeat_period: 5_000_000_000,
            node_cert_expiry: 7_776_000_000_000_000,
            force_rotate: 0,
            external_cas: Vec::new(),
            signing_ca_cert: String::new(),
            autolock: false,
            log_driver: None,
        }
    }
}

/// What was settled when the cluster was made, and its secrets (never served whole).
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmStatus {
    /// Pools from which overlay networks take their subnets.
    pub default_addr_pool: Vec<Ipv4Net>,
    /// Prefix length of those subnets.
    pub subnet_size: u8,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Addresses of pods; the usual range if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_range: Option<Ipv4Net>,
    /// Addresses of Services; the usual range if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_range: Option<Ipv4Net>,
    /// PEM of the CA certificate.
    pub ca_cert: String,
    /// PEM of the CA key.
    pub ca_key: String,
    /// DER of the issuer's subject, base64.
    pub issuer_subject: String,
    /// DER of the issuer's public key, base64.
    pub issuer_public_key: String,
    /// PEM of the CA certificate before, while a rotation is going on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub old_ca_cert: String,
    /// PEM of the new CA's certificate signed by the one before, while a rotation is going on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cross_cert: String,
    /// A CA rotation is going on.
    pub root_rotation: bool,
    /// Join token of workers.
    pub worker_token: String,
    /// Join token of managers.
    pub manager_token: String,
    /// Unlock key (`SWMKEY-1-…`), when locking is on.
    pub unlock_key: String,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<crate::Time>,
}

impl std::fmt::Debug for SwarmStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmStatus")
            .field("default_addr_pool", &self.default_addr_pool)
            .finish_non_exhaustive()
    }
}
