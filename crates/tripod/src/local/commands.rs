//! The commands of local clusters by their own names.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use tripod_model::{Error, Result};

use super::client::block_on;
use super::cluster::{Cluster, NodeWish, Step, Wish};
use super::paths::{self, ClusterPaths};
use super::record::{NodeRecord, Role, Tool};
use super::{client, config, export, images, kind, kind_config, kubeconfig, node, nodes, services};
use crate::cli::{
    ClusterArgs, ConfigWhat, CreateArgs, EnvArgs, GetArgs, GetWhat, ImageWhat, NodeWhat, Output, ServiceArgs,
    SshArgs, StartArgs, StatusArgs,
};
use crate::sizes::{self, Amount};

/// Starts a cluster, or says that it runs.
pub(crate) fn start(args: &StartArgs) -> Result<()> {
    let begun = Instant::now();
    let text = args.output == Output::Text;
    let name = &args.cluster.name;
    let cluster = match ClusterPaths::of(Tool::Tripod, name)?.exists() {
        true => {
            let cluster = Cluster::open(Tool::Tripod, name)?;
            let (cpus, memory) = (args.cpus.map(Amount::limit), args.memory.map(Amount::limit));
            if cpus.is_some_and(|c| c != cluster.record.cpus)
                || memory.is_some_and(|m| m != cluster.record.memory)
            {
                return Err(Error::conflict(
                    "the processors and memory of a cluster that exists cannot be changed: delete it first",
                ));
            }
            cluster
        }
        false => Cluster::create(Tool::Tripod, name, wish(args)?)?,
    };
    let already = cluster.is_running();
    if text && !already {
        println!("Starting cluster \"{name}\" ...");
    }
    cluster.up(&mut |_| {})?;
    cluster.write_contexts(None)?;
    if !text {
        let nodes: Vec<Value> = cluster
            .record
            .nodes
            .iter()
            .map(|n| json!({"name": n.name, "role": n.role, "address": n.address}))
            .collect();
        let answer = json!({
            "name": name, "nodes": nodes, "alreadyRunning": already, "context": cluster.record.context(),
            "dockerHost": docker_host(&cluster), "server": cluster.record.server(),
            "milliseconds": begun.elapsed().as_millis() as u64,
        });
        println!("{answer}");
        return Ok(());
    }
    match already {
        true => println!("Cluster \"{name}\" is running."),
        false => println!(
            "Cluster \"{name}\" is ready after {} ms.",
            begun.elapsed().as_millis()
        ),
    }
    let context = cluster.record.context();
    println!("\n  kubectl get nodes              # the current context is \"{context}\" now");
    println!("  docker --context {context} node ls");
    println!("  aws --profile {context} ecs list-clusters");
    println!(
        "  eval $(tripod env{})   # the same by environment",
        name_option(name)
    );
    Ok(())
}

fn wish(args: &StartArgs) -> Result<Wish> {
    if let Some(path) = &args.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(format_args!("{}: {e}", path.display())).at("config"))?;
        let parsed = kind_config::parse(&text)?;
        for warning in &parsed.warnings {
            eprintln!("WARNING: {warning}");
        }
        let mut wish = parsed.wish;
        wish.kubernetes_version = args.kubernetes_version.clone().or(wish.kubernetes_version);
        wish.cpus = args.cpus.and_then(Amount::limit);
        wish.memory = args.memory.and_then(Amount::limit);
        return Ok(wish);
    }
    let kept = config::read()?;
    let number = |given: Option<usize>, key: &str| {
        let set = kept.get(key).and_then(|v| v.parse().ok());
        given.or(set).unwrap_or(1)
    };
    let (count, managers) = (number(args.nodes, "nodes"), number(args.managers, "managers"));
    if count == 0 || managers == 0 || managers > count {
        return Err(Error::invalid("there must be a manager, and no more managers than nodes").at("nodes"));
    }
    let roles = (0..count).map(|n| match n < managers {
        true => Role::ControlPlane,
        false => Role::Worker,
    });
    let version = args.kubernetes_version.clone();
    Ok(Wish {
        nodes: roles.map(NodeWish::plain).collect(),
        kubernetes_version: version.or_else(|| kept.get("kubernetes-version").cloned()),
        cpus: args
            .cpus
            .or_else(|| kept.get("cpus").and_then(|v| sizes::cpus(v).ok()))
            .and_then(Amount::limit),
        memory: args
            .memory
            .or_else(|| kept.get("memory").and_then(|v| sizes::memory_amount(v).ok()))
            .and_then(Amount::limit),
        ..Wish::default()
    })
}

