//! The port's methods: each moves its arguments to a thread that may block.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ipnet::IpNet;
use tripod_agent::ports::{BoxDuplex, InterfaceStats, Net, PortFailure, PortRequest, SandboxDns};
use tripod_model::Result;
use tripod_model::network::fabric::Fabric;
use tripod_model::network::names::ClusterNames;
use tripod_model::network::policy::Policies;
use tripod_model::network::{Endpoint, Frontend, NameRecord, NetworkSpec, PublishedPort};

use super::{KernelNet, lock};
use crate::netlink::diag;
use crate::ns;

/// Longest time between two looks for a listener.
const PATIENCE: Duration = Duration::from_millis(25);
/// How long a connection to a pod's own loopback may take.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

#[async_trait]
impl Net for KernelNet {
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<()> {
        let network = network.clone();
        self.blocking(move |i| i.ensure_network(&network)).await
    }

    async fn remove_network(&self, network_id: &str) -> Result<()> {
        let id = network_id.to_owned();
        self.blocking(move |i| i.remove_network(&id)).await
    }

    async fn networks(&self) -> Result<Vec<String>> {
        self.blocking(|i| i.list_networks()).await
    }

    async fn host_subnets(&self) -> Result<Vec<IpNet>> {
        self.blocking(|i| i.host_subnets()).await
    }

    async fn host_addresses(&self) -> Result<Vec<(String, IpNet)>> {
        self.blocking(|i| i.host_addresses()).await
    }

    async fn create_sandbox(&self, sandbox: &str, dns: &SandboxDns) -> Result<PathBuf> {
        self.create_sandbox_with(sandbox, dns, &[]).await
    }

    async fn connect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()> {
        let (sandbox, endpoint) = (sandbox.to_owned(), endpoint.clone());
        self.blocking(move |i| i.connect(&sandbox, &endpoint)).await
    }

    async fn disconnect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()> {
        let (sandbox, endpoint) = (sandbox.to_owned(), endpoint.clone());
        self.blocking(move |i| i.disconnect(&sandbox, &endpoint)).await
    }

    async fn create_sandbox_with(
        &self,
        sandbox: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
    ) -> Result<PathBuf> {
        let (sandbox, dns, endpoints) = (sandbox.to_owned(), dns.clone(), endpoints.to_vec());
        self.blocking(move |i| i.create_sandbox(&sandbox, &dns, &endpoints))
            .await
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |i| i.remove_sandbox(&sandbox)).await
    }

    async fn sandboxes(&self) -> Result<Vec<String>> {
        self.blocking(|i| i.list_sandboxes()).await
    }

    async fn adopt_sandbox(
        &self,
        sandbox: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
        ports: &[PublishedPort],
    ) -> Result<PathBuf> {
        let (sandbox, dns) = (sandbox.to_owned(), dns.clone());
        let (endpoints, ports) = (endpoints.to_vec(), ports.to_vec());
        self.blocking(move |i| i.adopt_sandbox(&sandbox, &dns, &endpoints, &ports))
            .await
    }

    async fn sandbox_stats(&self, sandbox: &str) -> Result<Vec<InterfaceStats>> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |i| i.sandbox_stats(&sandbox)).await
    }

    async fn publish(
        &self,
        sandbox: &str,
        endpoint: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let (sandbox, endpoint, ports) = (sandbox.to_owned(), endpoint.clone(), ports.to_vec());
        self.blocking(move |i| i.publish(&sandbox, &endpoint, &ports))
            .await
    }

    async fn unpublish(&self, sandbox: &str) -> Result<()> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |i| i.unpublish(&sandbox)).await
    }

    async fn set_frontends(&self, frontends: &[Frontend]) -> Result<Vec<PortFailure>> {
        let frontends = self.inner.shared(frontends);
        self.blocking(move |i| i.set_frontends(&frontends)).await
    }

    async fn set_fabric(&self, fabric: &Fabric) -> Result<()> {
        let fabric = fabric.clone();
        self.blocking(move |i| i.set_fabric(&fabric)).await
    }

    async fn set_policies(&self, policies: &Policies) -> Result<()> {
        let policies = policies.clone();
        self.blocking(move |i| i.set_policies(&policies)).await
    }

    async fn set_cluster_names(&self, names: &ClusterNames) -> Result<()> {
        self.inner.dns.set_cluster_names(names);
        Ok(())
    }

    async fn set_names(&self, network_id: &str, records: &[NameRecord]) -> Result<()> {
        self.inner.dns.set_names(network_id, records);
        Ok(())
    }

    async fn dial(&self, sandbox: Option<&str>, port: u16) -> Result<BoxDuplex> {
        let path = sandbox
            .map(|s| self.inner.sandbox(s).map(|s| s.path.clone()))
            .transpose()?;
        let stream = self.blocking(move |_| Ok(dial(path.as_deref(), port)?)).await?;
        Ok(Box::new(tokio::net::TcpStream::from_std(stream)?))
    }

    async fn wait_listening(&self, sandbox: &str, ports: &[u16], timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let Ok(s) = self.inner.sandbox(sandbox) else {
            return false;
        };
        let addresses: Vec<IpAddr> = lock(&s.endpoints)
            .iter()
            .filter_map(|e| e.ipv4)
            .map(|n| n.addr())
            .collect();
        let path = s.path.clone();
        let socket = self
            .blocking(move |_| Ok(ns::within(File::open(path)?, diag::open)?))
            .await;
        let Ok(socket) = socket else { return false };
        // The kernel has no event for this. A look takes microseconds.
        let mut pause = Duration::from_millis(1);
        loop {
            let found = addresses.iter().any(|a| {
                ports
                    .iter()
                    .any(|p| diag::listens(&socket, *a, *p).unwrap_or(false))
            });
            let left = deadline.saturating_duration_since(Instant::now());
            if found || left.is_zero() {
                return found;
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PATIENCE);
        }
    }

    async fn established(&self, network_id: &str, address: IpAddr) -> Result<usize> {
        let id = network_id.to_owned();
        self.blocking(move |i| i.established(&id, address)).await
    }

    async fn forget_connections(&self, network_id: &str, address: IpAddr) -> Result<()> {
        let id = network_id.to_owned();
        self.blocking(move |i| i.forget_connections(&id, address)).await
    }
}

/// A connection to a port on the loopback of a namespace; the connection stays there.
fn dial(ns: Option<&std::path::Path>, port: u16) -> std::io::Result<std::net::TcpStream> {
    let connect = || {
        let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
        let stream = std::net::TcpStream::connect_timeout(&address, DIAL_PATIENCE)
            .map_err(|e| std::io::Error::new(e.kind(), format!("dial tcp4 {address}: {e}")))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    match ns {
        Some(path) => ns::within(File::open(path)?, connect),
        None => connect(),
    }
}
