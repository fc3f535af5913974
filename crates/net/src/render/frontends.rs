//! Frontends as chains and map elements, the same in the host's table and in those of routers.
//!
//! A frontend has a chain for each way in, whose rule translates to one of the backends. A map leads
//! from the address (or address and port, or published port) to the chain. Where nothing serves, the address or
//! port is in a set of refusals instead, so that clients learn it at once. What a policy keeps on this node, and has
//! nobody here, leads to a chain that drops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use tripod_model::network::{Backend, Frontend, FrontendPorts, PortProtocol, ServicePort};

use super::table::Model;
use super::{address_port_key, port_key, target};
use crate::netlink::nft::{Data, Expr, INTEGER, IPV4, Op, PROTO, SERVICE, Set, VERDICT, Verdict, concat};

/// Addresses that answer on every port.
const VIPS: &str = "vips";
/// Ports of addresses.
const SERVICES: &str = "services";
/// Published ports that lead to frontends.
pub(crate) const PORTS: &str = "ports";
/// Addresses behind which nothing serves.
const NO_VIPS: &str = "no_vips";
/// The same for ports of addresses.
const NO_SERVICES: &str = "no_services";
/// The same for published ports.
const NO_PORTS: &str = "no_ports";
/// Backends, each paired with itself.
pub(crate) const SELF: &str = "self";
/// Backends that are in none of the networks here: hosts, and what runs in their network.
pub(crate) const FAR: &str = "far";
/// Which backend a client had last: client, frontend's number to address and port.
const AFFINITY: &str = "affinity";

/// What the rendering depends on beside the frontends.
pub(crate) struct Context<'a> {
    /// This node's name; empty when it is in no cluster.
    pub(crate) node: &'a str,
    /// Whether an address is outside of a frontend's network.
    pub(crate) far: &'a dyn Fn(&Frontend, Ipv4Addr) -> bool,
}

/// The sets and maps.
pub(crate) fn sets() -> Vec<Set> {
    vec![
        Set::map(VIPS, &[IPV4], &[VERDICT]),
        Set::map(SERVICES, &[IPV4, PROTO, SERVICE], &[VERDICT]),
        Set::map(PORTS, &[PROTO, SERVICE], &[VERDICT]),
        Set::of(NO_VIPS, &[IPV4]),
        Set::of(NO_SERVICES, &[IPV4, PROTO, SERVICE]),
        Set::of(NO_PORTS, &[PROTO, SERVICE]),
        Set::of(SELF, &[IPV4, IPV4]),
        Set::of(FAR, &[IPV4]),
        Set {
            dynamic: true,
            ..Set::map(AFFINITY, &[IPV4, INTEGER], &[IPV4, SERVICE])
        },
    ]
}

/// Rules that lead from addresses to frontends.
pub(crate) fn lookups() -> Vec<Vec<Expr>> {
    vec![
        vec![Expr::Daddr(0), Expr::Vmap(VIPS, 0)],
        vec![
            Expr::Daddr(0),
            Expr::L4Proto(1),
            Expr::Dport(2),
            Expr::Vmap(SERVICES, 0),
        ],
    ]
}

/// Rules that refuse published ports behind which nothing serves.
pub(crate) fn port_refusals() -> Vec<Vec<Expr>> {
    let port = [Expr::L4Proto(0), Expr::Dport(1), Expr::InSet(NO_PORTS, 0, true)];
    let tcp = [Expr::L4Proto(4), Expr::Eq(4, vec![6])];
    vec![
        [&tcp[..], &port, &[Expr::RejectTcp]].concat(),
        [&port[..], &[Expr::Reject]].concat(),
    ]
}

/// Rules that refuse what nothing serves. They stand where addresses are translated, which only the first packet
/// of a connection passes.
pub(crate) fn refusals() -> Vec<Vec<Expr>> {
    let vip = [Expr::Daddr(0), Expr::InSet(NO_VIPS, 0, true)];
    let service = [
        Expr::Daddr(0),
        Expr::L4Proto(1),
        Expr::Dport(2),
        Expr::InSet(NO_SERVICES, 0, true),
    ];
    let tcp = [Expr::L4Proto(4), Expr::Eq(4, vec![6])];
    let mut rules = Vec::new();
    for found in [&vip[..], &service[..]] {
        rules.push([&tcp[..], found, &[Expr::RejectTcp]].concat());
        rules.push([found, &[Expr::Reject]].concat());
    }
    rules
}

/// A backend's address and its port, where that is not the frontend's.
type Goal = (Ipv4Addr, Option<u16>);

