//! A manager: its part in the group, the store and the view made of the log, and (when it leads) what the controller
//! loop does: presence, reports, plans, each written through the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tripod_model::Time;
use tripod_model::data::Network;
use tripod_model::node::{Node, NodeState};
use tripod_model::object::{Kind, decode, encode};
use tripod_model::pod::Pod;
use tripod_model::session::PodReport;
use tripod_model::swarm::{SwarmCluster, SwarmService};
use tripod_plan::report::merge_report;
use tripod_plan::view::pod_key;
use tripod_plan::{Object, View, Write, reconcile};
use tripod_store::{Change, Claim, Event, Expected, Key, State, Txn};

use crate::group::{Group, Role};

/// Milliseconds between signs of life of nodes.
pub(crate) const HEARTBEAT: u64 = 1000;
/// A node that is silent for so long is lost.
pub(crate) const LOST: u64 = 3 * HEARTBEAT;

/// A node's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) heard: u64,
    /// What was sent, once the first assignment was.
    sent: Option<BTreeMap<String, Arc<Pod>>>,
}

/// What a session is sent.
pub(crate) struct Assignment {
    pub(crate) full: bool,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) removed: Vec<String>,
}

pub(crate) struct Manager {
    pub(crate) up: bool,
    pub(crate) group: Group,
    pub(crate) state: State,
    pub(crate) view: View,
    pub(crate) applied: usize,
    /// It leads and knows all that was acknowledged before.
    pub(crate) led: bool,
    /// The number of entries with its first one as leader.
    pub(crate) lead_from: usize,
    pub(crate) sessions: BTreeMap<usize, Session>,
    expiries: BTreeMap<usize, u64>,
    presence: BTreeMap<usize, bool>,
    pub(crate) reports: Vec<(usize, PodReport)>,
    wakes: BTreeMap<Time, BTreeSet<String>>,
    /// A write of the controllers that is not applied yet.
    in_flight: Option<usize>,
    /// What that write was made of, kept until it is known to be accepted.
    basis: Basis,
    /// Writes of users that wait, by number of entries, with the term in which they were made.
    pub(crate) pending: BTreeMap<usize, (u64, String)>,
}

/// What a write of the controllers was made of: when it is refused, because a user was faster, it is looked at again.
#[derive(Debug)]
enum Basis {
    Presence(BTreeMap<usize, bool>),
    Reports(Vec<(usize, PodReport)>),
    Dirty(BTreeSet<String>),
}

impl Default for Basis {
    fn default() -> Self {
        Self::Dirty(BTreeSet::new())
    }
}

/// One applied entry.
pub(crate) struct Applied {
    pub(crate) index: usize,
    /// Of the store after it.
    pub(crate) revision: u64,
    pub(crate) accepted: bool,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn node_name(i: usize) -> String {
    format!("n{i:02}")
}

/// The store's form of an object.
pub(crate) fn stored<K: Kind>(object: &K, claims: Vec<Claim>) -> (Key, Vec<u8>, Vec<Claim>) {
    let key = Key::new(
        K::RESOURCE,
        object.meta().namespace.as_str(),
        object.meta().name.as_str(),
    );
    (key, encode(object), claims)
}

pub(crate) fn service_claims(service: &SwarmService) -> Vec<Claim> {
    vec![Claim {
        index: "swarmservices#name".into(),
        value: service.spec.name.as_str().into(),
    }]
}

fn add(txn: Txn, write: &Write) -> Txn {
    let (key, bytes, claims) = match write.object() {
        Object::Pod(o) => stored(o.as_ref(), Vec::new()),
        Object::Service(o) => stored(o.as_ref(), service_claims(o)),
        Object::Network(o) => stored(o.as_ref(), Vec::new()),
        Object::Node(o) => stored(o.as_ref(), Vec::new()),
        Object::Raw(_) => return txn,
    };
    match write {
        Write::Create(_) => txn.create(key, bytes, claims),
        Write::Update { based_on, .. } => txn.update(key, *based_on, bytes, claims),
        Write::Delete { based_on, .. } => txn.check(key.clone(), Expected::Revision(*based_on)).delete(key),
    }
}

fn txn_of(writes: &[Write]) -> Option<Txn> {
    (!writes.is_empty()).then(|| writes.iter().fold(Txn::new(), add))
}

impl Manager {
    pub(crate) fn new(own: usize, size: usize) -> Self {
        Self {
            up: true,
            group: Group::new(own, size),
            state: State::new(),
            view: View::new(),
            applied: 0,
            led: false,
            lead_from: 0,
            sessions: BTreeMap::new(),
            expiries: BTreeMap::new(),
            presence: BTreeMap::new(),
            reports: Vec::new(),
            wakes: BTreeMap::new(),
            in_flight: None,
            basis: Basis::default(),
            pending: BTreeMap::new(),
        }
    }

