//! What the name server knows: names of each network, and which networks each sandbox is in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tripod_model::network::{Endpoint, NameRecord};

/// Names of all networks, and the sandboxes that ask.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    zones: HashMap<String, Zone>,
    clients: HashMap<String, Client>,
    turn: AtomicUsize,
}

/// Names of one network.
#[derive(Debug, Default)]
struct Zone {
    /// Records that were set: name in lower case to addresses.
    set: HashMap<String, Vec<IpAddr>>,
    /// Names for addresses, as they were set.
    reverse: HashMap<IpAddr, String>,
    /// Names of endpoints on this node: who has the name, and its address.
    local: HashMap<String, Vec<(String, IpAddr)>>,
}

/// A sandbox that asks.
#[derive(Debug, Default)]
struct Client {
    /// Identifier and name of its networks.
    networks: Vec<(String, String)>,
    /// Names of its endpoints with their network and addresses.
    names: Vec<(String, String, IpAddr)>,
    /// Its own names for others (legacy links).
    links: HashMap<String, String>,
    outside: bool,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// These addresses, possibly none.
    Addresses(Vec<IpAddr>),
    /// It would be in one of the asker's networks, but is not.
    Missing,
    /// Nothing; others may know it.
    Elsewhere,
}

impl Zones {
    /// Replaces the records of a network.
    pub(crate) fn set_names(&mut self, network: &str, records: &[NameRecord]) {
        let zone = self.zones.entry(network.to_owned()).or_default();
        zone.set.clear();
        zone.reverse.clear();
        for r in records {
            let known = zone.set.entry(r.name.to_ascii_lowercase()).or_default();
            for a in &r.addresses {
                if !known.contains(a) {
                    known.push(*a);
                }
                if r.reverse {
                    zone.reverse.entry(*a).or_insert_with(|| r.name.clone());
                }
            }
        }
        self.tidy(network);
    }

    /// Forgets the records of a network.
    pub(crate) fn forget_network(&mut self, network: &str) {
        self.set_names(network, &[]);
    }

    /// Sets the networks and names of a sandbox.
    pub(crate) fn connected(&mut self, sandbox: &str, endpoints: &[Endpoint], outside: bool) {
        self.disconnected(sandbox);
        let mut client = Client {
            outside,
            ..Client::default()
        };
        for e in endpoints {
            client
                .networks
                .push((e.network_id.clone(), e.network_name.to_ascii_lowercase()));
            for link in &e.links {
                let (target, alias) = link.split_once(':').unwrap_or((link, link));
                client.links.insert(
                    alias.to_ascii_lowercase(),
                    target.trim_start_matches('/').to_ascii_lowercase(),
                );
            }
            let zone = self.zones.entry(e.network_id.clone()).or_default();
            for ip in [e.ipv4, e.ipv6].into_iter().flatten().map(|n| n.addr()) {
                for name in &e.names {
                    let name = name.to_ascii_lowercase();
                    zone.local
                        .entry(name.clone())
                        .or_default()
                        .push((sandbox.to_owned(), ip));
                    client.names.push((e.network_id.clone(), name, ip));
                }
            }
        }
        self.clients.insert(sandbox.to_owned(), client);
    }

    /// Forgets a sandbox and its names.
    pub(crate) fn disconnected(&mut self, sandbox: &str) {
        let Some(client) = self.clients.remove(sandbox) else {
            return;
        };
        for (network, name, _) in &client.names {
            if let Some(zone) = self.zones.get_mut(network)
                && let Some(has) = zone.local.get_mut(name)
            {
                has.retain(|(s, _)| s != sandbox);
                if has.is_empty() {
                    zone.local.remove(name);
                }
            }
        }
        for (network, _) in client.networks {
            self.tidy(&network);
        }
    }

    fn tidy(&mut self, network: &str) {
        if self
            .zones
            .get(network)
            .is_some_and(|z| z.set.is_empty() && z.local.is_empty())
        {
            self.zones.remove(network);
        }
    }

    /// Whether the sandbox's questions may be asked outside.
    pub(crate) fn may_ask_outside(&self, sandbox: &str) -> bool {
        self.clients.get(sandbox).is_none_or(|c| c.outside)
    }

    /// Looks a name up for a sandbox. Addresses come in another order each time.
    pub(crate) fn find(&self, sandbox: &str, name: &str) -> Found {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let Some(client) = self.clients.get(sandbox) else {
            return Found::Elsewhere;
        };
        let name = client.links.get(&name).unwrap_or(&name);
        let mut missing = name.starts_with("tasks.");
        for (id, network) in &client.networks {
            let zone = self.zones.get(id);
            let within = name
                .strip_suffix(network.as_str())
                .and_then(|n| n.strip_suffix('.'));
            for n in [Some(name.as_str()), within].into_iter().flatten() {
                if let Some(found) = zone.and_then(|z| z.addresses(n)) {
                    return Found::Addresses(self.rotate(found));
                }
            }
            missing |= within.is_some() && !network.contains('.');
        }
        if missing { Found::Missing } else { Found::Elsewhere }
    }

    /// The name of an address in one of the sandbox's networks, with the network's name.
    pub(crate) fn reverse(&self, sandbox: &str, address: IpAddr) -> Option<String> {
        let client = self.clients.get(sandbox)?;
        client.networks.iter().find_map(|(id, network)| {
            let zone = self.zones.get(id)?;
            // The first of an endpoint's names is the container's.
            let local = || {
                let names = self.clients.values().flat_map(|c| &c.names);
                names
                    .into_iter()
                    .find(|(n, _, a)| n == id && *a == address)
                    .map(|(_, name, _)| name)
            };
            let name = zone.reverse.get(&address).or_else(local)?;
            Some(format!("{name}.{network}"))
        })
    }

    fn rotate(&self, mut found: Vec<IpAddr>) -> Vec<IpAddr> {
        if found.len() > 1 {
            let n = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
            found.rotate_left(n);
        }
        found
    }
}

impl Zone {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let set = self.set.get(name);
        let local = self.local.get(name);
        if set.is_none() && local.is_none() {
            return None;
        }
        let mut all = set.cloned().unwrap_or_default();
        for (_, a) in local.into_iter().flatten() {
            if !all.contains(a) {
                all.push(*a);
            }
        }
        Some(all)
    }
}
