//! The verbs of `kind`, under its name and under our own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tripod_model::{Error, Result};

use super::cluster::{Cluster, NodeWish, Step, Wish};
use super::commands::{load_everywhere, title};
use super::kind_config::{self, Parsed};
use super::paths::{self, ClusterPaths};
use super::record::{Role, Tool};
use super::{client, export, kubeconfig};
use crate::cli::{CreateArgs, GetWhat};

/// The version that is reported when none is asked for.
pub(crate) const KUBERNETES: &str = tripod_api_kube::KUBERNETES_VERSION;

/// Clusters of local nodes, with kind's command line.
#[derive(Debug, Parser)]
#[command(name = "kind", arg_required_else_help = true, disable_version_flag = true)]
pub(crate) struct Kind {
    #[command(subcommand)]
    command: Option<Verb>,
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// No progress on standard error.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// How much is told.
    #[arg(short, long, global = true, default_value_t = 0)]
    verbosity: i32,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a cluster.
    Create {
        #[command(subcommand)]
        what: Creation,
    },
    /// Delete clusters.
    Delete {
        #[command(subcommand)]
        what: Deletion,
    },
    /// Get clusters, nodes or a kubeconfig.
    Get {
        #[command(subcommand)]
        what: GetWhat,
    },
    /// Load images onto the nodes.
    Load {
        #[command(subcommand)]
        what: Load,
    },
    /// Export logs or a kubeconfig.
    Export {
        #[command(subcommand)]
        what: Export,
    },
    /// Cannot be had: nodes have no image.
    Build {
        /// What is ignored.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum Creation {
    /// Create a cluster of local nodes.
    Cluster(CreateArgs),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the cluster.
    #[arg(short, long, env = "KIND_CLUSTER_NAME", default_value = "kind")]
    name: String,
    /// The kubeconfig that is changed.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Deletion {
    /// Delete a cluster.
    Cluster(Named),
    /// Delete several clusters.
    Clusters {
        /// Their names.
        names: Vec<String>,
        /// All of them.
        #[arg(short = 'A', long)]
        all: bool,
        /// The kubeconfig that is changed.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Load an archive of images.
    ImageArchive {
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
        /// Name of the cluster.
        #[arg(short, long, env = "KIND_CLUSTER_NAME", default_value = "kind")]
        name: String,
        /// Only onto these nodes.
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<String>,
    },
    /// Load images of this machine's docker engine.
    DockerImage {
        /// Names of images.
        #[arg(required = true)]
        images: Vec<String>,
        /// Name of the cluster.
        #[arg(short, long, env = "KIND_CLUSTER_NAME", default_value = "kind")]
        name: String,
        /// Only onto these nodes.
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Export {
    /// Export the nodes' logs.
    Logs {
        /// Where to.
        dir: Option<PathBuf>,
        /// Name of the cluster.
        #[arg(short, long, env = "KIND_CLUSTER_NAME", default_value = "kind")]
        name: String,
    },
    /// Write the cluster's entries into the kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        named: Named,
        /// With the address that other nodes reach.
        #[arg(long)]
        internal: bool,
    },
}

/// Runs as `kind`.
pub(crate) fn main() -> ExitCode {
    let result = run(Kind::parse());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ERROR: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Kind) -> Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let Some(command) = args.command else {
        match args.version {
            true => println!("kind version {own}"),
            false => Kind::command().print_help()?,
        }
        return Ok(());
    };
    match command {
        Verb::Create {
            what: Creation::Cluster(cluster),
        } => create(Tool::Kind, &cluster, args.quiet),
        Verb::Delete { what } => match what {
            Deletion::Cluster(n) => delete(Tool::Kind, &n.name, n.kubeconfig.as_deref(), args.quiet),
            Deletion::Clusters {
                names,
                all,
                kubeconfig,
            } => delete_several(names, all, kubeconfig.as_deref()),
        },
        Verb::Get { what } => get(Tool::Kind, &what),
        Verb::Load { what } => load(what),
        Verb::Export { what } => match what {
            Export::Logs { dir, name } => export::logs(&open(&name)?, dir.as_deref()),
            Export::Kubeconfig { named, internal } => {
                let cluster = open(&named.name)?;
                let context = cluster.record.context();
                kubeconfig::add(
                    named.kubeconfig.as_deref(),
                    &context,
                    &config_of(&cluster, internal)?,
                )?;
                if !args.quiet {
                    println!("Set kubectl context to \"{context}\"");
                }
                Ok(())
            }
        },
        Verb::Build { words } => {
            let what = words.first().map_or("node-image", String::as_str);
            Err(Error::new(
                tripod_model::ErrorKind::NotImplemented,
                format_args!(
                    "build {what} is not supported: nodes are namespaces of this machine, without an image"
                ),
            ))
        }
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Kind::command(), "kind", &mut std::io::stdout());
            Ok(())
        }
        Verb::Version => {
            match args.quiet {
                true => println!("{own}"),
                false => println!(
                    "kind v{own} (tripod) {KUBERNETES} linux/{}",
                    tripod_agent::host::architecture()
                ),
            }
            Ok(())
        }
    }
}

