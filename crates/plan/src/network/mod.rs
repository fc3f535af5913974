//! Networks between nodes and of pods: ranges and blocks of addresses, what each node is told of the others, Services
//! as frontends and names, and policies as what each pod may do.

mod blocks;
mod fabric;
mod policies;
mod services;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use tripod_model::network::fabric::{POD_RANGE, SERVICE_RANGE, pod_network};
use tripod_model::network::{NetworkDriver, NetworkSpec};

use crate::view::View;

pub use blocks::{assign_blocks, block_of};
pub use fabric::fabric;
pub(crate) use policies::NETWORK_POLICIES;
pub use policies::policies;
pub use services::{ClusterServices, cluster_services};

/// The domain of the cluster's DNS.
pub const DOMAIN: &str = "cluster.local";

/// Ranges of addresses of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Of pods.
    pub pods: Ipv4Net,
    /// Of Services.
    pub services: Ipv4Net,
}

impl Ranges {
    /// Those of a cluster: the usual ones, unless others were settled when it was made.
    pub fn of(view: &View) -> Self {
        let status = view.cluster().map(|c| &c.status);
        let usual = |text: &str| text.parse().unwrap_or_default();
        Self {
            pods: status
                .and_then(|s| s.pod_range)
                .unwrap_or_else(|| usual(POD_RANGE)),
            services: status
                .and_then(|s| s.service_range)
                .unwrap_or_else(|| usual(SERVICE_RANGE)),
        }
    }

    /// Where every node answers for the cluster's DNS: the tenth address of Services.
    pub fn dns(&self) -> Ipv4Addr {
        (u32::from(self.services.network()) + 10).into()
    }

    /// The address of the Kubernetes API: the first of Services.
    pub fn api(&self) -> Ipv4Addr {
        (u32::from(self.services.network()) + 1).into()
    }
}

/// The pods' network as a node sees it, once the node has a block of addresses.
pub fn pods_on(view: &View, node: &str) -> Option<NetworkSpec> {
    let block = block_of(view.node(node)?)?;
    let ranges = Ranges::of(view);
    let spec = pod_network(
        ranges.pods.into(),
        block.into(),
        ranges.services.into(),
        ranges.dns().into(),
    );
    debug_assert_eq!(spec.driver, NetworkDriver::Routed);
    Some(spec)
}

/// The address at which a node's tunnels end.
pub fn data_path(node: &tripod_model::node::Node) -> Option<IpAddr> {
    let address = match node.status.data_path_addr {
        Some(address) => address,
        None => node.status.addr.parse().ok()?,
    };
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}
