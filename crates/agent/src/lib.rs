//! A node's containers made real through narrow ports, and the node-local store.
//!
//! [`Agent`] is the facade: the Docker API drives local containers through it, and the cluster's assignments drive
//! pods through it. Both take the same path to the machine.

mod containers;
mod door;
mod events;
mod exec;
mod files;
mod health;
pub mod host;
mod images;
mod kube;
mod lifecycle;
mod links;
mod merge;
mod mounts;
mod names;
mod networks;
pub mod pods;

pub mod ports;
mod prune;
mod record;
mod restart;
pub mod signals;
mod store;
mod streams;
mod table;
mod update;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

pub use containers::{CreateContainer, Created};
pub use door::ProcessStreams;
pub use events::Events;
pub use images::ClusterImages;
pub use lifecycle::StopOptions;
pub use merge::{clean as clean_path, parse_port};
pub use names::{generate as generate_name, new_id};
pub use networks::{ClusterNetworks, ConnectRequest, CreateNetwork, NetworkRecord};
pub use prune::Pruned;
pub use record::{ContainerRecord, ExecRecord, MountPoint, Owner};
pub use streams::WaitCondition;
pub use update::{RemoveOptions, UpdateContainer};
pub use volumes::CreateVolume;

use ports::{Images, Net, Runtime, Volumes};
use tripod_model::Result;

/// Where the agent keeps its things.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the node's store and of the containers' files.
    pub root: PathBuf,
    /// Directory for running state, on a filesystem in memory where the machine has one.
    pub run_dir: PathBuf,
    /// Name of this host.
    pub hostname: String,
    /// Pools from which local networks take their subnets; empty is Docker's default.
    pub address_pools: Vec<(ipnet::Ipv4Net, u8)>,
}

/// The ports through which the agent touches the machine.
#[derive(Clone)]
pub struct Ports {
    /// Processes.
    pub runtime: Arc<dyn Runtime>,
    /// Networks.
    pub net: Arc<dyn Net>,
    /// Images.
    pub images: Arc<dyn Images>,
    /// Volumes.
    pub volumes: Arc<dyn Volumes>,
}

/// The node's agent; cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    ports: Ports,
    store: store::LocalStore,
    table: table::Table,
    networks: networks::Networks,
    volumes: volumes::VolumeTable,
    execs: exec::Execs,
    readings: door::Readings,
    pods: kube::PodTable,
    fetching: images::Fetching,
    events: Events,
}

impl Agent {
    /// Opens the node's store, takes over what runs, removes what nobody owns, and starts what is to run with the
    /// daemon.
    pub async fn open(options: Options, ports: Ports) -> Result<Self> {
        std::fs::create_dir_all(options.root.join("containers"))?;
        let store = store::LocalStore::open(&options.root.join("node.redb"))?;
        let agent = Self {
            inner: Arc::new(Inner {
                table: table::Table::default(),
                networks: networks::Networks::default(),
                volumes: volumes::VolumeTable::default(),
                execs: exec::Execs::default(),
                readings: door::Readings::default(),
                pods: kube::PodTable::default(),
                fetching: images::Fetching::default(),
                events: Events::default(),
                options,
                ports,
                store,
            }),
        };
        agent.load_volumes()?;
        agent.load_networks().await?;
        agent.follow_images();
        agent.recover().await?;
        Ok(agent)
    }

    /// Makes events of the changes of the image store.
    fn follow_images(&self) {
        use futures::StreamExt as _;
        let agent = self.clone();
        let mut changes = self.images().events();
        tokio::spawn(async move {
            while let Some((action, id, attributes)) = changes.next().await {
                agent
                    .inner
                    .events
                    .emit("image", &action, &id, attributes.into_iter().collect());
            }
        });
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The port to images, for what needs no container.
    pub fn images(&self) -> &Arc<dyn Images> {
        &self.inner.ports.images
    }

    /// The port to processes.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.inner.ports.runtime
    }

    /// The port to networks.
    pub fn net(&self) -> &Arc<dyn Net> {
        &self.inner.ports.net
    }

    /// The node's events.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
}
