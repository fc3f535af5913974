//! Admission: what the cluster adds to objects, and what it refuses, before they are stored.
//!
//! The steps run in a fixed order on every create and update; each looks at the objects of the cluster as they are.

mod escalation;
mod limits;
mod own;
mod pod;
mod quota;
mod security;
mod service;

pub(crate) use quota::Charge;

use std::sync::Arc;

use serde_json::Value;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, object_mut, text};
use tripod_schema::{Failure, Kind, defaults};
use tripod_store::{Key, State};

use crate::call::Call;
use crate::target::Target;

/// What a step looks at.
pub(crate) struct Scene<'a> {
    pub(crate) call: &'a Call,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) state: Arc<State>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(call: &'a Call, target: &'a Target) -> Self {
        Self {
            call,
            kind: target.kind,
            namespace: &target.namespace,
            state: call.manager.state(),
        }
    }

    /// An object of the cluster.
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let stored = self.state.get(&Key::new(resource, namespace, name))?;
        serde_json::from_slice(&stored.bytes).ok()
    }

    /// All objects of a kind, of one namespace or of all.
    pub(crate) fn all(&self, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        let kind = tripod_store::KindId::from(resource);
        let objects = self.state.iter(&kind, namespace);
        objects
            .filter_map(|o| serde_json::from_slice(&o.bytes).ok())
            .collect()
    }
}

/// Completes and judges a new object.
pub(crate) fn create(call: &Call, target: &Target, object: &mut Value) -> Result<()> {
    let scene = Scene::new(call, target);
    own::strip(&scene, object, true);
    defaults::apply(target.kind.storage(), object);
    match target.kind.resource().as_str() {
        "pods" => {
            pod::complete(&scene, object)?;
            limits::apply(&scene, object)?;
            let class = defaults::qos_class(&object["spec"]);
            object_mut(object, &["status"]).insert("qosClass".into(), class.into());
        }
        "services" => service::allocate(&scene, None, object)?,
        "persistentvolumeclaims" => {
            default_class(&scene, object);
            limits::claim(&scene, object)?;
            protect(object, "kubernetes.io/pvc-protection");
        }
        "persistentvolumes" => protect(object, "kubernetes.io/pv-protection"),
        "priorityclasses.scheduling.k8s.io" => {
            tripod_schema::value::default_to(object_mut(object, &[]), "globalDefault", false);
            object_mut(object, &[]).retain(|k, v| k != "globalDefault" || *v == Value::Bool(true));
        }
        "jobs.batch" => pod::job_labels(object),
        "certificatesigningrequests.certificates.k8s.io" => {
            crate::signing::admit(call, target.kind, object)?;
        }
        "namespaces" => {
            let name = text(object, &["metadata", "name"]).to_owned();
            object_mut(object, &["metadata", "labels"])
                .insert("kubernetes.io/metadata.name".into(), name.into());
        }
        _ => {}
    }
    security::check(&scene, object)?;
    escalation::check(&scene, None, object)
}

/// What a namespace's quotas say to an object that is complete, and how they count it.
pub(crate) fn charge(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    object: &Value,
) -> Result<Vec<Charge>> {
    let grows = ["services", "persistentvolumeclaims"].contains(&target.kind.plural) && target.sub.is_none()
        || target.sub.is_some_and(|s| s.name == "resize");
    if old.is_some() && !grows {
        return Ok(Vec::new());
    }
    quota::charge(&Scene::new(call, target), old, object)
}

/// Completes and judges an object that is about to change.
pub(crate) fn update(call: &Call, target: &Target, old: &Value, object: &mut Value) -> Result<()> {
    if target.sub.is_some_and(|s| s.name == "approval") {
        crate::signing::sign(call, object);
    }
    if target
        .sub
        .is_some_and(|s| s.name != "resize" && s.name != "ephemeralcontainers")
    {
        return Ok(());
    }
    let scene = Scene::new(call, target);
    own::strip(&scene, object, false);
    if target.kind.resource() == "services" {
        service::inherit(old, object);
    }
    defaults::apply(target.kind.storage(), object);
    match target.kind.resource().as_str() {
        "services" => service::allocate(&scene, Some(old), object)?,
        "namespaces" => {
            let name = text(object, &["metadata", "name"]).to_owned();
            object_mut(object, &["metadata", "labels"])
                .insert("kubernetes.io/metadata.name".into(), name.into());
        }
        _ => {}
    }
    escalation::check(&scene, Some(old), object)
}

/// A claim without a class takes the default one.
fn default_class(scene: &Scene<'_>, claim: &mut Value) {
    let said = claim["spec"].get("storageClassName").is_some()
        || claim
            .pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class")
            .is_some();
    if said {
        return;
    }
    let mut classes = scene.all("storageclasses.storage.k8s.io", None);
    classes.retain(|c| {
        text(
            c,
            &[
                "metadata",
                "annotations",
                "storageclass.kubernetes.io/is-default-class",
            ],
        ) == "true"
    });
    // Of several, the newest.
    classes.sort_by(|a, b| {
        text(b, &["metadata", "creationTimestamp"]).cmp(text(a, &["metadata", "creationTimestamp"]))
    });
    if let Some(class) = classes.first() {
        let name = text(class, &["metadata", "name"]).to_owned();
        object_mut(claim, &["spec"]).insert("storageClassName".into(), name.into());
    }
}

/// What is in use must not go.
fn protect(object: &mut Value, finalizer: &str) {
    if list(object, &["metadata", "finalizers"])
        .iter()
        .any(|f| f == finalizer)
    {
        return;
    }
    let meta = object_mut(object, &["metadata"]);
    let finalizers = meta
        .entry("finalizers")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = finalizers {
        list.push(finalizer.into());
    }
}

/// 403 of an admission step.
pub(crate) fn refused(scene: &Scene<'_>, object: &Value, why: impl std::fmt::Display) -> Failure {
    Failure::forbidden(scene.kind, tripod_schema::value::name(object), why)
}
