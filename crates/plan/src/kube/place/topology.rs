//! Constraints among pods: near others, apart from others, evenly over domains.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, TopologySpreadConstraint};

use super::super::kinds::NAMESPACES;
use super::super::pod::KPod;
use super::super::selector::{self, Labels};
use super::super::work::Work;
use super::asks::Asks;
use super::facts::{Facts, Reason, affinity_fits, tolerates};

/// How many matching pods there are in each domain of a topology.
struct Term {
    key: String,
    weight: i64,
    counts: HashMap<String, i64>,
    /// A pod of the class matches its own term.
    own: bool,
}

struct Spread {
    key: String,
    max_skew: i64,
    min_domains: i64,
    hard: bool,
    own: bool,
    counts: BTreeMap<String, i64>,
}

/// The state of all constraints of a class.
pub(super) struct Topology {
    near: Vec<Term>,
    apart: Vec<Term>,
    preferred: Vec<Term>,
    spread: Vec<Spread>,
    /// Domains in which pods are that want to be apart from this class.
    shut: HashSet<(String, String)>,
}

/// A pod of another class that has a place, with the node.
type Placed<'a> = (&'a Arc<KPod>, usize);

fn placed<'a>(w: &'a Work<'_>, facts: &Facts) -> Vec<Placed<'a>> {
    let at = |name: &str| facts.by_name.get(name).copied();
    let stored = w.k.pods().filter(|p| p.info.kube && !p.info.phase.is_final());
    let stored = stored.filter_map(|p| Some((p, at(&p.pod.spec.node_name)?)));
    let new = w
        .placed
        .iter()
        .filter_map(|(node, (_, pods))| Some((pods, at(node)?)));
    let new = new.flat_map(|(pods, at)| pods.iter().map(move |p| (p, at)));
    stored.chain(new).collect()
}

/// Whether a term of a pod in `namespace` with `labels` means another pod.
fn means(w: &Work<'_>, term: &PodAffinityTerm, namespace: &str, labels: &Labels, other: &KPod) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let by_selector = term.namespace_selector.as_ref().is_some_and(|s| {
        let space = w.k.get(NAMESPACES, "", other.namespace());
        space.is_some_and(|n| selector::matches(s, &n.meta.labels)) || selector::is_empty(s)
    });
    let own = named.is_empty() && term.namespace_selector.is_none() && other.namespace() == namespace;
    if !(own || by_selector || named.iter().any(|n| n == other.namespace())) {
        return false;
    }
    let theirs = &other.pod.metadata.labels;
    let same = |k: &String| labels.get(k) == theirs.get(k);
    term.label_selector
        .as_ref()
        .is_some_and(|s| selector::matches(s, theirs))
        && term.match_label_keys.iter().flatten().all(same)
        && !term
            .mismatch_label_keys
            .iter()
            .flatten()
            .any(|k| labels.contains_key(k) && same(k))
}

impl Topology {
    pub(super) fn new(w: &Work<'_>, facts: &Facts, asks: &Asks, sample: &Arc<KPod>) -> Self {
        let others = placed(w, facts);
        let term = |weight: i64, t: &PodAffinityTerm| {
            let mut counts = HashMap::new();
            let matching = others
                .iter()
                .filter(|(p, _)| !p.info.deleted && means(w, t, &asks.namespace, &asks.labels, p));
            for (_, at) in matching {
                if let Some(value) = facts.nodes[*at].label(&t.topology_key) {
                    *counts.entry(value.to_owned()).or_default() += 1;
                }
            }
            Term {
                key: t.topology_key.clone(),
                weight,
                counts,
                own: means(w, t, &asks.namespace, &asks.labels, sample),
            }
        };
        Self {
            near: asks.near.iter().map(|t| term(1, t)).collect(),
            apart: asks.apart.iter().map(|t| term(1, t)).collect(),
            preferred: asks
                .preferred
                .iter()
                .map(|(weight, t)| term(*weight, t))
                .collect(),
            spread: asks
                .spread
                .iter()
                .map(|c| spread(facts, asks, c, &others))
                .collect(),
            shut: shut(w, facts, &others, sample),
        }
    }

    /// Whether a placement changes what is possible for the next one.
    pub(super) fn constrains(&self) -> bool {
        !(self.near.is_empty()
            && self.apart.is_empty()
            && self.preferred.is_empty()
            && self.spread.is_empty())
    }

    /// Why a node will not do.
    pub(super) fn judge(&self, facts: &Facts, at: usize) -> Option<Reason> {
        let node = &facts.nodes[at];
        if self
            .shut
            .iter()
            .any(|(key, value)| node.label(key) == Some(value.as_str()))
        {
            return Some(Reason::OthersApart);
        }
        let count = |t: &Term| node.label(&t.key).map(|v| t.counts.get(v).copied().unwrap_or(0));
        if self.apart.iter().any(|t| count(t).is_some_and(|n| n > 0)) {
            return Some(Reason::Apart);
        }
        // The first of pods that are to be near each other has nobody to be near.
        let nobody = self.near.iter().all(|t| t.counts.is_empty() && t.own);
        let near = |t: &Term| count(t).is_some_and(|n| n > 0 || nobody);
        if !self.near.iter().all(near) {
            return Some(Reason::Near);
        }
        self.spread.iter().filter(|s| s.hard).find_map(|s| {
            let Some(value) = node.label(&s.key) else {
                return Some(Reason::SpreadLabel);
            };
            let here = s.counts.get(value).copied().unwrap_or(0);
            (here + i64::from(s.own) - s.least() > s.max_skew).then_some(Reason::Spread)
        })
    }

