//! What users do: they write things of their own, and make, change and remove services and drain nodes.

use std::collections::BTreeMap;

use tripod_model::Time;
use tripod_model::data::Network;
use tripod_model::network::{NetworkDriver, NetworkSpec};
use tripod_model::node::{Availability, Node, NodeRole, NodeState};
use tripod_model::object::ObjectMeta;
use tripod_model::swarm::{
    EndpointSpec, NetworkAttachmentConfig, PortConfig, ServiceMode, ServiceSpec, SwarmCluster, SwarmService,
};
use tripod_plan::View;
use tripod_plan::allocate::complete_network;
use tripod_plan::rollout::{new_service, update_service};
use tripod_store::{Expected, Key, Txn};

use crate::manager::{node_name, service_claims, stored};
use crate::rng::Rng;

/// Services that there are at most.
const SERVICES: usize = 6;

/// What every manager's log begins with: the cluster, its nodes, two networks.
pub(crate) fn beginning(nodes: usize, now: Time) -> Txn {
    let mut view = View::new();
    let mut txn = Txn::new();
    let mut cluster = SwarmCluster::default();
    cluster.metadata.name = "cluster".into();
    let (key, bytes, claims) = stored(&cluster, Vec::new());
    txn = txn.create(key, bytes, claims);
    for (name, ingress) in [("ingress", true), ("front", false)] {
        let spec = NetworkSpec {
            id: format!("net-{name}"),
            name: name.into(),
            driver: NetworkDriver::Overlay,
            cluster: true,
            created_at: now,
            internal: false,
            attachable: false,
            ingress,
            ipv4: true,
            ipv6: false,
            subnets: Vec::new(),
            options: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
            labels: BTreeMap::new(),
            vni: 0,
            mtu: 0,
            encrypted: false,
        };
        let spec = complete_network(&view, spec).expect("a subnet");
        let metadata = ObjectMeta {
            name: spec.id.clone(),
            ..ObjectMeta::default()
        };
        let network = Network { metadata, spec };
        let (key, bytes, claims) = stored(&network, Vec::new());
        txn = txn.create(key, bytes, claims);
        view.upsert_network(std::sync::Arc::new(network));
    }
    for i in 0..nodes {
        let mut node = Node::default();
        node.metadata.name = node_name(i);
        node.spec.swarm.node_id = format!("id-{}", node_name(i));
        node.spec.swarm.role = NodeRole::Worker;
        node.status.state = NodeState::Down;
        node.status.addr = format!("10.9.0.{}", i + 1);
        node.status.description.hostname = node_name(i);
        node.status.description.nano_cpus = 4_000_000_000;
        node.status.description.memory = 8 << 30;
        let (key, bytes, claims) = stored(&node, Vec::new());
        txn = txn.create(key, bytes, claims);
    }
    txn
}

/// One write of a user's own, that must not be lost once it was acknowledged.
pub(crate) fn marker(name: &str) -> Txn {
    let bytes = format!("{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"default\"}}}}");
    Txn::new().create(marker_key(name), bytes.into_bytes(), Vec::new())
}

pub(crate) fn marker_key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

/// What a user asks of the cluster as a manager sees it.
pub(crate) fn change(view: &View, now: Time, number: u64, rng: &mut Rng) -> Option<Txn> {
    let services: Vec<&SwarmService> = view.services().map(AsRef::as_ref).collect();
    let pick = |rng: &mut Rng| services.get(rng.index(services.len())).copied();
    let replace = |next: &SwarmService| {
        let (key, bytes, claims) = stored(next, service_claims(next));
        Txn::new().update(key, next.metadata.revision(), bytes, claims)
    };
    match rng.index(8) {
        0 | 1 if services.len() < SERVICES => {
            let spec = service(number, rng);
            let id = format!("service{number}");
            let made = new_service(id, format!("uid-{number}"), spec, now);
            let (key, bytes, claims) = stored(&made, service_claims(&made));
            Some(Txn::new().create(key, bytes, claims))
        }
        2 | 3 => {
            let service = pick(rng)?;
            let mut spec = service.spec.clone();
            let replicas = rng.range(0, 16);
            spec.mode = ServiceMode::Replicated { replicas };
            Some(replace(&update_service(service, spec, now)))
        }
        4 => {
            let service = pick(rng)?;
            let mut spec = service.spec.clone();
            spec.task_template.container.image = format!("image{number}");
            Some(replace(&update_service(service, spec, now)))
        }
        5 => {
            let service = pick(rng)?;
            let mut next = service.clone();
            next.status.rebalancing = true;
            Some(replace(&next))
        }
        6 if services.len() > 2 => {
            let service = pick(rng)?;
            let (key, ..) = stored(service, Vec::new());
            let check = Expected::Revision(service.metadata.revision());
            Some(Txn::new().check(key.clone(), check).delete(key))
        }
        _ => {
            let nodes: Vec<&Node> = view.nodes().map(AsRef::as_ref).collect();
            let node = *nodes.get(rng.index(nodes.len()))?;
            let drained = nodes
                .iter()
                .filter(|n| n.spec.swarm.availability == Availability::Drain)
                .count();
            let mut next = node.clone();
            next.spec.swarm.availability = match node.spec.swarm.availability {
                Availability::Active if drained * 3 < nodes.len() => Availability::Drain,
                _ => Availability::Active,
            };
            let (key, bytes, claims) = stored(&next, Vec::new());
            Some(Txn::new().update(key, next.metadata.revision(), bytes, claims))
        }
    }
}

fn service(number: u64, rng: &mut Rng) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: format!("web{number}"),
        mode: ServiceMode::Replicated {
            replicas: rng.range(1, 12),
        },
        ..ServiceSpec::default()
    };
    spec.task_template.container.image = format!("image{number}");
    if rng.permille(500) {
        spec.task_template.networks = vec![NetworkAttachmentConfig {
            target: "net-front".into(),
            ..NetworkAttachmentConfig::default()
        }];
    }
    if rng.permille(500) {
        spec.endpoint_spec = Some(EndpointSpec {
            ports: vec![PortConfig {
                target_port: 8080,
                ..PortConfig::default()
            }],
            ..EndpointSpec::default()
        });
    }
    spec
}
