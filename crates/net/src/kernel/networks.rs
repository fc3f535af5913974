//! Networks: bridges in the host's namespace, routers in namespaces of their own.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tripod_model::network::{NetworkDriver, NetworkSpec};
use tripod_model::{Error, Result};

use super::table::Table;
use super::{Inner, failed, lock};
use crate::netlink::nft::{Data, ifname};
use crate::netlink::route::{self, Route, VethEnd};
use crate::netlink::{Socket, nft};
use crate::ns;
use crate::render::host::{INTERNAL, MANAGED, MASQUERADED, SAME};
use crate::render::links::Attachment;
use crate::render::names::{
    ROUTER_MAC, UPLINK, UPLINK_POOL, UPLINKS, host_uplink, mac_for, uplink_addresses,
};
use crate::render::router;

/// Prefix of the kept namespaces of routers.
const ROUTER: &str = "r-";
/// Prefix of the alias of bridges made here; the network's identifier follows.
const ALIAS: &str = "tripod:";

/// A network that is real on this node.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) spec: NetworkSpec,
    pub(crate) kind: Kind,
}

/// How it is built.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nothing to build (host, none).
    Nothing,
    /// A bridge in the host's namespace.
    Bridge {
        /// Index of its link.
        index: u32,
    },
    /// A namespace that routes.
    Router(Box<Router>),
}

/// A router namespace.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) route: Socket,
    pub(crate) table: Table,
    /// Host's and router's address on the uplink; `None` for internal networks.
    pub(crate) uplink: Option<(Ipv4Addr, Ipv4Addr)>,
    path: PathBuf,
}

impl Network {
    /// First IPv4 gateway of the network.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        gateways(&self.spec).first().map(Ipv4Net::addr)
    }

    /// How endpoints with this address see the network.
    pub(crate) fn attachment(&self, address: Option<IpNet>) -> Attachment {
        if !matches!(self.kind, Kind::Router(_)) {
            return Attachment::Bridge;
        }
        let gateways = gateways(&self.spec);
        let own = gateways
            .iter()
            .find(|g| address.is_some_and(|a| IpNet::V4(**g).contains(&a.addr())));
        let gateway = own
            .or(gateways.first())
            .map_or(Ipv4Addr::new(169, 254, 1, 1), Ipv4Net::addr);
        let subnets = self
            .spec
            .subnets
            .iter()
            .map(|s| s.subnet)
            .filter(|s| s.addr().is_ipv4())
            .collect();
        Attachment::Routed {
            gateway: gateway.into(),
            subnets,
        }
    }

    /// Whether traffic of containers may leave.
    pub(crate) fn leads_out(&self) -> bool {
        !self.spec.internal && !matches!(self.kind, Kind::Nothing)
    }

    /// MTU of endpoints; 0 is the kernel's default.
    pub(crate) fn mtu(&self) -> u32 {
        let option = self
            .spec
            .options
            .get("com.docker.network.driver.mtu")
            .and_then(|v| v.parse().ok());
        option.unwrap_or(self.spec.mtu)
    }

    /// An option of Docker's bridge driver that is on unless it says otherwise.
    pub(crate) fn option(&self, name: &str) -> bool {
        flag(&self.spec, name)
    }
}

fn flag(spec: &NetworkSpec, name: &str) -> bool {
    spec.options
        .get(&format!("com.docker.network.bridge.{name}"))
        .is_none_or(|v| v != "false" && v != "0")
}

/// The network's own IPv4 addresses with the prefix lengths of their subnets.
fn gateways(spec: &NetworkSpec) -> Vec<Ipv4Net> {
    spec.subnets
        .iter()
        .filter_map(|s| {
            let IpNet::V4(net) = s.subnet else { return None };
            let ip = match s.gateway {
                Some(IpAddr::V4(g)) => g,
                _ => net.hosts().next()?,
            };
            Ipv4Net::new(ip, net.prefix_len()).ok()
        })
        .collect()
}