    /// The more, the better a node does for what is only preferred.
    pub(super) fn preference(&self, facts: &Facts, at: usize) -> i64 {
        let node = &facts.nodes[at];
        let near = self.preferred.iter().map(|t| {
            let n = node
                .label(&t.key)
                .and_then(|v| t.counts.get(v))
                .copied()
                .unwrap_or(0);
            t.weight * n
        });
        let even = self.spread.iter().filter(|s| !s.hard).map(|s| {
            let n = node
                .label(&s.key)
                .and_then(|v| s.counts.get(v))
                .copied()
                .unwrap_or(0);
            -100 * n
        });
        near.sum::<i64>() + even.sum::<i64>()
    }

    /// A pod of the class is on a node.
    pub(super) fn take(&mut self, facts: &Facts, at: usize) {
        let node = &facts.nodes[at];
        let terms = self
            .near
            .iter_mut()
            .chain(&mut self.apart)
            .chain(&mut self.preferred);
        for term in terms.filter(|t| t.own) {
            if let Some(value) = node.label(&term.key) {
                *term.counts.entry(value.to_owned()).or_default() += 1;
            }
        }
        for spread in self.spread.iter_mut().filter(|s| s.own) {
            if let Some(value) = node.label(&spread.key)
                && let Some(n) = spread.counts.get_mut(value)
            {
                *n += 1;
            }
        }
    }
}

impl Spread {
    fn least(&self) -> i64 {
        let domains = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if domains < self.min_domains {
            return 0;
        }
        self.counts.values().copied().min().unwrap_or(0)
    }
}

fn spread(facts: &Facts, asks: &Asks, c: &TopologySpreadConstraint, others: &[Placed<'_>]) -> Spread {
    let honour_affinity = c.node_affinity_policy.as_deref() != Some("Ignore");
    let honour_taints = c.node_taints_policy.as_deref() == Some("Honor");
    let hard_keys: Vec<&str> = asks
        .spread
        .iter()
        .filter(|s| s.when_unsatisfiable == "DoNotSchedule")
        .map(|s| s.topology_key.as_str())
        .collect();
    let eligible = |at: usize| {
        let node = &facts.nodes[at];
        (!honour_affinity || affinity_fits(asks, &node.node))
            && (!honour_taints || {
                let mut hard = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
                hard.all(|t| tolerates(&asks.tolerations, t))
            })
            && hard_keys.iter().all(|k| node.label(k).is_some())
    };
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for at in (0..facts.nodes.len()).filter(|&at| eligible(at)) {
        if let Some(value) = facts.nodes[at].label(&c.topology_key) {
            counts.entry(value.to_owned()).or_default();
        }
    }
    let matches = |labels: &Labels| {
        let same = |k: &String| labels.get(k) == asks.labels.get(k);
        c.label_selector
            .as_ref()
            .is_some_and(|s| selector::matches(s, labels))
            && c.match_label_keys.iter().flatten().all(same)
    };
    for (pod, at) in others {
        if pod.info.deleted || pod.namespace() != asks.namespace || !matches(&pod.pod.metadata.labels) {
            continue;
        }
        if eligible(*at)
            && let Some(value) = facts.nodes[*at].label(&c.topology_key)
            && let Some(n) = counts.get_mut(value)
        {
            *n += 1;
        }
    }
    Spread {
        key: c.topology_key.clone(),
        max_skew: c.max_skew.into(),
        min_domains: c.min_domains.unwrap_or(1).into(),
        hard: c.when_unsatisfiable == "DoNotSchedule",
        own: matches(&asks.labels),
        counts,
    }
}

/// The domains of pods that want to be apart from a pod like `sample`.
fn shut(w: &Work<'_>, facts: &Facts, others: &[Placed<'_>], sample: &Arc<KPod>) -> HashSet<(String, String)> {
    let mut shut = HashSet::new();
    for (pod, at) in others {
        let Some(affinity) = pod
            .pod
            .spec
            .rest
            .get("affinity")
            .filter(|a| a.get("podAntiAffinity").is_some())
        else {
            continue;
        };
        let affinity: Affinity = serde_json::from_value(affinity.clone()).unwrap_or_default();
        let apart = affinity.pod_anti_affinity.unwrap_or_default();
        let terms = apart.required_during_scheduling_ignored_during_execution;
        for term in terms.into_iter().flatten() {
            if means(w, &term, pod.namespace(), &pod.pod.metadata.labels, sample)
                && let Some(value) = facts.nodes[*at].label(&term.topology_key)
            {
                shut.insert((term.topology_key.clone(), value.to_owned()));
            }
        }
    }
    shut
}
