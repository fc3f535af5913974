//! A daemon's part in a cluster: none, a manager's, or one that waits to be unlocked.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, watch};
use tripod_model::event::Event;
use tripod_model::swarm::SwarmSpec;
use tripod_model::{Error, Result};
use tripod_raft::{Cluster, Options as RaftOptions, RaftError};

use crate::ca;
use crate::db::{Db, to_error};
use crate::manager::Manager;
use crate::paths::{Paths, Standing};
use crate::request::{
    Addresses, InitRequest, JoinRequest, Membership, Options, SwarmInfo, no_advertise, parse_addr,
};
use crate::swarm::cluster::{self, Founding};

/// Events that a slow listener may be behind.
const EVENTS: usize = 1024;

const NOT_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                           connect this node to swarm and try again.";
const NOT_MEMBER: &str = "This node is not part of a swarm";
const MEMBER: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join \
                      another one.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
                      unlock\" to unlock it.";
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. \
                            Removing the last manager erases all current state of the swarm. Use `--force` to ignore \
                            this message.";

enum Phase {
    Inactive,
    Pending,
    Locked(Standing),
    Broken(Standing, Error),
    Active(Arc<Manager>),
}

struct Inner {
    paths: Paths,
    options: Options,
    phase: Mutex<Phase>,
    membership: watch::Sender<Membership>,
    events: broadcast::Sender<Event>,
    /// One change of standing at a time.
    changing: tokio::sync::Mutex<()>,
}

/// A handle on a daemon's part in a cluster. Clones are the same.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.membership().as_str())
    }
}

