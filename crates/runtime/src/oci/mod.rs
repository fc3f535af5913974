//! The [`Runtime`](tripod_agent::ports::Runtime) port: containers by an OCI runtime and the keeper.

mod files;
mod namespaces;
mod notices;
mod port;
mod processes;
mod start;
mod streams;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tripod_agent::ports::{Adopted, RuntimeEvent, Stats};
use tripod_model::container::Resources;
use tripod_model::{Error, Result};

pub(crate) use processes::{FIRST, be_first};

use crate::cgroup::{Cgroup, Limits, Mounts};
use crate::client::Client;
use crate::filter::Filters;
use crate::keeper::wire::{LogTarget, Request};
use crate::spec;

/// Name of the built-in runtime.
pub const BUILTIN: &str = "tripod";

/// Where the runtime lives and what it uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// The keeper's directory: its socket and records.
    pub keeper: PathBuf,
    /// Directory of the containers' own directories: [`StartRequest::dir`](tripod_agent::ports::StartRequest) is a
    /// child of it, named by the identifier.
    pub containers: PathBuf,
    /// Parent of the containers' cgroups where their spec names none.
    pub cgroup_parent: String,
    /// Cgroup of this node, below which all cgroups of containers are; empty is none of its own.
    pub node_group: String,
    /// What the containers of this node may use in all.
    pub node_limits: Resources,
    /// Other OCI runtimes by name, with the path of their program (or a name to be looked up in `PATH`).
    pub runtimes: Vec<(String, PathBuf)>,
    /// Runtime of containers that ask for none; [`BUILTIN`] or one of the above.
    pub default_runtime: String,
    /// The program that becomes the keeper when it is run with `keeper DIR`: this one.
    pub program: PathBuf,
}

impl Options {
    /// Everything below one directory, with the built-in runtime.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            keeper: root.join("keeper"),
            containers: root.join("containers"),
            cgroup_parent: "/tripod".into(),
            node_group: String::new(),
            node_limits: Resources::default(),
            runtimes: Vec::new(),
            default_runtime: BUILTIN.into(),
            program: "/proc/self/exe".into(),
        }
    }
}

/// What is remembered of a container beyond the keeper's record, in its directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    log: LogTarget,
    cgroup_parent: String,
    /// Its first process is not alone in its PID namespace.
    shared_pid: bool,
    tty: bool,
    stdin: bool,
    oci_runtime: Option<PathBuf>,
    /// File with the filter of its processes.
    #[serde(default)]
    filter: Option<PathBuf>,
}

/// A container that runs or ran under this daemon.
#[derive(Clone)]
struct Entry {
    pid: i32,
    run: u64,
    kept: Arc<Kept>,
    cgroup: Cgroup,
    running: Arc<watch::Sender<bool>>,
}

/// Containers by an OCI runtime and the keeper.
pub struct OciRuntime {
    shared: Arc<Shared>,
    events: Mutex<Option<mpsc::UnboundedReceiver<RuntimeEvent>>>,
}

struct Shared {
    options: Options,
    mounts: Arc<Mounts>,
    /// Of all containers in all.
    node_limits: Limits,
    host: spec::Host,
    filters: Arc<Filters>,
    client: Arc<Client>,
    entries: Mutex<HashMap<String, Entry>>,
    /// Health checks that wait for their end.
    waits: Mutex<HashMap<String, oneshot::Sender<i64>>>,
    events: mpsc::UnboundedSender<RuntimeEvent>,
}

