//! What can be chosen when a store is opened.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tripod_store::HistoryLimits;

use crate::error::RaftError;
use crate::transport::{NoTransport, Transport};

/// How a [`Cluster`](crate::Cluster) stores and talks. The defaults suit a daemon on a small machine.
#[derive(Clone)]
pub struct Options {
    /// The operator's unlock key. A new directory is locked with it; a locked one opens only with it.
    pub unlock_key: Option<[u8; 32]>,
    /// A snapshot is made after this many log entries.
    pub snapshot_entries: u64,
    /// A snapshot is also made when the log exceeds this many bytes.
    pub snapshot_log_bytes: u64,
    /// The size of the preallocated files of the log.
    pub segment_bytes: u64,
    /// How much the watch history remembers.
    pub history: HistoryLimits,
    /// How often a leader tells the others that it lives.
    pub heartbeat: Duration,
    /// After how long without a leader (at least, below) a manager stands for election; it waits for the upper bound
    /// first, in which nobody votes for another.
    pub election: (Duration, Duration),
    /// The way to the other managers.
    pub transport: Arc<dyn Transport>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            unlock_key: None,
            snapshot_entries: 10_000,
            snapshot_log_bytes: 64 << 20,
            segment_bytes: 4 << 20,
            history: HistoryLimits::default(),
            heartbeat: Duration::from_millis(200),
            election: (Duration::from_millis(600), Duration::from_millis(1000)),
            transport: Arc::new(NoTransport),
        }
    }
}

impl Options {
    pub(crate) fn raft_config(&self) -> Result<Arc<Config>, RaftError> {
        let millis = |duration: Duration| duration.as_millis() as u64;
        let config = Config {
            cluster_name: "tripod".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election.0),
            election_timeout_max: millis(self.election.1),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            // A follower that is a little behind is served from the log; one further behind gets the snapshot.
            max_in_snapshot_log_to_keep: (self.snapshot_entries / 10).min(100),
            replication_lag_threshold: self.snapshot_entries * 2,
            ..Config::default()
        };
        config
            .validate()
            .map(Arc::new)
            .map_err(|e| RaftError::Membership(e.to_string()))
    }
}
