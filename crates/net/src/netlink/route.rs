//! Routing netlink: links, addresses, routes, rules and neighbours as messages, and what the kernel answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::{CREATE, EXCL, Msg, REPLACE, Socket, attr, attrs, text, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// Address without the route of its prefix.
pub(crate) const NO_PREFIX_ROUTE: u32 = 0x200;
/// The main routing table.
pub(crate) const MAIN: u32 = 254;

/// Opens a routing socket in the calling thread's namespace.
pub(crate) fn open() -> io::Result<Socket> {
    Socket::open(SockProtocol::NetlinkRoute)
}

pub(super) fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn ifinfo(index: u32, up: bool) -> [u8; 16] {
    let mut b = [0u8; 16];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        b[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        b[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    b
}

/// One end of a veth pair.
#[derive(Debug, Clone, Default)]
pub(crate) struct VethEnd<'a> {
    /// Name, at most 15 bytes.
    pub(crate) name: &'a str,
    /// Hardware address; `None` leaves it to the kernel.
    pub(crate) mac: Option<[u8; 6]>,
    /// Bridge of which it becomes a port.
    pub(crate) master: Option<u32>,
    /// Whether it is brought up at once.
    pub(crate) up: bool,
}

/// A veth pair: `near` in the namespace of the socket, `far` in `far_ns`.
pub(crate) fn new_veth(near: &VethEnd<'_>, far: &VethEnd<'_>, far_ns: BorrowedFd<'_>, mtu: u32) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, CREATE | EXCL);
    m.raw(&ifinfo(0, near.up));
    veth_attrs(&mut m, near, mtu);
    m.nest(IFLA_LINKINFO, |m| {
        m.str(IFLA_INFO_KIND, "veth");
        m.nest(IFLA_INFO_DATA, |m| {
            m.nest(1, |m| {
                m.raw(&ifinfo(0, far.up));
                veth_attrs(m, far, mtu);
                m.u32(IFLA_NET_NS_FD, far_ns.as_raw_fd() as u32);
            });
        });
    });
    m
}

fn veth_attrs(m: &mut Msg, end: &VethEnd<'_>, mtu: u32) {
    m.str(IFLA_IFNAME, end.name);
    if mtu > 0 {
        m.u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = end.mac {
        m.attr(IFLA_ADDRESS, &mac);
    }
    if let Some(master) = end.master {
        m.u32(IFLA_MASTER, master);
    }
    // One queue each: more cost memory per container and bring nothing to a software device.
    m.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
}

/// Gives a link an alias.
pub(crate) fn set_alias(name: &str, alias: &str) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, 0);
    m.raw(&ifinfo(0, false))
        .str(IFLA_IFNAME, name)
        .str(IFLA_IFALIAS, alias);
    m
}

/// A bridge.
pub(crate) fn new_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, CREATE | EXCL);
    m.raw(&ifinfo(0, true))
        .str(IFLA_IFNAME, name)
        .attr(IFLA_ADDRESS, &mac);
    if mtu > 0 {
        m.u32(IFLA_MTU, mtu);
    }
    m.nest(IFLA_LINKINFO, |m| {
        m.str(IFLA_INFO_KIND, "bridge");
    });
    m
}

/// Brings a link up.
pub(crate) fn link_up(index: u32) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, 0);
    m.raw(&ifinfo(index, true));
    m
}

/// Takes a link down.
pub(crate) fn link_down(index: u32) -> Msg {
    let mut b = ifinfo(index, false);
    b[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    let mut m = Msg::new(RTM_NEWLINK, 0);
    m.raw(&b);
    m
}

/// Settings of a bridge port, by the name of its link: `isolated` keeps it from other isolated ports of the
/// bridge, `hairpin` lets a frame leave by the port on which it came.
pub(crate) fn bridge_port(name: &str, isolated: bool, hairpin: bool) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, 0);
    m.raw(&ifinfo(0, false))
        .str(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |m| {
            m.str(IFLA_INFO_SLAVE_KIND, "bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |m| {
                    m.u8(IFLA_BRPORT_MODE, u8::from(hairpin))
                        .u8(IFLA_BRPORT_ISOLATED, u8::from(isolated));
                });
        });
    m
}

/// Removes a link by name.
pub(crate) fn del_link(name: &str) -> Msg {
    let mut m = Msg::new(RTM_DELLINK, 0);
    m.raw(&ifinfo(0, false)).str(IFLA_IFNAME, name);
    m.tolerate(Errno::ENODEV)
}

