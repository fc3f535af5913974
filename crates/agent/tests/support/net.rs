//! Networks in memory. Two sandboxes with one address, or a sandbox in a network that does not exist, are faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::Notify;
use tripod_agent::ports::*;
use tripod_model::network::{Endpoint, Frontend, NameRecord, NetworkSpec, PublishedPort};
use tripod_model::{Error, Result};

use super::Script;

/// A sandbox.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<PublishedPort>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<String, NetworkSpec>,
    sandboxes: BTreeMap<String, Sandbox>,
    names: BTreeMap<String, Vec<NameRecord>>,
    frontends: Vec<Frontend>,
    established: BTreeMap<IpAddr, usize>,
    silent: bool,
    adopted: BTreeSet<String>,
}

/// The double of the networks.
pub struct FakeNet {
    script: Arc<Script>,
    state: Mutex<State>,
    listening: Notify,
}

impl FakeNet {
    pub fn new(script: Arc<Script>) -> Self {
        Self {
            script,
            state: Mutex::default(),
            listening: Notify::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A sandbox, when there is one.
    pub fn sandbox(&self, id: &str) -> Option<Sandbox> {
        self.lock().sandboxes.get(id).cloned()
    }

    /// Identifiers of all sandboxes.
    pub fn sandbox_ids(&self) -> Vec<String> {
        self.lock().sandboxes.keys().cloned().collect()
    }

    /// A sandbox that nobody owns.
    pub fn plant_sandbox(&self, id: &str) {
        self.lock().sandboxes.insert(id.to_owned(), Sandbox::default());
    }

    /// The machine was rebooted.
    pub fn reboot(&self) {
        *self.lock() = State::default();
    }

    /// Whether the network exists.
    pub fn has_network(&self, id: &str) -> bool {
        self.lock().networks.contains_key(id)
    }

    /// Sandboxes that were taken over.
    pub fn adopted(&self) -> Vec<String> {
        self.lock().adopted.iter().cloned().collect()
    }

    /// Names in a network and the first address of each.
    pub fn names(&self, network: &str) -> BTreeMap<String, String> {
        let state = self.lock();
        let records = state.names.get(network).into_iter().flatten();
        records
            .map(|r| (r.name.clone(), r.addresses[0].to_string()))
            .collect()
    }

    /// The frontends that hold.
    pub fn frontends(&self) -> Vec<Frontend> {
        self.lock().frontends.clone()
    }

    /// Sets how many connections to an address are established.
    pub fn set_established(&self, address: IpAddr, count: usize) {
        self.lock().established.insert(address, count);
    }

    /// Ports do not listen until [`FakeNet::listen`].
    pub fn be_silent(&self) {
        self.lock().silent = true;
    }

    /// Ports listen from now on.
    pub fn listen(&self) {
        self.lock().silent = false;
        self.listening.notify_waiters();
    }

    fn enter(&self, state: &mut State, sandbox: &str, endpoint: &Endpoint) {
        if !state.networks.contains_key(&endpoint.network_id) {
            self.script
                .fault(format!("network {} does not exist", endpoint.network_name));
        }
        let taken = state.sandboxes.iter().find(|(id, other)| {
            id.as_str() != sandbox
                && other
                    .endpoints
                    .iter()
                    .any(|e| e.network_id == endpoint.network_id && e.ipv4 == endpoint.ipv4)
        });
        if let Some((other, _)) = taken {
            self.script
                .fault(format!("{:?} of {other} given to {sandbox}", endpoint.ipv4));
        }
        match state.sandboxes.get_mut(sandbox) {
            Some(s) => s.endpoints.push(endpoint.clone()),
            None => self.script.fault(format!("sandbox {sandbox} does not exist")),
        }
    }
}

#[async_trait]
impl Net for FakeNet {
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<()> {
        self.script.step("net.ensure_network", &network.id).await?;
        self.lock().networks.insert(network.id.clone(), network.clone());
        Ok(())
    }

    async fn remove_network(&self, network_id: &str) -> Result<()> {
        self.script.step("net.remove_network", network_id).await?;
        let mut state = self.lock();
        let mut all = state.sandboxes.values().flat_map(|s| &s.endpoints);
        if all.any(|e| e.network_id == network_id) {
            self.script
                .fault(format!("network {network_id} removed with endpoints in it"));
        }
        state.networks.remove(network_id);
        state.names.remove(network_id);
        Ok(())
    }

    async fn networks(&self) -> Result<Vec<String>> {
        Ok(self.lock().networks.keys().cloned().collect())
    }

    async fn host_subnets(&self) -> Result<Vec<IpNet>> {
        Ok(vec!["172.17.0.0/16".parse().unwrap()])
    }

    async fn host_addresses(&self) -> Result<Vec<(String, IpNet)>> {
        Ok(Vec::new())
    }

    async fn create_sandbox(&self, sandbox: &str, _: &SandboxDns) -> Result<PathBuf> {
        self.script.step("net.create_sandbox", sandbox).await?;
        self.lock().sandboxes.entry(sandbox.to_owned()).or_default();
        Ok(PathBuf::from(format!("/netns/{sandbox}")))
    }

    async fn connect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()> {
        self.script.step("net.connect", sandbox).await?;
        self.enter(&mut self.lock(), sandbox, endpoint);
        Ok(())
    }

    async fn disconnect(&self, sandbox: &str, endpoint: &Endpoint) -> Result<()> {
        self.script.step("net.disconnect", sandbox).await?;
        if let Some(s) = self.lock().sandboxes.get_mut(sandbox) {
            s.endpoints.retain(|e| e.id != endpoint.id);
        }
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        self.script.step("net.remove_sandbox", sandbox).await?;
        self.lock().sandboxes.remove(sandbox);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<String>> {
        Ok(self.sandbox_ids())
    }

    async fn adopt_sandbox(
        &self,
        sandbox: &str,
        _: &SandboxDns,
        endpoints: &[Endpoint],
        ports: &[PublishedPort],
    ) -> Result<PathBuf> {
        self.script.step("net.adopt_sandbox", sandbox).await?;
        let mut state = self.lock();
        let here = state.sandboxes.get(sandbox).cloned().unwrap_or_default();
        if here.endpoints != endpoints || here.ports != ports {
            self.script.fault(format!("{sandbox} adopted as what it is not"));
        }
        state.adopted.insert(sandbox.to_owned());
        Ok(PathBuf::from(format!("/netns/{sandbox}")))
    }

    async fn sandbox_stats(&self, _: &str) -> Result<Vec<InterfaceStats>> {
        Ok(Vec::new())
    }

    async fn publish(
        &self,
        sandbox: &str,
        _: &Endpoint,
        ports: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        self.script.step("net.publish", sandbox).await?;
        let mut state = self.lock();
        let mut held: BTreeSet<u16> = state
            .sandboxes
            .values()
            .flat_map(|s| s.ports.iter().map(|p| p.host_port))
            .collect();
        let mut bound = Vec::new();
        for request in ports {
            let wanted = request.port.host_port;
            let free = match wanted {
                0 => (32768..).find(|p| !held.contains(p)),
                _ => (wanted..=wanted.max(request.host_port_end)).find(|p| !held.contains(p)),
            };
            let Some(host_port) = free else {
                return Err(Error::conflict(format_args!(
                    "Bind for 0.0.0.0:{wanted} failed: port is already allocated"
                )));
            };
            held.insert(host_port);
            bound.push(PublishedPort {
                host_port,
                ..request.port
            });
        }
        match state.sandboxes.get_mut(sandbox) {
            Some(s) => s.ports.extend(&bound),
            None => self.script.fault(format!("sandbox {sandbox} does not exist")),
        }
        Ok(bound)
    }

    async fn unpublish(&self, sandbox: &str) -> Result<()> {
        self.script.step("net.unpublish", sandbox).await?;
        if let Some(s) = self.lock().sandboxes.get_mut(sandbox) {
            s.ports.clear();
        }
        Ok(())
    }

    async fn set_frontends(&self, frontends: &[Frontend]) -> Result<Vec<PortFailure>> {
        self.script.step("net.set_frontends", "").await?;
        self.lock().frontends = frontends.to_vec();
        Ok(Vec::new())
    }

    async fn set_names(&self, network_id: &str, records: &[NameRecord]) -> Result<()> {
        self.script.step("net.set_names", network_id).await?;
        self.lock().names.insert(network_id.to_owned(), records.to_vec());
        Ok(())
    }

    async fn dial(&self, sandbox: Option<&str>, port: u16) -> Result<tripod_agent::ports::BoxDuplex> {
        self.script
            .step("net.dial", &format!("{}:{port}", sandbox.unwrap_or("host")))
            .await?;
        Ok(Box::new(tokio::io::duplex(1024).0))
    }

    async fn wait_listening(&self, sandbox: &str, _: &[u16], timeout: Duration) -> bool {
        let _ = self.script.step("net.wait_listening", sandbox).await;
        let heard = self.listening.notified();
        if !self.lock().silent {
            return true;
        }
        tokio::time::timeout(timeout, heard).await.is_ok()
    }

    async fn established(&self, _: &str, address: IpAddr) -> Result<usize> {
        Ok(self.lock().established.get(&address).copied().unwrap_or(0))
    }

    async fn forget_connections(&self, _: &str, _: IpAddr) -> Result<()> {
        Ok(())
    }
}
