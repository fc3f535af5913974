//! Frontends of the node, and the connections through them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tripod_agent::ports::PortFailure;
use tripod_model::Result;
use tripod_model::network::{Backend, Frontend, FrontendPorts, PortProtocol, PublishedPort, ServicePort};

use super::networks::Kind;
use super::ports::Hold;
use super::table::Table;
use super::{Inner, failed, lock};
use crate::netlink::conntrack;
use crate::netlink::nft::{Data, Op};
use crate::ns;
use crate::render::frontends::{Context, desired, eligible};
use crate::render::host::{PUBLISHED, PUBLISHED_AT};
use crate::render::table::Model;
use crate::render::{address_port_key, port_key, target};

/// Ports of the host and where they lead.
type Leads = BTreeMap<(IpAddr, PortProtocol, u16), Vec<u8>>;

/// What was told to the kernel last.
#[derive(Debug, Default)]
pub(crate) struct Frontends {
    /// As asked for.
    asked: Vec<Arc<Frontend>>,
    /// Without the ports that could not be held.
    held: Vec<Arc<Frontend>>,
    /// Without backends on nodes that do not answer: what the kernel was told.
    serving: Vec<Arc<Frontend>>,
    holds: HashMap<(IpAddr, PortProtocol, u16), Hold>,
    /// Ports of the host that lead to routers.
    leads: Leads,
    settled: bool,
}

impl Frontends {
    /// A removed network took its router's table with it.
    pub(crate) fn forget_network(&mut self, id: &str) {
        self.asked.retain(|f| f.network_id != id);
        self.held.retain(|f| f.network_id != id);
        self.serving.retain(|f| f.network_id != id);
        self.settled = false;
    }
}

/// Address on which a frontend's port is held.
fn host_address(p: &PublishedPort) -> IpAddr {
    if p.host_ip.is_unspecified() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        p.host_ip
    }
}

impl Inner {
    /// The table in which a network's frontends live.
    fn table_of<'a>(&'a self, kind: &'a Kind) -> &'a Table {
        match kind {
            Kind::Router(r) => &r.table,
            _ => &self.table,
        }
    }

    /// Shares what is equal to the last time, so that a change of one among thousands costs little.
    pub(crate) fn shared(&self, wanted: &[Frontend]) -> Vec<Arc<Frontend>> {
        let before = lock(&self.frontends).asked.clone();
        let by_id = (!same_order(&before, wanted)).then(|| index(&before));
        wanted
            .iter()
            .enumerate()
            .map(|(i, f)| {
                let known = by_id
                    .as_ref()
                    .map_or_else(|| before.get(i), |m| m.get(&key_of(f)).copied());
                known
                    .filter(|k| ***k == *f)
                    .cloned()
                    .unwrap_or_else(|| Arc::new(f.clone()))
            })
            .collect()
    }

    pub(crate) fn set_frontends(&self, wanted: &[Arc<Frontend>]) -> Result<Vec<PortFailure>> {
        let mut state = lock(&self.frontends);
        if state.settled && equal(&state.asked, wanted) {
            return Ok(Vec::new());
        }
        let mut failures = Vec::new();
        let held = self.hold_published(&mut state, wanted, &mut failures)?;
        let serving = masked(&held, &self.peers.lost());
        self.tell(&mut state, serving)?;
        state.held = held;
        self.forget_removed(&state.asked, wanted);
        // Ports that were not free are tried again next time, whatever is asked for then.
        state.settled = failures.is_empty();
        state.asked = wanted.to_vec();
        Ok(failures)
    }

    /// Tells the kernel again after nodes stopped answering, or answer again.
    pub(super) fn mask(&self) -> Result<()> {
        let mut state = lock(&self.frontends);
        let serving = masked(&state.held, &self.peers.lost());
        if equal(&serving, &state.serving) {
            return Ok(());
        }
        let before = state.serving.clone();
        self.tell(&mut state, serving)?;
        self.forget_removed(&before, &state.serving);
        Ok(())
    }

