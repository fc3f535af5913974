//! Networks: sandboxes (network namespaces), endpoints, published ports, frontends and names.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use ipnet::IpNet;
use tripod_model::Result;
use tripod_model::network::fabric::Fabric;
use tripod_model::network::names::ClusterNames;
use tripod_model::network::policy::Policies;
use tripod_model::network::{Endpoint, Frontend, NameRecord, NetworkSpec, PublishedPort};

/// How a sandbox resolves names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxDns {
    /// Serve the embedded name server at 127.0.0.11 (user-defined networks).
    pub embedded: bool,
    /// Where other names are asked for; empty is the host's name servers.
    pub upstream: Vec<IpAddr>,
}

/// Counters of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Name in the sandbox.
    pub name: String,
    /// Bytes, packets, errors, dropped.
    pub rx: (u64, u64, u64, u64),
    /// Bytes, packets, errors, dropped.
    pub tx: (u64, u64, u64, u64),
}

/// A published port that is held: bound on the host, so that a conflict is an error and not a theft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// What is to be published; `host_port` 0 takes a free one from the ephemeral range 32768 to 60999.
    pub port: PublishedPort,
    /// Upper end of a range to choose from, or 0.
    pub host_port_end: u16,
}

/// The node's networks. Every operation is idempotent, and what exists in the kernel is taken over after a restart.
/// Addresses, names and ports are decided by the caller (except free host ports).
#[async_trait]
pub trait Net: Send + Sync {
    /// Makes the network real on this node (bridge, or router namespace) if it is not yet. Errors name the cause
    /// (overlapping subnet, bridge name in use …) and leave nothing behind.
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<()>;
    /// Takes it away with all its rules.
    async fn remove_network(&self, network_id: &str) -> Result<()>;
    /// Networks that exist in the kernel, to find what nobody owns any more.
    async fn networks(&self) -> Result<Vec<String>>;
    /// Subnets of the host's own routes and interfaces, and the name servers' addresses, which new networks
    /// must not overlap (the networks made here excluded).
    async fn host_subnets(&self) -> Result<Vec<IpNet>>;
    /// Addresses of the host's interfaces, for default advertise addresses.
    async fn host_addresses(&self) -> Result<Vec<(String, IpNet)>>;

    /// Makes a sandbox with loopback up and this DNS; `None` endpoints yet. Returns the path of its namespace.
    async fn create_sandbox(&self, sandbox: &str, dns: &SandboxDns) -> Result<PathBuf>;
    /// Connects a sandbox to a network. All endpoints of a new sandbox may be given at once with
    /// [`Net::create_sandbox_with`].
    async fn connect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()>;
    /// Disconnects it.
    async fn disconnect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()>;
    /// Makes a sandbox and connects it, in as few kernel calls as can be: the path on which the speed of starting
    /// containers depends.
    ///
    /// A pod's endpoint is one in the network [`tripod_model::network::fabric::POD_NETWORK`] with an address of the
    /// node's block (`NetworkSpec::subnets[0].ip_range`, by [`tripod_model::ipam::allocate`]; the prefix length does
    /// not matter), `eth0` and `default_route`. Its `resolv.conf` names the address in the network's option
    /// [`tripod_model::network::fabric::DNS_OPTION`]; `dns.embedded` is off. Ports of the host are published as for
    /// any other endpoint.
    async fn create_sandbox_with(
        &self,
        sandbox: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
    ) -> Result<PathBuf> {
        let path = self.create_sandbox(sandbox, dns).await?;
        for e in endpoints {
            self.connect(sandbox, e).await?;
        }
        Ok(path)
    }
    /// Takes a sandbox away, with its endpoints, ports and names.
    async fn remove_sandbox(&self, sandbox: &str) -> Result<()>;
    /// Sandboxes that exist, to find what nobody owns any more, and to take over after a restart.
    async fn sandboxes(&self) -> Result<Vec<String>>;
    /// After a restart: tells the server about a sandbox that was kept (DNS and held ports are set up again).
    async fn adopt_sandbox(
        &self,
        sandbox: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
        ports: &[PublishedPort],
    ) -> Result<PathBuf>;
    /// Counters of a sandbox's interfaces.
    async fn sandbox_stats(&self, sandbox: &str) -> Result<Vec<InterfaceStats>>;

    /// Binds ports of the host and leads them to an endpoint's address (mode `host`, `docker run -p`). All or
    /// nothing; a conflict is `Conflict` with Docker's text (`Bind for 0.0.0.0:80 failed: port is already
    /// allocated`, or `… address already in use` when another program has it).
    async fn publish(
        &self,
        sandbox: &str,
        endpoint: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>>;
    /// Releases the ports that a sandbox published.
    async fn unpublish(&self, sandbox: &str) -> Result<()>;

    /// Sets all frontends of this node; the kernel is told the difference in one transaction. Published ports of
    /// frontends are bound first; those that cannot be are left out and reported by frontend id and port with
    /// the reason. When it returns, new connections take the new way.
    async fn set_frontends(&self, frontends: &[Frontend]) -> Result<Vec<PortFailure>>;

    /// Tells where the other nodes are and what they have of each network, before the networks are made and whenever
    /// it changes; the kernel is told the difference. Backends on nodes that do not answer are masked from then on.
    async fn set_fabric(&self, _fabric: &Fabric) -> Result<()> {
        Ok(())
    }

    /// Sets the policies of all pods of this node. When it returns, new connections are judged by them.
    async fn set_policies(&self, _policies: &Policies) -> Result<()> {
        Ok(())
    }

    /// Sets all names of the cluster's DNS, which this node answers at the address that the pods' network names.
    async fn set_cluster_names(&self, _names: &ClusterNames) -> Result<()> {
        Ok(())
    }

    /// Sets the names of one network (replacing all of its records).
    async fn set_names(&self, network_id: &str, records: &[NameRecord]) -> Result<()>;

    /// Waits until something accepts on one of these TCP ports in the sandbox, or the time is over (false).
    async fn wait_listening(&self, sandbox: &str, ports: &[u16], timeout: std::time::Duration) -> bool;
    /// Connects to a TCP port on the loopback of a sandbox, or of the host (`None`). Errors name the address and why.
    async fn dial(&self, sandbox: Option<&str>, port: u16) -> Result<super::BoxDuplex>;
    /// How many connections to this address and port are established through the node's frontends, for draining.
    async fn established(&self, network_id: &str, address: IpAddr) -> Result<usize>;
    /// Forgets connection tracking entries that lead to an address (UDP above all).
    async fn forget_connections(&self, network_id: &str, address: IpAddr) -> Result<()>;
}

/// A published port of a frontend that could not be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFailure {
    /// Frontend.
    pub frontend: String,
    /// The port.
    pub port: PublishedPort,
    /// Why, as a sentence.
    pub reason: String,
}
