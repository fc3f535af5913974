//! Networks: bridges in the host's namespace, routers in namespaces of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ipnet::{IpNet, Ipv4Net};
use tripod_model::network::{NetworkDriver, NetworkSpec};
use tripod_model::{Error, Result};

use super::table::Table;
use super::tunnels::Tunnel;
use super::{Inner, failed, lock};
use crate::netlink::nft::{Data, ifname};
use crate::netlink::{Socket, nft, route};
use crate::ns;
use crate::render::host::{INTERNAL, MANAGED, MASQUERADED, MESH, SAME};
use crate::render::links::Attachment;
use crate::render::names::{ROUTER_MAC, host_uplink, mac_for};

/// Prefix of the kept namespaces of routers.
pub(super) const ROUTER: &str = "r-";
/// Prefix of the alias of bridges made here; the network's identifier follows.
pub(super) const ALIAS: &str = "tripod:";

/// A network that is real on this node.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) spec: NetworkSpec,
    pub(crate) kind: Kind,
    /// MTU of its interfaces; 0 is the kernel's default.
    pub(crate) mtu: u32,
    /// The way to other nodes, if there are any.
    pub(super) tunnel: Mutex<Option<Tunnel>>,
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
    /// The pods' network, routed in the host's namespace.
    Pods,
}

/// A router namespace.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) route: Socket,
    pub(crate) table: Table,
    /// Host's and router's address on the uplink; `None` for internal networks.
    pub(crate) uplink: Option<(Ipv4Addr, Ipv4Addr)>,
    pub(super) path: PathBuf,
}

impl Network {
    /// First IPv4 gateway of the network.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        gateways(&self.spec).first().map(Ipv4Net::addr)
    }

    /// How endpoints with this address see the network.
    pub(crate) fn attachment(&self, address: Option<IpNet>) -> Attachment {
        if self.is_pods() {
            let gateway = self.gateway().unwrap_or(Ipv4Addr::new(169, 254, 1, 1));
            return Attachment::Routed {
                gateway: gateway.into(),
                subnets: Vec::new(),
            };
        }
        if self.spec.driver != NetworkDriver::Overlay {
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

/// MTU that the user asked for; 0 is none in particular.
fn asked_mtu(spec: &NetworkSpec) -> u32 {
    let option = spec.options.get("com.docker.network.driver.mtu");
    option.and_then(|v| v.parse().ok()).unwrap_or(spec.mtu)
}

/// The network's own IPv4 addresses with the prefix lengths of their subnets.
pub(super) fn gateways(spec: &NetworkSpec) -> Vec<Ipv4Net> {
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
pub(super) fn register(
    inner: &Inner,
    name: &str,
    spec: Option<&NetworkSpec>,
    masquerade: bool,
) -> io::Result<()> {
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
        set(
            MESH,
            &one,
            spec.is_some_and(|s| s.ingress && name == s.bridge_name()),
        );
    })?;
    pass_others(inner.table.socket(), name, spec.is_some());
    Ok(())
}

/// Has filters of other programs, which drop by default, accept what the host's table let pass.
pub(super) fn pass_others(socket: &Socket, name: &str, wanted: bool) {
    for chain in nft::dropping_forward_chains(socket).unwrap_or_default() {
        let done = if wanted {
            nft::admit(socket, &chain, name)
        } else {
            nft::dismiss(socket, &chain, Some(name))
        };
        if let Err(error) = done {
            tracing::warn!(
                %error,
                "the nftables chain {chain} of another program drops forwarded packets by default, and no rule for \
                 interface {name} could be put into it: its containers reach the outside, and its published ports \
                 are reached, only as far as that program allows"
            );
        }
    }
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
            NetworkDriver::Overlay if self.in_host(spec)? => self.ensure_bridge(spec)?,
            NetworkDriver::Overlay => Kind::Router(Box::new(self.ensure_router(spec)?)),
            NetworkDriver::Routed => self.ensure_pods(spec)?,
        };
        let spans = matches!(spec.driver, NetworkDriver::Overlay | NetworkDriver::Routed);
        let mtu = match asked_mtu(spec) {
            0 if spans => self.tunnelled_mtu(),
            mtu => mtu,
        };
        let network = Network {
            spec: spec.clone(),
            kind,
            mtu,
            tunnel: Mutex::default(),
        };
        self.lay(&network)?;
        if network.is_pods() {
            self.serve_cluster_names(&network)?;
        }
        lock(&self.networks).insert(spec.id.clone(), Arc::new(network));
        Ok(())
    }

    /// Whether an overlay lives in the host's namespace. The routing mesh does, so that packets to published ports
    /// pass one namespace less, unless something of the host is in its subnet: then it has a router like the others.
    fn in_host(&self, spec: &NetworkSpec) -> Result<bool> {
        if !spec.ingress || spec.internal || ns::is_kept(&self.router_path(&spec.id)) {
            return Ok(false);
        }
        let made = route::link(&self.route, spec.bridge_name().as_ref())
            .map_err(failed("cannot list interfaces"))?;
        if made.is_some_and(|l| l.alias == format!("{ALIAS}{}", spec.id)) {
            return Ok(true);
        }
        let theirs = self.host_subnets()?;
        let bridges = route::addresses(&self.route).map_err(failed("cannot list addresses"))?;
        let taken: Vec<IpNet> = theirs
            .into_iter()
            .chain(bridges.into_iter().map(|(_, a)| a.trunc()))
            .collect();
        let overlaps = |s: &IpNet| taken.iter().any(|t| t.contains(s) || s.contains(t));
        Ok(!spec.subnets.iter().any(|s| overlaps(&s.subnet)))
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
            let mac = match gateways(spec).first() {
                // Sandboxes of an overlay know their router by this address.
                Some(_) if spec.driver == NetworkDriver::Overlay => ROUTER_MAC,
                Some(g) => mac_for(g.addr().into()),
                None => [2, 0x42, 0, 0, 0, 1],
            };
            let mtu = match asked_mtu(spec) {
                0 if spec.driver == NetworkDriver::Overlay => self.tunnelled_mtu(),
                mtu => mtu,
            };
            self.route
                .apply(vec![
                    route::new_bridge(&name, mac, mtu),
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
            _ => self.router_path(id),
        };
        if path.exists() {
            let uplink = host_uplink(id);
            self.route
                .apply(vec![route::del_link(&uplink)])
                .map_err(failed(context()))?;
            register(self, &uplink, None, false).map_err(failed(context()))?;
            ns::remove(&path).map_err(failed(context()))?;
        }
        let bridge = known.as_ref().map(|n| n.spec.bridge_name()).unwrap_or_default();
        self.remove_tunnels(id, &bridge)?;
        if known.as_ref().is_some_and(|n| n.is_pods()) {
            self.dns.stop_cluster();
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
}
