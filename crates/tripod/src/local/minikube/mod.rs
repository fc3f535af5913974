//! The commands of `minikube`, under its name.

mod commands;
mod docker_env;
mod failure;
mod flags;
mod image;
mod profiles;
mod start;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tripod_model::ErrorKind;

use super::cluster::Cluster;
use super::record::{NodeRecord, Tool};
use super::{config, ssh};
use crate::cli::ConfigWhat;
use failure::Failure;

/// What a command comes to.
type Outcome<T> = Result<T, Failure>;

/// A local cluster, with minikube's command line.
#[derive(Debug, Parser)]
#[command(name = "minikube", disable_version_flag = true)]
pub(crate) struct Minikube {
    #[command(subcommand)]
    command: Option<Verb>,
    /// The cluster [default: the one of `minikube profile NAME`, or minikube].
    #[arg(short, long, global = true, env = "MINIKUBE_PROFILE")]
    profile: Option<String>,
    #[command(flatten)]
    logging: Logging,
}

/// Options about minikube's own logs, which are accepted: what happens is told by the output and `minikube logs`.
#[derive(Debug, Args)]
struct Logging {
    /// Accepted.
    #[arg(long, global = true, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    alsologtostderr: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    logtostderr: Option<String>,
    /// Accepted.
    #[arg(long = "log_dir", global = true, hide = true)]
    log_dir: Option<String>,
    /// Accepted.
    #[arg(long = "log_file", global = true, hide = true)]
    log_file: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true)]
    stderrthreshold: Option<String>,
    /// Accepted.
    #[arg(short = 'v', long = "v", global = true, hide = true)]
    verbosity: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true)]
    vmodule: Option<String>,
    /// Accepted.
    #[arg(short = 'b', long, global = true, hide = true)]
    bootstrapper: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true)]
    user: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    skip_audit: Option<String>,
    /// Accepted.
    #[arg(long, global = true, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    rootless: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts a local Kubernetes cluster.
    Start(Box<start::Start>),
    /// Gets the status of a local Kubernetes cluster.
    Status {
        /// Form of what is printed: text or json.
        #[arg(short, long, default_value = "text")]
        output: String,
        /// A template of fields: `{{.Host}}`.
        #[arg(short, long)]
        format: Option<String>,
        /// Only this node.
        #[arg(short, long)]
        node: Option<String>,
        /// Accepted: nodes.
        #[arg(short, long)]
        layout: Option<String>,
    },
    /// Stops a running local Kubernetes cluster.
    Stop {
        /// All clusters.
        #[arg(long)]
        all: bool,
        /// Leaves the current context as it is.
        #[arg(long)]
        keep_context_active: bool,
        /// Form of what is printed: text.
        #[arg(short, long, default_value = "text")]
        output: String,
    },
    /// Deletes a local Kubernetes cluster.
    Delete {
        /// All clusters.
        #[arg(long)]
        all: bool,
        /// All clusters, and the settings.
        #[arg(long)]
        purge: bool,
        /// Form of what is printed: text.
        #[arg(short, long, default_value = "text")]
        output: String,
    },
    /// Pauses the containers of the cluster.
    Pause(Pause),
    /// Lets paused containers go on.
    Unpause(Pause),
    /// Opens the dashboard of the cluster.
    Dashboard {
        /// Prints its address instead of opening a browser.
        #[arg(long)]
        url: bool,
        /// Port of this machine; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Prints or opens the address of a service.
    Service(Service),
    /// Tells that services answer without a tunnel, and stays.
    Tunnel {
        /// Nothing is left to clean up.
        #[arg(short, long)]
        cleanup: bool,
        /// Accepted.
        #[arg(long)]
        bind_address: Option<String>,
    },
    /// Logs into a node, or runs a command there.
    Ssh {
        /// The node.
        #[arg(short, long)]
        node: Option<String>,
        /// Accepted.
        #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
        native_ssh: Option<String>,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Prints the address of a node.
    Ip {
        /// The node.
        #[arg(short, long)]
        node: Option<String>,
    },
    /// Copies files to, from and between nodes: `NODE:/PATH`.
    Cp {
        /// From where.
        from: String,
        /// Where to; a path is one of the first node.
        to: String,
    },
    /// Mounts a directory of this machine on the first node, until it is interrupted.
    Mount(Box<Mounting>),
    /// Manages images of the cluster.
    Image {
        #[command(subcommand)]
        what: image::Image,
    },
    /// Adds, removes, lists nodes.
    Node {
        #[command(subcommand)]
        what: Node,
    },
    /// Lists clusters, tells the current one, or chooses it.
    Profile {
        #[command(subcommand)]
        what: Option<profiles::Profile>,
    },
    /// Lists and switches add-ons.
    Addons {
        #[command(subcommand)]
        what: Addons,
    },
    /// What `tripod start` takes when it is not told.
    Config {
        #[command(subcommand)]
        what: ConfigWhat,
    },
    /// Prints the nodes' logs.
    Logs(Logs),
    /// Prints the environment for docker.
    DockerEnv(DockerEnv),
    /// Cannot be had: nodes have no podman.
    #[command(hide = true)]
    PodmanEnv {
        /// What is ignored.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Writes the kubectl context again.
    UpdateContext,
    /// Tells the version here and the newest one.
    UpdateCheck,
    /// Runs kubectl with the cluster's configuration.
    Kubectl {
        /// Accepted: kubectl runs here.
        #[arg(long)]
        ssh: bool,
        /// Arguments of kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the version.
    Version {
        /// Only the version.
        #[arg(long)]
        short: bool,
        /// Form of what is printed: json or yaml.
        #[arg(short, long)]
        output: Option<String>,
        /// Those of the parts too.
        #[arg(long)]
        components: bool,
    },
}

#[derive(Debug, Args)]
struct Pause {
    /// Of these namespaces.
    #[arg(short, long, value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Form of what is printed: text.
    #[arg(short, long, default_value = "text")]
    output: String,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Service {
    #[command(subcommand)]
    list: Option<ServiceVerb>,
    /// Names of services.
    names: Vec<String>,
    /// Prints the address instead of opening a browser.
    #[arg(long)]
    url: bool,
    /// `https` instead of `http`.
    #[arg(long)]
    https: bool,
    /// All services of the namespace.
    #[arg(long)]
    all: bool,
    /// A template: `http://{{.IP}}:{{.Port}}`.
    #[arg(long)]
    format: Option<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Accepted.
    #[arg(long)]
    wait: Option<i64>,
    /// Accepted.
    #[arg(long)]
    interval: Option<i64>,
}

#[derive(Debug, Subcommand)]
enum ServiceVerb {
    /// Lists all services.
    List {
        /// Of this namespace.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Form of what is printed: table or json.
        #[arg(short, long, default_value = "table")]
        output: String,
    },
}

#[derive(Debug, Args)]
struct Mounting {
    /// What, and where to: `HOST:NODE`.
    what: Option<String>,
    /// Ends what mounts: it is another command's, which ends with Ctrl-C.
    #[arg(long)]
    kill: bool,
    /// Options of 9p, which is not needed.
    #[arg(long = "9p-version", hide = true)]
    version: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    uid: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    gid: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    ip: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    mode: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    msize: Option<String>,
    /// `ro` is honoured.
    #[arg(long, value_delimiter = ',')]
    options: Vec<String>,
    /// As above.
    #[arg(long = "type", hide = true)]
    kind: Option<String>,
    /// As above.
    #[arg(long, hide = true)]
    port: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Node {
    /// Lists the nodes.
    List,
    /// Adds a node.
    Add {
        /// A manager.
        #[arg(long)]
        control_plane: bool,
        /// A worker.
        #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
        worker: Option<String>,
        /// Accepted.
        #[arg(long)]
        delete_on_failure: bool,
    },
    /// Deletes a node.
    Delete {
        /// Its name.
        name: String,
    },
    /// Starts a node.
    Start {
        /// Its name.
        name: String,
        /// Accepted.
        #[arg(long)]
        delete_on_failure: bool,
    },
    /// Stops a node.
    Stop {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Addons {
    /// Lists the add-ons.
    List {
        /// Form of what is printed: list or json.
        #[arg(short, long, default_value = "list")]
        output: String,
        /// Accepted.
        #[arg(short, long)]
        docs: bool,
    },
    /// Enables add-ons.
    Enable {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        /// Accepted.
        #[arg(long)]
        images: Option<String>,
        /// Accepted.
        #[arg(long)]
        registries: Option<String>,
        /// Accepted.
        #[arg(long)]
        refresh: bool,
        /// Accepted.
        #[arg(long)]
        force: bool,
    },
    /// Disables add-ons.
    Disable {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Logs {
    /// Into this file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// As they are written.
    #[arg(short, long)]
    follow: bool,
    /// So many lines of each node at most.
    #[arg(short = 'n', long, default_value_t = 60)]
    length: usize,
    /// Of this node.
    #[arg(long)]
    node: Option<String>,
    /// Only warnings and errors.
    #[arg(long)]
    problems: bool,
    /// Accepted.
    #[arg(long)]
    audit: bool,
    /// Accepted.
    #[arg(long)]
    last_start_only: bool,
}

#[derive(Debug, Args)]
struct DockerEnv {
    /// Print what takes the settings back.
    #[arg(short, long)]
    unset: bool,
    /// For this shell: bash, fish, powershell, cmd, tcsh, none.
    #[arg(long, default_value = "")]
    shell: String,
    /// Form of what is printed: text, json or yaml.
    #[arg(short, long, default_value = "text")]
    output: String,
    /// Accepted.
    #[arg(long)]
    no_proxy: bool,
    /// Accepted: the engine is reached by its socket.
    #[arg(long)]
    ssh_host: bool,
    /// Accepted.
    #[arg(long)]
    ssh_add: bool,
}

/// Runs as `minikube`.
pub(crate) fn main() -> ExitCode {
    let args = match Minikube::try_parse() {
        Ok(args) => args,
        Err(e) => return refused(&e),
    };
    let Some(verb) = args.command else {
        let _ = Minikube::command().print_help();
        return ExitCode::SUCCESS;
    };
    let profile = args.profile.unwrap_or_else(profiles::chosen);
    run(verb, &profile).unwrap_or_else(|failure| failure.tell())
}

/// A command line that cannot be read: minikube's exit status for it, and 0 for help.
fn refused(e: &clap::Error) -> ExitCode {
    let _ = e.print();
    match e.use_stderr() {
        true => ExitCode::from(14),
        false => ExitCode::SUCCESS,
    }
}

/// A cluster that exists.
fn open(profile: &str) -> Outcome<Cluster> {
    Cluster::open(Tool::Minikube, profile).map_err(|e| match e.kind {
        ErrorKind::NotFound => Failure::no_profile(profile),
        _ => e.into(),
    })
}

/// A cluster that runs.
fn running(profile: &str) -> Outcome<Cluster> {
    let cluster = open(profile)?;
    let first = cluster.paths.node(&cluster.record.first().name);
    match super::node::first_process(&first).is_some() {
        true => Ok(cluster),
        false => Err(Failure::stopped(profile)),
    }
}

/// A node by its name, or by the end of it (`m02`); the first one when none is named.
fn node<'a>(cluster: &'a Cluster, name: Option<&str>) -> Outcome<&'a NodeRecord> {
    let Some(name) = name else {
        return Ok(cluster.record.first());
    };
    let long = format!("{}-{name}", cluster.record.name);
    let found = cluster
        .record
        .nodes
        .iter()
        .find(|n| n.name == name || n.name == long);
    found.ok_or_else(|| {
        Failure::new(
            "GUEST_NODE_RETRIEVE",
            85,
            format_args!("Could not find node {name}"),
        )
    })
}

/// An image's name with registry and path, as minikube prints it.
fn full(name: &str) -> String {
    tripod_model::reference::Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.to_string())
}

fn run(verb: Verb, profile: &str) -> Outcome<ExitCode> {
    match verb {
        Verb::Start(args) => start::start(&args, profile)?,
        Verb::Status {
            output, format, node, ..
        } => {
            return status::status(profile, &output, format.as_deref(), node.as_deref());
        }
        Verb::Stop { all, .. } => commands::stop(profile, all)?,
        Verb::Delete { all, purge, .. } => commands::delete(profile, all, purge)?,
        Verb::Pause(_) => commands::freeze(profile, true)?,
        Verb::Unpause(_) => commands::freeze(profile, false)?,
        Verb::Dashboard { url, port } => return Ok(super::dashboard::run(&running(profile)?, url, port)?),
        Verb::Service(args) => commands::service(&args, profile)?,
        Verb::Tunnel { cleanup, .. } => commands::tunnel(profile, cleanup)?,
        Verb::Ssh {
            node: name, command, ..
        } => {
            let cluster = running(profile)?;
            let name = node(&cluster, name.as_deref())?.name.clone();
            return Ok(ssh::run(&cluster, Some(&name), &command, "docker")?);
        }
        Verb::Ip { node: name } => println!("{}", node(&running(profile)?, name.as_deref())?.address),
        Verb::Cp { from, to } => commands::copy(profile, &from, &to)?,
        Verb::Mount(args) => commands::mount(&args, profile)?,
        Verb::Image { what } => return image::run(what, &running(profile)?),
        Verb::Node { what } => commands::nodes(what, profile)?,
        Verb::Profile { what } => return profiles::run(what, profile),
        Verb::Addons { what } => commands::addons(what, profile)?,
        Verb::Config { what } => match what {
            ConfigWhat::Set { key, value } => config::set(&key, &value)?,
            ConfigWhat::Get { key } => config::get(&key)?,
            ConfigWhat::Unset { key } => config::unset(&key)?,
            ConfigWhat::View => config::view()?,
        },
        Verb::Logs(args) => commands::logs(&args, profile)?,
        Verb::DockerEnv(args) => docker_env::docker_env(&args, profile)?,
        Verb::PodmanEnv { .. } => {
            let text = "podman-env cannot be had: nodes have no podman; see minikube docker-env";
            return Err(Failure::new("MK_USAGE", 14, text));
        }
        Verb::UpdateContext => {
            open(profile)?.write_contexts(None)?;
            println!("🎉  \"{profile}\" context has been updated");
            println!("💗  Current context is \"{profile}\"");
        }
        Verb::UpdateCheck => super::commands::update_check()?,
        Verb::Kubectl { args, .. } => return commands::kubectl(&open(profile)?, &args),
        Verb::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Minikube::command(),
                "minikube",
                &mut std::io::stdout(),
            );
        }
        Verb::Version {
            short,
            output,
            components,
        } => commands::version(short, output.as_deref(), components)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Minikube::command().debug_assert();
        let args = Minikube::parse_from(["minikube", "ssh", "-n", "b", "--", "docker", "ps", "-a"]);
        let Some(Verb::Ssh { node, command, .. }) = args.command else {
            panic!("not ssh")
        };
        assert_eq!(node.as_deref(), Some("b"));
        assert_eq!(command, ["docker", "ps", "-a"]);
        let args = Minikube::parse_from(["minikube", "kubectl", "--", "get", "pods", "-A"]);
        assert!(matches!(args.command, Some(Verb::Kubectl { args, .. }) if args == ["get", "pods", "-A"]));
        let args = Minikube::parse_from([
            "minikube",
            "-p",
            "x",
            "delete",
            "--all",
            "--alsologtostderr",
            "-v=7",
        ]);
        assert_eq!(args.profile.as_deref(), Some("x"));
    }
}
