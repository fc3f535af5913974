//! What a manager tells a node and what the node reports: the messages of a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::container::HealthStatus;
use crate::network::fabric::Fabric;
use crate::network::names::ClusterNames;
use crate::network::policy::Policies;
use crate::network::{Frontend, NameRecord, NetworkSpec};
use crate::pod::{HostPort, Pod};
use crate::swarm::TaskState;

mod inputs;

pub use inputs::{
    ClaimVolume, ConfigData, InputKey, NamespaceServices, NodeSettings, PodInput, ServiceAddress, Token,
    TokenRequest,
};

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
    /// What this node's pods of Kubernetes and ECS refer to, new or changed.
    pub inputs: Vec<Arc<PodInput>>,
    /// Inputs needed no longer, or gone.
    pub removed_inputs: Vec<InputKey>,
    /// The node's settings, when they are new or changed.
    pub node: Option<Arc<NodeSettings>>,
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
    /// Where it is. For pods that run from their PodSpec it follows the phase: `preparing` (Pending), `running`,
    /// `complete` (Succeeded), `failed`.
    pub state: TaskState,
    /// Since when.
    pub at: Option<Time>,
    /// What is being done.
    pub message: String,
    /// What went wrong.
    pub error: String,
    /// The container (Swarm tasks).
    pub container_id: String,
    /// Process (Swarm tasks).
    pub pid: i32,
    /// Exit status.
    pub exit_code: Option<i64>,
    /// Ports of the node that lead to it.
    pub ports: Vec<HostPort>,
    /// It may be sent connections. For pods that run from their PodSpec: the condition Ready as the node sees it.
    pub serving: bool,
    /// Pods that run from their PodSpec: the complete status as the node computes it. Its conditions are those that
    /// the node owns (PodReadyToStartContainers, Initialized, ContainersReady, Ready, PodResizePending,
    /// PodResizeInProgress): those of others in the store are kept.
    pub kube: Option<Box<PodStatus>>,
    /// Verdicts of health checks ([`crate::pod::ContainerExtension::health_check`]), by container.
    pub health: BTreeMap<String, HealthStatus>,
    /// The pod was to go (a deletion timestamp, or out of the store), and nothing of it is left on the node: its
    /// object may be removed.
    pub gone: bool,
    /// What happened to it, to be written as Kubernetes Events by the manager.
    pub events: Vec<PodEvent>,
}

/// Something that happened to a pod on its node: becomes a core/v1 Event about the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodEvent {
    /// It is a warning rather than normal.
    pub warning: bool,
    /// One word: `Pulled`, `Created`, `Started`, `Killing`, `BackOff`, `Unhealthy`, `FailedMount` …
    pub reason: String,
    /// For people.
    pub message: String,
    /// `involvedObject.fieldPath`, such as `spec.containers{web}`; empty is the pod itself.
    pub field_path: String,
    /// When.
    pub at: Option<Time>,
}
