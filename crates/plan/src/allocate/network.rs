//! Subnets and VXLAN identifiers of cluster networks.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};
use tripod_model::ipam::{first_host, overlaps, pick_subnet};
use tripod_model::network::{NetworkDriver, NetworkSpec, Subnet};
use tripod_model::{Error, Result};

use crate::view::View;

/// Name of the routing mesh's network.
pub const INGRESS_NAME: &str = "ingress";
/// The first VXLAN identifier given out, as in Docker.
const FIRST_VNI: u32 = 4097;
/// VXLAN identifiers have 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// Fills in what a cluster network's specification leaves open: subnet from the cluster's pools, gateway, VXLAN
/// identifier. Refuses a subnet that overlaps another cluster network's.
pub fn complete_network(view: &View, mut spec: NetworkSpec) -> Result<NetworkSpec> {
    if spec.driver != NetworkDriver::Overlay {
        return Ok(spec);
    }
    spec.cluster = true;
    let others = || view.networks().filter(|n| n.metadata.name != spec.id);
    let taken: Vec<IpNet> = others().flat_map(|n| &n.spec.subnets).map(|s| s.subnet).collect();
    let ending = ending_addresses(view);
    if spec.subnets.is_empty() {
        let avoided: Vec<IpNet> = taken.iter().chain(&ending).copied().collect();
        let subnet = IpNet::V4(pick_subnet(&pools(view), &avoided)?);
        spec.subnets.push(Subnet {
            subnet,
            gateway: None,
            ip_range: None,
            aux_addresses: Default::default(),
        });
    }
    for (i, pool) in spec.subnets.iter_mut().enumerate() {
        if taken.iter().any(|t| overlaps(t, &pool.subnet)) {
            return Err(
                Error::forbidden("Pool overlaps with other one on this address space")
                    .at(format!("IPAM.Config[{i}].Subnet")),
            );
        }
        pool.subnet = pool.subnet.trunc();
        let gateway = pool.gateway.or_else(|| first_host(&pool.subnet));
        if gateway.is_some_and(|g| !pool.subnet.contains(&g)) {
            return Err(Error::invalid(format_args!(
                "gateway is not in subnet {}",
                pool.subnet
            )));
        }
        pool.gateway = gateway;
    }
    if spec.vni == 0 {
        let used: BTreeSet<u32> = others().map(|n| n.spec.vni).collect();
        // What a network had that is gone, but whose last tasks still end on some node, is not known any more: begin
        // somewhere else then.
        let begin = match ending.is_empty() {
            true => FIRST_VNI,
            false => FIRST_VNI + spread(&spec.id) % (LAST_VNI - FIRST_VNI),
        };
        spec.vni = (begin..=LAST_VNI)
            .chain(FIRST_VNI..begin)
            .find(|v| !used.contains(v))
            .ok_or_else(|| Error::forbidden("no VXLAN identifier is free"))?;
    }
    Ok(spec)
}

/// Addresses of tasks that have not ended in networks that were removed.
fn ending_addresses(view: &View) -> Vec<IpNet> {
    view.pods()
        .filter(|p| !p.state.observed.is_final())
        .flat_map(|p| &p.extension.networks)
        .filter(|n| view.network(&n.network_id).is_none())
        .filter_map(|n| n.address.map(|a| IpNet::from(a.addr())))
        .collect()
}

/// A number that differs between identifiers (FNV-1a).
fn spread(id: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    id.bytes().fold(0x811c_9dc5, step)
}

fn pools(view: &View) -> Vec<(Ipv4Net, u8)> {
    let status = view.cluster().map(|c| &c.status);
    let size = status.map_or(0, |s| s.subnet_size);
    let size = if size == 0 { 24 } else { size };
    match status.map(|s| s.default_addr_pool.as_slice()) {
        Some(pools) if !pools.is_empty() => pools.iter().map(|p| (*p, size)).collect(),
        _ => vec![(Ipv4Net::new_assert([10, 0, 0, 0].into(), 8), size)],
    }
}
