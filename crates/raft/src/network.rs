//! openraft's connections to other managers, out of a [`Transport`].
//!
//! openraft has one request to a manager under way at a time, and after each commit it asks with an empty append, so
//! that the other manager hears of the commit. The next entry would wait for that answer. So such news is sent beside
//! the entries, and not at all when an entry is about to carry it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::error::{
    Fatal, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, LogIdOptionExt, OptionalSend, Snapshot};

use crate::flush::{Disk, Way};
use crate::transport::{Request, Response, Transport, TransportError};
use crate::types::{LogId, NodeId, TypeConfig, Vote};

/// An empty append counts as answered when a real one was, at most this long ago: far less than any patience.
const FRESH: Duration = Duration::from_millis(80);
/// How often news of a commit lets other work of the thread go first, which may be about to send an entry.
const YIELDS: usize = 8;

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
    /// When an append was answered last, and up to where both logs were found the same.
    answered: Option<(Instant, Option<LogId>)>,
    /// So many committed entries the other one has been told of.
    told: Arc<AtomicU64>,
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
            answered: None,
            told: Arc::default(),
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

    /// Tells of a commit, unless an entry does so first. If it is lost, the next append tells.
    fn tell(&self, rpc: AppendEntriesRequest<TypeConfig>, option: &RPCOption) {
        let (told, disk, committed) = (self.told.clone(), self.disk.clone(), rpc.leader_commit);
        let news = committed.next_index();
        let (transport, target, address) = (self.transport.clone(), self.target, self.address.clone());
        let patience = option.hard_ttl();
        if told.load(Ordering::Relaxed) >= news {
            return;
        }
        tokio::spawn(async move {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if told.fetch_max(news, Ordering::Relaxed) < news && held(&disk, committed).await.is_ok() {
                let call = transport.call(target, &address, Request::Append(rpc));
                let _ = tokio::time::timeout(patience, call).await;
            }
        });
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
        let (last, committed) = (rpc.entries.last().map(|entry| entry.log_id), rpc.leader_commit);
        let matched = last.or(rpc.prev_log_id);
        if rpc.entries.is_empty()
            && self
                .answered
                .is_some_and(|(at, same)| same == matched && at.elapsed() < FRESH)
        {
            self.tell(rpc, &option);
            return Ok(AppendEntriesResponse::Success);
        }
        self.answered = None;
        self.told.fetch_max(committed.next_index(), Ordering::Relaxed);
        held(&self.disk, committed).await?;
        let asked = Instant::now();
        match self.call(Request::Append(rpc), &option).await? {
            Response::Append(answer) => {
                if let Ok(AppendEntriesResponse::Success) = answer {
                    self.answered = Some((asked, matched));
                }
                self.remote(answer)
            }
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
