//! Policies of pods as chains: a map leads from a pod's address to its chain, which returns what is allowed and drops
//! the rest. What is being answered never comes here.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use tripod_model::network::policy::{Allow, Others, Policies, PortRange, Transport};

use super::host::ONGOING;
use super::names::{POD_PORTS, POD_TUNNEL};
use super::protocol_number;
use super::table::Model;
use crate::netlink::nft::{Data, Expr, INTEGER, IPV4, Op, Set, VERDICT, Verdict, concat};

/// From a pod's address to the chain that judges what it sends.
const EGRESS: &str = "egress";
/// From a pod's address to the chain that judges what it is sent.
const INGRESS: &str = "ingress";
/// Members of sets of addresses: the set's number and the address.
const MEMBERS: &str = "members";

/// The sets and maps.
pub(crate) fn sets() -> Vec<Set> {
    vec![
        Set::map(EGRESS, &[IPV4], &[VERDICT]),
        Set::map(INGRESS, &[IPV4], &[VERDICT]),
        Set::of(MEMBERS, &[INTEGER, IPV4]),
    ]
}

/// Rules for new connections that are forwarded.
pub(crate) fn between() -> Vec<Vec<Expr>> {
    let from = || Expr::iif_is(POD_PORTS).to_vec();
    vec![
        // A pod under another's address would be judged as that.
        [
            from(),
            Expr::iif_is_not(POD_TUNNEL).to_vec(),
            vec![
                Expr::FibSaddrIif(0),
                Expr::Eq(0, vec![0; 4]),
                Expr::Verdict(Verdict::Drop),
            ],
        ]
        .concat(),
        [from(), vec![Expr::Saddr(0), Expr::Vmap(EGRESS, 0)]].concat(),
        [
            Expr::oif_is(POD_PORTS).to_vec(),
            vec![Expr::Daddr(0), Expr::Vmap(INGRESS, 0)],
        ]
        .concat(),
    ]
}

/// Rules for new connections from pods to this node. The node's name server is open to all.
pub(crate) fn to_host() -> Vec<Vec<Expr>> {
    let from = || Expr::iif_is(POD_PORTS).to_vec();
    let accept = || vec![Expr::Verdict(Verdict::Accept)];
    let mut rules = vec![[Expr::any_bit(Expr::CtState(0), 0, ONGOING).to_vec(), accept()].concat()];
    for protocol in [17u8, 6] {
        let dns = vec![
            Expr::L4Proto(0),
            Expr::Eq(0, vec![protocol]),
            Expr::Dport(0),
            Expr::Eq(0, vec![0, 53]),
        ];
        rules.push([from(), dns, accept()].concat());
    }
    rules.push([from(), vec![Expr::Saddr(0), Expr::Vmap(EGRESS, 0)]].concat());
    rules
}

/// What was told to the kernel last, and the numbers of sets.
#[derive(Debug, Default)]
pub(crate) struct Told {
    chains: BTreeMap<String, Vec<Vec<Expr>>>,
    elements: BTreeMap<(&'static str, Vec<u8>), Data>,
    numbers: HashMap<String, u32>,
    next: u32,
}

impl Told {
    /// Changes the model to these policies; the steps are the difference.
    pub(crate) fn change(&mut self, policies: &Policies, model: &mut Model) -> Vec<Op> {
        let mut chains = BTreeMap::new();
        let mut elements = BTreeMap::new();
        self.numbers.retain(|name, _| policies.sets.contains_key(name));
        for (name, members) in &policies.sets {
            let number = self.number(name);
            for a in members {
                if let IpAddr::V4(a) = a {
                    elements.insert(
                        (MEMBERS, concat(&[&number.to_be_bytes(), &a.octets()])),
                        Data::None,
                    );
                }
            }
        }
        for (address, policy) in &policies.pods {
            let IpAddr::V4(address) = address else { continue };
            for (set, source, allowed) in [(INGRESS, true, &policy.ingress), (EGRESS, false, &policy.egress)]
            {
                if let Some(allowed) = allowed {
                    let chain = format!("{set}-{address}");
                    chains.insert(chain.clone(), self.judge(*address, source, allowed));
                    elements.insert((set, address.octets().to_vec()), Data::Jump(chain));
                }
            }
        }
        let mut ops = Vec::new();
        for name in chains.keys() {
            model.declare(&mut ops, name);
        }
        for (name, rules) in &chains {
            model.chain(&mut ops, name, rules.clone());
        }
        for (set, key) in self.elements.keys().filter(|k| !elements.contains_key(*k)) {
            model.take(&mut ops, set, key);
        }
        for ((set, key), data) in &elements {
            model.put(&mut ops, set, key.clone(), data.clone());
        }
        let gone: Vec<String> = self
            .chains
            .keys()
            .filter(|c| !chains.contains_key(*c))
            .cloned()
            .collect();
        model.drop_chains(&mut ops, &gone);
        (self.chains, self.elements) = (chains, elements);
        ops
    }

