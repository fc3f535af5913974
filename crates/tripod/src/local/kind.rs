//! The verbs of `kind`, under its name and under our own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tripod_model::{Error, Result};

use super::cluster::{Cluster, NodeWish, Step, Wish};
use super::commands::{load_everywhere, title};
use super::kind_config::{self, Parsed};
use super::paths::{self, ClusterPaths};
use super::record::{Role, Tool};
use super::{export, kubeconfig};
use crate::cli::{CreateArgs, GetWhat};

/// The version that is reported when none is asked for.
pub(crate) const KUBERNETES: &str = tripod_api_kube::KUBERNETES_VERSION;

/// Clusters of local nodes, with kind's command line.
#[derive(Debug, Parser)]
#[command(name = "kind", arg_required_else_help = true, disable_version_flag = true)]
pub(crate) struct Kind {
    #[command(subcommand)]
    command: Verb,
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
    Kubeconfig(Named),
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
    match args.command {
        Verb::Create {
            what: Creation::Cluster(args),
        } => create(Tool::Kind, &args),
        Verb::Delete { what } => match what {
            Deletion::Cluster(n) => delete(Tool::Kind, &n.name, n.kubeconfig.as_deref()),
            Deletion::Clusters {
                names,
                all,
                kubeconfig,
            } => {
                let names = if all { paths::list(Tool::Kind)? } else { names };
                names
                    .iter()
                    .try_for_each(|n| delete(Tool::Kind, n, kubeconfig.as_deref()))
            }
        },
        Verb::Get { what } => get(Tool::Kind, &what),
        Verb::Load { what } => load(what),
        Verb::Export { what } => match what {
            Export::Logs { dir, name } => export::logs(&open(&name)?, dir.as_deref()),
            Export::Kubeconfig(n) => {
                let cluster = open(&n.name)?;
                kubeconfig::add(
                    n.kubeconfig.as_deref(),
                    &cluster.record.context(),
                    &cluster.kubeconfig()?,
                )?;
                println!("Set kubectl context to \"{}\"", cluster.record.context());
                Ok(())
            }
        },
        Verb::Version => {
            println!("kind v{} (tripod) {KUBERNETES}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
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
            with_saved(&images, |archive| {
                load_everywhere(&cluster, archive, &nodes).map(drop)
            })
        }
    }
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
pub(super) fn create(tool: Tool, args: &CreateArgs) -> Result<()> {
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
    println!("Creating cluster \"{name}\" ...");
    println!(" ✓ Ensuring node image (kindest/node:{version}) 🖼");
    let mut wish = parsed.wish;
    wish.kubernetes_version = asked;
    wish.api_port = Some(wish.api_port.unwrap_or(0));
    let cluster = Cluster::create(tool, &name, wish)?;
    let up = raise(&cluster, args.kubeconfig.as_deref());
    if let Err(e) = up {
        if !args.retain {
            cluster.delete(args.kubeconfig.as_deref())?;
        }
        return Err(Error::new(e.kind, format_args!("failed to create cluster: {e}")));
    }
    let context = cluster.record.context();
    println!("Set kubectl context to \"{context}\"");
    println!("You can now use your cluster with:\n\nkubectl cluster-info --context {context}\n");
    println!("Have a nice day! 👋");
    Ok(())
}

fn raise(cluster: &Cluster, kubeconfig: Option<&Path>) -> Result<()> {
    let mut last: Option<Step> = None;
    let planes = cluster
        .record
        .nodes
        .iter()
        .filter(|n| n.role == Role::ControlPlane)
        .count();
    let say = |step: Step| match step {
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
pub(super) fn delete(tool: Tool, name: &str, kubeconfig: Option<&Path>) -> Result<()> {
    println!("Deleting cluster \"{name}\" ...");
    if !ClusterPaths::of(tool, name)?.exists() {
        return Ok(());
    }
    let cluster = Cluster::open(tool, name)?;
    cluster.delete(kubeconfig)?;
    let nodes: Vec<&str> = cluster.record.nodes.iter().map(|n| n.name.as_str()).collect();
    println!("Deleted nodes: {nodes:?}");
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
        GetWhat::Kubeconfig { name, .. } => {
            print!(
                "{}",
                Cluster::open(tool, &cluster_name(tool, name.as_deref()))?.kubeconfig()?
            );
        }
    }
    Ok(())
}

fn cluster_name(tool: Tool, name: Option<&str>) -> String {
    name.unwrap_or_else(|| tool.default_cluster()).to_owned()
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
    use clap::CommandFactory as _;

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
    fn the_command_line_is_sound() {
        Kind::command().debug_assert();
    }
}
