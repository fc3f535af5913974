//! The fixed part of the host's table.
//!
//! Everything that changes is an element of a set or map; the rules that a packet passes are the same few
//! however many networks, ports and services there are.

use super::names::POD_PORTS;
use super::{frontends, policies};
use crate::netlink::nft::{ChainType, Expr, Hook, HostOrder, IFNAME, IPV4, Op, PROTO, SERVICE, Set, Verdict};

/// Name of Tripod's table in every namespace.
pub(crate) const TABLE: &str = "tripod";
/// Published ports of every local address: protocol and port to address and port.
pub(crate) const PUBLISHED: &str = "published";
/// Published ports of one address of the host.
pub(crate) const PUBLISHED_AT: &str = "published_at";
/// Interfaces of Tripod's networks: bridges, and the uplinks of routers.
pub(crate) const MANAGED: &str = "managed";
/// Each of them paired with itself.
pub(crate) const SAME: &str = "same";
/// Those that have no way to the outside.
pub(crate) const INTERNAL: &str = "internal";
/// Those whose packets leave under the host's address.
pub(crate) const MASQUERADED: &str = "masqueraded";
/// Bridges of routing meshes.
pub(crate) const MESH: &str = "mesh";

/// A bridge and its tunnel, both ways.
pub(crate) const JOINED: &str = "joined";
/// Addresses of the other nodes.
pub(crate) const NODES: &str = "nodes";
/// Tunnels to other nodes.
pub(crate) const TUNNELS: &str = "tunnels";
/// Endpoints with published ports, each paired with itself.
pub(crate) const PUBLISHED_SELF: &str = "published_self";

/// `ESTABLISHED` and `RELATED`.
pub(crate) const ONGOING: HostOrder = HostOrder(2 | 4);
/// The destination was translated.
pub(crate) const IS_DNAT: HostOrder = HostOrder(1 << 5);
/// A local address, as the routing tables see it (`RTN_LOCAL`).
const LOCAL: u32 = 2;

