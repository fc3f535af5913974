//! How managers reach each other.
//!
//! [`Transport`] is the seam: the cluster calls it with a [`Request`], and the other side passes what arrives to
//! [`Cluster::handle`](crate::Cluster::handle). [`LocalTransport`] connects clusters within one process (tests,
//! simulation). The one between hosts (mutual TLS on the node port) implements the same trait: `Append`, `Vote`,
//! `Submit` and `ReadIndex` are plain serde values, and a snapshot is streamed by [`SnapshotData::send`] and
//! [`SnapshotData::receive`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use tripod_store::TxnOk;

use crate::cluster::Inner;
use crate::snapshot::SnapshotData;
use crate::types::{NodeId, SnapshotMeta, TypeConfig, Vote};

/// A message to another manager.
#[derive(Debug)]
pub enum Request {
    /// Log entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A request for a vote.
    Vote(VoteRequest<NodeId>),
    /// A whole snapshot.
    Snapshot {
        /// The sender's vote.
        vote: Vote,
        /// What the snapshot covers.
        meta: SnapshotMeta,
        /// Its content.
        data: SnapshotData,
    },
    /// A transaction for the leader, encoded.
    Submit(Bytes),
    /// Up to which index must a reader have applied the log, to see all that was acknowledged before now?
    ReadIndex,
}

/// The answer to a [`Request`] of the same name.
#[derive(Debug)]
pub enum Response {
    /// To `Append`.
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    /// To `Vote`.
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    /// To `Snapshot`.
    Snapshot(Result<SnapshotResponse<NodeId>, Fatal<NodeId>>),
    /// To `Submit`.
    Submit(Result<TxnOk, crate::RemoteError>),
    /// To `ReadIndex`: the number of entries.
    ReadIndex(Result<u64, crate::RemoteError>),
}

/// The other manager did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The request was not sent: it has had no effect.
    #[error("{0}")]
    NotSent(String),
    /// The request may have had its effect.
    #[error("{0}")]
    Lost(String),
}

/// Carries requests to other managers and brings their answers.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request to a manager at the address it was added with.
    async fn call(&self, target: NodeId, address: &str, request: Request)
    -> Result<Response, TransportError>;
}

/// For a manager that is alone: reaches nobody.
pub struct NoTransport;

#[async_trait]
impl Transport for NoTransport {
    async fn call(&self, _: NodeId, address: &str, _: Request) -> Result<Response, TransportError> {
        Err(TransportError::NotSent(format!("no way to reach {address}")))
    }
}

/// Connects clusters within one process, with links that can be cut.
#[derive(Clone, Default)]
pub struct LocalTransport {
    shared: Arc<Mutex<Local>>,
    from: NodeId,
}

#[derive(Default)]
struct Local {
    nodes: BTreeMap<NodeId, Weak<Inner>>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl LocalTransport {
    /// The transport as one of the nodes sees it.
    pub fn of(&self, node: NodeId) -> Self {
        Self {
            shared: self.shared.clone(),
            from: node,
        }
    }

    /// Makes a cluster's handle reachable under its node's identity.
    pub fn register(&self, cluster: &crate::Cluster) {
        let mut local = self.shared.lock().expect("no panic while locked");
        local.nodes.insert(cluster.node_id(), Arc::downgrade(&cluster.0));
    }

    /// Cuts or restores all links of one node.
    pub fn isolate(&self, node: NodeId, cut: bool) {
        let mut local = self.shared.lock().expect("no panic while locked");
        let others: Vec<NodeId> = local
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != node)
            .collect();
        for pair in others
            .into_iter()
            .flat_map(|other| [(node, other), (other, node)])
        {
            match cut {
                true => local.cut.insert(pair),
                false => local.cut.remove(&pair),
            };
        }
    }

    fn find(&self, target: NodeId) -> Result<Arc<Inner>, TransportError> {
        let local = self.shared.lock().expect("no panic while locked");
        let found = local.nodes.get(&target).and_then(Weak::upgrade);
        found
            .filter(|_| !local.cut.contains(&(self.from, target)))
            .ok_or_else(|| TransportError::Lost(format!("node {target} is unreachable")))
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn call(&self, target: NodeId, _: &str, request: Request) -> Result<Response, TransportError> {
        let inner = self.find(target)?;
        let response = inner.handle(request).await;
        // A link that was cut meanwhile loses the answer.
        self.find(target)?;
        Ok(response)
    }
}