/// Where new connections go: the backends that are not stopping, or all when all are; `here` names the only node
/// whose count.
pub(crate) fn eligible(backends: &[Backend], here: Option<&str>) -> Vec<Goal> {
    let v4 = |stopping: bool| -> BTreeSet<Goal> {
        backends
            .iter()
            .filter(|b| b.terminating == stopping && here.is_none_or(|h| b.node == h))
            .filter_map(|b| match b.address {
                IpAddr::V4(a) => Some((a, b.port)),
                IpAddr::V6(_) => None,
            })
            .collect()
    };
    let serving = v4(false);
    (if serving.is_empty() { v4(true) } else { serving })
        .into_iter()
        .collect()
}

/// What the frontends of one namespace come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    chains: BTreeMap<String, Vec<Vec<Expr>>>,
    sets: BTreeMap<&'static str, BTreeMap<Vec<u8>, Data>>,
}

/// One way into a frontend.
struct Way<'a> {
    /// The map that leads there, and the set of its refusals.
    maps: (&'static str, &'static str),
    key: Vec<u8>,
    chain: String,
    /// Port of backends that have none of their own; `None` leaves the port as it is.
    port: Option<u16>,
    /// Only backends on this node.
    local: bool,
    /// Clients in the cluster are led as this chain does.
    inside: Option<String>,
    /// Only these clients; empty is all.
    sources: &'a [IpNet],
}

/// Renders the frontends of one namespace.
pub(crate) fn desired(frontends: &[&Frontend], context: &Context<'_>) -> Desired {
    let mut d = Desired::default();
    for f in frontends {
        let all = eligible(&f.backends, None);
        let here = eligible(&f.backends, Some(context.node));
        for (a, _) in all.iter().chain(&here) {
            if (context.far)(f, *a) {
                d.put(FAR, a.octets().to_vec(), Data::None);
            } else {
                d.put(SELF, concat(&[&a.octets(), &a.octets()]), Data::None);
            }
        }
        for way in ways(f) {
            d.lead(way, f, &all, &here);
        }
    }
    d
}

/// The ways into a frontend.
fn ways(f: &Frontend) -> Vec<Way<'_>> {
    let mut out = Vec::new();
    let way = |maps, key, chain, port| Way {
        maps,
        key,
        chain,
        port,
        local: f.internal_local,
        inside: None,
        sources: &[],
    };
    let services = |prefix: char, a: Ipv4Addr, p: &ServicePort| {
        let chain = format!("{prefix}-{a}-{}-{}", p.protocol, p.port);
        let key = address_port_key(a, p.protocol, p.port);
        way((SERVICES, NO_SERVICES), key, chain, Some(p.target_port))
    };
    let mut inside: Option<(PortProtocol, u16, String)> = None;
    match (&f.ports, f.vip) {
        (FrontendPorts::All, Some(IpAddr::V4(vip))) => {
            out.push(way(
                (VIPS, NO_VIPS),
                vip.octets().to_vec(),
                format!("v-{vip}"),
                None,
            ));
        }
        (FrontendPorts::Some(ports), vip) => {
            for p in ports {
                if let Some(IpAddr::V4(vip)) = vip {
                    let w = services('s', vip, p);
                    inside.get_or_insert((p.protocol, p.target_port, w.chain.clone()));
                    out.push(w);
                }
                let chain = inside.as_ref().map(|i| i.2.clone());
                let external = f.external_ips.iter().map(|a| (a, &[][..]));
                let balanced = f.load_balancer_ips.iter().map(|a| (a, &f.source_ranges[..]));
                for (a, sources) in external.chain(balanced) {
                    if let IpAddr::V4(a) = a {
                        out.push(Way {
                            local: f.external_local,
                            inside: chain.clone().filter(|_| f.external_local && !f.internal_local),
                            sources,
                            ..services('e', *a, p)
                        });
                    }
                }
            }
        }
        _ => {}
    }
    for p in &f.published {
        let known = inside
            .as_ref()
            .filter(|i| (i.0, i.1) == (p.protocol, p.target_port));
        out.push(Way {
            local: f.external_local,
            inside: known
                .map(|i| i.2.clone())
                .filter(|_| f.external_local && !f.internal_local),
            ..way(
                (PORTS, NO_PORTS),
                port_key(p.protocol, p.host_port),
                format!("p-{}-{}", p.protocol, p.host_port),
                Some(p.target_port),
            )
        });
    }
    out
}

impl Desired {
    fn put(&mut self, set: &'static str, key: Vec<u8>, data: Data) {
        self.sets.entry(set).or_default().insert(key, data);
    }

