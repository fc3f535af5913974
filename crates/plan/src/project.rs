//! What a node's network must do: the frontends and names of a session's assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tripod_model::id;
use tripod_model::network::fabric::Fabric;
use tripod_model::network::policy::Policies;
use tripod_model::network::{Backend, Frontend, FrontendPorts, NameRecord, NetworkSpec, PublishedPort};
use tripod_model::node::NodeState;
use tripod_model::pod::{DesiredState, Pod, SwarmTask};
use tripod_model::swarm::{EndpointMode, SwarmService, TaskState};

use crate::allocate::{address_in, publish};
use crate::network;
use crate::task::container_name;
use crate::view::View;

/// The network part of a node's assignment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Projection {
    /// The cluster networks in which the node takes part, by identifier.
    pub networks: Vec<NetworkSpec>,
    /// Virtual addresses and published ports, by network and service.
    pub frontends: Vec<Frontend>,
    /// Names of each of these networks.
    pub names: Vec<(String, Vec<NameRecord>)>,
    /// The other nodes, and what they have of these networks.
    pub fabric: Fabric,
    /// What the node's pods may do.
    pub policies: Policies,
}

/// The network part of a node's assignment (`node` is its `metadata.name`). Besides the networks of its pods, a node
/// takes part in those in `also` (local containers attached to a cluster network), and always in the mesh's and in the
/// pods'. The frontends and names of Services are the same for all nodes: see [`network::cluster_services`].
pub fn project(view: &View, node: &str, also: &BTreeSet<String>) -> Projection {
    let mut projection = Projection::default();
    for id in node_networks(view, node, also) {
        let Some(network) = view.network(&id) else {
            continue;
        };
        projection.networks.push(network.spec.clone());
        projection.frontends.extend(frontends(view, &id));
        if !network.spec.ingress {
            projection.names.push((id.clone(), names(view, &id)));
        }
    }
    let overlays = projection.networks.iter().map(|n| n.id.clone()).collect();
    projection.networks.extend(network::pods_on(view, node));
    projection.fabric = network::fabric(view, node, &overlays);
    projection.policies = network::policies(view, node);
    let groups = crate::ecs::policies(view, node);
    projection.policies.sets.extend(groups.sets);
    projection.policies.pods.extend(groups.pods);
    projection.policies.waiting.extend(groups.waiting);
    projection
}

/// Identifiers of the cluster networks in which a node takes part.
pub fn node_networks(view: &View, node: &str, also: &BTreeSet<String>) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = also.clone();
    ids.extend(view.ingress_network().map(|n| n.metadata.name.clone()));
    for pod in view.pods_of_node(node).filter(|p| !p.state.observed.is_final()) {
        let attached = pod.extension.networks.iter().filter(|n| n.address.is_some());
        ids.extend(attached.map(|n| n.network_id.clone()));
    }
    ids.retain(|id| view.network(id).is_some());
    ids
}

/// The frontends of a network: one for each service with a virtual address there. The mesh's carry the published
/// ports.
pub fn frontends(view: &View, network_id: &str) -> Vec<Frontend> {
    let ingress = view.network(network_id).is_some_and(|n| n.spec.ingress);
    let mut all = Vec::new();
    for service in services_in(view, network_id) {
        let endpoint = service.status.endpoint.as_ref();
        let vip = endpoint
            .and_then(|e| e.virtual_ips.iter().find(|v| v.network_id == network_id))
            .map(|v| v.ip());
        if vip.is_none() {
            continue;
        }
        let published = if ingress { published(service) } else { Vec::new() };
        all.push(Frontend {
            id: service.metadata.name.clone(),
            network_id: network_id.to_owned(),
            vip,
            ports: FrontendPorts::All,
            published,
            backends: backends(view, service, network_id),
            ..Frontend::default()
        });
    }
    all
}

fn published(service: &SwarmService) -> Vec<PublishedPort> {
    let ports = publish(service).into_iter();
    ports
        .map(|((protocol, host_port), target_port)| PublishedPort {
            host_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_port,
            target_port,
            protocol,
        })
        .collect()
}

/// Where a service's connections go in a network: tasks that run and serve, on nodes that are not lost; those that
/// are to end are marked.
pub fn backends(view: &View, service: &SwarmService, network_id: &str) -> Vec<Backend> {
    let mut backends: Vec<Backend> = view
        .pods_of_service(&service.metadata.name)
        .filter(|pod| serves(pod) && on_live_node(view, pod))
        .filter_map(|pod| {
            let address = address_in(pod, network_id)?;
            Some(Backend {
                terminating: pod.state.desired > DesiredState::Complete,
                ..Backend::new(address, &pod.metadata.name, &pod.spec.node_name)
            })
        })
        .collect();
    backends.sort_by_key(|b| b.address);
    backends
}

