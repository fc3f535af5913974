//! A plan of the controllers in the making: the view, what this plan has already written, and how objects are made,
//! changed and asked to go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::node::Node;
use tripod_model::object::ObjectMeta;
use tripod_model::pod::Pod;

use super::events::Note;
use super::kinds::{self, PODS};
use super::object::{KObject, ObjKey, at, encode_value};
use super::pod::{Amounts, KPod};
use super::view::{KubeView, WorkKey};
use crate::rng::Rng;
use crate::view::View;
use crate::write::{Explanation, Object, RawObject, Write};

/// What the controllers decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KubePlan {
    /// In order; those of one plan belong into one transaction, or into several that keep the order.
    pub writes: Vec<Write>,
    /// Events, to be written after the others; what they tell does not depend on them.
    pub events: Vec<Write>,
    /// Even if nothing changes until then, decide about these keys again at these times.
    pub wakes: Vec<(Time, WorkKey)>,
    /// Decide about these again as soon as the view holds what was written.
    pub again: BTreeSet<WorkKey>,
    /// Why, for logs.
    pub explanations: Vec<Explanation>,
}

/// A time as Kubernetes writes it: whole seconds.
pub fn stamp(at: Time) -> Value {
    whole_seconds(at).to_string().into()
}

/// A time with microseconds, as leases and events.k8s.io write it.
pub fn micro(at: Time) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
}

/// The time without its fraction of a second.
pub(super) fn whole_seconds(at: Time) -> Time {
    Time::from_second(at.as_second()).unwrap_or(at)
}

/// `seconds` after a time.
pub(super) fn later(at: Time, seconds: i64) -> Time {
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Time::MAX)
}

/// The view and the decisions made so far.
pub(crate) struct Work<'v> {
    pub(crate) view: &'v View,
    pub(crate) k: &'v KubeView,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) plan: KubePlan,
    pub(crate) notes: Vec<Note>,
    /// What this plan adds to a quota, by quota and resource, in billionths.
    pub(crate) charges: HashMap<(ObjKey, String), i128>,
    /// What this plan adds to nodes.
    pub(crate) placed: HashMap<String, (Amounts, Vec<Arc<KPod>>)>,
    written: HashSet<ObjKey>,
    pub(crate) current: Option<WorkKey>,
}

impl<'v> Work<'v> {
    pub(crate) fn new(view: &'v View, now: Time, seed: u64) -> Self {
        Self {
            view,
            k: view.kube(),
            now,
            rng: Rng::new(seed),
            plan: KubePlan::default(),
            notes: Vec::new(),
            charges: HashMap::new(),
            placed: HashMap::new(),
            written: HashSet::new(),
            current: None,
        }
    }

    /// Decides about the present key again at `t`.
    pub(crate) fn wake(&mut self, t: Time) {
        if let Some(key) = self.current.clone() {
            self.plan.wakes.push((t, key));
        }
    }

    /// Whether `t` has come; otherwise decides again then.
    pub(crate) fn reached(&mut self, t: Time) -> bool {
        if t <= self.now {
            return true;
        }
        self.wake(t);
        false
    }

    /// Decides about the present key again as soon as the view holds what was written.
    pub(crate) fn again(&mut self) {
        self.plan.again.extend(self.current.clone());
    }

    /// Takes an object for writing; `false` when this plan wrote it already, and then decides again.
    fn claim(&mut self, key: &ObjKey) -> bool {
        if self.written.insert(key.clone()) {
            return true;
        }
        self.again();
        false
    }

    /// Whether this plan wrote an object.
    pub(crate) fn wrote(&self, key: &ObjKey) -> bool {
        self.written.contains(key)
    }

    fn raw(key: ObjKey, bytes: Vec<u8>) -> Object {
        Object::Raw(Arc::new(RawObject {
            key,
            bytes: bytes.into(),
        }))
    }

    // ---- making -----------------------------------------------------------------------------------------------

