//! Processes: containers started, watched and ended by a runtime whose keeper outlives the daemon.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tripod_model::container::{ContainerSpec, Resources};
use tripod_model::{Result, Time};

use super::{BoxStream, BoxWrite};

/// What the runtime needs beyond the spec: paths and namespaces that the agent has settled.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// 64 hex digits.
    pub id: String,
    /// Number of this run, from 1; exit records carry it, so that a late report of an earlier run is recognised.
    pub run: u64,
    /// What to run.
    pub spec: std::sync::Arc<ContainerSpec>,
    /// The mounted root filesystem.
    pub rootfs: PathBuf,
    /// Network namespace to join; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// Container whose process gives the PID, IPC or UTS namespace where the spec says so is named in the spec by
    /// identifier; the runtime finds its namespaces itself.
    /// Mounts in order, all sources resolved to host paths.
    pub mounts: Vec<ResolvedMount>,
    /// Directory in which the runtime may keep the container's bundle and logs.
    pub dir: PathBuf,
}

/// A mount whose source is a path on the host (or memory).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// Host path; `None` is tmpfs.
    pub source: Option<PathBuf>,
    /// Absolute path in the container.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// `rprivate`, `rshared` …; empty is `rprivate`.
    pub propagation: String,
    /// Without what is mounted below the source.
    pub non_recursive: bool,
    /// tmpfs options (`size=…`, `mode=…`, `noexec` …).
    pub options: Vec<String>,
}

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its number on the host.
    pub pid: i32,
    /// When.
    pub at: Time,
    /// What could not be honoured on this machine and was clamped, as sentences for the user.
    pub warnings: Vec<String>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Container.
    pub id: String,
    /// Which run of it.
    pub run: u64,
    /// Exit status, 128 + signal when killed; `None` when it cannot be known (the keeper died with it).
    pub code: Option<i64>,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
    /// When.
    pub at: Time,
}

/// What the runtime reports without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container's first process ended. Repeated after a reconnection until [`Runtime::acknowledge_exit`].
    Exited(Exit),
    /// A process of the container was killed for lack of memory, the container goes on.
    Oom {
        /// Container.
        id: String,
    },
    /// A process made by exec ended.
    ExecExited {
        /// Container.
        id: String,
        /// Exec.
        exec_id: String,
        /// Exit status.
        code: i64,
    },
}

/// A container that the keeper has when the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Container.
    pub id: String,
    /// Its run.
    pub run: u64,
    /// Its process while it runs.
    pub pid: i32,
    /// Whether it is frozen.
    pub paused: bool,
    /// Its end, when it ended meanwhile.
    pub exit: Option<Exit>,
}

/// A process to be run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// 64 hex digits.
    pub exec_id: String,
    /// Command line.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Directory; empty is the container's.
    pub working_dir: String,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    /// All capabilities.
    pub privileged: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep a pipe to its standard input.
    pub stdin: bool,
    /// Initial size of the terminal: height, width.
    pub console_size: Option<(u16, u16)>,
}

/// The ends of a process's streams.
pub struct Streams {
    /// To its standard input, when it is open. Dropping (or shutting down) it closes the input where the spec
    /// says `stdin_once` or the process is an exec.
    pub stdin: Option<BoxWrite>,
    /// What it prints from now on; ends when the process has ended and all was read.
    pub output: BoxStream<Result<OutputChunk>>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Which stream; a terminal has only `Stdout`.
    pub stream: OutputStream,
    /// The bytes, not aligned to lines.
    pub data: Bytes,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on as lines are written, until the container ends.
    pub follow: bool,
    /// From this time.
    pub since: Option<Time>,
    /// Up to this time.
    pub until: Option<Time>,
    /// Only so many of the last lines; `None` is all.
    pub tail: Option<usize>,
    /// Want the attributes (labels, env) that the log options add.
    pub details: bool,
}

/// A line of a log (with its line end, if it had one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Which stream.
    pub stream: OutputStream,
    /// When it was written.
    pub at: Time,
    /// The bytes.
    pub data: Bytes,
    /// Attributes, `name=value` joined by commas, when asked for.
    pub attrs: Option<String>,
}

/// A reading of what a container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of processor time, all processors.
    pub cpu_total: u64,
    /// Nanoseconds per processor (v1 only).
    pub cpu_per: Vec<u64>,
    /// Nanoseconds in user mode.
    pub cpu_user: u64,
    /// Nanoseconds in the kernel.
    pub cpu_kernel: u64,
    /// Nanoseconds of processor time of the whole machine, all processors.
    pub system_cpu: u64,
    /// Processors online.
    pub online_cpus: u32,
    /// Enforcement periods, those throttled, and nanoseconds throttled.
    pub throttling: (u64, u64, u64),
    /// Bytes in use.
    pub memory_usage: u64,
    /// Highest use (0 where the kernel does not say).
    pub memory_max: u64,
    /// Limit; the machine's memory when there is none.
    pub memory_limit: u64,
    /// Times the limit was hit.
    pub memory_failcnt: u64,
    /// The kernel's `memory.stat`.
    pub memory_stat: Vec<(String, u64)>,
    /// Processes and threads, and their limit (0 for none).
    pub pids: (u64, u64),
    /// Per device and operation: major, minor, `read`/`write`/…, bytes.
    pub blkio_bytes: Vec<(u64, u64, String, u64)>,
    /// Per device and operation: major, minor, `read`/`write`/…, operations.
    pub blkio_ops: Vec<(u64, u64, String, u64)>,
}

