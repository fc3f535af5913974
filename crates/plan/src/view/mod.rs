//! The view: what plans look at, kept up to date object by object, with the indices that make each look-up
//! cheap. It also remembers which services a change concerns, so that only those are planned again.

mod usage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tripod_model::data::Network;
use tripod_model::network::PortProtocol;
use tripod_model::node::Node;
use tripod_model::object::Kind;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::{PublishMode, SwarmCluster, SwarmService, TaskState};

use crate::ecs::EcsView;
use crate::kube::KubeView;
pub(crate) use usage::reservations;
pub use usage::{NodeLoad, NodeUse};

/// `namespace/name` of a pod.
pub fn pod_key(pod: &Pod) -> String {
    format!("{}/{}", pod.metadata.namespace, pod.metadata.name)
}

/// A network and the addresses given out in it.
#[derive(Debug, Clone, Default)]
pub struct NetworkUse {
    /// The network; `None` when only its addresses are known yet.
    pub network: Option<Arc<Network>>,
    /// Addresses in use, with the number of holders.
    pub used: HashMap<IpAddr, u32>,
    /// The address given out last, so that one just released rests.
    pub cursor: Option<IpAddr>,
}

/// Everything that plans look at.
#[derive(Debug, Clone, Default)]
pub struct View {
    cluster: Option<Arc<SwarmCluster>>,
    services: BTreeMap<String, Arc<SwarmService>>,
    service_names: HashMap<String, String>,
    nodes: BTreeMap<String, Arc<Node>>,
    node_names: HashMap<String, String>,
    networks: BTreeMap<String, NetworkUse>,
    network_names: HashMap<String, String>,
    pods: HashMap<String, Arc<Pod>>,
    by_service: HashMap<String, BTreeMap<String, Arc<Pod>>>,
    by_node: HashMap<String, NodeLoad>,
    ingress_ports: HashMap<(PortProtocol, u16), String>,
    unplaced: BTreeMap<String, i64>,
    leases: HashMap<String, Vec<(String, IpAddr)>>,
    dirty: BTreeSet<String>,
    network_epoch: u64,
    kube: KubeView,
    ecs: EcsView,
}

impl View {
    /// An empty view.
    pub fn new() -> Self {
        Self::default()
    }

    // ---- look-ups -------------------------------------------------------------------------------------------

    /// The cluster.
    pub fn cluster(&self) -> Option<&Arc<SwarmCluster>> {
        self.cluster.as_ref()
    }

    /// A service by identifier.
    pub fn service(&self, id: &str) -> Option<&Arc<SwarmService>> {
        self.services.get(id)
    }

    /// A service by the user's name.
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<SwarmService>> {
        self.services.get(self.service_names.get(name)?)
    }

    /// All services, by identifier.
    pub fn services(&self) -> impl Iterator<Item = &Arc<SwarmService>> {
        self.services.values()
    }

    /// A node by `metadata.name`.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// A node by its Swarm identifier.
    pub fn node_by_id(&self, id: &str) -> Option<&Arc<Node>> {
        self.nodes.get(self.node_names.get(id)?)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// A network by identifier or, failing that, by name.
    pub fn network(&self, id_or_name: &str) -> Option<&Arc<Network>> {
        let direct = self.networks.get(id_or_name).and_then(|n| n.network.as_ref());
        direct.or_else(|| {
            self.networks
                .get(self.network_names.get(id_or_name)?)?
                .network
                .as_ref()
        })
    }

    /// All networks, by identifier.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values().filter_map(|n| n.network.as_ref())
    }

