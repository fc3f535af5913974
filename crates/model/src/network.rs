//! Networks, endpoints and frontends, neutral to the dialects.
//!
//! A *network* is a routing domain closed to the others. An *endpoint* is the place of one sandbox (a
//! container's or pod's network namespace) in one network. A *frontend* is an address or a published port that
//! leads to backends: what a Swarm VIP, a Kubernetes Service and a published port become on a node.

pub mod fabric;
pub mod names;
pub mod policy;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, Time};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for PortProtocol {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::invalid(format_args!("invalid protocol: {s}"))),
        }
    }
}

/// How a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDriver {
    /// A bridge in the host's namespace, with masquerading to the outside.
    Bridge,
    /// The host's own network.
    Host,
    /// Loopback only (Docker's driver `null`).
    Null,
    /// A routed network over all nodes that take part, in a router namespace on each.
    Overlay,
    /// The pods' network: routed in the host's namespace, with a block of addresses for each node.
    Routed,
}

impl NetworkDriver {
    /// The name in the Docker API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Overlay => "overlay",
            Self::Routed => "routed",
        }
    }
}

/// A pool of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// Addresses of the network.
    pub subnet: IpNet,
    /// The address of the bridge or router.
    pub gateway: Option<IpAddr>,
    /// Part of the subnet from which addresses are given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// Addresses kept back, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// A network as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// 64 hex digits (local) or 25 base-36 digits (cluster).
    pub id: String,
    /// Name of the user's.
    pub name: String,
    /// How it is built.
    pub driver: NetworkDriver,
    /// Known to the whole cluster (`swarm` scope) rather than to one node.
    #[serde(default)]
    pub cluster: bool,
    /// When it was made.
    pub created_at: Time,
    /// No way to the outside.
    #[serde(default)]
    pub internal: bool,
    /// Containers of `docker run` may attach to it (overlay).
    #[serde(default)]
    pub attachable: bool,
    /// The routing mesh's network.
    #[serde(default)]
    pub ingress: bool,
    /// IPv4 is on (it always is today).
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// IPv6 asked for.
    #[serde(default)]
    pub ipv6: bool,
    /// Pools of addresses.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Driver options (`com.docker.network.bridge.name`, `com.docker.network.driver.mtu` …).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Options of the address manager.
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    /// Labels of the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// VXLAN network identifier (overlay).
    #[serde(default)]
    pub vni: u32,
    /// MTU of its interfaces; 0 is the underlay's, less the overhead of encapsulation.
    #[serde(default)]
    pub mtu: u32,
    /// Traffic between nodes is to be encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

fn yes() -> bool {
    true
}

impl NetworkSpec {
    /// Name of the Linux bridge (local bridges only): the option's, `docker0` for `bridge`, else `br-` and the
    /// first twelve digits of the identifier.
    pub fn bridge_name(&self) -> String {
        match self.options.get("com.docker.network.bridge.name") {
            Some(name) => name.clone(),
            None if self.name == "bridge" => "docker0".into(),
            None => format!("br-{}", crate::id::short(&self.id)),
        }
    }
}

/// One sandbox's place in one network: addresses are decided before the kernel is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    /// Identifier of the network.
    pub network_id: String,
    /// Name of the network.
    pub network_name: String,
    /// IPv4 address with the prefix length of the subnet.
    pub ipv4: Option<IpNet>,
    /// IPv6 address with the prefix length of the subnet.
    #[serde(default)]
    pub ipv6: Option<IpNet>,
    /// Default route through this network.
    pub gateway: Option<IpAddr>,
    /// Default route through this network, IPv6.
    #[serde(default)]
    pub gateway6: Option<IpAddr>,
    /// Hardware address, `02:42:ac:11:00:02`.
    pub mac: String,
    /// Interface in the sandbox (`eth0` …).
    pub interface: String,
    /// Whether the sandbox's default route goes this way.
    #[serde(default)]
    pub default_route: bool,
    /// Names that the network's DNS answers with this address (container name, aliases, short identifier).
    #[serde(default)]
    pub names: Vec<String>,
    /// Aliases of the user's, as asked for.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Legacy links of the user's.
    #[serde(default)]
    pub links: Vec<String>,
    /// Whether the user asked for that very address.
    #[serde(default)]
    pub fixed_ipv4: bool,
    /// The IPv6 address was asked for.
    #[serde(default)]
    pub fixed_ipv6: bool,
    /// Driver options.
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    /// Priority for the default route.
    #[serde(default)]
    pub gw_priority: i64,
}