/// Deletes the clusters that are named, or all; one that is not there does not matter.
fn delete_several(names: Vec<String>, all: bool, kubeconfig: Option<&Path>) -> Result<()> {
    let names = if all { paths::list(Tool::Kind)? } else { names };
    let mut deleted = Vec::new();
    for name in names {
        if ClusterPaths::of(Tool::Kind, &name)?.exists() {
            Cluster::open(Tool::Kind, &name)?.delete(kubeconfig)?;
            deleted.push(name);
        }
    }
    println!("Deleted clusters: {}", quoted(&deleted));
    Ok(())
}

/// A list of names as kind prints it.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
    format!("[{}]", names.join(" "))
}

/// A cluster's kubeconfig, for this machine or for its nodes.
fn config_of(cluster: &Cluster, internal: bool) -> Result<String> {
    let config = cluster.kubeconfig()?;
    let inside = format!("https://{}:6443", cluster.record.first().address);
    Ok(match internal {
        true => config.replace(&cluster.record.server(), &inside),
        false => config,
    })
}

fn open(name: &str) -> Result<Cluster> {
    Cluster::open(Tool::Kind, name).map_err(|e| match e.kind {
        tripod_model::ErrorKind::NotFound => {
            Error::not_found(format_args!("no nodes found for cluster {name:?}"))
        }
        _ => e,
    })
}

fn load(what: Load) -> Result<()> {
    match what {
        Load::ImageArchive {
            archives,
            name,
            nodes,
        } => {
            let cluster = open(&name)?;
            archives
                .iter()
                .try_for_each(|a| load_everywhere(&cluster, a, &nodes).map(drop))
        }
        Load::DockerImage { images, name, nodes } => {
            let cluster = open(&name)?;
            load_from_docker(&cluster, &images, &nodes)
        }
    }
}

/// Loads images of this machine's docker engine onto the nodes that lack them.
fn load_from_docker(cluster: &Cluster, images: &[String], nodes: &[String]) -> Result<()> {
    for image in images {
        let found = std::process::Command::new("docker")
            .args(["image", "inspect", "-f", "{{.Id}}", image])
            .output()
            .map_err(|e| Error::unavailable(format_args!("docker cannot be run: {e}")))?;
        if !found.status.success() {
            return Err(Error::not_found(format_args!(
                "image: \"{image}\" not present locally"
            )));
        }
        let id = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let mut lacking = Vec::new();
        for n in &cluster.record.nodes {
            if !nodes.is_empty() && !nodes.contains(&n.name) {
                continue;
            }
            let there = client::get(
                &cluster.paths.node(&n.name).socket,
                &format!("/images/{image}/json"),
            );
            if there.is_ok_and(|i| i["Id"] == id.as_str()) {
                println!(
                    "Image: \"{image}\" with ID \"{id}\" found to be already present on node \"{}\".",
                    n.name
                );
            } else {
                println!(
                    "Image: \"{image}\" with ID \"{id}\" not yet present on node \"{}\", loading...",
                    n.name
                );
                lacking.push(n.name.clone());
            }
        }
        if !lacking.is_empty() {
            with_saved(std::slice::from_ref(image), |archive| {
                load_everywhere(cluster, archive, &lacking).map(drop)
            })?;
        }
    }
    Ok(())
}