fn address(index: u32, net: IpNet, addr_flags: u32) -> Msg {
    let mut m = Msg::new(RTM_NEWADDR, CREATE | EXCL);
    let mut b = [family(net.addr()), net.prefix_len(), 0, 0, 0, 0, 0, 0];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    m.raw(&b)
        .attr(2, &octets(net.addr()))
        .attr(1, &octets(net.addr()));
    if addr_flags != 0 {
        m.u32(8, addr_flags);
    }
    if let IpNet::V4(n) = net
        && n.prefix_len() < 31
        && addr_flags & NO_PREFIX_ROUTE == 0
    {
        m.attr(4, &n.broadcast().octets());
    }
    m
}

/// Gives an address to a link.
pub(crate) fn add_address(index: u32, net: IpNet, flags: u32) -> Msg {
    // IFA_F_NODAD spares IPv6 the second of doubt; the allocator knows that the address is free.
    let flags = if net.addr().is_ipv6() { flags | 2 } else { flags };
    address(index, net, flags).tolerate(Errno::EEXIST)
}

/// A route.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Destination; a prefix length of 0 is the default route.
    pub(crate) to: IpNet,
    /// Next hop.
    pub(crate) via: Option<IpAddr>,
    /// Interface, or none for an unreachable destination.
    pub(crate) dev: Option<u32>,
    /// Source address of packets that the host itself sends this way.
    pub(crate) src: Option<IpAddr>,
    /// Routing table.
    pub(crate) table: u32,
    /// Of several routes to one destination, the lowest is taken; 0 is the lowest.
    pub(crate) metric: u32,
}

impl Route {
    /// To a network or address, directly on a link.
    pub(crate) fn link(to: IpNet, dev: u32) -> Self {
        Self {
            to,
            via: None,
            dev: Some(dev),
            src: None,
            table: MAIN,
            metric: 0,
        }
    }

    /// To everything, by a next hop that is taken to be on the link.
    pub(crate) fn default_via(via: IpAddr, dev: u32) -> Self {
        let any = IpNet::new_assert(
            if via.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv6Addr::UNSPECIFIED.into()
            },
            0,
        );
        Self {
            to: any,
            via: Some(via),
            dev: Some(dev),
            src: None,
            table: MAIN,
            metric: 0,
        }
    }

    /// Nowhere: senders are told at once.
    pub(crate) fn unreachable(to: IpNet) -> Self {
        Self {
            to,
            via: None,
            dev: None,
            src: None,
            table: MAIN,
            metric: 0,
        }
    }

    /// Adds the route or puts it in place of another to the same destination.
    pub(crate) fn set(&self) -> Msg {
        const RTNH_F_ONLINK: u32 = 4;
        let mut m = Msg::new(RTM_NEWROUTE, CREATE | REPLACE);
        let mut b = [0u8; 12];
        b[0] = family(self.to.addr());
        b[1] = self.to.prefix_len();
        b[4] = u8::try_from(self.table).unwrap_or(0);
        b[5] = 4; // RTPROT_STATIC
        b[6] = if self.via.is_some() || self.dev.is_none() {
            0
        } else {
            253
        };
        b[7] = if self.dev.is_some() { 1 } else { 7 };
        if self.via.is_some() {
            b[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
        }
        m.raw(&b);
        if self.to.prefix_len() > 0 {
            m.attr(1, &octets(self.to.network()));
        }
        if let Some(via) = self.via {
            m.attr(5, &octets(via));
        }
        if let Some(dev) = self.dev {
            m.u32(4, dev);
        }
        if let Some(src) = self.src {
            m.attr(7, &octets(src));
        }
        if self.metric != 0 {
            m.u32(6, self.metric);
        }
        m.u32(15, self.table);
        m
    }
}

/// Packets from an address are routed by a table of their own.
pub(crate) fn rule_from(from: IpAddr, table: u32, add: bool) -> Msg {
    let mut m = Msg::new(
        if add { RTM_NEWRULE } else { RTM_DELRULE },
        if add { CREATE | EXCL } else { 0 },
    );
    let len = if from.is_ipv4() { 32 } else { 128 };
    let mut b = [0u8; 12];
    b[0] = family(from);
    b[2] = len;
    b[4] = u8::try_from(table).unwrap_or(0);
    b[7] = 1; // FR_ACT_TO_TBL
    m.raw(&b).attr(2, &octets(from)).u32(6, 1000).u32(15, table);
    m.tolerate(if add { Errno::EEXIST } else { Errno::ENOENT })
}

/// A neighbour whose hardware address is known for good.
pub(crate) fn neighbour(index: u32, ip: IpAddr, mac: [u8; 6]) -> Msg {
    let mut m = Msg::new(RTM_NEWNEIGH, CREATE | REPLACE);
    let mut b = [0u8; 12];
    b[0] = family(ip);
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    b[8..10].copy_from_slice(&0x80u16.to_ne_bytes()); // NUD_PERMANENT
    m.raw(&b).attr(1, &octets(ip)).attr(2, &mac);
    m
}