/// A port of the host that leads to a sandbox, settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Address of the host; unspecified is all of them.
    pub host_ip: IpAddr,
    /// Port of the host, never 0.
    pub host_port: u16,
    /// Port of the container.
    pub target_port: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

/// An address or published ports that lead to backends.
///
/// A Swarm service has one for each of its networks; a Kubernetes Service has one for each of its ports, because the
/// port behind a named target may differ from backend to backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// Identifier of the service (and port), unique within its network.
    pub id: String,
    /// Network in which the address lives and from which the backends are reached.
    pub network_id: String,
    /// Virtual address; `None` when only published ports lead there.
    pub vip: Option<IpAddr>,
    /// Ports on which the virtual address and the external ones answer.
    pub ports: FrontendPorts,
    /// Ports of every address of this node (127.0.0.1 included) that lead to the backends: the routing mesh, NodePorts.
    pub published: Vec<PublishedPort>,
    /// Where connections go. Without any, connections are refused at once.
    pub backends: Vec<Backend>,
    /// Connections of one client address go to one backend while the last is not longer ago than so many seconds; 0 is
    /// off.
    #[serde(default)]
    pub affinity_seconds: u32,
    /// Further addresses that answer on `ports`, for clients anywhere (`externalIPs`). They need not be addresses of
    /// this node, only be routed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<IpAddr>,
    /// The same for addresses of a load balancer, which `source_ranges` guard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_ips: Vec<IpAddr>,
    /// Clients that the load balancer's addresses serve; empty is all. Others are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<IpNet>,
    /// Connections by published ports and external addresses go to backends on this node only, and are dropped when
    /// it has none but others do (`externalTrafficPolicy: Local`).
    #[serde(default)]
    pub external_local: bool,
    /// The same for the virtual address (`internalTrafficPolicy: Local`).
    #[serde(default)]
    pub internal_local: bool,
}

/// Ports of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FrontendPorts {
    /// Every port, unchanged (a Swarm VIP).
    #[default]
    All,
    /// Pairs of port and target port (a Kubernetes Service).
    Some(Vec<ServicePort>),
}

/// A port of a frontend and the port of the backends to which it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Port of the virtual address.
    pub port: u16,
    /// Port of the backends.
    pub target_port: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

/// One endpoint behind a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Its address: in the frontend's network, or any other that this node reaches (a pod on its host's network).
    pub address: IpAddr,
    /// Its port, where it is another than the target port of the frontend's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The pod or container, for explanations.
    pub owner: String,
    /// `metadata.name` of the node it is on; empty where that plays no part (it is then never local, nor masked).
    #[serde(default)]
    pub node: String,
    /// It is stopping but still serves: no new connections unless nothing else is left.
    #[serde(default)]
    pub terminating: bool,
}

impl Backend {
    /// A backend that serves, on the frontend's target port.
    pub fn new(address: IpAddr, owner: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            address,
            port: None,
            owner: owner.into(),
            node: node.into(),
            terminating: false,
        }
    }
}

/// A name and its addresses in a network's DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRecord {
    /// Name, without a domain, any case.
    pub name: String,
    /// Addresses, in the order of answer (rotated by the server).
    pub addresses: Vec<IpAddr>,
    /// What the record stems from (an endpoint or service), so that it can be replaced or withdrawn.
    pub owner: String,
    /// Answer reverse look-ups of the addresses with this name.
    #[serde(default)]
    pub reverse: bool,
}