impl Engine {
    /// Takes up what `dir` says. A locked or damaged store is no error here: it shows in [`Engine::membership`].
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let paths = Paths::new(dir.as_ref())?;
        let standing = paths.read_standing()?;
        let engine = Self(Arc::new(Inner {
            paths,
            options,
            phase: Mutex::new(Phase::Inactive),
            membership: watch::Sender::new(Membership::Inactive),
            events: broadcast::Sender::new(EVENTS),
            changing: tokio::sync::Mutex::new(()),
        }));
        match standing {
            // What an interrupted `init` or `leave` left behind.
            None => engine.0.paths.forget()?,
            Some(standing) => engine.resume(standing, None).await,
        }
        Ok(engine)
    }

    /// Opens the store of a manager.
    async fn resume(&self, standing: Standing, unlock_key: Option<[u8; 32]>) {
        let options = RaftOptions {
            unlock_key,
            ..RaftOptions::default()
        };
        let phase = match Cluster::open(self.0.paths.store(), standing.raft_id, options).await {
            Ok(store) => self.start(Db::new(store), standing).await,
            Err(RaftError::Locked) => Phase::Locked(standing),
            Err(e) => Phase::Broken(standing, to_error(e)),
        };
        if let Phase::Broken(_, error) = &phase {
            tracing::error!(%error, "the cluster's store cannot be used");
        }
        self.set(phase);
    }

    async fn start(&self, db: Db, standing: Standing) -> Phase {
        let Inner {
            paths,
            options,
            events,
            ..
        } = &*self.0;
        let description = options.description.clone();
        let started = Manager::start(
            db.clone(),
            paths.clone(),
            standing.clone(),
            description,
            events.clone(),
        )
        .await;
        match started {
            Ok(manager) => Phase::Active(manager),
            Err(e) => {
                db.cluster().shutdown().await;
                Phase::Broken(standing, e)
            }
        }
    }

    fn set(&self, phase: Phase) {
        let membership = match &phase {
            Phase::Inactive => Membership::Inactive,
            Phase::Pending => Membership::Pending,
            Phase::Locked(_) => Membership::Locked,
            Phase::Broken(..) => Membership::Error,
            Phase::Active(_) => Membership::Active,
        };
        *self.phase() = phase;
        self.0.membership.send_replace(membership);
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.0
            .phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The standing now.
    pub fn membership(&self) -> Membership {
        *self.0.membership.borrow()
    }

    /// Follows the standing: when it becomes [`Membership::Active`], the node opens its session.
    pub fn watch_membership(&self) -> watch::Receiver<Membership> {
        self.0.membership.subscribe()
    }

    /// Follows the events of the cluster (scope `swarm`).
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// The manager that this daemon is.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] with Docker's words when it is none, or a locked one.
    pub fn manager(&self) -> Result<Arc<Manager>> {
        match &*self.phase() {
            Phase::Active(manager) => Ok(manager.clone()),
            Phase::Locked(_) => Err(Error::unavailable(LOCKED)),
            Phase::Broken(_, e) => Err(Error::unavailable(e)),
            Phase::Inactive | Phase::Pending => Err(Error::unavailable(NOT_MANAGER)),
        }
    }

    /// This node's Swarm identifier; empty in no cluster.
    pub fn node_id(&self) -> String {
        match &*self.phase() {
            Phase::Active(manager) => manager.node_id().to_owned(),
            Phase::Locked(standing) | Phase::Broken(standing, _) => standing.node_id.clone(),
            Phase::Inactive | Phase::Pending => String::new(),
        }
    }

    /// The `Swarm` part of `docker info`.
    pub fn info(&self) -> SwarmInfo {
        let state = self.membership();
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => SwarmInfo {
                state,
                ..SwarmInfo::default()
            },
            Phase::Locked(standing) => SwarmInfo {
                state,
                node_id: standing.node_id.clone(),
                error: LOCKED.into(),
                ..SwarmInfo::default()
            },
            Phase::Broken(standing, e) => SwarmInfo {
                state,
                node_id: standing.node_id.clone(),
                error: e.to_string(),
                ..SwarmInfo::default()
            },
            Phase::Active(manager) => manager.info(),
        }
    }

    /// Makes a cluster of this daemon and returns its node's identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when it is in one already; [`tripod_model::ErrorKind::Invalid`] for
    /// addresses, ports, pools and settings that cannot be.
    pub async fn swarm_init(&self, request: InitRequest) -> Result<String> {
        let _changing = self.0.changing.lock().await;
        let mut addresses = Addresses::of(&request)?;
        if request.force_new_cluster
            && let Ok(manager) = self.manager()
        {
            if request.advertise_addr.is_empty() {
                addresses.advertise = None;
            }
            return manager.found_anew(addresses.listen, addresses.advertise).await;
        }
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => {}
            Phase::Locked(_) => return Err(Error::unavailable(LOCKED)),
            Phase::Broken(..) | Phase::Active(_) => return Err(Error::unavailable(MEMBER)),
        }
        let advertise = addresses.advertise.ok_or_else(no_advertise)?;
        let founding = Founding::new(&request, &self.0.options.description, advertise)?;
        self.set(Phase::Pending);
        match self.found(&request, &addresses, advertise, founding).await {
            Ok((db, standing)) => {
                let id = standing.node_id.clone();
                let phase = self.start(db, standing).await;
                let outcome = if let Phase::Broken(_, e) = &phase {
                    Err(e.clone())
                } else {
                    Ok(id)
                };
                self.set(phase);
                outcome
            }
            Err(e) => {
                // Nothing of a cluster that never was remains.
                let _ = self.0.paths.forget();
                self.set(Phase::Inactive);
                Err(e)
            }
        }
    }

    async fn found(
        &self,
        request: &InitRequest,
        addresses: &Addresses,
        advertise: SocketAddr,
        founding: Founding,
    ) -> Result<(Db, Standing)> {
        let unlock_key = match founding.cluster.status.unlock_key.as_str() {
            "" => None,
            key => Some(ca::parse_unlock_key(key)?),
        };
        let data_path_addr = match request.data_path_addr.as_str() {
            "" => advertise.ip(),
            text => parse_addr(text, 0, "DataPathAddr")?.ip(),
        };
        let standing = Standing {
            format: 1,
            node_id: founding.node.spec.swarm.node_id.clone(),
            node_name: founding.node.metadata.name.clone(),
            cluster_id: founding.cluster.metadata.name.clone(),
            raft_id: rand::random::<u64>().max(1),
            listen_addr: addresses.listen.to_string(),
            advertise_addr: advertise.to_string(),
            data_path_addr,
        };
        self.0.paths.forget()?;
        let options = RaftOptions {
            unlock_key,
            ..RaftOptions::default()
        };
        let store = Cluster::open(self.0.paths.store(), standing.raft_id, options)
            .await
            .map_err(to_error)?;
        let made = async {
            store
                .initialize(&standing.advertise_addr)
                .await
                .map_err(to_error)?;
            store.submit(founding.txn(&standing)).await.map_err(to_error)?;
            self.0.paths.write_standing(&standing)
        };
        match made.await {
            Ok(()) => Ok((Db::new(store), standing)),
            Err(e) => {
                store.shutdown().await;
                Err(e)
            }
        }
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when this daemon is in one already, else
    /// [`tripod_model::ErrorKind::NotImplemented`]: clusters of several nodes are not there yet.
    pub async fn swarm_join(&self, _request: JoinRequest) -> Result<()> {
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => {}
            Phase::Locked(_) => return Err(Error::unavailable(LOCKED)),
            Phase::Broken(..) | Phase::Active(_) => return Err(Error::unavailable(MEMBER)),
        }
        Err(Error::not_implemented(
            "joining a swarm is not implemented yet: a swarm has one node in this version of tripod",
        ))
    }

    /// Leaves the cluster and forgets it. The caller ends the node's pods.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] in no cluster, and for a manager unless `force`.
    pub async fn swarm_leave(&self, force: bool) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let manager = match &*self.phase() {
            Phase::Inactive | Phase::Pending => return Err(Error::unavailable(NOT_MEMBER)),
            Phase::Locked(_) if !force => return Err(Error::unavailable(LOCKED)),
            Phase::Active(_) if !force => return Err(Error::unavailable(LAST_MANAGER)),
            Phase::Locked(_) | Phase::Broken(..) => None,
            Phase::Active(manager) => Some(manager.clone()),
        };
        if let Some(manager) = manager {
            manager.stop().await;
        }
        self.0.paths.forget()?;
        self.set(Phase::Inactive);
        Ok(())
    }

    /// Unlocks a manager after a restart.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Conflict`] when it is not locked, [`tripod_model::ErrorKind::Invalid`] for a wrong
    /// key.
    pub async fn swarm_unlock(&self, key: &str) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let standing = match &*self.phase() {
            Phase::Locked(standing) => standing.clone(),
            Phase::Inactive | Phase::Pending => return Err(Error::unavailable(NOT_MEMBER)),
            Phase::Broken(..) | Phase::Active(_) => return Err(Error::conflict("swarm is not locked")),
        };
        let key = ca::parse_unlock_key(key)?;
        self.resume(standing, Some(key)).await;
        match &*self.phase() {
            Phase::Locked(_) => Err(Error::invalid(
                "swarm could not be unlocked: invalid key provided",
            )),
            Phase::Broken(_, e) => Err(e.clone()),
            _ => Ok(()),
        }
    }

    /// Stops serving; what is on disk stays. To be called before the daemon ends.
    pub async fn shutdown(&self) {
        let _changing = self.0.changing.lock().await;
        let manager = match &*self.phase() {
            Phase::Active(manager) => Some(manager.clone()),
            _ => None,
        };
        if let Some(manager) = manager {
            manager.stop().await;
        }
    }

    /// Checks the settings of a cluster without making one.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`].
    pub fn check_spec(spec: &SwarmSpec) -> Result<()> {
        cluster::check_spec(spec)
    }
}