    fn lead(&mut self, way: Way<'_>, f: &Frontend, all: &[Goal], here: &[Goal]) {
        let (map, refusals) = way.maps;
        if all.is_empty() {
            self.put(refusals, way.key, Data::None);
            return;
        }
        let goals = if way.local { here } else { all };
        let mut rules = match way.inside {
            Some(chain) if goals != all => from_inside(&chain),
            _ => Vec::new(),
        };
        let chosen = choose(f, goals, way.port);
        if way.sources.is_empty() {
            rules.extend(chosen);
        } else {
            let inner = format!("{}-in", way.chain);
            for net in way.sources {
                if let IpNet::V4(net) = net {
                    let mut rule = Expr::in_block(true, 0, *net);
                    rule.push(Expr::Verdict(Verdict::Goto(inner.clone())));
                    rules.push(rule);
                }
            }
            rules.push(vec![Expr::Verdict(Verdict::Drop)]);
            self.chains.insert(inner, chosen);
        }
        self.chains.insert(way.chain.clone(), rules);
        self.put(map, way.key, Data::Goto(way.chain));
    }

    /// Changes the model from `before` to this; the steps are the difference. `shared` says whether a frontend
    /// outside of both has the backend too.
    pub(crate) fn replace(
        self,
        before: Self,
        shared: impl Fn(Ipv4Addr) -> bool,
        model: &mut Model,
    ) -> Vec<Op> {
        let mut ops = Vec::new();
        let gone: Vec<String> = before
            .chains
            .into_keys()
            .filter(|c| !self.chains.contains_key(c))
            .collect();
        for name in self.chains.keys() {
            model.declare(&mut ops, name);
        }
        for (name, rules) in self.chains {
            model.chain(&mut ops, &name, rules);
        }
        for (set, elements) in before.sets {
            let now = self.sets.get(set);
            for key in elements
                .into_keys()
                .filter(|k| now.is_none_or(|s| !s.contains_key(k)))
            {
                let backend = key.first_chunk::<4>().filter(|_| set == SELF || set == FAR);
                if !backend.is_some_and(|b| shared(Ipv4Addr::from(*b))) {
                    model.take(&mut ops, set, &key);
                }
            }
        }
        for (set, elements) in self.sets {
            for (key, data) in elements {
                model.put(&mut ops, set, key, data);
            }
        }
        model.drop_chains(&mut ops, &gone);
        ops
    }
}

/// Rules that lead pods and processes of this node to another chain.
fn from_inside(chain: &str) -> Vec<Vec<Expr>> {
    const LOCAL: u32 = 2;
    let goto = || Expr::Verdict(Verdict::Goto(chain.to_owned()));
    let pod = [
        Expr::iif_is(super::names::POD_PORTS),
        Expr::iif_is_not(super::names::POD_TUNNEL),
    ];
    vec![
        [pod.concat(), vec![goto()]].concat(),
        vec![
            Expr::FibSaddrType(0),
            Expr::Eq(0, LOCAL.to_ne_bytes().to_vec()),
            goto(),
        ],
    ]
}

/// Rules that translate to one of the goals.
fn choose(f: &Frontend, goals: &[Goal], port: Option<u16>) -> Vec<Vec<Expr>> {
    if goals.is_empty() {
        return vec![vec![Expr::Verdict(Verdict::Drop)]];
    }
    let values: Vec<Vec<u8>> = goals
        .iter()
        .map(|(a, own)| match own.or(port) {
            Some(p) => target(*a, p),
            None => a.octets().to_vec(),
        })
        .collect();
    let with_port = values[0].len() > 4;
    let first = values[0].clone();
    let several = values.len() > 1;
    let dnat = |at: u32| Expr::Dnat(at, with_port.then_some(at + 1));
    let mut rules = match f.affinity_seconds {
        0 => vec![vec![Expr::Random(0, values), dnat(0)]],
        // Without a port there is no room for it in the memory; the client's address decides.
        _ if !with_port => vec![vec![Expr::BySource(0, values), dnat(0)]],
        seconds => {
            let key = [Expr::Saddr(0), Expr::Load(1, number(f).to_be_bytes().to_vec())];
            let keep = || [Expr::Remember(AFFINITY, 0, 4, u64::from(seconds) * 1000), dnat(4)];
            vec![
                [
                    &key[..],
                    &[Expr::Map(AFFINITY, 0, 4), Expr::OneOf(4, values.clone())],
                    &keep(),
                ]
                .concat(),
                [
                    &key[..],
                    &[Expr::Random(4, values), Expr::Forget(AFFINITY, 0, 4)],
                    &keep(),
                ]
                .concat(),
            ]
        }
    };
    if several {
        // A packet that is in the old rule when a transaction replaces it finds the old choices gone already.
        // It must not go on untranslated.
        rules.push(vec![Expr::Load(0, first), dnat(0)]);
    }
    rules
}

/// A frontend's number among those that clients are remembered for (FNV-1a). Two of the same number would only forget
/// clients of each other.
fn number(f: &Frontend) -> u32 {
    let bytes = f.network_id.bytes().chain([0]).chain(f.id.bytes());
    bytes.fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
