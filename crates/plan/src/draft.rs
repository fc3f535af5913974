//! A plan in the making: the view, and what this plan has already decided on top of it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use tripod_model::Time;
use tripod_model::network::PortProtocol;
use tripod_model::object::Kind;
use tripod_model::pod::Pod;

use crate::rng::Rng;
use crate::view::{NodeUse, View};
use crate::write::{Explanation, Plan, Write};

/// `nanos` after `t`.
pub(crate) fn after(t: Time, nanos: i64) -> Time {
    t.checked_add(SignedDuration::from_nanos(nanos))
        .unwrap_or(Time::MAX)
}

/// The view and the decisions made so far.
pub(crate) struct Draft<'v> {
    pub(crate) view: &'v View,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    /// What this plan adds to (or takes from) each node.
    node_changes: HashMap<String, NodeUse>,
    /// Addresses that this plan gives out, and the last of them, by network.
    taken: HashMap<String, (BTreeSet<IpAddr>, Option<IpAddr>)>,
    /// Published ports that this plan gives out.
    pub(crate) ports: HashMap<(PortProtocol, u16), String>,
}

impl<'v> Draft<'v> {
    pub(crate) fn new(view: &'v View, now: Time, seed: u64) -> Self {
        Self {
            view,
            now,
            rng: Rng::new(seed),
            plan: Plan::default(),
            node_changes: HashMap::new(),
            taken: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    /// Looks again at `t`, unless it looks again before.
    pub(crate) fn wake_at(&mut self, t: Time) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(t, |w| w.min(t)));
    }

    /// Whether `t` has come; otherwise looks again then.
    pub(crate) fn reached(&mut self, t: Time) -> bool {
        if t <= self.now {
            return true;
        }
        self.wake_at(t);
        false
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.plan.writes.push(write);
    }

    /// Notes a reason about an object.
    pub(crate) fn explain<K: Kind>(&mut self, about: &K, reason: &'static str, message: impl Into<String>) {
        self.plan.explanations.push(Explanation {
            resource: K::RESOURCE,
            namespace: about.meta().namespace.clone(),
            name: about.meta().name.clone(),
            reason,
            message: message.into(),
        });
    }

    /// Changes what a node's pods use.
    pub(crate) fn count(&mut self, node: &str, pod: &Pod, sign: i64) {
        if !self.node_changes.contains_key(node) {
            self.node_changes.insert(node.to_owned(), NodeUse::default());
        }
        if let Some(usage) = self.node_changes.get_mut(node) {
            usage.count(pod, sign);
        }
    }

    /// A sum over a node's pods, this plan's changes included.
    pub(crate) fn node_sum(&self, node: &str, of: impl Fn(&NodeUse) -> i64) -> i64 {
        self.view.node_use(node).map_or(0, &of) + self.node_changes.get(node).map_or(0, &of)
    }

    /// Gives out an address of a network that nobody uses.
    pub(crate) fn take_address(&mut self, network_id: &str) -> tripod_model::Result<ipnet::IpNet> {
        let network = self.view.network(network_id).cloned();
        let Some(pool) = network.as_ref().and_then(|n| n.spec.subnets.first()) else {
            return Err(tripod_model::Error::invalid(format_args!(
                "network {network_id} has no subnet"
            )));
        };
        if !self.taken.contains_key(network_id) {
            self.taken.insert(network_id.to_owned(), Default::default());
        }
        let held = self.view.network_use(network_id);
        let (taken, last) = self.taken.entry(network_id.to_owned()).or_default();
        let cursor = last.or_else(|| held.and_then(|h| h.cursor));
        let used = |a: &IpAddr| taken.contains(a) || held.is_some_and(|h| h.used.contains_key(a));
        let address = tripod_model::ipam::allocate_where(pool, used, cursor)?;
        taken.insert(address);
        *last = Some(address);
        ipnet::IpNet::new(address, pool.subnet.prefix_len()).map_err(tripod_model::Error::internal)
    }
}

/// A pod in the working set of a plan.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) pod: Arc<Pod>,
    /// As the store has it; `None` for one that this plan makes.
    original: Option<Arc<Pod>>,
    pub(crate) removed: bool,
}

impl Task {
    pub(crate) fn stored(pod: Arc<Pod>) -> Self {
        Self {
            original: Some(pod.clone()),
            pod,
            removed: false,
        }
    }

    pub(crate) fn made(pod: Pod) -> Self {
        Self {
            pod: Arc::new(pod),
            original: None,
            removed: false,
        }
    }

    /// The pod for changes: it is copied at the first one.
    pub(crate) fn edit(&mut self) -> &mut Pod {
        Arc::make_mut(&mut self.pod)
    }

    pub(crate) fn is_new(&self) -> bool {
        self.original.is_none()
    }

    /// The write that makes the store agree.
    pub(crate) fn into_write(self) -> Option<Write> {
        use crate::write::Object::Pod as Of;
        match (self.original, self.removed) {
            (None, true) => None,
            (None, false) => Some(Write::Create(Of(self.pod))),
            (Some(old), true) => {
                let based_on = old.metadata.revision();
                Some(Write::Delete {
                    object: Of(old),
                    based_on,
                })
            }
            (Some(old), false) if Arc::ptr_eq(&old, &self.pod) || old == self.pod => None,
            (Some(old), false) => Some(Write::Update {
                object: Of(self.pod),
                based_on: old.metadata.revision(),
            }),
        }
    }
}
