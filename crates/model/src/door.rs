//! What can be asked of a node about its pods: logs, processes, connections and readings. Plain data, so that it can
//! be asked over a connection; the streams themselves belong to who carries them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Time;

/// A container of a pod on the node that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerTarget {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Unique identifier of the pod; empty does not look at it.
    pub uid: String,
    /// Name of the container (also of init and ephemeral ones); empty where the pod has only one.
    pub container: String,
}

/// Which part of a container's log is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogRequest {
    /// Whose.
    pub target: ContainerTarget,
    /// Go on as lines are written, until the container ends.
    pub follow: bool,
    /// Of the run before the present one.
    pub previous: bool,
    /// From this time.
    pub since: Option<Time>,
    /// Up to this time.
    pub until: Option<Time>,
    /// Only so many of the last lines; `None` is all.
    pub tail: Option<usize>,
    /// Leave out standard output.
    pub no_stdout: bool,
    /// Leave out standard error.
    pub no_stderr: bool,
    /// Want the attributes (labels, env) that Docker's log options add.
    pub details: bool,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Written to standard error.
    pub stderr: bool,
    /// When it was written.
    pub at: Time,
    /// The bytes, with the line end if there was one.
    pub data: Bytes,
    /// Attributes, `name=value` joined by commas, when asked for.
    pub attrs: Option<String>,
}

/// A process to be run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExecRequest {
    /// Where.
    pub target: ContainerTarget,
    /// Command line.
    pub command: Vec<String>,
    /// Its standard input is sent.
    pub stdin: bool,
    /// Its standard output is wanted.
    pub stdout: bool,
    /// Its standard error is wanted (a terminal has none).
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
}

/// The streams of a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachRequest {
    /// Whose.
    pub target: ContainerTarget,
    /// Standard input is sent (an error where the container keeps none open).
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
    /// The container has a terminal: its size may be sent.
    pub tty: bool,
}

/// A TCP connection to a port in a pod's network namespace, on its loopback.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortForwardRequest {
    /// The pod; its container is not looked at.
    pub target: ContainerTarget,
    /// Port, 1 to 65535.
    pub port: u16,
}

/// What a client sends to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessInput {
    /// To its standard input.
    Stdin(Bytes),
    /// Its standard input ends.
    CloseStdin,
    /// The client's terminal has this size.
    Resize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    },
}

/// What comes from a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessOutput {
    /// From its standard output, or its terminal.
    Stdout(Bytes),
    /// From its standard error.
    Stderr(Bytes),
    /// It ended (exec only): the last item.
    Exit(i64),
}

/// A reading of a whole node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStats {
    /// When it was taken.
    pub at: Option<Time>,
    /// The machine.
    pub node: Usage,
    /// Bytes received and sent by the machine's interfaces.
    pub network: (u64, u64),
    /// Filesystem of the data root.
    pub filesystem: FilesystemUsage,
    /// Its pods, Swarm tasks included.
    pub pods: Vec<PodStats>,
}

/// A reading of a pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStats {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique identifier.
    pub uid: String,
    /// When the pod was started.
    pub started_at: Option<Time>,
    /// Bytes received and sent by the pod's own interfaces; `None` on the host's network.
    pub network: Option<(u64, u64)>,
    /// Its running containers.
    pub containers: Vec<ContainerStats>,
}

/// A reading of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStats {
    /// Name in the pod.
    pub name: String,
    /// Identifier on the node.
    pub id: String,
    /// When it was started.
    pub started_at: Option<Time>,
    /// What it uses.
    pub usage: Usage,
}

/// Processor time and memory in use.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// Nanoseconds of processor time since the start, all processors.
    pub cpu_nanos: u64,
    /// Billionths of a processor, over the last window (some seconds); 0 until there are two readings.
    pub nano_cores: u64,
    /// Seconds of that window; 0 until there are two readings.
    pub window_seconds: f64,
    /// Bytes in use, caches included.
    pub memory_usage: u64,
    /// Bytes in use that cannot be reclaimed at once.
    pub memory_working_set: u64,
    /// Bytes of anonymous memory.
    pub memory_rss: u64,
    /// Limit in bytes; 0 without one.
    pub memory_limit: u64,
    /// Processes.
    pub pids: u64,
}

/// Space of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilesystemUsage {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes free for use.
    pub available: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes free for use.
    pub inodes_free: u64,
}