    /// The routing mesh's network.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.networks().find(|n| n.spec.ingress)
    }

    /// The addresses in use in a network.
    pub fn network_use(&self, id: &str) -> Option<&NetworkUse> {
        self.networks.get(id)
    }

    /// A pod by `namespace/name`.
    pub fn pod(&self, key: &str) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The pods of a service, by key, those of a service that is gone included.
    pub fn pods_of_service(&self, id: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_service.get(id).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods of a node (by its `metadata.name`), by key.
    pub fn pods_of_node(&self, name: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.get(name).into_iter().flat_map(|n| n.pods.values())
    }

    /// What the pods of a node use.
    pub fn node_use(&self, name: &str) -> Option<&NodeUse> {
        self.by_node.get(name).map(|n| &n.usage)
    }

    /// The service that holds a port of the routing mesh.
    pub fn ingress_port_holder(&self, protocol: PortProtocol, port: u16) -> Option<&str> {
        self.ingress_ports.get(&(protocol, port)).map(String::as_str)
    }

    /// Counts changes that frontends and names depend on: while it stays, no projection changes.
    pub fn network_epoch(&self) -> u64 {
        self.network_epoch + self.kube.epoch()
    }

    /// Objects of the Kubernetes API, with their indices.
    pub fn kube(&self) -> &KubeView {
        &self.kube
    }

    /// Objects of the Kubernetes API, for changes.
    pub fn kube_mut(&mut self) -> &mut KubeView {
        &mut self.kube
    }

    /// What ECS decides on.
    pub fn ecs(&self) -> &EcsView {
        &self.ecs
    }

    /// What ECS decides on, for changes.
    pub fn ecs_mut(&mut self) -> &mut EcsView {
        &mut self.ecs
    }

    /// The services that changes since the last call concern: hand them to [`crate::reconcile`].
    pub fn take_dirty(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty)
    }

    /// Has a service planned again (at `wake_at`, or after a plan that could not be executed).
    pub fn mark_dirty(&mut self, service: impl Into<String>) {
        self.dirty.insert(service.into());
    }

    /// Has everything planned again, services that are gone but have pods included.
    pub fn mark_all_dirty(&mut self) {
        self.dirty.extend(self.services.keys().cloned());
        self.dirty.extend(self.by_service.keys().cloned());
        let nodes = self.nodes.keys().map(|name| name.as_str().into());
        for name in nodes.collect::<Vec<std::sync::Arc<str>>>() {
            let key = crate::kube::ObjKey::new(Node::RESOURCE, "", name);
            self.kube.mark(crate::kube::Controller::Node, key);
        }
        self.kube.mark_all();
        self.ecs.mark_all();
    }

    // ---- changes --------------------------------------------------------------------------------------------

    /// Takes over the cluster.
    pub fn upsert_cluster(&mut self, cluster: Arc<SwarmCluster>) {
        let changed = self.cluster.as_ref().is_none_or(|old| old.spec != cluster.spec);
        self.cluster = Some(cluster);
        if changed {
            self.mark_all_dirty();
        }
    }

    /// Forgets the cluster.
    pub fn remove_cluster(&mut self) {
        self.cluster = None;
    }

    /// Takes over a service, new or changed.
    pub fn upsert_service(&mut self, service: Arc<SwarmService>) {
        let id = service.metadata.name.clone();
        // New addresses are held before old ones are released, so that what stays is not seen as given out anew.
        for vip in service.status.endpoint.iter().flat_map(|e| &e.virtual_ips) {
            self.hold(&vip.network_id, vip.ip());
        }
        if let Some(old) = self.services.get(&id).cloned() {
            self.uncount_service(&old);
        }
        for port in ingress_ports(&service) {
            self.ingress_ports.insert(port, id.clone());
        }
        self.service_names.insert(service.spec.name.clone(), id.clone());
        self.services.insert(id.clone(), service);
        self.network_epoch += 1;
        self.dirty.insert(id);
    }

    /// Forgets a service; its pods are then to go.
    pub fn remove_service(&mut self, id: &str) {
        if let Some(old) = self.services.remove(id) {
            self.uncount_service(&old);
            self.network_epoch += 1;
            self.dirty.insert(id.to_owned());
            self.wake_unplaced();
        }
    }

    fn uncount_service(&mut self, old: &SwarmService) {
        let id = &old.metadata.name;
        for vip in old.status.endpoint.iter().flat_map(|e| &e.virtual_ips) {
            self.release(&vip.network_id, vip.ip());
        }
        for port in ingress_ports(old) {
            if self.ingress_ports.get(&port) == Some(id) {
                self.ingress_ports.remove(&port);
            }
        }
        if self.service_names.get(&old.spec.name) == Some(id) {
            self.service_names.remove(&old.spec.name);
        }
    }

    /// Takes over a node, new or changed.
    pub fn upsert_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone();
        let changed = self.nodes.get(&name).is_none_or(|old| {
            old.spec != node.spec
                || old.status.state != node.status.state
                || old.status.addr != node.status.addr
                || old.status.description != node.status.description
        });
        self.node_names
            .insert(node.spec.swarm.node_id.clone(), name.clone());
        let old = self.nodes.insert(name.clone(), node.clone());
        self.kube.node_changed(old.as_deref(), Some(&node));
        if changed {
            self.node_changed(&name);
        }
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(old) = self.nodes.remove(name) {
            self.node_names.remove(&old.spec.swarm.node_id);
            self.kube.node_changed(Some(&old), None);
            self.node_changed(name);
        }
    }

    fn node_changed(&mut self, name: &str) {
        self.network_epoch += 1;
        self.ecs.node_changed();
        self.dirty.extend(self.services_on(name));
        let global = self.services.values().filter(|s| s.spec.mode.is_global());
        self.dirty.extend(global.map(|s| s.metadata.name.clone()));
        self.wake_unplaced();
    }

    fn services_on(&self, node: &str) -> BTreeSet<String> {
        self.pods_of_node(node)
            .filter_map(|p| p.swarm())
            .map(|t| t.service_id.clone())
            .collect()
    }

    /// Takes over a network, new or changed.
    pub fn upsert_network(&mut self, network: Arc<Network>) {
        let id = network.metadata.name.clone();
        self.network_names.insert(network.spec.name.clone(), id.clone());
        self.networks.entry(id).or_default().network = Some(network);
        self.network_epoch += 1;
        self.wake_unplaced();
    }

    /// Forgets a network.
    pub fn remove_network(&mut self, id: &str) {
        if let Some(old) = self.networks.get_mut(id).and_then(|n| n.network.take()) {
            if self.network_names.get(&old.spec.name).is_some_and(|x| x == id) {
                self.network_names.remove(&old.spec.name);
            }
            self.network_epoch += 1;
        }
        if self.networks.get(id).is_some_and(|n| n.used.is_empty()) {
            self.networks.remove(id);
        }
    }

    /// Takes over a pod, new or changed.
    pub fn upsert_pod(&mut self, pod: Arc<Pod>) {
        let key = pod_key(&pod);
        let old = self.pods.get(&key).cloned();
        self.count_pod(&pod, 1);
        if let Some(old) = &old {
            self.count_pod(old, -1);
            self.unindex_pod(&key, old);
        }
        self.note_pod(old.as_deref(), Some(&pod));
        let info = crate::kube::pod::PodInfo::of(&pod);
        // What was read of its fields so far is not kept with the pod: see [`tripod_model::fields`].
        let pod = Arc::new(Pod::clone(&pod));
        if !pod.spec.node_name.is_empty() {
            let load = self.by_node.entry(pod.spec.node_name.clone()).or_default();
            load.pods.insert(key.clone(), pod.clone());
        }
        if let Some(task) = pod.swarm() {
            let pods = self.by_service.entry(task.service_id.clone()).or_default();
            pods.insert(key.clone(), pod.clone());
        }
        self.kube.upsert_pod(&pod, info);
        self.ecs.upsert_pod(&pod);
        self.pods.insert(key, pod);
    }

    /// Forgets a pod, by `namespace/name`.
    pub fn remove_pod(&mut self, key: &str) {
        if let Some(old) = self.pods.remove(key) {
            self.count_pod(&old, -1);
            self.unindex_pod(key, &old);
            self.note_pod(Some(&old), None);
            self.kube.remove_pod(&old);
            self.ecs.remove_pod(&old);
        }
    }

    fn unindex_pod(&mut self, key: &str, old: &Pod) {
        if let Some(load) = self.by_node.get_mut(&old.spec.node_name) {
            load.pods.remove(key);
        }
        let service = old.swarm().map_or("", |t| &t.service_id);
        if let Some(pods) = self.by_service.get_mut(service) {
            pods.remove(key);
            if pods.is_empty() {
                self.by_service.remove(service);
            }
        }
    }

    /// Addresses of local containers in cluster networks: node, network, address.
    pub fn leases(&self) -> impl Iterator<Item = (&str, &str, IpAddr)> {
        self.leases.iter().flat_map(|(owner, held)| {
            let node = owner.split_once('/').map_or("", |(node, _)| node);
            held.iter().map(move |(network, a)| (node, network.as_str(), *a))
        })
    }

    /// Keeps addresses that are not a pod's or service's (a container of `docker run` in a cluster network).
    /// `owner` is the node's name, a slash, and who holds them there.
    pub fn upsert_lease(&mut self, owner: &str, addresses: Vec<(String, IpAddr)>) {
        self.network_epoch += 1;
        self.remove_lease(owner);
        for (network, address) in &addresses {
            self.hold(network, *address);
        }
        self.leases.insert(owner.to_owned(), addresses);
    }

    /// Gives such addresses back.
    pub fn remove_lease(&mut self, owner: &str) {
        let Some(held) = self.leases.remove(owner) else {
            return;
        };
        self.network_epoch += 1;
        for (network, address) in held {
            self.release(&network, address);
        }
    }

    fn count_pod(&mut self, pod: &Pod, sign: i64) {
        if !pod.spec.node_name.is_empty() {
            let load = self.by_node.entry(pod.spec.node_name.clone()).or_default();
            load.usage.count(pod, sign);
        }
        if !pod.state.observed.is_final() {
            for net in &pod.extension.networks {
                match (net.address, sign > 0) {
                    (Some(a), true) => self.hold(&net.network_id, a.addr()),
                    (Some(a), false) => self.release(&net.network_id, a.addr()),
                    (None, _) => {}
                }
            }
        }
        if let Some(task) = pod.swarm()
            && is_unplaced(pod)
        {
            let n = self.unplaced.entry(task.service_id.clone()).or_default();
            *n += sign;
            if *n == 0 {
                self.unplaced.remove(&task.service_id);
            }
        }
    }

    fn note_pod(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        let Some(any) = new.or(old) else { return };
        if old.map(standing) != new.map(standing)
            && let Some(task) = any.swarm()
        {
            self.dirty.insert(task.service_id.clone());
        }
        let moved = || old.map(|p| &p.spec.node_name) != new.map(|p| &p.spec.node_name);
        if old.and_then(reachable) != new.and_then(reachable) || any.swarm().is_some() && moved() {
            self.network_epoch += 1;
        }
        if old.is_some_and(usage::holds) && !new.is_some_and(usage::holds) {
            self.wake_unplaced();
        }
    }

    fn wake_unplaced(&mut self) {
        self.dirty.extend(self.unplaced.keys().cloned());
    }

    fn hold(&mut self, network: &str, address: IpAddr) {
        if !self.networks.contains_key(network) {
            self.networks.insert(network.to_owned(), NetworkUse::default());
        }
        if let Some(net) = self.networks.get_mut(network) {
            let n = net.used.entry(address).or_default();
            *n += 1;
            if *n == 1 {
                net.cursor = Some(address);
            }
        }
    }

    fn release(&mut self, network: &str, address: IpAddr) {
        let Some(net) = self.networks.get_mut(network) else {
            return;
        };
        match net.used.get_mut(&address) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                net.used.remove(&address);
            }
        }
    }
}

