//! openraft's own suite for storage, run against this log and this state machine.

use std::sync::{Arc, Mutex};

use openraft::testing::{StoreBuilder, Suite};
use tripod_store::HistoryLimits;

use crate::crypt::Keyring;
use crate::flush::Disk;
use crate::log::Log;
use crate::log_store::LogStore;
use crate::machine::Machine;
use crate::snapshot::Snapshots;
use crate::types::{StorageError, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open(dir.path(), None).unwrap());
        let (snapshots, loaded) = Snapshots::open(dir.path(), keyring.clone()).unwrap();
        let log = Log::open(dir.path(), 0, keyring, 16 << 10).unwrap();
        // The suite applies entries that it has not appended.
        let disk = Disk::new(u64::MAX);
        let (machine, _) = Machine::new(Arc::new(snapshots), loaded, HistoryLimits::default(), disk);
        Ok((dir, LogStore(Arc::new(Mutex::new(log))), machine))
    }
}

#[test]
fn the_storage_is_what_openraft_expects() {
    Suite::test_all(Builder).unwrap();
}
