//! Sessions: what each node must run and how its network must look, in full and then as differences; what it reports.
//!
//! The messages are plain data, so that a session can also go over a connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};
use tripod_model::data::{ConfigMap, Secret};
use tripod_model::image::HeldImages;
use tripod_model::network::fabric::{Fabric, POD_NETWORK};
use tripod_model::network::names::ClusterNames;
use tripod_model::network::policy::Policies;
use tripod_model::network::{Frontend, NameRecord, NetworkSpec};
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::{Assignment, DataItem, PodReport, Token, TokenRequest};
use tripod_model::swarm::NAMESPACE;
use tripod_model::{Error, Result};
use tripod_plan::View;
use tripod_plan::network::{ClusterServices, cluster_services};
use tripod_plan::project::project;
use tripod_plan::view::pod_key;

use crate::controller::Input;
use crate::holders::Holders;
use crate::manager::Manager;
use crate::members::connections::Connections;
use crate::swarm::{config_bytes, secret_bytes};

/// Addresses that a node's local containers hold in cluster networks, by owner.
pub(crate) type Leases = HashMap<String, Vec<(String, IpAddr)>>;

/// The sessions that are open, and what is known only while they are.
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, usize>>,
    leases: Mutex<Leases>,
    acknowledged: watch::Sender<BTreeMap<String, u64>>,
    /// What Services come to, which is the same for all nodes, and the network epoch at which that was so.
    services: Mutex<Option<(u64, Arc<ClusterServices>)>>,
    /// Grows whenever all sessions end: those of an older number are over.
    ended: watch::Sender<u64>,
    /// The images that nodes have told of.
    pub(crate) holders: Holders,
    /// The connections of nodes that have a session from elsewhere.
    pub(crate) connections: Connections,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            leases: Mutex::default(),
            acknowledged: watch::Sender::new(BTreeMap::new()),
            services: Mutex::default(),
            ended: watch::Sender::new(0),
            holders: Holders::default(),
            connections: Connections::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Sessions {
    /// Ends all sessions, and forgets what is known only while there are some.
    pub(crate) fn close(&self) {
        self.ended.send_modify(|ended| *ended += 1);
        lock(&self.leases).clear();
        self.holders.clear();
    }

    /// All leases, for a view that is built anew.
    pub(crate) fn leases(&self) -> Leases {
        lock(&self.leases).clone()
    }

    /// What Services come to, computed once for all nodes.
    fn services(&self, view: &View) -> Arc<ClusterServices> {
        let mut known = lock(&self.services);
        let epoch = view.network_epoch();
        match &*known {
            Some((at, services)) if *at == epoch => services.clone(),
            other => {
                let now = cluster_services(view);
                // Nodes compare what they were sent by its place first.
                let same = other.as_ref().filter(|(_, old)| **old == now);
                let services = same.map_or_else(|| Arc::new(now), |(_, old)| old.clone());
                *known = Some((epoch, services.clone()));
                services
            }
        }
    }

    pub(crate) fn hold(&self, owner: &str, network: &str, address: IpAddr) -> Vec<(String, IpAddr)> {
        let mut leases = lock(&self.leases);
        let held = leases.entry(owner.to_owned()).or_default();
        held.retain(|(n, _)| n != network);
        held.push((network.to_owned(), address));
        held.clone()
    }

    pub(crate) fn release(&self, owner: &str) {
        lock(&self.leases).remove(owner);
    }
}

/// What was sent last.
#[derive(Default)]
struct Sent {
    pods: HashMap<String, Arc<Pod>>,
    networks: BTreeMap<String, Arc<NetworkSpec>>,
    data: BTreeSet<String>,
    frontends: Arc<Vec<Frontend>>,
    names: BTreeMap<String, Arc<Vec<NameRecord>>>,
    fabric: Arc<Fabric>,
    policies: Arc<Policies>,
    cluster_names: Arc<ClusterNames>,
    inputs: crate::inputs::Sent,
    /// The network epoch and attachments that the network part was computed from.
    basis: Option<(u64, BTreeSet<String>)>,
}

/// One node's session. While there is one, the node is ready; some heartbeats after it was dropped, the node is down.
pub struct NodeSession {
    manager: Arc<Manager>,
    node_id: String,
    node_name: String,
    revision: watch::Receiver<u64>,
    ended: watch::Receiver<u64>,
    /// The number of `ended` at which it was opened.
    opened_at: u64,
    /// When the node was last heard of, if that is not now.
    heard: Option<tripod_model::Time>,
    /// Cluster networks to which the node's local containers are attached.
    attached: watch::Sender<BTreeSet<String>>,
    sent: Option<Sent>,
}

