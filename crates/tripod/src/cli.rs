//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One cluster, three front doors: runs containers, driven by docker, kubectl and aws.
#[derive(Debug, Parser)]
#[command(name = "tripod", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node in the foreground, like dockerd.
    Daemon(Box<DaemonArgs>),
    /// Start a cluster on this machine (or start it again).
    Start(StartArgs),
    /// Stop a local cluster; what it holds stays.
    Stop(ClusterArgs),
    /// Delete a local cluster with all it holds.
    Delete(ClusterArgs),
    /// Tell how a local cluster is.
    Status(StatusArgs),
    /// Print the settings that point docker at a local cluster.
    Env(EnvArgs),
    /// Print the version.
    Version,
}

/// Options of the daemon.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Directory of everything that is kept.
    #[arg(long, default_value = "/var/lib/tripod", value_name = "DIR")]
    pub data_root: PathBuf,
    /// Directory of running state (namespaces, sockets); its default depends on the data root.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Where the Docker API is served: `unix://PATH` or `tcp://IP:PORT`; may be repeated.
    #[arg(short = 'H', long = "host", value_name = "URL")]
    pub hosts: Vec<String>,
    /// Address that other nodes and clients know this node by.
    #[arg(long, value_name = "IP")]
    pub advertise_addr: Option<IpAddr>,
    /// OCI runtime: the built-in one, or the name or path of another (`runc`, `crun`).
    #[arg(long, default_value = "tripod", value_name = "NAME")]
    pub oci_runtime: String,
    /// Serve TCP with TLS.
    #[arg(long)]
    pub tls: bool,
    /// Serve TCP with TLS and admit only clients with a certificate of the authority.
    #[arg(long)]
    pub tlsverify: bool,
    /// Certificate of the authority for clients.
    #[arg(long, default_value = "/etc/docker/ca.pem", value_name = "FILE")]
    pub tlscacert: PathBuf,
    /// Certificate of the daemon.
    #[arg(long, default_value = "/etc/docker/server-cert.pem", value_name = "FILE")]
    pub tlscert: PathBuf,
    /// Key of the daemon's certificate.
    #[arg(long, default_value = "/etc/docker/server-key.pem", value_name = "FILE")]
    pub tlskey: PathBuf,
    /// Registries that are asked over HTTP, or over HTTPS without checking certificates.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Label of the daemon, `key=value`; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Group that owns the unix socket.
    #[arg(short = 'G', long, default_value = "docker")]
    pub group: String,
    /// Stop all containers when the daemon is told to end (they run on by default).
    #[arg(long, hide = true)]
    pub stop_containers: bool,
    /// How much is logged: error, warn, info, debug, trace.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
}

/// A local cluster by name.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster.
    #[arg(long, default_value = "tripod")]
    pub name: String,
}

/// Options of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Number of nodes.
    #[arg(long, default_value_t = 1)]
    pub nodes: u32,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `env`.
#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Print what takes the settings back.
    #[arg(long, short)]
    pub unset: bool,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}
