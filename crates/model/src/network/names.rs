//! Names of the cluster's DNS (the Kubernetes specification of DNS-based service discovery, 1.1), as a node is told
//! them: services rather than records. The server derives the records.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PortProtocol;

/// All that the cluster's DNS answers by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterNames {
    /// `cluster.local`.
    pub domain: String,
    /// Namespaces that exist, for names of pods.
    pub namespaces: Vec<String>,
    /// The services.
    pub services: Vec<Arc<ServiceNames>>,
}

/// A service in the cluster's DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceNames {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What the name leads to.
    pub target: NameTarget,
}

/// What the name of a service leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NameTarget {
    /// Addresses of its own.
    #[serde(rename_all = "camelCase")]
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// Its ports, for SRV records.
        ports: Vec<NamedPort>,
    },
    /// The addresses of its endpoints that are ready (or all, where the service says so).
    Endpoints(Vec<NamedEndpoint>),
    /// Another name (CNAME).
    Name(String),
}

/// An endpoint of a headless service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its name below the service's; empty for one made of the address.
    #[serde(default)]
    pub hostname: String,
    /// Its ports.
    pub ports: Vec<NamedPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    /// Name, empty for none (such a port has no SRV record).
    pub name: String,
    /// Transport.
    pub protocol: PortProtocol,
    /// Number.
    pub port: u16,
}
