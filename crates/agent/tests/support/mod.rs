//! A machine in memory: doubles of the four ports that outlive the agent, and lives of the agent on it.
//!
//! Time stands still but for [`World::pass`]. Each life has a tokio runtime of its own; its end is that of a daemon
//! killed with SIGKILL: tasks stop where they are, the disk and the machine stay.

mod images;
mod net;
mod runtime;
mod script;
mod session;
mod volumes;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use tempfile::TempDir;
use tripod_agent::{
    Agent, ConnectRequest, ContainerRecord, CreateContainer, CreateNetwork, CreateVolume, Options,
};
use tripod_model::container::{ContainerSpec, ContainerStatus, EndpointRequest, Mount, MountKind};
use tripod_model::network::{NetworkSpec, Subnet};
use tripod_model::{Error, ErrorKind, Result};

pub use images::FakeImages;
pub use net::FakeNet;
pub use runtime::FakeRuntime;
pub use script::{Hold, Script};
pub use session::{FakeSession, in_session, overlay, task, with_state};
pub use volumes::FakeVolumes;

/// The volume that [`World::settle`] makes and removes.
const BARRIER: &str = "barrier";
/// A test that takes longer, in real time, waits for something that never happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine.
pub struct World {
    dir: TempDir,
    pub script: Arc<Script>,
    pub runtime: Arc<FakeRuntime>,
    pub net: Arc<FakeNet>,
    pub images: Arc<FakeImages>,
    pub volumes: Arc<FakeVolumes>,
}

impl World {
    pub fn new() -> Self {
        let script = Arc::new(Script::default());
        Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: Arc::new(FakeRuntime::new(script.clone())),
            net: Arc::new(FakeNet::new(script.clone())),
            images: Arc::new(FakeImages::new(script.clone())),
            volumes: Arc::new(FakeVolumes::new(script.clone())),
            script,
        }
    }

    /// Runs an agent on this machine for as long as `body` takes, then kills it.
    pub fn life<R>(&self, body: impl AsyncFnOnce(Agent) -> R) -> R {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        // While a blocking task is there, the clock does not move by itself when all wait for the disk.
        let (hold, held) = mpsc::channel::<()>();
        let out = tokio.block_on(async {
            let overdue = tokio::task::spawn_blocking(move || {
                held.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout)
            });
            let hold = hold;
            // Each daemon counts the users of volumes anew.
            self.volumes.reset();
            let agent = self.open().await;
            let out = tokio::select! {
                out = body(agent) => out,
                _ = overdue => panic!("the test waits for what never happens; calls: {:#?}", self.script.calls()),
            };
            drop(hold);
            out
        });
        drop(tokio);
        assert_eq!(self.script.faults(), Vec::<String>::new());
        out
    }

    async fn open(&self) -> Agent {
        loop {
            let options = Options {
                root: self.dir.path().join("root"),
                run_dir: self.dir.path().join("run"),
                hostname: "host".into(),
                address_pools: Vec::new(),
            };
            let ports = tripod_agent::Ports {
                runtime: self.runtime.clone(),
                net: self.net.clone(),
                images: self.images.clone(),
                volumes: self.volumes.clone(),
            };
            match Agent::open(options, ports).await {
                Ok(agent) => return agent,
                // The thread that wrote for the agent before lets go of the file in a moment.
                Err(e) if e.message.starts_with("cannot open") => tokio::task::yield_now().await,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The machine is rebooted between two lives.
    pub fn reboot(&self) {
        self.runtime.reboot();
        self.net.reboot();
    }

    /// Lets everything happen that can happen without time passing.
    pub async fn settle(&self, agent: &Agent) {
        for _ in 0..4 {
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
            // Comes back after all that waited for the disk before.
            let request = CreateVolume {
                name: BARRIER.into(),
                ..CreateVolume::default()
            };
            agent.create_volume(request).await.unwrap();
            agent.remove_volume(BARRIER, true).await.unwrap();
        }
    }

    /// Lets time pass, and everything happen that then happens.
    pub async fn pass(&self, agent: &Agent, time: Duration) {
        self.settle(agent).await;
        self.script.pass(time);
        tokio::time::advance(time).await;
        self.settle(agent).await;
    }

    /// Directories of containers, and of the files injected into them.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["root/containers", "run/files"] {
            for entry in std::fs::read_dir(self.dir.path().join(dir)).into_iter().flatten() {
                found.push(format!("{dir}/{}", entry.unwrap().file_name().display()));
            }
        }
        found
    }

    /// Asserts that nothing of a run is left: no process, sandbox, mount, use of a volume, injected file.
    pub fn assert_down(&self, id: &str) {
        assert!(self.runtime.process(id).is_none(), "a process is left");
        assert!(self.net.sandbox(id).is_none(), "a sandbox is left");
        assert_ne!(self.images.mounted(id), Some(true), "the root is still mounted");
        let used: Vec<_> = self.volumes.all().into_iter().filter(|(_, n)| *n > 0).collect();
        assert!(used.is_empty(), "volumes are still mounted: {used:?}");
        let files = self.files();
        assert!(!files.contains(&format!("run/files/{id}")), "secrets are left");
    }

    /// Asserts that nothing of a container is left.
    pub fn assert_gone(&self, id: &str) {
        self.assert_down(id);
        assert_eq!(self.images.mounted(id), None, "a snapshot is left");
        assert_eq!(self.files(), Vec::<String>::new());
    }
}

