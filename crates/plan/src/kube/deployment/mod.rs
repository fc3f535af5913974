//! Deployments: a ReplicaSet for each revision of the template, and the way from one to the next.

mod progress;
mod rolling;
mod scale;

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::kinds::{DEPLOYMENTS, REPLICA_SETS};
use super::object::KObject;
use super::template::{TEMPLATE_HASH, claim_objects, share, template_hash};
use super::work::{Work, controller_ref};

const COMPONENT: &str = "deployment-controller";
/// Number of the revision, on the Deployment and on its sets.
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are its own.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
];

/// A set of the Deployment.
#[derive(Clone)]
pub(super) struct Set {
    object: Arc<KObject>,
    /// `spec.replicas`, with what this plan changed.
    replicas: i32,
    ready: i32,
    available: i32,
    actual: i32,
    terminating: i32,
}

impl Set {
    fn of(object: Arc<KObject>) -> Option<Self> {
        let typed = object.get::<ReplicaSet>()?;
        let status = typed.status.clone().unwrap_or_default();
        Some(Self {
            replicas: typed.spec.as_ref().map_or(1, |s| s.replicas.unwrap_or(1)),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            actual: status.replicas,
            terminating: status.terminating_replicas.unwrap_or(0),
            object,
        })
    }

    fn revision(&self) -> i64 {
        let text = self.object.meta.annotations.get(REVISION);
        text.and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    fn annotated(&self, name: &str) -> Option<i32> {
        self.object.meta.annotations.get(name)?.parse().ok()
    }

    /// Orders sets by age.
    fn age(&self) -> (Option<tripod_model::Time>, Arc<str>) {
        (self.object.meta.creation_timestamp, self.object.key.name.clone())
    }
}

/// The working set of one Deployment.
pub(super) struct Rollout<'w, 'v> {
    w: &'w mut Work<'v>,
    object: Arc<KObject>,
    value: Value,
    spec: Arc<DeploymentSpec>,
    replicas: i32,
    new: Option<Set>,
    old: Vec<Set>,
    /// A set was made or found by this plan, or could not be made: (reason, message, whether it is a failure).
    news: Option<(&'static str, String, bool)>,
    collisions: Option<i32>,
}

/// Decides about a Deployment.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(DEPLOYMENTS, namespace, name).cloned() else {
        return;
    };
    let typed = object.get::<tripod_model::k8s_openapi::api::apps::v1::Deployment>();
    let Some(spec) = typed.and_then(|t| t.spec.clone()) else {
        return;
    };
    let selector: LabelSelector = spec.selector.clone();
    if super::selector::is_empty(&selector) {
        w.warn(
            &object,
            COMPONENT,
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        );
        return;
    }
    let sets = claim_objects(w, &object, REPLICA_SETS, &selector);
    let mut sets: Vec<Set> = sets.into_iter().filter_map(Set::of).collect();
    sets.sort_by_key(Set::age);
    let value = object.value();
    let new = newest(&value["spec"]["template"], &sets);
    let new = new.map(|i| sets.remove(i));
    let mut rollout = Rollout {
        collisions: value["status"]["collisionCount"]
            .as_i64()
            .and_then(|n| i32::try_from(n).ok()),
        replicas: spec.replicas.unwrap_or(1),
        spec: Arc::new(spec),
        w,
        object,
        value,
        new,
        old: sets,
        news: None,
    };
    rollout.run();
}

/// The set whose template is the Deployment's; the oldest when there are several.
fn newest(template: &Value, sets: &[Set]) -> Option<usize> {
    sets.iter().position(|set| {
        let mut other = set.object.value()["spec"]["template"].take();
        if let Some(labels) = other["metadata"]["labels"].as_object_mut() {
            labels.remove(TEMPLATE_HASH);
        }
        plain(template.clone()) == plain(other)
    })
}

/// A template without what is empty in it, so that defaults written out and left out compare equal.
fn plain(mut template: Value) -> Value {
    if let Some(meta) = template["metadata"].as_object_mut() {
        meta.retain(|_, v| !(v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty)));
    }
    template
}

impl Rollout<'_, '_> {
    fn run(&mut self) {
        if self.object.meta.is_deleted() {
            self.status();
            return;
        }
        if self.spec.paused == Some(true) {
            self.scale_all();
            self.clean_up();
            self.status();
            return;
        }
        if self.is_scaling() {
            self.scale_all();
            self.status();
            return;
        }
        if self.recreates() {
            self.recreate();
        } else {
            self.roll();
        }
        self.settle_revision();
        if self.is_complete() {
            self.clean_up();
        }
        self.status();
    }

    fn recreates(&self) -> bool {
        let strategy = self.spec.strategy.as_ref().and_then(|s| s.type_.as_deref());
        strategy == Some("Recreate")
    }

    /// How many pods more, and fewer, than asked for there may be.
    fn bounds(&self) -> (i32, i32) {
        if self.recreates() {
            return (0, self.replicas);
        }
        let rolling = self
            .spec
            .strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        let (surge, unavailable) = match rolling {
            Some(r) => (r.max_surge.clone(), r.max_unavailable.clone()),
            None => (None, None),
        };
        let quarter =
            tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".into());
        let surge = share(
            Some(&surge.unwrap_or_else(|| quarter.clone())),
            self.replicas,
            true,
        );
        let unavailable = share(Some(&unavailable.unwrap_or(quarter)), self.replicas, false);
        if surge == 0 && unavailable == 0 {
            return (0, 1);
        }
        (surge, unavailable.min(self.replicas))
    }

