//! A container as every layer below the dialects sees it: Docker's Config and HostConfig, a Pod's container
//! with its extension, and an ECS container definition all become a [`ContainerSpec`].
//!
//! A spec is complete: what the image supplies (environment, command, user …) has been merged in, and
//! defaults are filled. Sizes are bytes, durations nanoseconds, unless a field says otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::network::PortProtocol;

/// What to run and how.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerSpec {
    /// The image as the user wrote it.
    pub image: String,
    /// Identifier of the image's configuration, `sha256:…`.
    pub image_id: String,
    /// First words of the command line (after merging with the image).
    pub entrypoint: Vec<String>,
    /// Further words of the command line.
    pub command: Vec<String>,
    /// `NAME=value`, merged with the image's.
    pub env: Vec<String>,
    /// Directory in which the command starts; empty means `/`.
    pub working_dir: String,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// Host name; the agent fills in the short identifier where the user gave none.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// Labels of the user and of the image.
    pub labels: BTreeMap<String, String>,
    /// Annotations handed to the OCI runtime.
    pub annotations: BTreeMap<String, String>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Whether standard input stays open without a client.
    pub open_stdin: bool,
    /// Whether standard input closes when the first client leaves.
    pub stdin_once: bool,
    /// The client asked to attach these when it created the container (told back by inspect).
    pub attach: AttachFlags,
    /// Ports that the image or the user declares, `80/tcp`.
    pub exposed_ports: Vec<PortSpec>,
    /// Signal that asks the process to end (`SIGTERM` when empty).
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; `None` is the daemon's default (10).
    pub stop_timeout: Option<i64>,
    /// Health check; `None` when there is none or it is disabled.
    pub healthcheck: Option<HealthCheck>,
    /// Shell form prefix, kept from the image.
    pub shell: Vec<String>,
    /// Paths that the image or the user declared as anonymous volumes.
    pub volumes: Vec<String>,
    /// Volumes, binds and tmpfs, in the order in which they are mounted.
    pub mounts: Vec<Mount>,
    /// Docker's `--volumes-from`, `NAME[:ro|rw]`, told back by inspect (the mounts are already resolved).
    pub volumes_from: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// Capabilities, seccomp, namespaces and what else bounds the process.
    pub security: Security,
    /// Where logs go.
    pub log: LogConfig,
    /// What happens after the process ends.
    pub restart: RestartPolicy,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// Run a small init as the first process.
    pub init: bool,
    /// Networks, ports and names.
    pub network: NetworkAttachment,
    /// OCI runtime asked for; empty is the built-in one.
    pub runtime: String,
    /// Isolation as it was asked for: nothing, or `default`.
    #[serde(default)]
    pub isolation: String,
    /// File that the client wrote the identifier to (told back by inspect).
    pub container_id_file: String,
    /// Storage options of the snapshot (`size=…` is refused unless supported).
    pub storage_opt: BTreeMap<String, String>,
    /// Files put into the container before it starts: secrets and configs. Never stored: they are handed over anew
    /// for each start.
    #[serde(skip)]
    pub files: Vec<InjectedFile>,
    /// Initial size of the terminal: height, width.
    pub console_size: Option<(u16, u16)>,
}

/// Streams that the creating client wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachFlags {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A port and its protocol: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortSpec {
    /// Port number, never 0.
    pub port: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// A health check as Docker defines it; durations in nanoseconds, 0 is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthCheck {
    /// `["CMD", …]`, `["CMD-SHELL", "…"]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks (default 30 s).
    pub interval: i64,
    /// For one check (default 30 s).
    pub timeout: i64,
    /// In which failures do not count (default 0).
    pub start_period: i64,
    /// Between checks in the start period (default 5 s).
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy (default 3).
    pub retries: i64,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// What kind of thing is mounted.
    pub kind: MountKind,
    /// Volume name or host path; empty for tmpfs and for an anonymous volume not yet named.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Docker's mode text (`z`, `ro`, `rw,z` …) when it came from `Binds`.
    pub mode: String,
    /// Bind propagation: `rprivate` (default), `private`, `rshared`, `shared`, `rslave`, `slave`.
    pub propagation: String,
    /// Bind without what is mounted below the source.
    pub non_recursive: bool,
    /// Make the host path when it is missing (Docker's `-v` does, `--mount` does not).
    pub create_source: bool,
    /// Volumes: do not copy what the image has at the target into an empty volume.
    pub no_copy: bool,
    /// Volumes: mount this path inside the volume.
    pub subpath: String,
    /// Volumes: driver and its options for a volume that is yet to be made.
    pub driver: String,
    /// Options of the volume's driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels of a volume that is yet to be made.
    pub volume_labels: BTreeMap<String, String>,
    /// tmpfs: size in bytes, 0 for no limit.
    pub tmpfs_size: i64,
    /// tmpfs: file mode, 0 for the default (1777).
    pub tmpfs_mode: u32,
    /// tmpfs: further mount options (`noexec`, `uid=…`).
    pub tmpfs_options: Vec<String>,
    /// The volume has no name of the user's: removed with the container when asked.
    pub anonymous: bool,
    /// Which field of the Docker API it came from, so that inspect shows it there.
    pub origin: MountOrigin,
}

