//! Endpoints: which networks a container is to be in, and the addresses that it gets there.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use ipnet::IpNet;
use tripod_model::container::{ContainerSpec, EndpointRequest};
use tripod_model::network::{Endpoint, NetworkDriver, NetworkSpec};
use tripod_model::{Error, Result, ipam};

use crate::record::{ContainerRecord, Owner};
use crate::{Agent, names};

impl Agent {
    /// The places that a new container is to have, without addresses. Settles the network mode's text.
    pub(crate) async fn plan_endpoints(&self, spec: &mut ContainerSpec) -> Result<Vec<Endpoint>> {
        let network = &mut spec.network;
        if network.disabled {
            network.mode = "none".into();
        }
        if network.mode.is_empty() || network.mode == "default" {
            network.mode = "bridge".into();
        }
        if let Some(reference) = network.mode.strip_prefix("container:") {
            let other = self.container(reference)?;
            network.mode = format!("container:{}", other.id);
            return Ok(Vec::new());
        }
        if network.mode.starts_with(crate::ports::SANDBOX_MODE) {
            return Ok(Vec::new());
        }
        let main = network.mode.clone();
        let is_main = |r: &EndpointRequest| r.network == main || (main == "bridge" && r.network == "default");
        if !network.endpoints.iter().any(is_main) {
            network.endpoints.insert(
                0,
                EndpointRequest {
                    network: main.clone(),
                    ..EndpointRequest::default()
                },
            );
        }
        let requests = network.endpoints.clone();
        let mut endpoints = Vec::with_capacity(requests.len());
        for request in &requests {
            let target = if request.network == "default" {
                "bridge"
            } else {
                &request.network
            };
            let target = self.find_network(target).await?;
            self.adopt_cluster_network(&target);
            endpoints.push(plan_endpoint(&target, request)?);
        }
        Ok(endpoints)
    }

    /// A network of this node, or an attachable one of the cluster.
    pub(crate) async fn find_network(&self, reference: &str) -> Result<Arc<NetworkSpec>> {
        match (self.network(reference), self.inner.networks.manager.get()) {
            (Ok(found), _) if !found.cluster => Ok(found),
            // Asked even when the node takes part already: the manager knows whether containers may attach.
            (found, Some(manager)) => match (manager.find(reference).await?, found) {
                (Some(network), _) => Ok(network),
                (None, found) => found,
            },
            (found, None) => found,
        }
    }

    /// Gives every endpoint its address, hardware address, gateway and names; the addresses are held until
    /// [`Agent::release_addresses`].
    pub(crate) async fn settle_endpoints(&self, record: &ContainerRecord) -> Result<Vec<Endpoint>> {
        let mut settled = Vec::with_capacity(record.endpoints.len());
        for (index, endpoint) in record.endpoints.iter().enumerate() {
            match self.settle_endpoint(record, endpoint.clone(), index).await {
                Ok(e) => settled.push(e),
                Err(e) => {
                    self.release_addresses(&record.owner, &settled).await;
                    return Err(e);
                }
            }
        }
        choose_default_route(&mut settled);
        Ok(settled)
    }

