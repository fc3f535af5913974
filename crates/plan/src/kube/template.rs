//! Pods from templates: names, owners, hashes; and which pods an owner takes and lets go.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tripod_model::object::OwnerReference;

use super::kinds;
use super::object::KObject;
use super::pod::KPod;
use super::selector;
use super::work::{Work, controller_ref};

/// Letters of names that are made up: no vowels, so that they spell nothing.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Label with the hash of the template of a Deployment's revision.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
/// Label with the hash of the revision of a StatefulSet or DaemonSet.
pub(super) const REVISION_HASH: &str = "controller-revision-hash";

impl Work<'_> {
    /// A name that starts with `prefix` and ends in five letters.
    pub(crate) fn generate_name(&mut self, prefix: &str) -> String {
        let mut bits = self.rng.next_u64();
        let mut name: String = prefix.chars().take(58).collect();
        for _ in 0..5 {
            name.push(char::from(LETTERS[(bits % 27) as usize]));
            bits /= 27;
        }
        name
    }
}

/// The 32-bit FNV-1a hash.
pub(crate) fn fnv32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|p| p.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// A hash in the letters of names that are made up.
pub(crate) fn safe_text(hash: u32) -> String {
    let digits = hash.to_string().into_bytes();
    digits
        .iter()
        .map(|d| char::from(LETTERS[usize::from(*d) % LETTERS.len()]))
        .collect()
}

/// The hash of a template; collisions are told apart by their count.
pub(crate) fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let text = super::object::encode_value(template);
    let count = collisions.map(i32::to_le_bytes);
    safe_text(fnv32(&[&text, count.as_ref().map_or(&[], |c| c.as_slice())]))
}

/// A pod of a template, with an owner, without a name.
pub(crate) fn pod_of(template: &Value, owner: &KObject) -> Value {
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert("namespace".into(), owner.namespace().into());
    metadata.insert("ownerReferences".into(), json!([controller_ref(owner)]));
    json!({ "metadata": metadata, "spec": template["spec"] })
}

/// The pods that an owner manages once it has taken those that match its selector and belong to nobody, and let go
/// of those that match no more.
pub(crate) fn claim_pods(w: &mut Work<'_>, owner: &KObject, selector: &LabelSelector) -> Vec<Arc<KPod>> {
    let mut pods = Vec::new();
    let going = owner.meta.is_deleted();
    for pod in w.k.pods_of(&owner.meta.uid) {
        if selector::matches(selector, &pod.pod.metadata.labels) {
            pods.push(pod.clone());
        } else if !going && !pod.info.deleted {
            release(w, pod, &owner.meta.uid);
        }
    }
    if going || selector::is_empty(selector) {
        return pods;
    }
    let reference: Option<OwnerReference> = serde_json::from_value(controller_ref(owner)).ok();
    let Some(reference) = reference else { return pods };
    let free = w.k.orphans(owner.namespace());
    for pod in free {
        let wanted = pod.info.is_active() && selector::matches(selector, &pod.pod.metadata.labels);
        let key = super::ObjKey::new(kinds::PODS, pod.namespace(), pod.name());
        if wanted && !w.wrote(&key) {
            w.update_pod(pod, |p| p.metadata.owner_references.push(reference.clone()));
            pods.push(pod.clone());
        }
    }
    pods
}

fn release(w: &mut Work<'_>, pod: &KPod, uid: &str) {
    w.update_pod(pod, |p| p.metadata.owner_references.retain(|r| r.uid != uid));
}

/// Objects of a kind that an owner manages, after taking and letting go as with pods.
pub(crate) fn claim_objects(
    w: &mut Work<'_>,
    owner: &KObject,
    resource: &str,
    selector: &LabelSelector,
) -> Vec<Arc<KObject>> {
    let mut mine = Vec::new();
    let going = owner.meta.is_deleted();
    for object in w.k.list(resource, owner.namespace()) {
        let matching = selector::matches(selector, &object.meta.labels);
        match object.meta.controller() {
            Some(c) if *c.uid == *owner.meta.uid && matching => mine.push(object.clone()),
            Some(c) if *c.uid == *owner.meta.uid && !going && !object.meta.is_deleted() => {
                let uid = owner.meta.uid.clone();
                w.update(object, |v| {
                    if let Some(all) = v["metadata"]["ownerReferences"].as_array_mut() {
                        all.retain(|r| r["uid"] != *uid);
                    }
                });
            }
            None if matching && !going && !object.meta.is_deleted() && !selector::is_empty(selector) => {
                let reference = controller_ref(owner);
                w.update(object, |v| {
                    let meta = &mut v["metadata"];
                    match meta["ownerReferences"].as_array_mut() {
                        Some(all) => all.push(reference),
                        None => meta["ownerReferences"] = json!([reference]),
                    }
                });
                mine.push(object.clone());
            }
            _ => {}
        }
    }
    mine
}

/// A number or a share of `total`, rounded up or down; 0 where it is no such value.
pub(crate) fn share(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let whole = percent * i64::from(total);
            let n = if up {
                (whole + 99).div_euclid(100)
            } else {
                whole.div_euclid(100)
            };
            i32::try_from(n).unwrap_or(i32::MAX)
        }
        None => 0,
    }
}

/// A number that statuses leave out when it is 0.
pub(crate) fn some(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

/// How many of a list, in the type of replicas.
pub(crate) fn count<T>(items: impl IntoIterator<Item = T>) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}
