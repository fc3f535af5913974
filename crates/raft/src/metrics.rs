//! What a manager knows about its group.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::NodeId;

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
}

impl Leadership {
    /// Whoever won the last election, unless it has left the group since: the core goes on naming it until the next.
    pub(crate) fn of(term: u64, elected: Option<NodeId>, mut voters: impl Iterator<Item = NodeId>) -> Self {
        let leader = elected.filter(|leader| voters.any(|voter| voter == *leader));
        Self { term, leader }
    }
}

/// A look at the state of the group from this manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// This manager.
    pub node: NodeId,
    /// The term and the leader.
    pub leadership: Leadership,
    /// The index of the last entry in this manager's log.
    pub last_log_index: Option<u64>,
    /// The index of the last entry applied here.
    pub applied_index: Option<u64>,
    /// The last entry that the newest snapshot holds.
    pub snapshot_index: Option<u64>,
    /// The managers that vote, with their addresses.
    pub voters: BTreeMap<NodeId, String>,
    /// The managers that only listen, with their addresses.
    pub learners: BTreeMap<NodeId, String>,
    /// On the leader: how long ago a majority last answered.
    pub quorum_age: Option<Duration>,
    /// On the leader: the last entry that each of the others is known to hold.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// The store's revision here.
    pub revision: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Why the store stopped, if it did.
    pub stopped: Option<String>,
}
