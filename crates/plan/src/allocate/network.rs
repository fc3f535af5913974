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
    if spec.subnets.is_empty() {
        let subnet = IpNet::V4(pick_subnet(&pools(view), &taken)?);
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
        spec.vni = (FIRST_VNI..=LAST_VNI)
            .find(|v| !used.contains(v))
            .ok_or_else(|| Error::forbidden("no VXLAN identifier is free"))?;
    }
    Ok(spec)
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