    /// The process is killed: the disk stays.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.group.restart();
        (self.state, self.view, self.applied) = (State::new(), View::new(), 0);
        self.step_down();
    }

    fn step_down(&mut self) {
        self.led = false;
        self.sessions.clear();
        self.expiries.clear();
        self.presence.clear();
        self.reports.clear();
        self.wakes.clear();
        self.in_flight = None;
        self.basis = Basis::default();
        self.pending.clear();
    }

    /// Applies what is known to be on a majority of disks.
    pub(crate) fn apply(&mut self) -> Vec<Applied> {
        let mut done = Vec::new();
        while self.applied < self.group.commit {
            let txn = self.group.log[self.applied].txn.clone();
            self.applied += 1;
            let outcome = self.state.apply(std::slice::from_ref(&*txn));
            for event in &outcome.events {
                take_over(&mut self.view, event);
            }
            if self.in_flight == Some(self.applied) {
                self.in_flight = None;
                let basis = std::mem::take(&mut self.basis);
                if outcome.results[0].is_err() {
                    self.take_back(basis);
                }
            }
            done.push(Applied {
                index: self.applied,
                revision: self.state.revision(),
                accepted: outcome.results[0].is_ok(),
                events: outcome.events,
            });
        }
        done
    }

    /// A write was refused: what it was made of waits again, before what came since.
    fn take_back(&mut self, basis: Basis) {
        match basis {
            Basis::Presence(older) => {
                for (node, present) in older {
                    self.presence.entry(node).or_insert(present);
                }
            }
            Basis::Reports(older) => drop(self.reports.splice(0..0, older)),
            Basis::Dirty(names) => names.into_iter().for_each(|name| self.view.mark_dirty(name)),
        }
    }

    /// Looks whether it leads; ends its sessions when it does not any more.
    pub(crate) fn stand(&mut self, now: u64) {
        if self.group.role != Role::Leader {
            if self.led || !self.pending.is_empty() {
                self.step_down();
            }
            return;
        }
        if !self.led && self.applied >= self.lead_from {
            self.led = true;
            self.view.mark_all_dirty();
            let ready = self.view.nodes().filter(|n| n.status.state == NodeState::Ready);
            let ids: Vec<usize> = ready.filter_map(|n| n.metadata.name[1..].parse().ok()).collect();
            self.expiries.extend(ids.into_iter().map(|i| (i, now + LOST)));
        }
    }

    pub(crate) fn welcome(&mut self, node: usize, id: u64, now: u64) {
        let session = Session {
            id,
            heard: now,
            sent: None,
        };
        self.sessions.insert(node, session);
        self.expiries.remove(&node);
        self.presence.insert(node, true);
    }

    /// Ends the sessions of nodes that are silent.
    pub(crate) fn listen(&mut self, now: u64) {
        let silent: Vec<(usize, u64)> = self
            .sessions
            .iter()
            .filter(|(_, s)| now > s.heard + LOST)
            .map(|(node, s)| (*node, s.heard))
            .collect();
        for (node, heard) in silent {
            self.sessions.remove(&node);
            self.expiries.insert(node, heard + LOST);
        }
        let lost: Vec<usize> = self
            .expiries
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in lost {
            self.expiries.remove(&node);
            self.presence.insert(node, false);
        }
    }

    /// The next write of the controllers, unless one is on its way.
    pub(crate) fn control(&mut self, wall: Time, seed: u64) -> Option<usize> {
        if !self.led || self.in_flight.is_some() {
            return None;
        }
        while let Some(entry) = self.wakes.first_entry().filter(|e| *e.key() <= wall) {
            entry.remove().into_iter().for_each(|id| self.view.mark_dirty(id));
        }
        let (txn, basis) = self
            .write_presence(wall)
            .or_else(|| self.write_reports(wall))
            .or_else(|| self.plan(wall, seed))?;
        self.basis = basis;
        let index = self.group.append(txn);
        self.in_flight = Some(index);
        Some(index)
    }

