//! DaemonSets: a pod on each node that takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use tripod_model::k8s_openapi::api::core::v1::{Affinity, Toleration};
use tripod_model::node::Node;

use super::history::{self, History};
use super::kinds::DAEMON_SETS;
use super::object::{KObject, at};
use super::place::{effective_taints, node_matches, tolerates};
use super::pod::KPod;
use super::template::{REVISION_HASH, claim_pods, pod_of, share};
use super::work::{Work, later};

const COMPONENT: &str = "daemonset-controller";
/// Taints that pods of DaemonSets tolerate: (key, effect).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Seconds until a pod that failed is replaced.
const BACKOFF: i64 = 5;

/// The working set of one DaemonSet.
struct Set<'w, 'v> {
    w: &'w mut Work<'v>,
    object: Arc<KObject>,
    spec: DaemonSetSpec,
    history: History,
    template: Value,
    nodes: Vec<Arc<Node>>,
    /// By the node for which they are.
    pods: BTreeMap<String, Vec<Arc<KPod>>>,
}

/// Decides about a DaemonSet.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(DAEMON_SETS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<DaemonSet>().and_then(|s| s.spec.clone()) else {
        return;
    };
    let value = object.value();
    let template = value["spec"]["template"].clone();
    let collisions = value["status"]["collisionCount"]
        .as_i64()
        .and_then(|n| i32::try_from(n).ok());
    let history = history::of(w, &object, &spec.selector, &template, collisions);
    let mut pods: BTreeMap<String, Vec<Arc<KPod>>> = BTreeMap::new();
    for pod in claim_pods(w, &object, &spec.selector) {
        if let Some(node) = node_of(&pod) {
            pods.entry(node).or_default().push(pod);
        }
    }
    for list in pods.values_mut() {
        list.sort_by_key(|p| (p.pod.metadata.creation_timestamp, p.name().to_owned()));
    }
    let nodes = w.view.nodes().cloned().collect();
    let mut set = Set {
        w,
        object,
        spec,
        history,
        template,
        nodes,
        pods,
    };
    if !set.object.meta.is_deleted() {
        set.place();
        set.roll();
    }
    set.status();
}

/// The node of a pod, or the one to which its affinity binds it.
fn node_of(pod: &KPod) -> Option<String> {
    let placed = &pod.pod.spec.node_name;
    if !placed.is_empty() {
        return Some(placed.clone());
    }
    let affinity = pod.pod.spec.rest.get("affinity")?;
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array()?;
    let fields = terms.iter().filter_map(|t| t["matchFields"].as_array()).flatten();
    let mut names = fields.filter(|f| f["key"] == "metadata.name");
    names.find_map(|f| f["values"][0].as_str().map(str::to_owned))
}

impl Set<'_, '_> {
    fn tolerations(&self) -> Vec<Value> {
        let mut all = self.template["spec"]["tolerations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let host = self.template["spec"]["hostNetwork"] == true;
        let network = host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
        for (key, effect) in TOLERATED.into_iter().chain(network) {
            let covers = |t: &Value| t["key"] == key && t["effect"] == effect && t["operator"] == "Exists";
            if !all.iter().any(covers) {
                all.push(json!({ "key": key, "operator": "Exists", "effect": effect }));
            }
        }
        all
    }

    /// Whether a node is to have a pod, and whether one that it has may stay.
    fn wants(&self, node: &Node) -> (bool, bool) {
        let spec = &self.template["spec"];
        if spec["nodeName"]
            .as_str()
            .is_some_and(|n| !n.is_empty() && n != node.metadata.name)
        {
            return (false, false);
        }
        let selector = spec["nodeSelector"].as_object();
        let labels = &node.metadata.labels;
        let selected = selector
            .into_iter()
            .flatten()
            .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str());
        let affinity: Affinity = serde_json::from_value(spec["affinity"].clone()).unwrap_or_default();
        let required = affinity
            .node_affinity
            .and_then(|n| n.required_during_scheduling_ignored_during_execution);
        if !selected || required.is_some_and(|r| !node_matches(&r.node_selector_terms, node)) {
            return (false, false);
        }
        let list = Value::from(self.tolerations());
        let tolerations: Vec<Toleration> = serde_json::from_value(list).unwrap_or_default();
        let mut bad = effective_taints(node);
        bad.retain(|t| t.effect != "PreferNoSchedule" && !tolerates(&tolerations, t));
        // A node that is not ready gets its pod once it is, but keeps the one that it has.
        let not_ready = |t: &str| t.ends_with("/not-ready") || t.ends_with("/unreachable");
        let stays = bad.iter().all(|t| t.effect != "NoExecute");
        (bad.iter().all(|t| not_ready(&t.key)), stays)
    }

