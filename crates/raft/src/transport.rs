//! How managers reach each other.
//!
//! [`Transport`] is the seam: the cluster calls it with a [`Request`], and the other side passes what arrives to
//! [`Cluster::handle`](crate::Cluster::handle). [`LocalTransport`] connects clusters within one process (tests,
//! simulation). The one between hosts (mutual TLS on the node port) implements the same trait: `Append`, `Vote`,
//! `Submit` and `ReadIndex` are plain serde values, and a snapshot is streamed by [`SnapshotData::send`] and
//! [`SnapshotData::receive`].

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::error::{
    Fatal, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Snapshot};
use tripod_store::TxnOk;

use crate::cluster::Inner;
use crate::flush::{Disk, Way};
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

/// Makes openraft's connections out of a [`Transport`].
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) disk: Disk,
}

pub(crate) struct Connection {
    transport: Arc<dyn Transport>,
    target: NodeId,
    address: String,
    disk: Disk,
    _way: Way,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Connection {
        Connection {
            transport: self.transport.clone(),
            target,
            address: node.addr.clone(),
            disk: self.disk.clone(),
            _way: self.disk.way(),
        }
    }
}

type RpcResult<T> = Result<T, RPCError<NodeId, BasicNode, RaftError<NodeId>>>;

fn mismatch() -> TransportError {
    TransportError::Lost("an answer to another request".into())
}

impl Connection {
    async fn call(&self, request: Request, option: &RPCOption) -> Result<Response, Unreachable> {
        let call = self.transport.call(self.target, &self.address, request);
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(answer) => answer.map_err(|e| Unreachable::new(&e)),
            Err(late) => Err(Unreachable::new(&late)),
        }
    }

    #[allow(clippy::result_large_err, reason = "openraft's own type")]
    fn remote<T>(&self, answer: Result<T, RaftError<NodeId>>) -> RpcResult<T> {
        answer.map_err(|e| RPCError::RemoteError(RemoteError::new(self.target, e)))
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<NodeId>> {
        if let Some(committed) = rpc.leader_commit {
            // openraft counts this node's own disk as soon as an entry was written; others may rely on it only when
            // it was flushed.
            let held = self.disk.holds(committed.index).await;
            held.map_err(|e| Unreachable::new(&e))?;
        }
        match self.call(Request::Append(rpc), &option).await? {
            Response::Append(answer) => self.remote(answer),
            _ => Err(Unreachable::new(&mismatch()).into()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<NodeId>, option: RPCOption) -> RpcResult<VoteResponse<NodeId>> {
        match self.call(Request::Vote(rpc), &option).await? {
            Response::Vote(answer) => self.remote(answer),
            _ => Err(Unreachable::new(&mismatch()).into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let request = Request::Snapshot {
            vote,
            meta: snapshot.meta,
            data: *snapshot.snapshot,
        };
        // No deadline: how long it takes depends on its size. Cancelled when the leader steps down.
        let answer = tokio::select! {
            answer = self.transport.call(self.target, &self.address, request) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Ok(Response::Snapshot(Ok(done))) => Ok(done),
            Ok(Response::Snapshot(Err(e))) => {
                Err(StreamingError::RemoteError(RemoteError::new(self.target, e)))
            }
            Ok(_) => Err(StreamingError::Unreachable(Unreachable::new(&mismatch()))),
            Err(e) => Err(StreamingError::Unreachable(Unreachable::new(&e))),
        }
    }
}
