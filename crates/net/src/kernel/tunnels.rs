//! Tunnels of networks that span nodes, and what leads through them.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;

use ipnet::IpNet;
use tripod_model::network::NetworkDriver;
use tripod_model::network::fabric::{Fabric, SERVICE_RANGE_OPTION, VXLAN_PORT, tunnel_mac};
use tripod_model::{Error, Result};

use super::networks::{Kind, Network};
use super::{Inner, failed, lock};
use crate::netlink::Socket;
use crate::netlink::nft::{Data, ifname};
use crate::netlink::route::{self, NO_PREFIX_ROUTE, Route};
use crate::netlink::tunnel::{Vxlan, new_vxlan};
use crate::ns;
use crate::render::host::{JOINED, MANAGED, NODES, TUNNELS};
use crate::render::names::{POD_TUNNEL, ROUTER_MAC, ROUTER_TUNNEL, host_tunnel};
use crate::render::tunnel::{Paths, difference};

/// Prefix of the alias of tunnels made here; the network's identifier and the settings follow.
pub(super) const TUNNEL_ALIAS: &str = "tripod-tunnel:";
/// What VXLAN over IPv4 adds to a packet.
const OVERHEAD: u32 = 50;
const USUAL_MTU: u32 = 1500;

/// A network's tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    index: u32,
    /// Its settings, as in its alias.
    settings: String,
    paths: Paths,
}

impl Inner {
    pub(crate) fn set_fabric(&self, fabric: &Fabric) -> Result<()> {
        if let Some(IpAddr::V6(a)) = fabric.address {
            return Err(Error::not_implemented(format_args!(
                "tunnels between IPv6 addresses ({a})"
            )));
        }
        let before = {
            let mut known = lock(&self.fabric);
            if **known == *fabric {
                return Ok(());
            }
            std::mem::replace(&mut *known, Arc::new(fabric.clone()))
        };
        let nodes = |f: &Fabric| -> BTreeSet<Ipv4Addr> {
            f.peers
                .iter()
                .filter_map(|p| match p.address {
                    IpAddr::V4(a) => Some(a),
                    IpAddr::V6(_) => None,
                })
                .collect()
        };
        let (gone, now) = (nodes(&before), nodes(fabric));
        self.table
            .change(|model, ops| {
                for a in gone.difference(&now) {
                    model.take(ops, NODES, &a.octets());
                }
                for a in &now {
                    model.put(ops, NODES, a.octets().to_vec(), Data::None);
                }
            })
            .map_err(failed("cannot set the addresses of other nodes"))?;
        self.watch_peers(fabric);
        let _building = lock(&self.building);
        let networks: Vec<Arc<Network>> = lock(&self.networks).values().cloned().collect();
        let mut failures = Vec::new();
        for n in networks {
            if let Err(e) = self.lay(&n) {
                failures.push(format!("{}: {}", n.spec.name, e.message));
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Error::internal(failures.join("; "))),
        }
    }

    /// MTU of a network between nodes: the underlay's, less what the tunnel adds.
    pub(super) fn tunnelled_mtu(&self) -> u32 {
        let address = lock(&self.fabric).address;
        let found = address.and_then(|a| {
            let all = route::addresses(&self.route).ok()?;
            let links = route::links(&self.route).ok()?;
            let mut theirs = links.iter().filter(|l| !super::survey::is_ours(l));
            let has = |index| all.iter().any(|(i, net)| *i == index && net.addr() == a);
            theirs.find(|l| has(l.index)).map(|l| l.mtu)
        });
        found.unwrap_or(USUAL_MTU).saturating_sub(OVERHEAD).max(576)
    }