    fn sets(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    fn total(&self) -> i32 {
        self.sets().map(|s| s.replicas).sum()
    }

    /// The annotations that a set has from its Deployment.
    fn annotations(&self) -> serde_json::Map<String, Value> {
        let own = self.object.meta.annotations.iter();
        own.filter(|(k, _)| !OWN_ANNOTATIONS.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.as_str().into()))
            .collect()
    }

    fn size_annotations(&self) -> [(&'static str, Value); 2] {
        let (surge, _) = self.bounds();
        let max = if self.replicas == 0 {
            0
        } else {
            self.replicas + surge
        };
        [
            (DESIRED, self.replicas.to_string().into()),
            (MAX, max.to_string().into()),
        ]
    }

    /// Makes the set of the present template when there is none; `replicas` are those that it starts with.
    fn make_new(&mut self, replicas: i32) {
        let template = self.value["spec"]["template"].clone();
        let hash = template_hash(&template, self.collisions);
        let name = format!("{}-{hash}", self.object.name());
        let ns = self.object.namespace().to_owned();
        if self.w.k.get(REPLICA_SETS, &ns, &name).is_some() {
            // Another template has the same hash: the next plan tries with another count.
            self.collisions = Some(self.collisions.unwrap_or(0) + 1);
            self.w.again();
            return;
        }
        let mut annotations = self.annotations();
        annotations.extend(self.size_annotations().map(|(k, v)| (k.to_owned(), v)));
        annotations.insert(REVISION.into(), self.next_revision().to_string().into());
        let mut template = template;
        let labels = super::object::at(&mut template, &["metadata", "labels"]);
        labels[TEMPLATE_HASH] = hash.as_str().into();
        let labels = labels.clone();
        let mut spec = json!({
            "replicas": replicas, "template": template, "selector": self.value["spec"]["selector"],
        });
        spec["selector"]["matchLabels"][TEMPLATE_HASH] = hash.as_str().into();
        if let Some(seconds) = self.spec.min_ready_seconds.filter(|n| *n != 0) {
            spec["minReadySeconds"] = seconds.into();
        }
        let set = json!({
            "metadata": {
                "name": name, "namespace": ns, "labels": labels, "annotations": annotations,
                "ownerReferences": [controller_ref(&self.object)],
            },
            "spec": spec,
            "status": { "replicas": 0 },
        });
        if self.w.create(REPLICA_SETS, set).is_some() {
            let text = format!("Created new replica set \"{name}\"");
            self.news = Some(("NewReplicaSetCreated", text, false));
            if replicas > 0 {
                let text = format!("Scaled up replica set {name} from 0 to {replicas}");
                self.w.note(&self.object, COMPONENT, "ScalingReplicaSet", text);
            }
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0) + 1
    }

    /// Gives a set another size.
    fn resize(&mut self, set: &Set, replicas: i32) -> Set {
        let mut set = set.clone();
        let sizes = self.size_annotations();
        self.w.update(&set.object, |v| {
            v["spec"]["replicas"] = replicas.into();
            let annotations = super::object::at(v, &["metadata", "annotations"]);
            for (key, value) in sizes {
                annotations[key] = value;
            }
        });
        if replicas != set.replicas {
            let way = if replicas > set.replicas { "up" } else { "down" };
            let text = format!(
                "Scaled {way} replica set {} from {} to {replicas}",
                set.object.name(),
                set.replicas
            );
            self.w.note(&self.object, COMPONENT, "ScalingReplicaSet", text);
        }
        set.replicas = replicas;
        set
    }

    /// Has the set of the present template carry the latest revision number, and the Deployment too.
    fn settle_revision(&mut self) {
        let Some(new) = self.new.clone() else {
            if self.news.is_some() {
                let revision = self.next_revision();
                self.annotate_revision(revision);
            }
            return;
        };
        let mut revision = new.revision();
        let next = self.next_revision();
        let key = new.object.key.clone();
        let renewed = revision < next;
        let annotations = self.annotations();
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let before = revision;
        revision = revision.max(next);
        if !self.w.wrote(&key) {
            self.w.update(&new.object, |v| {
                let present = super::object::at(v, &["metadata", "annotations"]);
                for (key, value) in annotations {
                    present[&key] = value;
                }
                if renewed {
                    present[REVISION] = revision.to_string().into();
                    if before > 0 {
                        let history = present[REVISION_HISTORY].as_str().map(str::to_owned);
                        let history = history.map_or_else(|| before.to_string(), |h| format!("{h},{before}"));
                        present[REVISION_HISTORY] = history.into();
                    }
                }
                if v["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != i64::from(min_ready) {
                    v["spec"]["minReadySeconds"] = min_ready.into();
                }
            });
        } else if renewed {
            self.w.again();
        }
        if renewed && self.news.is_none() {
            let text = format!("Found new replica set \"{}\"", new.object.name());
            self.news = Some(("FoundNewReplicaSet", text, false));
        }
        self.annotate_revision(revision);
    }

    fn annotate_revision(&mut self, revision: i64) {
        self.value["metadata"]["annotations"][REVISION] = revision.to_string().into();
    }

    /// Removes the oldest sets beyond the history that is kept.
    fn clean_up(&mut self) {
        let limit = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(usize::MAX);
        let mut idle: Vec<Set> = self
            .old
            .iter()
            .filter(|s| !s.object.meta.is_deleted() && s.replicas == 0 && s.actual == 0)
            .cloned()
            .collect();
        idle.sort_by_key(|s| (s.revision(), s.age()));
        let surplus = idle.len().saturating_sub(limit);
        for set in idle.into_iter().take(surplus) {
            self.w.delete(&set.object);
        }
    }
}
