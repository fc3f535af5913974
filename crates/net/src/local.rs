//! The network of a local cluster: a bridge on this machine, and a network namespace for each node, as if the nodes
//! were machines on a switch.
//!
//! What is made here outlives the program that makes it: namespaces are kept by bind mounts, and the bridge and its
//! table are found again by their names.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};
use tripod_model::{Error, Result};

use crate::netlink::nft::{self, ChainType, Expr, Hook, ifname, transaction};
use crate::netlink::route::{self, Route, VethEnd};
use crate::ns;
use crate::render::host::steps;

/// Name of a node's interface.
const NODE_INTERFACE: &str = "eth0";

/// A switch for the nodes of one local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNet {
    /// Name of the bridge, at most 15 bytes; its table has the same name.
    pub bridge: String,
    /// This machine's address in the subnet.
    pub gateway: Ipv4Net,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::internal(format_args!("{what}: {e}"))
}

impl LocalNet {
    /// The first subnet of `candidates` that overlaps with none of this machine's addresses and routes.
    ///
    /// # Errors
    /// The kernel's refusal to list routes, or no free subnet.
    pub fn free_subnet(candidates: impl IntoIterator<Item = Ipv4Net>) -> Result<Ipv4Net> {
        let socket = route::open().map_err(failed("cannot open a routing socket"))?;
        let list = failed("cannot list routes");
        let mut taken: Vec<IpNet> = route::routes(&socket)
            .map_err(&list)?
            .into_iter()
            .map(|r| r.0)
            .collect();
        taken.extend(
            route::addresses(&socket)
                .map_err(&list)?
                .into_iter()
                .map(|a| a.1.trunc()),
        );
        candidates
            .into_iter()
            .find(|c| {
                let c = IpNet::V4(*c);
                !taken
                    .iter()
                    .any(|t| t.prefix_len() > 0 && (t.contains(&c) || c.contains(t)))
            })
            .ok_or_else(|| Error::unavailable("no subnet is free for a local cluster"))
    }

    /// Makes the bridge and lets what is behind it out, unless that has been done.
    ///
    /// # Errors
    /// Missing privileges, or the name of the bridge in use for something else.
    pub fn ensure(&self) -> Result<()> {
        self.build().map_err(failed("cannot make the cluster's network"))
    }

    fn build(&self) -> io::Result<()> {
        let socket = route::open()?;
        if route::link(&socket, &self.bridge)?.is_none() {
            socket.apply(vec![route::new_bridge(&self.bridge, self.mac(), 0)])?;
        }
        let link = route::link(&socket, &self.bridge)?.ok_or(io::ErrorKind::NotFound)?;
        socket.apply(vec![
            route::add_address(link.index, IpNet::V4(self.gateway), 0),
            route::link_up(link.index),
        ])?;
        ns::sysctl("ipv4/ip_forward", "1")?;
        let nft = nft::open()?;
        let masquerade = [
            vec![
                Expr::Saddr(0),
                Expr::Mask(0, self.gateway.netmask().octets()),
                Expr::Eq(0, self.gateway.network().octets().to_vec()),
                Expr::OifName(4),
                Expr::Ne(4, ifname(&self.bridge).to_vec()),
            ],
            vec![Expr::Masquerade],
        ]
        .concat();
        let chain = (
            "postrouting",
            Some((ChainType::Nat, Hook::Postrouting, 100)),
            vec![masquerade],
        );
        transaction(
            &nft,
            &self.bridge,
            nft::Table::Ensure,
            &steps(Vec::new(), vec![chain]),
        )?;
        for foreign in nft::dropping_forward_chains(&nft)? {
            nft::admit(&nft, &foreign, &self.bridge)?;
        }
        Ok(())
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.gateway.addr().octets();
        [0x02, 0x54, a, b, c, d]
    }

    /// Makes a node's namespace, kept at `keep`, with an interface at the switch. One that is there already is
    /// taken away first.
    ///
    /// # Errors
    /// Missing privileges, a missing bridge.
    pub fn add_node(&self, keep: &Path, address: Ipv4Addr) -> Result<()> {
        let add = || -> io::Result<()> {
            ns::remove(keep)?;
            let socket = route::open()?;
            let bridge = route::link(&socket, &self.bridge)?.ok_or(io::ErrorKind::NotFound)?;
            let port = self.port(address);
            let [a, b, c, d] = address.octets();
            let mac = [0x02, 0x54, a, b, c, d];
            ns::create(keep, |namespace| {
                let near = VethEnd {
                    name: &port,
                    master: Some(bridge.index),
                    up: true,
                    ..VethEnd::default()
                };
                let far = VethEnd {
                    name: NODE_INTERFACE,
                    mac: Some(mac),
                    ..VethEnd::default()
                };
                // The new namespace is this thread's now; the bridge's socket is bound to the one outside.
                socket.apply(vec![
                    route::del_link(&port),
                    route::new_veth(&near, &far, namespace.as_fd(), 0),
                ])?;
                let inside = route::open()?;
                let link = route::link(&inside, NODE_INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
                let net = Ipv4Net::new_assert(address, self.gateway.prefix_len());
                inside.apply(vec![
                    route::link_up(1),
                    route::add_address(link.index, IpNet::V4(net), 0),
                    route::link_up(link.index),
                    Route::default_via(self.gateway.addr().into(), link.index).set(),
                ])?;
                Ok(())
            })
        };
        add().map_err(failed("cannot make a node's network"))
    }

    /// Name of a node's port at the bridge.
    fn port(&self, address: Ipv4Addr) -> String {
        let n = u32::from(address) & !u32::from(self.gateway.netmask());
        let stem: String = self.bridge.chars().take(10).collect();
        format!("{stem}.{n}")
    }

    /// Takes a node's namespace away.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_node(keep: &Path) -> Result<()> {
        ns::remove(keep).map_err(failed("cannot remove a node's network"))
    }

    /// Whether a node's namespace is there (it is gone after a reboot).
    pub fn has_node(keep: &Path) -> bool {
        ns::is_kept(keep)
    }

    /// Takes the bridge and its table away.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&self) -> Result<()> {
        let remove = || -> io::Result<()> {
            let nft = nft::open()?;
            for foreign in nft::dropping_forward_chains(&nft)? {
                nft::dismiss(&nft, &foreign, Some(&self.bridge))?;
            }
            transaction(&nft, &self.bridge, nft::Table::Remove, &[])?;
            route::open()?.apply(vec![route::del_link(&self.bridge)])?;
            Ok(())
        };
        remove().map_err(failed("cannot remove the cluster's network"))
    }
}