    fn number(&mut self, set: &str) -> u32 {
        if let Some(n) = self.numbers.get(set) {
            return *n;
        }
        self.next += 1;
        self.numbers.insert(set.to_owned(), self.next);
        self.next
    }

    /// The rules of one direction of a pod; `source` says that the other side is the source.
    fn judge(&self, own: Ipv4Addr, source: bool, allowed: &[Allow]) -> Vec<Vec<Expr>> {
        let back = Expr::Verdict(Verdict::Return);
        // Its own, by a virtual address.
        let mut itself = Expr::in_block(source, 0, Ipv4Net::from(own));
        itself.push(back.clone());
        let mut rules = vec![itself];
        for a in allowed {
            let sides = match &a.others {
                None => vec![Vec::new()],
                Some(others) => others
                    .iter()
                    .filter_map(|o| self.side(source, o))
                    .flatten()
                    .collect(),
            };
            let mut ports: Vec<Vec<Expr>> = match &a.ports {
                None if a.transports.is_empty() => vec![Vec::new()],
                None => Vec::new(),
                Some(ports) => ports.iter().map(port_range).collect(),
            };
            ports.extend(a.transports.iter().map(transport));
            for side in &sides {
                for port in &ports {
                    rules.push([&side[..], &port[..], std::slice::from_ref(&back)].concat());
                }
            }
        }
        rules.push(vec![Expr::Verdict(Verdict::Drop)]);
        rules
    }

    /// Conditions of one kind of other side, each for a rule of its own; a block less some is a list of blocks.
    fn side(&self, source: bool, others: &Others) -> Option<Vec<Vec<Expr>>> {
        match others {
            Others::Set(name) => {
                let number = self.numbers.get(name)?;
                let address = if source { Expr::Saddr(1) } else { Expr::Daddr(1) };
                Some(vec![vec![
                    Expr::Load(0, number.to_be_bytes().to_vec()),
                    address,
                    Expr::InSet(MEMBERS, 0, true),
                ]])
            }
            Others::Block { net, except } => {
                let IpNet::V4(net) = net else { return None };
                let mut blocks = vec![net.trunc()];
                for e in except {
                    if let IpNet::V4(e) = e {
                        blocks = blocks.into_iter().flat_map(|b| without(b, e.trunc())).collect();
                    }
                }
                Some(blocks.into_iter().map(|b| Expr::in_block(source, 0, b)).collect())
            }
        }
    }
}

/// A block less another, as blocks.
fn without(block: Ipv4Net, less: Ipv4Net) -> Vec<Ipv4Net> {
    if less.contains(&block) {
        return Vec::new();
    }
    if !block.contains(&less) {
        return vec![block];
    }
    let halves = block.subnets(block.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, less)).collect()
}

fn port_range(r: &PortRange) -> Vec<Expr> {
    let mut out = vec![Expr::L4Proto(0), Expr::Eq(0, vec![protocol_number(r.protocol)])];
    let bytes = |p: u16| p.to_be_bytes().to_vec();
    match (r.from, r.to) {
        (0, u16::MAX) => {}
        (from, to) if from == to => out.extend([Expr::Dport(0), Expr::Eq(0, bytes(from))]),
        (from, to) => out.extend([Expr::Dport(0), Expr::Ge(0, bytes(from)), Expr::Le(0, bytes(to))]),
    }
    out
}