impl std::fmt::Debug for NodeSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeSession({})", self.node_id)
    }
}

impl Manager {
    /// Opens the session of a node, by its Swarm identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`] for a node that the cluster does not know,
    /// [`tripod_model::ErrorKind::Unavailable`] while another manager leads.
    pub fn session(self: &Arc<Self>, node_id: &str) -> Result<NodeSession> {
        let ended = self.sessions.ended.subscribe();
        let opened_at = *ended.borrow();
        if !self.leads() {
            return Err(Error::unavailable("this manager does not lead"));
        }
        let node = self.node(node_id)?;
        let node_id = node.spec.swarm.node_id.clone();
        *lock(&self.sessions.open).entry(node_id.clone()).or_default() += 1;
        // It tells them anew.
        self.sessions.holders.forget(&node_id);
        self.tell(Input::Presence {
            node_id: node_id.clone(),
            present: true,
            heard: None,
        });
        Ok(NodeSession {
            revision: self.view_revision(),
            ended,
            opened_at,
            heard: None,
            manager: self.clone(),
            node_id,
            node_name: node.metadata.name,
            attached: watch::Sender::new(BTreeSet::new()),
            sent: None,
        })
    }

    /// The revisions whose network part the nodes have applied, by Swarm identifier.
    pub fn acknowledged(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.sessions.acknowledged.subscribe()
    }
}

impl NodeSession {
    /// The node's Swarm identifier.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The node's `metadata.name`.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// What is new for the node: everything at first, then what changed since the last call, coalesced. `None` when
    /// the manager stopped.
    pub async fn next(&mut self) -> Option<Assignment> {
        let mut attached = self.attached.subscribe();
        loop {
            if self.is_over() {
                return None;
            }
            let revision = *self.revision.borrow_and_update();
            let also = attached.borrow_and_update().clone();
            if let Some(assignment) = self.difference(revision, &also) {
                return Some(assignment);
            }
            tokio::select! {
                changed = self.revision.changed() => changed.ok()?,
                changed = attached.changed() => changed.ok()?,
                changed = self.ended.changed() => changed.ok()?,
            }
        }
    }

    fn is_over(&self) -> bool {
        *self.ended.borrow() != self.opened_at
    }

    /// The node was last heard of at this time: it counts as lost some heartbeats later.
    pub(crate) fn last_heard(&mut self, at: tripod_model::Time) {
        self.heard = Some(at);
    }

    /// Tells the manager the states of pods. They are written together with those of other reports; a report that says
    /// nothing new, or is late, is dropped. After a new session was opened, the node reports all its pods.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when the session is over.
    pub async fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        self.reporter().report(reports)
    }

    /// A handle for reporting while [`NodeSession::next`] waits.
    pub fn reporter(&self) -> Reporter {
        Reporter {
            manager: self.manager.clone(),
            node_id: self.node_id.clone(),
            node_name: self.node_name.clone(),
            attached: self.attached.clone(),
            ended: self.ended.clone(),
            opened_at: self.opened_at,
        }
    }

    fn difference(&mut self, revision: u64, also: &BTreeSet<String>) -> Option<Assignment> {
        let full = self.sent.is_none();
        let sent = self.sent.get_or_insert_default();
        let mut next = Assignment {
            revision,
            full,
            ..Assignment::default()
        };
        let manager = &self.manager;
        manager.with_view(|view| {
            pods(view, &self.node_name, sent, &mut next);
            let basis = (view.network_epoch(), also.clone());
            if sent.basis.as_ref() != Some(&basis) {
                let services = manager.sessions.services(view);
                network(view, &self.node_name, also, &services, sent, &mut next);
                sent.basis = Some(basis);
            }
        });
        if full || !next.pods.is_empty() || !next.removed_pods.is_empty() {
            data(manager, sent, &mut next);
        }
        crate::inputs::difference(manager, &self.node_name, &sent.pods, &mut sent.inputs, &mut next);
        let changed = full
            || next.frontends.is_some()
            || next.fabric.is_some()
            || next.policies.is_some()
            || next.cluster_names.is_some()
            || !(next.pods.is_empty()
                && next.removed_pods.is_empty()
                && next.networks.is_empty()
                && next.removed_networks.is_empty()
                && next.data.is_empty()
                && next.removed_data.is_empty()
                && next.inputs.is_empty()
                && next.removed_inputs.is_empty()
                && next.node.is_none()
                && next.names.is_empty());
        changed.then_some(next)
    }
}