/// A container of the image `web` that runs `serve`.
pub fn spec() -> ContainerSpec {
    ContainerSpec {
        image: "web".into(),
        command: vec!["serve".into()],
        ..ContainerSpec::default()
    }
}

/// The same, on a network, with an address when one is given.
pub fn spec_on(network: &str, address: Option<&str>) -> ContainerSpec {
    let mut spec = spec();
    spec.network.mode = network.into();
    spec.network.endpoints = vec![EndpointRequest {
        network: network.into(),
        ipv4: address.map(|a| a.parse().unwrap()),
        ..EndpointRequest::default()
    }];
    spec
}

/// Publishes port 80 on a port of the host.
pub fn publish(mut spec: ContainerSpec, host_port: u16) -> ContainerSpec {
    spec.network
        .port_bindings
        .push(tripod_model::container::PortBinding {
            target: tripod_agent::parse_port("80/tcp").unwrap(),
            host_ip: None,
            host_port,
            host_port_end: 0,
        });
    spec
}

/// A volume of that name (an anonymous one when it is empty) at a path.
pub fn volume_at(name: &str, target: &str) -> Mount {
    Mount {
        kind: MountKind::Volume,
        source: name.into(),
        target: target.into(),
        ..Mount::default()
    }
}

/// Makes a container.
pub async fn create(agent: &Agent, name: &str, spec: ContainerSpec) -> Result<String> {
    let request = CreateContainer {
        name: Some(name.into()),
        spec,
        ..CreateContainer::default()
    };
    Ok(agent.create_container(request).await?.id)
}

/// Makes a container and starts it.
pub async fn run(agent: &Agent, name: &str, spec: ContainerSpec) -> String {
    let id = create(agent, name, spec).await.unwrap();
    agent.start_container(&id).await.unwrap();
    id
}

/// Makes a bridge network with a subnet.
pub async fn network(agent: &Agent, name: &str, subnet: &str) -> Arc<NetworkSpec> {
    let request = CreateNetwork {
        name: name.into(),
        subnets: vec![Subnet {
            subnet: subnet.parse().unwrap(),
            gateway: None,
            ip_range: None,
            aux_addresses: Default::default(),
        }],
        ..CreateNetwork::default()
    };
    agent.create_network(request).await.unwrap()
}

/// A wish to connect a container.
pub fn connect(container: &str, address: Option<&str>) -> ConnectRequest {
    ConnectRequest {
        container: container.into(),
        endpoint: EndpointRequest {
            ipv4: address.map(|a| a.parse().unwrap()),
            ..EndpointRequest::default()
        },
    }
}

/// Waits until a container's record is as wanted.
pub async fn until(
    agent: &Agent,
    id: &str,
    wanted: impl FnMut(&Arc<ContainerRecord>) -> bool,
) -> Arc<ContainerRecord> {
    let mut changes = agent.watch_container(id).unwrap();
    changes.wait_for(wanted).await.expect("it is not removed").clone()
}

/// Waits until a container is in this condition.
pub async fn until_status(agent: &Agent, id: &str, status: ContainerStatus) -> Arc<ContainerRecord> {
    until(agent, id, |r| r.state.status == status).await
}

/// The condition of a container.
pub fn status(agent: &Agent, id: &str) -> ContainerStatus {
    agent.container(id).unwrap().state.status
}

/// The address of a container in its first network.
pub fn address(agent: &Agent, id: &str) -> String {
    let record = agent.container(id).unwrap();
    record.endpoints[0]
        .ipv4
        .map_or(String::new(), |n| n.addr().to_string())
}

/// Asserts the kind of a failure and gives its text.
pub fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> String {
    let Error {
        kind: is, message, ..
    } = result.expect_err("it must fail");
    assert_eq!(is, kind, "{message}");
    message
}
