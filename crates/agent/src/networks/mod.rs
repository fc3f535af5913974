//! Networks of the node: which exist, who is in them, and which addresses are given out.

mod attach;
mod endpoints;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use ipnet::IpNet;
use tripod_model::network::{NameRecord, NetworkDriver, NetworkSpec, Subnet};
use tripod_model::{Error, Result, Time, ipam};

use crate::record::ContainerRecord;
use crate::store::Table;
use crate::{Agent, names as ids};

pub use attach::ConnectRequest;
pub(crate) use endpoints::mac_of;

/// A network and the containers in it.
#[derive(Debug, Clone)]
pub struct NetworkRecord {
    /// The network.
    pub spec: Arc<NetworkSpec>,
    /// Containers attached to it, running or not.
    pub containers: Vec<Arc<ContainerRecord>>,
}

/// What is needed to make a local network.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    /// Name.
    pub name: String,
    /// `bridge` or empty.
    pub driver: String,
    /// No way to the outside.
    pub internal: bool,
    /// Told back; local networks are always attachable.
    pub attachable: bool,
    /// IPv6.
    pub ipv6: bool,
    /// Pools; a missing one is chosen.
    pub subnets: Vec<Subnet>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Options of the address manager.
    pub ipam_options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The cluster's side of networks, for containers of `docker run` on cluster networks.
#[async_trait]
pub trait ClusterNetworks: Send + Sync {
    /// The attachable cluster network of that name or identifier.
    async fn find(&self, reference: &str) -> Result<Option<Arc<NetworkSpec>>>;
    /// Leases an address (a certain one, when given) for an endpoint.
    async fn lease(&self, network_id: &str, endpoint_id: &str, wanted: Option<IpAddr>) -> Result<IpNet>;
    /// Gives it back.
    async fn release(&self, network_id: &str, endpoint_id: &str) -> Result<()>;
}

#[derive(Default)]
pub(crate) struct Addresses {
    pub(crate) used: BTreeSet<IpAddr>,
    cursor: Option<IpAddr>,
}

/// Networks of the node.
#[derive(Default)]
pub(crate) struct Networks {
    local: RwLock<HashMap<String, Arc<NetworkSpec>>>,
    /// Cluster networks that this node takes part in.
    cluster: RwLock<HashMap<String, Arc<NetworkSpec>>>,
    /// Names that the cluster gives, by network.
    cluster_names: Mutex<HashMap<String, Arc<Vec<NameRecord>>>>,
    pub(crate) addresses: Mutex<HashMap<String, Addresses>>,
    /// Orders the making of networks, so that two do not choose the same subnet.
    making: tokio::sync::Mutex<()>,
    /// Orders updates of names, so that an older set does not overwrite a newer one.
    naming: tokio::sync::Mutex<()>,
    /// Networks that were made real since the daemon started.
    real: tokio::sync::Mutex<BTreeSet<String>>,
    manager: OnceLock<Arc<dyn ClusterNetworks>>,
}

/// The first interface name of these that nothing on this machine has. Another engine, or another daemon of this one,
/// may have the usual one.
fn free_interface(stem: &str, from: u32) -> String {
    let taken = |name: &String| std::path::Path::new("/sys/class/net").join(name).exists();
    let mut names = (from..from + 100).map(|n| format!("{stem}{n}"));
    names
        .find(|name| !taken(name))
        .unwrap_or_else(|| format!("{stem}{from}"))
}

/// A subnet of 64 bits of the range for private use, chosen at random (RFC 4193).
fn unique_local_subnet() -> Result<Subnet> {
    let [a, b, c, d, e]: [u8; 5] = rand::random();
    let words = [
        0xfd00 | u16::from(a),
        u16::from_be_bytes([b, c]),
        u16::from_be_bytes([d, e]),
        0,
        0,
        0,
        0,
        0,
    ];
    let subnet = IpNet::new(std::net::Ipv6Addr::from(words).into(), 64).map_err(Error::internal)?;
    Ok(Subnet {
        subnet,
        gateway: ipam::first_host(&subnet),
        ip_range: None,
        aux_addresses: BTreeMap::new(),
    })
}

fn gateway_interface() -> String {
    match std::path::Path::new("/sys/class/net/docker_gwbridge").exists() {
        true => free_interface("docker_gw", 1),
        false => "docker_gwbridge".into(),
    }
}

/// Names that always exist.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

impl Agent {
    /// Lets containers of `docker run` use attachable networks of the cluster.
    pub fn set_cluster_networks(&self, manager: Arc<dyn ClusterNetworks>) {
        // Set once, at start-up; a second call would be a mistake of the wiring and changes nothing.
        let _ = self.inner.networks.manager.set(manager);
    }

    pub(crate) async fn load_networks(&self) -> Result<()> {
        let rows = self.inner.store.load::<NetworkSpec>(Table::Networks)?;
        {
            let mut local = self
                .inner
                .networks
                .local
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            local.extend(rows.into_iter().map(|(id, spec)| (id, Arc::new(spec))));
        }
        for (name, driver) in [
            ("bridge", NetworkDriver::Bridge),
            ("host", NetworkDriver::Host),
            ("none", NetworkDriver::Null),
        ] {
            if self.local_network(name).is_none() {
                self.make_predefined(name, driver).await?;
            }
        }
        Ok(())
    }