/// Saves images of this machine's docker engine to an archive, for as long as `work` takes.
pub(super) fn with_saved(images: &[String], work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("tripod-images-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let archive = dir.join("images.tar");
    let saved = std::process::Command::new("docker")
        .args(["save", "-o"])
        .arg(&archive)
        .args(images)
        .output()
        .map_err(|e| Error::unavailable(format_args!("docker cannot be run: {e}")));
    let done = saved.and_then(|out| match out.status.success() {
        true => work(&archive),
        false => Err(Error::not_found(String::from_utf8_lossy(&out.stderr).trim())),
    });
    std::fs::remove_dir_all(&dir)?;
    done
}

/// `create cluster`.
pub(super) fn create(tool: Tool, args: &CreateArgs, quiet: bool) -> Result<()> {
    if let Some(wait) = &args.wait {
        is_duration(wait)?;
    }
    let parsed = match &args.config {
        Some(path) if path.as_os_str() == "-" => {
            kind_config::parse(&std::io::read_to_string(std::io::stdin())?)?
        }
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::invalid(format_args!("{}: {e}", path.display())))?;
            kind_config::parse(&text)?
        }
        None => Parsed {
            wish: Wish {
                nodes: vec![NodeWish::plain(Role::ControlPlane)],
                ..Wish::default()
            },
            ..Parsed::default()
        },
    };
    for warning in &parsed.warnings {
        eprintln!("WARNING: {warning}");
    }
    let name = args
        .name
        .clone()
        .or(parsed.name)
        .unwrap_or_else(|| tool.default_cluster().to_owned());
    if ClusterPaths::of(tool, &name)?.exists() {
        return Err(Error::conflict(format_args!(
            "failed to create cluster: node(s) already exist for a cluster with the name \"{name}\""
        )));
    }
    let image = args.image.clone().or(parsed.image);
    let asked = image.as_deref().map(version_of).transpose()?;
    let version = asked.clone().unwrap_or_else(|| KUBERNETES.to_owned());
    if asked.as_deref().is_some_and(|v| minor(v) != minor(KUBERNETES)) {
        eprintln!(
            "WARNING: version {version} is what the cluster reports; the API served is that of {KUBERNETES}"
        );
    }
    let say = |text: std::fmt::Arguments<'_>| {
        if !quiet {
            println!("{text}");
        }
    };
    say(format_args!("Creating cluster \"{name}\" ..."));
    say(format_args!(" ✓ Ensuring node image (kindest/node:{version}) 🖼"));
    let mut wish = parsed.wish;
    wish.kubernetes_version = asked;
    wish.api_port = Some(wish.api_port.unwrap_or(0));
    let cluster = Cluster::create(tool, &name, wish)?;
    let up = raise(&cluster, args.kubeconfig.as_deref(), quiet);
    if let Err(e) = up {
        if !args.retain {
            cluster.delete(args.kubeconfig.as_deref())?;
        }
        return Err(Error::new(e.kind, format_args!("failed to create cluster: {e}")));
    }
    let context = cluster.record.context();
    say(format_args!("Set kubectl context to \"{context}\""));
    say(format_args!(
        "You can now use your cluster with:\n\nkubectl cluster-info --context {context}\n"
    ));
    say(format_args!("Have a nice day! 👋"));
    Ok(())
}

fn raise(cluster: &Cluster, kubeconfig: Option<&Path>, quiet: bool) -> Result<()> {
    let mut last: Option<Step> = None;
    let planes = cluster
        .record
        .nodes
        .iter()
        .filter(|n| n.role == Role::ControlPlane)
        .count();
    let say = |step: Step| match step {
        _ if quiet => {}
        Step::Joining if planes > 1 => println!(" ✓ Joining more control-plane nodes 🎮"),
        other => println!(" ✓ {}", title(other)),
    };
    cluster.up(&mut |step| {
        if let Some(done) = last.replace(step) {
            say(done);
        }
    })?;
    last.into_iter().for_each(say);
    kubeconfig::add(kubeconfig, &cluster.record.context(), &cluster.kubeconfig()?)
}