/// Element changes of the host's table for an interface of a network.
fn register(inner: &Inner, name: &str, spec: Option<&NetworkSpec>, masquerade: bool) -> io::Result<()> {
    let one = ifname(name).to_vec();
    let pair = [ifname(name), ifname(name)].concat();
    inner.table.change(|model, ops| {
        let mut set = |set, key: &[u8], wanted| {
            if wanted {
                model.put(ops, set, key.to_vec(), Data::None);
            } else {
                model.take(ops, set, key);
            }
        };
        set(MANAGED, &one, spec.is_some());
        set(SAME, &pair, spec.is_some());
        set(INTERNAL, &one, spec.is_some_and(|s| s.internal));
        set(MASQUERADED, &one, spec.is_some() && masquerade);
    })
}

impl Inner {
    /// A network by identifier.
    pub(crate) fn network(&self, id: &str) -> Result<Arc<Network>> {
        lock(&self.networks)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format_args!("network {id} not found")))
    }

    pub(crate) fn ensure_network(&self, spec: &NetworkSpec) -> Result<()> {
        let _building = lock(&self.building);
        if lock(&self.networks)
            .get(&spec.id)
            .is_some_and(|n| n.spec == *spec)
        {
            return Ok(());
        }
        let kind = match spec.driver {
            NetworkDriver::Host | NetworkDriver::Null => Kind::Nothing,
            NetworkDriver::Bridge => self.ensure_bridge(spec)?,
            NetworkDriver::Overlay => Kind::Router(Box::new(self.ensure_router(spec)?)),
        };
        let network = Network {
            spec: spec.clone(),
            kind,
        };
        lock(&self.networks).insert(spec.id.clone(), Arc::new(network));
        Ok(())
    }

    fn ensure_bridge(&self, spec: &NetworkSpec) -> Result<Kind> {
        let name = spec.bridge_name();
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(Error::invalid(format_args!("invalid bridge name: {name}")));
        }
        let alias = format!("{ALIAS}{}", spec.id);
        let context = || format!("cannot make bridge {name}");
        let existing = route::link(&self.route, &name).map_err(failed(context()))?;
        let made = match &existing {
            Some(l) if l.kind != "bridge" || l.alias.starts_with(ALIAS) && l.alias != alias => {
                return Err(Error::conflict(format_args!("interface name {name} is in use")));
            }
            // A bridge that the user made and named; any other foreign bridge is somebody else's.
            Some(l) if l.alias != alias && !spec.options.contains_key("com.docker.network.bridge.name") => {
                return Err(Error::conflict(format_args!(
                    "bridge {name} belongs to another program"
                )));
            }
            Some(_) => false,
            None => true,
        };
        if made {
            self.refuse_overlap(spec)?;
            let mac = gateways(spec)
                .first()
                .map_or([2, 0x42, 0, 0, 0, 1], |g| mac_for(g.addr().into()));
            let mtu = spec
                .options
                .get("com.docker.network.driver.mtu")
                .and_then(|v| v.parse().ok());
            self.route
                .apply(vec![
                    route::new_bridge(&name, mac, mtu.unwrap_or(spec.mtu)),
                    // At its making the kernel would overlook it.
                    route::set_alias(&name, &alias),
                ])
                .map_err(failed(context()))?;
        }
        self.configure_bridge(spec, &name).inspect_err(|_| {
            if made {
                let _ = self.route.apply(vec![route::del_link(&name)]);
            }
        })
    }

    fn configure_bridge(&self, spec: &NetworkSpec, name: &str) -> Result<Kind> {
        let context = || format!("cannot set up bridge {name}");
        let link = route::link(&self.route, name).map_err(failed(context()))?;
        let index = link
            .ok_or_else(|| Error::internal(format_args!("bridge {name} vanished")))?
            .index;
        let mut msgs: Vec<_> = gateways(spec)
            .into_iter()
            .map(|g| route::add_address(index, IpNet::V4(g), 0))
            .collect();
        for s in &spec.subnets {
            if let (IpNet::V6(net), Some(IpAddr::V6(g))) = (s.subnet, s.gateway)
                && let Ok(a) = IpNet::new(g.into(), net.prefix_len())
            {
                msgs.push(route::add_address(index, a, 0));
            }
        }
        msgs.push(route::link_up(index));
        self.route.apply(msgs).map_err(failed(context()))?;
        for (setting, value) in [("route_localnet", "1"), ("send_redirects", "0")] {
            ns::within(&self.host_ns, || {
                ns::sysctl(&format!("ipv4/conf/{name}/{setting}"), value)
            })
            .map_err(failed(context()))?;
        }
        let masquerade = !spec.internal && flag(spec, "enable_ip_masquerade");
        register(self, name, Some(spec), masquerade).map_err(failed(context()))?;
        Ok(Kind::Bridge { index })
    }

    /// Two interfaces in one subnet would make the host send to the wrong one.
    fn refuse_overlap(&self, spec: &NetworkSpec) -> Result<()> {
        let addresses = route::addresses(&self.route).map_err(failed("cannot list addresses"))?;
        for s in &spec.subnets {
            for (_, a) in &addresses {
                let theirs = a.trunc();
                if !a.addr().is_loopback() && (theirs.contains(&s.subnet) || s.subnet.contains(&theirs)) {
                    return Err(Error::conflict(format_args!(
                        "subnet {} overlaps with {theirs}, which an interface of this host is in",
                        s.subnet
                    )));
                }
            }
        }
        Ok(())
    }

    fn ensure_router(&self, spec: &NetworkSpec) -> Result<Router> {
        let path = self.netns.join(format!("{ROUTER}{}", spec.id));
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

    pub(crate) fn remove_network(&self, id: &str) -> Result<()> {
        let _building = lock(&self.building);
        let known = lock(&self.networks).remove(id);
        lock(&self.frontends).forget_network(id);
        self.dns.forget_network(id);
        let context = || format!("cannot remove network {id}");
        let path = match known.as_deref() {
            Some(Network {
                kind: Kind::Router(r),
                ..
            }) => r.path.clone(),
            _ => self.netns.join(format!("{ROUTER}{id}")),
        };
        if path.exists() {
            let uplink = host_uplink(id);
            self.route
                .apply(vec![route::del_link(&uplink)])
                .map_err(failed(context()))?;
            register(self, &uplink, None, false).map_err(failed(context()))?;
            ns::remove(&path).map_err(failed(context()))?;
        }
        let alias = format!("{ALIAS}{id}");
        let links = route::links(&self.route).map_err(failed(context()))?;
        for l in links.iter().filter(|l| l.alias == alias) {
            self.route
                .apply(vec![route::del_link(&l.name)])
                .map_err(failed(context()))?;
            register(self, &l.name, None, false).map_err(failed(context()))?;
        }
        // A bridge of the user's stays, without our rules.
        if let Some(n) = known.filter(|n| matches!(n.kind, Kind::Bridge { .. })) {
            register(self, &n.spec.bridge_name(), None, false).map_err(failed(context()))?;
        }
        Ok(())
    }

    pub(crate) fn list_networks(&self) -> Result<Vec<String>> {
        let mut ids = ns::list(&self.netns, ROUTER)?;
        let links = route::links(&self.route).map_err(failed("cannot list interfaces"))?;
        ids.extend(
            links
                .iter()
                .filter_map(|l| l.alias.strip_prefix(ALIAS))
                .map(str::to_owned),
        );
        Ok(ids)
    }

    /// Subnets of the host's own interfaces and routes.
    pub(crate) fn host_subnets(&self) -> Result<Vec<IpNet>> {
        let context = "cannot list the host's networks";
        let ours: HashSet<u32> = route::links(&self.route)
            .map_err(failed(context))?
            .iter()
            .filter(|l| l.alias.starts_with(ALIAS) || l.name.starts_with("tu-"))
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
            (!l.alias.starts_with(ALIAS) && !l.name.starts_with("tu-") && l.name != "lo")
                .then(|| l.name.clone())
        };
        Ok(addresses
            .into_iter()
            .filter_map(|(i, a)| Some((name(i)?, a)))
            .collect())
    }
}
