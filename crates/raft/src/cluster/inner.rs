//! What a manager does for others: answers of its own store, and requests to the leader.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError as CoreError};
use openraft::{BasicNode, LogIdOptionExt, Snapshot};
use tokio::sync::oneshot;
use tripod_store::{State, TxnOk};

use super::{Inner, PINS, Pin};
use crate::error::RaftError;
use crate::proposer::Pending;
use crate::transport::{Request, Response, TransportError};
use crate::types::NodeId;

impl Inner {
    /// Keeps a state while lists read from it: called after each page, with whether it was a later page of its list,
    /// and whether more follow.
    pub(super) fn pin(&self, state: &Arc<State>, later: bool, more: bool) {
        if later == more {
            // Goes on, or was complete in one page.
            return;
        }
        let mut pins = self.pins.lock().expect("no panic while locked");
        match pins
            .iter()
            .position(|pin| pin.state.revision() == state.revision())
        {
            Some(at) if more => pins[at].lists += 1,
            Some(at) if pins[at].lists > 1 => pins[at].lists -= 1,
            Some(at) => drop(pins.remove(at)),
            None if more => pins.push_back(Pin {
                since: Instant::now(),
                state: state.clone(),
                lists: 1,
            }),
            None => {}
        }
        while pins.len() > PINS {
            pins.pop_front();
        }
    }

    pub(super) async fn submit_here(&self, txn: Bytes) -> Result<TxnOk, RaftError> {
        let (reply, outcome) = oneshot::channel();
        self.queue
            .send(Pending { txn, reply })
            .await
            .map_err(|_| RaftError::Closed)?;
        let mut leadership = self.leadership.clone();
        let deserted = async {
            let led = leadership
                .wait_for(|known| known.leader == Some(self.node))
                .await
                .is_ok();
            if !led || leadership.wait_for(|known| known.leader.is_none()).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            outcome = outcome => outcome.map_err(|_| RaftError::Closed)?,
            () = deserted => Err(RaftError::Unreachable("too few managers answer".into())),
        }
    }

    pub(super) async fn read_index_here(&self) -> Result<u64, RaftError> {
        {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let mut voters = metrics.membership_config.membership().voter_ids();
            let alone = voters.next() == Some(self.node) && voters.next().is_none();
            if alone && metrics.current_leader == Some(self.node) && metrics.running_state.is_ok() {
                // Nobody else could have acknowledged anything, and what this one did it has applied.
                return Ok(0);
            }
        }
        match self.raft.ensure_linearizable().await {
            Ok(log_id) => Ok(log_id.next_index()),
            Err(CoreError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                Err(RaftError::NotLeader { leader: to.leader_id })
            }
            Err(CoreError::APIError(CheckIsLeaderError::QuorumNotEnough(e))) => {
                Err(RaftError::Unreachable(e.to_string()))
            }
            Err(CoreError::Fatal(_)) => Err(RaftError::Closed),
        }
    }

    pub(super) async fn ask(&self, target: NodeId, request: Request) -> Result<Response, RaftError> {
        let address = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            metrics
                .membership_config
                .membership()
                .get_node(&target)
                .map(|node| node.addr.clone())
        };
        let address = address.ok_or(RaftError::NotLeader { leader: None })?;
        match self.transport.call(target, &address, request).await {
            Ok(answer) => Ok(answer),
            // It never left this manager, so nothing was changed.
            Err(TransportError::NotSent(_)) => Err(RaftError::NotLeader { leader: Some(target) }),
            Err(e @ TransportError::Lost(_)) => Err(RaftError::Unreachable(e.to_string())),
        }
    }

    pub(crate) async fn handle(&self, request: Request) -> Response {
        match request {
            Request::Append(rpc) => Response::Append(self.raft.append_entries(rpc).await),
            Request::Vote(rpc) => Response::Vote(self.raft.vote(rpc).await),
            Request::Snapshot { vote, meta, data } => {
                let snapshot = Snapshot {
                    meta,
                    snapshot: Box::new(data),
                };
                Response::Snapshot(self.raft.install_full_snapshot(vote, snapshot).await)
            }
            Request::Submit(txn) => Response::Submit(self.submit_here(txn).await.map_err(Into::into)),
            Request::ReadIndex => Response::ReadIndex(self.read_index_here().await.map_err(Into::into)),
        }
    }
}

pub(super) fn membership_error(error: CoreError<NodeId, ClientWriteError<NodeId, BasicNode>>) -> RaftError {
    match error {
        CoreError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            RaftError::NotLeader { leader: to.leader_id }
        }
        CoreError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
            RaftError::Membership(e.to_string())
        }
        CoreError::Fatal(_) => RaftError::Closed,
    }
}
