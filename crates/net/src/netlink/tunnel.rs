//! Routing netlink for tunnels: VXLAN links, their forwarding entries, and what is taken away again.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use nix::errno::Errno;

use super::route::{family, ifinfo, octets};
use super::{CREATE, EXCL, Msg, REPLACE};

const RTM_NEWLINK: u16 = 16;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const AF_BRIDGE: u8 = 7;

/// A VXLAN link.
#[derive(Debug, Clone)]
pub(crate) struct Vxlan<'a> {
    /// Name, at most 15 bytes.
    pub(crate) name: &'a str,
    /// Network identifier.
    pub(crate) vni: u32,
    /// UDP port, of this node and of the others.
    pub(crate) port: u16,
    /// This node's address, if it has one yet.
    pub(crate) local: Option<IpAddr>,
    /// Hardware address.
    pub(crate) mac: [u8; 6],
    /// MTU.
    pub(crate) mtu: u32,
}

/// Makes a VXLAN link that learns nothing. The outer packets travel in the namespace of the socket, also when the link
/// is put into another.
pub(crate) fn new_vxlan(v: &Vxlan<'_>, ns: Option<BorrowedFd<'_>>) -> Msg {
    let mut m = Msg::new(RTM_NEWLINK, CREATE | EXCL);
    m.raw(&ifinfo(0, false))
        .str(IFLA_IFNAME, v.name)
        .attr(IFLA_ADDRESS, &v.mac)
        .u32(IFLA_MTU, v.mtu);
    if let Some(ns) = ns {
        m.u32(IFLA_NET_NS_FD, ns.as_raw_fd() as u32);
    }
    m.nest(IFLA_LINKINFO, |m| {
        m.str(1, "vxlan");
        m.nest(2, |m| {
            m.u32(1, v.vni).u8(7, 0).attr(15, &v.port.to_be_bytes());
            match v.local {
                Some(IpAddr::V4(a)) => drop(m.attr(4, &a.octets())),
                Some(IpAddr::V6(a)) => drop(m.attr(17, &a.octets())),
                None => {}
            }
        });
    });
    m
}

fn forwarding_entry(kind: u16, flags: u16, index: u32, mac: [u8; 6], node: IpAddr) -> Msg {
    let mut m = Msg::new(kind, flags);
    let mut b = [0u8; 12];
    b[0] = AF_BRIDGE;
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    b[8..10].copy_from_slice(&0x80u16.to_ne_bytes()); // NUD_PERMANENT
    b[10] = 2; // NTF_SELF
    m.raw(&b).attr(2, &mac).attr(1, &octets(node));
    m
}

/// Frames to a hardware address are sent to this node.
pub(crate) fn forwarding(index: u32, mac: [u8; 6], node: IpAddr) -> Msg {
    forwarding_entry(RTM_NEWNEIGH, CREATE | REPLACE, index, mac, node)
}

/// The same no more.
pub(crate) fn del_forwarding(index: u32, mac: [u8; 6], node: IpAddr) -> Msg {
    forwarding_entry(RTM_DELNEIGH, 0, index, mac, node).tolerate(Errno::ENOENT)
}

/// Forgets a permanent neighbour.
pub(crate) fn del_neighbour(index: u32, ip: IpAddr) -> Msg {
    let mut m = Msg::new(RTM_DELNEIGH, 0);
    let mut b = [0u8; 12];
    b[0] = family(ip);
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    m.raw(&b).attr(1, &octets(ip));
    m.tolerate(Errno::ENOENT)
}

/// Removes a route of the main table by its destination and link.
pub(crate) fn del_route(to: IpNet, index: u32) -> Msg {
    let mut m = Msg::new(RTM_DELROUTE, 0);
    let mut b = [0u8; 12];
    b[0] = family(to.addr());
    b[1] = to.prefix_len();
    b[4] = 254;
    b[6] = 255; // RT_SCOPE_NOWHERE: any
    m.raw(&b).attr(1, &octets(to.network())).u32(4, index);
    m.tolerate(Errno::ESRCH)
}

/// Packets with a mark are routed by a table of their own.
pub(crate) fn rule_mark(mark: u32, table: u32, add: bool) -> Msg {
    let (kind, flags) = if add {
        (RTM_NEWRULE, CREATE | EXCL)
    } else {
        (RTM_DELRULE, 0)
    };
    let mut m = Msg::new(kind, flags);
    let mut b = [0u8; 12];
    b[0] = 2;
    b[7] = 1; // FR_ACT_TO_TBL
    m.raw(&b).u32(6, 900).u32(10, mark).u32(15, table);
    m.tolerate(if add { Errno::EEXIST } else { Errno::ENOENT })
}
