//! What a daemon tells its engine and asks of it, and what it is told about its standing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tripod_model::node::{Availability, NodeDescription};
use tripod_model::swarm::{SwarmCluster, SwarmSpec};
use tripod_model::{Error, Result};

/// The port of node traffic.
pub(crate) const SWARM_PORT: u16 = 2377;

/// What the daemon tells its engine.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What this machine is. The engine fills in the trust part.
    pub description: NodeDescription,
    /// Where this node answers other nodes when it is a manager, instead of what a request says; port 0 takes any.
    pub node_listen: Option<SocketAddr>,
}

/// A daemon's standing (`LocalNodeState` of the Docker API).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Membership {
    /// In no cluster.
    #[default]
    Inactive,
    /// On its way into one.
    Pending,
    /// In one.
    Active,
    /// A manager that waits for the unlock key.
    Locked,
    /// In one, but its store cannot be used.
    Error,
}

impl Membership {
    /// The word of the Docker API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Locked => "locked",
            Self::Error => "error",
        }
    }
}

/// What `docker swarm init` asks for. Interface names have been resolved to addresses by the caller.
#[derive(Clone, Debug)]
pub struct InitRequest {
    /// `IP[:port]` on which other nodes are answered; empty is `0.0.0.0:2377`.
    pub listen_addr: String,
    /// `IP[:port]` that other nodes are told; empty is the listening address, which must then be a specific one.
    pub advertise_addr: String,
    /// Address for traffic between containers; empty is the advertised one.
    pub data_path_addr: String,
    /// UDP port of VXLAN; 0 is 4789.
    pub data_path_port: u16,
    /// Pools of overlay subnets; empty is `10.0.0.0/8`.
    pub default_addr_pool: Vec<Ipv4Net>,
    /// Prefix length of overlay subnets; 0 is 24.
    pub subnet_size: u8,
    /// Make a cluster of this manager alone from what it knows.
    pub force_new_cluster: bool,
    /// Settings.
    pub spec: SwarmSpec,
    /// Key of `spec.signing_ca_cert`.
    pub signing_ca_key: String,
    /// Whether this node takes pods.
    pub availability: Availability,
}

impl Default for InitRequest {
    fn default() -> Self {
        Self {
            listen_addr: String::new(),
            advertise_addr: String::new(),
            data_path_addr: String::new(),
            data_path_port: 0,
            default_addr_pool: Vec::new(),
            subnet_size: 0,
            force_new_cluster: false,
            spec: SwarmSpec::default(),
            signing_ca_key: String::new(),
            availability: Availability::Active,
        }
    }
}

/// What `docker swarm join` asks for.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// As in [`InitRequest`].
    pub listen_addr: String,
    /// As in [`InitRequest`].
    pub advertise_addr: String,
    /// As in [`InitRequest`].
    pub data_path_addr: String,
    /// Managers to ask.
    pub remote_addrs: Vec<String>,
    /// Token.
    pub join_token: String,
    /// Whether this node is to take pods.
    pub availability: Availability,
}

/// Another manager, or this one, as `docker info` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteManager {
    /// Swarm identifier.
    pub node_id: String,
    /// `IP:port`.
    pub addr: String,
}

/// The `Swarm` part of `docker info`.
#[derive(Clone, Debug, Default)]
pub struct SwarmInfo {
    /// Standing.
    pub state: Membership,
    /// Swarm identifier of this node.
    pub node_id: String,
    /// Address of this node.
    pub node_addr: String,
    /// This node is a manager that can serve.
    pub control_available: bool,
    /// Why not.
    pub error: String,
    /// Managers.
    pub remote_managers: Vec<RemoteManager>,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them are managers.
    pub managers: usize,
    /// The cluster (its status holds secrets: serve only what the API documents).
    pub cluster: Option<SwarmCluster>,
}

/// The addresses of a request.
pub(crate) struct Addresses {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<SocketAddr>,
}

impl Addresses {
    /// From what a request says, and what the daemon was started with.
    pub(crate) fn of(listen: &str, advertise: &str, fixed: Option<SocketAddr>) -> Result<Self> {
        let listen = match (listen, fixed) {
            (_, Some(fixed)) => fixed,
            ("", None) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SWARM_PORT),
            (text, None) => parse_addr(text, SWARM_PORT, "ListenAddr")?,
        };
        let advertise = match advertise {
            "" => (!listen.ip().is_unspecified()).then_some(listen),
            text => {
                let port = match listen.port() {
                    0 => SWARM_PORT,
                    port => port,
                };
                let addr = parse_addr(text, port, "AdvertiseAddr")?;
                if addr.ip().is_unspecified() {
                    return Err(bad_addr("AdvertiseAddr"));
                }
                Some(addr)
            }
        };
        Ok(Self { listen, advertise })
    }
}

fn bad_addr(field: &str) -> Error {
    let kind = if field == "ListenAddr" { "an" } else { "a non-zero" };
    let text = format!(
        "invalid {field}: must be {kind} IP address or network interface (with optional port number)"
    );
    Error::invalid(text).at(field)
}

pub(crate) fn no_advertise() -> Error {
    Error::invalid("could not find the system's IP address - specify one with --advertise-addr")
        .at("AdvertiseAddr")
}

pub(crate) fn parse_addr(text: &str, port: u16, field: &str) -> Result<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Ok(SocketAddr::new(addr.ip(), port)),
        Ok(addr) => Ok(addr),
        Err(_) => Err(bad_addr(field)),
    }
}
