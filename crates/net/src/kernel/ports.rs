//! Published ports: bound on the host first, then led to an endpoint.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt,
    socket, sockopt,
};
use tripod_agent::ports::PortRequest;
use tripod_model::network::{Endpoint, PortProtocol, PublishedPort};
use tripod_model::{Error, Result};

use super::networks::Kind;
use super::{Inner, failed, lock, plain};
use crate::netlink::nft::Data;
use crate::ns;
use crate::outer::{Forward, Outer};
use crate::render::host::{PUBLISHED, PUBLISHED_AT, PUBLISHED_SELF};
use crate::render::{address_port_key, port_key, target};

/// Ports given out when none is asked for, as Docker does.
const FREE: std::ops::RangeInclusive<u16> = 32768..=60999;

/// All ports that are held on the host.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By sandbox.
    sandboxes: HashMap<String, Vec<Holding>>,
    /// Addresses on which each protocol and port is held here.
    taken: HashMap<(PortProtocol, u16), HashSet<IpAddr>>,
    /// Where the search for a free port goes on.
    next_free: u16,
    /// The machine around this node, on which published ports are to answer too.
    pub(crate) outer: Option<Outer>,
}

/// A port of a sandbox.
#[derive(Debug)]
struct Holding {
    port: PublishedPort,
    endpoint: String,
    network: String,
    /// The endpoint's address.
    to: IpAddr,
    /// Port at the router on the way, if the network has one.
    router_port: Option<u16>,
    _hold: Hold,
}

/// A port of the host that is bound, and thereby nobody else's.
#[derive(Debug)]
pub(crate) struct Hold {
    _fd: Option<OwnedFd>,
    _forward: Option<Forward>,
}

/// Why a port cannot be held.
#[derive(Debug)]
enum Taken {
    /// Held by this daemon already.
    Ours,
    /// The kernel said no.
    Other(io::Error),
}

/// Docker's words for a port that another of its containers has.
fn allocated(ip: IpAddr, port: u16) -> Error {
    Error::conflict(format_args!(
        "Bind for {} failed: port is already allocated",
        SocketAddr::new(ip, port)
    ))
}

impl Held {
    /// Whether this address and port is held here already; an unspecified address stands for all.
    fn is_taken(&self, ip: IpAddr, protocol: PortProtocol, port: u16) -> bool {
        self.taken.get(&(protocol, port)).is_some_and(|at| {
            at.iter().any(|a| {
                a.is_ipv4() == ip.is_ipv4() && (*a == ip || a.is_unspecified() || ip.is_unspecified())
            })
        })
    }

    fn hold(&mut self, ip: IpAddr, protocol: PortProtocol, port: u16) -> std::result::Result<Hold, Taken> {
        if self.is_taken(ip, protocol, port) {
            return Err(Taken::Ours);
        }
        let fd = bind_port(ip, protocol, port).map_err(Taken::Other)?;
        let forward = self.lead_in(ip, protocol, port);
        self.taken.entry((protocol, port)).or_default().insert(ip);
        Ok(Hold {
            _fd: fd,
            _forward: forward,
        })
    }

    /// Leads the same port of the machine around this node here. Another cluster, or a program of the machine, may
    /// have it: then the port answers at the node's own address only.
    fn lead_in(&self, ip: IpAddr, protocol: PortProtocol, port: u16) -> Option<Forward> {
        let forward = self.outer.as_ref()?.forward(ip, protocol, port, port);
        forward.unwrap_or_else(|error| {
            let at = SocketAddr::new(ip, port);
            tracing::warn!("{at}/{protocol} of this machine is not led to the node: {error}");
            None
        })
    }

