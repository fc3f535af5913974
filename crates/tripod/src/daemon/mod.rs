//! `tripod daemon`: one node in the foreground. Opens the parts, wires them, serves, and ends in an orderly way.

pub(crate) mod aws;
mod dashboard;
mod door;
mod doors;
mod membership;
mod notify;
mod outer;
mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tripod_agent::host::HostFacts;
use tripod_agent::{Agent, Ports};
use tripod_engine::Engine;
use tripod_model::container::Resources;
use tripod_model::image::Platform;
use tripod_model::node::NodeDescription;
use tripod_model::{Error, Result};
use tripod_net::KernelNet;
use tripod_runtime::images::{ImageStore, RegistryOptions};
use tripod_runtime::volumes::VolumeStore;
use tripod_runtime::{BUILTIN, OciRuntime};

use crate::cli::DaemonArgs;

/// Runs the daemon until it is told to end.
pub(crate) fn run(args: DaemonArgs) -> Result<()> {
    // Whoever started the daemon may have had signals blocked, which every program inherits.
    nix::sys::signal::SigSet::all()
        .thread_unblock()
        .map_err(|e| Error::internal(format_args!("cannot unblock signals: {e}")))?;
    init_logging(&args.log_level);
    // Few threads with small stacks: what waits here is the kernel, not arithmetic.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)))
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

fn init_logging(level: &str) {
    // openraft tells every step of an election at info.
    let filter = std::env::var("TRIPOD_LOG").unwrap_or_else(|_| format!("{level},openraft=warn"));
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

async fn serve(args: DaemonArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    HostFacts::set_share(args.cpus, args.memory).map_err(Error::invalid)?;
    let root = data_root(&args.data_root)?;
    let _lock = lock(&root)?;
    let run_dir = args.run_dir.clone().unwrap_or_else(|| default_run_dir(&root));
    fs::create_dir_all(&run_dir)?;
    // Bound first: a wrong address is told before anything is started.
    let listeners = doors::bind(&args).await?;
    let dashboard = dashboard::bind(&args).await?;
    let registry_socket = registry::bind(&args).await?;
    let node = open_node(&args, &root, &run_dir).await?;
    let stop = CancellationToken::new();
    let sessions = membership::spawn(&node.agent, &node.engine, stop.clone());
    let kube = doors::serve_kube(&args, &root, &node, stop.clone());
    let aws = aws::spawn(&node.engine, args.aws_listen.clone(), &root, stop.clone());
    let secure_pages = dashboard::serve_https(&args, &node, stop.clone());
    let pages = dashboard::serve(dashboard, &node, stop.clone());
    let registry = registry::serve(registry_socket, &args, &root, &node, stop.clone()).await?;
    let task_endpoint = aws::spawn_task_endpoint(&node.engine, stop.clone());
    let served = doors::serve(listeners, &args, &root, &node, stop.clone());
    tracing::info!("Tripod {} is ready", env!("CARGO_PKG_VERSION"));
    notify::ready();
    tokio::spawn(let_go_when_quiet(stop.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    stop.cancel();
    sessions.await.map_err(Error::internal)?;
    served.await.map_err(Error::internal)?;
    kube.await.map_err(Error::internal)?;
    aws.await.map_err(Error::internal)?;
    pages.await.map_err(Error::internal)?;
    secure_pages.await.map_err(Error::internal)?;
    registry.await.map_err(Error::internal)?;
    task_endpoint.await.map_err(Error::internal)?;
    if args.stop_containers {
        node.agent.stop_all().await;
    }
    node.engine.shutdown().await;
    if args.stop_containers {
        node.runtime.remove_node_group().await;
    }
    node.runtime.close().await
}

/// After this long without a request, what served the last ones is let go: long enough that a client which calls again
/// and again finds it.
const QUIET: std::time::Duration = std::time::Duration::from_secs(5);

/// Keeps what is resident small: code of the start and of rare calls, and memory that answers took, is let go once nobody
/// calls.
async fn let_go_when_quiet(stop: CancellationToken) {
    let work = async {
        tokio::time::sleep(QUIET).await;
        loop {
            match tokio::task::spawn_blocking(let_go).await {
                Ok(Ok(())) => {}
                // Nothing is lost but memory, and it would fail the next time too.
                Ok(Err(e)) => return tracing::debug!("mappings cannot be read: {e}"),
                Err(_) => return,
            }
            tripod_edge::quiet_after_use(QUIET).await;
        }
    };
    let _ = stop.run_until_cancelled(work).await;
}

fn let_go() -> std::io::Result<()> {
    tripod_runtime::memory::give_back_freed();
    tripod_runtime::memory::let_go_of_code()
}

/// The opened parts of a node.
struct Node {
    agent: Agent,
    engine: Engine,
    runtime: Arc<OciRuntime>,
    /// Ports of the machine around this node, as long as the daemon runs.
    _forwards: Vec<tripod_net::outer::Forward>,
}

async fn open_node(args: &DaemonArgs, root: &Path, run_dir: &Path) -> Result<Node> {
    let host = HostFacts::read();
    let images = {
        let path = root.join("images");
        let registries = RegistryOptions {
            insecure: args.insecure_registry.clone(),
            ..RegistryOptions::default()
        };
        tokio::task::spawn_blocking(move || ImageStore::open_with(&path, registries))
    };
    let mut net_options = tripod_net::Options::new(run_dir, host.hostname.clone());
    if let Some(path) = &args.outer_netns {
        let own = args
            .advertise_addr
            .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
        net_options.outer = Some((path.clone(), own));
    }
    let net = KernelNet::open(&net_options)?;
    let forwards = outer::open(args)?;
    let runtime = Arc::new(OciRuntime::open(runtime_options(args, root, run_dir)).await?);
    let images = images.await.map_err(Error::internal)??;
    let ports = Ports {
        runtime: runtime.clone(),
        net: Arc::new(net),
        images: Arc::new(images),
        volumes: Arc::new(VolumeStore::open(&root.join("volumes"))?),
    };
    let options = tripod_agent::Options {
        root: root.join("node"),
        run_dir: run_dir.to_owned(),
        hostname: host.hostname.clone(),
        address_pools: Vec::new(),
    };
    let engine_options = tripod_engine::Options {
        description: describe(args, &host),
        node_listen: args.node_listen,
    };
    let (agent, engine) = tokio::try_join!(
        Agent::open(options, ports),
        Engine::open(root.join("swarm"), engine_options)
    )?;
    Ok(Node {
        agent,
        engine,
        runtime,
        _forwards: forwards,
    })
}

fn runtime_options(args: &DaemonArgs, root: &Path, run_dir: &Path) -> tripod_runtime::Options {
    let mut options = tripod_runtime::Options {
        keeper: run_dir.join("keeper"),
        containers: root.join("node/containers"),
        ..tripod_runtime::Options::below(root)
    };
    if args.cpus.is_some() || args.memory.is_some() || args.outer_netns.is_some() {
        let memory = args.memory.and_then(|m| i64::try_from(m).ok()).unwrap_or(0);
        options.node_group = node_group(run_dir);
        options.node_limits = Resources {
            nano_cpus: args.cpus.map_or(0, |n| i64::from(n) * 1_000_000_000),
            memory,
            // What does not fit is not swapped out: it would use more of the machine.
            memory_swap: memory,
            ..Resources::default()
        };
    }
    for name in ["runc", "crun"].into_iter().filter(|n| is_installed(n)) {
        options.runtimes.push((name.to_owned(), PathBuf::from(name)));
    }
    if args.oci_runtime != BUILTIN {
        let path = PathBuf::from(&args.oci_runtime);
        let name = path
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        options.runtimes.retain(|(known, _)| *known != name);
        options.runtimes.push((name.clone(), path));
        options.default_runtime = name;
    }
    options
}

/// The cgroup of a node that has a part of the machine; nodes on one machine do not share it.
pub(crate) fn node_group(run_dir: &Path) -> String {
    let digest = hex::encode(Sha256::digest(run_dir.as_os_str().as_encoded_bytes()));
    format!("/tripod-{}", &digest[..12])
}

/// Whether a program is where the keeper looks for OCI runtimes.
fn is_installed(program: &str) -> bool {
    let places = tripod_runtime::RUNTIME_PATH.split(':');
    places
        .map(|dir| Path::new(dir).join(program))
        .any(|p| p.is_file())
}

/// What this machine is and has, for the cluster.
fn describe(args: &DaemonArgs, host: &HostFacts) -> NodeDescription {
    let plugins = [
        ("Log", "json-file"),
        ("Log", "local"),
        ("Log", "none"),
        ("Network", "bridge"),
        ("Network", "host"),
        ("Network", "null"),
        ("Network", "overlay"),
        ("Volume", "local"),
    ];
    NodeDescription {
        hostname: host.hostname.clone(),
        platform: Platform {
            os: "linux".into(),
            architecture: host.machine.clone(),
            variant: String::new(),
        },
        nano_cpus: i64::from(host.cpus) * 1_000_000_000,
        memory: i64::try_from(host.memory).unwrap_or(i64::MAX),
        engine_version: env!("CARGO_PKG_VERSION").into(),
        engine_labels: pairs(&args.labels),
        kubernetes_version: args.kubernetes_version.clone().unwrap_or_default(),
        node_labels: pairs(&args.node_labels),
        taints: args.node_taints.clone(),
        plugins: plugins
            .iter()
            .map(|(k, n)| ((*k).to_owned(), (*n).to_owned()))
            .collect(),
        ..NodeDescription::default()
    }
}

/// `key=value` words as pairs.
fn pairs(words: &[String]) -> std::collections::BTreeMap<String, String> {
    words
        .iter()
        .map(|l| l.split_once('=').unwrap_or((l, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn data_root(wanted: &Path) -> Result<PathBuf> {
    let context = |e: std::io::Error| Error::internal(format_args!("data root {}: {e}", wanted.display()));
    fs::create_dir_all(wanted).map_err(context)?;
    wanted.canonicalize().map_err(context)
}

/// Running state of daemons with different data roots does not meet.
pub(crate) fn default_run_dir(root: &Path) -> PathBuf {
    let digest = hex::encode(Sha256::digest(root.as_os_str().as_encoded_bytes()));
    Path::new("/run/tripod").join(&digest[..12])
}

/// Keeps a second daemon away from the same data.
fn lock(root: &Path) -> Result<fs::File> {
    let path = root.join("daemon.lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::conflict(format_args!(
            "another daemon uses the data root {}",
            root.display()
        ))
    })?;
    Ok(file)
}