    async fn make_predefined(&self, name: &str, driver: NetworkDriver) -> Result<()> {
        let mut spec = new_spec(name, driver);
        if driver == NetworkDriver::Bridge {
            spec.subnets = vec![self.choose_subnet().await?];
            for (key, value) in [
                ("com.docker.network.bridge.default_bridge", "true"),
                ("com.docker.network.bridge.enable_icc", "true"),
                ("com.docker.network.bridge.enable_ip_masquerade", "true"),
                ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
                ("com.docker.network.bridge.name", &free_interface("docker", 0)),
                ("com.docker.network.driver.mtu", "1500"),
            ] {
                spec.options.insert(key.into(), value.into());
            }
        }
        self.keep_network(spec).await.map(drop)
    }

    /// The bridge through which tasks on overlay networks reach the outside, as Docker shows it. Made when the node
    /// enters a cluster.
    pub async fn ensure_gateway_bridge(&self) -> Result<()> {
        if self.local_network("docker_gwbridge").is_some() {
            return Ok(());
        }
        let mut spec = new_spec("docker_gwbridge", NetworkDriver::Bridge);
        let _making = self.inner.networks.making.lock().await;
        spec.subnets = vec![self.choose_subnet().await?];
        for (key, value) in [
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.name", &gateway_interface()),
        ] {
            spec.options.insert(key.into(), value.into());
        }
        let spec = self.keep_network(spec).await?;
        self.ensure_real(&spec).await
    }

    async fn keep_network(&self, spec: NetworkSpec) -> Result<Arc<NetworkSpec>> {
        self.inner.store.put(Table::Networks, &spec.id, &spec).await?;
        let spec = Arc::new(spec);
        let mut local = self
            .inner
            .networks
            .local
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        local.insert(spec.id.clone(), spec.clone());
        Ok(spec)
    }

