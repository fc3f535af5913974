//! Claims and volumes: binding, and the volumes made for claims of the class `standard`: directories of a node.

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tripod_model::node::NodeState;

use super::kinds::{CLAIMS, STORAGE_CLASSES, VOLUMES};
use super::object::{KObject, at};
use super::quantity::whole;
use super::selector;
use super::work::{Work, later};

/// Annotation with the node that the scheduler chose for a claim's volume.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of local directories.
pub const PROVISIONER: &str = "tripod.dev/local";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const COMPONENT: &str = "persistentvolume-controller";
/// Label of a volume whose directory its node is to remove: the node's name.
pub const RECLAIM: &str = "tripod.dev/reclaim";
/// Seconds that a node has for it, and after which one that is away is looked for again.
const RECLAIMED_AFTER: i64 = 1;
const AWAY: i64 = 30;
/// Where volumes made for claims are, below the node's data root: the node replaces this prefix.
pub const LOCAL_PREFIX: &str = "/var/lib/tripod/volumes/kubernetes";

/// The name of a claim's class.
pub(super) fn class_of(claim: &KObject) -> String {
    let typed = claim.get::<PersistentVolumeClaim>();
    let named = typed.and_then(|c| c.spec.as_ref()?.storage_class_name.clone());
    let legacy = claim
        .meta
        .annotations
        .get("volume.beta.kubernetes.io/storage-class")
        .cloned();
    legacy.or(named).unwrap_or_default()
}

/// Whether a claim waits for the node of the first pod that uses it.
pub(super) fn waits_for_consumer(w: &Work<'_>, claim: &KObject) -> bool {
    let class = w.k.get(STORAGE_CLASSES, "", &class_of(claim));
    class.is_some_and(|c| c.value()["volumeBindingMode"] == "WaitForFirstConsumer")
}

/// Decides about a claim.
pub(super) fn decide_claim(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(claim) = w.k.get(CLAIMS, namespace, name).cloned() else {
        return;
    };
    let Some(typed) = claim.get::<PersistentVolumeClaim>() else {
        return;
    };
    let used = is_used(w, namespace, name);
    if claim.meta.is_deleted() {
        if !used {
            w.update(&claim, |v| drop_finalizer(v, CLAIM_PROTECTION));
        }
        return;
    }
    let phase = typed
        .status
        .as_ref()
        .and_then(|s| s.phase.clone())
        .unwrap_or_default();
    let volume = typed
        .spec
        .as_ref()
        .and_then(|s| s.volume_name.clone())
        .filter(|v| !v.is_empty());
    if phase == "Bound" {
        let lost = volume.as_ref().is_some_and(|v| w.k.get(VOLUMES, "", v).is_none());
        if lost {
            w.warn(
                &claim,
                COMPONENT,
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            );
            w.update(&claim, |v| v["status"]["phase"] = "Lost".into());
        }
        return;
    }
    let class = default_class(w, &claim);
    if let Some(volume) = volume {
        // Named by the user, or found by an earlier plan.
        if let Some(volume) = w.k.get(VOLUMES, "", &volume).cloned()
            && (is_free(&volume) || is_for(&volume, &claim))
        {
            bind(w, &claim, &volume, &class);
            return;
        }
        pend(w, &claim, &class);
        return;
    }
    if let Some(volume) = find(w, &claim, &typed, &class) {
        bind(w, &claim, &volume, &class);
        return;
    }
    let waits =
        w.k.get(STORAGE_CLASSES, "", &class)
            .is_some_and(|c| c.value()["volumeBindingMode"] == "WaitForFirstConsumer");
    let node = claim.meta.annotations.get(SELECTED_NODE).cloned();
    let provisions =
        w.k.get(STORAGE_CLASSES, "", &class)
            .is_some_and(|c| c.value()["provisioner"] == PROVISIONER);
    match node {
        _ if !provisions => {
            if !class.is_empty() && w.k.get(STORAGE_CLASSES, "", &class).is_none() {
                let text = format!("storageclass.storage.k8s.io \"{class}\" not found");
                w.warn(&claim, COMPONENT, "ProvisioningFailed", text);
            } else if class.is_empty() {
                let text = "no persistent volumes available for this claim and no storage class is set";
                w.note(&claim, COMPONENT, "FailedBinding", text);
            }
        }
        Some(node) => provision(w, &claim, &typed, &class, &node),
        None if waits => {
            let text = "waiting for first consumer to be created before binding";
            w.note(&claim, COMPONENT, "WaitForFirstConsumer", text);
        }
        None => {
            // Bound at once: any node that takes pods.
            let mut nodes = w.view.nodes().filter(|n| crate::enforce::takes_tasks(n));
            if let Some(node) = nodes.next().map(|n| n.metadata.name.clone()) {
                provision(w, &claim, &typed, &class, &node);
            }
        }
    }
    pend(w, &claim, &class);
}