    fn write_presence(&mut self, wall: Time) -> Option<(Txn, Basis)> {
        let mut writes = Vec::new();
        let presence = std::mem::take(&mut self.presence);
        for (&node, &present) in &presence {
            let Some(node) = self.view.node(&node_name(node)) else {
                continue;
            };
            let state = if present {
                NodeState::Ready
            } else {
                NodeState::Down
            };
            if node.status.state != state {
                let based_on = node.metadata.revision();
                let mut node = Node::clone(node);
                node.status.state = state;
                node.status.since = Some(wall);
                writes.push(Write::Update {
                    object: Object::Node(Arc::new(node)),
                    based_on,
                });
            }
        }
        Some((txn_of(&writes)?, Basis::Presence(presence)))
    }

    fn write_reports(&mut self, wall: Time) -> Option<(Txn, Basis)> {
        let mut merged: BTreeMap<String, Pod> = BTreeMap::new();
        let reports = std::mem::take(&mut self.reports);
        for (node, said) in &reports {
            let name = node_name(*node);
            let own = self.view.pod(&said.pod).filter(|pod| pod.spec.node_name == name);
            let Some(own) = own.filter(|pod| pod.metadata.uid == said.uid) else {
                continue;
            };
            let pod = merged.get(&said.pod).unwrap_or(own.as_ref());
            if let Some(pod) = merge_report(pod, said, wall) {
                merged.insert(said.pod.clone(), pod);
            }
        }
        let writes: Vec<Write> = merged
            .into_values()
            .map(|pod| Write::Update {
                based_on: pod.metadata.revision(),
                object: Object::Pod(Arc::new(pod)),
            })
            .collect();
        Some((txn_of(&writes)?, Basis::Reports(reports)))
    }

    fn plan(&mut self, wall: Time, seed: u64) -> Option<(Txn, Basis)> {
        let dirty = self.view.take_dirty();
        if dirty.is_empty() {
            return None;
        }
        let plan = reconcile(&self.view, &dirty, wall, seed);
        if let Some(at) = plan.wake_at {
            self.wakes.entry(at).or_default().extend(dirty.iter().cloned());
        }
        Some((txn_of(&plan.writes)?, Basis::Dirty(dirty.into_iter().collect())))
    }

    /// What is new for a node's session.
    pub(crate) fn assignment(&mut self, node: usize) -> Option<Assignment> {
        let session = self.sessions.get_mut(&node)?;
        let full = session.sent.is_none();
        let sent = session.sent.get_or_insert_default();
        let mut next = Assignment {
            full,
            pods: Vec::new(),
            removed: Vec::new(),
        };
        let name = node_name(node);
        let mut seen = BTreeSet::new();
        for pod in self.view.pods_of_node(&name) {
            let key = pod_key(pod);
            let known = sent.get(&key);
            if known
                .is_none_or(|k| k.metadata.uid != pod.metadata.uid || k.state.desired != pod.state.desired)
            {
                next.pods.push(pod.clone());
            }
            sent.insert(key.clone(), pod.clone());
            seen.insert(key);
        }
        next.removed = sent.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        sent.retain(|key, _| seen.contains(key));
        (full || !next.pods.is_empty() || !next.removed.is_empty()).then_some(next)
    }
}

/// Takes a change of the store over into the view, as `engine` does.
fn take_over(view: &mut View, event: &Event) {
    let (key, bytes) = (&event.object.key, &event.object.bytes);
    let gone = event.change == Change::Deleted;
    match key.kind.as_str() {
        Pod::RESOURCE if gone => view.remove_pod(&format!("{}/{}", key.namespace, key.name)),
        SwarmService::RESOURCE if gone => view.remove_service(&key.name),
        _ if gone => {}
        Pod::RESOURCE => view.upsert_pod(Arc::new(decode(bytes).expect("a pod"))),
        SwarmService::RESOURCE => view.upsert_service(Arc::new(decode(bytes).expect("a service"))),
        Node::RESOURCE => view.upsert_node(Arc::new(decode(bytes).expect("a node"))),
        Network::RESOURCE => view.upsert_network(Arc::new(decode(bytes).expect("a network"))),
        SwarmCluster::RESOURCE => view.upsert_cluster(Arc::new(decode(bytes).expect("a cluster"))),
        _ => {}
    }
}
