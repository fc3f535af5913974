//! A daemon's part in a cluster: none, a worker's, a manager's, or one that waits to be unlocked.

mod changes;
mod found;
mod join;
mod leave;
mod reach;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tripod_model::event::Event;
use tripod_model::swarm::SwarmSpec;
use tripod_model::{Error, Result};
use tripod_raft::Cluster;

use crate::ca;
use crate::door::{NodeDoor, OwnDoor};
use crate::link::Link;
use crate::link::message::{FromNode, Settings};
use crate::manager::Manager;
use crate::paths::{Paths, Standing};
use crate::request::{Membership, Options, SwarmInfo};
use crate::swarm::cluster::{self, host_of};

/// Events that a slow listener may be behind.
const EVENTS: usize = 1024;

const NOT_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                           connect this node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. \
                      Please run this command on a manager node or promote the current node to a manager.";
const NOT_MEMBER: &str = "This node is not part of a swarm";
const MEMBER: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join \
                      another one.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
                      unlock\" to unlock it.";

enum Phase {
    Inactive,
    Pending,
    Locked(Standing),
    Broken(Standing, Error),
    Worker(Standing),
    /// A manager whose store is open, and waits for what the others have.
    Waiting(Standing, Cluster),
    Active(Arc<Manager>),
}

struct Inner {
    paths: Paths,
    options: Options,
    link: Link,
    door: OwnDoor,
    phase: Mutex<Phase>,
    membership: watch::Sender<Membership>,
    events: broadcast::Sender<Event>,
    /// One change of standing at a time.
    changing: tokio::sync::Mutex<()>,
    /// What runs for the present standing: listener, renewal. Cancelled when it ends.
    life: Mutex<CancellationToken>,
    /// To the leader, in the session over the network.
    to_leader: Mutex<Option<mpsc::UnboundedSender<FromNode>>>,
    /// Whether the node has a session.
    session: watch::Sender<bool>,
    /// Whether this node does what its role is: a manager that is not in the group yet does not.
    serving: watch::Sender<bool>,
    /// Why the cluster does not take this manager into the group.
    failure: watch::Sender<Option<Error>>,
    /// Why the cluster opens no session for this node, which is shown to who asks.
    refused: watch::Sender<Option<Error>>,
    /// What the cluster wants of this node.
    settings: mpsc::UnboundedSender<Settings>,
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
        let (settings, wanted) = mpsc::unbounded_channel();
        let engine = Self(Arc::new(Inner {
            paths,
            options,
            link: Link::default(),
            door: OwnDoor::default(),
            phase: Mutex::new(Phase::Inactive),
            membership: watch::Sender::new(Membership::Inactive),
            events: broadcast::Sender::new(EVENTS),
            changing: tokio::sync::Mutex::new(()),
            life: Mutex::default(),
            to_leader: Mutex::default(),
            session: watch::Sender::new(false),
            serving: watch::Sender::new(false),
            failure: watch::Sender::new(None),
            refused: watch::Sender::new(None),
            settings,
        }));
        tokio::spawn(changes::follow(Arc::downgrade(&engine.0), wanted));
        match standing {
            // What an interrupted `init` or `leave` left behind.
            None => engine.0.paths.forget()?,
            Some(standing) => drop(engine.resume(standing, None).await),
        }
        Ok(engine)
    }

    fn set(&self, phase: Phase) {
        let membership = match &phase {
            Phase::Inactive => Membership::Inactive,
            Phase::Pending => Membership::Pending,
            Phase::Locked(_) => Membership::Locked,
            Phase::Broken(..) => Membership::Error,
            Phase::Active(_) | Phase::Worker(_) | Phase::Waiting(..) => Membership::Active,
        };
        let serving = matches!(&phase, Phase::Active(_) | Phase::Worker(_));
        let manages = matches!(&phase, Phase::Active(_));
        let before = std::mem::replace(&mut *self.phase(), phase);
        let managed = matches!(&before, Phase::Active(_));
        self.0.serving.send_replace(serving);
        // A manager's doors open and close with its part, also where the node is in the cluster before and after.
        self.0.membership.send_if_modified(|known| {
            std::mem::replace(known, membership) != membership || manages != managed
        });
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

    /// Follows the standing: while it is [`Membership::Active`], the node has a session. Told too when the node becomes
    /// a manager or is none any more.
    pub fn watch_membership(&self) -> watch::Receiver<Membership> {
        self.0.membership.subscribe()
    }

    /// Follows the events of the cluster (scope `swarm`).
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// What answers when somebody asks about the pods of this node. To be told once, before there are any.
    pub fn set_door(&self, door: Arc<dyn NodeDoor>) {
        // A second one would be another agent on the same machine.
        let _ = self.0.door.set(door);
    }

    /// The door of this node.
    pub(crate) fn own_door(&self) -> Option<Arc<dyn NodeDoor>> {
        self.0.door.get().cloned()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
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
            Phase::Worker(_) => Err(Error::unavailable(WORKER)),
            Phase::Waiting(..) => Err(crate::members::no_leader()),
            Phase::Inactive | Phase::Pending => Err(Error::unavailable(NOT_MANAGER)),
        }
    }

    /// What this daemon is in its cluster.
    pub(crate) fn standing(&self) -> Option<Standing> {
        match &*self.phase() {
            Phase::Active(manager) => Some(manager.standing()),
            Phase::Locked(s) | Phase::Broken(s, _) | Phase::Worker(s) | Phase::Waiting(s, _) => {
                Some(s.clone())
            }
            Phase::Inactive | Phase::Pending => None,
        }
    }

    /// This node's Swarm identifier; empty in no cluster.
    pub fn node_id(&self) -> String {
        self.standing().map_or_else(String::new, |s| s.node_id)
    }

    /// The cluster's identifier; empty in no cluster.
    pub fn cluster_id(&self) -> String {
        self.standing().map_or_else(String::new, |s| s.cluster_id)
    }

    /// The `Swarm` part of `docker info`.
    pub fn info(&self) -> SwarmInfo {
        let state = self.membership();
        let of = |standing: &Standing, error: String| SwarmInfo {
            state,
            node_id: standing.node_id.clone(),
            node_addr: host_of(&standing.advertise_addr),
            remote_managers: standing.managers.clone(),
            error,
            ..SwarmInfo::default()
        };
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => SwarmInfo {
                state,
                ..SwarmInfo::default()
            },
            Phase::Locked(standing) => of(standing, LOCKED.into()),
            Phase::Broken(standing, e) => of(standing, e.to_string()),
            Phase::Worker(standing) => {
                let refused = self.0.refused.borrow();
                of(
                    standing,
                    refused.as_ref().map_or_else(String::new, |e| e.message.clone()),
                )
            }
            Phase::Waiting(standing, _) => of(standing, crate::members::no_leader().message),
            Phase::Active(manager) => manager.info(),
        }
    }

    /// Begins a new life for a new standing; the one before ends.
    fn begin_life(&self) -> CancellationToken {
        let mut life = self
            .0
            .life
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        life.cancel();
        *life = CancellationToken::new();
        life.clone()
    }

    /// Answers other nodes at this address for as long as the life lasts.
    async fn listen(&self, standing: &Standing, life: CancellationToken) -> Result<()> {
        let address: SocketAddr = standing.listen_addr.parse().map_err(Error::internal)?;
        let engine = self.clone();
        let handler: crate::link::Handler =
            Arc::new(move |caller, stream| Box::pin(crate::members::attend(engine.clone(), caller, stream)));
        self.0.link.listen(address, handler, life).await
    }

    /// Stops serving; what is on disk stays. To be called before the daemon ends.
    pub async fn shutdown(&self) {
        let _changing = self.0.changing.lock().await;
        self.stop().await;
    }

    /// Ends what runs for the present standing.
    async fn stop(&self) {
        self.begin_life().cancel();
        let (manager, cluster) = match &*self.phase() {
            Phase::Active(manager) => (Some(manager.clone()), None),
            Phase::Waiting(_, cluster) => (None, Some(cluster.clone())),
            _ => (None, None),
        };
        if let Some(manager) = manager {
            manager.stop().await;
        }
        if let Some(cluster) = cluster {
            cluster.shutdown().await;
        }
        self.0.link.clear();
    }

    /// Checks the settings of a cluster without making one.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`].
    pub fn check_spec(spec: &SwarmSpec) -> Result<()> {
        cluster::check_spec(spec)
    }

    /// The key of an unlock key's text; `None` for none.
    fn lock_of(text: &str) -> Result<Option<[u8; 32]>> {
        match text {
            "" => Ok(None),
            text => ca::parse_unlock_key(text).map(Some),
        }
    }
}