    /// Holds a port for a frontend, on all addresses.
    pub(crate) fn hold_for_frontend(&mut self, p: &PublishedPort) -> std::result::Result<Hold, String> {
        let ip = if p.host_ip.is_unspecified() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            p.host_ip
        };
        self.hold(ip, p.protocol, p.host_port).map_err(|e| match e {
            Taken::Ours => allocated(ip, p.host_port).message,
            Taken::Other(e) => format!(
                "failed to bind host port for {}/{}: {}",
                SocketAddr::new(ip, p.host_port),
                p.protocol,
                plain(&e)
            ),
        })
    }

    /// Gives a port back. The socket closes with its [`Hold`].
    pub(crate) fn release(&mut self, ip: IpAddr, protocol: PortProtocol, port: u16) {
        if let Some(at) = self.taken.get_mut(&(protocol, port)) {
            at.remove(&ip);
            if at.is_empty() {
                self.taken.remove(&(protocol, port));
            }
        }
    }

    /// Addresses of these to which no port leads any more.
    fn unused(&self, gone: &[Holding]) -> Vec<IpAddr> {
        let used = |a: &IpAddr| self.sandboxes.values().flatten().any(|h| h.to == *a);
        let mut all: Vec<IpAddr> = gone.iter().map(|h| h.to).filter(|a| !used(a)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Holds what is asked for: a port, the first free one of a range, or any.
    fn choose(
        &mut self,
        r: &PortRequest,
        towards: SocketAddr,
        preferred: Option<u16>,
    ) -> Result<(u16, Hold)> {
        let PublishedPort {
            host_ip: ip,
            protocol,
            host_port,
            ..
        } = r.port;
        let wrong = |e: Taken, port| match e {
            Taken::Ours => allocated(ip, port),
            Taken::Other(e) => Error::conflict(format_args!(
                "failed to bind host port for {}:{towards}/{protocol}: {}",
                SocketAddr::new(ip, port),
                plain(&e)
            )),
        };
        if host_port != 0 && r.host_port_end <= host_port {
            return self
                .hold(ip, protocol, host_port)
                .map(|h| (host_port, h))
                .map_err(|e| wrong(e, host_port));
        }
        if host_port != 0 {
            for port in host_port..=r.host_port_end {
                if let Ok(h) = self.hold(ip, protocol, port) {
                    return Ok((port, h));
                }
            }
            return Err(Error::conflict(format_args!(
                "Bind for {ip}:{host_port}-{} failed: all ports are allocated",
                r.host_port_end
            )));
        }
        if let Some(port) = preferred
            && let Ok(h) = self.hold(ip, protocol, port)
        {
            return Ok((port, h));
        }
        for _ in FREE {
            let port = self.next_free.max(*FREE.start());
            self.next_free = if port >= *FREE.end() {
                *FREE.start()
            } else {
                port + 1
            };
            match self.hold(ip, protocol, port) {
                Ok(h) => return Ok((port, h)),
                Err(Taken::Other(e)) if e.raw_os_error() != Some(Errno::EADDRINUSE as i32) => {
                    return Err(wrong(Taken::Other(e), port));
                }
                Err(_) => {}
            }
        }
        Err(Error::conflict("all dynamic ports are allocated"))
    }
}

/// Binds, and listens where the protocol knows that, so that the port shows as in use. Nobody connects to the
/// socket: connections are led elsewhere before. IPv6, which is not led anywhere, is bound without listening, so
/// that clients are refused at once and turn to IPv4.
fn bind_port(ip: IpAddr, protocol: PortProtocol, port: u16) -> io::Result<Option<OwnedFd>> {
    let family = if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, number) = match protocol {
        PortProtocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        PortProtocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        PortProtocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let fd = match socket(family, kind, SockFlag::SOCK_CLOEXEC, number) {
        // Without the protocol in the kernel nobody can take the port either.
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if protocol == PortProtocol::Sctp => {
            return Ok(None);
        }
        Err(Errno::EAFNOSUPPORT) if ip.is_ipv6() => return Ok(None),
        other => other?,
    };
    if ip.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, port)))?;
    if protocol == PortProtocol::Tcp && ip.is_ipv4() {
        listen(&fd, Backlog::new(1)?)?;
    }
    Ok(Some(fd))
}

/// An address paired with itself.
fn pair(a: Ipv4Addr) -> Vec<u8> {
    [a.octets(), a.octets()].concat()
}

impl Inner {
    pub(crate) fn publish(
        &self,
        sandbox: &str,
        endpoint: &Endpoint,
        requests: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        self.sandbox(sandbox)?;
        let network = self.network(&endpoint.network_id)?;
        let to = endpoint.ipv4.map_or(Ipv4Addr::UNSPECIFIED.into(), |n| n.addr());
        let mut chosen: Vec<Holding> = Vec::with_capacity(requests.len());
        let mut held = lock(&self.held);
        let result = ns::within(&self.host_ns, || {
            Ok(requests.iter().try_for_each(|r| {
                let towards = SocketAddr::new(to, r.port.target_port);
                let same = chosen
                    .iter()
                    .find(|h| h.port.target_port == r.port.target_port && h.port.protocol == r.port.protocol);
                let preferred = same.map(|h| h.port.host_port);
                let (port, hold) = held.choose(r, towards, preferred)?;
                chosen.push(Holding {
                    port: PublishedPort {
                        host_port: port,
                        ..r.port
                    },
                    endpoint: endpoint.id.clone(),
                    network: endpoint.network_id.clone(),
                    to,
                    router_port: None,
                    _hold: hold,
                });
                Ok(())
            }))
        });
        let done = result
            .map_err(failed("cannot enter the host's namespace"))
            .and_then(|r| r)
            .and_then(|()| {
                self.lead(&network.kind, to, &mut chosen)
                    .map_err(failed("cannot lead published ports"))
            });
        let ports = chosen.iter().map(|h| h.port).collect();
        if let Err(e) = done {
            for h in &chosen {
                held.release(h.port.host_ip, h.port.protocol, h.port.host_port);
            }
            let last = held.unused(&chosen);
            self.unlead(chosen, &last)?;
            return Err(e);
        }
        held.sandboxes
            .entry(sandbox.to_owned())
            .or_default()
            .extend(chosen);
        Ok(ports)
    }

