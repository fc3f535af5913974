//! What nodes have, what is used of it, and why a node will not do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};
use tripod_model::network::PortProtocol;
use tripod_model::node::{Availability, Node};

use super::super::pod::{Amounts, KPod};
use super::super::work::Work;
use super::asks::Asks;
use super::volumes::Claims;

/// Why a node will not do, in the scheduler's usual words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A taint that is not tolerated.
    Taint,
    /// Cordoned.
    Unschedulable,
    /// Node selector or affinity.
    Affinity,
    /// A port of the host is taken.
    Ports,
    /// Not enough of a resource.
    Insufficient(String),
    /// As many pods as it takes.
    TooManyPods,
    /// No pods to be near.
    Near,
    /// Pods to be apart from.
    Apart,
    /// Pods that want to be apart from it.
    OthersApart,
    /// Uneven over a topology.
    Spread,
    /// The node has not the label of the topology.
    SpreadLabel,
    /// A volume is elsewhere.
    Volume,
}

impl Reason {
    fn text(&self) -> String {
        match self {
            Self::Taint => "node(s) had untolerated taint(s)".into(),
            Self::Unschedulable => "node(s) were unschedulable".into(),
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Self::Ports => "node(s) didn't have free ports for the requested pod ports".into(),
            Self::Insufficient(what) => format!("Insufficient {what}"),
            Self::TooManyPods => "Too many pods".into(),
            Self::Near => "node(s) didn't match pod affinity rules".into(),
            Self::Apart => "node(s) didn't match pod anti-affinity rules".into(),
            Self::OthersApart => "node(s) didn't satisfy existing pods anti-affinity rules".into(),
            Self::Spread => "node(s) didn't match pod topology spread constraints".into(),
            Self::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)".into()
            }
            Self::Volume => "node(s) didn't match PersistentVolume's node affinity".into(),
        }
    }

    /// Whether fewer pods on the node would help.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Ports
                | Self::Insufficient(_)
                | Self::TooManyPods
                | Self::Apart
                | Self::OthersApart
                | Self::Spread
        )
    }
}

/// Why each node was refused.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(pub(super) BTreeMap<usize, Vec<Reason>>);

impl Refusals {
    pub(super) fn add(&mut self, node: usize, reasons: Vec<Reason>) {
        self.0.insert(node, reasons);
    }

    pub(super) fn text(&self, total: usize) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for reason in self.0.values().flatten() {
            *counts.entry(reason.text()).or_default() += 1;
        }
        let mut texts: Vec<String> = counts.into_iter().map(|(t, n)| format!("{n} {t}")).collect();
        texts.sort();
        format!("0/{total} nodes are available: {}.", texts.join(", "))
    }
}

/// A node's part of the facts.
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) node: Arc<Node>,
    pub(super) has: Amounts,
    pub(super) used: Amounts,
    pub(super) max_pods: i64,
    pub(super) pods: i64,
    ports: HashSet<(Option<IpAddr>, PortProtocol, u16)>,
    pub(super) taints: Vec<Taint>,
    pub(super) images: HashMap<String, i64>,
}

impl NodeFacts {
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.get(key).map(String::as_str)
    }

    fn taken(&self, ports: &[(Option<IpAddr>, PortProtocol, u16)]) -> bool {
        ports.iter().any(|(ip, protocol, port)| {
            self.ports.iter().any(|(other, p, n)| {
                p == protocol && n == port && (ip.is_none() || other.is_none() || ip == other)
            })
        })
    }
}

pub(super) struct Facts {
    pub(super) nodes: Vec<NodeFacts>,
    pub(super) by_name: HashMap<String, usize>,
}

/// The taints of a node, those that follow from its standing and from Swarm's availability included.
pub fn effective_taints(node: &Node) -> Vec<Taint> {
    let listed = node.spec.rest.get("taints").cloned().unwrap_or_default();
    let mut taints: Vec<Taint> = serde_json::from_value(listed).unwrap_or_default();
    let mut also = |key: &str, on: bool| {
        if on && !taints.iter().any(|t| t.key == key && t.effect == "NoSchedule") {
            taints.push(Taint {
                key: key.into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            });
        }
    };
    let closed = node.spec.unschedulable || node.spec.swarm.availability != Availability::Active;
    also("node.kubernetes.io/unschedulable", closed);
    let (not_ready, lost) = super::super::nodes::standing(node);
    also("node.kubernetes.io/unreachable", lost);
    also("node.kubernetes.io/not-ready", not_ready);
    taints
}

/// Whether any of the tolerations tolerates a taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        let exists = t.operator.as_deref() == Some("Exists");
        let value = t.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() && exists || key == taint.key)
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

/// Whether a node satisfies one term of a node selector.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = |field: &NodeSelectorRequirement| {
        (field.key == "metadata.name").then_some(node.metadata.name.as_str())
    };
    expressions
        .iter()
        .all(|e| requirement(e, labels.get(&e.key).map(String::as_str)))
        && fields.iter().all(|f| requirement(f, name(f)))
}

