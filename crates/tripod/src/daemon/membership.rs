//! The node's part in its cluster: a session while there is one, and cleaning up when it has been left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tripod_agent::pods::{NodeIdentity, Session};
use tripod_agent::ports::BoxRead;
use tripod_agent::{Agent, ClusterImages, ClusterNetworks, Owner};
use tripod_engine::{Engine, LeaderSession, Membership};
use tripod_model::image::ImageOffer;
use tripod_model::network::NetworkSpec;
use tripod_model::reference::Reference;
use tripod_model::session::{Assignment, PodReport, Token, TokenRequest};
use tripod_model::{Error, Result};

/// Identifiers of cluster networks are this long, those of local ones 64 digits.
const CLUSTER_ID_LENGTH: usize = 25;

/// How long the node waits before it looks for a leader again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The engine's session as the agent wants it.
struct NodeSession(Arc<dyn LeaderSession>);

#[async_trait]
impl Session for NodeSession {
    async fn next(&self) -> Result<Assignment> {
        self.0.next().await
    }

    async fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        self.0.report(reports).await
    }

    async fn acknowledge(&self, revision: u64) -> Result<()> {
        self.0.acknowledge(revision).await
    }

    async fn token(&self, request: TokenRequest) -> Result<Token> {
        self.0.token(request).await
    }
}

/// The cluster's networks for containers of `docker run`: found at the manager, addresses leased over the session.
struct Leases {
    engine: Engine,
    session: Mutex<Option<Arc<dyn LeaderSession>>>,
    /// Network of each endpoint that holds a lease.
    held: Mutex<BTreeMap<String, String>>,
}

impl Leases {
    fn reporter(&self) -> Result<Arc<dyn LeaderSession>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session
            .clone()
            .ok_or_else(|| Error::unavailable("this node has no session with a manager"))
    }

    fn hold(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> BTreeSet<String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut held);
        held.values().cloned().collect()
    }

    /// Takes up a new session: what local containers hold is asked for again.
    async fn begin(&self, agent: &Agent, reporter: Arc<dyn LeaderSession>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(reporter.clone());
        for record in agent
            .containers()
            .iter()
            .filter(|r| r.is_running() && r.owner == Owner::Local)
        {
            for e in &record.endpoints {
                let (Some(net), true) = (e.ipv4, e.network_id.len() == CLUSTER_ID_LENGTH) else {
                    continue;
                };
                match reporter.lease(&e.id, &e.network_id, Some(net.addr())).await {
                    Ok(_) => drop(self.hold(|held| drop(held.insert(e.id.clone(), e.network_id.clone())))),
                    Err(error) => {
                        tracing::warn!("{} loses its place in {}: {error}", record.name, e.network_name);
                    }
                }
            }
        }
        reporter.attach(self.hold(|_| {}));
    }
}

