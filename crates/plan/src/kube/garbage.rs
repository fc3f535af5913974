//! Dependents and owners: what becomes of objects whose owners are gone or going.

use serde_json::Value;

use super::kinds::{self, PODS};
use super::object::{KObject, Meta, ObjKey};
use super::pod::KPod;
use super::pods::is_foreign;
use super::work::{Work, stamp};
use std::sync::Arc;

/// Finalizer of an object that waits until what depends on it is gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// An object of either form.
enum Any {
    Pod(Arc<KPod>),
    Object(Arc<KObject>),
}

impl Any {
    fn find(w: &Work<'_>, key: &ObjKey) -> Option<Self> {
        if &*key.resource == PODS {
            let pod = w.k.pod(&key.namespace, &key.name)?;
            return (!is_foreign(&pod.pod)).then(|| Self::Pod(pod.clone()));
        }
        Some(Self::Object(
            w.k.get(&key.resource, &key.namespace, &key.name)?.clone(),
        ))
    }

    fn meta(&self) -> Meta {
        match self {
            Self::Pod(p) => Meta::from(&p.pod.metadata),
            Self::Object(o) => o.meta.clone(),
        }
    }

    fn drop_owners(&self, w: &mut Work<'_>, uids: &[String]) {
        match self {
            Self::Pod(p) => {
                w.update_pod(p, |p| {
                    p.metadata.owner_references.retain(|r| !uids.contains(&r.uid));
                });
            }
            Self::Object(o) => {
                w.update(o, |v| {
                    if let Some(all) = v["metadata"]["ownerReferences"].as_array_mut() {
                        all.retain(|r| !uids.iter().any(|u| r["uid"] == *u));
                    }
                });
            }
        }
    }

    fn drop_finalizer(&self, w: &mut Work<'_>, finalizer: &str) {
        match self {
            Self::Pod(p) => {
                w.update_pod(p, |p| p.metadata.finalizers.retain(|f| f != finalizer));
            }
            Self::Object(o) => {
                w.update(o, |v| {
                    if let Some(all) = v["metadata"]["finalizers"].as_array_mut() {
                        all.retain(|f| f != finalizer);
                    }
                });
            }
        }
    }

    fn delete(&self, w: &mut Work<'_>, foreground: bool) {
        match self {
            Self::Pod(p) => w.delete_pod(p, None),
            Self::Object(o) if foreground && !o.meta.is_deleted() => {
                let now = stamp(w.now);
                w.update(o, |v| {
                    let meta = &mut v["metadata"];
                    meta["deletionTimestamp"] = now;
                    meta["deletionGracePeriodSeconds"] = 0.into();
                    match meta["finalizers"].as_array_mut() {
                        Some(all) => all.push(FOREGROUND.into()),
                        None => meta["finalizers"] = Value::from(vec![FOREGROUND]),
                    }
                });
            }
            Self::Object(o) => w.delete(o),
        }
    }
}

/// Decides about an object with owners, or one that is to go with or without its dependents.
pub(super) fn decide(w: &mut Work<'_>, key: &ObjKey) {
    let Some(object) = Any::find(w, key) else { return };
    let meta = object.meta();
    if meta.is_deleted() {
        let has = |f: &str| meta.finalizers.iter().any(|x| x == f);
        if has(ORPHAN) {
            orphan_dependents(w, &meta);
            object.drop_finalizer(w, ORPHAN);
        } else if has(FOREGROUND) {
            let waits = delete_dependents(w, &meta);
            if !waits {
                object.drop_finalizer(w, FOREGROUND);
            }
        }
        return;
    }
    follow_owners(w, key, &object, &meta);
}

fn orphan_dependents(w: &mut Work<'_>, owner: &Meta) {
    let keys: Vec<ObjKey> = w.k.dependents(&owner.uid).cloned().collect();
    for key in keys {
        if let Some(dependent) = Any::find(w, &key) {
            dependent.drop_owners(w, &[owner.uid.to_string()]);
        }
    }
}

/// Asks the dependents to go; whether the owner must wait for any of them.
fn delete_dependents(w: &mut Work<'_>, owner: &Meta) -> bool {
    let keys: Vec<ObjKey> = w.k.dependents(&owner.uid).cloned().collect();
    let mut waits = false;
    for key in keys {
        let Some(dependent) = Any::find(w, &key) else {
            continue;
        };
        let meta = dependent.meta();
        let mut references = meta.owner_references.iter();
        let blocks = references.any(|r| *r.uid == *owner.uid && r.block_owner_deletion == Some(true));
        waits |= blocks;
        if !meta.is_deleted() {
            let others = meta.owner_references.iter().filter(|r| *r.uid != *owner.uid);
            let held = others.filter(|r| stands(w, &key, r)).count() > 0;
            if held {
                dependent.drop_owners(w, &[owner.uid.to_string()]);
            } else {
                let deeper = w.k.dependents(&meta.uid).next().is_some();
                dependent.delete(w, deeper);
            }
        }
    }
    waits
}

/// Whether the owner of a reference is there, within reach of the dependent.
fn owner_of<'a>(
    w: &Work<'a>,
    key: &ObjKey,
    reference: &tripod_model::object::OwnerReference,
) -> Option<&'a ObjKey> {
    let owner = w.k.by_uid(&reference.uid)?;
    let near = owner.namespace.is_empty() || owner.namespace == key.namespace;
    (near && *owner.name == *reference.name).then_some(owner)
}

fn stands(w: &Work<'_>, key: &ObjKey, reference: &tripod_model::object::OwnerReference) -> bool {
    owner_of(w, key, reference).is_some_and(|owner| !is_waiting(w, owner))
}

fn is_waiting(w: &Work<'_>, owner: &ObjKey) -> bool {
    w.k.meta(owner)
        .is_some_and(|m| m.is_deleted() && m.finalizers.iter().any(|f| f == FOREGROUND))
}

fn follow_owners(w: &mut Work<'_>, key: &ObjKey, object: &Any, meta: &Meta) {
    if meta.owner_references.is_empty() || &*key.resource == kinds::NODES {
        return;
    }
    let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
    for reference in &meta.owner_references {
        match owner_of(w, key, reference) {
            None => gone.push(reference.uid.clone()),
            Some(owner) if is_waiting(w, owner) => waiting.push(reference.uid.clone()),
            Some(_) => solid += 1,
        }
    }
    if solid > 0 {
        if !gone.is_empty() || !waiting.is_empty() {
            gone.extend(waiting);
            object.drop_owners(w, &gone);
        }
        return;
    }
    let deeper = w.k.dependents(&meta.uid).next().is_some();
    object.delete(w, !waiting.is_empty() && deeper);
}
