//! The managers' group: who votes.

use std::collections::BTreeSet;
use std::time::Duration;

use tripod_model::{Error, Result};
use tripod_raft::RaftError;

use crate::db::to_error;
use crate::manager::Manager;

/// How long a new manager may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(40);
/// How long a majority may take to agree on a change of the group.
const AGREEMENT: Duration = Duration::from_secs(15);

impl Manager {
    /// Adds a voter, in place of `before` if that is one.
    pub(super) async fn enlarge(&self, raft_id: u64, address: &str, before: Option<u64>) -> Result<()> {
        let _one = self.membership.lock().await;
        let cluster = self.db().cluster();
        let metrics = cluster.metrics();
        if metrics.voters.contains_key(&raft_id) {
            return Ok(());
        }
        let replaced = before.filter(|id| metrics.voters.contains_key(id));
        let taken = metrics
            .voters
            .iter()
            .find(|(id, at)| *at == address && Some(**id) != replaced);
        if taken.is_some() {
            return Err(Error::already_exists(format_args!(
                "rpc error: code = AlreadyExists desc = a manager at {address} is already a member of the raft cluster"
            )));
        }
        let added = tokio::time::timeout(CATCH_UP, cluster.add_learner(raft_id, address)).await;
        match added {
            Ok(added) => added.map_err(to_error)?,
            Err(_) => {
                let voters = metrics.voters.keys().copied().collect();
                // Takes the learner out again; if that fails too, it stays without a vote.
                let _ = self.agree(voters).await;
                return Err(Error::timeout(format_args!(
                    "the manager at {address} does not catch up with the cluster"
                )));
            }
        }
        let mut voters: BTreeSet<u64> = metrics.voters.keys().copied().collect();
        voters.insert(raft_id);
        if let Some(replaced) = replaced {
            voters.remove(&replaced);
        }
        self.agree(voters).await
    }

    /// Takes a voter out. The last one stays.
    pub(crate) async fn diminish(&self, raft_id: u64) -> Result<()> {
        let _one = self.membership.lock().await;
        let metrics = self.db().cluster().metrics();
        let mut voters: BTreeSet<u64> = metrics.voters.keys().copied().collect();
        if !voters.remove(&raft_id) && !metrics.learners.contains_key(&raft_id) {
            return Ok(());
        }
        if voters.is_empty() {
            return Err(Error::invalid("can't remove the last manager of the swarm"));
        }
        self.agree(voters).await
    }

    async fn agree(&self, voters: BTreeSet<u64>) -> Result<()> {
        let change = self.db().cluster().change_membership(voters, false);
        match tokio::time::timeout(AGREEMENT, change).await {
            Ok(Ok(())) => Ok(()),
            // This manager was the one that left: the change is made, and it leads no more.
            Ok(Err(RaftError::NotLeader { .. })) if !self.in_group() => Ok(()),
            Ok(Err(e)) => Err(to_error(e)),
            Err(_) => Err(Error::unavailable("a majority of the managers does not answer")),
        }
    }

    /// Whether this manager votes.
    pub(crate) fn in_group(&self) -> bool {
        let metrics = self.db().cluster().metrics();
        metrics.voters.contains_key(&metrics.node)
    }
}
