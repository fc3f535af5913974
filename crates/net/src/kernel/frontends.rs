//! Frontends of the node, and the connections through them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use tripod_agent::ports::PortFailure;
use tripod_model::Result;
use tripod_model::network::{Frontend, PortProtocol, PublishedPort};

use super::networks::Kind;
use super::ports::Hold;
use super::table::Table;
use super::{Inner, failed, lock};
use crate::netlink::conntrack;
use crate::netlink::nft::{Data, Op};
use crate::ns;
use crate::render::frontends::desired;
use crate::render::host::{PUBLISHED, PUBLISHED_AT};
use crate::render::table::Model;
use crate::render::{address_port_key, port_key, target};

const UDP: u8 = 17;

/// Ports of the host and where they lead.
type Leads = BTreeMap<(IpAddr, PortProtocol, u16), Vec<u8>>;

/// What was told to the kernel last.
#[derive(Debug, Default)]
pub(crate) struct Frontends {
    /// As asked for.
    asked: Vec<Frontend>,
    /// Without the ports that could not be held.
    serving: Vec<Frontend>,
    holds: HashMap<(IpAddr, PortProtocol, u16), Hold>,
    /// Ports of the host that lead to routers.
    leads: Leads,
    settled: bool,
}

impl Frontends {
    /// A removed network took its router's table with it.
    pub(crate) fn forget_network(&mut self, id: &str) {
        self.asked.retain(|f| f.network_id != id);
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

    pub(crate) fn set_frontends(&self, wanted: &[Frontend]) -> Result<Vec<PortFailure>> {
        let mut state = lock(&self.frontends);
        if state.settled && state.asked == wanted {
            return Ok(Vec::new());
        }
        let mut failures = Vec::new();
        let serving = self.hold_published(&mut state, wanted, &mut failures)?;
        self.tell(&mut state, serving)?;
        self.forget_removed(&state.asked, wanted);
        // Ports that were not free are tried again next time, whatever is asked for then.
        state.settled = failures.is_empty();
        state.asked = wanted.to_vec();
        Ok(failures)
    }

    /// Tells the kernel what is different from last time.
    fn tell(&self, state: &mut Frontends, serving: Vec<Frontend>) -> Result<()> {
        let context = "cannot set the frontends";
        let networks: Vec<_> = lock(&self.networks).values().cloned().collect();
        let mut tables: Vec<(&Table, Vec<&str>)> = vec![(&self.table, Vec::new())];
        for n in &networks {
            match &n.kind {
                Kind::Router(r) => tables.push((&r.table, vec![&n.spec.id])),
                _ => tables[0].1.push(&n.spec.id),
            }
        }
        let leads = self.leads(&serving);
        let gone = difference(&state.serving, &serving);
        let new = difference(&serving, &state.serving);
        for (i, (table, ids)) in tables.into_iter().enumerate().rev() {
            let here = |all: &[&'_ Frontend]| {
                desired(
                    &all.iter()
                        .copied()
                        .filter(|f| ids.contains(&f.network_id.as_str()))
                        .collect::<Vec<_>>(),
                )
            };
            let (before, now) = (here(&gone), here(&new));
            // Frontends in neither list: what they need stays.
            let kept = || {
                let unchanged: Vec<&Frontend> = serving.iter().filter(|f| !new.contains(f)).collect();
                here(&unchanged)
            };
            table
                .settle(|model, ops| {
                    ops.extend(now.replace(before, kept, model));
                    if i == 0 {
                        change_leads(model, ops, &state.leads, &leads);
                    }
                })
                .map_err(failed(context))?;
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
        wanted: &[Frontend],
        failures: &mut Vec<PortFailure>,
    ) -> Result<Vec<Frontend>> {
        let mut serving = wanted.to_vec();
        let mut held = lock(&self.held);
        let mut seen = BTreeSet::new();
        ns::within(&self.host_ns, || {
            for f in &mut serving {
                let id = f.id.clone();
                f.published.retain(|p| {
                    let key = (host_address(p), p.protocol, p.host_port);
                    let mut fail = |reason| {
                        failures.push(PortFailure {
                            frontend: id.clone(),
                            port: *p,
                            reason,
                        })
                    };
                    if !seen.insert(key) {
                        fail(format!(
                            "port {}/{} is published by another service",
                            p.host_port, p.protocol
                        ));
                        return false;
                    }
                    if state.holds.contains_key(&key) {
                        return true;
                    }
                    match held.hold_for_frontend(p) {
                        Ok(h) => {
                            state.holds.insert(key, h);
                            true
                        }
                        Err(reason) => {
                            fail(reason);
                            false
                        }
                    }
                });
            }
            Ok(())
        })
        .map_err(failed("cannot enter the host's namespace"))?;
        Ok(serving)
    }

    fn release_published(&self, state: &mut Frontends, serving: &[Frontend]) {
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
    fn leads(&self, serving: &[Frontend]) -> Leads {
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
    fn forget_removed(&self, before: &[Frontend], now: &[Frontend]) {
        let backends = |all: &[Frontend]| -> BTreeSet<(String, IpAddr)> {
            all.iter()
                .flat_map(|f| f.backends.iter().map(|b| (f.network_id.clone(), b.address)))
                .collect()
        };
        for (network, address) in backends(before).difference(&backends(now)) {
            if let Err(e) = self.forget(network, *address, |protocol| protocol == UDP) {
                tracing::warn!(error = %e, "cannot forget connections of a removed backend");
            }
        }
    }

    fn forget(&self, network: &str, address: IpAddr, which: impl Fn(u8) -> bool) -> Result<()> {
        let network = self.network(network)?;
        let table = self.table_of(&network.kind);
        let mut found =
            conntrack::answered_by(table.socket(), address).map_err(failed("cannot list connections"))?;
        found.retain(|e| which(e.protocol));
        conntrack::forget(table.socket(), &found).map_err(failed("cannot forget connections"))
    }

    pub(crate) fn forget_connections(&self, network: &str, address: IpAddr) -> Result<()> {
        self.forget(network, address, |_| true)
    }

    pub(crate) fn established(&self, network: &str, address: IpAddr) -> Result<usize> {
        let network = self.network(network)?;
        let table = self.table_of(&network.kind);
        let found =
            conntrack::answered_by(table.socket(), address).map_err(failed("cannot list connections"))?;
        Ok(found.iter().filter(|e| e.established).count())
    }
}

fn lead_key(ip: IpAddr, protocol: PortProtocol, port: u16) -> (&'static str, Vec<u8>) {
    match ip {
        IpAddr::V4(a) if !a.is_unspecified() => (PUBLISHED_AT, address_port_key(a, protocol, port)),
        _ => (PUBLISHED, port_key(protocol, port)),
    }
}

/// Frontends of `all` that `others` has not, or has otherwise.
fn difference<'a>(all: &'a [Frontend], others: &[Frontend]) -> Vec<&'a Frontend> {
    let by_id: HashMap<(&str, &str), &Frontend> = others
        .iter()
        .map(|f| ((f.network_id.as_str(), f.id.as_str()), f))
        .collect();
    all.iter()
        .filter(|f| {
            by_id
                .get(&(f.network_id.as_str(), f.id.as_str()))
                .is_none_or(|o| o != f)
        })
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
