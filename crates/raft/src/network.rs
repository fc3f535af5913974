//! openraft's connections to other managers, out of a [`Transport`].

use std::future::Future;
use std::sync::Arc;

use openraft::error::{
    Fatal, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Snapshot};

use crate::flush::{Disk, Way};
use crate::transport::{Request, Response, Transport, TransportError};
use crate::types::{LogId, NodeId, TypeConfig, Vote};

/// Makes the connections.
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

/// openraft counts this node's own disk as soon as an entry was written. Others may rely on it only when it was
/// flushed.
async fn held(disk: &Disk, committed: Option<LogId>) -> Result<(), Unreachable> {
    match committed {
        Some(committed) => disk
            .holds(committed.index)
            .await
            .map_err(|e| Unreachable::new(&e)),
        None => Ok(()),
    }
}

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
        held(&self.disk, rpc.leader_commit).await?;
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
