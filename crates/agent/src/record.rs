//! What the agent knows of a container: specification, state, and what was settled for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tripod_model::Time;
use tripod_model::container::{ContainerSpec, ContainerState, ContainerStatus, Mount};
use tripod_model::image::Descriptor;
use tripod_model::network::{Endpoint, PublishedPort};

/// A container of this node, as one immutable value; every change makes a new one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// 64 hex digits.
    pub id: String,
    /// Name, without a slash.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// What to run, complete.
    pub spec: Arc<ContainerSpec>,
    /// The manifest that the image came from, when known.
    #[serde(default)]
    pub manifest: Option<Descriptor>,
    /// Who wanted it.
    #[serde(default)]
    pub owner: Owner,
    /// Its condition.
    #[serde(default)]
    pub state: ContainerState,
    /// Counts starts; the runtime's exit records carry it.
    #[serde(default)]
    pub run: u64,
    /// The user wants it to run (it is started again with the daemon where its policy says so).
    #[serde(default)]
    pub wanted: bool,
    /// The daemon stopped it with itself: the pod that it is of goes on with the next daemon, in another run.
    #[serde(default)]
    pub resume: bool,
    /// Places in networks: settled while it runs, wishes otherwise.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Ports of the host that lead to it while it runs.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Mounts with what was settled: names of anonymous volumes, host paths.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// Directory with its files.
    pub dir: String,
    /// What could not be honoured here.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl ContainerRecord {
    /// Whether its process exists (running or frozen).
    pub fn is_running(&self) -> bool {
        matches!(
            self.state.status,
            ContainerStatus::Running | ContainerStatus::Paused
        )
    }

    /// Twelve digits.
    pub fn short_id(&self) -> &str {
        tripod_model::id::short(&self.id)
    }

    /// The path and arguments that are run.
    pub fn command_line(&self) -> Vec<String> {
        self.spec
            .entrypoint
            .iter()
            .chain(&self.spec.command)
            .cloned()
            .collect()
    }
}

/// A mount with its place on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// What was asked for; `source` is the volume's name where it is a volume.
    pub mount: Mount,
    /// Path on the host; empty for tmpfs.
    pub path: String,
}

/// Who wanted a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// A client of this node's Docker API.
    #[default]
    Local,
    /// A pod of the cluster.
    Pod {
        /// `namespace/name`.
        pod: String,
        /// Unique identifier.
        uid: String,
        /// Name of the container in the pod; empty for Swarm tasks, which have but one.
        #[serde(default)]
        container: String,
        /// Which run of that container this is, from 0.
        #[serde(default)]
        attempt: u32,
    },
}

impl Owner {
    /// Which run of a pod's container it is.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Pod { attempt, .. } => *attempt,
            Self::Local => 0,
        }
    }
}

/// A process run in a container besides its first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRecord {
    /// 64 hex digits.
    pub id: String,
    /// Container.
    pub container: String,
    /// What to run.
    pub request: crate::ports::ExecRequest,
    /// Which streams the client wants: stdin, stdout, stderr.
    pub attach: (bool, bool, bool),
    /// Keys that detach, as asked for.
    pub detach_keys: String,
    /// It runs.
    pub running: bool,
    /// Process on the host, once started.
    pub pid: i32,
    /// Exit status, once ended.
    pub exit_code: Option<i64>,
}
