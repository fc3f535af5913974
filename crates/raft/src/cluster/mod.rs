//! One manager's part of the replicated store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::error::{InitializeError, RaftError as CoreError};
use openraft::{BasicNode, ChangeMembers, LogIdOptionExt, Raft};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tripod_store::{Gone, List, ListQuery, State, Txn, TxnOk, WatchFilter};

use crate::crypt::Keyring;
use crate::error::RaftError;
use crate::log_store::LogStore;
use crate::machine::Published;
use crate::metrics::{Leadership, Metrics};
use crate::options::Options;
use crate::proposer::{self, Pending};
use crate::thread::{Started, StoreThread, store_thread};
use crate::transport::{Request, Response, Transport};
use crate::types::{NodeId, TypeConfig};
use crate::watch::Watch;
use inner::membership_error;

mod inner;

/// How long a write waits for somebody to lead.
const ELECTION: Duration = Duration::from_secs(8);
/// How long a writer waits for news of an election before it asks again.
const ELECTION_STEP: Duration = Duration::from_millis(100);
/// How long a write made through the leader may take to be applied here too.
const FOLLOW: Duration = Duration::from_secs(2);
/// Transactions that may wait in the queue before writers have to.
const QUEUE: usize = 1024;
/// Unfinished paged lists whose snapshot is kept.
const PINS: usize = 8;
/// How long an unfinished paged list is kept at most.
const PIN_AGE: Duration = Duration::from_secs(300);
/// How long a freshly opened group of one may take to apply its log.
const REPLAY: Duration = Duration::from_secs(120);

/// A handle on the store. Clones are the same store.
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    node: NodeId,
    raft: Raft<TypeConfig>,
    published: Arc<Published>,
    queue: mpsc::Sender<Pending>,
    log: LogStore,
    keyring: Arc<Keyring>,
    transport: Arc<dyn Transport>,
    leadership: channel::Receiver<Leadership>,
    pins: Mutex<VecDeque<Pin>>,
    thread: Mutex<Option<StoreThread>>,
    runtime: tokio::runtime::Handle,
}