fn name_option(name: &str) -> String {
    match name == Tool::Tripod.default_cluster() {
        true => String::new(),
        false => format!(" --name {name}"),
    }
}

fn docker_host(cluster: &Cluster) -> String {
    let socket = cluster.paths.node(&cluster.record.first().name).socket;
    format!("unix://{}", socket.display())
}

pub(super) fn open(args: &ClusterArgs) -> Result<Cluster> {
    Cluster::open(Tool::Tripod, &args.name)
}

/// The cluster of that name or, when a node is named that it does not have, the one that has it.
fn with_node(args: &ClusterArgs, node: Option<&str>) -> Result<Cluster> {
    let named = open(args);
    let Some(node) = node else { return named };
    let has = |c: &Cluster| c.record.nodes.iter().any(|n| n.name == node);
    if named.as_ref().is_ok_and(has) {
        return named;
    }
    let others = paths::list(Tool::Tripod)?;
    let mut found = others.iter().filter_map(|n| Cluster::open(Tool::Tripod, n).ok());
    found.find(has).map_or(named, Ok)
}

/// Stops a cluster's containers and its daemons.
pub(crate) fn stop(args: &ClusterArgs) -> Result<()> {
    match open(args)?.stop()? {
        true => println!("Cluster \"{}\" is stopped.", args.name),
        false => println!("Cluster \"{}\" was not running.", args.name),
    }
    Ok(())
}

/// Freezes or thaws the containers of all nodes.
pub(crate) fn pause(args: &ClusterArgs, freeze: bool) -> Result<()> {
    let count = freeze_all(&mut open(args)?, freeze)?;
    match freeze {
        true => println!("{count} containers are paused."),
        false => println!("{count} containers go on."),
    }
    Ok(())
}

/// Freezes or thaws all containers; how many there were.
pub(super) fn freeze_all(cluster: &mut Cluster, freeze: bool) -> Result<usize> {
    let mut count = 0;
    for n in &cluster.record.nodes {
        count += block_on(client::freeze(&cluster.paths.node(&n.name).socket, freeze))?;
    }
    cluster.record.paused = freeze;
    cluster.record.write(&cluster.paths.dir)?;
    Ok(count)
}

/// Stops a cluster and removes all it holds.
pub(crate) fn delete(args: &ClusterArgs) -> Result<()> {
    open(args)?.delete(None)?;
    println!("Cluster \"{}\" is deleted.", args.name);
    Ok(())
}

/// Tells how a cluster is; the exit status is 0 when all is well.
pub(crate) fn status(args: &StatusArgs) -> ExitCode {
    let (value, code) = match open(&args.cluster) {
        Ok(cluster) => {
            let value = read_status(&cluster);
            let well = value["nodes"]
                .as_array()
                .is_some_and(|l| l.iter().all(|n| n["host"] == "Running"));
            (value, if well { 0 } else { 7 })
        }
        Err(e) => {
            eprintln!("tripod: {e}");
            return ExitCode::from(85);
        }
    };
    match args.output {
        Output::Json => println!("{value}"),
        Output::Text => {
            println!("{}", value["name"].as_str().unwrap_or_default());
            println!("server: {}", value["server"].as_str().unwrap_or_default());
            println!("kubeconfig: {}", value["kubeconfig"].as_str().unwrap_or_default());
            for n in value["nodes"].as_array().into_iter().flatten() {
                let word = |key: &str| n[key].as_str().unwrap_or_default().to_owned();
                println!(
                    "{}: {} {} {}",
                    word("name"),
                    word("role"),
                    word("address"),
                    word("host")
                );
            }
        }
    }
    ExitCode::from(code)
}

/// Whether a node runs, and its daemon answers.
pub(super) fn serves(cluster: &Cluster, n: &NodeRecord) -> bool {
    let paths = cluster.paths.node(&n.name);
    node::first_process(&paths).is_some() && client::get(&paths.socket, "/_ping").is_ok()
}