/// `delete cluster`.
pub(super) fn delete(tool: Tool, name: &str, kubeconfig: Option<&Path>, quiet: bool) -> Result<()> {
    if !quiet {
        println!("Deleting cluster \"{name}\" ...");
    }
    if !ClusterPaths::of(tool, name)?.exists() {
        return Ok(());
    }
    let cluster = Cluster::open(tool, name)?;
    cluster.delete(kubeconfig)?;
    let nodes: Vec<String> = cluster.record.nodes.iter().map(|n| n.name.clone()).collect();
    if !quiet {
        println!("Deleted nodes: {}", quoted(&nodes));
    }
    Ok(())
}

/// `get clusters | nodes | kubeconfig`.
pub(super) fn get(tool: Tool, what: &GetWhat) -> Result<()> {
    match what {
        GetWhat::Clusters => {
            let names = paths::list(tool)?;
            if names.is_empty() {
                eprintln!("No {} clusters found.", tool.as_str());
            }
            names.iter().for_each(|n| println!("{n}"));
        }
        GetWhat::Nodes { name, all } => {
            let names = match all {
                true => paths::list(tool)?,
                false => vec![cluster_name(tool, name.as_deref())],
            };
            for name in names {
                match Cluster::open(tool, &name) {
                    Ok(cluster) => cluster.record.nodes.iter().for_each(|n| println!("{}", n.name)),
                    Err(_) => eprintln!("No {} nodes found for cluster \"{name}\".", tool.as_str()),
                }
            }
        }
        GetWhat::Kubeconfig { name, internal } => {
            let name = cluster_name(tool, name.as_deref());
            let cluster = Cluster::open(tool, &name).map_err(|e| match e.kind {
                tripod_model::ErrorKind::NotFound => Error::not_found(format_args!(
                    "could not locate any control plane nodes for cluster named '{name}'"
                )),
                _ => e,
            })?;
            print!("{}", config_of(&cluster, *internal)?);
        }
    }
    Ok(())
}

fn cluster_name(tool: Tool, name: Option<&str>) -> String {
    name.unwrap_or_else(|| tool.default_cluster()).to_owned()
}

/// Refuses what is no duration in Go's form (`5m`, `1h30m`, `0s`); the command waits for readiness in any case.
fn is_duration(text: &str) -> Result<()> {
    let mut rest = text.trim_start_matches(['+', '-']);
    let mut fine = !rest.is_empty();
    while fine && !rest.is_empty() && rest != "0" {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let tail = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find_map(|u| {
            unit.strip_prefix(u)
                .filter(|tail| tail.is_empty() || tail.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        });
        fine = unit.len() < rest.len() && tail.is_some();
        rest = tail.unwrap_or_default();
    }
    match fine {
        true => Ok(()),
        false => Err(Error::invalid(format_args!(
            "invalid argument \"{text}\" for \"--wait\" flag: time: invalid duration \"{text}\""
        ))
        .at("wait")),
    }
}

/// The Kubernetes version in the tag of a node image.
fn version_of(image: &str) -> Result<String> {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
    let numbers: Vec<&str> = tag.strip_prefix('v').unwrap_or_default().split('.').collect();
    if numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok()) {
        return Ok(tag.to_owned());
    }
    Err(Error::invalid(format_args!(
        "image {image:?}: its tag is not a Kubernetes version (v1.36.0)"
    ))
    .at("image"))
}

fn minor(version: &str) -> Option<&str> {
    version.split('.').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_off_images() {
        assert_eq!(version_of("kindest/node:v1.25.3").unwrap(), "v1.25.3");
        assert_eq!(version_of("kindest/node:v1.25.3@sha256:00").unwrap(), "v1.25.3");
        assert_eq!(version_of("localhost:5000/node:v1.2.3").unwrap(), "v1.2.3");
        for bad in [
            "kindest/node",
            "kindest/node:latest",
            "localhost:5000/node",
            "x:v1.2",
        ] {
            assert!(version_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for fine in ["5m", "0s", "0", "1h30m", "1.5s", "300ms"] {
            assert!(is_duration(fine).is_ok(), "{fine}");
        }
        for bad in ["", "5", "soon", "5m3", "m"] {
            assert!(is_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(quoted(&["a".into(), "b".into()]), "[\"a\" \"b\"]");
    }

    #[test]
    fn the_command_line_is_sound() {
        Kind::command().debug_assert();
    }
}