    /// Tells the kernel what is different from last time.
    fn tell(&self, state: &mut Frontends, serving: Vec<Arc<Frontend>>) -> Result<()> {
        let what = "cannot set the frontends";
        let fabric = Arc::clone(&lock(&self.fabric));
        let networks: Vec<_> = lock(&self.networks).values().cloned().collect();
        let mut tables: Vec<(&Table, Vec<&str>)> = vec![(&self.table, Vec::new())];
        for n in &networks {
            match &n.kind {
                Kind::Router(r) => tables.push((&r.table, vec![&n.spec.id])),
                _ => tables[0].1.push(&n.spec.id),
            }
        }
        let far = |f: &Frontend, a: Ipv4Addr| {
            let network = networks.iter().find(|n| n.spec.id == f.network_id);
            network.is_some_and(|n| {
                n.is_pods() && !n.spec.subnets.iter().any(|s| s.subnet.contains(&IpAddr::V4(a)))
            })
        };
        let context = Context {
            node: &fabric.node,
            far: &far,
        };
        let leads = self.leads(&serving);
        let gone = difference(&state.serving, &serving);
        let new = difference(&serving, &state.serving);
        for (i, (table, ids)) in tables.into_iter().enumerate().rev() {
            let is_here = |f: &Frontend| ids.contains(&f.network_id.as_str());
            let here = |all: &[&Arc<Frontend>]| {
                desired(
                    &all.iter()
                        .map(|f| &***f)
                        .filter(|f| is_here(f))
                        .collect::<Vec<_>>(),
                    &context,
                )
            };
            let (before, now) = (here(&gone), here(&new));
            let shared = |a: Ipv4Addr| {
                serving
                    .iter()
                    .any(|f| is_here(f) && f.backends.iter().any(|b| b.address == IpAddr::V4(a)))
                    && serving
                        .iter()
                        .any(|f| is_here(f) && eligible(&f.backends, None).iter().any(|g| g.0 == a))
            };
            table
                .settle(|model, ops| {
                    ops.extend(now.replace(before, shared, model));
                    if i == 0 {
                        change_leads(model, ops, &state.leads, &leads);
                    }
                })
                .map_err(failed(what))?;
        }
        self.release_published(state, &serving);
        state.leads = leads;
        state.serving = serving;
        Ok(())
    }

    /// Binds the ports of frontends that are not held yet; what is left of the frontends has its ports.
    fn hold_published(
        &self,
        state: &mut Frontends,
        wanted: &[Arc<Frontend>],
        failures: &mut Vec<PortFailure>,
    ) -> Result<Vec<Arc<Frontend>>> {
        let mut serving = wanted.to_vec();
        let mut held = lock(&self.held);
        let mut seen = BTreeSet::new();
        ns::within(&self.host_ns, || {
            for f in serving.iter_mut().filter(|f| !f.published.is_empty()) {
                let before = failures.len();
                for p in &f.published {
                    let key = (host_address(p), p.protocol, p.host_port);
                    let held_now = if !seen.insert(key) {
                        Err(format!(
                            "port {}/{} is published by another service",
                            p.host_port, p.protocol
                        ))
                    } else if let Entry::Vacant(free) = state.holds.entry(key) {
                        held.hold_for_frontend(p).map(|h| {
                            free.insert(h);
                        })
                    } else {
                        Ok(())
                    };
                    if let Err(reason) = held_now {
                        failures.push(PortFailure {
                            frontend: f.id.clone(),
                            port: *p,
                            reason,
                        });
                    }
                }
                let failed = &failures[before..];
                if !failed.is_empty() {
                    let f = Arc::make_mut(f);
                    f.published.retain(|p| !failed.iter().any(|x| x.port == *p));
                    // A load balancer at the host's own addresses must not take the port either.
                    let failed_here = |p: &ServicePort| failed.iter().any(|x| x.port.host_port == p.port);
                    if matches!(&f.ports, FrontendPorts::Some(ports) if ports.iter().any(failed_here)) {
                        f.load_balancer_ips.clear();
                    }
                }
            }
            Ok(())
        })
        .map_err(failed("cannot enter the host's namespace"))?;
        Ok(serving)
    }

    fn release_published(&self, state: &mut Frontends, serving: &[Arc<Frontend>]) {
        let wanted: BTreeSet<_> = serving
            .iter()
            .flat_map(|f| &f.published)
            .map(|p| (host_address(p), p.protocol, p.host_port))
            .collect();
        let mut held = lock(&self.held);
        state.holds.retain(|key, _| {
            let keep = wanted.contains(key);
            if !keep {
                held.release(key.0, key.1, key.2);
            }
            keep
        });
    }

    /// Ports of the host that lead to a router, which leads them on to backends.
    fn leads(&self, serving: &[Arc<Frontend>]) -> Leads {
        let mut leads = BTreeMap::new();
        for f in serving.iter().filter(|f| !f.published.is_empty()) {
            if let Ok(n) = self.network(&f.network_id)
                && let Kind::Router(r) = &n.kind
                && let Some((_, router)) = r.uplink
            {
                for p in &f.published {
                    leads.insert(
                        (host_address(p), p.protocol, p.host_port),
                        target(router, p.host_port),
                    );
                }
            }
        }
        leads
    }