    /// Fills in what the API server fills in on creation.
    fn complete(&mut self, resource: &str, value: &mut Value) -> ObjKey {
        if let Some(info) = kinds::info(resource) {
            value["apiVersion"] = info.api_version.into();
            value["kind"] = info.kind.into();
        }
        let (uid, made) = (self.rng.uid(), stamp(self.now));
        let has_spec = value.get("spec").is_some();
        let meta = at(value, &["metadata"]);
        if meta.get("uid").is_none() {
            meta["uid"] = uid.into();
        }
        meta["creationTimestamp"] = made;
        if has_spec {
            meta["generation"] = 1.into();
        }
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        ObjKey::new(resource, text("namespace"), text("name"))
    }

    /// Makes an object; `None` when there is one of that name, or its namespace is going.
    pub(crate) fn create(&mut self, resource: &str, mut value: Value) -> Option<String> {
        let key = self.complete(resource, &mut value);
        if self.k.meta(&key).is_some() || !self.lives(&key.namespace) || !self.claim(&key) {
            return None;
        }
        let uid = value["metadata"]["uid"].as_str().map(str::to_owned);
        let object = Self::raw(key, encode_value(&value));
        self.plan.writes.push(Write::Create(object));
        uid
    }

    /// Makes an event.
    pub(super) fn create_raw(&mut self, resource: &str, mut value: Value) {
        let key = self.complete(resource, &mut value);
        if self.claim(&key) {
            let object = Self::raw(key, encode_value(&value));
            self.plan.writes.push(Write::Create(object));
        }
    }

    fn lives(&self, namespace: &str) -> bool {
        namespace.is_empty() || self.k.namespace_lives(namespace)
    }