/// A state that unfinished lists read from.
#[derive(Clone)]
struct Pin {
    since: Instant,
    state: Arc<State>,
    lists: usize,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.0.node)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens the store in `dir`, or makes an empty one that belongs to no cluster yet. A group of one has applied all
    /// its log when this returns.
    ///
    /// # Errors
    /// [`RaftError::Locked`], [`RaftError::Busy`], [`RaftError::Corrupt`], or those of the file system.
    pub async fn open(dir: impl AsRef<Path>, node: NodeId, options: Options) -> Result<Self, RaftError> {
        let (dir, transport) = (dir.as_ref().to_owned(), options.transport.clone());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let handle = std::thread::Builder::new()
            .name("store".into())
            .spawn({
                let dir = dir.clone();
                move || store_thread(&dir, node, &options, waiting, started, stopped)
            })
            .map_err(RaftError::io(&dir))?;
        let Started {
            raft,
            published,
            log,
            keyring,
            leadership,
            runtime,
        } = start.await.map_err(|_| RaftError::Closed)??;
        let cluster = Self(Arc::new(Inner {
            node,
            raft,
            published,
            queue,
            log,
            keyring,
            transport,
            leadership,
            pins: Mutex::default(),
            thread: Mutex::new(Some(StoreThread { stop, handle })),
            runtime,
        }));
        cluster.catch_up().await?;
        Ok(cluster)
    }

    /// A group of one needs nobody's consent to lead and to apply what its log holds.
    async fn catch_up(&self) -> Result<(), RaftError> {
        let (raft, node) = (&self.0.raft, self.0.node);
        // Asked from the core itself: metrics may be a moment behind.
        let voters = raft.with_raft_state(|state| {
            state
                .membership_state
                .effective()
                .membership()
                .voter_ids()
                .collect::<BTreeSet<NodeId>>()
        });
        if voters.await.map_err(|_| RaftError::Closed)? != BTreeSet::from([node]) {
            return Ok(());
        }
        let led_before = self
            .0
            .log
            .lock()
            .vote()
            .is_some_and(|v| v.committed && v.leader_id.node_id == node);
        if !led_before {
            raft.trigger().elect().await.map_err(|_| RaftError::Closed)?;
        }
        let mut leadership = self.0.leadership.clone();
        let leading = leadership.wait_for(|known| known.leader == Some(node));
        tokio::time::timeout(REPLAY, leading)
            .await
            .map_err(|_| RaftError::Closed)?
            .map_err(|_| RaftError::Closed)?;
        let last = self.0.log.lock().last();
        self.applied(last.next_index()).await
    }

    /// This manager's identity.
    pub fn node_id(&self) -> NodeId {
        self.0.node
    }

    /// Whether this manager belongs to a cluster.
    pub fn is_initialized(&self) -> bool {
        let metrics = self.0.raft.metrics().borrow().clone();
        metrics.last_log_index.is_some() || metrics.membership_config.membership().nodes().next().is_some()
    }

    /// Forms a cluster of this manager alone, which others will reach at `address`.
    ///
    /// # Errors
    /// [`RaftError::AlreadyInitialized`].
    pub async fn initialize(&self, address: &str) -> Result<(), RaftError> {
        let members = BTreeMap::from([(self.0.node, BasicNode::new(address))]);
        match self.0.raft.initialize(members).await {
            Ok(()) => {}
            Err(CoreError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(RaftError::AlreadyInitialized);
            }
            Err(CoreError::APIError(e)) => return Err(RaftError::Membership(e.to_string())),
            Err(CoreError::Fatal(_)) => return Err(RaftError::Closed),
        }
        self.catch_up().await
    }

    /// Writes. Returns when the transaction is on the disks of a majority and applied here; if another manager leads,
    /// it is asked, and this one has usually applied it too when this returns. While nobody leads, a write waits for some
    /// seconds.
    ///
    /// # Errors
    /// [`RaftError::Rejected`] if the transaction was refused. After [`RaftError::Closed`] and
    /// [`RaftError::Unreachable`] it may have happened; after any other error it has not.
    pub async fn submit(&self, txn: Txn) -> Result<TxnOk, RaftError> {
        let txn = Bytes::from(txn.encode());
        if txn.len() > proposer::MAX_TXN {
            return Err(RaftError::TooLarge {
                size: txn.len(),
                limit: proposer::MAX_TXN,
            });
        }
        let mut leadership = self.0.leadership.clone();
        let deadline = Instant::now() + ELECTION;
        loop {
            leadership.borrow_and_update();
            match self.submit_once(txn.clone()).await {
                Err(RaftError::NotLeader { .. }) if !self.is_initialized() => {
                    return Err(RaftError::NotInitialized);
                }
                // Nothing was changed; an election is going on, or news of it is on its way.
                Err(RaftError::NotLeader { .. }) if Instant::now() < deadline => {
                    let news = tokio::time::timeout(ELECTION_STEP, leadership.changed());
                    if let Ok(Err(_)) = news.await {
                        return Err(RaftError::Closed);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    async fn submit_once(&self, txn: Bytes) -> Result<TxnOk, RaftError> {
        if self.leader().is_none() {
            return Err(RaftError::NotLeader { leader: None });
        }
        match self.0.submit_here(txn.clone()).await {
            Err(RaftError::NotLeader { leader: Some(leader) }) if leader != self.0.node => {
                let ok = match self.0.ask(leader, Request::Submit(txn)).await? {
                    Response::Submit(answer) => answer?,
                    _ => return Err(RaftError::Unreachable("an answer to another request".into())),
                };
                // The writer reads here next. If it takes long, the write has happened all the same.
                let _ = tokio::time::timeout(FOLLOW, self.revision_reached(ok.revision)).await;
                Ok(ok)
            }
            outcome => outcome,
        }
    }

    /// The state as this manager knows it, at no cost. It contains everything that was acknowledged to a writer on
    /// this manager while it led.
    pub fn read(&self) -> Arc<State> {
        self.0.published.state()
    }

    /// The state including everything that was acknowledged to anybody before the call.
    ///
    /// # Errors
    /// If the leader cannot be reached, or no longer leads.
    pub async fn read_index(&self) -> Result<Arc<State>, RaftError> {
        let applied = match self.0.read_index_here().await {
            Err(RaftError::NotLeader { leader: Some(leader) }) if leader != self.0.node => {
                match self.0.ask(leader, Request::ReadIndex).await? {
                    Response::ReadIndex(answer) => answer?,
                    _ => return Err(RaftError::Unreachable("an answer to another request".into())),
                }
            }
            answer => answer?,
        };
        self.applied(applied).await?;
        Ok(self.read())
    }

    /// Waits until this many log entries are applied here.
    async fn applied(&self, entries: u64) -> Result<(), RaftError> {
        let mut applied = self.0.published.applied.subscribe();
        applied
            .wait_for(|applied| *applied >= entries)
            .await
            .map(drop)
            .map_err(|_| RaftError::Closed)
    }

    /// Waits until the state here has reached a revision (of a write made through another manager).
    ///
    /// # Errors
    /// [`RaftError::Closed`] if the store stops first.
    pub async fn revision_reached(&self, revision: u64) -> Result<(), RaftError> {
        let mut applied = self.0.published.applied.subscribe();
        let reached = |_: &u64| self.read().revision() >= revision;
        applied
            .wait_for(reached)
            .await
            .map(drop)
            .map_err(|_| RaftError::Closed)
    }

    /// One page of a list. Pages of one list are read from one revision.
    ///
    /// # Errors
    /// [`RaftError::Gone`] if the list was begun too long ago.
    pub fn list(&self, query: &ListQuery<'_>) -> Result<List, RaftError> {
        let pinned = {
            let mut pins = self.0.pins.lock().expect("no panic while locked");
            pins.retain(|pin| pin.since.elapsed() < PIN_AGE);
            query.after.and_then(|after| {
                pins.iter()
                    .find(|pin| pin.state.revision() == after.revision)
                    .cloned()
            })
        };
        let state = match (query.after, &pinned) {
            (_, Some(pin)) => pin.state.clone(),
            (after, None) => {
                let now = self.read();
                if let Some(after) = after.filter(|after| after.revision != now.revision()) {
                    return Err(Gone {
                        asked: after.revision,
                        oldest: now.revision(),
                    }
                    .into());
                }
                now
            }
        };
        let list = state.list(query);
        self.0.pin(&state, query.after.is_some(), list.next.is_some());
        Ok(list)
    }

    /// The first page of a list as it was at an earlier revision. The pages after it come from [`Cluster::list`].
    ///
    /// # Errors
    /// [`RaftError::Gone`] if what happened since is no longer remembered.
    pub fn list_at(&self, query: &ListQuery<'_>, revision: u64) -> Result<List, RaftError> {
        let filter = WatchFilter::kinds([query.kind.clone()]);
        let then = loop {
            let now = self.read();
            let (events, complete) = self.0.published.hub.events_after(&filter, revision)?;
            // The state is published a moment before its events.
            if complete >= now.revision() {
                break Arc::new(now.rewound(&query.kind, revision, &events));
            }
            std::thread::yield_now();
        };
        let list = then.list(query);
        self.0.pin(&then, false, list.next.is_some());
        Ok(list)
    }

    /// Follows the changes after `revision` (that of a list, of [`Cluster::read`], or of an earlier event).
    ///
    /// # Errors
    /// [`RaftError::Gone`] if they are no longer remembered.
    pub fn watch(&self, filter: WatchFilter, revision: u64) -> Result<Watch, RaftError> {
        Ok(self.0.published.hub.watch(filter, revision)?)
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leadership.borrow().leader
    }

    /// Whether this manager leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.0.node)
    }

    /// Tells when leadership changes.
    pub fn leadership(&self) -> channel::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// A look at the group.
    pub fn metrics(&self) -> Metrics {
        let metrics = self.0.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voting: BTreeSet<NodeId> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, node)| (*id, node.addr.clone()));
        let (voters, learners) = members.partition(|(id, _)| voting.contains(id));
        Metrics {
            node: self.0.node,
            leadership: Leadership::of(
                metrics.current_term,
                metrics.current_leader,
                voting.iter().copied(),
            ),
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.index(),
            snapshot_index: metrics.snapshot.index(),
            voters,
            learners,
            quorum_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            matched: metrics
                .replication
                .into_iter()
                .flatten()
                .map(|(id, at)| (id, at.index()))
                .collect(),
            revision: self.read().revision(),
            log_bytes: self.0.log.lock().bytes(),
            stopped: metrics.running_state.err().map(|e| e.to_string()),
        }
    }

    /// Adds a manager that listens without a vote, and waits until it has caught up.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] or [`RaftError::Membership`].
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), RaftError> {
        let added = self.0.raft.add_learner(node, BasicNode::new(address), true).await;
        added.map(drop).map_err(membership_error)
    }

    /// Sets who votes. All must have been added before. Those that no longer vote leave the cluster, or stay to
    /// listen if `retain`.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] or [`RaftError::Membership`].
    pub async fn change_membership(&self, voters: BTreeSet<NodeId>, retain: bool) -> Result<(), RaftError> {
        let changed = self
            .0
            .raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), retain)
            .await;
        changed.map(drop).map_err(membership_error)
    }

    /// Answers a request that came over the transport.
    pub async fn handle(&self, request: Request) -> Response {
        self.0.handle(request).await
    }

    /// Does work on the store's thread, from where [`Cluster::handle`] costs no change of threads. It must not block,
    /// and ends with the store at the latest.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(work);
    }

    /// Makes a snapshot now.
    ///
    /// # Errors
    /// [`RaftError::Closed`].
    pub async fn snapshot(&self) -> Result<(), RaftError> {
        self.0
            .raft
            .trigger()
            .snapshot()
            .await
            .map_err(|_| RaftError::Closed)
    }

    /// From now on the directory opens only with this key; `None`: without any. Blocks for a write of a small file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_unlock_key(&self, key: Option<&[u8; 32]>) -> Result<(), RaftError> {
        self.0.keyring.lock(key)
    }

    /// Stops. Watches end, waiting writers get [`RaftError::Closed`], and the directory can be opened again when this
    /// returns.
    pub async fn shutdown(&self) {
        self.0.published.hub.close();
        // Its error says that the task is already gone.
        let _ = self.0.raft.shutdown().await;
        let thread = self.0.thread.lock().expect("no panic while locked").take();
        if let Some(StoreThread { stop, handle }) = thread {
            drop(stop);
            let _ = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }
}
