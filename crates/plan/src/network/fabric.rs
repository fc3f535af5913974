//! What a node is told of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::network::fabric::{Fabric, NetworkRoutes, POD_NETWORK, Peer, RemoteRoute};

use super::{block_of, data_path};
use crate::view::View;

/// The other nodes, and what they have of these overlays and of the pods' network.
pub fn fabric(view: &View, node: &str, overlays: &BTreeSet<String>) -> Fabric {
    let peers: Vec<Peer> = view
        .nodes()
        .filter(|n| n.metadata.name != node)
        .filter_map(|n| {
            Some(Peer {
                node: n.metadata.name.clone(),
                address: data_path(n)?,
            })
        })
        .collect();
    let mut routes: BTreeMap<&str, BTreeSet<RemoteRoute>> = BTreeMap::new();
    for other in view.nodes().filter(|n| n.metadata.name != node) {
        if let Some(block) = block_of(other) {
            routes.entry(POD_NETWORK).or_default().insert(RemoteRoute {
                to: block.into(),
                node: other.metadata.name.clone(),
            });
        }
    }
    if !peers.is_empty() && !overlays.is_empty() {
        let mut put = |network: &str, address: IpAddr, on: &str| {
            if let Some(network) = overlays.get(network).filter(|_| on != node && !on.is_empty()) {
                routes.entry(network).or_default().insert(RemoteRoute {
                    to: IpNet::from(address),
                    node: on.to_owned(),
                });
            }
        };
        for pod in view.pods().filter(|p| !p.state.observed.is_final()) {
            for net in &pod.extension.networks {
                if let Some(address) = net.address {
                    put(&net.network_id, address.addr(), &pod.spec.node_name);
                }
            }
        }
        for (on, network, address) in view.leases() {
            put(network, address, on);
        }
    }
    let port = view.cluster().map_or(0, |c| c.status.data_path_port);
    Fabric {
        node: node.to_owned(),
        address: view.node(node).and_then(|n| data_path(n)),
        port,
        peers,
        routes: routes
            .into_iter()
            .map(|(network, routes)| NetworkRoutes {
                network_id: network.to_owned(),
                routes: routes.into_iter().collect(),
            })
            .collect(),
    }
}