    pub(crate) async fn settle_endpoint(
        &self,
        record: &ContainerRecord,
        mut endpoint: Endpoint,
        index: usize,
    ) -> Result<Endpoint> {
        let spec = self.network(&endpoint.network_id)?;
        self.ensure_real(&spec).await?;
        if matches!(spec.driver, NetworkDriver::Host | NetworkDriver::Null) {
            return Ok(endpoint);
        }
        endpoint.interface = format!("eth{index}");
        let pool = spec.subnets.iter().find(|s| matches!(s.subnet, IpNet::V4(_)));
        if let Some(pool) = pool {
            let address = match (spec.cluster, &record.owner, endpoint.ipv4) {
                // The leader has settled it.
                (true, Owner::Pod { .. }, Some(net)) => net,
                (true, _, wanted) => {
                    let manager = self.inner.networks.manager.get().ok_or_else(|| {
                        Error::unavailable("this node is not part of a cluster that could lease an address")
                    })?;
                    let wanted = wanted.filter(|_| endpoint.fixed_ipv4).map(|n| n.addr());
                    manager.lease(&spec.id, &endpoint.id, wanted).await?
                }
                (false, _, wanted) => {
                    let wanted = wanted.filter(|_| endpoint.fixed_ipv4).map(|n| n.addr());
                    let address = self.take_address(&spec.id, pool, wanted)?;
                    IpNet::new(address, pool.subnet.prefix_len()).map_err(Error::internal)?
                }
            };
            endpoint.ipv4 = Some(address);
            endpoint.gateway = if spec.internal && !spec.cluster {
                None
            } else {
                pool.gateway
            };
            if endpoint.mac.is_empty() {
                endpoint.mac = mac_of(address.addr());
            }
        }
        if spec.ipv6
            && !spec.cluster
            && let Err(e) = self.settle_ipv6(&spec, &mut endpoint)
        {
            self.release_addresses(&record.owner, std::slice::from_ref(&endpoint))
                .await;
            return Err(e);
        }
        endpoint.names = endpoint_names(record, &endpoint, &spec);
        Ok(endpoint)
    }

    fn settle_ipv6(&self, spec: &NetworkSpec, endpoint: &mut Endpoint) -> Result<()> {
        let wanted = endpoint.ipv6.take().filter(|_| endpoint.fixed_ipv6);
        let fits = |s: &&tripod_model::network::Subnet| match wanted {
            Some(wanted) => s.subnet.contains(&wanted.addr()),
            None => matches!(s.subnet, IpNet::V6(_)),
        };
        let Some(pool) = spec.subnets.iter().find(fits) else {
            return Ok(());
        };
        let address = self.take_address(&spec.id, pool, wanted.map(|n| n.addr()))?;
        endpoint.ipv6 = Some(IpNet::new(address, pool.subnet.prefix_len()).map_err(Error::internal)?);
        endpoint.gateway6 = pool.gateway.filter(|_| !spec.internal);
        Ok(())
    }

