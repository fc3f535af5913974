//! What there is: networks made here, and the host's own subnets and addresses.

use std::collections::HashSet;

use ipnet::IpNet;
use tripod_model::Result;

use super::networks::{ALIAS, ROUTER};
use super::tunnels::TUNNEL_ALIAS;
use super::{Inner, failed, lock};
use crate::netlink::route;
use crate::netlink::route::Link;
use crate::ns;

impl Inner {
    pub(crate) fn list_networks(&self) -> Result<Vec<String>> {
        let mut ids = ns::list(&self.netns, ROUTER)?;
        let links = route::links(&self.route).map_err(failed("cannot list interfaces"))?;
        ids.extend(
            links
                .iter()
                .filter_map(|l| {
                    let tunnel = || l.alias.strip_prefix(TUNNEL_ALIAS)?.split(' ').next();
                    l.alias.strip_prefix(ALIAS).or_else(tunnel)
                })
                .map(str::to_owned),
        );
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Subnets of the host's own interfaces and routes.
    pub(crate) fn host_subnets(&self) -> Result<Vec<IpNet>> {
        let context = "cannot list the host's networks";
        // A bridge of a network that this daemon does not know is another daemon's, or what one left.
        let known: HashSet<String> = lock(&self.networks).keys().cloned().collect();
        let unknown = |l: &Link| {
            let id = l.alias.strip_prefix(ALIAS);
            l.kind == "bridge" && id.is_some_and(|id| !known.contains(id))
        };
        let ours: HashSet<u32> = route::links(&self.route)
            .map_err(failed(context))?
            .iter()
            .filter(|l| is_ours(l) && !unknown(l))
            .map(|l| l.index)
            .collect();
        let mut nets: Vec<IpNet> = Vec::new();
        for (index, a) in route::addresses(&self.route).map_err(failed(context))? {
            if !ours.contains(&index) && !a.addr().is_loopback() {
                nets.push(a.trunc());
            }
        }
        for (net, index) in route::routes(&self.route).map_err(failed(context))? {
            if !ours.contains(&index) {
                nets.push(net);
            }
        }
        nets.extend(
            self.dns
                .host_servers()
                .into_iter()
                .filter(|a| !a.is_loopback())
                .map(IpNet::from),
        );
        nets.sort();
        nets.dedup();
        Ok(nets)
    }

    pub(crate) fn host_addresses(&self) -> Result<Vec<(String, IpNet)>> {
        let context = "cannot list the host's addresses";
        let links = route::links(&self.route).map_err(failed(context))?;
        let addresses = route::addresses(&self.route).map_err(failed(context))?;
        let name = |i| {
            let l = links.iter().find(|l| l.index == i)?;
            (!is_ours(l) && l.name != "lo").then(|| l.name.clone())
        };
        Ok(addresses
            .into_iter()
            .filter_map(|(i, a)| Some((name(i)?, a)))
            .collect())
    }
}

/// Whether Tripod made the link: a bridge, an uplink, a tunnel, or the near end of a pod's pair.
pub(super) fn is_ours(l: &Link) -> bool {
    l.alias.starts_with(ALIAS)
        || l.alias.starts_with(TUNNEL_ALIAS)
        || (l.kind == "veth" && (l.name.starts_with("tu-") || l.name.starts_with("tp-")))
}