#[async_trait]
impl ClusterNetworks for Leases {
    async fn find(&self, reference: &str) -> Result<Option<Arc<NetworkSpec>>> {
        if self.engine.membership() != Membership::Active {
            return Ok(None);
        }
        match self.engine.find_network(reference).await {
            Ok(Some(spec)) if spec.attachable => Ok(Some(Arc::new(spec))),
            Ok(Some(spec)) => Err(Error::forbidden(format_args!(
                "Could not attach to network {reference}: rpc error: code = PermissionDenied desc = network {} not \
                 manually attachable",
                spec.id
            ))),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    async fn lease(&self, network_id: &str, endpoint_id: &str, wanted: Option<IpAddr>) -> Result<IpNet> {
        let reporter = self.reporter()?;
        let address = reporter.lease(endpoint_id, network_id, wanted).await?;
        reporter.attach(self.hold(|held| drop(held.insert(endpoint_id.to_owned(), network_id.to_owned()))));
        Ok(address)
    }

    async fn release(&self, _network_id: &str, endpoint_id: &str) -> Result<()> {
        let reporter = self.reporter()?;
        reporter.release(endpoint_id);
        reporter.attach(self.hold(|held| drop(held.remove(endpoint_id))));
        Ok(())
    }
}

/// Images of other nodes, found and fetched by way of the managers.
struct Peers(Engine);

#[async_trait]
impl ClusterImages for Peers {
    async fn find(&self, name: &Reference) -> Result<Option<ImageOffer>> {
        match self.0.membership() {
            Membership::Active => self.0.find_image(&name.familiar()).await,
            _ => Ok(None),
        }
    }

    async fn content(&self, image: &str, digest: &str, from: u64) -> Result<(u64, BoxRead)> {
        let blob = self.0.image_content(image, digest, from).await?;
        Ok((blob.size, Box::new(blob.data)))
    }
}

/// Follows the daemon's standing until `stop` is cancelled.
pub(super) fn spawn(agent: &Agent, engine: &Engine, stop: CancellationToken) -> JoinHandle<()> {
    let (agent, engine) = (agent.clone(), engine.clone());
    relay_events(&agent, &engine);
    engine.set_door(Arc::new(super::door::LocalDoor::new(agent.clone())));
    let leases = Arc::new(Leases {
        engine: engine.clone(),
        session: Mutex::new(None),
        held: Mutex::default(),
    });
    agent.set_cluster_networks(leases.clone());
    agent.set_cluster_images(Arc::new(Peers(engine.clone())));
    tokio::spawn(async move {
        let mut standing = engine.watch_membership();
        loop {
            let now = *standing.borrow_and_update();
            let session_over = CancellationToken::new();
            let running = match now {
                Membership::Active => Some(tokio::spawn(take_part(
                    agent.clone(),
                    engine.clone(),
                    leases.clone(),
                    session_over.clone(),
                ))),
                Membership::Inactive => {
                    if let Err(e) = agent.leave_cluster().await {
                        tracing::error!("what the cluster had on this node is not all gone: {e}");
                    }
                    None
                }
                _ => None,
            };
            let ending = tokio::select! {
                () = stop.cancelled() => true,
                changed = standing.changed() => changed.is_err(),
            };
            session_over.cancel();
            if let Some(running) = running {
                let _ = running.await;
            }
            if ending {
                return;
            }
        }
    })
}

/// Holds a session with whoever leads, one after the other. Between them the node's pods go on.
async fn take_part(agent: Agent, engine: Engine, leases: Arc<Leases>, over: CancellationToken) {
    if let Err(e) = agent.ensure_gateway_bridge().await {
        tracing::error!("tasks on overlay networks have no way out: {e}");
    }
    let host = tripod_agent::host::HostFacts::read();
    let identity = NodeIdentity {
        id: engine.node_id(),
        hostname: host.hostname,
        platform: (host.machine, "linux".into()),
    };
    let mut pause = PAUSE.0;
    loop {
        let opened = tokio::select! {
            opened = engine.open_session() => opened,
            () = over.cancelled() => return,
        };
        match opened {
            Ok(session) => {
                pause = PAUSE.0;
                leases.begin(&agent, session.clone()).await;
                let told = session.clone();
                let telling = agent.tell_images(move |change| told.images(change));
                let session = Arc::new(NodeSession(session));
                let running = agent.run_session(identity.clone(), session, over.clone());
                // The cluster hears of images as long as the session lasts.
                let telling = async {
                    telling.await;
                    std::future::pending::<()>().await;
                };
                let ended = tokio::select! {
                    ended = running => ended,
                    () = telling => Ok(()),
                };
                match ended {
                    Ok(()) => return,
                    Err(e) => tracing::warn!("the session with the manager ended, another follows: {e}"),
                }
            }
            Err(e) => tracing::debug!("no session with a manager yet: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = over.cancelled() => return,
        }
    }
}

/// The cluster's events are part of the node's stream.
fn relay_events(agent: &Agent, engine: &Engine) {
    let (agent, mut events) = (agent.clone(), engine.events());
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => agent.events().publish(event),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!("{missed} events of the cluster were missed");
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}