fn read_status(cluster: &Cluster) -> Value {
    let nodes: Vec<Value> = cluster
        .record
        .nodes
        .iter()
        .map(|n| {
            let host = if serves(cluster, n) { "Running" } else { "Stopped" };
            json!({"name": n.name, "role": n.role, "address": n.address, "host": host})
        })
        .collect();
    let context = cluster.record.context();
    let configured = kubeconfig::leads_to(&context, &cluster.record.server());
    json!({
        "name": cluster.record.name, "server": cluster.record.server(), "context": context,
        "kubeconfig": if configured { "Configured" } else { "Misconfigured" }, "nodes": nodes,
    })
}

/// Prints the settings that point the three clients at a cluster.
pub(crate) fn env(args: &EnvArgs) -> Result<()> {
    let cluster = open(&args.cluster)?;
    let mut pairs = vec![("DOCKER_HOST".to_owned(), docker_host(&cluster))];
    let config = cluster.paths.dir.join("kubeconfig");
    pairs.push(("KUBECONFIG".to_owned(), config.display().to_string()));
    if args.unset {
        for (name, _) in &pairs {
            println!("unset {name}");
        }
        for name in [
            "AWS_ENDPOINT_URL",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_DEFAULT_REGION",
            "AWS_REGION",
        ] {
            println!("unset {name}");
        }
        return Ok(());
    }
    write_private(&config, &cluster.kubeconfig()?)?;
    pairs.extend(cluster.aws_environment()?);
    for (name, value) in pairs {
        println!("export {name}=\"{value}\"");
    }
    println!("# Run: eval $(tripod env{})", name_option(&args.cluster.name));
    Ok(())
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    Ok(options.open(path)?.write_all(text.as_bytes())?)
}

/// Prints a node's address.
pub(crate) fn ip(args: &ClusterArgs, node: Option<&str>) -> Result<()> {
    let cluster = open(args)?;
    println!("{}", cluster.record.node(node)?.address);
    Ok(())
}

/// A shell or a command on a node.
pub(crate) fn ssh(args: &SshArgs) -> Result<ExitCode> {
    let node = args.node.as_deref();
    super::ssh::run(&with_node(&args.cluster, node)?, node, &args.command, "root")
}

/// Prints where a service answers.
pub(crate) fn service(args: &ServiceArgs) -> Result<()> {
    let cluster = Cluster::open(Tool::Tripod, &args.in_cluster)?;
    let namespace = args.namespace.as_deref().unwrap_or("default");
    for url in services::urls(&cluster, namespace, &args.name)? {
        println!("{url}");
    }
    Ok(())
}

/// Prints the services and where they answer.
pub(crate) fn service_list(args: &ServiceArgs) -> Result<()> {
    let cluster = Cluster::open(Tool::Tripod, &args.in_cluster)?;
    print!("{}", services::table(&cluster, args.namespace.as_deref())?);
    Ok(())
}

/// Images of the nodes.
pub(crate) fn image(what: &ImageWhat) -> Result<()> {
    match what {
        ImageWhat::Load { archive, cluster } => {
            for name in load_everywhere(&open(cluster)?, archive, &[])? {
                println!("Loaded image: {name}");
            }
            Ok(())
        }
        ImageWhat::Ls { cluster, output } => images::list(&open(cluster)?, *output == Output::Json),
        ImageWhat::Rm { images, cluster } => images::remove(&open(cluster)?, images),
        ImageWhat::Pull { images, cluster } => images::pull(&open(cluster)?, images),
    }
}

/// Nodes of a cluster that runs.
pub(crate) fn manage_nodes(what: &NodeWhat) -> Result<()> {
    match what {
        NodeWhat::List { cluster, output } => nodes::list(&open(cluster)?, *output == Output::Json),
        NodeWhat::Add { cluster, manager } => {
            let role = if *manager {
                Role::ControlPlane
            } else {
                Role::Worker
            };
            let mut cluster = open(cluster)?;
            println!("Node {} is ready.", nodes::add(&mut cluster, role)?);
        }
        NodeWhat::Delete { node, cluster } => {
            nodes::delete(&mut open(cluster)?, node)?;
            println!("Node {node} is deleted.");
        }
    }
    Ok(())
}

/// Copies files between this machine and nodes.
pub(crate) fn copy(args: &ClusterArgs, from: &str, to: &str) -> Result<()> {
    nodes::copy(&open(args)?, from, to)
}

