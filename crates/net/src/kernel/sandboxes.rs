//! Sandboxes and their endpoints.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use tripod_agent::ports::{InterfaceStats, SandboxDns};
use tripod_model::network::{Endpoint, PublishedPort};
use tripod_model::{Error, Result};

use super::networks::{Kind, Network};
use super::{Inner, failed, lock};
use crate::netlink::Socket;
use crate::netlink::route::{self, VethEnd};
use crate::render::links::{self, endpoint_mac};
use crate::render::names::{ROUTER_MAC, bridge_port, pod_port, router_port};
use crate::{dns, ns};

/// Prefix of the kept namespaces of sandboxes.
const SANDBOX: &str = "s-";

/// A sandbox: a namespace, and its endpoints as they were asked for.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) path: PathBuf,
    pub(crate) endpoints: Mutex<Vec<Endpoint>>,
}

impl Inner {
    fn sandbox_path(&self, sandbox: &str) -> Result<PathBuf> {
        if sandbox.is_empty() || sandbox.len() > 200 || sandbox.contains(['/', '\0']) {
            return Err(Error::invalid(format_args!("invalid sandbox name: {sandbox}")));
        }
        Ok(self.netns.join(format!("{SANDBOX}{sandbox}")))
    }

    /// A sandbox by name.
    pub(crate) fn sandbox(&self, name: &str) -> Result<Arc<Sandbox>> {
        lock(&self.sandboxes)
            .get(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format_args!("sandbox {name} not found")))
    }

    pub(crate) fn create_sandbox(
        &self,
        name: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
    ) -> Result<PathBuf> {
        let path = self.sandbox_path(name)?;
        let known = lock(&self.sandboxes).get(name).cloned();
        if known.is_some() {
            for e in endpoints {
                self.connect(name, e)?;
            }
            return Ok(path);
        }
        let context = || format!("cannot make the network sandbox {name}");
        let networks: Vec<Arc<Network>> = endpoints
            .iter()
            .map(|e| self.network(&e.network_id))
            .collect::<Result<_>>()?;
        // What an interrupted attempt left.
        if path.exists() {
            ns::remove(&path).map_err(failed(context()))?;
        }
        let sockets = ns::create(&path, |ns| {
            prepare(endpoints.iter().any(|e| e.ipv6.is_some()))?;
            let inside = route::open()?;
            inside.apply(vec![route::link_up(1)])?;
            for (i, e) in endpoints.iter().enumerate() {
                self.plug(&inside, ns, &networks[i], e)?;
            }
            if endpoints.len() > 1 {
                for (e, n) in endpoints.iter().zip(&networks) {
                    source_routing(&inside, n, e)?;
                }
            }
            if dns.embedded {
                dns::Sockets::open().map(Some)
            } else {
                Ok(None)
            }
        });
        let sockets = sockets
            .inspect_err(|_| self.unplug(endpoints))
            .map_err(failed(context()))?;
        let sandbox = Sandbox {
            path: path.clone(),
            endpoints: Mutex::new(endpoints.to_vec()),
        };
        lock(&self.sandboxes).insert(name.to_owned(), Arc::new(sandbox));
        if let Some(s) = sockets {
            self.dns.serve(name, s, &dns.upstream);
        }
        self.tell_dns(name, endpoints);
        Ok(path)
    }

    /// Makes the pair of an endpoint and sets up both ends.
    fn plug(&self, inside: &Socket, ns: &File, network: &Network, e: &Endpoint) -> io::Result<()> {
        let mac = endpoint_mac(e);
        let far = VethEnd {
            name: &e.interface,
            mac,
            ..VethEnd::default()
        };
        match &network.kind {
            Kind::Nothing => return Ok(()),
            Kind::Bridge { index } => {
                let name = bridge_port(&e.id);
                let near = VethEnd {
                    name: &name,
                    master: Some(*index),
                    up: true,
                    ..VethEnd::default()
                };
                new_pair(&self.route, &near, &far, ns, network.mtu)?;
                // Where bridged frames pass the IP tables, a sandbox that is led to itself comes back by its port.
                let hairpin = self.bridges_filter();
                let isolated = !network.option("enable_icc");
                if hairpin || isolated {
                    self.route
                        .apply(vec![route::bridge_port(&name, isolated, hairpin)])?;
                }
            }
            Kind::Router(r) => {
                let name = router_port(&e.id);
                let near = VethEnd {
                    name: &name,
                    mac: Some(ROUTER_MAC),
                    up: true,
                    ..VethEnd::default()
                };
                new_pair(&r.route, &near, &far, ns, network.mtu)?;
                let port = route::link(&r.route, &name)?.ok_or(io::ErrorKind::NotFound)?;
                r.route.apply(links::router_endpoint(e, port.index))?;
            }
            Kind::Pods => {
                let name = pod_port(&e.id);
                let near = VethEnd {
                    name: &name,
                    mac: Some(ROUTER_MAC),
                    up: true,
                    ..VethEnd::default()
                };
                new_pair(&self.route, &near, &far, ns, network.mtu)?;
                let port = route::link(&self.route, &name)?.ok_or(io::ErrorKind::NotFound)?;
                self.route.apply(links::router_endpoint(e, port.index))?;
            }
        }
        let link = route::link(inside, &e.interface)?.ok_or(io::ErrorKind::NotFound)?;
        let alone = |e: &Endpoint| Endpoint {
            ipv4: e.ipv4.map(|n| n.addr().into()),
            ..e.clone()
        };
        let attachment = network.attachment(e.ipv4);
        inside.apply(match &network.kind {
            Kind::Pods => links::sandbox(&alone(e), &attachment, link.index),
            _ => links::sandbox(e, &attachment, link.index),
        })?;
        match &network.kind {
            Kind::Nothing => Ok(()),
            Kind::Bridge { .. } => route::settle(&self.route, &bridge_port(&e.id)),
            Kind::Router(r) => route::settle(&r.route, &router_port(&e.id)),
            Kind::Pods => route::settle(&self.route, &pod_port(&e.id)),
        }
    }

    /// Whether bridged frames of the host's namespace pass the IP tables (`br_netfilter`).
    fn bridges_filter(&self) -> bool {
        let read = ns::within(&self.host_ns, || {
            ns::read_sysctl("bridge/bridge-nf-call-iptables")
        });
        read.is_ok_and(|v| v.trim() != "0")
    }

    /// Removes the near ends of pairs, as far as they exist.
    fn unplug(&self, endpoints: &[Endpoint]) {
        for e in endpoints {
            let Ok(network) = self.network(&e.network_id) else {
                continue;
            };
            let result = match &network.kind {
                Kind::Nothing => Ok(()),
                Kind::Bridge { .. } => self.route.apply(vec![route::del_link(&bridge_port(&e.id))]),
                Kind::Router(r) => r.route.apply(vec![route::del_link(&router_port(&e.id))]),
                Kind::Pods => self.route.apply(vec![route::del_link(&pod_port(&e.id))]),
            };
            if let Err(e) = result {
                tracing::warn!(error = %e.error, "cannot remove an endpoint's link");
            }
        }
    }

    pub(crate) fn connect(&self, name: &str, endpoint: &Endpoint) -> Result<()> {
        let sandbox = self.sandbox(name)?;
        let network = self.network(&endpoint.network_id)?;
        let context = || format!("cannot connect {name} to network {}", endpoint.network_name);
        let mut endpoints = lock(&sandbox.endpoints);
        if let Some(now) = endpoints.iter_mut().find(|e| e.id == endpoint.id) {
            // Already connected: only what DNS says of it can change.
            now.clone_from(endpoint);
        } else {
            let ns = File::open(&sandbox.path).map_err(failed(context()))?;
            ns::within(&ns, || {
                if endpoint.ipv6.is_some() {
                    ns::sysctl("ipv6/conf/default/disable_ipv6", "0")?;
                }
                let inside = route::open()?;
                self.plug(&inside, &ns, &network, endpoint)?;
                if !endpoints.is_empty() {
                    for e in endpoints.iter().chain([endpoint]) {
                        if let Ok(n) = self.network(&e.network_id) {
                            source_routing(&inside, &n, e)?;
                        }
                    }
                }
                Ok(())
            })
            .inspect_err(|_| self.unplug(std::slice::from_ref(endpoint)))
            .map_err(failed(context()))?;
            endpoints.push(endpoint.clone());
        }
        let now = endpoints.clone();
        drop(endpoints);
        self.tell_dns(name, &now);
        Ok(())
    }

    pub(crate) fn disconnect(&self, name: &str, endpoint: &Endpoint) -> Result<()> {
        let sandbox = self.sandbox(name)?;
        self.unpublish_endpoint(name, &endpoint.id)?;
        let mut endpoints = lock(&sandbox.endpoints);
        let Some(at) = endpoints.iter().position(|e| e.id == endpoint.id) else {
            return Ok(());
        };
        let gone = endpoints.remove(at);
        let now = endpoints.clone();
        drop(endpoints);
        self.unplug(std::slice::from_ref(&gone));
        // The rule of its address is all that does not go with the interface.
        if let Some(net) = gone.ipv4 {
            let ns = File::open(&sandbox.path)?;
            ns::within(&ns, || {
                for table in 100..200 {
                    let gone = route::open()?.apply(vec![route::rule_from(net.addr(), table, false)]);
                    if gone.is_err() {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        self.tell_dns(name, &now);
        Ok(())
    }

    pub(crate) fn remove_sandbox(&self, name: &str) -> Result<()> {
        let path = self.sandbox_path(name)?;
        self.unpublish(name)?;
        self.dns.stop(name);
        let known = lock(&self.sandboxes).remove(name);
        if let Some(s) = known {
            self.silence(&lock(&s.endpoints));
        }
        // The pairs go with the namespace, which the kernel takes apart at its leisure.
        ns::remove(&path).map_err(failed(format_args!("cannot remove the network sandbox {name}")))
    }

    /// Takes endpoints off the network at once: their addresses may be given to others before the kernel has
    /// taken the old namespace apart, which would go on answering for them.
    fn silence(&self, endpoints: &[Endpoint]) {
        for e in endpoints {
            let Ok(network) = self.network(&e.network_id) else {
                continue;
            };
            let (socket, name) = match &network.kind {
                Kind::Nothing => continue,
                Kind::Bridge { .. } => (&self.route, bridge_port(&e.id)),
                Kind::Router(r) => (&r.route, router_port(&e.id)),
                Kind::Pods => (&self.route, pod_port(&e.id)),
            };
            let down = route::link(socket, &name).and_then(|l| match l {
                Some(l) => Ok(socket.apply(vec![route::link_down(l.index).tolerate(Errno::ENODEV)])?),
                None => Ok(()),
            });
            if let Err(error) = down {
                tracing::warn!(%error, "cannot take an endpoint's link down");
            }
        }
    }

    pub(crate) fn list_sandboxes(&self) -> Result<Vec<String>> {
        Ok(ns::list(&self.netns, SANDBOX)?)
    }

    pub(crate) fn adopt_sandbox(
        &self,
        name: &str,
        dns: &SandboxDns,
        endpoints: &[Endpoint],
        ports: &[PublishedPort],
    ) -> Result<PathBuf> {
        let path = self.sandbox_path(name)?;
        if !ns::is_kept(&path) {
            return Err(Error::not_found(format_args!(
                "sandbox {name} does not exist any more"
            )));
        }
        let sandbox = Sandbox {
            path: path.clone(),
            endpoints: Mutex::new(endpoints.to_vec()),
        };
        lock(&self.sandboxes).insert(name.to_owned(), Arc::new(sandbox));
        if dns.embedded && !self.dns.resume(name, &dns.upstream) {
            let ns = File::open(&path)?;
            let sockets = ns::within(&ns, dns::Sockets::open).map_err(failed("cannot serve names again"))?;
            self.dns.serve(name, sockets, &dns.upstream);
        }
        self.tell_dns(name, endpoints);
        self.publish_again(name, endpoints, ports)?;
        Ok(path)
    }

    /// What DNS must know of a sandbox: its networks, names and whether it may ask the outside.
    fn tell_dns(&self, name: &str, endpoints: &[Endpoint]) {
        let outside = endpoints.is_empty()
            || endpoints
                .iter()
                .any(|e| self.network(&e.network_id).is_ok_and(|n| n.leads_out()));
        self.dns.connected(name, endpoints, outside);
    }

    pub(crate) fn sandbox_stats(&self, name: &str) -> Result<Vec<InterfaceStats>> {
        let path = self.sandbox_path(name)?;
        let ns = File::open(&path).map_err(|_| Error::not_found(format_args!("sandbox {name} not found")))?;
        let links = ns::within(&ns, || route::links(&route::open()?))?;
        Ok(links
            .into_iter()
            .filter(|l| l.kind == "veth")
            .map(|l| {
                let [
                    rx_packets,
                    tx_packets,
                    rx_bytes,
                    tx_bytes,
                    rx_errors,
                    tx_errors,
                    rx_dropped,
                    tx_dropped,
                ] = l.stats;
                InterfaceStats {
                    name: l.name,
                    rx: (rx_bytes, rx_packets, rx_errors, rx_dropped),
                    tx: (tx_bytes, tx_packets, tx_errors, tx_dropped),
                }
            })
            .collect())
    }
}

/// Settings of a new namespace, before there are interfaces.
fn prepare(ipv6: bool) -> io::Result<()> {
    // Who had the address before may still be remembered by neighbours.
    ns::sysctl("ipv4/conf/default/arp_notify", "1")?;
    if !ipv6 {
        // Absent where the kernel has no IPv6.
        let _ = ns::sysctl("ipv6/conf/default/disable_ipv6", "1");
    }
    Ok(())
}

/// Makes a pair; one of the same name that the kernel has not taken apart yet is removed first.
fn new_pair(socket: &Socket, near: &VethEnd<'_>, far: &VethEnd<'_>, ns: &File, mtu: u32) -> io::Result<()> {
    match socket.apply(vec![route::new_veth(near, far, ns.as_fd(), mtu)]) {
        Err(e) if e.error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(socket.apply(vec![
            route::del_link(near.name),
            route::new_veth(near, far, ns.as_fd(), mtu),
        ])?),
        other => Ok(other?),
    }
}

fn source_routing(inside: &Socket, network: &Network, e: &Endpoint) -> io::Result<()> {
    if matches!(network.kind, Kind::Nothing) {
        return Ok(());
    }
    let link = route::link(inside, &e.interface)?.ok_or(io::ErrorKind::NotFound)?;
    let gateway = network.gateway().filter(|_| network.leads_out()).map(Into::into);
    Ok(inside.apply(links::source_routing(
        e,
        &network.attachment(e.ipv4),
        gateway,
        link.index,
    ))?)
}