    /// Makes a pod that admission has passed, and returns its name.
    pub(crate) fn create_pod(&mut self, mut value: Value) -> Result<String, String> {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        let namespace = text("namespace");
        if !self.lives(namespace) {
            // A name made up here would make every refusal another one, and news for who owns the pod.
            let name = [text("name"), text("generateName")].concat();
            return Err(format!(
                "pods \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is \
                 being terminated"
            ));
        }
        super::admit::pod(self, &mut value)?;
        if value["metadata"].get("name").is_none() {
            let prefix = value["metadata"]["generateName"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            value["metadata"]["name"] = self.generate_name(&prefix).into();
        }
        let key = self.complete(PODS, &mut value);
        if self.k.pod(&key.namespace, &key.name).is_some() || !self.claim(&key) {
            return Err(format!("pods \"{}\" already exists", key.name));
        }
        let pod: Pod = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let name = pod.metadata.name.clone();
        self.plan.writes.push(Write::Create(Object::Pod(Arc::new(pod))));
        Ok(name)
    }

    // ---- changing ---------------------------------------------------------------------------------------------

    /// Changes an object; whether anything changed. A changed `spec` is a new generation, and an object that was
    /// asked to go goes with its last finalizer.
    pub(crate) fn update(&mut self, object: &KObject, change: impl FnOnce(&mut Value)) -> bool {
        let before = object.value();
        let mut value = before.clone();
        change(&mut value);
        if value == before {
            return false;
        }
        if !self.claim(&object.key) {
            return true;
        }
        if value.get("spec") != before.get("spec") && before["metadata"].get("generation").is_some() {
            value["metadata"]["generation"] = (object.meta.generation + 1).into();
        }
        let finalizers = value["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        let spec_finalizers = value["spec"]["finalizers"].as_array().map_or(0, Vec::len);
        let going = object.meta.is_deleted() && &*object.key.resource != kinds::NAMESPACES;
        let write = if going && finalizers + spec_finalizers == 0 {
            Write::Delete {
                object: Self::raw(object.key.clone(), object.bytes.to_vec()),
                based_on: object.revision,
            }
        } else {
            Write::Update {
                object: Self::raw(object.key.clone(), encode_value(&value)),
                based_on: object.revision,
            }
        };
        self.plan.writes.push(write);
        true
    }

    /// Replaces the status.
    pub(crate) fn set_status(&mut self, object: &KObject, status: Value) -> bool {
        self.update(object, |v| v["status"] = status)
    }

    /// Changes a pod; whether anything changed.
    pub(crate) fn update_pod(&mut self, pod: &KPod, change: impl FnOnce(&mut Pod)) -> bool {
        let mut next = pod.pod.as_ref().clone();
        change(&mut next);
        if next == *pod.pod {
            return false;
        }
        let key = ObjKey::new(PODS, pod.namespace(), pod.name());
        if self.claim(&key) {
            self.plan.writes.push(Write::Update {
                based_on: pod.pod.metadata.revision(),
                object: Object::Pod(Arc::new(next)),
            });
        }
        true
    }

    /// Replaces a node, unless nothing changed.
    pub(crate) fn update_node(&mut self, old: &Arc<Node>, next: Node) {
        if next == **old {
            return;
        }
        let key = ObjKey::new(kinds::NODES, "", next.metadata.name.as_str());
        if self.claim(&key) {
            self.plan.writes.push(Write::Update {
                object: Object::Node(Arc::new(next)),
                based_on: old.metadata.revision(),
            });
        }
    }

    // ---- going ------------------------------------------------------------------------------------------------

    /// Removes an object at once.
    pub(crate) fn remove(&mut self, object: &KObject) {
        if self.claim(&object.key) {
            self.plan.writes.push(Write::Delete {
                object: Self::raw(object.key.clone(), object.bytes.to_vec()),
                based_on: object.revision,
            });
        }
    }

    /// Asks an object to go: at once, or once its finalizers agree.
    pub(crate) fn delete(&mut self, object: &KObject) {
        if object.meta.is_deleted() {
            return;
        }
        let spec_finalizers = &*object.key.resource == kinds::NAMESPACES;
        if object.meta.finalizers.is_empty() && !spec_finalizers {
            self.remove(object);
            return;
        }
        let now = stamp(self.now);
        self.update(object, |v| {
            v["metadata"]["deletionTimestamp"] = now;
            v["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        });
    }

    /// Removes a pod at once.
    pub(crate) fn remove_pod(&mut self, pod: &KPod) {
        let key = ObjKey::new(PODS, pod.namespace(), pod.name());
        if self.claim(&key) {
            self.plan.writes.push(Write::Delete {
                object: Object::Pod(pod.pod.clone()),
                based_on: pod.pod.metadata.revision(),
            });
        }
    }

    /// Asks a pod to go, with `grace` seconds or those of its own.
    pub(crate) fn delete_pod(&mut self, pod: &KPod, grace: Option<i64>) {
        match super::pods::deletion(pod, grace, self.now) {
            super::pods::Deletion::Now => self.remove_pod(pod),
            super::pods::Deletion::Later(next) => {
                self.update_pod(pod, |p| *p = *next);
            }
            super::pods::Deletion::Known => {}
        }
    }

    // ---- telling ----------------------------------------------------------------------------------------------

    /// Tells about an object of a built-in kind.
    pub(crate) fn note(
        &mut self,
        about: &KObject,
        component: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.tell(
            &about.key,
            &about.meta.uid,
            component,
            false,
            reason,
            message.into(),
        );
    }

    /// Warns about an object of a built-in kind.
    pub(crate) fn warn(
        &mut self,
        about: &KObject,
        component: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.tell(
            &about.key,
            &about.meta.uid,
            component,
            true,
            reason,
            message.into(),
        );
    }

    /// Tells about an object.
    pub(crate) fn tell(
        &mut self,
        key: &ObjKey,
        uid: &str,
        component: &str,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let info = kinds::info(&key.resource);
        self.notes.push(Note {
            api_version: info.map_or("", |i| i.api_version).into(),
            kind: info.map_or("", |i| i.kind).into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.to_owned(),
            warning,
            reason: reason.into(),
            message,
            component: component.into(),
            host: String::new(),
            field_path: String::new(),
        });
    }

    /// Tells about a pod.
    pub(crate) fn tell_pod(
        &mut self,
        meta: &ObjectMeta,
        component: &str,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let key = ObjKey::new(PODS, meta.namespace.as_str(), meta.name.as_str());
        self.tell(&key, &meta.uid, component, warning, reason, message);
    }
}

/// A reference that makes an object the managing owner.
pub(crate) fn controller_ref(owner: &KObject) -> Value {
    let info = kinds::info(&owner.key.resource);
    json!({
        "apiVersion": info.map_or("", |i| i.api_version), "kind": info.map_or("", |i| i.kind),
        "name": &*owner.key.name, "uid": &*owner.meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
