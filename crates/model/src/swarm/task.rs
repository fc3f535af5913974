//! The template of a task and its states.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::HealthCheck;
use crate::image::{Platform, RegistryAuth};
use crate::node::GenericResource;

/// What every task of a service is made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskSpec {
    /// `container`; plugins and attachments are refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// The container.
    pub container: TaskContainer,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<TaskResources>,
    /// What happens when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<TaskRestartPolicy>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Counts forced updates.
    pub force_update: u64,
    /// Networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Log driver and options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
}

/// A driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Driver {
    /// Name.
    pub name: String,
    /// Options.
    pub options: BTreeMap<String, String>,
}

/// The container of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskContainer {
    /// Image, with the digest pinned when it was resolved.
    pub image: String,
    /// Credentials for the image's registry; never served.
    #[serde(skip_serializing_if = "Credentials::is_empty")]
    pub registry_auth: Credentials,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Entrypoint.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Host name; may be a template.
    pub hostname: String,
    /// `NAME=value`; may be templates.
    pub env: Vec<String>,
    /// Directory.
    pub dir: String,
    /// User.
    pub user: String,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Seccomp, AppArmor, no-new-privileges …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<serde_json::Value>,
    /// Terminal.
    pub tty: bool,
    /// Standard input.
    pub open_stdin: bool,
    /// Read-only root.
    pub read_only: bool,
    /// Mounts.
    pub mounts: Vec<TaskMount>,
    /// Stop signal.
    pub stop_signal: String,
    /// Nanoseconds between the stop signal and SIGKILL.
    pub stop_grace_period: Option<i64>,
    /// Health check.
    pub healthcheck: Option<HealthCheck>,
    /// Lines of `/etc/hosts` in its own form, `IP name …`.
    pub hosts: Vec<String>,
    /// Name servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Secrets.
    pub secrets: Vec<DataReference>,
    /// Configs.
    pub configs: Vec<DataReference>,
    /// OOM score adjustment.
    pub oom_score_adj: i64,
    /// Isolation (`default` only).
    pub isolation: String,
    /// Small init as first process.
    pub init: Option<bool>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Added capabilities.
    pub capability_add: Vec<String>,
    /// Dropped capabilities.
    pub capability_drop: Vec<String>,
    /// Resource limits.
    pub ulimits: Vec<crate::container::Ulimit>,
}

/// Credentials for a registry. They are no part of what a task is: all
/// are equal, so that new credentials alone replace no task.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(pub Option<RegistryAuth>);

impl Credentials {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Credentials {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Credentials {}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_none() { "none" } else { "…" })
    }
}

/// Name servers of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DnsConfig {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A mount of a task, as Docker's Mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskMount {
    /// `bind`, `volume`, `tmpfs`, `image` …
    #[serde(rename = "type")]
    pub type_: String,
    /// Path or volume (may be a template).
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Consistency (ignored on Linux, told back).
    pub consistency: String,
    /// Options of binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<serde_json::Value>,
    /// Options of volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<serde_json::Value>,
    /// Options of tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<serde_json::Value>,
}

/// A reference to a secret or config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataReference {
    /// Identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// The file that it becomes; `None` when a config is used by the runtime itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<DataFile>,
}

/// The file that a secret or config becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataFile {
    /// Name or path.
    pub name: String,
    /// Owner.
    pub uid: String,
    /// Group.
    pub gid: String,
    /// File mode.
    pub mode: u32,
}

/// Limits and reservations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskResources {
    /// Upper bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
    /// What the node must have free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<ResourceAmounts>,
}

/// Amounts of resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// Billionths of processors.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Processes (limits only).
    pub pids: i64,
    /// Named resources (reservations only).
    pub generic: Vec<GenericResource>,
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskRestartPolicy {
    /// `none`, `on-failure`, `any`; empty is `any`.
    pub condition: String,
    /// Before the next start; `None` is 5 s.
    pub delay: Option<i64>,
    /// `None` or 0 is without limit.
    pub max_attempts: Option<u64>,
    /// In which attempts are counted; 0 is for ever.
    pub window: Option<i64>,
}

/// Where tasks may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Placement {
    /// `node.role==manager` …
    pub constraints: Vec<String>,
    /// Spread descriptors, in order: `node.labels.zone`.
    pub preferences: Vec<String>,
    /// At most so many tasks on a node, 0 is without limit.
    pub max_replicas: u64,
    /// Platforms that the image has.
    pub platforms: Vec<Platform>,
}

/// An attachment to a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkAttachmentConfig {
    /// Identifier or name of the network.
    pub target: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// Driver options.
    pub driver_opts: BTreeMap<String, String>,
}

/// SwarmKit's states of a task, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Made.
    #[default]
    New,
    /// Resources of the cluster (addresses, ports) are settled; waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node took it.
    Accepted,
    /// Image and networks are being made ready.
    Preparing,
    /// Can be started at once.
    Ready,
    /// Being started.
    Starting,
    /// Runs (and is healthy, where there is a check).
    Running,
    /// Ended with status 0.
    Complete,
    /// Ended because it was asked to.
    Shutdown,
    /// Ended with another status, or could not start.
    Failed,
    /// The node cannot run it.
    Rejected,
    /// To be removed.
    Remove,
    /// Its node is gone for good.
    Orphaned,
}

impl TaskState {
    /// The word of the Docker API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// No process will ever run again in this task.
    pub fn is_final(self) -> bool {
        self > Self::Running
    }
}
