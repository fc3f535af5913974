//! Frontends as chains and map elements, the same in the host's table and in those of routers.
//!
//! A frontend has a chain for each way in, whose rule translates to one of the backends. A map leads
//! from the address (or address and port, or published port) to the chain. Where nothing serves, the address or
//! port is in a set of refusals instead, so that clients learn it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use tripod_model::network::{Backend, Frontend, FrontendPorts};

use super::table::Model;
use super::{address_port_key, port_key};
use crate::netlink::nft::{Data, Expr, IPV4, Op, PROTO, SERVICE, Set, VERDICT, concat};

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

/// The sets and maps.
pub(crate) fn sets() -> Vec<Set> {
    vec![
        Set {
            name: VIPS,
            key: &[IPV4],
            data: &[VERDICT],
        },
        Set {
            name: SERVICES,
            key: &[IPV4, PROTO, SERVICE],
            data: &[VERDICT],
        },
        Set {
            name: PORTS,
            key: &[PROTO, SERVICE],
            data: &[VERDICT],
        },
        Set {
            name: NO_VIPS,
            key: &[IPV4],
            data: &[],
        },
        Set {
            name: NO_SERVICES,
            key: &[IPV4, PROTO, SERVICE],
            data: &[],
        },
        Set {
            name: NO_PORTS,
            key: &[PROTO, SERVICE],
            data: &[],
        },
        Set {
            name: SELF,
            key: &[IPV4, IPV4],
            data: &[],
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

/// Where new connections go: the backends that are not stopping, or all when all are.
pub(crate) fn eligible(backends: &[Backend]) -> Vec<Ipv4Addr> {
    let v4 = |stopping: bool| -> BTreeSet<Ipv4Addr> {
        backends
            .iter()
            .filter(|b| b.terminating == stopping)
            .filter_map(|b| {
                if let IpAddr::V4(a) = b.address {
                    Some(a)
                } else {
                    None
                }
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

/// Renders the frontends of one namespace.
pub(crate) fn desired(frontends: &[&Frontend]) -> Desired {
    let mut d = Desired::default();
    for f in frontends {
        let backends = eligible(&f.backends);
        for b in &backends {
            d.put(SELF, concat(&[&b.octets(), &b.octets()]), Data::None);
        }
        if let Some(IpAddr::V4(vip)) = f.vip {
            match &f.ports {
                FrontendPorts::All => {
                    d.lead(
                        (VIPS, NO_VIPS),
                        vip.octets().to_vec(),
                        format!("v-{vip}"),
                        f,
                        &backends,
                        None,
                    );
                }
                FrontendPorts::Some(ports) => {
                    for p in ports {
                        let key = address_port_key(vip, p.protocol, p.port);
                        let chain = format!("s-{vip}-{}-{}", p.protocol, p.port);
                        d.lead(
                            (SERVICES, NO_SERVICES),
                            key,
                            chain,
                            f,
                            &backends,
                            Some(p.target_port),
                        );
                    }
                }
            }
        }
        for p in &f.published {
            let key = port_key(p.protocol, p.host_port);
            let chain = format!("p-{}-{}", p.protocol, p.host_port);
            d.lead((PORTS, NO_PORTS), key, chain, f, &backends, Some(p.target_port));
        }
    }
    d
}

impl Desired {
    fn put(&mut self, set: &'static str, key: Vec<u8>, data: Data) {
        self.sets.entry(set).or_default().insert(key, data);
    }

    fn lead(
        &mut self,
        (map, refusals): (&'static str, &'static str),
        key: Vec<u8>,
        chain: String,
        frontend: &Frontend,
        backends: &[Ipv4Addr],
        port: Option<u16>,
    ) {
        if backends.is_empty() {
            self.put(refusals, key, Data::None);
            return;
        }
        let translate = |choose| {
            let mut rule = vec![choose];
            rule.extend(port.map(|p| Expr::Load(1, p.to_be_bytes().to_vec())));
            rule.push(Expr::Dnat(0, port.map(|_| 1)));
            rule
        };
        let all = backends.to_vec();
        let choose = if frontend.affinity_seconds > 0 {
            Expr::BySource(0, all)
        } else {
            Expr::Random(0, all)
        };
        let mut rules = vec![translate(choose)];
        if let [first, _, ..] = backends {
            // A packet that is in the old rule when a transaction replaces it finds the old choices gone already.
            // It must not go on untranslated.
            rules.push(translate(Expr::Load(0, first.octets().to_vec())));
        }
        self.chains.insert(chain.clone(), rules);
        self.put(map, key, Data::Goto(chain));
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
        for (name, rules) in self.chains {
            model.chain(&mut ops, &name, rules);
        }
        for (set, elements) in before.sets {
            let now = self.sets.get(set);
            for key in elements
                .into_keys()
                .filter(|k| now.is_none_or(|s| !s.contains_key(k)))
            {
                let backend = key.first_chunk::<4>().filter(|_| set == SELF);
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
        for c in gone {
            model.drop_chain(&mut ops, &c);
        }
        ops
    }
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
