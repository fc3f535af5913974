//! Interfaces, addresses, routes and neighbours of sandboxes and routers.
//!
//! Endpoints on other nodes will be told to the router in the same way as local ones ([`router_endpoint`]): a
//! permanent neighbour and a route, with the tunnel's link in the place of the sandbox's.

use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::network::Endpoint;

use super::names::{ROUTER_MAC, mac_for};
use crate::netlink::Msg;
use crate::netlink::route::{NO_PREFIX_ROUTE, Route, add_address, link_up, neighbour, parse_mac, rule_from};

/// How the network that an endpoint is in looks from the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// A port of a bridge: neighbours are asked for by ARP.
    Bridge,
    /// A link to the router, which is the next hop to everybody in these subnets.
    Routed {
        /// The router's address.
        gateway: IpAddr,
        /// All subnets of the network.
        subnets: Vec<IpNet>,
    },
}

/// Hardware address of an endpoint: the one asked for, or one derived from its address.
pub(crate) fn endpoint_mac(e: &Endpoint) -> Option<[u8; 6]> {
    parse_mac(&e.mac).or_else(|| e.ipv4.or(e.ipv6).map(|n| mac_for(n.addr())))
}

/// Routing table of an interface for connections that came in by it.
pub(crate) fn table_of(index: u32) -> u32 {
    100 + index % 100
}

fn host_route(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

/// What is told to the sandbox's namespace about one endpoint, whose interface has this index.
pub(crate) fn sandbox(e: &Endpoint, how: &Attachment, index: u32) -> Vec<Msg> {
    let mut out = Vec::with_capacity(8);
    // Addresses first: bringing the interface up announces them.
    for net in [e.ipv4, e.ipv6].into_iter().flatten() {
        let flags = if matches!(how, Attachment::Routed { .. }) {
            NO_PREFIX_ROUTE
        } else {
            0
        };
        out.push(add_address(index, net, flags));
    }
    out.push(link_up(index));
    if let Attachment::Routed { gateway, subnets } = how {
        let src = e.ipv4.map(|n| n.addr());
        out.push(neighbour(index, *gateway, ROUTER_MAC));
        out.push(
            Route {
                src,
                ..Route::link(host_route(*gateway), index)
            }
            .set(),
        );
        for s in subnets {
            out.push(
                Route {
                    via: Some(*gateway),
                    src,
                    ..Route::link(*s, index)
                }
                .set(),
            );
        }
    }
    if e.default_route {
        out.extend(default_routes(e, how).map(|via| Route::default_via(via, index).set()));
    }
    out
}

fn default_routes(e: &Endpoint, how: &Attachment) -> impl Iterator<Item = IpAddr> {
    let v4 = match how {
        Attachment::Routed { gateway, .. } => Some(*gateway),
        Attachment::Bridge => e.gateway,
    };
    [v4, e.gateway6].into_iter().flatten()
}

/// Answers leave by the interface on which the question came: a table of its own for packets from the endpoint's
/// address. Needed as soon as a sandbox has more than one endpoint.
pub(crate) fn source_routing(
    e: &Endpoint,
    how: &Attachment,
    gateway: Option<IpAddr>,
    index: u32,
) -> Vec<Msg> {
    let table = table_of(index);
    let mut out = Vec::new();
    let Some(net) = e.ipv4 else { return out };
    match how {
        Attachment::Routed { gateway, .. } => {
            out.push(
                Route {
                    table,
                    ..Route::link(host_route(*gateway), index)
                }
                .set(),
            );
            out.push(
                Route {
                    table,
                    ..Route::default_via(*gateway, index)
                }
                .set(),
            );
        }
        Attachment::Bridge => {
            out.push(
                Route {
                    table,
                    ..Route::link(net.trunc(), index)
                }
                .set(),
            );
            if let Some(via) = e.gateway.or(gateway).filter(IpAddr::is_ipv4) {
                out.push(
                    Route {
                        table,
                        ..Route::default_via(via, index)
                    }
                    .set(),
                );
            }
        }
    }
    out.push(rule_from(net.addr(), table, true));
    out
}

/// What is told to the router's namespace about an endpoint behind the link of this index.
pub(crate) fn router_endpoint(e: &Endpoint, index: u32) -> Vec<Msg> {
    let mut out = Vec::new();
    if let (Some(net), Some(mac)) = (e.ipv4, endpoint_mac(e)) {
        out.push(neighbour(index, net.addr(), mac));
        out.push(Route::link(host_route(net.addr()), index).set());
    }
    out
}
