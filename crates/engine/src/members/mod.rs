//! Who belongs to the cluster: joining, certificates, roles, the managers' group, and sessions over the network.

mod answers;
pub(crate) mod client;
pub(crate) mod connections;
mod group;
pub(crate) mod host;
mod tend;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) use answers::{attend, denied, no_leader, no_leader_because};
use async_trait::async_trait;
use ipnet::IpNet;
use tripod_model::Result;
use tripod_model::image::HeldImages;
use tripod_model::node::{Node, NodeRole};
use tripod_model::session::{Assignment, PodReport, Token, TokenRequest};

use crate::link::message::Settings;
use crate::request::RemoteManager;

/// A node's session with the cluster's leader, in this process or over the network.
#[async_trait]
pub trait LeaderSession: Send + Sync + 'static {
    /// The next assignment; the first is full.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when the session is over: another follows.
    async fn next(&self) -> Result<Assignment>;
    /// Tells the states of pods.
    ///
    /// # Errors
    /// As [`LeaderSession::next`].
    async fn report(&self, reports: Vec<PodReport>) -> Result<()>;
    /// The node has applied the network part of the assignment of this revision.
    ///
    /// # Errors
    /// As [`LeaderSession::next`].
    async fn acknowledge(&self, revision: u64) -> Result<()>;
    /// The cluster networks (identifiers) to which local containers of the node are attached.
    fn attach(&self, networks: BTreeSet<String>);
    /// An address for a local container (`owner`) in an attachable cluster network.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`] for the network, [`tripod_model::ErrorKind::Forbidden`] when it is not
    /// attachable or the address is taken.
    async fn lease(&self, owner: &str, network: &str, wanted: Option<IpAddr>) -> Result<IpNet>;
    /// A token of a service account for one of the node's pods.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Forbidden`] when the pod is not the node's, or what the issuer says.
    async fn token(&self, request: TokenRequest) -> Result<Token>;
    /// What changed of the images that the node has; at first, all of them.
    ///
    /// # Errors
    /// As [`LeaderSession::next`].
    fn images(&self, change: HeldImages) -> Result<()>;
    /// Gives the addresses of a local container back.
    fn release(&self, owner: &str);
}

/// What all nodes are told of the cluster, and who is in the managers' group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) managers: Vec<RemoteManager>,
    pub(crate) heartbeat_ms: u64,
    pub(crate) roots: String,
    pub(crate) issuer: String,
    /// Numbers in the Raft group.
    pub(crate) group: BTreeSet<u64>,
}

impl Common {
    /// What a node is told.
    pub(crate) fn settings(&self, node: Option<&Node>) -> Settings {
        Settings {
            role: node.map_or(NodeRole::Worker, |node| self.role(node)),
            managers: self.managers.clone(),
            heartbeat_ms: self.heartbeat_ms,
            roots: self.roots.clone(),
            issuer: self.issuer.clone(),
        }
    }

    /// The role that a node is to have now: who is to be a worker stays a manager until it has left the group.
    pub(crate) fn role(&self, node: &Node) -> NodeRole {
        let manager = node.status.manager.as_ref();
        match node.spec.swarm.role {
            NodeRole::Worker if manager.is_some_and(|m| self.group.contains(&m.raft_id)) => NodeRole::Manager,
            role => role,
        }
    }
}