    /// Makes a network's tunnel, if it needs one, and tells the kernel what leads through it.
    pub(super) fn lay(&self, network: &Network) -> Result<()> {
        let fabric = Arc::clone(&lock(&self.fabric));
        let pods = network.spec.driver == NetworkDriver::Routed;
        let spans = fabric.address.is_some() && !fabric.peers.is_empty();
        let overlay = network.spec.driver == NetworkDriver::Overlay;
        if !(pods || overlay && spans || lock(&network.tunnel).is_some()) {
            return Ok(());
        }
        let context = || format!("cannot connect network {} to other nodes", network.spec.name);
        let mut tunnel = lock(&network.tunnel);
        let settings = format!(
            "{TUNNEL_ALIAS}{} {} {} {}",
            network.spec.id,
            fabric.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port(&fabric),
            network.spec.vni
        );
        if tunnel.as_ref().is_none_or(|t| t.settings != settings) {
            *tunnel = Some(
                self.ensure_tunnel(network, &fabric, settings)
                    .map_err(failed(context()))?,
            );
        }
        let Some(tunnel) = tunnel.as_mut() else {
            return Ok(());
        };
        let now = paths(&fabric, &network.spec.id);
        let returns = pods || network.spec.ingress;
        let socket = self.socket_of(network);
        let msgs = difference(&tunnel.paths, &now, tunnel.index, returns);
        // Many messages at once would not fit the kernel's buffers for answers.
        for part in msgs.chunks(256) {
            socket.apply(part.to_vec()).map_err(failed(context()))?;
        }
        tunnel.paths = now;
        Ok(())
    }

    fn socket_of<'a>(&'a self, network: &'a Network) -> &'a Socket {
        match &network.kind {
            Kind::Router(r) => &r.route,
            _ => &self.route,
        }
    }

    /// The tunnel's link: one that is there with the same settings is taken over with its routes.
    fn ensure_tunnel(&self, network: &Network, fabric: &Fabric, settings: String) -> io::Result<Tunnel> {
        let socket = self.socket_of(network);
        let name = match &network.kind {
            Kind::Router(_) => ROUTER_TUNNEL.to_owned(),
            Kind::Pods => POD_TUNNEL.to_owned(),
            _ => host_tunnel(&network.spec.id),
        };
        let there = route::link(socket, &name)?.filter(|l| l.alias == settings);
        let mut paths = Paths::default();
        let index = match there {
            Some(l) => {
                let services = services(network);
                let found = route::routes(socket)?.into_iter();
                paths.routes = found
                    .filter(|(to, dev)| *dev == l.index && Some(*to) != services)
                    .map(|(to, _)| (to, None))
                    .collect();
                l.index
            }
            None => self.new_tunnel(network, fabric, &name, &settings)?,
        };
        self.configure_tunnel(network, fabric, &name, index)?;
        Ok(Tunnel {
            index,
            settings,
            paths,
        })
    }