fn requirement(e: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let among = || value.is_some_and(|v| e.values.iter().flatten().any(|x| x == v));
    let number = |s: Option<&str>| s.and_then(|s| s.parse::<i64>().ok());
    let bound = || number(e.values.as_ref().and_then(|v| v.first()).map(String::as_str));
    match e.operator.as_str() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => number(value).zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

/// Whether a node satisfies any of the terms.
pub fn node_matches(terms: &[NodeSelectorTerm], node: &Node) -> bool {
    terms.iter().any(|t| term_matches(t, node))
}

/// What a node offers to pods: `status.allocatable`, or what its description says, and how many pods it takes.
pub(super) fn offers(node: &Node) -> (Amounts, i64) {
    let listed = node.status.rest.get("allocatable");
    let mut has = Amounts::of(listed);
    let pods = listed
        .and_then(|l| l["pods"].as_str())
        .map(super::super::quantity::whole);
    if listed.is_none() {
        has.cpu = node.status.description.nano_cpus / 1_000_000;
        has.memory = node.status.description.memory;
        has.ephemeral = i64::MAX;
    }
    (has, pods.unwrap_or(super::super::nodes::MAX_PODS))
}

impl Facts {
    pub(super) fn new(w: &Work<'_>) -> Self {
        let nodes: Vec<NodeFacts> = w.view.nodes().map(|node| node_facts(w, node)).collect();
        let by_name = nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (n.name.clone(), i))
            .collect();
        let mut facts = Self { nodes, by_name };
        facts.reserve_nominated(w);
        facts
    }

    /// Room made for a pod of high priority is its own until it is there.
    fn reserve_nominated(&mut self, w: &Work<'_>) {
        for (namespace, name) in &w.k.unplaced {
            let pod = w.k.pod(namespace, name);
            let node = pod.and_then(|p| p.pod.status.rest.get("nominatedNodeName")?.as_str());
            if let (Some(pod), Some(&at)) = (pod, node.and_then(|n| self.by_name.get(n))) {
                self.count(at, pod, 1);
            }
        }
    }

    pub(super) fn count(&mut self, at: usize, pod: &KPod, sign: i64) {
        let node = &mut self.nodes[at];
        node.used.add(&pod.info.requests, sign);
        node.pods += sign;
        for port in &pod.info.host_ports {
            if sign > 0 {
                node.ports.insert(*port);
            } else {
                node.ports.remove(port);
            }
        }
    }

    /// Another pod of a class is on a node.
    pub(super) fn take(&mut self, at: usize, asks: &Asks, sign: i64) {
        let node = &mut self.nodes[at];
        node.used.add(&asks.requests, sign);
        node.pods += sign;
        node.ports.extend(asks.host_ports.iter().copied());
    }

    /// Why a node will not do, other pods' places aside.
    pub(super) fn judge(&self, at: usize, asks: &Asks, claims: &Claims) -> Option<Vec<Reason>> {
        let node = &self.nodes[at];
        let cordoned = |t: &Taint| t.key == "node.kubernetes.io/unschedulable";
        let hard = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
        let mut bad = hard.filter(|t| !tolerates(&asks.tolerations, t)).peekable();
        if let Some(first) = bad.peek() {
            let reason = if cordoned(first) {
                Reason::Unschedulable
            } else {
                Reason::Taint
            };
            return Some(vec![reason]);
        }
        if !affinity_fits(asks, &node.node) {
            return Some(vec![Reason::Affinity]);
        }
        if !claims.fit(&node.node) {
            return Some(vec![Reason::Volume]);
        }
        self.room(at, asks)
    }

    /// What of a node's resources is too little.
    pub(super) fn room(&self, at: usize, asks: &Asks) -> Option<Vec<Reason>> {
        let node = &self.nodes[at];
        if node.taken(&asks.host_ports) {
            return Some(vec![Reason::Ports]);
        }
        let mut lacks = Vec::new();
        if node.pods + 1 > node.max_pods {
            lacks.push(Reason::TooManyPods);
        }
        let (has, used, asked) = (&node.has, &node.used, &asks.requests);
        let short = |asked: i64, has: i64, used: i64| asked > 0 && asked > has.saturating_sub(used);
        for (what, asked, has, used) in [
            ("cpu", asked.cpu, has.cpu, used.cpu),
            ("memory", asked.memory, has.memory, used.memory),
            (
                "ephemeral-storage",
                asked.ephemeral,
                has.ephemeral,
                used.ephemeral,
            ),
        ] {
            if short(asked, has, used) {
                lacks.push(Reason::Insufficient(what.into()));
            }
        }
        for (what, amount) in &asked.other {
            if short(*amount, has.other(what), used.other(what)) {
                lacks.push(Reason::Insufficient(what.clone()));
            }
        }
        (!lacks.is_empty()).then_some(lacks)
    }
}

pub(super) fn affinity_fits(asks: &Asks, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    asks.node_selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        && asks
            .node_required
            .as_ref()
            .is_none_or(|s| node_matches(&s.node_selector_terms, node))
}

fn node_facts(w: &Work<'_>, node: &Arc<Node>) -> NodeFacts {
    let name = node.metadata.name.clone();
    let (has, max_pods) = offers(node);
    let mut facts = NodeFacts {
        has,
        max_pods,
        used: Amounts::default(),
        pods: 0,
        ports: HashSet::new(),
        taints: effective_taints(node),
        images: images(node),
        node: node.clone(),
        name,
    };
    if let Some(used) = w.view.node_use(&facts.name) {
        facts.used = Amounts {
            cpu: used.nano_cpus / 1_000_000,
            memory: used.memory,
            ephemeral: used.ephemeral,
            other: used.generic.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        };
        facts.pods = used.active;
        facts.ports = used.host_ports.keys().copied().collect();
    }
    facts
}

fn images(node: &Node) -> HashMap<String, i64> {
    let list = node
        .status
        .rest
        .get("images")
        .and_then(serde_json::Value::as_array);
    let mut images = HashMap::new();
    for image in list.into_iter().flatten() {
        let size = image["sizeBytes"].as_i64().unwrap_or(0);
        for name in image["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|n| n.as_str())
        {
            images.insert(name.to_owned(), size);
        }
    }
    images
}