fn transport(t: &Transport) -> Vec<Expr> {
    let mut out = vec![Expr::L4Proto(0), Expr::Eq(0, vec![t.number])];
    // ICMP has its type and code where others have the source port.
    match (t.kind, t.code) {
        (None, _) => {}
        (Some(kind), Some(code)) => out.extend([Expr::Sport(0), Expr::Eq(0, vec![kind, code])]),
        (Some(kind), None) => {
            out.extend([
                Expr::Sport(0),
                Expr::Ge(0, vec![kind, 0]),
                Expr::Le(0, vec![kind, u8::MAX]),
            ]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tripod_model::network::PortProtocol;
    use tripod_model::network::policy::PodPolicy;

    use super::*;

    fn policies(members: &[&str], allow: Vec<Allow>) -> Policies {
        Policies {
            sets: [(
                "s".to_owned(),
                members.iter().map(|m| m.parse().unwrap()).collect(),
            )]
            .into(),
            waiting: Default::default(),
            pods: [(
                "10.0.0.1".parse().unwrap(),
                PodPolicy {
                    ingress: Some(allow),
                    egress: None,
                },
            )]
            .into(),
        }
    }

    #[test]
    fn icmp_by_type_and_code() {
        let echo = |kind, code| Transport {
            number: 1,
            kind,
            code,
        };
        assert_eq!(transport(&echo(None, None)).len(), 2);
        let all_codes = transport(&echo(Some(8), None));
        assert_eq!(
            all_codes[3..],
            [Expr::Ge(0, vec![8, 0]), Expr::Le(0, vec![8, 255])]
        );
        assert_eq!(transport(&echo(Some(3), Some(4)))[3..], [Expr::Eq(0, vec![3, 4])]);
    }

    #[test]
    fn a_member_more_is_an_element_more() {
        let allow = || {
            vec![Allow {
                others: Some(vec![Others::Set("s".into())]),
                ports: None,
                ..Allow::default()
            }]
        };
        let (mut told, mut m) = (Told::default(), Model::default());
        let ops = told.change(&policies(&["10.0.0.2"], allow()), &mut m);
        assert_eq!(
            ops.iter().filter(|o| matches!(o, Op::Rule(..))).count(),
            3,
            "{ops:?}"
        );
        assert!(m.has(INGRESS, &[10, 0, 0, 1]) && !m.has(EGRESS, &[10, 0, 0, 1]));
        assert!(m.has(MEMBERS, &[0, 0, 0, 1, 10, 0, 0, 2]));
        let ops = told.change(&policies(&["10.0.0.2", "10.0.0.3"], allow()), &mut m);
        assert!(
            matches!(&ops[..], [Op::Add(MEMBERS, e)] if e.len() == 1),
            "{ops:?}"
        );
        told.change(&Policies::default(), &mut m);
        assert!(m.whole().is_empty(), "{:?}", m.whole());
    }

    #[test]
    fn sides_and_ports_are_multiplied() {
        let block = |net: &str, except: &[&str]| Others::Block {
            net: net.parse().unwrap(),
            except: except.iter().map(|e| e.parse().unwrap()).collect(),
        };
        let range = |from, to| PortRange {
            protocol: PortProtocol::Udp,
            from,
            to,
        };
        let allow = Allow {
            others: Some(vec![
                block("0.0.0.0/0", &[]),
                block("192.0.2.0/24", &["192.0.2.128/25"]),
            ]),
            ports: Some(vec![range(53, 53), range(6000, 6100), range(0, u16::MAX)]),
            ..Allow::default()
        };
        let rules = Told::default().judge([10, 0, 0, 1].into(), true, &[allow]);
        // Itself, two sides by three ports, and the end.
        assert_eq!(rules.len(), 1 + 6 + 1);
        assert_eq!(rules[3].len(), 3, "the whole protocol: {:?}", rules[3]);
        // Nobody allowed: nothing but oneself.
        assert_eq!(Told::default().judge([10, 0, 0, 1].into(), true, &[]).len(), 2);
    }

    #[test]
    fn exceptions_are_cut_out() {
        let net = |t: &str| t.parse::<Ipv4Net>().unwrap();
        assert_eq!(
            without(net("10.0.0.0/30"), net("10.0.0.1/32")),
            [net("10.0.0.0/32"), net("10.0.0.2/31")]
        );
        assert_eq!(without(net("10.0.0.0/24"), net("10.0.0.0/8")), []);
        assert_eq!(
            without(net("10.0.0.0/24"), net("10.0.1.0/24")),
            [net("10.0.0.0/24")]
        );
    }
}