    fn new_tunnel(&self, network: &Network, fabric: &Fabric, name: &str, settings: &str) -> io::Result<u32> {
        let socket = self.socket_of(network);
        socket.apply(vec![route::del_link(name)])?;
        let link = Vxlan {
            name,
            vni: network.spec.vni,
            port: port(fabric),
            local: fabric.address,
            mac: fabric.address.map_or(ROUTER_MAC, tunnel_mac),
            mtu: network.mtu,
        };
        let made = match &network.kind {
            Kind::Router(r) => {
                let ns = File::open(&r.path)?;
                self.route.apply(vec![new_vxlan(&link, Some(ns.as_fd()))])
            }
            _ => self.route.apply(vec![new_vxlan(&link, None)]),
        };
        made.map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::other(format!(
                "VXLAN identifier {} on UDP port {} belongs to another program",
                link.vni, link.port
            )),
            io::ErrorKind::Unsupported => io::Error::other("this kernel has no VXLAN"),
            _ => e.error,
        })?;
        socket.apply(vec![route::set_alias(name, settings)])?;
        let made = route::link(socket, name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(made.index)
    }

    /// Addresses and settings of a tunnel's link.
    fn configure_tunnel(&self, network: &Network, fabric: &Fabric, name: &str, index: u32) -> io::Result<()> {
        let mut msgs = Vec::new();
        if let (Kind::Pods, Some(gateway)) = (&network.kind, network.gateway()) {
            let address = |a: IpAddr| route::add_address(index, IpNet::from(a), 0);
            msgs.push(address(gateway.into()));
            msgs.extend(network.dns_address().map(address));
            msgs.push(route::link_up(index));
            // Who is led to a pod from here needs a source that pods can answer, before it is known where he is led.
            msgs.extend(services(network).map(|to| {
                Route {
                    src: Some(gateway.into()),
                    ..Route::link(to, index)
                }
                .set()
            }));
            // An address that no pod has must not leave by the default route.
            msgs.extend(
                network
                    .spec
                    .subnets
                    .iter()
                    .map(|s| Route::unreachable(s.subnet).set()),
            );
        } else {
            // The kernel distrusts what comes in by a link without an address; and what must be answered to this very
            // node leaves under its address.
            let own = fabric
                .address
                .filter(|_| matches!(network.kind, Kind::Bridge { .. }));
            msgs.extend(own.map(|a| route::add_address(index, IpNet::from(a), NO_PREFIX_ROUTE)));
            msgs.push(route::link_up(index));
        }
        self.socket_of(network).apply(msgs)?;
        if let Kind::Router(_) = network.kind {
            return Ok(());
        }
        ns::within(&self.host_ns, || {
            // Clients of the mesh keep their addresses, which are reached by other ways than they come.
            ns::sysctl(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
            ns::sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
            ns::sysctl(&format!("ipv4/conf/{name}/send_redirects"), "0")
        })?;
        self.table.change(|model, ops| {
            model.put(ops, TUNNELS, ifname(name).to_vec(), Data::None);
            if let Kind::Bridge { .. } = network.kind {
                let bridge = network.spec.bridge_name();
                model.put(ops, MANAGED, ifname(name).to_vec(), Data::None);
                for pair in [[name, &bridge], [&bridge, name]] {
                    model.put(ops, JOINED, pair.map(ifname).concat(), Data::None);
                }
            }
        })?;
        super::networks::pass_others(
            self.table.socket(),
            if network.is_pods() { "tp-*" } else { name },
            true,
        );
        Ok(())
    }

    /// Takes tunnels of a network in the host's namespace away.
    pub(super) fn remove_tunnels(&self, id: &str, bridge: &str) -> Result<()> {
        let context = "cannot remove a tunnel";
        let beginning = format!("{TUNNEL_ALIAS}{id} ");
        let links = route::links(&self.route).map_err(failed(context))?;
        for l in links.iter().filter(|l| l.alias.starts_with(&beginning)) {
            self.route
                .apply(vec![route::del_link(&l.name)])
                .map_err(failed(context))?;
            self.table
                .change(|model, ops| {
                    model.take(ops, TUNNELS, &ifname(&l.name));
                    model.take(ops, MANAGED, &ifname(&l.name));
                    for pair in [[&*l.name, bridge], [bridge, &l.name]] {
                        model.take(ops, JOINED, &pair.map(ifname).concat());
                    }
                })
                .map_err(failed(context))?;
            let name = if l.name == POD_TUNNEL { "tp-*" } else { &l.name };
            super::networks::pass_others(self.table.socket(), name, false);
        }
        Ok(())
    }
}

fn port(fabric: &Fabric) -> u16 {
    if fabric.port == 0 { VXLAN_PORT } else { fabric.port }
}

fn services(network: &Network) -> Option<IpNet> {
    let range = network.spec.options.get(SERVICE_RANGE_OPTION)?;
    range.parse().ok()
}

/// What of a fabric concerns a network.
fn paths(fabric: &Fabric, network: &str) -> Paths {
    let addresses: HashMap<&str, IpAddr> = fabric
        .peers
        .iter()
        .filter(|p| p.address.is_ipv4())
        .map(|p| (p.node.as_str(), p.address))
        .collect();
    let mut paths = Paths::default();
    let here = fabric.routes.iter().filter(|n| n.network_id == network);
    for r in here.flat_map(|n| &n.routes) {
        if let Some(via) = addresses.get(r.node.as_str()) {
            paths.routes.insert(r.to, Some(*via));
        }
    }
    // Nodes that only lead connections here must be answered too.
    paths
        .nodes
        .extend(fabric.peers.iter().map(|p| p.address).filter(IpAddr::is_ipv4));
    paths
}