impl Drop for NodeSession {
    fn drop(&mut self) {
        let mut open = lock(&self.manager.sessions.open);
        let left = open.get_mut(&self.node_id).map_or(0, |n| {
            *n -= 1;
            *n
        });
        if left == 0 {
            open.remove(&self.node_id);
            drop(open);
            self.manager.sessions.holders.forget(&self.node_id);
            self.manager.sessions.acknowledged.send_modify(|acks| {
                acks.remove(&self.node_id);
            });
            self.manager.tell(Input::Presence {
                node_id: self.node_id.clone(),
                present: false,
                heard: self.heard,
            });
        }
    }
}

/// What a node tells its manager; clones are the same session's.
#[derive(Clone)]
pub struct Reporter {
    manager: Arc<Manager>,
    node_id: String,
    node_name: String,
    attached: watch::Sender<BTreeSet<String>>,
    ended: watch::Receiver<u64>,
    opened_at: u64,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reporter({})", self.node_id)
    }
}

impl Reporter {
    /// As [`NodeSession::report`].
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when the session is over.
    pub fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        if *self.ended.borrow() != self.opened_at {
            return Err(stopped());
        }
        self.manager.tell(Input::Reports {
            node: self.node_name.clone(),
            reports,
        });
        Ok(())
    }

    /// A token of a service account for one of the node's pods.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Forbidden`] when the pod is not the node's, or what the issuer says.
    pub async fn token(&self, request: TokenRequest) -> Result<Token> {
        self.manager.token_for(&self.node_name, request).await
    }

    /// The node has applied the network part of the assignment of this revision.
    pub fn acknowledge(&self, revision: u64) {
        self.manager.sessions.acknowledged.send_if_modified(|acks| {
            let known = acks.entry(self.node_id.clone()).or_default();
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
    }

    /// The cluster networks (identifiers) to which local containers of the node are attached: the node takes part in
    /// them too.
    pub fn attach(&self, networks: BTreeSet<String>) {
        self.attached
            .send_if_modified(|known| std::mem::replace(known, networks.clone()) != networks);
    }

    /// What changed of the images that the node has; at first, all of them.
    pub fn images(&self, change: HeldImages) {
        if *self.ended.borrow() == self.opened_at {
            self.manager.sessions.holders.change(&self.node_id, change);
        }
    }

    /// An address for a local container (`owner`) in an attachable cluster network. Held until released or until the
    /// manager restarts: the node asks again for the address it has after each new session.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`] for the network, [`tripod_model::ErrorKind::Forbidden`] when it is not
    /// attachable or the address is taken.
    pub async fn lease(&self, owner: &str, network: &str, wanted: Option<IpAddr>) -> Result<IpNet> {
        let found = self.manager.network(network)?;
        if !found.spec.attachable {
            let text = format!("network {} not manually attachable", found.spec.name);
            return Err(Error::forbidden(text));
        }
        let (reply, answer) = oneshot::channel();
        let (owner, network) = (self.holder(owner), found.metadata.name);
        self.manager.tell(Input::Lease {
            owner,
            network,
            wanted,
            reply,
        });
        answer.await.map_err(|_| stopped())?
    }

    /// Gives the addresses of a local container back.
    pub fn release(&self, owner: &str) {
        self.manager.tell(Input::Release {
            owner: self.holder(owner),
        });
    }

    /// Who holds an address, with the node that it is on.
    fn holder(&self, owner: &str) -> String {
        format!("{}/{owner}", self.node_name)
    }
}

fn stopped() -> Error {
    Error::unavailable("the manager has stopped, or leads no more")
}

/// The pods of the node, those that ended and are remembered included.
fn pods(view: &View, node: &str, sent: &mut Sent, next: &mut Assignment) {
    let mut seen = 0;
    for pod in view.pods_of_node(node) {
        seen += 1;
        let key = pod_key(pod);
        match sent.pods.get_mut(&key) {
            Some(known) if Arc::ptr_eq(known, pod) => {}
            Some(known) => {
                // What the node itself reported need not be told to it.
                if concerns(known, pod) {
                    next.pods.push(pod.clone());
                }
                *known = pod.clone();
            }
            None => {
                next.pods.push(pod.clone());
                sent.pods.insert(key, pod.clone());
            }
        }
    }
    if seen != sent.pods.len() {
        let here = |key: &String| view.pod(key).is_some_and(|p| p.spec.node_name == node);
        let gone: Vec<String> = sent.pods.keys().filter(|key| !here(key)).cloned().collect();
        for key in gone {
            sent.pods.remove(&key);
            next.removed_pods.push(key);
        }
    }
}

/// Whether a change of a pod is one that its node must know.
fn concerns(old: &Pod, new: &Pod) -> bool {
    old.metadata.uid != new.metadata.uid
        || old.state.desired != new.state.desired
        || old.state.not_before != new.state.not_before
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.deletion_grace_period_seconds != new.metadata.deletion_grace_period_seconds
        || old.spec != new.spec
        || old.extension != new.extension
        // The downward API shows them, and readiness gates are conditions that others set.
        || old.swarm().is_none()
            && (old.metadata.labels != new.metadata.labels
                || old.metadata.annotations != new.metadata.annotations
                || crate::inputs::gates(old) != crate::inputs::gates(new))
}

fn network(
    view: &View,
    node: &str,
    also: &BTreeSet<String>,
    services: &ClusterServices,
    sent: &mut Sent,
    next: &mut Assignment,
) {
    let full = next.full;
    let mut projection = project(view, node, also);
    if projection.networks.iter().any(|n| n.id == POD_NETWORK) {
        projection.frontends.extend(services.frontends.iter().cloned());
        if full || *sent.cluster_names != services.names {
            sent.cluster_names = Arc::new(services.names.clone());
            next.cluster_names = Some(sent.cluster_names.clone());
        }
    }
    if full || *sent.fabric != projection.fabric {
        sent.fabric = Arc::new(projection.fabric);
        next.fabric = Some(sent.fabric.clone());
    }
    if full || *sent.policies != projection.policies {
        sent.policies = Arc::new(projection.policies);
        next.policies = Some(sent.policies.clone());
    }
    let mut needed = BTreeSet::new();
    for spec in projection.networks {
        needed.insert(spec.id.clone());
        if sent.networks.get(&spec.id).is_none_or(|known| **known != spec) {
            let spec = Arc::new(spec);
            next.networks.push(spec.clone());
            sent.networks.insert(spec.id.clone(), spec);
        }
    }
    let gone: Vec<String> = sent
        .networks
        .keys()
        .filter(|id| !needed.contains(*id))
        .cloned()
        .collect();
    for id in gone {
        sent.networks.remove(&id);
        sent.names.remove(&id);
        next.removed_networks.push(id);
    }
    if full || *sent.frontends != projection.frontends {
        sent.frontends = Arc::new(projection.frontends);
        next.frontends = Some(sent.frontends.clone());
    }
    for (id, names) in projection.names {
        if sent.names.get(&id).is_none_or(|known| **known != names) {
            let names = Arc::new(names);
            sent.names.insert(id.clone(), names.clone());
            next.names.push((id, names));
        }
    }
}

/// The secrets and configs of pods that run or are to run.
fn data(manager: &Manager, sent: &mut Sent, next: &mut Assignment) {
    let state = manager.db().snapshot();
    let mut needed = BTreeSet::new();
    for pod in sent.pods.values() {
        let live = pod.state.desired <= DesiredState::Complete && !pod.state.observed.is_final();
        let Some(task) = pod.swarm().filter(|_| live) else {
            continue;
        };
        let container = &task.template.container;
        let secrets = container.secrets.iter().map(|r| (r, true));
        for (reference, secret) in secrets.chain(container.configs.iter().map(|r| (r, false))) {
            if !needed.insert(reference.id.clone()) || sent.data.contains(&reference.id) {
                continue;
            }
            let item = match secret {
                true => state
                    .get::<Secret>(NAMESPACE, &reference.id)
                    .map(|s| s.map(secret_item)),
                false => state
                    .get::<ConfigMap>(NAMESPACE, &reference.id)
                    .map(|c| c.map(config_item)),
            };
            match item {
                Ok(Some(item)) => next.data.push(Arc::new(item)),
                // The node says of the pod what it misses.
                Ok(None) => {
                    needed.remove(&reference.id);
                }
                Err(error) => tracing::error!(id = reference.id, %error, "data cannot be read"),
            }
        }
    }
    next.removed_data = sent.data.difference(&needed).cloned().collect();
    sent.data = needed;
}

fn secret_item(secret: Secret) -> DataItem {
    let swarm = secret.swarm.clone().unwrap_or_default();
    DataItem {
        id: secret.metadata.name.clone(),
        name: secret.metadata.display_name().to_owned(),
        secret: true,
        templating: swarm.templating,
        data: secret_bytes(&secret),
    }
}

fn config_item(config: ConfigMap) -> DataItem {
    let swarm = config.swarm.clone().unwrap_or_default();
    DataItem {
        id: config.metadata.name.clone(),
        name: config.metadata.display_name().to_owned(),
        secret: false,
        templating: swarm.templating,
        data: config_bytes(&config),
    }
}