/// A chain's name, its type, hook and priority, and its rules.
pub(crate) type Chain = (&'static str, Option<(ChainType, Hook, i32)>, Vec<Vec<Expr>>);

/// The steps that make the fixed part, in a table that may have it already.
pub(crate) fn skeleton() -> Vec<Op> {
    let mut sets = frontends::sets();
    sets.extend(policies::sets());
    sets.extend([
        Set::map(PUBLISHED, &[PROTO, SERVICE], &[IPV4, SERVICE]),
        Set::map(PUBLISHED_AT, &[IPV4, PROTO, SERVICE], &[IPV4, SERVICE]),
        Set::of(PUBLISHED_SELF, &[IPV4, IPV4]),
        Set::of(MANAGED, &[IFNAME]),
        Set::of(SAME, &[IFNAME, IFNAME]),
        Set::of(JOINED, &[IFNAME, IFNAME]),
        Set::of(INTERNAL, &[IFNAME]),
        Set::of(MASQUERADED, &[IFNAME]),
        Set::of(MESH, &[IFNAME]),
        Set::of(TUNNELS, &[IFNAME]),
        Set::of(NODES, &[IPV4]),
    ]);
    steps(sets, chains())
}

/// Sets, then chains, then their rules in place of those they have.
pub(crate) fn steps(sets: Vec<Set>, chains: Vec<Chain>) -> Vec<Op> {
    let mut ops: Vec<Op> = sets.into_iter().map(Op::Set).collect();
    for (name, base, _) in &chains {
        ops.push(match base {
            Some((kind, hook, priority)) => Op::BaseChain {
                name,
                kind: *kind,
                hook: *hook,
                priority: *priority,
            },
            None => Op::Chain((*name).to_owned()),
        });
    }
    for (name, _, rules) in chains {
        ops.push(Op::Flush(name.to_owned()));
        ops.extend(rules.into_iter().map(|r| Op::Rule(name.to_owned(), r)));
    }
    ops
}

fn chains() -> Vec<Chain> {
    let mut to_local: Vec<Expr> = vec![Expr::FibDaddrType(0), Expr::Eq(0, LOCAL.to_ne_bytes().to_vec())];
    to_local.push(Expr::Verdict(Verdict::Jump("to_published".into())));
    let mut entry = frontends::lookups();
    entry.push(to_local);
    entry.extend(frontends::refusals());
    let mut to_published = published(true);
    to_published.extend(frontends::port_refusals());
    vec![
        ("to_published", None, to_published),
        (
            "guard",
            Some((ChainType::Filter, Hook::Prerouting, -300)),
            vec![guard()],
        ),
        (
            "returns",
            Some((ChainType::Filter, Hook::Prerouting, -150)),
            returns(vec![Expr::IifName(4), Expr::InSet(TUNNELS, 4, true)]),
        ),
        (
            "unmark",
            Some((ChainType::Filter, Hook::Postrouting, -150)),
            vec![unmark(vec![Expr::OifName(4), Expr::InSet(TUNNELS, 4, true)])],
        ),
        (
            "prerouting",
            Some((ChainType::Nat, Hook::Prerouting, -100)),
            entry.clone(),
        ),
        ("output", Some((ChainType::Nat, Hook::Output, -100)), entry),
        ("forward", Some((ChainType::Filter, Hook::Forward, -1)), forward()),
        (
            "input",
            Some((ChainType::Filter, Hook::Input, -1)),
            policies::to_host(),
        ),
        (
            "postrouting",
            Some((ChainType::Nat, Hook::Postrouting, 100)),
            postrouting(),
        ),
    ]
}

/// Look-ups of published ports; with `at`, those of single addresses first.
pub(crate) fn published(at: bool) -> Vec<Vec<Expr>> {
    let mut rules = Vec::new();
    if at {
        rules.push(vec![
            Expr::Daddr(0),
            Expr::L4Proto(1),
            Expr::Dport(2),
            Expr::Map(PUBLISHED_AT, 0, 0),
            Expr::Dnat(0, Some(1)),
        ]);
    }
    rules.push(vec![
        Expr::L4Proto(0),
        Expr::Dport(1),
        Expr::Map(PUBLISHED, 0, 0),
        Expr::Dnat(0, Some(1)),
    ]);
    rules.push(vec![
        Expr::L4Proto(0),
        Expr::Dport(1),
        Expr::Vmap(frontends::PORTS, 0),
    ]);
    rules
}

/// `route_localnet` lets connections to 127.0.0.1 be led to containers; nobody else may send to such addresses.
fn guard() -> Vec<Expr> {
    vec![
        // Cheapest first: all packets come by.
        Expr::Daddr(0),
        Expr::Mask(0, [255, 0, 0, 0]),
        Expr::Eq(0, vec![127, 0, 0, 0]),
        Expr::IifName(4),
        Expr::Ne(4, crate::netlink::nft::ifname("lo").to_vec()),
        Expr::Verdict(Verdict::Drop),
    ]
}

/// A connection that another node led here keeps its client's address, so its answers would find their own way to the
/// client, past the node that translated. They are sent back to that node instead: the connection's mark is the node's
/// address, which the sender's hardware address tells; a routing rule for the mark leads there.
pub(crate) fn returns(from_tunnel: Vec<Expr>) -> Vec<Vec<Expr>> {
    let new = Expr::any_bit(Expr::CtState(0), 0, HostOrder(8));
    vec![
        [
            from_tunnel,
            new.to_vec(),
            vec![Expr::EtherSaddrTail(0), Expr::SetCtMark(0)],
        ]
        .concat(),
        vec![
            Expr::CtMark(0),
            Expr::Ne(0, vec![0; 4]),
            Expr::CtDirection(1),
            Expr::Eq(1, vec![1]),
            Expr::SetMark(0),
        ],
    ]
}

/// The tunnel's outer packet inherits the mark, and would be led into the tunnel again.
pub(crate) fn unmark(to_tunnel: Vec<Expr>) -> Vec<Expr> {
    [to_tunnel, vec![Expr::Load(0, vec![0; 4]), Expr::SetMark(0)]].concat()
}

fn with(mut head: Vec<Expr>, v: Verdict) -> Vec<Expr> {
    head.push(Expr::Verdict(v));
    head
}

fn forward() -> Vec<Vec<Expr>> {
    let pair = |set| vec![Expr::IifName(0), Expr::OifName(4), Expr::InSet(set, 0, true)];
    let ongoing = Expr::any_bit(Expr::CtState(0), 0, ONGOING).to_vec();
    let mut rules = vec![with(ongoing, Verdict::Accept)];
    rules.extend(policies::between());
    rules.extend(vec![
        with(
            [Expr::iif_is(POD_PORTS), Expr::oif_is(POD_PORTS)].concat(),
            Verdict::Accept,
        ),
        with(pair(SAME), Verdict::Accept),
        with(pair(JOINED), Verdict::Accept),
        with(
            vec![Expr::IifName(0), Expr::InSet(INTERNAL, 0, true)],
            Verdict::Drop,
        ),
        with(
            vec![Expr::OifName(0), Expr::InSet(INTERNAL, 0, true)],
            Verdict::Drop,
        ),
        with(
            Expr::any_bit(Expr::CtStatus(0), 0, IS_DNAT).to_vec(),
            Verdict::Accept,
        ),
        // From another network or from outside, and not by a published port.
        with(
            vec![Expr::OifName(0), Expr::InSet(MANAGED, 0, true)],
            Verdict::Drop,
        ),
        with(Expr::oif_is(POD_PORTS).to_vec(), Verdict::Drop),
    ]);
    rules
}

fn to_itself(set: &'static str) -> Vec<Expr> {
    vec![
        Expr::Saddr(0),
        Expr::Daddr(1),
        Expr::InSet(set, 0, true),
        Expr::Masquerade,
    ]
}

fn postrouting() -> Vec<Vec<Expr>> {
    let mut hairpin = Expr::any_bit(Expr::CtStatus(0), 0, IS_DNAT).to_vec();
    hairpin.extend([
        Expr::IifName(0),
        Expr::OifName(4),
        Expr::InSet(SAME, 0, true),
        Expr::Masquerade,
    ]);
    let loopback = || {
        vec![
            Expr::Saddr(4),
            Expr::Mask(4, [255, 0, 0, 0]),
            Expr::Eq(4, vec![127, 0, 0, 0]),
            Expr::Masquerade,
        ]
    };
    let dnat = || Expr::any_bit(Expr::CtStatus(0), 0, IS_DNAT).to_vec();
    vec![
        // A process of the host that connected to 127.0.0.1.
        [vec![Expr::OifName(0), Expr::InSet(MANAGED, 0, true)], loopback()].concat(),
        [Expr::oif_is(POD_PORTS).to_vec(), loopback()].concat(),
        // A UDP server answers from whatever address its route prefers; only a neighbour in the network gets the
        // answer from the address that was asked.
        vec![
            Expr::OifName(0),
            Expr::InSet(MESH, 0, true),
            Expr::L4Proto(4),
            Expr::Eq(4, vec![17]),
            Expr::Masquerade,
        ],
        // Back into the network it came from: the answer must take the same way.
        hairpin,
        // The same where a bridge passes its frames through these tables, and names no input interface.
        to_itself(PUBLISHED_SELF),
        to_itself(frontends::SELF),
        // Led on to a host, which would answer past this one.
        [
            dnat(),
            vec![Expr::Daddr(0), Expr::InSet(frontends::FAR, 0, true)],
            Expr::oif_is_not("lo").to_vec(),
            vec![Expr::Masquerade],
        ]
        .concat(),
        // Another node, led on to a pod that may be its own: it would not take a packet from itself.
        vec![
            Expr::OifName(0),
            Expr::InSet(TUNNELS, 0, true),
            Expr::Saddr(4),
            Expr::InSet(NODES, 4, true),
            Expr::Masquerade,
        ],
        // Out of the pods' network.
        [
            Expr::iif_is(POD_PORTS).to_vec(),
            Expr::oif_is_not(POD_PORTS).to_vec(),
            vec![Expr::OifName(4), Expr::InSet(MANAGED, 4, false), Expr::Masquerade],
        ]
        .concat(),
        vec![
            Expr::IifName(0),
            Expr::InSet(MASQUERADED, 0, true),
            Expr::OifName(4),
            Expr::InSet(MANAGED, 4, false),
            Expr::Masquerade,
        ],
    ]
}
