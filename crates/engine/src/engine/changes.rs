//! How a daemon takes up its standing, and follows what the cluster wants of it: certificates, and its role.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tripod_model::node::NodeRole;
use tripod_model::swarm::SwarmCluster;
use tripod_model::{Error, Result, Time};
use tripod_raft::{Cluster, Options as RaftOptions, RaftError};

use super::{Engine, Inner, Phase};
use crate::ca;
use crate::db::{Db, to_error};
use crate::link::message::{Answer, Call, Issued, NewManager, Settings};
use crate::manager::Manager;
use crate::paths::{Credentials, Standing};

/// When something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// At most this often is a renewal tried.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// Does what the cluster wants of this node, one thing after the other, until the engine is gone.
pub(super) async fn follow(engine: Weak<Inner>, mut wanted: mpsc::UnboundedReceiver<Settings>) {
    let mut next = wanted.recv().await;
    while let Some(mut settings) = next {
        // Only the newest counts.
        while let Ok(newer) = wanted.try_recv() {
            settings = newer;
        }
        let Some(engine) = engine.upgrade().map(Engine) else {
            return;
        };
        let done = engine.follow_settings(&settings).await;
        drop(engine);
        next = match done {
            Ok(()) => wanted.recv().await,
            Err(error) => {
                tracing::warn!(%error, "what the cluster wants of this node is not done yet");
                match tokio::time::timeout(AGAIN, wanted.recv()).await {
                    Ok(newer) => newer,
                    Err(_) => Some(settings),
                }
            }
        };
    }
}

impl Engine {
    /// The cluster wants this of the node.
    pub(crate) fn settle(&self, settings: Settings) {
        self.0.session.send_replace(true);
        // The follower ends with the engine.
        let _ = self.0.settings.send(settings);
    }