impl Shared {
    /// Ends what runs in cgroups of containers of this node that the keeper does not know to run: a helper that was at
    /// work when both daemon and keeper died finished its container for nobody.
    fn remove_strays(&self, adopted: &[Adopted]) {
        let dirs = std::fs::read_dir(&self.options.containers);
        for entry in dirs.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str() else { continue };
            if adopted.iter().any(|a| a.id == id && a.exit.is_none()) {
                continue;
            }
            if let Ok(cgroup) = self.cgroup(id, "")
                && cgroup.exists()
                && let Err(e) = cgroup.remove()
            {
                tracing::warn!(id, "what is left of a container cannot be removed: {e}");
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<i64>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that runs.
    fn running(&self, id: &str) -> Result<Entry> {
        let entry = self.entries().get(id).cloned();
        entry
            .filter(|e| *e.running.borrow())
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.options.containers.join(id)
    }

    fn kept(&self, id: &str) -> Result<Kept> {
        if let Some(e) = self.entries().get(id) {
            return Ok((*e.kept).clone());
        }
        let bytes = std::fs::read(self.dir(id).join("runtime.json"))
            .map_err(|_| Error::not_found(format!("No such container: {id}")))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn cgroup(&self, id: &str, parent: &str) -> Result<Cgroup> {
        let parent = if parent.is_empty() {
            &self.options.cgroup_parent
        } else {
            parent
        };
        self.group(parent, id)
    }

    /// The cgroup `PARENT/ID` of this node.
    fn group(&self, parent: &str, id: &str) -> Result<Cgroup> {
        Cgroup::new(&self.mounts, &format!("{}/{parent}", self.options.node_group), id)
    }

    /// A reading whose limit is no higher than the node's.
    fn bounded(&self, mut stats: Stats) -> Stats {
        let most = self.node_limits.memory.and_then(|m| u64::try_from(m).ok());
        stats.memory_limit = most.map_or(stats.memory_limit, |m| stats.memory_limit.min(m));
        stats
    }

    /// The limits that a user asked for, as far as the node's own leave room.
    fn limits(&self, resources: &Resources) -> Result<Limits> {
        Ok(Limits::of(resources)?.within(&self.node_limits))
    }
}

impl OciRuntime {
    /// Connects to the node's keeper, which is started when there is none. Must be called inside a tokio runtime.
    pub async fn open(options: Options) -> Result<Self> {
        std::fs::create_dir_all(&options.containers)?;
        if options.default_runtime != BUILTIN
            && !options
                .runtimes
                .iter()
                .any(|(n, _)| *n == options.default_runtime)
        {
            return Err(Error::invalid(format!(
                "unknown OCI runtime: {}",
                options.default_runtime
            )));
        }
        let mounts = Arc::new(Mounts::detect()?);
        let host = machine(&mounts);
        let node_limits = Limits::of(&options.node_limits)?;
        if !options.node_group.is_empty() {
            for warning in Cgroup::new(&mounts, &options.node_group, "")?.create(&node_limits)? {
                tracing::warn!("{}: {warning}", options.node_group);
            }
        }
        let (client, notices) = Client::connect(&options.keeper, &options.program).await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let filters = Filters::new(options.keeper.join("filters"));
        let shared = Arc::new(Shared {
            options,
            mounts,
            node_limits,
            host,
            filters: Arc::new(filters),
            client,
            entries: Mutex::default(),
            waits: Mutex::default(),
            events,
        });
        tokio::spawn(notices::run(Arc::downgrade(&shared), notices));
        Ok(Self {
            shared,
            events: Mutex::new(Some(receiver)),
        })
    }

    /// Keeps descriptors (sockets) in the keeper under a name, so that they outlive this process.
    pub async fn store_fds(&self, name: &str, fds: Vec<OwnedFd>) -> Result<()> {
        if fds.len() > crate::keeper::wire::MAX_FDS {
            return Err(Error::invalid("too many descriptors at once"));
        }
        self.shared
            .client
            .call(Request::StoreFds { name: name.into() }, fds)
            .await
            .map(drop)
    }

    /// Copies of the descriptors kept under a name; empty when there are none.
    pub async fn fetch_fds(&self, name: &str) -> Result<Vec<OwnedFd>> {
        Ok(self
            .shared
            .client
            .call(Request::FetchFds { name: name.into() }, Vec::new())
            .await?
            .1)
    }

    /// Forgets the descriptors kept under a name.
    pub async fn drop_fds(&self, name: &str) -> Result<()> {
        self.shared
            .client
            .call(Request::DropFds { name: name.into() }, Vec::new())
            .await
            .map(drop)
    }

    /// Takes the node's own cgroup away, once no container runs.
    pub async fn remove_node_group(&self) {
        let shared = self.shared.clone();
        if shared.options.node_group.is_empty() {
            return;
        }
        let removed = blocking(move || crate::remove_node_group(&shared.options.node_group));
        if let Err(e) = removed.await {
            tracing::warn!("the node's cgroup stays: {e}");
        }
    }

    /// The daemon ends in good order: a keeper without running containers ends with it.
    pub async fn close(&self) -> Result<()> {
        self.shared.client.call(Request::Bye, Vec::new()).await.map(drop)
    }
}

/// What this machine and process can give.
fn machine(mounts: &Mounts) -> spec::Host {
    let hard = |r| {
        nix::sys::resource::getrlimit(r)
            .map(|(_, hard)| hard)
            .unwrap_or(u64::MAX)
    };
    let mut host = spec::Host {
        bounding: spec::caps::bounding(),
        oom_score_adj: std::fs::read_to_string("/proc/self/oom_score_adj")
            .ok()
            .and_then(|s| s.trim().parse().ok())
            .unwrap_or(0),
        cgroup_v2: mounts.is_v2(),
        seccomp: std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
            || std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("Seccomp:")),
        hard_limits: Vec::new(),
    };
    if host.bounding & 1 << spec::caps::bit("SYS_RESOURCE").unwrap_or(0) == 0 {
        use nix::sys::resource::Resource as R;
        host.hard_limits = vec![
            ("RLIMIT_AS", hard(R::RLIMIT_AS)),
            ("RLIMIT_CORE", hard(R::RLIMIT_CORE)),
            ("RLIMIT_CPU", hard(R::RLIMIT_CPU)),
            ("RLIMIT_DATA", hard(R::RLIMIT_DATA)),
            ("RLIMIT_FSIZE", hard(R::RLIMIT_FSIZE)),
            ("RLIMIT_LOCKS", hard(R::RLIMIT_LOCKS)),
            ("RLIMIT_MEMLOCK", hard(R::RLIMIT_MEMLOCK)),
            ("RLIMIT_MSGQUEUE", hard(R::RLIMIT_MSGQUEUE)),
            ("RLIMIT_NICE", hard(R::RLIMIT_NICE)),
            ("RLIMIT_NOFILE", hard(R::RLIMIT_NOFILE)),
            ("RLIMIT_NPROC", hard(R::RLIMIT_NPROC)),
            ("RLIMIT_RSS", hard(R::RLIMIT_RSS)),
            ("RLIMIT_RTPRIO", hard(R::RLIMIT_RTPRIO)),
            ("RLIMIT_RTTIME", hard(R::RLIMIT_RTTIME)),
            ("RLIMIT_SIGPENDING", hard(R::RLIMIT_SIGPENDING)),
        ];
    }
    host
}

/// Runs blocking work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}