    fn is_new(&self, pod: &KPod) -> bool {
        pod.pod.metadata.labels.get(REVISION_HASH) == Some(&self.history.latest.hash)
    }

    fn is_available(&mut self, pod: &KPod) -> bool {
        let seconds = self.spec.min_ready_seconds.unwrap_or(0).into();
        match pod.info.available(seconds, self.w.now) {
            Ok(()) => !pod.info.deleted,
            Err(at) => {
                at.into_iter().for_each(|at| self.w.wake(at));
                false
            }
        }
    }

    fn strategy(&self) -> (bool, i32, i32) {
        let strategy = self.spec.update_strategy.as_ref();
        let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let total = i32::try_from(self.nodes.iter().filter(|n| self.wants(n).0).count()).unwrap_or(i32::MAX);
        let surge = rolling.map_or(0, |r| share(r.max_surge.as_ref(), total, true));
        let away = rolling.and_then(|r| r.max_unavailable.as_ref());
        let away = away.map_or(1, |m| share(Some(m), total, true));
        (rolls, if surge == 0 { away.max(1) } else { away }, surge)
    }

    /// Makes pods where there are none, ends those on nodes that do not take them.
    fn place(&mut self) {
        for node in self.nodes.clone() {
            let name = node.metadata.name.clone();
            let (wanted, stays) = self.wants(&node);
            let here = self.pods.get(&name).cloned().unwrap_or_default();
            let mut live: Vec<&Arc<KPod>> = Vec::new();
            for pod in &here {
                if pod.info.deleted {
                    continue;
                }
                if pod.info.phase.is_final() {
                    self.replace_failed(pod);
                } else {
                    live.push(pod);
                }
            }
            if !wanted && (live.is_empty() || !stays) {
                for pod in live {
                    self.delete(pod);
                }
                continue;
            }
            let surges = self.strategy().2 > 0;
            if live.len() > 1 && !surges {
                // The oldest stays.
                for pod in &live[1..] {
                    self.delete(pod);
                }
            }
            if here.is_empty() && wanted {
                self.create(&name);
            }
        }
        let known: Vec<String> = self.nodes.iter().map(|n| n.metadata.name.clone()).collect();
        let strays = self.pods.iter().filter(|(node, _)| !known.contains(node));
        let strays: Vec<Arc<KPod>> = strays.flat_map(|(_, pods)| pods.iter().cloned()).collect();
        for pod in strays {
            self.delete(&pod);
        }
    }

    fn replace_failed(&mut self, pod: &KPod) {
        let made = pod.pod.metadata.creation_timestamp.unwrap_or(self.w.now);
        if self.w.reached(later(made, BACKOFF)) {
            let text = format!(
                "Found failed daemon pod {}/{} on node {}, will try to kill it",
                pod.namespace(),
                pod.name(),
                pod.pod.spec.node_name
            );
            self.w.warn(&self.object, COMPONENT, "FailedDaemonPod", text);
            self.delete(pod);
        }
    }

    fn delete(&mut self, pod: &KPod) {
        if !pod.info.deleted {
            let text = format!("Deleted pod: {}", pod.name());
            self.w.note(&self.object, COMPONENT, "SuccessfulDelete", text);
            self.w.delete_pod(pod, None);
        }
    }