    /// Backends that are gone keep no UDP "connections": clients would go on sending to them.
    fn forget_removed(&self, before: &[Arc<Frontend>], now: &[Arc<Frontend>]) {
        let has = |f: &Frontend, network: &str, a: IpAddr| {
            f.network_id == network && f.backends.iter().any(|b| b.address == a)
        };
        let mut gone = BTreeSet::new();
        for f in difference(before, now) {
            for b in &f.backends {
                if !now.iter().any(|n| has(n, &f.network_id, b.address)) {
                    gone.insert((f.network_id.as_str(), b.address));
                }
            }
        }
        for (network, address) in gone {
            if let Err(e) = self.forget(network, address, Some(conntrack::UDP)) {
                tracing::warn!(error = %e, "cannot forget connections of a removed backend");
            }
        }
    }

    fn forget(&self, network: &str, address: IpAddr, protocol: Option<u8>) -> Result<()> {
        let network = self.network(network)?;
        let socket = self.table_of(&network.kind).socket();
        let found =
            conntrack::answered_by(socket, address, protocol).map_err(failed("cannot list connections"))?;
        conntrack::forget(socket, &found).map_err(failed("cannot forget connections"))
    }

    pub(crate) fn forget_connections(&self, network: &str, address: IpAddr) -> Result<()> {
        self.forget(network, address, None)
    }

    pub(crate) fn established(&self, network: &str, address: IpAddr) -> Result<usize> {
        let network = self.network(network)?;
        let table = self.table_of(&network.kind);
        let found = conntrack::answered_by(table.socket(), address, Some(conntrack::TCP))
            .map_err(failed("cannot list connections"))?;
        Ok(found.iter().filter(|e| e.established).count())
    }
}

/// The frontends without backends on lost nodes; one whose backends are all there keeps them.
fn masked(all: &[Arc<Frontend>], lost: &BTreeSet<String>) -> Vec<Arc<Frontend>> {
    if lost.is_empty() {
        return all.to_vec();
    }
    let is_lost = |b: &Backend| lost.contains(&b.node);
    all.iter()
        .map(|f| {
            let some = f.backends.iter().any(is_lost);
            if !some || f.backends.iter().all(is_lost) {
                return Arc::clone(f);
            }
            let mut f = Frontend::clone(f);
            f.backends.retain(|b| !is_lost(b));
            Arc::new(f)
        })
        .collect()
}

fn lead_key(ip: IpAddr, protocol: PortProtocol, port: u16) -> (&'static str, Vec<u8>) {
    match ip {
        IpAddr::V4(a) if !a.is_unspecified() => (PUBLISHED_AT, address_port_key(a, protocol, port)),
        _ => (PUBLISHED, port_key(protocol, port)),
    }
}

fn key_of(f: &Frontend) -> (&str, &str) {
    (&f.network_id, &f.id)
}

fn index(all: &[Arc<Frontend>]) -> HashMap<(&str, &str), &Arc<Frontend>> {
    all.iter().map(|f| (key_of(f), f)).collect()
}

fn same_order(known: &[Arc<Frontend>], wanted: &[Frontend]) -> bool {
    known.len() == wanted.len() && known.iter().zip(wanted).all(|(k, w)| key_of(k) == key_of(w))
}

/// Equal, by looking at shared ones only once.
fn equal(a: &[Arc<Frontend>], b: &[Arc<Frontend>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
}

/// Frontends of `all` that `others` has not, or has otherwise.
fn difference<'a>(all: &'a [Arc<Frontend>], others: &[Arc<Frontend>]) -> Vec<&'a Arc<Frontend>> {
    let differs = |f: &Arc<Frontend>, o: &Arc<Frontend>| !Arc::ptr_eq(f, o) && f != o;
    if all.len() == others.len() && all.iter().zip(others).all(|(f, o)| key_of(f) == key_of(o)) {
        return all
            .iter()
            .zip(others)
            .filter(|(f, o)| differs(f, o))
            .map(|(f, _)| f)
            .collect();
    }
    let by_id = index(others);
    all.iter()
        .filter(|f| by_id.get(&key_of(f)).is_none_or(|o| differs(f, o)))
        .collect()
}

fn change_leads(model: &mut Model, ops: &mut Vec<Op>, before: &Leads, now: &Leads) {
    for (ip, protocol, port) in before.keys().filter(|k| !now.contains_key(*k)) {
        let (set, key) = lead_key(*ip, *protocol, *port);
        model.take(ops, set, &key);
    }
    for ((ip, protocol, port), goal) in now {
        let (set, key) = lead_key(*ip, *protocol, *port);
        model.put(ops, set, key, Data::Value(goal.clone()));
    }
}