fn is_used(w: &Work<'_>, namespace: &str, name: &str) -> bool {
    let mut pods = w.k.pods_in(namespace).filter(|p| !p.info.phase.is_final());
    pods.any(|p| {
        super::pod::claiming(&p.pod).iter().any(|v| {
            v["persistentVolumeClaim"]["claimName"] == name
                || v.get("ephemeral").is_some()
                    && format!("{}-{}", p.name(), v["name"].as_str().unwrap_or_default()) == name
        })
    })
}

fn drop_finalizer(v: &mut Value, finalizer: &str) {
    if let Some(all) = v["metadata"]["finalizers"].as_array_mut() {
        all.retain(|f| f != finalizer);
    }
}

/// The class of a claim: its own, or the default one where it names none.
fn default_class(w: &Work<'_>, claim: &KObject) -> String {
    let named = claim
        .get::<PersistentVolumeClaim>()
        .and_then(|c| c.spec.as_ref()?.storage_class_name.clone());
    match named {
        Some(class) => class,
        None if claim
            .meta
            .annotations
            .contains_key("volume.beta.kubernetes.io/storage-class") =>
        {
            class_of(claim)
        }
        None => {
            let mut all = w.k.all(STORAGE_CLASSES);
            let default = all.find(|c| c.meta.annotations.get(DEFAULT_CLASS).is_some_and(|v| v == "true"));
            default.map_or_else(String::new, |c| c.name().to_owned())
        }
    }
}

fn claim_ref(volume: &KObject) -> Value {
    volume.value()["spec"]["claimRef"].take()
}

fn is_free(volume: &KObject) -> bool {
    claim_ref(volume).is_null()
}

fn is_for(volume: &KObject, claim: &KObject) -> bool {
    let to = claim_ref(volume);
    let uid = to["uid"].as_str().unwrap_or_default();
    to["name"] == *claim.name()
        && to["namespace"] == *claim.namespace()
        && (uid.is_empty() || uid == &*claim.meta.uid)
}

/// The smallest volume that will do.
fn find(w: &Work<'_>, claim: &KObject, typed: &PersistentVolumeClaim, class: &str) -> Option<Arc<KObject>> {
    let spec = typed.spec.as_ref()?;
    let asked = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref()?.get("storage"));
    let asked = asked.map_or(0, |q| whole(&q.0));
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let kind = spec.volume_mode.as_deref().unwrap_or("Filesystem");
    let mut best: Option<(bool, i64, Arc<KObject>)> = None;
    for object in w.k.all(VOLUMES) {
        let reserved = is_for(object, claim);
        if object.meta.is_deleted() || !(reserved || is_free(object)) || w.wrote(&object.key) {
            continue;
        }
        let Some(volume) = object.get::<PersistentVolume>() else {
            continue;
        };
        let Some(vs) = &volume.spec else { continue };
        let capacity = vs
            .capacity
            .as_ref()
            .and_then(|c| c.get("storage"))
            .map_or(0, |q| whole(&q.0));
        let has = vs.access_modes.as_deref().unwrap_or_default();
        let labels = &object.meta.labels;
        let fits = capacity >= asked
            && modes.iter().all(|m| has.contains(m))
            && vs.storage_class_name.as_deref().unwrap_or_default() == class
            && vs.volume_mode.as_deref().unwrap_or("Filesystem") == kind
            && spec
                .selector
                .as_ref()
                .is_none_or(|s| selector::matches(s, labels));
        let order = (!reserved, capacity);
        if (fits || reserved) && best.as_ref().is_none_or(|(r, c, _)| order < (*r, *c)) {
            best = Some((order.0, order.1, object.clone()));
        }
    }
    best.map(|(_, _, object)| object)
}

fn reference(claim: &KObject) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name(),
        "namespace": claim.namespace(), "uid": &*claim.meta.uid,
        "resourceVersion": claim.revision.to_string(),
    })
}

fn bind(w: &mut Work<'_>, claim: &KObject, volume: &KObject, class: &str) {
    let to = reference(claim);
    let free = is_free(volume);
    w.update(volume, |v| {
        if v["spec"]["claimRef"]["uid"] != to["uid"] {
            v["spec"]["claimRef"] = to;
        }
        if free {
            at(v, &["metadata", "annotations"])[BOUND_BY_CONTROLLER] = "yes".into();
        }
        v["status"]["phase"] = "Bound".into();
    });
    let vs = volume.value()["spec"].take();
    w.update(claim, |v| {
        v["spec"]["volumeName"] = volume.name().into();
        if v["spec"].get("storageClassName").is_none() && !class.is_empty() {
            v["spec"]["storageClassName"] = class.into();
        }
        let annotations = at(v, &["metadata", "annotations"]);
        annotations[BIND_COMPLETED] = "yes".into();
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
        v["status"] = json!({
            "phase": "Bound", "accessModes": vs["accessModes"], "capacity": vs["capacity"],
        });
    });
}

fn pend(w: &mut Work<'_>, claim: &KObject, class: &str) {
    w.update(claim, |v| {
        if v["status"]["phase"].is_null() {
            v["status"]["phase"] = "Pending".into();
        }
        if v["spec"].get("storageClassName").is_none() && !class.is_empty() {
            v["spec"]["storageClassName"] = class.into();
        }
    });
}

