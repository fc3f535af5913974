//! Names of the cluster's services, as the Kubernetes specification of DNS-based service discovery (1.1) has them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tripod_model::network::names::{ClusterNames, NameTarget, NamedEndpoint, NamedPort, ServiceNames};

/// Answers hold as long as those of Kubernetes' usual server, in seconds.
const TTL: u32 = 5;

/// What the cluster's DNS knows.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    domain: String,
    services: HashMap<String, HashMap<String, Arc<ServiceNames>>>,
    namespaces: HashSet<String>,
    reverse: HashMap<IpAddr, String>,
    turn: AtomicUsize,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Whether the name exists.
    pub(crate) code: ResponseCode,
    /// What was asked for.
    pub(crate) answers: Vec<Record>,
    /// Addresses of targets.
    pub(crate) additionals: Vec<Record>,
    /// For how long it may be remembered that there is nothing.
    pub(crate) authority: Vec<Record>,
}

/// What is at a name.
enum At<'a> {
    /// Nothing, and nothing below it.
    Nothing,
    /// Nothing, but something below it.
    Branch,
    /// These records.
    Records(Vec<RData>),
    Addresses(Vec<IpAddr>),
    /// Ports and the names of their targets with addresses.
    Ports(Vec<(u16, String, IpAddr)>),
    Alias(&'a str),
}

impl Cluster {
    /// Prepares the names for look-ups.
    pub(crate) fn new(names: &ClusterNames) -> Self {
        let mut cluster = Self {
            domain: names.domain.trim_end_matches('.').to_ascii_lowercase(),
            namespaces: names.namespaces.iter().cloned().collect(),
            ..Self::default()
        };
        for s in &names.services {
            let own = cluster.services.entry(s.namespace.clone()).or_default();
            own.insert(s.name.clone(), Arc::clone(s));
            let base = format!("{}.{}.svc.{}", s.name, s.namespace, cluster.domain);
            match &s.target {
                NameTarget::Addresses { addresses, .. } => {
                    cluster
                        .reverse
                        .extend(addresses.iter().map(|a| (*a, base.clone())));
                }
                NameTarget::Endpoints(all) => {
                    let named = all
                        .iter()
                        .map(|e| (e.address, format!("{}.{base}", host_name(e))));
                    for (address, name) in named {
                        cluster.reverse.entry(address).or_insert(name);
                    }
                }
                NameTarget::Name(_) => {}
            }
        }
        cluster
    }

    /// Looks a name up; `None` is not of this cluster, and for others to answer.
    pub(crate) fn look_up(&self, name: &Name, kind: RecordType) -> Option<Reply> {
        if let Ok(net) = name.parse_arpa_name() {
            let known = self.reverse.get(&net.addr())?;
            return Some(self.reply(name, kind, At::Records(vec![RData::PTR(PTR(dns_name(known)?))])));
        }
        let text = name.to_utf8().trim_end_matches('.').to_ascii_lowercase();
        let within = text
            .strip_suffix(self.domain.as_str())
            .filter(|_| !self.domain.is_empty())?;
        let within = match within {
            "" => "",
            w => w.strip_suffix('.')?,
        };
        Some(self.reply(name, kind, self.at(within)))
    }

