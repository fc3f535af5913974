//! A manager: the store it holds, the view of its plans, and what every operation on the cluster needs.

use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tripod_model::event::Event;
use tripod_model::node::{Node, NodeRole};
use tripod_model::{Result, Time};
use tripod_plan::View;
use tripod_raft::RaftError;
use tripod_store::{Txn, TxnError};

use crate::controller::{Controller, Input};
use crate::db::{Db, TypedTxn, to_error};
use crate::door::{Doors, OwnDoor};
use crate::inputs::TokenIssuer;
use crate::link::Link;
use crate::members::Common;
use crate::mirror::load;
use crate::paths::{Paths, Standing};
use crate::request::{Membership, RemoteManager, SwarmInfo};
use crate::session::Sessions;
use crate::swarm::cluster::host_of;

/// How long an answer waits at most for what follows from its write.
const SETTLING: Duration = Duration::from_secs(1);

/// A daemon that is a manager. Operations on the cluster are its methods; they read the store as it is now, and write
/// through it.
pub struct Manager {
    /// This very manager.
    pub(crate) me: std::sync::Weak<Self>,
    db: Db,
    paths: Paths,
    pub(crate) link: Link,
    standing: Mutex<Standing>,
    node_id: String,
    cluster_id: String,
    view: RwLock<View>,
    /// The revision up to which the view has taken over the store's changes.
    applied: watch::Sender<u64>,
    /// The revision up to which there is nothing left to plan.
    settled: watch::Sender<u64>,
    input: mpsc::UnboundedSender<Input>,
    pub(crate) sessions: Sessions,
    pub(crate) doors: Doors,
    /// The door of this node.
    pub(crate) own_door: OwnDoor,
    pub(crate) inputs: crate::inputs::Shared,
    pub(crate) tokens: OnceLock<Arc<dyn TokenIssuer>>,
    /// This manager leads, and knows all that was acknowledged before it did.
    leads: watch::Sender<bool>,
    /// What nodes are told of the cluster.
    pub(crate) common: watch::Sender<Arc<Common>>,
    /// One change of the group at a time.
    pub(crate) membership: tokio::sync::Mutex<()>,
    /// One change of what this node keeps of keys and certificates at a time.
    pub(crate) keys: Arc<tokio::sync::Mutex<()>>,
    /// One change of the cluster's settings at a time.
    settings: tokio::sync::Mutex<()>,
    /// Shared: something begins to refer to a secret, config or network. Exclusive: one of them goes, or takes what
    /// must not be taken twice (a port, a subnet).
    references: tokio::sync::RwLock<()>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("node", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// Takes up the store and starts the controller loop.
    pub(crate) async fn start(
        db: Db,
        paths: Paths,
        standing: Standing,
        link: Link,
        own_door: OwnDoor,
        events: broadcast::Sender<Event>,
    ) -> Result<Arc<Self>> {
        let (input, inputs) = mpsc::unbounded_channel();
        let (view, store_events) = load(&db)?;
        let manager = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            node_id: standing.node_id.clone(),
            cluster_id: standing.cluster_id.clone(),
            applied: watch::Sender::new(store_events.revision()),
            settled: watch::Sender::new(0),
            db,
            paths,
            link,
            standing: Mutex::new(standing),
            view: RwLock::new(view),
            input,
            sessions: Sessions::default(),
            doors: Doors::default(),
            own_door,
            inputs: crate::inputs::Shared::default(),
            tokens: OnceLock::new(),
            leads: watch::Sender::new(false),
            common: watch::Sender::default(),
            membership: tokio::sync::Mutex::new(()),
            keys: Arc::default(),
            settings: tokio::sync::Mutex::new(()),
            references: tokio::sync::RwLock::new(()),
            tasks: Mutex::default(),
        });
        let cluster = manager.swarm_inspect()?;
        manager.apply_keys(&cluster, false).await?;
        let controller = Controller::new(manager.clone(), store_events, inputs, events);
        let renewal = manager.clone().renew_certificates();
        lock(&manager.tasks).push(tokio::spawn(crate::awslogs::deliver(manager.clone())));
        let tending = manager.clone().tend();
        lock(&manager.tasks).extend([
            tokio::spawn(controller.run()),
            tokio::spawn(renewal),
            tokio::spawn(tending),
        ]);
        // A manager that is alone leads at once.
        if manager.db.cluster().is_leader() {
            let mut leads = manager.leads.subscribe();
            let _ = tokio::time::timeout(SETTLING, leads.wait_for(|leads| *leads)).await;
        }
        Ok(manager)
    }

    /// Stops the loops and the store. Sessions end.
    pub(crate) async fn stop(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            task.abort();
            // Cancelled, which is what was asked for.
            let _ = task.await;
        }
        // A write of certificates that was begun is finished.
        drop(self.keys.lock().await);
        self.set_leads(false);
        self.sessions.close();
        // Who waits for the view waits no longer; the store refuses what they do next.
        self.set_view_revision(u64::MAX);
        self.set_settled(u64::MAX);
        self.db.cluster().shutdown().await;
    }

    /// Typed access to the store.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// This node's Swarm identifier.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The cluster's identifier.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Address of this node for traffic between containers.
    pub fn data_path_addr(&self) -> std::net::IpAddr {
        self.standing().data_path_addr
    }

    /// Whether this manager leads the cluster and serves sessions.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    pub(crate) fn watch_leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    pub(crate) fn set_leads(&self, leads: bool) {
        self.leads
            .send_if_modified(|known| std::mem::replace(known, leads) != leads);
    }

    /// `IP:port` of the leader, unless it is this manager or nobody.
    pub(crate) fn leader_address(&self) -> Option<String> {
        let metrics = self.db.cluster().metrics();
        let leader = metrics.leadership.leader.filter(|id| *id != metrics.node)?;
        metrics.voters.get(&leader).cloned()
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    pub(crate) fn set_standing(&self, standing: Standing) -> Result<()> {
        self.paths.write_standing(&standing)?;
        *lock(&self.standing) = standing;
        Ok(())
    }

    pub(crate) fn settings(&self) -> &tokio::sync::Mutex<()> {
        &self.settings
    }

    pub(crate) fn references(&self) -> &tokio::sync::RwLock<()> {
        &self.references
    }

    pub(crate) fn tell(&self, input: Input) {
        // The loop ends only with the manager, and then nothing is waited for.
        let _ = self.input.send(input);
    }

    /// Looks at the view of the plans. It may be a moment behind the store: see [`Manager::caught_up`].
    pub fn with_view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(
            &self
                .view
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    pub(crate) fn change_view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(
            &mut self
                .view
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    /// Follows the revision up to which the view has taken over the store's changes.
    pub fn view_revision(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn set_view_revision(&self, revision: u64) {
        self.applied.send_replace(revision);
    }

    /// Waits until the view has taken over all that was written before the call.
    pub async fn caught_up(&self) {
        let revision = self.db.snapshot().revision();
        // An error says that the manager stopped: what follows will fail by itself.
        let _ = self
            .applied
            .subscribe()
            .wait_for(|applied| *applied >= revision)
            .await;
    }

    pub(crate) fn set_settled(&self, revision: u64) {
        self.settled.send_replace(revision);
    }

    /// Waits, for a while, until the controllers have done what follows from a write. An answer that is given then
    /// holds a version that does not change at once.
    pub(crate) async fn settled(&self, revision: u64) {
        let mut settled = self.settled.subscribe();
        let wait = settled.wait_for(|settled| *settled >= revision);
        // The write is done either way.
        let _ = tokio::time::timeout(SETTLING, wait).await;
    }

    /// Changes a node's object, again and again until nobody else changed it meanwhile.
    pub(crate) async fn change_node(&self, id: &str, change: impl Fn(&mut Node)) -> Result<()> {
        loop {
            let mut node = self.node(id)?;
            let before = node.clone();
            change(&mut node);
            if node == before {
                return Ok(());
            }
            node.status.updated_at = Some(Time::now());
            match self.db.try_submit(Txn::new().replace(&node)).await {
                Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                done => return done.map(drop).map_err(to_error),
            }
        }
    }

    /// The `Swarm` part of `docker info`.
    pub(crate) fn info(&self) -> SwarmInfo {
        let standing = self.standing();
        let mut info = SwarmInfo {
            state: Membership::Active,
            node_id: self.node_id.clone(),
            node_addr: host_of(&standing.advertise_addr),
            control_available: true,
            ..SwarmInfo::default()
        };
        let read = self
            .db
            .snapshot()
            .list::<Node>(None)
            .and_then(|nodes| Ok((nodes, self.swarm_inspect()?)));
        match read {
            Ok((nodes, cluster)) => {
                info.nodes = nodes.len();
                info.managers = nodes
                    .iter()
                    .filter(|n| n.spec.swarm.role == NodeRole::Manager)
                    .count();
                info.remote_managers = nodes
                    .iter()
                    .filter_map(|n| {
                        let addr = n.status.manager.as_ref()?.addr.clone();
                        Some(RemoteManager {
                            node_id: n.spec.swarm.node_id.clone(),
                            addr,
                        })
                    })
                    .collect();
                info.cluster = Some(cluster);
            }
            Err(e) => info.error = e.to_string(),
        }
        info
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