/// Makes a volume for a claim: a directory on a node, made when the first pod needs it.
fn provision(w: &mut Work<'_>, claim: &KObject, typed: &PersistentVolumeClaim, class: &str, node: &str) {
    let name = format!("pvc-{}", claim.meta.uid);
    if w.k.get(VOLUMES, "", &name).is_some() {
        return;
    }
    let Some(spec) = &typed.spec else { return };
    let asked = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref()?.get("storage"));
    let policy =
        w.k.get(STORAGE_CLASSES, "", class)
            .map(|c| c.value()["reclaimPolicy"].clone());
    let policy = policy.filter(Value::is_string).unwrap_or_else(|| "Delete".into());
    let path = format!("{LOCAL_PREFIX}/{name}_{}_{}", claim.namespace(), claim.name());
    let volume = json!({
        "metadata": {
            "name": name,
            "annotations": { PROVISIONED_BY: PROVISIONER },
            "finalizers": [VOLUME_PROTECTION],
        },
        "spec": {
            "capacity": { "storage": asked.map_or("0", |q| q.0.as_str()) },
            "accessModes": spec.access_modes,
            "claimRef": reference(claim),
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": class,
            "volumeMode": spec.volume_mode.as_deref().unwrap_or("Filesystem"),
            "hostPath": { "path": path, "type": "DirectoryOrCreate" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{
                "key": "kubernetes.io/hostname", "operator": "In", "values": [node],
            }] }] } },
        },
        "status": { "phase": "Pending" },
    });
    if w.create(VOLUMES, volume).is_some() {
        let text = format!("Successfully provisioned volume {name}");
        w.note(claim, PROVISIONER, "ProvisioningSucceeded", text);
        w.again();
    }
}

/// Whether the directory of a volume is gone: its node is told first, and given a moment. A node that is away is waited
/// for; one that is no member any more is not.
fn reclaimed(w: &mut Work<'_>, volume: &KObject, value: &Value) -> bool {
    let terms = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
    let Some(node) = value
        .pointer(terms)
        .and_then(Value::as_str)
        .and_then(|n| w.view.node(n))
    else {
        return true;
    };
    let (name, ready) = (node.metadata.name.clone(), node.status.state == NodeState::Ready);
    let told = volume.meta.labels.contains_key(RECLAIM);
    if !told {
        let now = super::work::stamp(w.now);
        w.update(volume, |v| {
            at(v, &["metadata", "labels"])[RECLAIM] = name.into();
            v["status"]["phase"] = "Released".into();
            v["status"]["lastPhaseTransitionTime"] = now;
        });
        w.wake(later(w.now, RECLAIMED_AFTER));
        return false;
    }
    if !ready {
        w.wake(later(w.now, AWAY));
        return false;
    }
    let since = value["status"]["lastPhaseTransitionTime"].as_str();
    let since = since.and_then(|t| t.parse().ok()).unwrap_or(w.now);
    w.reached(later(since, RECLAIMED_AFTER))
}

/// Decides about a volume.
pub(super) fn decide_volume(w: &mut Work<'_>, name: &str) {
    let Some(volume) = w.k.get(VOLUMES, "", name).cloned() else {
        return;
    };
    let to = claim_ref(&volume);
    let claim = match (to["namespace"].as_str(), to["name"].as_str()) {
        (Some(ns), Some(name)) => w.k.get(CLAIMS, ns, name).cloned(),
        _ => None,
    };
    let uid = to["uid"].as_str().unwrap_or_default();
    let held = claim
        .as_ref()
        .is_some_and(|c| uid.is_empty() || *c.meta.uid == *uid);
    if volume.meta.is_deleted() {
        if !held {
            w.update(&volume, |v| drop_finalizer(v, VOLUME_PROTECTION));
        }
        return;
    }
    let value = volume.value();
    let phase = value["status"]["phase"].as_str().unwrap_or_default();
    if to.is_null() || uid.is_empty() {
        if phase != "Available" {
            w.update(&volume, |v| v["status"]["phase"] = "Available".into());
        }
        return;
    }
    if held {
        let bound = claim.is_some_and(|c| c.value()["spec"]["volumeName"] == *name);
        if bound && phase != "Bound" {
            w.update(&volume, |v| v["status"]["phase"] = "Bound".into());
        }
        return;
    }
    let provisioned = volume.meta.annotations.contains_key(PROVISIONED_BY);
    match value["spec"]["persistentVolumeReclaimPolicy"].as_str() {
        Some("Delete") if provisioned => {
            if !reclaimed(w, &volume, &value) {
                return;
            }
            if volume.meta.finalizers.iter().any(|f| f == VOLUME_PROTECTION) {
                w.update(&volume, |v| drop_finalizer(v, VOLUME_PROTECTION));
            } else {
                w.delete(&volume);
            }
        }
        _ => {
            if phase != "Released" {
                w.update(&volume, |v| v["status"]["phase"] = "Released".into());
            }
        }
    }
}
