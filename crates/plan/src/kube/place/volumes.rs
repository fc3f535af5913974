//! The claims of a pod: on which nodes their volumes are, and which of them wait for the pod's node.

use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tripod_model::node::Node;

use super::super::kinds::{CLAIMS, STORAGE_CLASSES, VOLUMES};
use super::super::object::KObject;
use super::super::pod::{KPod, claiming};
use super::super::storage;
use super::super::work::Work;
use super::facts::node_matches;

/// The claims of a class of pods.
#[derive(Default)]
pub(super) struct Claims {
    /// Volumes that are bound.
    bound: Vec<Arc<PersistentVolume>>,
    /// There are claims that wait for the first pod's node.
    waits: bool,
}

/// Names of the claims of a pod.
pub(super) fn names(pod: &KPod) -> Vec<String> {
    let claims = claiming(&pod.pod).iter().filter_map(|v| {
        let named = v["persistentVolumeClaim"]["claimName"]
            .as_str()
            .map(str::to_owned);
        let own = v
            .get("ephemeral")
            .map(|_| format!("{}-{}", pod.name(), v["name"].as_str().unwrap_or_default()));
        named.or(own)
    });
    claims.collect()
}

/// The claims of a pod, or why it cannot be placed.
pub(super) fn of(w: &Work<'_>, pod: &KPod) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for name in names(pod) {
        let Some(object) = w.k.get(CLAIMS, pod.namespace(), &name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if object.meta.is_deleted() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        match volume_of(w, object) {
            Some(volume) => claims.bound.push(volume),
            None if storage::waits_for_consumer(w, object) => claims.waits = true,
            None => return Err("pod has unbound immediate PersistentVolumeClaims".into()),
        }
    }
    Ok(claims)
}

fn volume_of(w: &Work<'_>, claim: &KObject) -> Option<Arc<PersistentVolume>> {
    let claim = claim.get::<PersistentVolumeClaim>()?;
    let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
    let name = claim.spec.as_ref()?.volume_name.clone().filter(|_| bound)?;
    w.k.get(VOLUMES, "", &name)?.get::<PersistentVolume>()
}

impl Claims {
    /// Whether the volumes can be reached from a node.
    pub(super) fn fit(&self, node: &Node) -> bool {
        self.bound.iter().all(|volume| {
            let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
            let required = affinity.and_then(|a| a.required.as_ref());
            required.is_none_or(|r| node_matches(&r.node_selector_terms, node))
        })
    }
}

/// Has the claims that wait for a node be bound there. Whether all are bound, so that the pod can go.
pub(super) fn settle(w: &mut Work<'_>, pod: &KPod, claims: &Claims, node: &str) -> bool {
    if !claims.waits {
        return true;
    }
    let mut all = true;
    for name in names(pod) {
        let Some(object) = w.k.get(CLAIMS, pod.namespace(), &name).cloned() else {
            return false;
        };
        if volume_of(w, &object).is_some() {
            continue;
        }
        all = false;
        let chosen = object.meta.annotations.contains_key(storage::SELECTED_NODE);
        if !chosen
            && w.k
                .get(STORAGE_CLASSES, "", &storage::class_of(&object))
                .is_some()
        {
            w.update(&object, |v| {
                let annotations = super::super::object::at(v, &["metadata", "annotations"]);
                annotations[storage::SELECTED_NODE] = node.into();
            });
        }
    }
    all
}