/// Ports of the routing mesh that a service holds.
fn ingress_ports(service: &SwarmService) -> impl Iterator<Item = (PortProtocol, u16)> + '_ {
    let ports = service.status.endpoint.iter().flat_map(|e| &e.ports);
    ports
        .filter(|p| p.publish_mode == PublishMode::Ingress && p.published_port != 0)
        .map(|p| (p.protocol, p.published_port))
}

/// Whether a pod waits for a node.
pub(crate) fn is_unplaced(pod: &Pod) -> bool {
    pod.is_live() && pod.state.observed < TaskState::Assigned
}

/// What of a pod decides on its service's plan: the way from `assigned` to `starting` does not.
fn standing(pod: &Pod) -> (DesiredState, TaskState, bool, bool, bool) {
    let observed = match pod.state.observed {
        s if s >= TaskState::Assigned && s < TaskState::Running => TaskState::Assigned,
        s => s,
    };
    let gone = pod.metadata.deletion_timestamp.is_some();
    (
        pod.state.desired,
        observed,
        pod.state.serving,
        gone,
        pod.state.not_before.is_some(),
    )
}

/// What of a pod decides on frontends and names.
fn reachable(pod: &Pod) -> Option<(bool, bool, bool, &str)> {
    let s = &pod.state;
    (s.observed >= TaskState::Assigned && !s.observed.is_final()).then_some((
        s.observed == TaskState::Running,
        s.serving,
        s.desired > DesiredState::Complete,
        s.container_id.as_str(),
    ))
}