/// Prints the clusters of this machine and how they are.
pub(crate) fn profile_list(output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for name in paths::list(Tool::Tripod)? {
        let cluster = Cluster::open(Tool::Tripod, &name)?;
        let running = cluster
            .record
            .nodes
            .iter()
            .filter(|n| serves(&cluster, n))
            .count();
        let state = match (cluster.record.paused, running) {
            (true, _) => "Paused",
            (_, 0) => "Stopped",
            (_, n) if n < cluster.record.nodes.len() => "Degraded",
            _ => "Running",
        };
        rows.push((name, cluster.record.nodes.len(), cluster.record.server(), state));
    }
    if output == Output::Json {
        let shown: Value = rows
            .iter()
            .map(|(name, nodes, server, state)| json!({"name": name, "nodes": nodes, "server": server, "status": state}))
            .collect();
        println!("{shown}");
        return Ok(());
    }
    let width = rows
        .iter()
        .map(|r| r.0.len())
        .max()
        .unwrap_or(0)
        .max("CLUSTER".len());
    println!("{:width$}  NODES  {:30}  STATUS", "CLUSTER", "SERVER");
    for (name, nodes, server, state) in rows {
        println!("{name:width$}  {nodes:5}  {server:30}  {state}");
    }
    Ok(())
}

/// Settings that `start` takes when it is not told.
pub(crate) fn configure(what: &ConfigWhat) -> Result<()> {
    match what {
        ConfigWhat::Set { key, value } => config::set(key, value),
        ConfigWhat::Get { key } => config::get(key),
        ConfigWhat::Unset { key } => config::unset(key),
        ConfigWhat::View => config::view(),
    }
}

/// Loads an archive of images on the nodes (all, when none is named); the names in it.
pub(super) fn load_everywhere(cluster: &Cluster, archive: &Path, nodes: &[String]) -> Result<Vec<String>> {
    for name in nodes {
        cluster.record.node(Some(name))?;
    }
    let wanted = cluster
        .record
        .nodes
        .iter()
        .filter(|n| nodes.is_empty() || nodes.contains(&n.name));
    block_on(async {
        let loads = wanted.map(|n| {
            let socket = cluster.paths.node(&n.name).socket;
            async move {
                client::load_image(&socket, archive)
                    .await
                    .map_err(|e| Error::new(e.kind, format_args!("node {}: {e}", n.name)))
            }
        });
        let loaded = futures::future::try_join_all(loads).await?;
        Ok(loaded.into_iter().next().unwrap_or_default())
    })
}

/// `tripod create cluster`.
pub(crate) fn create(args: &CreateArgs) -> Result<()> {
    kind::create(Tool::Tripod, args, false)
}

/// `tripod delete cluster`.
pub(crate) fn delete_cluster(name: &str, kubeconfig: Option<&Path>) -> Result<()> {
    kind::delete(Tool::Tripod, name, kubeconfig, false)
}

/// `tripod get`.
pub(crate) fn get(args: &GetArgs) -> Result<()> {
    match &args.what {
        GetWhat::Clusters => {
            for name in paths::list(Tool::Tripod)? {
                println!("{name}");
            }
            Ok(())
        }
        other => kind::get(Tool::Tripod, other),
    }
}

/// `tripod load image-archive`.
pub(crate) fn load_archive(args: &ClusterArgs, archive: &Path, nodes: &[String]) -> Result<()> {
    load_everywhere(&open(args)?, archive, nodes).map(drop)
}

/// `tripod export logs`.
pub(crate) fn export_logs(args: &ClusterArgs, dir: Option<&Path>) -> Result<()> {
    export::logs(&open(args)?, dir)
}

/// Tells the version of this program and the newest one it knows of.
pub(crate) fn update_check() -> Result<()> {
    println!("CurrentVersion: v{}", env!("CARGO_PKG_VERSION"));
    // There is no index of releases to ask: what is known is this build.
    println!(
        "LatestVersion: v{} (the newest this build knows of)",
        env!("CARGO_PKG_VERSION")
    );
    Ok(())
}

/// What kind prints for each step.
pub(super) fn title(step: Step) -> &'static str {
    match step {
        Step::Nodes => "Preparing nodes 📦",
        Step::Configuration => "Writing configuration 📜",
        Step::ControlPlane => "Starting control-plane 🕹️",
        Step::Network => "Installing CNI 🔌",
        Step::Storage => "Installing StorageClass 💾",
        Step::Joining => "Joining worker nodes 🚜",
    }
}

/// `tripod dashboard`.
pub(crate) fn dashboard(args: &ClusterArgs, url: bool, port: u16) -> Result<ExitCode> {
    super::dashboard::run(&open(args)?, url, port)
}