/// Starts, watches and ends containers. Implementations survive the daemon: what they run goes on, and
/// [`Runtime::adopt`] tells the next daemon about it.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Containers that the keeper has, running or ended but not yet acknowledged. Called once at start.
    async fn adopt(&self) -> Result<Vec<Adopted>>;
    /// The stream of events; called once.
    fn events(&self) -> BoxStream<RuntimeEvent>;
    /// Creates and starts a container in one go. An error means that nothing runs; its kind and message follow
    /// Docker's (`exec: "x": executable file not found in $PATH` is `Invalid`).
    async fn start(&self, request: StartRequest) -> Result<Started>;
    /// Sends a signal to the first process (or to all, when it is SIGKILL and the PID namespace is shared).
    async fn signal(&self, id: &str, signal: i32) -> Result<()>;
    /// Freezes all processes.
    async fn pause(&self, id: &str) -> Result<()>;
    /// Thaws them.
    async fn unpause(&self, id: &str) -> Result<()>;
    /// Changes limits of a running container.
    async fn update(&self, id: &str, resources: &Resources) -> Result<()>;
    /// Keeps an IPC and a UTS namespace with this host name at `dir/ipc` and `dir/uts`, for the containers of a pod
    /// ([`tripod_model::container::NamespaceMode::Path`]), and at `dir/pid` one of `processes` that outlives each of
    /// them; nothing to do when they are there.
    async fn keep_namespaces(&self, dir: &std::path::Path, hostname: &str, processes: bool) -> Result<()>;
    /// Lets them go.
    async fn drop_namespaces(&self, dir: &std::path::Path) -> Result<()>;
    /// Makes a cgroup below which containers have theirs (`Resources::cgroup_parent`), with limits of its own; or
    /// changes them.
    async fn group(&self, path: &str, resources: &Resources) -> Result<()>;
    /// Removes it.
    async fn remove_group(&self, path: &str) -> Result<()>;
    /// Forgets the record of an exit, once the agent has stored it.
    async fn acknowledge_exit(&self, id: &str, run: u64) -> Result<()>;
    /// Removes what is left of a container: cgroup, bundle, keeper's record, log files.
    async fn remove(&self, id: &str) -> Result<()>;
    /// The container's streams, from now on.
    async fn attach(&self, id: &str) -> Result<Streams>;
    /// Attaches before the first output of the next start, so that not a byte is missed; valid from before
    /// [`Runtime::start`].
    async fn attach_next(&self, id: &str) -> Result<Streams>;
    /// Size of the terminal.
    async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()>;
    /// Runs a process in the container; `Streams::output` ends with the process. Its number is returned too.
    async fn exec(&self, id: &str, request: ExecRequest) -> Result<(Streams, i32)>;
    /// Size of an exec's terminal.
    async fn resize_exec(&self, id: &str, exec_id: &str, height: u16, width: u16) -> Result<()>;
    /// Runs a short command in the container without a terminal and returns exit code and at most `limit` bytes of
    /// output; for health checks and probes. On time-out the process is killed and the code is `None`.
    async fn exec_sync(
        &self,
        id: &str,
        request: ExecRequest,
        timeout: std::time::Duration,
        limit: usize,
    ) -> Result<(Option<i64>, Bytes)>;
    /// Lines of the log.
    async fn logs(&self, id: &str, query: LogQuery) -> Result<BoxStream<Result<LogLine>>>;
    /// Path of the log file, when the driver has one.
    fn log_path(&self, id: &str) -> Option<PathBuf>;
    /// A reading of the cgroup.
    async fn stats(&self, id: &str) -> Result<Stats>;
    /// Use of all containers of this node together, where the node has limits of its own.
    async fn node_usage(&self) -> Option<Stats> {
        None
    }
    /// Process numbers (on the host) in the container.
    async fn pids(&self, id: &str) -> Result<Vec<i32>>;
    /// Names and versions for `docker info`: default runtime name, all runtimes, cgroup driver and version,
    /// kernel features that are missing (as warnings).
    fn info(&self) -> RuntimeInfo;
}

/// What the runtime tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Default OCI runtime.
    pub default_runtime: String,
    /// Name and path (empty for the built-in one) of every OCI runtime.
    pub runtimes: Vec<(String, String)>,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// Which limits the kernel can enforce, by Docker's info field (`MemoryLimit`, `SwapLimit`, `PidsLimit` …).
    pub features: Vec<(&'static str, bool)>,
    /// Security options (`name=seccomp,profile=builtin`).
    pub security_options: Vec<String>,
    /// Sentences for `docker info`.
    pub warnings: Vec<String>,
}