    /// Makes a local network. Errors as Docker's: name in use, unknown driver, overlapping or bad subnet.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<Arc<NetworkSpec>> {
        let _making = self.inner.networks.making.lock().await;
        if request.name.trim().is_empty() {
            return Err(Error::invalid("network name is required").at("Name"));
        }
        if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
            return Err(Error::forbidden(format_args!(
                "operation is not permitted on predefined {} network",
                request.name
            )));
        }
        if self.local_networks().iter().any(|n| n.name == request.name) {
            return Err(Error::conflict(format_args!(
                "network with name {} already exists",
                request.name
            )));
        }
        match request.driver.as_str() {
            "" | "bridge" => {}
            "host" | "null" | "none" => {
                return Err(Error::forbidden(format_args!(
                    "only one instance of \"{}\" network is allowed",
                    request.driver
                )));
            }
            other => {
                return Err(Error::not_found(format_args!(
                    "could not find plugin {other} in v1 plugin registry: plugin not found"
                )));
            }
        }
        let mut subnets = self.settle_subnets(request.subnets).await?;
        if request.ipv6 && !subnets.iter().any(|s| matches!(s.subnet, IpNet::V6(_))) {
            subnets.push(unique_local_subnet()?);
        }
        let mut spec = new_spec(&request.name, NetworkDriver::Bridge);
        spec.internal = request.internal;
        spec.attachable = request.attachable;
        spec.ipv6 = request.ipv6;
        spec.subnets = subnets;
        spec.mtu = request
            .options
            .get("com.docker.network.driver.mtu")
            .and_then(|m| m.parse().ok())
            .unwrap_or(0);
        spec.options = request.options;
        spec.ipam_options = request.ipam_options;
        spec.labels = request.labels;
        self.inner.ports.net.ensure_network(&spec).await?;
        self.inner.networks.real.lock().await.insert(spec.id.clone());
        let spec = self.keep_network(spec).await?;
        self.network_event(&spec, "create", &[]);
        Ok(spec)
    }

    async fn settle_subnets(&self, mut subnets: Vec<Subnet>) -> Result<Vec<Subnet>> {
        let taken = self.local_subnets();
        for s in &mut subnets {
            if let Some(other) = taken.iter().find(|t| ipam::overlaps(t, &s.subnet)) {
                return Err(Error::forbidden(format_args!(
                    "invalid pool request: Pool overlaps with other one on this address space ({other})"
                )));
            }
            if s.gateway.is_none() {
                s.gateway = ipam::first_host(&s.subnet);
            }
            if let Some(range) = s.ip_range
                && !s.subnet.contains(&range)
            {
                return Err(Error::invalid(format_args!(
                    "invalid subnet {}: it should contain {range}",
                    s.subnet
                )));
            }
            if let Some(gateway) = s.gateway.filter(|g| !s.subnet.contains(g)) {
                return Err(Error::invalid(format_args!(
                    "no matching subnet for gateway {gateway}"
                )));
            }
        }
        if !subnets.iter().any(|s| matches!(s.subnet, IpNet::V4(_))) {
            subnets.insert(0, self.choose_subnet().await?);
        }
        Ok(subnets)
    }

    fn local_subnets(&self) -> Vec<IpNet> {
        self.local_networks()
            .iter()
            .flat_map(|n| n.subnets.iter().map(|s| s.subnet))
            .collect()
    }

    /// A free subnet of the pools, clear of the host's own routes and of what exists.
    async fn choose_subnet(&self) -> Result<Subnet> {
        let mut taken = self.local_subnets();
        taken.extend(
            self.inner
                .ports
                .net
                .host_subnets()
                .await?
                .into_iter()
                .filter(|n| n.prefix_len() > 0),
        );
        let pools = match self.options().address_pools.is_empty() {
            true => ipam::local_pools(),
            false => self.options().address_pools.clone(),
        };
        let subnet = IpNet::V4(ipam::pick_subnet(&pools, &taken)?);
        Ok(Subnet {
            subnet,
            gateway: ipam::first_host(&subnet),
            ip_range: None,
            aux_addresses: BTreeMap::new(),
        })
    }

    /// Removes a local network that no container is attached to.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        let spec = self.network(reference)?;
        if spec.cluster || PREDEFINED.contains(&spec.name.as_str()) {
            return Err(Error::forbidden(format_args!(
                "{} is a pre-defined network and cannot be removed",
                spec.name
            )));
        }
        let users = self.network_users(&spec.id);
        if let Some(user) = users.iter().find(|r| r.is_running()) {
            return Err(Error::forbidden(format_args!(
                "error while removing network: network {} has active endpoints (name:\"{}\" id:\"{}\")",
                spec.name,
                user.name,
                user.short_id()
            )));
        }
        self.inner.ports.net.remove_network(&spec.id).await?;
        self.inner.store.remove(Table::Networks, &spec.id).await?;
        self.inner.networks.real.lock().await.remove(&spec.id);
        self.inner
            .networks
            .local
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&spec.id);
        self.inner
            .networks
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&spec.id);
        self.network_event(&spec, "destroy", &[]);
        Ok(())
    }

    /// Local networks, by name.
    pub fn local_networks(&self) -> Vec<Arc<NetworkSpec>> {
        let local = self
            .inner
            .networks
            .local
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = local.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn local_network(&self, name: &str) -> Option<Arc<NetworkSpec>> {
        self.local_networks().into_iter().find(|n| n.name == name)
    }

    /// A local network, or a cluster network that this node takes part in: by name, identifier or unambiguous prefix.
    pub fn network(&self, reference: &str) -> Result<Arc<NetworkSpec>> {
        let mut all = self.local_networks();
        all.extend(
            self.inner
                .networks
                .cluster
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned(),
        );
        if let Some(found) = all
            .iter()
            .find(|n| n.id == reference)
            .or_else(|| all.iter().find(|n| n.name == reference))
        {
            return Ok(found.clone());
        }
        let mut matches = all
            .into_iter()
            .filter(|n| !reference.is_empty() && n.id.starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(Error::invalid(format_args!(
                "network {reference} is ambiguous (2 matches found on ID prefix)"
            ))),
            _ => Err(Error::not_found(format_args!("network {reference} not found"))),
        }
    }

    /// A network with the containers in it.
    pub fn network_record(&self, reference: &str) -> Result<NetworkRecord> {
        let spec = self.network(reference)?;
        let containers = self.network_users(&spec.id);
        Ok(NetworkRecord { spec, containers })
    }

    /// Containers attached to a network, running or not.
    pub fn network_users(&self, network_id: &str) -> Vec<Arc<ContainerRecord>> {
        let mut users = self.containers();
        users.retain(|r| r.endpoints.iter().any(|e| e.network_id == network_id));
        users
    }

    /// Makes a network real in the kernel, once.
    pub(crate) async fn ensure_real(&self, spec: &NetworkSpec) -> Result<()> {
        if matches!(spec.driver, NetworkDriver::Host | NetworkDriver::Null) {
            return Ok(());
        }
        let mut real = self.inner.networks.real.lock().await;
        if !real.contains(&spec.id) {
            self.inner.ports.net.ensure_network(spec).await?;
            real.insert(spec.id.clone());
        }
        Ok(())
    }

    /// Publishes an event of a network.
    pub(crate) fn network_event(&self, spec: &NetworkSpec, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), spec.name.clone()),
            ("type".to_owned(), spec.driver.as_str().to_owned()),
        ]);
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.inner.events.emit("network", action, &spec.id, attributes);
    }
}

fn new_spec(name: &str, driver: NetworkDriver) -> NetworkSpec {
    NetworkSpec {
        id: ids::new_id(),
        name: name.into(),
        driver,
        cluster: false,
        created_at: Time::now(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv4: true,
        ipv6: false,
        subnets: Vec::new(),
        options: BTreeMap::new(),
        ipam_options: BTreeMap::new(),
        labels: BTreeMap::new(),
        vni: 0,
        mtu: 0,
        encrypted: false,
    }
}