/// What a mount mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    #[default]
    Bind,
    /// A named or anonymous volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// The root of an image, read-only.
    Image,
}

/// The field of the Docker API that a mount came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountOrigin {
    /// `HostConfig.Mounts`.
    #[default]
    Mounts,
    /// `HostConfig.Binds`.
    Binds,
    /// `HostConfig.Tmpfs`.
    Tmpfs,
    /// `Config.Volumes` or the image's volumes.
    Image,
    /// `HostConfig.VolumesFrom`.
    VolumesFrom,
}

/// Limits; 0 (or `None`) means none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Bytes of memory.
    pub memory: i64,
    /// Soft limit.
    pub memory_reservation: i64,
    /// Memory plus swap; -1 is unlimited, 0 twice the memory.
    pub memory_swap: i64,
    /// 0 to 100; `None` is the kernel's default.
    pub memory_swappiness: Option<i64>,
    /// Kernel TCP memory.
    pub kernel_memory_tcp: i64,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    /// Relative weight (v1 `cpu.shares`, 2 to 262144).
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_realtime_period: i64,
    /// Microseconds.
    pub cpu_realtime_runtime: i64,
    /// Processors, `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Processes; 0 or negative is unlimited, `None` unset.
    pub pids_limit: Option<i64>,
    /// Block I/O weight, 10 to 1000.
    pub blkio_weight: u16,
    /// Weight per device.
    pub blkio_weight_device: Vec<DeviceLimit>,
    /// Bytes per second.
    pub blkio_read_bps: Vec<DeviceLimit>,
    /// Bytes per second.
    pub blkio_write_bps: Vec<DeviceLimit>,
    /// Operations per second.
    pub blkio_read_iops: Vec<DeviceLimit>,
    /// Operations per second.
    pub blkio_write_iops: Vec<DeviceLimit>,
    /// Do not kill when out of memory (v1 only).
    pub oom_kill_disable: bool,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Rules of the device cgroup, `c 1:3 rwm`.
    pub device_cgroup_rules: Vec<String>,
    /// Parent of the container's cgroup; empty is the daemon's default.
    pub cgroup_parent: String,
}

/// A limit for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceLimit {
    /// Path of the device.
    pub path: String,
    /// Weight or rate.
    pub value: u64,
}

/// A resource limit (setrlimit).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ulimit {
    /// `nofile`, `nproc`, `core` …
    pub name: String,
    /// Soft limit, -1 is unlimited.
    pub soft: i64,
    /// Hard limit, -1 is unlimited.
    pub hard: i64,
}

/// A device of the host given to the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// Path on the host; a directory gives all devices below it.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// `r`, `w`, `m`.
    pub permissions: String,
}

/// What the process may do and which namespaces it gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Security {
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Added to the default set (`NET_ADMIN`, `ALL`).
    pub cap_add: Vec<String>,
    /// Removed from the default set.
    pub cap_drop: Vec<String>,
    /// The root filesystem cannot be written.
    pub read_only_rootfs: bool,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `None`: the default profile; `Some("unconfined")`; else a profile in Docker's JSON form.
    pub seccomp: Option<String>,
    /// `None`: default; else a profile name or `unconfined`.
    pub apparmor: Option<String>,
    /// Security options as given (told back by inspect).
    pub options: Vec<String>,
    /// Paths hidden; `None` is Docker's default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only; `None` is Docker's default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Added to the OOM score.
    pub oom_score_adj: i64,
    /// PID namespace.
    pub pid: NamespaceMode,
    /// IPC namespace.
    pub ipc: NamespaceMode,
    /// UTS namespace.
    pub uts: NamespaceMode,
    /// cgroup namespace.
    pub cgroupns: NamespaceMode,
    /// User namespace (`host` is the only other one).
    pub userns: NamespaceMode,
    /// Bytes of `/dev/shm`; 0 is 64 MiB.
    pub shm_size: i64,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// The default of that kind of namespace.
    #[default]
    Default,
    /// One of its own (IPC: not to be joined by others).
    Private,
    /// One of its own that others may join.
    Shareable,
    /// No mount of `/dev/shm` (IPC only).
    None,
    /// The host's.
    Host,
    /// That of another container, by identifier.
    Container(String),
    /// One that is kept at this path.
    Path(std::path::PathBuf),
}

