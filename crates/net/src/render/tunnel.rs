//! How other nodes' parts of a network are reached through its tunnel: per node a forwarding entry and a neighbour,
//! per address (or block) a route. The next hop of a route is the node's own address, taken to be on the tunnel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::network::fabric::tunnel_mac;

use crate::netlink::Msg;
use crate::netlink::route::{Route, neighbour};
use crate::netlink::tunnel::{del_forwarding, del_neighbour, del_route, forwarding, rule_mark};

/// What leads through a tunnel: nodes, and the addresses that they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Addresses of nodes.
    pub(crate) nodes: std::collections::BTreeSet<IpAddr>,
    /// Which node has what; `None` for a route found in the kernel, whose node is not known.
    pub(crate) routes: BTreeMap<IpNet, Option<IpAddr>>,
}

/// The mark of connections that a node led here, and the number of the routing table that leads back to it: the last
/// four bytes of its hardware address, as they lie in memory.
pub(crate) fn mark(node: IpAddr) -> u32 {
    let mac = tunnel_mac(node);
    u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]])
}

/// Changes what leads through the tunnel of this index from `before` to `now`. With `returns`, answers to connections
/// that other nodes led here are led back to them.
pub(crate) fn difference(before: &Paths, now: &Paths, index: u32, returns: bool) -> Vec<Msg> {
    let mut out = Vec::new();
    for node in now.nodes.difference(&before.nodes) {
        let mac = tunnel_mac(*node);
        out.push(forwarding(index, mac, *node));
        out.push(neighbour(index, *node, mac));
        if returns {
            let table = mark(*node);
            out.push(
                Route {
                    table,
                    // One for each tunnel of the namespace, whichever comes first.
                    metric: index,
                    ..Route::default_via(*node, index)
                }
                .set(),
            );
            out.push(rule_mark(mark(*node), table, true));
        }
    }
    for (to, via) in &now.routes {
        if before.routes.get(to) != Some(via) {
            out.push(
                Route {
                    via: *via,
                    ..Route::link(*to, index)
                }
                .set(),
            );
        }
    }
    for to in before.routes.keys().filter(|to| !now.routes.contains_key(*to)) {
        out.push(del_route(*to, index));
    }
    for node in before.nodes.difference(&now.nodes) {
        out.push(del_neighbour(index, *node));
        out.push(del_forwarding(index, tunnel_mac(*node), *node));
        if returns {
            out.push(rule_mark(mark(*node), mark(*node), false));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(nodes: &[&str], routes: &[(&str, &str)]) -> Paths {
        Paths {
            nodes: nodes.iter().map(|n| n.parse().unwrap()).collect(),
            routes: routes
                .iter()
                .map(|(to, via)| (to.parse().unwrap(), Some(via.parse().unwrap())))
                .collect(),
        }
    }

    #[test]
    fn only_differences_are_told() {
        let one = paths(&["192.0.2.3"], &[("10.0.1.5/32", "192.0.2.3")]);
        assert_eq!(difference(&Paths::default(), &one, 7, false).len(), 3);
        assert_eq!(difference(&Paths::default(), &one, 7, true).len(), 5);
        assert!(difference(&one, &one, 7, true).is_empty());
        // The address moved to another node.
        let two = paths(&["192.0.2.3", "192.0.2.4"], &[("10.0.1.5/32", "192.0.2.4")]);
        assert_eq!(difference(&one, &two, 7, false).len(), 3);
        assert_eq!(difference(&two, &Paths::default(), 7, false).len(), 5);
    }
}
