//! Several daemons in one process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tripod_engine::{Engine, InitRequest, JoinRequest, Manager, Membership, Options};
use tripod_model::node::{NodeRole, NodeState, NodeSwarmSpec};

use super::{PATIENCE, options};

/// A daemon, and something that holds its sessions.
pub struct Host {
    pub dir: TempDir,
    pub port: u16,
    pub name: String,
    pub engine: Engine,
    pub agent: tokio::task::JoinHandle<()>,
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn options_of(name: &str, port: u16) -> Options {
    let mut options = options();
    options.description.hostname = name.into();
    options.node_listen = Some(([127, 0, 0, 1], port).into());
    options
}

/// Opens one session after the other, and takes what is assigned.
pub async fn hold_sessions(engine: Engine) {
    let mut membership = engine.watch_membership();
    loop {
        if membership.wait_for(|m| *m == Membership::Active).await.is_err() {
            return;
        }
        if let Ok(session) = engine.open_session().await {
            while let Ok(assignment) = session.next().await {
                if session.acknowledge(assignment.revision).await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Host {
    pub async fn new(name: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let engine = Engine::open(dir.path(), options_of(name, port)).await.unwrap();
        let agent = tokio::spawn(hold_sessions(engine.clone()));
        Self {
            dir,
            port,
            name: name.into(),
            engine,
            agent,
        }
    }

    pub async fn first() -> Self {
        let host = Self::new("h1").await;
        let request = InitRequest {
            advertise_addr: format!("127.0.0.1:{}", host.port),
            ..InitRequest::default()
        };
        host.engine.swarm_init(request).await.unwrap();
        host
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn manager(&self) -> Arc<Manager> {
        self.engine.manager().unwrap()
    }

    pub fn request(&self, to: &Host, token: &str) -> JoinRequest {
        JoinRequest {
            advertise_addr: self.address(),
            remote_addrs: vec![to.address()],
            join_token: token.into(),
            ..JoinRequest::default()
        }
    }

    pub async fn join(&self, to: &Host, role: NodeRole) {
        let status = to.manager().swarm_inspect().unwrap().status;
        let token = match role {
            NodeRole::Worker => status.worker_token,
            NodeRole::Manager => status.manager_token,
        };
        self.engine.swarm_join(self.request(to, &token)).await.unwrap();
    }

    /// The process ends; what is on the disk stays.
    pub async fn stop(&mut self) {
        self.agent.abort();
        self.engine.shutdown().await;
    }

    pub async fn start_again(&mut self) {
        self.engine = Engine::open(self.dir.path(), options_of(&self.name, self.port))
            .await
            .unwrap();
        self.agent = tokio::spawn(hold_sessions(self.engine.clone()));
    }
}

/// Waits until a look at a host gives something.
pub async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn state_of(manager: &Manager, id: &str) -> NodeState {
    manager.node(id).unwrap().status.state
}

pub async fn leader_among(hosts: &[&Host]) -> usize {
    until("a leader", || {
        hosts
            .iter()
            .position(|h| h.engine.manager().is_ok_and(|m| m.leads()))
    })
    .await
}

pub async fn set_role(at: &Host, of: &Host, role: NodeRole) {
    let manager = at.manager();
    let node = manager.node(&of.engine.node_id()).unwrap();
    let spec = NodeSwarmSpec {
        role,
        ..node.spec.swarm.clone()
    };
    manager
        .node_update(&of.engine.node_id(), node.metadata.revision(), spec)
        .await
        .unwrap();
}
