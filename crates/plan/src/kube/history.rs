//! Revisions of StatefulSets and DaemonSets: a ControllerRevision for each template that they had.

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::kinds::CONTROLLER_REVISIONS;
use super::object::KObject;
use super::template::{REVISION_HASH, claim_objects, template_hash};
use super::work::{Work, controller_ref};

/// A revision.
#[derive(Clone)]
pub(super) struct Revision {
    pub(super) name: String,
    pub(super) hash: String,
    number: i64,
    object: Option<Arc<KObject>>,
    /// The template that it keeps.
    pub(super) template: Value,
}

impl Revision {
    fn of(object: &Arc<KObject>) -> Self {
        let mut value = object.value();
        let mut template = value["data"]["spec"]["template"].take();
        if let Some(map) = template.as_object_mut() {
            map.remove("$patch");
        }
        Self {
            name: object.name().to_owned(),
            hash: object.meta.labels.get(REVISION_HASH).cloned().unwrap_or_default(),
            number: value["revision"].as_i64().unwrap_or(0),
            object: Some(object.clone()),
            template,
        }
    }
}

/// The revisions of an owner.
pub(super) struct History {
    /// The present template's.
    pub(super) latest: Revision,
    all: Vec<Revision>,
    pub(super) collisions: Option<i32>,
}

impl History {
    /// A revision by name.
    pub(super) fn named(&self, name: &str) -> Option<&Revision> {
        if self.latest.name == name {
            return Some(&self.latest);
        }
        self.all.iter().find(|r| r.name == name)
    }
}

/// The revisions of an owner; one is made for a template that it did not have before.
pub(super) fn of(
    w: &mut Work<'_>,
    owner: &KObject,
    selector: &LabelSelector,
    template: &Value,
    collisions: Option<i32>,
) -> History {
    let objects = claim_objects(w, owner, CONTROLLER_REVISIONS, selector);
    let mut all: Vec<Revision> = objects.iter().map(Revision::of).collect();
    all.sort_by_key(|r| (r.number, r.name.clone()));
    let next = all.last().map_or(1, |r| r.number + 1);
    let known = all.iter().rev().find(|r| r.template == *template).cloned();
    if let Some(mut latest) = known {
        if latest.number + 1 != next
            && let Some(object) = latest.object.clone()
        {
            // Back to an earlier template: its revision becomes the latest again.
            w.update(&object, |v| v["revision"] = next.into());
            latest.number = next;
        }
        return History {
            latest,
            all,
            collisions,
        };
    }
    let mut collisions = collisions;
    let (mut hash, mut name);
    loop {
        hash = template_hash(template, collisions);
        name = format!("{}-{hash}", owner.name());
        if w.k.get(CONTROLLER_REVISIONS, owner.namespace(), &name).is_none() {
            break;
        }
        collisions = Some(collisions.unwrap_or(0) + 1);
    }
    if !owner.meta.is_deleted() {
        let mut kept = template.clone();
        kept["$patch"] = "replace".into();
        let mut labels = template["metadata"]["labels"].clone();
        super::object::at(&mut labels, &[])[REVISION_HASH] = hash.as_str().into();
        let object = json!({
            "metadata": {
                "name": name, "namespace": owner.namespace(), "labels": labels,
                "ownerReferences": [controller_ref(owner)],
            },
            "data": { "spec": { "template": kept } },
            "revision": next,
        });
        w.create(CONTROLLER_REVISIONS, object);
    }
    let latest = Revision {
        name,
        hash,
        number: next,
        object: None,
        template: template.clone(),
    };
    History {
        latest,
        all,
        collisions,
    }
}

/// Removes the oldest revisions that no pod has, beyond those that are kept.
pub(super) fn trim(w: &mut Work<'_>, history: &History, limit: i32, in_use: &dyn Fn(&Revision) -> bool) {
    let limit = usize::try_from(limit).unwrap_or(0);
    let idle: Vec<&Revision> = history
        .all
        .iter()
        .filter(|r| r.name != history.latest.name && !in_use(r))
        .collect();
    let surplus = idle.len().saturating_sub(limit);
    for revision in idle.into_iter().take(surplus) {
        if let Some(object) = &revision.object {
            w.delete(object);
        }
    }
}