    /// Tells the kernel where held ports lead.
    fn lead(&self, kind: &Kind, to: IpAddr, chosen: &mut [Holding]) -> io::Result<()> {
        let IpAddr::V4(to) = to else { return Ok(()) };
        let mut host = Vec::new();
        let mut inside = Vec::new();
        for h in chosen.iter_mut() {
            let (protocol, port) = (h.port.protocol, h.port.host_port);
            let goal = match kind {
                Kind::Nothing => continue,
                Kind::Bridge { .. } | Kind::Pods => target(to, h.port.target_port),
                Kind::Router(r) => {
                    let Some((_, router)) = r.uplink else { continue };
                    // Usually the same number; another where one port of two host addresses leads to two endpoints.
                    let free = std::iter::once(port)
                        .chain(FREE)
                        .find(|p| {
                            let key = port_key(protocol, *p);
                            !r.table.has(PUBLISHED, &key) && !inside.iter().any(|(_, k, _)| *k == key)
                        })
                        .ok_or_else(|| io::Error::other("no free port at the router"))?;
                    h.router_port = Some(free);
                    inside.push((
                        PUBLISHED,
                        port_key(protocol, free),
                        target(to, h.port.target_port),
                    ));
                    target(router, free)
                }
            };
            match h.port.host_ip {
                IpAddr::V4(a) if a.is_unspecified() => host.push((PUBLISHED, port_key(protocol, port), goal)),
                IpAddr::V4(a) => host.push((PUBLISHED_AT, address_port_key(a, protocol, port), goal)),
                IpAddr::V6(_) => {}
            }
        }
        if let Kind::Router(r) = kind {
            r.table.publish(inside)?;
        }
        self.table.publish(host)?;
        if !matches!(kind, Kind::Bridge { .. } | Kind::Pods) {
            return Ok(());
        }
        self.table
            .change(|model, ops| model.put(ops, PUBLISHED_SELF, pair(to), Data::None))
    }

    /// Tells the kernel that ports lead nowhere any more. `last` are addresses to which nothing is published now.
    fn unlead(&self, gone: Vec<Holding>, last: &[IpAddr]) -> Result<()> {
        let context = "cannot withdraw published ports";
        self.table
            .change(|model, ops| {
                for h in &gone {
                    let (protocol, port) = (h.port.protocol, h.port.host_port);
                    match h.port.host_ip {
                        IpAddr::V4(a) if a.is_unspecified() => {
                            model.take(ops, PUBLISHED, &port_key(protocol, port));
                        }
                        IpAddr::V4(a) => model.take(ops, PUBLISHED_AT, &address_port_key(a, protocol, port)),
                        IpAddr::V6(_) => {}
                    }
                }
                for a in last {
                    if let IpAddr::V4(a) = a {
                        model.take(ops, PUBLISHED_SELF, &pair(*a));
                    }
                }
            })
            .map_err(failed(context))?;
        for h in &gone {
            if let Some(port) = h.router_port
                && let Ok(network) = self.network(&h.network)
                && let Kind::Router(r) = &network.kind
            {
                let key = port_key(h.port.protocol, port);
                r.table
                    .change(|model, ops| model.take(ops, PUBLISHED, &key))
                    .map_err(failed(context))?;
            }
        }
        Ok(())
    }

    pub(crate) fn unpublish(&self, sandbox: &str) -> Result<()> {
        self.withdraw(sandbox, |_| true)
    }

    pub(crate) fn unpublish_endpoint(&self, sandbox: &str, endpoint: &str) -> Result<()> {
        self.withdraw(sandbox, |h| h.endpoint == endpoint)
    }

    fn withdraw(&self, sandbox: &str, which: impl Fn(&Holding) -> bool) -> Result<()> {
        let mut held = lock(&self.held);
        let Some(all) = held.sandboxes.remove(sandbox) else {
            return Ok(());
        };
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(which);
        if !kept.is_empty() {
            held.sandboxes.insert(sandbox.to_owned(), kept);
        }
        for h in &gone {
            held.release(h.port.host_ip, h.port.protocol, h.port.host_port);
        }
        // Under the lock, so that nobody is given the port before its old lead is gone.
        let last = held.unused(&gone);
        self.unlead(gone, &last)
    }

    /// After a restart: the ports are held again. Which endpoint they lead to is found by the network that can
    /// be reached from the host, as it was when they were published.
    pub(crate) fn publish_again(
        &self,
        sandbox: &str,
        endpoints: &[Endpoint],
        ports: &[PublishedPort],
    ) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        self.unpublish(sandbox)?;
        let reachable = |e: &&Endpoint| self.network(&e.network_id).is_ok_and(|n| n.leads_out());
        let by_default = endpoints.iter().filter(reachable).find(|e| e.default_route);
        let Some(endpoint) = by_default.or_else(|| endpoints.iter().find(reachable)) else {
            return Ok(());
        };
        let requests: Vec<PortRequest> = ports
            .iter()
            .map(|p| PortRequest {
                port: *p,
                host_port_end: 0,
            })
            .collect();
        self.publish(sandbox, endpoint, &requests).map(drop)
    }
}
