//! The store's thread: opens the files, runs openraft and the proposer, and closes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use openraft::Raft;
use tokio::sync::{mpsc, oneshot, watch as channel};

use crate::crypt::Keyring;
use crate::error::RaftError;
use crate::files;
use crate::log::Log;
use crate::log_store::LogStore;
use crate::machine::{Machine, Published};
use crate::metrics::Leadership;
use crate::options::Options;
use crate::proposer::{Pending, Proposer};
use crate::snapshot::Snapshots;
use crate::transport::Network;
use crate::types::{NodeId, TypeConfig};

/// Keeps the thread running.
pub(crate) struct StoreThread {
    /// Dropped or sent: stop.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) handle: JoinHandle<()>,
}

/// What the store's thread hands back when it runs.
pub(crate) struct Started {
    pub(crate) raft: Raft<TypeConfig>,
    pub(crate) published: Arc<Published>,
    pub(crate) log: LogStore,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) leadership: channel::Receiver<Leadership>,
}

/// The life of the store's thread. Its runtime is a single thread on purpose: see the crate's documentation.
pub(crate) fn store_thread(
    dir: &Path,
    node: NodeId,
    options: &Options,
    waiting: mpsc::Receiver<Pending>,
    started: oneshot::Sender<Result<Started, RaftError>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = started.send(Err(RaftError::io(dir)(e)));
            return;
        }
    };
    runtime.block_on(async {
        let (lock, start) = match start(dir, node, options).await {
            Ok(ready) => ready,
            Err(e) => {
                let _ = started.send(Err(e));
                return;
            }
        };
        let (raft, log) = (start.raft.clone(), start.log.clone());
        if started.send(Ok(start)).is_ok() {
            let proposer = Proposer {
                raft: raft.clone(),
                log,
                max_log_bytes: options.snapshot_log_bytes,
            };
            tokio::select! {
                () = proposer.run(waiting) => {}
                _ = stopped => {}
            }
        }
        let _ = raft.shutdown().await;
        drop(lock);
    });
}

async fn start(dir: &Path, node: NodeId, options: &Options) -> Result<(std::fs::File, Started), RaftError> {
    let lock = files::claim_dir(dir)?;
    let keyring = Arc::new(Keyring::open(dir, options.unlock_key.as_ref())?);
    let (snapshots, loaded) = Snapshots::open(dir, keyring.clone())?;
    let log = LogStore(Arc::new(Mutex::new(Log::open(
        dir,
        node,
        keyring.clone(),
        options.segment_bytes,
    )?)));
    let (machine, published) = Machine::new(Arc::new(snapshots), loaded, options.history);
    let network = Network(options.transport.clone());
    let raft = Raft::new(node, options.raft_config()?, network, log.clone(), machine)
        .await
        .map_err(|e| RaftError::corrupt(dir, e))?;
    let leadership = follow_leadership(&raft);
    Ok((
        lock,
        Started {
            raft,
            published,
            log,
            keyring,
            leadership,
        },
    ))
}

/// Keeps a channel with the leader up to date.
fn follow_leadership(raft: &Raft<TypeConfig>) -> channel::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let (sender, receiver) = channel::channel(Leadership::default());
    tokio::spawn(async move {
        loop {
            let leadership = {
                let metrics = metrics.borrow_and_update();
                let voters = metrics.membership_config.membership().voter_ids();
                Leadership::of(metrics.vote.leader_id().term, metrics.current_leader, voters)
            };
            sender.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}
