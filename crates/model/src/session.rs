//! What a manager tells a node and what the node reports: the messages of a session.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::network::fabric::Fabric;
use crate::network::names::ClusterNames;
use crate::network::policy::Policies;
use crate::network::{Frontend, NameRecord, NetworkSpec};
use crate::pod::{HostPort, Pod};
use crate::swarm::TaskState;

/// What concerns one node: everything (`full`), or what changed since the assignment before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Assignment {
    /// Revision of the store that this reflects; acknowledged by the node when it has applied the network part.
    pub revision: u64,
    /// The lists are complete: what is not in them is to go.
    pub full: bool,
    /// Pods of this node, new or changed.
    pub pods: Vec<Arc<Pod>>,
    /// `namespace/name` of pods that are gone from the store: end them and forget them.
    pub removed_pods: Vec<String>,
    /// Cluster networks that pods of this node (or frontends) use, new or changed.
    pub networks: Vec<Arc<NetworkSpec>>,
    /// Identifiers of networks that this node needs no longer.
    pub removed_networks: Vec<String>,
    /// Secrets and configs of this node's pods, new or changed.
    pub data: Vec<Arc<DataItem>>,
    /// Identifiers of secrets and configs needed no longer.
    pub removed_data: Vec<String>,
    /// All frontends of this node, when any changed.
    pub frontends: Option<Arc<Vec<Frontend>>>,
    /// All names of a network, for each network in which any changed.
    pub names: Vec<(String, Arc<Vec<NameRecord>>)>,
    /// The other nodes and what they have of each network, all of it, when any changed.
    pub fabric: Option<Arc<Fabric>>,
    /// All policies of this node's pods, when any changed.
    pub policies: Option<Arc<Policies>>,
    /// All names of the cluster's DNS, when any changed.
    pub cluster_names: Option<Arc<ClusterNames>>,
}

/// The bytes of a secret or config.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataItem {
    /// Identifier.
    pub id: String,
    /// Name of the user's.
    pub name: String,
    /// Kept in memory only.
    pub secret: bool,
    /// `golang` when the bytes are a template.
    pub templating: String,
    /// The bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for DataItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataItem({}, {} bytes)", self.name, self.data.len())
    }
}

/// What a node says of one of its pods. The manager merges it into the pod's state: states never go backwards.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodReport {
    /// `namespace/name`.
    pub pod: String,
    /// Unique identifier of the pod, so that a namesake is not meant.
    pub uid: String,
    /// Where it is.
    pub state: TaskState,
    /// Since when.
    pub at: Option<Time>,
    /// What is being done.
    pub message: String,
    /// What went wrong.
    pub error: String,
    /// The container.
    pub container_id: String,
    /// Process.
    pub pid: i32,
    /// Exit status.
    pub exit_code: Option<i64>,
    /// Ports of the node that lead to it.
    pub ports: Vec<HostPort>,
    /// It may be sent connections.
    pub serving: bool,
}