/// A link as the kernel lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Index.
    pub(crate) index: u32,
    /// Name.
    pub(crate) name: String,
    /// Kind (`bridge`, `veth`), empty for hardware.
    pub(crate) kind: String,
    /// Alias, empty if none.
    pub(crate) alias: String,
    /// MTU.
    pub(crate) mtu: u32,
    /// Whether it is up.
    pub(crate) up: bool,
    /// `struct rtnl_link_stats64`, the first eight numbers: packets, bytes, errors and drops, received and sent
    /// in turn.
    pub(crate) stats: [u64; 8],
}

fn parse_link(b: &[u8]) -> Link {
    let mut l = Link {
        index: u32_at(b, 4),
        up: u32_at(b, 8) & IFF_UP != 0,
        ..Link::default()
    };
    for (k, d) in attrs(b.get(16..).unwrap_or_default()) {
        match k {
            IFLA_IFNAME => l.name = text(d),
            IFLA_IFALIAS => l.alias = text(d),
            IFLA_MTU => l.mtu = u32_at(d, 0),
            IFLA_LINKINFO => l.kind = attr(d, IFLA_INFO_KIND).map(text).unwrap_or_default(),
            IFLA_STATS64 => {
                for (slot, v) in l.stats.iter_mut().zip(d.chunks_exact(8)) {
                    *slot = v.try_into().map_or(0, u64::from_ne_bytes);
                }
            }
            _ => {}
        }
    }
    l
}

/// The link of this name, if there is one.
pub(crate) fn link(socket: &Socket, name: &str) -> io::Result<Option<Link>> {
    let mut m = Msg::new(RTM_GETLINK, 0);
    m.raw(&ifinfo(0, false)).str(IFLA_IFNAME, name);
    match socket.ask(m) {
        Ok(b) => Ok(Some(parse_link(&b))),
        Err(e) if e.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes the kernel take a pair into use now. The end that came up first learns by a queued event that the other
/// is up too, and drops what is sent until that event is handled; being asked about the link handles it (since
/// Linux 6.8; before, the queue takes its time).
pub(crate) fn settle(socket: &Socket, name: &str) -> io::Result<()> {
    link(socket, name).map(drop)
}

/// All links of the namespace.
pub(crate) fn links(socket: &Socket) -> io::Result<Vec<Link>> {
    let mut m = Msg::new(RTM_GETLINK, 0);
    m.raw(&ifinfo(0, false));
    let mut all = Vec::new();
    socket.dump(m, |k, b| {
        if k == RTM_NEWLINK {
            all.push(parse_link(b));
        }
    })?;
    Ok(all)
}

fn ip_of(d: &[u8]) -> Option<IpAddr> {
    match d.len() {
        4 => <[u8; 4]>::try_from(d).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(d).ok().map(IpAddr::from),
        _ => None,
    }
}

/// All addresses: index of the link and address with prefix length.
pub(crate) fn addresses(socket: &Socket) -> io::Result<Vec<(u32, IpNet)>> {
    let mut m = Msg::new(RTM_GETADDR, 0);
    m.raw(&[0; 8]);
    let mut all = Vec::new();
    socket.dump(m, |k, b| {
        let body = b.get(8..).unwrap_or_default();
        let ip = attr(body, 2).or_else(|| attr(body, 1)).and_then(ip_of);
        if k == RTM_NEWADDR
            && let Some(net) = ip.and_then(|ip| IpNet::new(ip, b[1]).ok())
        {
            all.push((u32_at(b, 4), net));
        }
    })?;
    Ok(all)
}

/// Unicast routes of the main table, the default routes excluded: destination and link.
pub(crate) fn routes(socket: &Socket) -> io::Result<Vec<(IpNet, u32)>> {
    let mut m = Msg::new(RTM_GETROUTE, 0);
    m.raw(&[0; 12]);
    let mut all = Vec::new();
    socket.dump(m, |k, b| {
        if k != RTM_NEWROUTE || b.len() < 12 {
            return;
        }
        let body = &b[12..];
        let table = attr(body, 15).map_or(u32::from(b[4]), |d| u32_at(d, 0));
        let unicast = b[7] == 1;
        let dev = attr(body, 4).map_or(0, |d| u32_at(d, 0));
        if table == MAIN
            && unicast
            && b[1] > 0
            && let Some(net) = attr(body, 1)
                .and_then(ip_of)
                .and_then(|ip| IpNet::new(ip, b[1]).ok())
        {
            all.push((net, dev));
        }
    })?;
    Ok(all)
}

/// `02:42:ac:11:00:02` as bytes.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for b in &mut mac {
        *b = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
