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
    Delete(DeleteArgs),
    /// Freeze all containers of a local cluster.
    Pause(ClusterArgs),
    /// Let frozen containers go on.
    Unpause(ClusterArgs),
    /// Tell how a local cluster is.
    Status(StatusArgs),
    /// Print the settings that point docker, kubectl and aws at a local cluster.
    Env(EnvArgs),
    /// Print a node's address.
    Ip {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Which node; the first when none is named.
        #[arg(short = 'n', long)]
        node: Option<String>,
    },
    /// Open a shell on a node, or run a command there.
    Ssh(SshArgs),
    /// Print where a Kubernetes service answers, or list all.
    Service(ServiceArgs),
    /// Move surplus replicas of Swarm services to nodes that have fewer of them, one at a time, each started first.
    Rebalance(RebalanceArgs),
    /// Open the dashboard.
    Dashboard {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Print its address instead of opening a browser.
        #[arg(long)]
        url: bool,
        /// Port of this machine; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Load, list, pull and remove images of the nodes.
    Image {
        /// What to do with images.
        #[command(subcommand)]
        what: ImageWhat,
    },
    /// Mount a directory or file of this machine on the nodes of a local cluster, now and whenever they start.
    Mount(MountArgs),
    /// A registry on this machine whose images every node of the cluster has at once.
    Registry {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Port of this machine [default: the one it has, or 5000].
        #[arg(long)]
        port: Option<u16>,
        /// Close it; the images stay.
        #[arg(long, conflicts_with = "port")]
        off: bool,
    },
    /// List, add and delete nodes of a local cluster.
    Node {
        /// What to do with nodes.
        #[command(subcommand)]
        what: NodeWhat,
    },
    /// Copy files to, from and between nodes: `NODE:/PATH` is a path on a node.
    Cp {
        /// From where.
        from: String,
        /// Where to.
        to: String,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Tell the clusters of this machine.
    Profile {
        /// What to tell.
        #[command(subcommand)]
        what: ProfileWhat,
    },
    /// What `start` takes when it is not told.
    Config {
        /// What to do with settings.
        #[command(subcommand)]
        what: ConfigWhat,
    },
    /// What other tools add to a cluster; here it is built in.
    Addons {
        /// What to do with add-ons.
        #[command(subcommand)]
        what: AddonsWhat,
    },
    /// Create a cluster of local nodes, as kind does.
    Create {
        /// What to create.
        #[command(subcommand)]
        what: CreateWhat,
    },
    /// Get local clusters, their nodes, or a kubeconfig.
    Get(GetArgs),
    /// Load images onto the nodes, as kind does.
    Load {
        /// What to load.
        #[command(subcommand)]
        what: LoadWhat,
    },
    /// Export logs.
    Export {
        /// What to export.
        #[command(subcommand)]
        what: ExportWhat,
    },
    /// Tell what this machine lacks, and how to mend it.
    Doctor {
        /// Form of what is printed.
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Tell the version of this program and the newest one.
    UpdateCheck,
    /// Print the configuration with which kubectl reaches the cluster of a daemon on this machine.
    Kubeconfig(DataRootArgs),
    /// Print the settings that point aws, boto3 and Terraform at a cluster.
    AwsEnv(DataRootArgs),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The first process of a local node.
    #[command(hide = true)]
    NodeInit {
        /// What the node is.
        plan: PathBuf,
        /// The run inside.
        #[arg(long)]
        second: bool,
    },
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
    /// Where the Kubernetes API is served (https) while this node is a manager.
    #[arg(long, default_value = "0.0.0.0:6443", value_name = "IP:PORT")]
    pub kube_listen: String,
    /// Where the AWS APIs are served on managers: `IP:PORT`, or `:PORT` on the advertised address [default: :4566].
    #[arg(long, value_name = "ADDRESS")]
    pub aws_listen: Option<String>,
    /// Kubernetes version that is reported (`v1.36.0`); the API served stays the same.
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Feature gate of Kubernetes, `Name=true`; may be repeated.
    #[arg(long = "feature-gate", value_name = "NAME=BOOL", value_parser = gate)]
    pub feature_gates: Vec<(String, bool)>,
    /// Label of the node in Kubernetes' terms; may be repeated.
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
    /// Taint that the node has from the start; may be repeated.
    #[arg(long = "node-taint", value_name = "KEY=VALUE:EFFECT")]
    pub node_taints: Vec<String>,
    /// Processors that this node has of the machine's: what it offers, and what its containers may use in all.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory that this node has of the machine's, in all (`2g`, `512m`, `4096` MiB).
    #[arg(long, value_name = "SIZE", value_parser = crate::sizes::memory)]
    pub memory: Option<u64>,
    /// Where a registry of this node's images is served, in the clear: `IP:PORT`. Whoever reaches it may push.
    #[arg(long, value_name = "IP:PORT")]
    pub registry_listen: Option<std::net::SocketAddr>,
    /// Unix socket by which the registry is opened while the daemon runs.
    #[arg(long, hide = true, value_name = "PATH")]
    pub registry_socket: Option<PathBuf>,
    /// Unix socket of the dashboard. Whoever may open it administers the cluster.
    #[arg(long, value_name = "PATH")]
    pub dashboard_socket: Option<PathBuf>,
    /// Where a manager answers other nodes, whatever `docker swarm init` and `join` say (default 0.0.0.0:2377).
    #[arg(long, value_name = "IP:PORT")]
    pub node_listen: Option<std::net::SocketAddr>,
    /// Where the dashboard is served by https while this node is a manager; there people log in.
    #[arg(long, value_name = "IP:PORT")]
    pub dashboard_listen: Option<std::net::SocketAddr>,
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
    /// Network namespace of the machine around this node, where published ports are to answer too.
    #[arg(long, hide = true, value_name = "PATH")]
    pub outer_netns: Option<PathBuf>,
    /// A port of the machine around this node that leads to a port of the node: `[IP:]PORT=PORT[/udp]`.
    #[arg(long = "outer-forward", hide = true, value_name = "FROM=TO")]
    pub outer_forwards: Vec<String>,
    /// How much is logged: error, warn, info, debug, trace.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
}

/// A manager by its data.
#[derive(Debug, Args)]
pub(crate) struct DataRootArgs {
    /// Directory of the daemon's data.
    #[arg(long, default_value = "/var/lib/tripod", value_name = "DIR")]
    pub data_root: PathBuf,
}

fn gate(text: &str) -> Result<(String, bool), String> {
    text.split_once('=')
        .and_then(|(name, on)| Some((name.to_owned(), on.parse().ok()?)))
        .ok_or_else(|| "it must be Name=true or Name=false".to_owned())
}

/// A local cluster by name.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster.
    #[arg(long, default_value = "tripod")]
    pub name: String,
}

/// Options of `rebalance`.
#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// Which local cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Unix socket of a manager's engine instead (`unix://PATH`).
    #[arg(long, short = 'H', value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Tell what would move, and move nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Number of nodes, managers included [default: 1, or as `config` has it].
    #[arg(long)]
    pub nodes: Option<usize>,
    /// Number of managers among them [default: 1, or as `config` has it].
    #[arg(long)]
    pub managers: Option<usize>,
    /// Processors of each node: a number, `max` or `no-limit` (all of this machine) [default: all, or as `config` has it].
    #[arg(long, value_parser = crate::sizes::cpus)]
    pub cpus: Option<crate::sizes::Amount<u32>>,
    /// Memory of each node (`2g`, `2048` MiB), `max` or `no-limit` [default: all, or as `config` has it].
    #[arg(long, value_parser = crate::sizes::memory_amount)]
    pub memory: Option<crate::sizes::Amount<u64>>,
    /// A description of the cluster in kind's form (`kind.x-k8s.io/v1alpha4`).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "managers"])]
    pub config: Option<PathBuf>,
    /// The Kubernetes version that is reported (`v1.36.0`); the API served stays the same.
    #[arg(long)]
    pub kubernetes_version: Option<String>,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options of `delete`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DeleteArgs {
    /// What to delete, as kind says it.
    #[command(subcommand)]
    pub what: Option<DeleteWhat>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What `delete` can be asked for by a word.
#[derive(Debug, Subcommand)]
pub(crate) enum DeleteWhat {
    /// Delete a local cluster.
    Cluster {
        /// Name of the cluster.
        #[arg(short, long, default_value = "tripod")]
        name: String,
        /// The kubeconfig that is changed.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

/// Options of `ssh`.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Which node; the first when none is named.
    #[arg(short = 'n', long)]
    pub node: Option<String>,
    /// The command; a shell when there is none.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Options of `mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// What, and where to: `HOST:NODE`; with `--remove` the path on the node.
    #[arg(value_name = "HOST:NODE")]
    pub what: String,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Only on this node.
    #[arg(short = 'n', long)]
    pub node: Option<String>,
    /// It is not to be written to there.
    #[arg(long)]
    pub read_only: bool,
    /// Take the mount away.
    #[arg(long, conflicts_with = "read_only")]
    pub remove: bool,
}

/// Options of `service`.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Name of the service, or `list`.
    pub name: String,
    /// Which cluster.
    #[arg(long = "cluster", default_value = "tripod")]
    pub in_cluster: String,
    /// The namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Print addresses (the default).
    #[arg(long)]
    pub url: bool,
}

/// What `image` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageWhat {
    /// Load an archive of images on every node.
    Load {
        /// The archive.
        archive: PathBuf,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// List the images of the nodes.
    #[command(visible_alias = "list")]
    Ls {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Form of what is printed.
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Remove images from every node.
    #[command(visible_alias = "remove")]
    Rm {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Have every node pull images.
    Pull {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// What `node` does.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeWhat {
    /// List the nodes.
    #[command(visible_alias = "ls")]
    List {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Form of what is printed.
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Add a node.
    Add {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// A manager, not a worker.
        #[arg(long, visible_alias = "control-plane")]
        manager: bool,
    },
    /// Delete a node.
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name.
        node: String,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// What `profile` tells.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileWhat {
    /// List the clusters of this machine.
    List {
        /// Form of what is printed.
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// What `config` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigWhat {
    /// Set a value: nodes, managers, kubernetes-version.
    Set {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
    },
    /// Print a value.
    Get {
        /// The setting.
        key: String,
    },
    /// Take a value away.
    Unset {
        /// The setting.
        key: String,
    },
    /// Print all values.
    View,
}

/// What `addons` does.
#[derive(Debug, Subcommand)]
pub(crate) enum AddonsWhat {
    /// List the add-ons.
    List {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Form of what is printed.
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Enable an add-on.
    Enable {
        /// Its name.
        addon: String,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Disable an add-on.
    Disable {
        /// Its name.
        addon: String,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// What `create` makes.
#[derive(Debug, Subcommand)]
pub(crate) enum CreateWhat {
    /// Create a cluster of local nodes.
    Cluster(CreateArgs),
}

/// Options of `create cluster`, as kind has them.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the cluster.
    #[arg(short, long, env = "KIND_CLUSTER_NAME")]
    pub name: Option<String>,
    /// A configuration of kind's (`kind.x-k8s.io/v1alpha4`); `-` is standard input.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// A node image of kind's: its tag is the Kubernetes version that is reported.
    #[arg(long)]
    pub image: Option<String>,
    /// Accepted: the command returns when all nodes are ready.
    #[arg(long)]
    pub wait: Option<String>,
    /// Keep the nodes when creating fails.
    #[arg(long)]
    pub retain: bool,
    /// The kubeconfig that is changed.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// What to get.
    #[command(subcommand)]
    pub what: GetWhat,
}

/// What `get` shows.
#[derive(Debug, Subcommand)]
pub(crate) enum GetWhat {
    /// The local clusters.
    Clusters,
    /// The nodes of a cluster.
    Nodes {
        /// Name of the cluster.
        #[arg(short, long, env = "KIND_CLUSTER_NAME")]
        name: Option<String>,
        /// Of all clusters.
        #[arg(short = 'A', long)]
        all: bool,
    },
    /// A cluster's kubeconfig.
    Kubeconfig {
        /// Name of the cluster.
        #[arg(short, long, env = "KIND_CLUSTER_NAME")]
        name: Option<String>,
        /// Accepted: nodes are reached at the same address.
        #[arg(long)]
        internal: bool,
    },
}

/// What `load` loads.
#[derive(Debug, Subcommand)]
pub(crate) enum LoadWhat {
    /// An archive of images.
    ImageArchive {
        /// The archive.
        archive: PathBuf,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Only onto these nodes.
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<String>,
    },
}

/// What `export` exports.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportWhat {
    /// The logs of all nodes.
    Logs {
        /// Where to; a new directory when none is named.
        dir: Option<PathBuf>,
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
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
