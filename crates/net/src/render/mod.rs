//! Pure renderers: what the kernel is to be told, as data.
//!
//! * [`table`] is a model of an nftables table; changes to it are the steps of a transaction.
//! * [`host`] and [`router`] say what is fixed in the tables of the host and of a router namespace.
//! * [`frontends`] turns frontends into chains and map elements.
//! * [`links`] says how a sandbox's interfaces, addresses and routes are set up.
//! * [`policies`] turns policies of pods into chains.
//! * [`tunnel`] says how other nodes' parts of a network are reached.
//! * [`names`] derives interface names and hardware addresses.

pub(crate) mod frontends;
pub(crate) mod host;
pub(crate) mod links;
pub(crate) mod names;
pub(crate) mod policies;
pub(crate) mod router;
pub(crate) mod table;
pub(crate) mod tunnel;

use std::net::Ipv4Addr;

use tripod_model::network::PortProtocol;

use crate::netlink::nft::concat;

/// Number of a transport protocol (IANA).
pub(crate) fn protocol_number(p: PortProtocol) -> u8 {
    match p {
        PortProtocol::Tcp => 6,
        PortProtocol::Udp => 17,
        PortProtocol::Sctp => 132,
    }
}

/// Key of the maps of published ports: protocol and port.
pub(crate) fn port_key(p: PortProtocol, port: u16) -> Vec<u8> {
    concat(&[&[protocol_number(p)], &port.to_be_bytes()])
}

/// Key of the maps of an address's ports: address, protocol and port.
pub(crate) fn address_port_key(a: Ipv4Addr, p: PortProtocol, port: u16) -> Vec<u8> {
    concat(&[&a.octets(), &[protocol_number(p)], &port.to_be_bytes()])
}

/// Data of the maps that translate: address and port.
pub(crate) fn target(a: Ipv4Addr, port: u16) -> Vec<u8> {
    concat(&[&a.octets(), &port.to_be_bytes()])
}
