//! Recovery from a lost quorum: a manager's store goes on as a group of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::{BasicNode, EntryPayload, LogIdOptionExt, Membership};

use crate::crypt::Keyring;
use crate::error::RaftError;
use crate::files;
use crate::log::Log;
use crate::options::Options;
use crate::snapshot::Snapshots;
use crate::types::{NodeId, SnapshotMeta, StoredMembership};

/// Makes the closed store in `dir` that of a group of one, reached at `address`, with everything that this manager
/// knows: what was acknowledged before, as far as it had arrived here, and what was still on its way. Blocks.
///
/// # Errors
/// [`RaftError::Busy`] while the store is open, [`RaftError::Locked`], or those of the file system.
pub fn found_anew(dir: &Path, node: NodeId, address: &str, options: &Options) -> Result<(), RaftError> {
    let _lock = files::claim_dir(dir)?;
    let keyring = Arc::new(Keyring::open(dir, options.unlock_key.as_ref())?);
    let (snapshots, loaded) = Snapshots::open(dir, keyring.clone())?;
    let (meta, mut state) = loaded.unwrap_or_default();
    let mut log = Log::open(dir, node, keyring, options.segment_bytes)?;
    for entry in log.read(meta.last_log_id.next_index()..)? {
        if let EntryPayload::Normal(proposal) = entry.payload {
            let txns = proposal.decode().map_err(|e| RaftError::corrupt(dir, e))?;
            state.apply(&txns);
        }
    }
    let last = log.last().max(meta.last_log_id);
    let members = BTreeMap::from([(node, BasicNode::new(address))]);
    let alone = Membership::new(vec![BTreeSet::from([node])], members);
    let anew = SnapshotMeta {
        last_log_id: last,
        last_membership: StoredMembership::new(last, alone),
        snapshot_id: format!("{}-{}-anew", last.next_index(), state.revision()),
    };
    snapshots.save(&anew, &state)?;
    match last {
        // Not before the snapshot is there: a crash between the two leaves the old group or the new one.
        Some(last) => log.purge(last),
        None => Ok(()),
    }
}
