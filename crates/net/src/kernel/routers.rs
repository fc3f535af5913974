//! Router namespaces of overlays, and their uplinks to the host's.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use tripod_model::Result;
use tripod_model::network::NetworkSpec;

use super::networks::{ROUTER, Router, gateways, register};
use super::table::Table;
use super::{Inner, failed};
use crate::netlink::route::{self, Route, VethEnd};
use crate::netlink::{Socket, nft};
use crate::ns;
use crate::render::names::{ROUTER_MAC, UPLINK, UPLINK_POOL, UPLINKS, host_uplink, uplink_addresses};
use crate::render::router;

impl Inner {
    /// Where the namespace of a network's router is kept.
    pub(super) fn router_path(&self, id: &str) -> PathBuf {
        self.netns.join(format!("{ROUTER}{id}"))
    }

    pub(super) fn ensure_router(&self, spec: &NetworkSpec) -> Result<Router> {
        let path = self.router_path(&spec.id);
        let context = || format!("cannot make the router of network {}", spec.name);
        let inside = |_: &File| {
            for (setting, value) in [
                ("ip_forward", "1"),
                ("conf/all/rp_filter", "0"),
                ("conf/default/rp_filter", "0"),
                ("conf/all/send_redirects", "0"),
                ("conf/default/send_redirects", "0"),
            ] {
                ns::sysctl(&format!("ipv4/{setting}"), value)?;
            }
            let _ = ns::sysctl("ipv6/conf/default/disable_ipv6", "1");
            Ok((route::open()?, nft::open()?))
        };
        let fresh = !ns::is_kept(&path);
        let (route, nft) = if fresh {
            ns::remove(&path).map_err(failed(context()))?;
            ns::create(&path, inside).map_err(failed(context()))?
        } else {
            let ns = File::open(&path).map_err(failed(context()))?;
            ns::within(&ns, || inside(&ns)).map_err(failed(context()))?
        };
        let built = self.configure_router(spec, &path, &route).and_then(|uplink| {
            let gateway = gateways(spec)
                .first()
                .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Net::addr);
            let table = Table::open(nft, router::skeleton(gateway, spec.ingress))?;
            Ok((uplink, table))
        });
        match built {
            Ok((uplink, table)) => Ok(Router {
                route,
                table,
                uplink,
                path,
            }),
            Err(e) => {
                if fresh {
                    let _ = ns::remove(&path);
                    let _ = self.route.apply(vec![route::del_link(&host_uplink(&spec.id))]);
                }
                Err(failed(context())(e))
            }
        }
    }

    /// Addresses and routes of a router, and its uplink.
    fn configure_router(
        &self,
        spec: &NetworkSpec,
        path: &Path,
        inside: &Socket,
    ) -> io::Result<Option<(Ipv4Addr, Ipv4Addr)>> {
        let mut msgs = vec![route::link_up(1)];
        msgs.extend(
            gateways(spec)
                .iter()
                .map(|g| route::add_address(1, IpNet::from(IpAddr::V4(g.addr())), 0)),
        );
        // Who asks for an address that nobody has is told at once.
        msgs.extend(
            spec.subnets
                .iter()
                .filter(|s| s.subnet.addr().is_ipv4())
                .map(|s| Route::unreachable(s.subnet).set()),
        );
        inside.apply(msgs)?;
        if spec.internal {
            return Ok(None);
        }
        let name = host_uplink(&spec.id);
        let (link, number) = self.ensure_uplink(&name, path)?;
        let (host, router) = uplink_addresses(number);
        let pair = |ip: Ipv4Addr| Ipv4Net::new_assert(ip, 31).into();
        self.route.apply(vec![
            route::add_address(link, pair(host), 0),
            route::link_up(link),
        ])?;
        let far = route::link(inside, UPLINK)?.ok_or(io::ErrorKind::NotFound)?.index;
        inside.apply(vec![
            route::add_address(far, pair(router), 0),
            route::link_up(far),
            Route::default_via(host.into(), far).set(),
        ])?;
        route::settle(&self.route, &name)?;
        for (setting, value) in [("route_localnet", "1"), ("send_redirects", "0")] {
            ns::within(&self.host_ns, || {
                ns::sysctl(&format!("ipv4/conf/{name}/{setting}"), value)
            })?;
        }
        register(self, &name, Some(spec), true)?;
        Ok(Some((host, router)))
    }

    /// The host's end of an uplink, made if need be: index and number of its addresses.
    fn ensure_uplink(&self, name: &str, router: &Path) -> io::Result<(u32, u32)> {
        let addresses = route::addresses(&self.route)?;
        let number = |a: &IpNet| match a {
            IpNet::V4(a) => u32::from(a.addr())
                .checked_sub(u32::from(UPLINK_POOL))
                .map(|n| n / 2),
            IpNet::V6(_) => None,
        };
        if let Some(l) = route::link(&self.route, name)?
            && let Some(n) = addresses
                .iter()
                .filter(|(i, _)| *i == l.index)
                .find_map(|(_, a)| number(a))
        {
            return Ok((l.index, n));
        }
        let taken: HashSet<u32> = addresses.iter().filter_map(|(_, a)| number(a)).collect();
        let free = (0..UPLINKS)
            .find(|n| !taken.contains(n))
            .ok_or_else(|| io::Error::other("all addresses of uplinks are in use"))?;
        let near = VethEnd {
            name,
            ..VethEnd::default()
        };
        let far = VethEnd {
            name: UPLINK,
            mac: Some(ROUTER_MAC),
            ..VethEnd::default()
        };
        let ns = File::open(router)?;
        self.route.apply(vec![
            route::del_link(name),
            route::new_veth(&near, &far, ns.as_fd(), 0),
        ])?;
        let link = route::link(&self.route, name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((link.index, free))
    }
}