    pub(crate) fn take_address(
        &self,
        network_id: &str,
        pool: &tripod_model::network::Subnet,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr> {
        let mut all = self
            .inner
            .networks
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let addresses = all.entry(network_id.to_owned()).or_default();
        let address = match wanted {
            Some(wanted) => ipam::claim(pool, &addresses.used, wanted)?,
            None => ipam::allocate(pool, &addresses.used, addresses.cursor)?,
        };
        addresses.used.insert(address);
        if wanted.is_none() && address.is_ipv4() {
            addresses.cursor = Some(address);
        }
        Ok(address)
    }

    /// Holds addresses that an adopted container has.
    pub(crate) fn hold_addresses(&self, endpoints: &[Endpoint]) {
        let mut all = self
            .inner
            .networks
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for e in endpoints {
            for net in [e.ipv4, e.ipv6].into_iter().flatten() {
                all.entry(e.network_id.clone())
                    .or_default()
                    .used
                    .insert(net.addr());
            }
        }
    }

    /// Gives addresses back.
    pub(crate) async fn release_addresses(&self, owner: &Owner, endpoints: &[Endpoint]) {
        for e in endpoints {
            let Some(net) = e.ipv4 else { continue };
            let of_cluster = self.network(&e.network_id).is_ok_and(|n| n.cluster);
            if !of_cluster {
                let mut all = self
                    .inner
                    .networks
                    .addresses
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(addresses) = all.get_mut(&e.network_id) {
                    addresses.used.remove(&net.addr());
                    if let Some(net) = e.ipv6 {
                        addresses.used.remove(&net.addr());
                    }
                }
            } else if *owner == Owner::Local
                && let Some(manager) = self.inner.networks.manager.get()
                && let Err(error) = manager.release(&e.network_id, &e.id).await
            {
                tracing::warn!("the lease of {net} in {} stays: {error}", e.network_name);
            }
        }
    }

    /// Whether names are served to a container: it is in a network other than the default bridge.
    pub(crate) fn has_embedded_dns(&self, endpoints: &[Endpoint]) -> bool {
        endpoints
            .iter()
            .any(|e| !matches!(e.network_name.as_str(), "bridge" | "host" | "none"))
    }
}

pub(super) fn plan_endpoint(target: &Arc<NetworkSpec>, request: &EndpointRequest) -> Result<Endpoint> {
    let user_defined = !matches!(target.name.as_str(), "bridge" | "host" | "none");
    if request.ipv4.is_some() && !user_defined {
        return Err(Error::invalid(
            "user specified IP address is supported on user defined networks only",
        ));
    }
    if !request.aliases.is_empty() && !user_defined {
        return Err(Error::invalid(
            "network-scoped aliases are only supported for user-defined networks",
        ));
    }
    let fixed = match request.ipv4 {
        None => None,
        Some(address) => {
            let pool = target.subnets.iter().find(|s| s.subnet.contains(&address)).ok_or_else(|| {
                Error::invalid(format_args!(
                    "invalid config for network {}: invalid endpoint settings:\nno configured subnet contains IP address {address}",
                    target.name
                ))
            })?;
            Some(IpNet::new(address, pool.subnet.prefix_len()).map_err(Error::internal)?)
        }
    };
    let fixed6 = match request.ipv6 {
        None => None,
        Some(address) => {
            let pools = target.subnets.iter().filter(|_| target.ipv6);
            let pool = pools.map(|s| s.subnet).find(|s| s.contains(&address));
            let pool = pool.ok_or_else(|| {
                Error::invalid(format_args!(
                    "invalid config for network {}: invalid endpoint settings:\nno configured subnet contains IP address {address}",
                    target.name
                ))
            })?;
            Some(IpNet::new(address, pool.prefix_len()).map_err(Error::internal)?)
        }
    };
    Ok(Endpoint {
        id: names::new_id(),
        network_id: target.id.clone(),
        network_name: target.name.clone(),
        ipv4: fixed,
        ipv6: fixed6,
        gateway: None,
        gateway6: None,
        mac: request.mac.clone().unwrap_or_default(),
        interface: String::new(),
        default_route: false,
        names: Vec::new(),
        aliases: request.aliases.clone(),
        links: request.links.clone(),
        fixed_ipv4: fixed.is_some(),
        fixed_ipv6: fixed6.is_some(),
        driver_opts: request.driver_opts.clone(),
        gw_priority: request.gw_priority,
    })
}

/// The endpoint with the highest priority that has a gateway; among equals the first by name of its network, as in
/// Docker, overlay networks (which have an uplink of their own) after bridges.
pub(super) fn choose_default_route(endpoints: &mut [Endpoint]) {
    let best = endpoints
        .iter()
        .enumerate()
        .filter(|(_, e)| e.gateway.is_some() && e.network_name != "ingress")
        .min_by_key(|(i, e)| (std::cmp::Reverse(e.gw_priority), e.network_name.clone(), *i))
        .or_else(|| endpoints.iter().enumerate().find(|(_, e)| e.gateway.is_some()))
        .map(|(i, _)| i);
    for (i, e) in endpoints.iter_mut().enumerate() {
        e.default_route = Some(i) == best;
    }
}

fn endpoint_names(record: &ContainerRecord, endpoint: &Endpoint, spec: &NetworkSpec) -> Vec<String> {
    if matches!(spec.name.as_str(), "bridge" | "host" | "none") {
        return Vec::new();
    }
    let mut all = vec![record.name.clone()];
    if record.owner != Owner::Local {
        // Aliases of a pod are names of its service: the cluster's records answer them.
        return all;
    }
    for alias in endpoint
        .aliases
        .iter()
        .cloned()
        .chain([record.short_id().to_owned()])
    {
        if !all.contains(&alias) {
            all.push(alias);
        }
    }
    if !record.spec.hostname.is_empty() && !all.contains(&record.spec.hostname) {
        all.push(record.spec.hostname.clone());
    }
    all
}

/// Docker's hardware address of an IPv4 address: `02:42:` and its four bytes.
pub(crate) fn mac_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
        }
        IpAddr::V6(_) => {
            let [a, b, c, d]: [u8; 4] = rand::random();
            format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
        }
    }
}