/// Whether a pod runs and may be sent connections. Pods with neither target ports nor a health check have nothing
/// to wait for.
pub fn serves(pod: &Pod) -> bool {
    let waits = |t: &SwarmTask| {
        let check = t.template.container.healthcheck.as_ref();
        !t.mesh_ports.is_empty()
            || !t.host_ports.is_empty()
            || check.is_some_and(|h| h.test.first().is_some_and(|w| w != "NONE"))
    };
    pod.state.observed == TaskState::Running && (pod.state.serving || !pod.swarm().is_some_and(waits))
}

fn on_live_node(view: &View, pod: &Pod) -> bool {
    view.node(&pod.spec.node_name)
        .is_some_and(|n| n.status.state != NodeState::Down)
}

fn services_in<'a>(view: &'a View, network_id: &'a str) -> impl Iterator<Item = &'a Arc<SwarmService>> {
    let resolves = move |target: &str| {
        view.network(target)
            .is_some_and(|n| n.metadata.name == network_id)
    };
    view.services().filter(move |s| {
        let held = s.status.endpoint.iter().flat_map(|e| &e.virtual_ips);
        let asked = s.spec.task_template.networks.iter().chain(&s.spec.networks);
        held.into_iter().any(|v| v.network_id == network_id) || asked.into_iter().any(|a| resolves(&a.target))
    })
}

/// The names of a network: services and their aliases, `tasks.<service>`, and the tasks' containers.
pub fn names(view: &View, network_id: &str) -> Vec<NameRecord> {
    let mut records = Vec::new();
    for service in services_in(view, network_id) {
        service_names(view, service, network_id, &mut records);
    }
    records.sort_by(|a, b| (&a.name, &a.owner).cmp(&(&b.name, &b.owner)));
    records
}

fn service_names(view: &View, service: &SwarmService, network_id: &str, records: &mut Vec<NameRecord>) {
    let owner = &service.metadata.name;
    let record = |name: &str, owner: &str, addresses: Vec<IpAddr>, reverse| NameRecord {
        name: name.to_owned(),
        addresses,
        owner: owner.to_owned(),
        reverse,
    };
    let mut reachable: Vec<IpAddr> = Vec::new();
    let mut task_aliases: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for pod in view.pods_of_service(owner) {
        let Some(task) = pod.swarm() else { continue };
        let Some(address) = address_in(pod, network_id) else {
            continue;
        };
        if pod.state.observed < TaskState::Starting
            || pod.state.observed.is_final()
            || !on_live_node(view, pod)
        {
            continue;
        }
        records.push(record(&container_name(task), &task.task_id, vec![address], true));
        if !pod.state.container_id.is_empty() {
            records.push(record(
                id::short(&pod.state.container_id),
                &task.task_id,
                vec![address],
                false,
            ));
        }
        if serves(pod) && pod.state.desired <= DesiredState::Complete {
            reachable.push(address);
            let net = pod.extension.networks.iter().find(|n| n.network_id == network_id);
            for alias in net.iter().flat_map(|n| &n.aliases) {
                task_aliases.entry(alias).or_default().push(address);
            }
        }
    }
    reachable.sort_unstable();
    let endpoint = service.status.endpoint.as_ref();
    let vip = endpoint
        .and_then(|e| e.virtual_ips.iter().find(|v| v.network_id == network_id))
        .map(|v| v.ip());
    let dnsrr = endpoint.is_some_and(|e| e.spec.mode == EndpointMode::Dnsrr);
    let answer = match vip {
        Some(vip) => vec![vip],
        None if dnsrr => reachable.clone(),
        None => Vec::new(),
    };
    if !answer.is_empty() {
        records.push(record(&service.spec.name, owner, answer, vip.is_some()));
        let asked = service
            .spec
            .task_template
            .networks
            .iter()
            .chain(&service.spec.networks);
        let here = asked
            .filter(|a| {
                view.network(&a.target)
                    .is_some_and(|n| n.metadata.name == network_id)
            })
            .flat_map(|a| &a.aliases);
        let aliases: BTreeSet<&str> = here
            .map(String::as_str)
            .chain(task_aliases.keys().copied())
            .collect();
        for alias in aliases.into_iter().filter(|a| *a != service.spec.name) {
            let mut addresses = match vip {
                Some(vip) => vec![vip],
                None => task_aliases.get(alias).cloned().unwrap_or_default(),
            };
            addresses.sort_unstable();
            if !addresses.is_empty() {
                records.push(record(alias, owner, addresses, false));
            }
        }
    }
    if !reachable.is_empty() {
        records.push(record(
            &format!("tasks.{}", service.spec.name),
            owner,
            reachable,
            false,
        ));
    }
}
