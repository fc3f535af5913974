//! The store's thread: opens the files, runs openraft and the proposer, and closes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::Raft;
use tokio::sync::{mpsc, oneshot, watch as channel};

use crate::crypt::Keyring;
use crate::error::RaftError;
use crate::files;
use crate::log::Log;
use crate::log_store::LogStore;
use crate::machine::{Machine, Published};
use crate::metrics::Leadership;
use crate::network::Network;
use crate::options::Options;
use crate::proposer::{Pending, Proposer};
use crate::snapshot::Snapshots;
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
    pub(crate) runtime: tokio::runtime::Handle,
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
    let disk = log.lock().disk().clone();
    let (machine, published) = Machine::new(Arc::new(snapshots), loaded, options.history, disk.clone());
    let network = Network {
        transport: options.transport.clone(),
        disk,
    };
    let raft = Raft::new(node, options.raft_config()?, network, log.clone(), machine)
        .await
        .map_err(|e| RaftError::corrupt(dir, e))?;
    let leadership = follow_leadership(&raft, options.election.1 * 2);
    Ok((
        lock,
        Started {
            raft,
            published,
            log,
            keyring,
            leadership,
            runtime: tokio::runtime::Handle::current(),
        },
    ))
}

/// Keeps a channel with the leader up to date. A leader that has not heard of a majority for `patience` leads no more:
/// another may have been elected since.
fn follow_leadership(raft: &Raft<TypeConfig>, patience: Duration) -> channel::Receiver<Leadership> {
    let (mut metrics, all) = (raft.server_metrics(), raft.metrics());
    let (sender, receiver) = channel::channel(Leadership::default());
    tokio::spawn(async move {
        loop {
            let (leadership, leads) = {
                let metrics = metrics.borrow_and_update();
                let voters = metrics.membership_config.membership().voter_ids();
                let mut now = Leadership::of(metrics.vote.leader_id().term, metrics.current_leader, voters);
                let leads = now.leader == Some(metrics.id);
                let age = all.borrow().millis_since_quorum_ack.map(Duration::from_millis);
                if leads && age.is_some_and(|age| age > patience) {
                    now.leader = None;
                }
                (now, leads)
            };
            sender.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
            // That nothing is heard is no event.
            let look_again = async {
                match leads {
                    true => tokio::time::sleep(patience / 8).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = look_again => {}
            }
        }
    });
    receiver
}
