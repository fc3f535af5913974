//! The Docker Engine API, 1.24 to 1.50, Swarm mode included.
//!
//! A request passes [`router`] (version, path), a handler in the module of its kind of object, and `translate`, which
//! turns the dialect's words into the neutral ones of `tripod-model`. Local containers are the agent's; everything of
//! Swarm mode is in `swarm`.

// `json!` takes a level for each field of an object, and `info` has many.
#![recursion_limit = "256"]

mod call;
mod containers;
mod decode;
mod disk;
mod events;
mod execs;
mod fault;
mod framing;
mod hijack;
mod images;
mod networks;
mod progress;
mod query;
mod reply;
mod router;
mod swarm;
mod system;
mod translate;
mod volumes;
mod websocket;
mod when;
mod wire;

use std::sync::Arc;

use tripod_agent::Agent;
use tripod_agent::host::HostFacts;
use tripod_edge::{Handler, Peer, Request, Response};
use tripod_engine::Engine;

/// Facts about this daemon that the API tells.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Version of the daemon, such as `0.1.0`.
    pub version: String,
    /// Commit that it was built from, or empty.
    pub commit: String,
    /// When it was built, RFC 3339, or empty.
    pub build_time: String,
    /// Identifier of the daemon, kept over restarts.
    pub id: String,
    /// The data root.
    pub root: String,
    /// Labels of the daemon.
    pub labels: Vec<String>,
}

/// The API over one daemon; cheap to clone.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    agent: Agent,
    identity: Identity,
    host: HostFacts,
    swarm: swarm::Swarm,
    /// Clients that listen to events.
    listeners: Arc<()>,
}

impl Docker {
    /// The API over this agent and engine.
    pub fn new(agent: Agent, engine: Engine, identity: Identity) -> Self {
        let (host, swarm) = (HostFacts::read(), swarm::Swarm::new(engine));
        Self {
            inner: Arc::new(Inner {
                agent,
                identity,
                host,
                swarm,
                listeners: Arc::default(),
            }),
        }
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.inner.agent
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn host(&self) -> &HostFacts {
        &self.inner.host
    }

    /// A token that a client holds while it listens to events.
    pub(crate) fn listening(&self) -> Arc<()> {
        Arc::clone(&self.inner.listeners)
    }

    /// How many clients listen to events.
    pub(crate) fn listeners(&self) -> usize {
        Arc::strong_count(&self.inner.listeners) - 1
    }

    pub(crate) fn swarm(&self) -> &swarm::Swarm {
        &self.inner.swarm
    }
}

impl Handler for Docker {
    async fn handle(&self, request: Request, peer: Arc<Peer>) -> Response {
        router::handle(self, request, peer).await
    }
}
