//! The fixed part of a router namespace's table.

use std::net::Ipv4Addr;

use super::frontends;
use super::host::{Chain, IS_DNAT, ONGOING, PUBLISHED, published, returns, steps, unmark};
use super::names::{ROUTER_TUNNEL, UPLINK};
use crate::netlink::nft::{ChainType, Expr, Hook, IPV4, Op, PROTO, SERVICE, Set, Verdict};

/// The steps that make the fixed part. `gateway` is the router's own address in the network, under which it
/// sends what must come back to it.
pub(crate) fn skeleton(gateway: Ipv4Addr, ingress: bool) -> Vec<Op> {
    let mut sets = frontends::sets();
    sets.push(Set::map(PUBLISHED, &[PROTO, SERVICE], &[IPV4, SERVICE]));
    let from_uplink = |rest: Vec<Expr>| [Expr::iif_is(UPLINK).to_vec(), rest].concat();
    let mut entry = frontends::lookups();
    entry.extend(published(false).into_iter().map(&from_uplink));
    entry.extend(frontends::refusals());
    entry.extend(frontends::port_refusals().into_iter().map(from_uplink));
    let mut chains: Vec<Chain> = vec![
        (
            "prerouting",
            Some((ChainType::Nat, Hook::Prerouting, -100)),
            entry,
        ),
        ("forward", Some((ChainType::Filter, Hook::Forward, 0)), forward()),
        (
            "postrouting",
            Some((ChainType::Nat, Hook::Postrouting, 100)),
            postrouting(gateway, ingress),
        ),
    ];
    if ingress {
        chains.push((
            "returns",
            Some((ChainType::Filter, Hook::Prerouting, -150)),
            returns(Expr::iif_is(ROUTER_TUNNEL).to_vec()),
        ));
        chains.push((
            "unmark",
            Some((ChainType::Filter, Hook::Postrouting, -150)),
            vec![unmark(Expr::oif_is(ROUTER_TUNNEL).to_vec())],
        ));
    }
    steps(sets, chains)
}

/// In by the uplink come only answers and what was led here by a published port.
fn forward() -> Vec<Vec<Expr>> {
    let accept = |bits: [Expr; 3]| [bits.to_vec(), vec![Expr::Verdict(Verdict::Accept)]].concat();
    vec![
        accept(Expr::any_bit(Expr::CtState(0), 0, ONGOING)),
        accept(Expr::any_bit(Expr::CtStatus(0), 0, IS_DNAT)),
        [Expr::iif_is(UPLINK).to_vec(), vec![Expr::Verdict(Verdict::Drop)]].concat(),
    ]
}

fn postrouting(gateway: Ipv4Addr, ingress: bool) -> Vec<Vec<Expr>> {
    let as_gateway = || vec![Expr::Load(0, gateway.octets().to_vec()), Expr::Snat(0)];
    let mut rules = vec![
        // A sandbox that reached itself by a frontend.
        [
            vec![
                Expr::Saddr(0),
                Expr::Daddr(1),
                Expr::InSet(frontends::SELF, 0, true),
            ],
            as_gateway(),
        ]
        .concat(),
        [Expr::oif_is(UPLINK).to_vec(), vec![Expr::Masquerade]].concat(),
    ];
    if ingress {
        // A UDP server answers from whatever address its route prefers; only a neighbour in the network gets
        // the answer from the address that was asked.
        let udp = || vec![Expr::L4Proto(0), Expr::Eq(0, vec![17])];
        // What goes on to another node keeps its source, and is treated so there.
        let here = || Expr::oif_is_not(ROUTER_TUNNEL).to_vec();
        rules.push([Expr::iif_is(UPLINK).to_vec(), here(), udp(), as_gateway()].concat());
        let led = vec![Expr::CtMark(0), Expr::Ne(0, vec![0; 4])];
        rules.push([led, here(), udp(), as_gateway()].concat());
    }
    rules
}
