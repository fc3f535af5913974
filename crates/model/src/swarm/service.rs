//! Services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::task::{NetworkAttachmentConfig, TaskSpec};
use crate::Time;
use crate::network::PortProtocol;
use crate::object::ObjectMeta;

/// A service. `metadata.name` is its identifier, `metadata.generation` counts changes of its specification.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmService {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// What the user wanted before, for rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    /// What became of it.
    pub status: ServiceStatus,
}

crate::kind!(SwarmService, "swarm.tripod.dev/v1", "SwarmService", "swarmservices.swarm.tripod.dev", namespaced: true);

/// What the user wants of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Name, unique in the cluster.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Template of its tasks.
    pub task_template: TaskSpec,
    /// How many tasks and of which sort.
    pub mode: ServiceMode,
    /// How changes are rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How changes are rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Networks in the older place; those of the template win.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachmentConfig>,
    /// How it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
}

/// How many tasks and of which sort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceMode {
    /// So many tasks.
    #[serde(rename_all = "camelCase")]
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on each node.
    Global {},
    /// So many runs to completion.
    #[serde(rename_all = "camelCase")]
    ReplicatedJob {
        /// At the same time.
        max_concurrent: u64,
        /// In all.
        total_completions: u64,
    },
    /// One run to completion on each node.
    GlobalJob {},
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

impl ServiceMode {
    /// Whether tasks run to completion.
    pub fn is_job(&self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob {})
    }

    /// Whether there is one task on each node.
    pub fn is_global(&self) -> bool {
        matches!(self, Self::Global {} | Self::GlobalJob {})
    }
}

/// How changes are rolled out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateConfig {
    /// Tasks at a time; 0 is all.
    pub parallelism: u64,
    /// Nanoseconds between batches.
    pub delay: i64,
    /// `pause`, `continue`, `rollback`.
    pub failure_action: FailureAction,
    /// Nanoseconds for which a new task is watched for failure; 0 is the default of 5 s.
    pub monitor: i64,
    /// Part of the tasks that may fail.
    pub max_failure_ratio: f32,
    /// Which comes first.
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: 0,
            failure_action: FailureAction::Pause,
            monitor: 5_000_000_000,
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// What to do when too many tasks fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Stop here.
    #[default]
    Pause,
    /// Go on.
    Continue,
    /// Go back.
    Rollback,
}

/// Which of the old and the new task is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old one stops before the new one starts.
    #[default]
    StopFirst,
    /// The new one runs before the old one stops.
    StartFirst,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSpec {
    /// By a virtual address or by names alone.
    pub mode: EndpointMode,
    /// Published ports.
    pub ports: Vec<PortConfig>,
}

/// Virtual address or DNS round robin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// A virtual address in each network.
    #[default]
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortConfig {
    /// Name, usually empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport.
    pub protocol: PortProtocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port of the nodes; 0 asks for one (30000 to 32767).
    pub published_port: u16,
    /// By the mesh or on the task's node only.
    pub publish_mode: PublishMode,
}

/// Where a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the task's node.
    Host,
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// When its specification last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// How it is reached: what was asked for, with ports filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<ServiceEndpoint>,
    /// The rollout in progress or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
    /// Its replicas are being moved, one by one, to nodes that have fewer of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rebalancing: bool,
    /// Execution number and start of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEndpoint {
    /// As asked for.
    pub spec: EndpointSpec,
    /// Ports with their numbers.
    pub ports: Vec<PortConfig>,
    /// Network and virtual address, with prefix length.
    pub virtual_ips: Vec<VirtualIp>,
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIp {
    /// Network.
    pub network_id: String,
    /// Address with the subnet's prefix length.
    pub addr: IpNet,
}

impl VirtualIp {
    /// The bare address.
    pub fn ip(&self) -> IpAddr {
        self.addr.addr()
    }
}

/// The state of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStatus {
    /// Where it is.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// For people, in SwarmKit's words.
    pub message: String,
    /// Generation that is being rolled out.
    pub generation: i64,
    /// Tasks that failed within their monitoring time, for the failure ratio.
    #[serde(default)]
    pub failed_tasks: Vec<String>,
    /// When the last batch was finished, for the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_batch_at: Option<Time>,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// In progress.
    Updating,
    /// Stopped by failures.
    Paused,
    /// Done.
    Completed,
    /// Going back.
    RollbackStarted,
    /// Going back was stopped by failures.
    RollbackPaused,
    /// Went back.
    RollbackCompleted,
}

impl UpdateState {
    /// The word of the Docker API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}

/// A job's execution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    /// Counts changes of the service; tasks of earlier ones do not count.
    pub iteration: u64,
    /// When this execution began.
    pub last_execution: Option<Time>,
}