    async fn follow_settings(&self, settings: &Settings) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let (standing, is_manager) = match &*self.phase() {
            Phase::Worker(standing) => (standing.clone(), false),
            Phase::Active(manager) => (manager.standing(), true),
            Phase::Waiting(standing, _) => (standing.clone(), true),
            _ => return Ok(()),
        };
        if !settings.managers.is_empty() && settings.managers != standing.managers {
            let standing = Standing {
                managers: settings.managers.clone(),
                ..standing.clone()
            };
            self.0.paths.write_standing(&standing)?;
            self.replace_standing(standing)?;
        }
        match (is_manager, settings.role) {
            (false, NodeRole::Manager) => self.promote().await,
            (true, NodeRole::Worker) => self.demote().await,
            (false, NodeRole::Worker) if self.outdated(settings) => {
                self.renew().await?;
                self.introduce();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn replace_standing(&self, standing: Standing) -> Result<()> {
        match &mut *self.phase() {
            Phase::Worker(known) | Phase::Waiting(known, _) => *known = standing,
            Phase::Active(manager) => return manager.set_standing(standing),
            _ => {}
        }
        Ok(())
    }

    /// Whether the worker's certificate is of another authority than the cluster's.
    fn outdated(&self, settings: &Settings) -> bool {
        let kept = self.0.paths.read_credentials(None);
        kept.is_none_or(|kept| kept.roots != settings.roots)
    }

    /// Gets a new certificate of the role that this node is to have, and takes it on.
    async fn renew(&self) -> Result<Issued> {
        let (key, csr) = ca::request()?;
        let issued = match self.call_leader(Call::Renew { csr }).await? {
            Answer::Certificate(issued) => issued,
            _ => return Err(Error::internal("an answer to another question")),
        };
        let credentials = Credentials {
            roots: issued.roots.clone(),
            chain: issued.chain.clone(),
            key,
        };
        let lock = Self::lock_of(&issued.unlock_key)?;
        self.0.paths.write_credentials(&credentials, lock.as_ref())?;
        self.0
            .link
            .install(&credentials.roots, &credentials.chain, &credentials.key)?;
        Ok(issued)
    }

    /// This worker becomes a manager.
    async fn promote(&self) -> Result<()> {
        let Some(standing) = self.standing() else {
            return Ok(());
        };
        let issued = self.renew().await?;
        if issued.role != NodeRole::Manager {
            return Err(Error::unavailable("the cluster has changed its mind"));
        }
        tracing::info!("this node becomes a manager");
        self.0.paths.forget_store()?;
        let standing = Standing {
            role: NodeRole::Manager,
            raft_id: rand::random::<u64>().max(1),
            ..standing
        };
        self.0.paths.write_standing(&standing)?;
        self.resume(standing, Self::lock_of(&issued.unlock_key)?).await
    }

    /// This manager has left the group and becomes a worker.
    async fn demote(&self) -> Result<()> {
        let Some(standing) = self.standing() else {
            return Ok(());
        };
        let issued = self.renew().await?;
        if issued.role != NodeRole::Worker {
            return Err(Error::unavailable("the cluster has changed its mind"));
        }
        tracing::info!("this node becomes a worker");
        let standing = Standing {
            role: NodeRole::Worker,
            raft_id: 0,
            ..standing
        };
        self.0.paths.write_standing(&standing)?;
        self.stop().await;
        self.0.paths.forget_store()?;
        self.resume(standing, None).await
    }

    /// Takes up a standing from what is on the disk. What is wrong shows in the phase, too.
    pub(super) async fn resume(&self, standing: Standing, lock: Option<[u8; 32]>) -> Result<()> {
        if matches!(&*self.phase(), Phase::Active(_)) && standing.role == NodeRole::Manager {
            return Ok(());
        }
        let life = self.begin_life();
        let phase = match standing.role {
            NodeRole::Worker => self.resume_worker(standing, life),
            NodeRole::Manager => self.resume_manager(standing, lock, life).await,
        };
        let outcome = match &phase {
            Some(Phase::Broken(_, error)) => {
                tracing::error!(%error, "the node's part in its cluster cannot be taken up");
                Err(error.clone())
            }
            _ => Ok(()),
        };
        if let Some(phase) = phase {
            self.set(phase);
        }
        outcome
    }

    fn resume_worker(&self, standing: Standing, life: CancellationToken) -> Option<Phase> {
        let installed = match self.0.paths.read_credentials(None) {
            Some(c) => self.0.link.install(&c.roots, &c.chain, &c.key),
            None => Err(Error::internal(
                "the node's certificate is missing: it has to join again",
            )),
        };
        if let Err(e) = installed {
            return Some(Phase::Broken(standing, e));
        }
        tokio::spawn(renew_in_time(Arc::downgrade(&self.0), life));
        Some(Phase::Worker(standing))
    }

    async fn resume_manager(
        &self,
        standing: Standing,
        lock: Option<[u8; 32]>,
        life: CancellationToken,
    ) -> Option<Phase> {
        let options = RaftOptions {
            unlock_key: lock,
            transport: Arc::new(self.0.link.clone()),
            ..RaftOptions::default()
        };
        // Before the store: a group of several asks the others at once.
        if let Some(c) = self.0.paths.read_credentials(lock.as_ref())
            && let Err(e) = self.0.link.install(&c.roots, &c.chain, &c.key)
        {
            return Some(Phase::Broken(standing, e));
        }
        let cluster = match Cluster::open(self.0.paths.store(), standing.raft_id, options).await {
            Ok(cluster) => cluster,
            Err(RaftError::Locked) => return Some(Phase::Locked(standing)),
            Err(e) => return Some(Phase::Broken(standing, to_error(e))),
        };
        match knows(&cluster, &standing.cluster_id) {
            true => match self.begin(cluster, standing.clone(), life).await {
                Ok(()) => None,
                Err(e) => Some(Phase::Broken(standing, e)),
            },
            false => {
                self.0.link.set_cluster(Some(cluster.clone()));
                self.set(Phase::Waiting(standing.clone(), cluster.clone()));
                if let Err(e) = self.listen(&standing, life.clone()).await {
                    cluster.shutdown().await;
                    return Some(Phase::Broken(standing, e));
                }
                let engine = Arc::downgrade(&self.0);
                tokio::spawn(catch_up(engine, cluster, standing, life));
                None
            }
        }
    }

    /// Serves as a manager that knows its cluster.
    async fn begin(&self, cluster: Cluster, standing: Standing, life: CancellationToken) -> Result<()> {
        self.start(cluster, standing.clone()).await?;
        self.listen(&standing, life).await
    }

    /// Makes the manager of an open store. The store is shut when that fails.
    pub(super) async fn start(&self, cluster: Cluster, standing: Standing) -> Result<()> {
        self.0.link.set_cluster(Some(cluster.clone()));
        let (link, door, events) = (self.0.link.clone(), self.0.door.clone(), self.0.events.clone());
        let db = Db::new(cluster.clone());
        match Manager::start(db, self.0.paths.clone(), standing, link, door, events).await {
            Ok(manager) => {
                self.set(Phase::Active(manager));
                Ok(())
            }
            Err(e) => {
                cluster.shutdown().await;
                Err(e)
            }
        }
    }
}

/// Whether the store holds the cluster's own object.
fn knows(cluster: &Cluster, id: &str) -> bool {
    Db::new(cluster.clone())
        .snapshot()
        .get::<SwarmCluster>("", id)
        .is_ok_and(|found| found.is_some())
}

/// Has the cluster take this manager into the group, waits until it knows what the others know, and serves.
async fn catch_up(engine: Weak<Inner>, cluster: Cluster, standing: Standing, life: CancellationToken) {
    let come = async {
        loop {
            if !cluster.is_initialized() {
                let Some(engine) = engine.upgrade().map(Engine) else {
                    return;
                };
                let new = NewManager {
                    raft_id: standing.raft_id,
                    address: standing.advertise_addr.clone(),
                };
                if let Err(error) = engine.call_leader(Call::AddManager(new)).await {
                    tracing::warn!(%error, "this manager is not in the group yet");
                    engine.note_failure(error);
                    drop(engine);
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            let mut leadership = cluster.leadership();
            while !knows(&cluster, &standing.cluster_id) {
                let revision = cluster.read().revision();
                tokio::select! {
                    reached = cluster.revision_reached(revision + 1) => if reached.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            return;
        }
    };
    tokio::select! {
        () = come => {}
        () = life.cancelled() => return,
    }
    let Some(engine) = engine.upgrade().map(Engine) else {
        return;
    };
    let _changing = engine.0.changing.lock().await;
    if life.is_cancelled() {
        return;
    }
    let standing = engine.standing().unwrap_or(standing);
    if let Err(e) = engine.start(cluster, standing.clone()).await {
        tracing::error!(error = %e, "this manager cannot serve");
        engine.set(Phase::Broken(standing, e));
    }
}

/// Renews a worker's certificate whenever half of its life is over.
async fn renew_in_time(engine: Weak<Inner>, life: CancellationToken) {
    loop {
        let Some(now) = engine.upgrade().map(Engine) else {
            return;
        };
        let renew_at = now
            .0
            .paths
            .read_certificate()
            .map_or(Time::MIN, |cert| ca::renew_at(&cert));
        let wait = Duration::try_from(renew_at.duration_since(Time::now())).unwrap_or_default();
        if wait.is_zero() {
            let _changing = now.0.changing.lock().await;
            if let Err(error) = now.renew().await {
                tracing::error!(%error, "the node's certificate cannot be renewed");
            }
        }
        drop(now);
        tokio::select! {
            () = tokio::time::sleep(wait.max(RENEWAL_PAUSE)) => {}
            () = life.cancelled() => return,
        }
    }
}