    /// What is at a name below the domain.
    fn at(&self, within: &str) -> At<'_> {
        let mut labels: Vec<&str> = within.split('.').filter(|l| !l.is_empty()).collect();
        labels.reverse();
        match labels[..] {
            [] => self.apex(),
            ["dns-version"] => At::Records(vec![RData::TXT(TXT::new(vec!["1.1.0".into()]))]),
            ["svc" | "pod"] | ["dns"] => At::Branch,
            ["dns", "ns"] => At::Branch,
            ["svc", namespace] | ["pod", namespace] if self.has_namespace(namespace) => At::Branch,
            ["pod", namespace, host] if self.has_namespace(namespace) => match dashed(host) {
                Some(a) => At::Addresses(vec![a.into()]),
                None => At::Nothing,
            },
            ["svc", namespace, service, ref rest @ ..] => {
                let found = self.services.get(namespace).and_then(|s| s.get(service));
                found.map_or(At::Nothing, |s| self.of_service(s, rest))
            }
            _ => At::Nothing,
        }
    }

    fn apex(&self) -> At<'_> {
        let names = (self.soa(), dns_name(&format!("ns.dns.{}", self.domain)));
        match names {
            (Some(soa), Some(ns)) => At::Records(vec![RData::SOA(soa), RData::NS(NS(ns))]),
            _ => At::Branch,
        }
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name) || self.services.contains_key(name)
    }

    /// What is at a service's name and below; `rest` are the further labels, the nearest first.
    fn of_service<'a>(&'a self, s: &'a ServiceNames, rest: &[&str]) -> At<'a> {
        let base = || format!("{}.{}.svc.{}", s.name, s.namespace, self.domain);
        let protocol = |label: &str| {
            label
                .strip_prefix('_')
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
        };
        match (&s.target, rest) {
            (NameTarget::Name(alias), []) => At::Alias(alias),
            (NameTarget::Addresses { addresses, .. }, []) => At::Addresses(addresses.clone()),
            (NameTarget::Endpoints(all), []) if !all.is_empty() => {
                At::Addresses(self.rotate(all.iter().map(|e| e.address).collect()))
            }
            (NameTarget::Endpoints(all), [host]) if !host.starts_with('_') => {
                let of_host = all.iter().filter(|e| host_name(e).eq_ignore_ascii_case(host));
                match of_host.map(|e| e.address).collect::<Vec<_>>() {
                    none if none.is_empty() => At::Nothing,
                    some => At::Addresses(some),
                }
            }
            (NameTarget::Addresses { ports, .. }, ["_tcp" | "_udp" | "_sctp"]) if !ports.is_empty() => {
                At::Branch
            }
            (NameTarget::Endpoints(all), ["_tcp" | "_udp" | "_sctp"]) if !all.is_empty() => At::Branch,
            (target, [proto, port]) => {
                let (Some(proto), Some(port)) = (protocol(proto), protocol(port)) else {
                    return At::Nothing;
                };
                let is_it = |p: &&NamedPort| p.name == port && p.protocol.to_string() == proto;
                let mut found = Vec::new();
                match target {
                    NameTarget::Addresses { addresses, ports } => {
                        for p in ports.iter().filter(is_it) {
                            found.extend(addresses.iter().map(|a| (p.port, base(), *a)));
                        }
                    }
                    NameTarget::Endpoints(all) => {
                        for e in all {
                            let name = format!("{}.{}", host_name(e), base());
                            let ports = e.ports.iter().filter(is_it);
                            found.extend(ports.map(|p| (p.port, name.clone(), e.address)));
                        }
                    }
                    NameTarget::Name(_) => {}
                }
                if found.is_empty() {
                    At::Nothing
                } else {
                    At::Ports(found)
                }
            }
            _ => At::Nothing,
        }
    }

    fn reply(&self, name: &Name, kind: RecordType, at: At<'_>) -> Reply {
        let mut reply = Reply {
            code: ResponseCode::NoError,
            answers: Vec::new(),
            additionals: Vec::new(),
            authority: Vec::new(),
        };
        let asked = |d: &RData| kind == RecordType::ANY || d.record_type() == kind;
        let record = |n: &Name, d| Record::from_rdata(n.clone(), TTL, d);
        match at {
            At::Nothing => reply.code = ResponseCode::NXDomain,
            At::Branch => {}
            At::Records(all) => reply
                .answers
                .extend(all.into_iter().filter(asked).map(|d| record(name, d))),
            At::Addresses(all) => {
                let data = all.into_iter().map(address).filter(asked);
                reply.answers.extend(data.map(|d| record(name, d)));
            }
            At::Alias(to) => {
                let data = dns_name(to).map(|n| RData::CNAME(CNAME(n)));
                reply.answers.extend(data.map(|d| record(name, d)));
            }
            At::Ports(all) if matches!(kind, RecordType::SRV | RecordType::ANY) => {
                let weight = u16::try_from(100 / all.len().max(1)).unwrap_or(1).max(1);
                for (port, target, ip) in all {
                    let Some(target) = dns_name(&target) else { continue };
                    reply.additionals.push(record(&target, address(ip)));
                    reply
                        .answers
                        .push(record(name, RData::SRV(SRV::new(0, weight, port, target))));
                }
            }
            At::Ports(_) => {}
        }
        if reply.answers.is_empty()
            && let (Some(soa), Some(domain)) = (self.soa(), dns_name(&self.domain))
        {
            reply.authority.push(record(&domain, RData::SOA(soa)));
        }
        reply
    }

    fn soa(&self) -> Option<SOA> {
        let server = dns_name(&format!("ns.dns.{}", self.domain))?;
        let mail = dns_name(&format!("hostmaster.{}", self.domain))?;
        Some(SOA::new(server, mail, 1, 7200, 1800, 86_400, TTL))
    }

    fn rotate(&self, mut found: Vec<IpAddr>) -> Vec<IpAddr> {
        if found.len() > 1 {
            let n = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
            found.rotate_left(n);
        }
        found
    }
}

/// A full name as the codec has it.
fn dns_name(text: &str) -> Option<Name> {
    Name::from_utf8(format!("{}.", text.trim_end_matches('.'))).ok()
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(a) => RData::A(A(a)),
        IpAddr::V6(a) => RData::AAAA(AAAA(a)),
    }
}

/// An endpoint's name below its service's.
fn host_name(e: &NamedEndpoint) -> String {
    match e.hostname.is_empty() {
        false => e.hostname.clone(),
        true => e.address.to_string().replace(['.', ':'], "-"),
    }
}

/// `10-244-1-5` as an address.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    (label.split('-').count() == 4).then(|| label.replace('-', ".").parse().ok())?
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