/// Where the log of a container goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogConfig {
    /// `json-file` (default when empty), `local`, `none`.
    pub driver: String,
    /// `max-size`, `max-file`, `labels`, `env`, `tag`, `compress`, `mode` …
    pub options: BTreeMap<String, String>,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RestartPolicy {
    /// The condition.
    pub condition: RestartCondition,
    /// With `on-failure`: at most so often, 0 is without limit.
    pub max_retries: i64,
}

/// Docker's restart conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never.
    #[default]
    No,
    /// Always, also after the daemon starts.
    Always,
    /// Unless a user stopped it.
    UnlessStopped,
    /// After an exit status other than 0.
    OnFailure,
}

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkAttachment {
    /// Docker's `NetworkMode` as told back: `default`, `bridge`, `host`, `none`, `container:ID`, a network.
    pub mode: String,
    /// Networks to be connected to, by name or identifier.
    pub endpoints: Vec<EndpointRequest>,
    /// Ports published on the host.
    pub port_bindings: Vec<PortBinding>,
    /// Publish each exposed port on a free port of the host.
    pub publish_all: bool,
    /// Name servers; empty is the embedded one or the host's.
    pub dns: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `name:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Legacy links, `container:alias`.
    pub links: Vec<String>,
    /// No interface but loopback.
    pub disabled: bool,
}

/// A wish to be connected to a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointRequest {
    /// Name or identifier of the network.
    pub network: String,
    /// Further names in that network.
    pub aliases: Vec<String>,
    /// Legacy links, `container:alias`.
    pub links: Vec<String>,
    /// Fixed IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// Fixed IPv6 address.
    pub ipv6: Option<IpAddr>,
    /// Further link-local addresses.
    pub link_local: Vec<IpAddr>,
    /// Fixed hardware address, `02:42:…`.
    pub mac: Option<String>,
    /// Driver options.
    pub driver_opts: BTreeMap<String, String>,
    /// Which of several networks gives the default route; the highest wins.
    pub gw_priority: i64,
}

/// A port of the host that leads to a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortBinding {
    /// Port of the container.
    pub target: PortSpec,
    /// Address of the host; `None` is all of them.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; 0 asks for a free one.
    pub host_port: u16,
    /// Upper end of a range that `host_port` begins, from which a free one is taken.
    #[serde(default)]
    pub host_port_end: u16,
}

/// A file that appears in the container when it starts (a secret or a config).
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InjectedFile {
    /// Absolute path in the container.
    pub path: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// Owner, number or name.
    pub uid: String,
    /// Group, number or name.
    pub gid: String,
    /// File mode.
    pub mode: u32,
    /// Kept in memory only (secrets).
    pub secret: bool,
}

impl std::fmt::Debug for InjectedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InjectedFile({}, {} bytes)", self.path, self.data.len())
    }
}

/// A container's condition, in Docker's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    /// Made, not started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// It ended and waits for its next start.
    Restarting,
    /// Being removed.
    Removing,
    /// It ended.
    Exited,
    /// It could not be removed or is broken.
    Dead,
}

impl ContainerStatus {
    /// The word of the Docker API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerState {
    /// Condition.
    pub status: ContainerStatus,
    /// Process on the host, 0 when none runs.
    pub pid: i32,
    /// Exit status of the last run (128 + signal when killed).
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
    /// Last start.
    pub started_at: Option<Time>,
    /// Last end.
    pub finished_at: Option<Time>,
    /// Starts by the restart policy since the user's last start.
    pub restart_count: i64,
    /// A user stopped it: `unless-stopped` holds, and `always` waits for the daemon's next start.
    pub stopped_by_user: bool,
    /// Health, when there is a check.
    pub health: Option<Health>,
}

/// Health as told by the check.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Health {
    /// Verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last results, oldest first, at most five.
    pub log: Vec<HealthResult>,
}

/// The verdict of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check.
    #[default]
    None,
    /// Not yet decided.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

/// One run of a health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// 0 healthy, 1 unhealthy, -1 not finished in time.
    pub exit_code: i64,
    /// At most 4096 bytes of what it printed.
    pub output: String,
}
