//! The commands of `minikube`, under its name.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde_json::{Value, json};
use tripod_model::{Error, ErrorKind, Result};

use super::client::block_on;
use super::cluster::{Cluster, NodeWish, Step, Wish};
use super::commands::{freeze_all, load_everywhere, serves, update_check, write_private};
use super::kind::KUBERNETES;
use super::paths::{self, ClusterPaths};
use super::record::{NodeRecord, Role, Tool};
use super::{client, export, kubeconfig, node, services, ssh};

/// A local cluster, with minikube's command line.
#[derive(Debug, Parser)]
#[command(name = "minikube", disable_version_flag = true)]
pub(crate) struct Minikube {
    #[command(subcommand)]
    command: Option<Verb>,
    /// The cluster.
    #[arg(
        short,
        long,
        global = true,
        default_value = "minikube",
        env = "MINIKUBE_PROFILE"
    )]
    profile: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts a local Kubernetes cluster.
    Start(Box<Start>),
    /// Gets the status of a local Kubernetes cluster.
    Status {
        /// Form of what is printed: text or json.
        #[arg(short, long, default_value = "text")]
        output: String,
    },
    /// Stops a running local Kubernetes cluster.
    Stop {
        /// All clusters.
        #[arg(long)]
        all: bool,
    },
    /// Deletes a local Kubernetes cluster.
    Delete {
        /// All clusters.
        #[arg(long)]
        all: bool,
        /// Also the directory of clusters.
        #[arg(long)]
        purge: bool,
    },
    /// Pauses the containers of the cluster.
    Pause,
    /// Lets paused containers go on.
    Unpause,
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
    /// Logs into a node, or runs a command there.
    Ssh {
        /// The node.
        #[arg(short, long)]
        node: Option<String>,
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
    /// Manages images of the cluster.
    Image {
        #[command(subcommand)]
        what: Image,
    },
    /// Lists nodes.
    Node {
        #[command(subcommand)]
        what: Node,
    },
    /// Lists clusters, or tells the current one.
    Profile {
        #[command(subcommand)]
        what: Option<Profile>,
    },
    /// Prints the nodes' logs.
    Logs {
        /// Into this file.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Prints the environment for docker.
    DockerEnv {
        /// Print what takes the settings back.
        #[arg(short, long)]
        unset: bool,
    },
    /// Writes the kubectl context again.
    UpdateContext,
    /// Tells the version here and the newest one.
    UpdateCheck,
    /// Runs kubectl with the cluster's configuration.
    Kubectl {
        /// Arguments of kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Prints the version.
    Version {
        /// Only the version.
        #[arg(long)]
        short: bool,
    },
}

#[derive(Debug, Args)]
struct Start {
    /// Number of nodes.
    #[arg(short, long, default_value_t = 1)]
    nodes: usize,
    /// Three managers instead of one.
    #[arg(long)]
    ha: bool,
    /// The Kubernetes version that is reported.
    #[arg(long)]
    kubernetes_version: Option<String>,
    /// Feature gates: `Name=true,...`.
    #[arg(long, default_value = "")]
    feature_gates: String,
    /// Accepted: nodes have what the machine has.
    #[arg(long)]
    cpus: Option<String>,
    /// Accepted: nodes have what the machine has.
    #[arg(long)]
    memory: Option<String>,
    /// Accepted: nodes are namespaces of this machine.
    #[arg(long, alias = "vm-driver")]
    driver: Option<String>,
    /// Accepted: the runtime is the cluster's own.
    #[arg(long)]
    container_runtime: Option<String>,
    /// Accepted: the network is the cluster's own.
    #[arg(long)]
    cni: Option<String>,
    /// Accepted: what is built in is enabled.
    #[arg(long)]
    addons: Vec<String>,
    /// Accepted: the command returns when all is ready.
    #[arg(long, default_missing_value = "all", num_args = 0..=1, require_equals = true)]
    wait: Option<String>,
    /// Leaves the current context as it is.
    #[arg(long)]
    keep_context: bool,
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
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

#[derive(Debug, Subcommand)]
enum ServiceVerb {
    /// Lists all services.
    List {
        /// Of this namespace.
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Image {
    /// Loads archives.
    Load {
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Lists images.
    #[command(alias = "list")]
    Ls,
    /// Removes images.
    #[command(alias = "remove")]
    Rm {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Pulls images.
    Pull {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Node {
    /// Lists the nodes.
    List,
}

#[derive(Debug, Subcommand)]
enum Profile {
    /// Lists the clusters.
    List {
        /// Form of what is printed: table or json.
        #[arg(short, long, default_value = "table")]
        output: String,
    },
}

/// Runs as `minikube`.
pub(crate) fn main() -> ExitCode {
    let args = Minikube::parse();
    let Some(verb) = args.command else {
        let _ = Minikube::command().print_help();
        return ExitCode::SUCCESS;
    };
    match run(verb, &args.profile) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("❌  Exiting: {e}");
            ExitCode::FAILURE
        }
    }
}

fn open(profile: &str) -> Result<Cluster> {
    Cluster::open(Tool::Minikube, profile).map_err(|e| match e.kind {
        ErrorKind::NotFound => Error::not_found(format_args!(
            "Profile \"{profile}\" not found. Run \"minikube start\" to make the cluster."
        )),
        _ => e,
    })
}

fn run(verb: Verb, profile: &str) -> Result<ExitCode> {
    match verb {
        Verb::Start(args) => start(&args, profile)?,
        Verb::Status { output } => return Ok(status(profile, &output)),
        Verb::Stop { all } => for_each(all, profile, stop)?,
        Verb::Delete { all, purge } => for_each(all || purge, profile, delete)?,
        Verb::Pause => println!("⏸️  Paused {} containers", freeze_all(&mut open(profile)?, true)?),
        Verb::Unpause => println!(
            "⏸️  Unpaused {} containers",
            freeze_all(&mut open(profile)?, false)?
        ),
        Verb::Dashboard { url, port } => return super::dashboard::run(&open(profile)?, url, port),
        Verb::Service(args) => service(&args, profile)?,
        Verb::Ssh { node, command } => return ssh::run(&open(profile)?, node.as_deref(), &command, "docker"),
        Verb::Ip { node } => println!("{}", open(profile)?.record.node(node.as_deref())?.address),
        Verb::Image { what } => return image(what, &open(profile)?),
        Verb::Node { what: Node::List } => {
            let cluster = open(profile)?;
            for n in &cluster.record.nodes {
                println!("{}\t{}", n.name, n.address);
            }
        }
        Verb::Profile { what } => profiles(what, profile)?,
        Verb::Logs { file } => logs(&open(profile)?, file)?,
        Verb::DockerEnv { unset } => docker_env(profile, unset)?,
        Verb::UpdateContext => {
            open(profile)?.write_contexts(None)?;
            println!("🎉  \"{profile}\" context has been updated");
        }
        Verb::UpdateCheck => update_check()?,
        Verb::Kubectl { args } => return kubectl(&open(profile)?, &args),
        Verb::Version { short } => match short {
            true => println!("v{}", env!("CARGO_PKG_VERSION")),
            false => println!("minikube version: v{} (tripod)", env!("CARGO_PKG_VERSION")),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn for_each(all: bool, profile: &str, act: fn(&str) -> Result<()>) -> Result<()> {
    match all {
        true => paths::list(Tool::Minikube)?.iter().try_for_each(|n| act(n)),
        false => act(profile),
    }
}

fn start(args: &Start, profile: &str) -> Result<()> {
    println!("😄  minikube v{} (tripod)", env!("CARGO_PKG_VERSION"));
    let exists = ClusterPaths::of(Tool::Minikube, profile)?.exists();
    let cluster = match exists {
        true => open(profile)?,
        false => Cluster::create(Tool::Minikube, profile, wish(args)?)?,
    };
    println!("👍  Starting \"{profile}\" primary control-plane node in \"{profile}\" cluster");
    let version = cluster.record.kubernetes_version.as_deref().unwrap_or(KUBERNETES);
    println!(
        "🐳  Preparing Kubernetes {version} on tripod {} ...",
        env!("CARGO_PKG_VERSION")
    );
    let before = current_context();
    cluster.up(&mut |step| {
        if step == Step::Joining {
            println!("👍  Starting further nodes of the \"{profile}\" cluster");
        }
    })?;
    cluster.write_contexts(None)?;
    println!("🔎  Verifying Kubernetes components...");
    println!("🌟  Enabled addons: storage-provisioner, default-storageclass");
    match (args.keep_context, before) {
        (true, Some(context)) => {
            kubeconfig::use_context(None, &context)?;
            println!("🏄  Done! \"{profile}\" is ready; the current context is still \"{context}\"");
        }
        _ => println!(
            "🏄  Done! kubectl is now configured to use \"{profile}\" cluster and \"default\" namespace by default"
        ),
    }
    Ok(())
}

fn current_context() -> Option<String> {
    kubeconfig::current_context(None).ok().flatten()
}

fn wish(args: &Start) -> Result<Wish> {
    let managers = if args.ha { 3 } else { 1 };
    let count = args.nodes.max(managers);
    if args.nodes == 0 {
        return Err(Error::invalid("--nodes must be 1 or more").at("nodes"));
    }
    let version = match args.kubernetes_version.as_deref() {
        None | Some("" | "stable" | "latest") => None,
        Some(v) => Some(format!("v{}", v.trim_start_matches('v'))),
    };
    let mut gates = std::collections::BTreeMap::new();
    for pair in args.feature_gates.split(',').filter(|p| !p.is_empty()) {
        let gate = pair
            .split_once('=')
            .and_then(|(k, v)| Some((k.to_owned(), v.parse::<bool>().ok()?)));
        let Some((gate, on)) = gate else {
            return Err(Error::invalid(format_args!(
                "--feature-gates: {pair:?} is not Name=true|false"
            )));
        };
        gates.insert(gate, on);
    }
    let role = |n| {
        if n < managers {
            Role::ControlPlane
        } else {
            Role::Worker
        }
    };
    Ok(Wish {
        nodes: (0..count).map(|n| NodeWish::plain(role(n))).collect(),
        kubernetes_version: version,
        feature_gates: gates,
        ..Wish::default()
    })
}

fn node_status(cluster: &Cluster, n: &NodeRecord) -> Value {
    let host = node::first_process(&cluster.paths.node(&n.name)).is_some();
    let serving = serves(cluster, n);
    let word = |up: bool| if up { "Running" } else { "Stopped" };
    let context = cluster.record.context();
    let configured = match (serving, kubeconfig::leads_to(&context, &cluster.record.server())) {
        (false, _) => "Stopped",
        (true, true) => "Configured",
        (true, false) => "Misconfigured",
    };
    let worker = n.role == Role::Worker;
    let irrelevant = |v: &str| {
        if worker {
            "Irrelevant".to_owned()
        } else {
            v.to_owned()
        }
    };
    let api = if cluster.record.paused && serving {
        "Paused"
    } else {
        word(serving)
    };
    json!({
        "Name": n.name, "Host": word(host), "Kubelet": word(serving), "APIServer": irrelevant(api),
        "Kubeconfig": irrelevant(configured), "Worker": worker,
    })
}

fn status(profile: &str, output: &str) -> ExitCode {
    let cluster = match open(profile) {
        Ok(cluster) => cluster,
        Err(e) => {
            println!("🤷  {e}");
            return ExitCode::from(85);
        }
    };
    let nodes: Vec<Value> = cluster
        .record
        .nodes
        .iter()
        .map(|n| node_status(&cluster, n))
        .collect();
    let well = nodes
        .iter()
        .all(|n| n["Host"] == "Running" && n["Kubelet"] == "Running");
    if output == "json" {
        let value = match nodes.as_slice() {
            [one] => one.clone(),
            many => json!(many),
        };
        println!("{value}");
    } else {
        for n in &nodes {
            let word = |key: &str| n[key].as_str().unwrap_or_default().to_owned();
            let worker = n["Worker"] == true;
            let kind = if worker { "Worker" } else { "Control Plane" };
            println!(
                "{}\ntype: {kind}\nhost: {}\nkubelet: {}",
                word("Name"),
                word("Host"),
                word("Kubelet")
            );
            if !worker {
                println!(
                    "apiserver: {}\nkubeconfig: {}",
                    word("APIServer"),
                    word("Kubeconfig")
                );
            }
            println!();
        }
    }
    ExitCode::from(if well { 0 } else { 7 })
}

fn stop(profile: &str) -> Result<()> {
    let cluster = open(profile)?;
    for n in &cluster.record.nodes {
        println!("✋  Stopping node \"{}\"  ...", n.name);
    }
    cluster.stop()?;
    println!("🛑  {} nodes stopped.", cluster.record.nodes.len());
    Ok(())
}

fn delete(profile: &str) -> Result<()> {
    println!("🔥  Deleting \"{profile}\" in tripod ...");
    match open(profile) {
        Ok(cluster) => cluster.delete(None)?,
        Err(e) if e.kind == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    println!("💀  Removed all traces of the \"{profile}\" cluster.");
    Ok(())
}

fn service(args: &Service, profile: &str) -> Result<()> {
    let cluster = open(profile)?;
    if let Some(ServiceVerb::List { namespace }) = &args.list {
        print!("{}", services::table(&cluster, namespace.as_deref())?);
        return Ok(());
    }
    if args.names.is_empty() {
        return Err(Error::invalid("You must specify a service name"));
    }
    for name in &args.names {
        for url in services::urls(&cluster, &args.namespace, name)? {
            println!("{url}");
            if !args.url {
                super::dashboard::open_browser(&url)?;
            }
        }
    }
    Ok(())
}

fn image(what: Image, cluster: &Cluster) -> Result<ExitCode> {
    match what {
        Image::Load { archives } => {
            for archive in &archives {
                load_everywhere(cluster, archive, &[])?;
            }
        }
        Image::Ls => {
            let socket = cluster.paths.node(&cluster.record.first().name).socket;
            let images = client::get(&socket, "/images/json")?;
            let mut names: Vec<&str> = images
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|i| i["RepoTags"].as_array().into_iter().flatten())
                .filter_map(Value::as_str)
                .collect();
            names.sort_unstable();
            names.iter().for_each(|n| println!("{n}"));
        }
        Image::Rm { images } => {
            for (n, i) in cluster
                .record
                .nodes
                .iter()
                .flat_map(|n| images.iter().map(move |i| (n, i)))
            {
                block_on(client::remove_image(&cluster.paths.node(&n.name).socket, i))?;
            }
        }
        Image::Pull { images } => {
            let mut words = vec!["docker".to_owned(), "pull".to_owned()];
            for image in images {
                words.push(image);
                let code = ssh::run(cluster, None, &words, "docker")?;
                words.pop();
                if code != ExitCode::SUCCESS {
                    return Ok(code);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn profiles(what: Option<Profile>, profile: &str) -> Result<()> {
    let Some(Profile::List { output }) = what else {
        println!("{profile}");
        return Ok(());
    };
    let mut valid = Vec::new();
    for name in paths::list(Tool::Minikube)? {
        let cluster = open(&name)?;
        let state = if cluster.is_running() { "OK" } else { "Stopped" };
        valid.push(
            json!({"Name": name, "Status": state, "Nodes": cluster.record.nodes.len(),
                          "IP": cluster.record.first().address}),
        );
    }
    if output == "json" {
        println!("{}", json!({"valid": valid, "invalid": []}));
        return Ok(());
    }
    println!("PROFILE\tNODES\tIP\tSTATUS");
    for v in valid {
        let text = |key: &str| v[key].as_str().unwrap_or_default().to_owned();
        println!(
            "{}\t{}\t{}\t{}",
            text("Name"),
            v["Nodes"],
            text("IP"),
            text("Status")
        );
    }
    Ok(())
}

fn logs(cluster: &Cluster, file: Option<PathBuf>) -> Result<()> {
    if let Some(file) = file {
        let dir = file.with_extension("d");
        export::logs(cluster, Some(&dir))?;
        let mut all = String::new();
        for n in &cluster.record.nodes {
            all.push_str(&std::fs::read_to_string(dir.join(&n.name).join("journal.log"))?);
        }
        return Ok(std::fs::write(file, all)?);
    }
    for n in &cluster.record.nodes {
        println!("==> {} <==", n.name);
        print!(
            "{}",
            std::fs::read_to_string(cluster.paths.node(&n.name).log).unwrap_or_default()
        );
    }
    Ok(())
}

fn docker_env(profile: &str, unset: bool) -> Result<()> {
    let cluster = open(profile)?;
    if unset {
        println!("unset DOCKER_HOST;\nunset MINIKUBE_ACTIVE_DOCKERD;");
        return Ok(());
    }
    let socket = cluster.paths.node(&cluster.record.first().name).socket;
    println!("export DOCKER_HOST=\"unix://{}\"", socket.display());
    println!("export MINIKUBE_ACTIVE_DOCKERD=\"{profile}\"");
    println!(
        "\n# To point your shell to minikube's docker-daemon, run:\n# eval $(minikube -p {profile} docker-env)"
    );
    Ok(())
}

fn kubectl(cluster: &Cluster, args: &[String]) -> Result<ExitCode> {
    let config = cluster.paths.dir.join("kubeconfig");
    write_private(&config, &cluster.kubeconfig()?)?;
    let status = std::process::Command::new("kubectl")
        .args(args)
        .env("KUBECONFIG", &config)
        .status()
        .map_err(|e| Error::unavailable(format_args!("kubectl cannot be run: {e}")))?;
    Ok(ExitCode::from(
        status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Minikube::command().debug_assert();
        let args = Minikube::parse_from(["minikube", "ssh", "-n", "b", "--", "docker", "ps", "-a"]);
        let Some(Verb::Ssh { node, command }) = args.command else {
            panic!("not ssh")
        };
        assert_eq!(node.as_deref(), Some("b"));
        assert_eq!(command, ["docker", "ps", "-a"]);
    }

    #[test]
    fn gates_and_versions() {
        let start = |words: &[&str]| {
            let all = ["minikube", "start"].iter().chain(words);
            match Minikube::parse_from(all).command {
                Some(Verb::Start(s)) => wish(&s),
                _ => panic!("not start"),
            }
        };
        let w = start(&[
            "--kubernetes-version=1.30.1",
            "--feature-gates=A=true,B=false",
            "--ha",
        ])
        .unwrap();
        assert_eq!(w.kubernetes_version.as_deref(), Some("v1.30.1"));
        assert!(w.feature_gates["A"] && !w.feature_gates["B"]);
        assert_eq!(w.nodes.iter().filter(|n| n.role == Role::ControlPlane).count(), 3);
        assert!(start(&["--feature-gates=A"]).is_err());
        assert!(start(&["--nodes=0"]).is_err());
    }
}
