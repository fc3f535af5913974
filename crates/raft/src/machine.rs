//! The state machine that openraft drives: applies entries, publishes the state, builds and installs snapshots.

use std::sync::{Arc, RwLock};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::watch as channel;
use tripod_store::{HistoryLimits, State};

use crate::error::RaftError;
use crate::flush::Disk;
use crate::snapshot::{SnapshotData, Snapshots};
use crate::types::{Entry, LogId, Outcome, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::watch::Hub;

/// What readers see. The lock is held for the copy of one pointer.
pub(crate) struct Published {
    state: RwLock<Arc<State>>,
    pub(crate) hub: Arc<Hub>,
    /// The last applied log index + 1, for those who wait for it.
    pub(crate) applied: channel::Sender<u64>,
    history: HistoryLimits,
}

impl Published {
    pub(crate) fn new(state: State, applied: Option<LogId>, history: HistoryLimits) -> Self {
        let hub = Arc::new(Hub::new(state.revision(), history));
        let applied = channel::Sender::new(applied.map_or(0, |id| id.index + 1));
        Self {
            state: RwLock::new(Arc::new(state)),
            hub,
            applied,
            history,
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.read().expect("no panic while locked").clone()
    }

    fn set(&self, state: &State) {
        let state = Arc::new(state.clone());
        let old = std::mem::replace(&mut *self.state.write().expect("no panic while locked"), state);
        // Freeing what only the old state held may take a while; not under the lock.
        drop(old);
    }
}

pub(crate) struct Machine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<Snapshots>,
    published: Arc<Published>,
    disk: Disk,
}

impl Machine {
    /// The machine as the newest snapshot leaves it.
    pub(crate) fn new(
        snapshots: Arc<Snapshots>,
        loaded: Option<(SnapshotMeta, State)>,
        history: HistoryLimits,
        disk: Disk,
    ) -> (Self, Arc<Published>) {
        let (meta, state) = loaded.unwrap_or_default();
        let published = Arc::new(Published::new(state.clone(), meta.last_log_id, history));
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        (
            Self {
                state,
                applied,
                membership,
                snapshots,
                published: published.clone(),
                disk,
            },
            published,
        )
    }
}

fn snapshot_error(error: RaftError) -> StorageError {
    StorageIOError::write_snapshot(None, AnyError::new(&error)).into()
}

/// Runs blocking work beside the store's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RaftError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(snapshot_error),
        Err(panicked) => Err(StorageIOError::write_snapshot(None, AnyError::new(&panicked)).into()),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let (mut outcomes, mut events) = (Vec::new(), Vec::new());
        for entry in entries {
            // A leader's entry may be on the disks of others before it is on its own.
            let held = self.disk.holds(entry.log_id.index).await;
            held.map_err(|e| StorageIOError::apply(entry.log_id, AnyError::new(&e)))?;
            self.applied = Some(entry.log_id);
            let results = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
                EntryPayload::Normal(proposal) => {
                    let txns = proposal
                        .decode()
                        .map_err(|e| StorageIOError::apply(entry.log_id, AnyError::error(e)))?;
                    let applied = self.state.apply(&txns);
                    events.extend(applied.events);
                    applied.results
                }
            };
            outcomes.push(Outcome(results));
        }
        if !events.is_empty() {
            // The state first: who is woken by an event must find it in the state.
            self.published.set(&self.state);
            self.published.hub.publish(events);
        }
        self.published
            .applied
            .send_replace(self.applied.map_or(0, |id| id.index + 1));
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.applied.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{index}-{}", self.state.revision()),
        };
        Builder {
            meta,
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(SnapshotData::empty()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        let (snapshots, saved) = (self.snapshots.clone(), meta.clone());
        self.state = blocking(move || {
            let state = data.load()?;
            snapshots.save(&saved, &state)?;
            Ok(state)
        })
        .await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.published.set(&self.state);
        self.published
            .hub
            .reset(self.state.revision(), self.published.history);
        self.published
            .applied
            .send_replace(self.applied.map_or(0, |id| id.index + 1));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.snapshots.current().map_err(snapshot_error)?;
        Ok(current.map(|(meta, data)| Snapshot {
            meta,
            snapshot: Box::new(data),
        }))
    }
}

/// Writes one snapshot, while the machine goes on.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    state: State,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (meta, state, snapshots) = (self.meta.clone(), self.state.clone(), self.snapshots.clone());
        let data = SnapshotData::of(state.clone());
        blocking(move || snapshots.save(&meta, &state)).await?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(data),
        })
    }
}
