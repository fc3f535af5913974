//! What a node is told of the other nodes: where they are, and which addresses of a network are theirs.
//!
//! Between nodes everything is static: no learning and no gossip. A tunnel end's hardware address follows from its
//! node's address ([`tunnel_mac`]), so that nothing needs to be exchanged.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NetworkDriver, NetworkSpec, Subnet};
use crate::Time;

/// Identifier and name of the pods' network.
pub const POD_NETWORK: &str = "pods";
/// VXLAN identifier of the pods' network; the routing mesh has 4096, other overlays those above.
pub const POD_VNI: u32 = 4095;
/// The UDP port of VXLAN, unless the cluster was made with another.
pub const VXLAN_PORT: u16 = 4789;
/// Default range of pod addresses.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// Default range of service addresses.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Option of the pods' network: the range of service addresses, for which nodes have a route of their own.
pub const SERVICE_RANGE_OPTION: &str = "tripod.dev/service-range";
/// Option of the pods' network: the address at which each node answers for the cluster's DNS.
pub const DNS_OPTION: &str = "tripod.dev/dns";

/// How this node takes part in the networks that span nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Fabric {
    /// This node's `metadata.name`.
    pub node: String,
    /// This node's address towards the others; `None` while it has none (a cluster of one node on no network).
    pub address: Option<IpAddr>,
    /// UDP port of the tunnels, the same on all nodes.
    pub port: u16,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Which addresses of each network are on which peer.
    pub routes: Vec<NetworkRoutes>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its `metadata.name`.
    pub node: String,
    /// Its address on the network between the nodes.
    pub address: IpAddr,
}

/// The addresses of a network that are on other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRoutes {
    /// Identifier of the network.
    pub network_id: String,
    /// Addresses or blocks of addresses, and the nodes that have them.
    pub routes: Vec<RemoteRoute>,
}

/// An address, or a block of them, that another node has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteRoute {
    /// One address in an overlay, a node's block in the pods' network.
    pub to: IpNet,
    /// The node's `metadata.name`.
    pub node: String,
}

/// Hardware address of a node's tunnel ends: `02:74` and the (last) four bytes of its address.
pub fn tunnel_mac(node: IpAddr) -> [u8; 6] {
    let o = match node {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let o = a.octets();
            [o[12], o[13], o[14], o[15]]
        }
    };
    [0x02, 0x74, o[0], o[1], o[2], o[3]]
}

/// The pods' network as a node sees it: the range of all pods, the node's own block as `ip_range`, from which the node
/// gives addresses to its pods with [`crate::ipam::allocate`]; the block's first address is the node's.
pub fn pod_network(range: IpNet, block: IpNet, services: IpNet, dns: IpAddr) -> NetworkSpec {
    NetworkSpec {
        id: POD_NETWORK.into(),
        name: POD_NETWORK.into(),
        driver: NetworkDriver::Routed,
        cluster: true,
        created_at: Time::default(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            subnet: range,
            gateway: crate::ipam::first_host(&block),
            ip_range: Some(block),
            // Of no meaning in a routed network, but software takes them for special.
            aux_addresses: [
                ("network".to_owned(), block.network()),
                ("broadcast".to_owned(), block.broadcast()),
            ]
            .into(),
        }],
        options: [
            (SERVICE_RANGE_OPTION.to_owned(), services.to_string()),
            (DNS_OPTION.to_owned(), dns.to_string()),
        ]
        .into(),
        ipam_options: Default::default(),
        labels: Default::default(),
        vni: POD_VNI,
        mtu: 0,
        encrypted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_block_is_where_its_pods_get_addresses() {
        let spec = pod_network(
            POD_RANGE.parse().unwrap(),
            "10.244.3.0/24".parse().unwrap(),
            SERVICE_RANGE.parse().unwrap(),
            "10.96.0.10".parse().unwrap(),
        );
        let pool = &spec.subnets[0];
        assert_eq!(pool.gateway, Some("10.244.3.1".parse().unwrap()));
        let first = crate::ipam::allocate(pool, &Default::default(), None).unwrap();
        assert_eq!(first, "10.244.3.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn hardware_addresses_tell_nodes_apart() {
        assert_eq!(tunnel_mac([192, 0, 2, 7].into()), [2, 0x74, 192, 0, 2, 7]);
        assert_eq!(tunnel_mac("fd00::1".parse().unwrap()), [2, 0x74, 0, 0, 0, 1]);
    }
}