    fn create(&mut self, node: &str) {
        let mut pod = pod_of(&self.template, &self.object);
        pod["metadata"]["generateName"] = format!("{}-", self.object.name()).into();
        let labels = at(&mut pod, &["metadata", "labels"]);
        labels[REVISION_HASH] = self.history.latest.hash.as_str().into();
        pod["spec"]["tolerations"] = self.tolerations().into();
        let path = [
            "spec",
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ];
        let required = at(&mut pod, &path);
        let field = json!([{ "key": "metadata.name", "operator": "In", "values": [node] }]);
        let terms = required
            .get("nodeSelectorTerms")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let terms: Vec<Value> = match terms.is_empty() {
            true => vec![json!({ "matchFields": field })],
            false => terms
                .into_iter()
                .map(|mut t| {
                    t["matchFields"] = field.clone();
                    t
                })
                .collect(),
        };
        required["nodeSelectorTerms"] = terms.into();
        match self.w.create_pod(pod) {
            Ok(name) => {
                let text = format!("Created pod: {name}");
                self.w.note(&self.object, COMPONENT, "SuccessfulCreate", text);
            }
            Err(error) => {
                let text = format!("Error creating: {error}");
                self.w.warn(&self.object, COMPONENT, "FailedCreate", text);
                let at = later(self.w.now, 10);
                self.w.wake(at);
            }
        }
    }

    /// Replaces pods of earlier revisions within the bounds of the strategy.
    fn roll(&mut self) {
        let (rolls, most_away, most_more) = self.strategy();
        if !rolls {
            return;
        }
        let (mut away, mut more) = (0, 0);
        let mut old: Vec<(String, Arc<KPod>, bool, bool)> = Vec::new();
        for node in self.nodes.clone() {
            if !self.wants(&node).0 {
                continue;
            }
            let name = node.metadata.name.clone();
            let here = self.pods.get(&name).cloned().unwrap_or_default();
            let mut serves = false;
            for pod in &here {
                serves |= self.is_available(pod);
            }
            away += i32::from(!serves);
            let new = here.iter().find(|p| self.is_new(p)).cloned();
            let new_serves = new.as_ref().is_some_and(|p| self.is_available(p));
            let stale = here
                .iter()
                .find(|p| !self.is_new(p) && p.info.is_active())
                .cloned();
            if let Some(stale) = stale {
                more += i32::from(new.is_some());
                old.push((name, stale, new.is_some(), new_serves));
            }
        }
        for (node, pod, has_new, new_serves) in old {
            if most_more > 0 {
                if new_serves || !self.is_available(&pod) && has_new {
                    self.delete(&pod);
                } else if !has_new && more < most_more {
                    more += 1;
                    self.create(&node);
                }
                continue;
            }
            if !self.is_available(&pod) {
                self.delete(&pod);
            } else if away < most_away {
                away += 1;
                self.delete(&pod);
            }
        }
    }

    fn status(&mut self) {
        let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) =
            (0, 0, 0, 0, 0, 0);
        for node in self.nodes.clone() {
            let here = self.pods.get(&node.metadata.name).cloned().unwrap_or_default();
            let here: Vec<Arc<KPod>> = here.into_iter().filter(|p| p.info.is_active()).collect();
            let wanted = self.wants(&node).0;
            if !wanted {
                misplaced += i32::from(!here.is_empty());
                continue;
            }
            desired += 1;
            let best = here
                .iter()
                .max_by_key(|p| (p.info.ready, self.is_new(p)))
                .cloned();
            if let Some(pod) = best {
                current += 1;
                ready += i32::from(pod.info.ready);
                available += i32::from(self.is_available(&pod));
                updated += i32::from(here.iter().any(|p| self.is_new(p)));
            }
        }
        let mut status = json!({
            "currentNumberScheduled": current, "desiredNumberScheduled": desired,
            "numberMisscheduled": misplaced, "numberReady": ready,
            "observedGeneration": self.object.meta.generation,
        });
        for (field, n) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
            ("collisionCount", self.history.collisions.unwrap_or(0)),
        ] {
            if n > 0 {
                status[field] = n.into();
            }
        }
        let object = self.object.clone();
        let conditions = &object.value()["status"]["conditions"];
        if conditions.is_array() {
            status["conditions"] = conditions.clone();
        }
        self.w.set_status(&object, status);
        let hashes: Vec<String> = self
            .pods
            .values()
            .flatten()
            .filter_map(|p| p.pod.metadata.labels.get(REVISION_HASH).cloned())
            .collect();
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        history::trim(self.w, &self.history, limit, &|r| hashes.contains(&r.hash));
    }
}
