//! The one proposer: drains the queue of waiting transactions into a single log entry.
//!
//! While an entry is on its way to the disk, transactions gather; the next entry takes all of them. So sixteen
//! writers cost about as many disk flushes as one.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError as CoreError};
use tokio::sync::{mpsc, oneshot};
use tripod_store::TxnOk;

use crate::error::RaftError;
use crate::log_store::LogStore;
use crate::types::{Proposal, TypeConfig};

/// The largest encoded transaction.
pub(crate) const MAX_TXN: usize = 16 << 20;
/// An entry takes no further transaction once it has this size; bounds memory and the time to replicate it.
const MAX_ENTRY: usize = 1 << 20;
/// An entry takes at most this many transactions.
const MAX_TXNS: usize = 1024;
/// How many entries may be on their way at once. More than one keeps a distant majority busy; on one machine it would
/// only make the entries smaller.
const WINDOW: usize = 1;

/// A transaction that waits for its outcome.
pub(crate) struct Pending {
    /// Encoded.
    pub(crate) txn: Bytes,
    pub(crate) reply: oneshot::Sender<Result<TxnOk, RaftError>>,
}

pub(crate) struct Proposer {
    pub(crate) raft: Raft<TypeConfig>,
    pub(crate) log: LogStore,
    /// A snapshot is asked for when the log exceeds this.
    pub(crate) max_log_bytes: u64,
}

impl Proposer {
    /// Runs until all senders are gone.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<Pending>) {
        let (mut waiting, mut arrived) = (VecDeque::new(), Vec::new());
        let mut flights = FuturesUnordered::new();
        let mut snapshot_asked_at = 0;
        loop {
            while flights.len() < WINDOW && !waiting.is_empty() {
                let batch = take_batch(&mut waiting);
                flights.push(self.propose(batch));
                self.bound_log(&mut snapshot_asked_at).await;
            }
            tokio::select! {
                biased;
                Some(()) = flights.next(), if !flights.is_empty() => {}
                count = queue.recv_many(&mut arrived, MAX_TXNS), if waiting.len() < MAX_TXNS => {
                    if count == 0 {
                        break;
                    }
                    waiting.extend(arrived.drain(..));
                }
            }
        }
        while flights.next().await.is_some() {}
    }

    /// Proposes one entry and hands out its results.
    async fn propose(&self, batch: Vec<Pending>) {
        let proposal = Proposal::new(batch.iter().map(|pending| &pending.txn));
        let reserved = self.log.lock().reserve(proposal.0.len());
        let outcome = match reserved {
            Ok(()) => self.raft.client_write(proposal).await.map_err(|e| translate(&e)),
            Err(RaftError::StorageFull(e)) => Err(Refusal::Full(e.to_string())),
            Err(e) => Err(Refusal::Full(e.to_string())),
        };
        match outcome {
            Ok(written) => {
                for (pending, result) in batch.into_iter().zip(written.data.0) {
                    // A caller that went away does not want its answer.
                    let _ = pending.reply.send(result.map_err(RaftError::Rejected));
                }
            }
            Err(refusal) => {
                for pending in batch {
                    let _ = pending.reply.send(Err(refusal.error()));
                }
            }
        }
    }

    /// Asks for a snapshot when the log has grown large in few entries.
    async fn bound_log(&self, asked_at: &mut u64) {
        let bytes = self.log.lock().bytes();
        if bytes < *asked_at {
            // Purged since.
            *asked_at = 0;
        }
        if bytes > self.max_log_bytes.max(*asked_at + self.max_log_bytes / 2) {
            *asked_at = bytes;
            // Fails only when openraft has stopped, which the next proposal reports.
            let _ = self.raft.trigger().snapshot().await;
        }
    }
}

fn take_batch(waiting: &mut VecDeque<Pending>) -> Vec<Pending> {
    let (mut batch, mut size) = (Vec::new(), 0);
    while waiting
        .front()
        .is_some_and(|next| size == 0 || size + next.txn.len() <= MAX_ENTRY)
    {
        let Some(next) = waiting.pop_front() else { break };
        size += next.txn.len();
        batch.push(next);
        if batch.len() == MAX_TXNS {
            break;
        }
    }
    batch
}

enum Refusal {
    NotLeader(Option<u64>),
    Full(String),
    Closed,
}

impl Refusal {
    fn error(&self) -> RaftError {
        match self {
            Self::NotLeader(leader) => RaftError::NotLeader { leader: *leader },
            Self::Full(e) => {
                RaftError::StorageFull(std::io::Error::new(std::io::ErrorKind::StorageFull, e.clone()))
            }
            Self::Closed => RaftError::Closed,
        }
    }
}

fn translate(error: &CoreError<u64, ClientWriteError<u64, openraft::BasicNode>>) -> Refusal {
    match error {
        CoreError::APIError(ClientWriteError::ForwardToLeader(to)) => Refusal::NotLeader(to.leader_id),
        CoreError::APIError(ClientWriteError::ChangeMembershipError(_)) => Refusal::NotLeader(None),
        CoreError::Fatal(_) => Refusal::Closed,
    }
}
