//! The Kubernetes part of the view: objects of every kind by key, by `uid`, by owner; pods by the owner that manages
//! them; which controllers a change concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tripod_model::Time;
use tripod_model::object::Kind;
use tripod_model::pod::Pod;

use super::kinds;
use super::object::{KObject, Meta, ObjKey};
use super::pod::{KPod, PodInfo};

/// Who decides about a key. The order is that in which one plan lets them decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// What a new cluster is given (one key).
    Bootstrap,
    /// The standing of a node.
    Node,
    /// The life of a namespace.
    Namespace,
    /// What each namespace is given: the default account, the CA's certificate.
    Account,
    /// Secrets with tokens of accounts.
    Token,
    /// Dependents and owners.
    Garbage,
    /// Use of a quota.
    Quota,
    /// Binding of a claim.
    Claim,
    /// The life of a volume.
    Volume,
    /// Schedules.
    CronJob,
    /// Deployments.
    Deployment,
    /// ReplicaSets.
    ReplicaSet,
    /// ReplicationControllers.
    ReplicationController,
    /// StatefulSets.
    StatefulSet,
    /// DaemonSets.
    DaemonSet,
    /// Jobs.
    Job,
    /// The end of a pod.
    Pod,
    /// Disruption budgets.
    Disruption,
    /// Endpoints of a Service.
    Endpoints,
    /// Slices of Endpoints that no Service selects.
    Mirror,
    /// Places for pods (one key).
    Schedule,
    /// Events that are old (one key).
    Events,
}

/// One thing to decide about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkKey(pub Controller, pub ObjKey);

impl WorkKey {
    /// The only key of a controller.
    pub fn only(controller: Controller) -> Self {
        Self(controller, ObjKey::new("", "", ""))
    }
}

type ByName<T> = BTreeMap<Arc<str>, T>;

/// Objects of every kind, with indices.
#[derive(Debug, Clone, Default)]
pub struct KubeView {
    kinds: ByName<ByName<ByName<Arc<KObject>>>>,
    pods: ByName<ByName<Arc<KPod>>>,
    uids: HashMap<Arc<str>, ObjKey>,
    dependents: HashMap<Arc<str>, BTreeSet<ObjKey>>,
    by_controller: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<KPod>>>,
    orphans: ByName<BTreeSet<Arc<str>>>,
    pub(super) unplaced: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Services by one pair of their selector.
    pub(super) selecting: HashMap<(Arc<str>, String, String), BTreeSet<Arc<str>>>,
    pub(super) events: super::events::EventIndex,
    dirty: BTreeSet<WorkKey>,
    epoch: u64,
}

impl KubeView {
    // ---- look-ups -------------------------------------------------------------------------------------------

    /// An object that is neither a pod nor a node.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<KObject>> {
        self.kinds.get(resource)?.get(namespace)?.get(name)
    }

    /// Objects of a kind in a namespace, by name.
    pub fn list(&self, resource: &str, namespace: &str) -> impl Iterator<Item = &Arc<KObject>> {
        let of_kind = self.kinds.get(resource).and_then(|k| k.get(namespace));
        of_kind.into_iter().flat_map(BTreeMap::values)
    }

    /// All objects of a kind, by namespace and name.
    pub fn all(&self, resource: &str) -> impl Iterator<Item = &Arc<KObject>> {
        let of_kind = self.kinds.get(resource);
        of_kind
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
    }

    /// Objects of every kind but pods in a namespace.
    pub fn contents(&self, namespace: &str) -> impl Iterator<Item = &Arc<KObject>> {
        self.kinds
            .values()
            .filter_map(move |k| k.get(namespace))
            .flat_map(BTreeMap::values)
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<KPod>> {
        self.pods.get(namespace)?.get(name)
    }

    /// The pods of a namespace, by name.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<KPod>> {
        self.pods.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<KPod>> {
        self.pods.values().flat_map(BTreeMap::values)
    }

    /// The pods that the owner with this `uid` manages, by name.
    pub fn pods_of(&self, uid: &str) -> impl Iterator<Item = &Arc<KPod>> {
        self.by_controller.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods of a namespace that nobody manages.
    pub fn orphans(&self, namespace: &str) -> impl Iterator<Item = &Arc<KPod>> {
        let names = self.orphans.get(namespace).into_iter().flatten();
        names.filter_map(move |name| self.pod(namespace, name))
    }

    /// Where the object with a `uid` is, pods and nodes included.
    pub fn by_uid(&self, uid: &str) -> Option<&ObjKey> {
        self.uids.get(uid)
    }

    /// What names the object with this `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &ObjKey> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// The metadata of any object but a node.
    pub fn meta(&self, key: &ObjKey) -> Option<Meta> {
        if &*key.resource == kinds::PODS {
            let pod = self.pod(&key.namespace, &key.name)?;
            return Some(Meta::from(&pod.pod.metadata));
        }
        Some(self.get(&key.resource, &key.namespace, &key.name)?.meta.clone())
    }

    /// Whether a namespace takes new objects.
    pub fn namespace_lives(&self, name: &str) -> bool {
        self.get(kinds::NAMESPACES, "", name)
            .is_none_or(|n| !n.meta.is_deleted())
    }

    /// Counts changes that frontends and names of Services depend on.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    // ---- what is to be decided ------------------------------------------------------------------------------

    /// What changes since the last call concern: hand it to [`super::reconcile_kube`].
    pub fn take_dirty(&mut self) -> BTreeSet<WorkKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether anything is to be decided.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Has a key decided again.
    pub fn mark(&mut self, controller: Controller, key: ObjKey) {
        self.dirty.insert(WorkKey(controller, key));
    }

    /// Has a key decided again.
    pub fn mark_key(&mut self, key: WorkKey) {
        self.dirty.insert(key);
    }

    pub(super) fn mark_only(&mut self, controller: Controller) {
        self.dirty.insert(WorkKey::only(controller));
    }

    /// Has everything decided again.
    pub fn mark_all(&mut self) {
        let mut marks = Vec::new();
        for object in self
            .kinds
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
        {
            let key = &object.key;
            if let Some(controller) = kinds::info(&key.resource).and_then(|i| i.controller) {
                marks.push((controller, key.clone()));
            }
            if &*key.resource == kinds::NAMESPACES {
                marks.push((Controller::Account, key.clone()));
            }
            if object.meta.is_deleted() || !object.meta.owner_references.is_empty() {
                marks.push((Controller::Garbage, key.clone()));
            }
        }
        for pod in self
            .pods
            .values()
            .flat_map(BTreeMap::values)
            .filter(|p| p.info.kube)
        {
            let key = ObjKey::new(kinds::PODS, pod.namespace(), pod.name());
            marks.push((Controller::Pod, key.clone()));
            if !pod.pod.metadata.owner_references.is_empty() {
                marks.push((Controller::Garbage, key));
            }
        }
        self.dirty.extend(marks.into_iter().map(|(c, k)| WorkKey(c, k)));
        for only in [Controller::Bootstrap, Controller::Schedule, Controller::Events] {
            self.mark_only(only);
        }
    }

    pub(super) fn bump_epoch(&mut self) {
        self.epoch += 1;
    }

    // ---- changes --------------------------------------------------------------------------------------------

    /// Takes over an object that is neither a pod nor a node.
    pub fn upsert(&mut self, object: Arc<KObject>) {
        let key = object.key.clone();
        let old = self
            .kinds
            .entry(key.resource.clone())
            .or_default()
            .entry(key.namespace.clone())
            .or_default()
            .insert(key.name.clone(), object.clone());
        self.index_meta(&key, old.as_ref().map(|o| &o.meta), Some(&object.meta));
        self.object_changed(old.as_deref(), Some(&object));
    }

    /// Forgets such an object.
    pub fn remove(&mut self, key: &ObjKey) {
        let Some(spaces) = self.kinds.get_mut(&key.resource) else {
            return;
        };
        let Some(names) = spaces.get_mut(&key.namespace) else {
            return;
        };
        let old = names.remove(&key.name);
        if names.is_empty() {
            spaces.remove(&key.namespace);
        }
        if let Some(old) = old {
            self.index_meta(key, Some(&old.meta), None);
            self.object_changed(Some(&old), None);
        }
    }

    /// Takes over a pod.
    pub(crate) fn upsert_pod(&mut self, pod: &Arc<Pod>, info: PodInfo) {
        let (ns, name): (Arc<str>, Arc<str>) = (
            pod.metadata.namespace.as_str().into(),
            pod.metadata.name.as_str().into(),
        );
        let kpod = Arc::new(KPod {
            pod: pod.clone(),
            info,
            class: std::sync::OnceLock::new(),
        });
        let old = self
            .pods
            .entry(ns.clone())
            .or_default()
            .insert(name.clone(), kpod.clone());
        if let Some(old) = &old {
            self.unindex_pod(old);
        }
        match &kpod.info.controller {
            Some(uid) => {
                let of = self.by_controller.entry(uid.clone()).or_default();
                of.insert(name.clone(), kpod.clone());
            }
            None if kpod.info.kube => {
                self.orphans.entry(ns.clone()).or_default().insert(name.clone());
            }
            None => {}
        }
        if kpod.info.kube && pod.spec.node_name.is_empty() && kpod.info.is_active() {
            self.unplaced.insert((ns.clone(), name.clone()));
        }
        let key = ObjKey::new(kinds::PODS, ns, name);
        self.index_pod_meta(&key, old.as_ref().map(|o| o.pod.as_ref()), Some(pod));
        self.pod_changed(old.as_deref(), Some(&kpod));
    }

    /// Forgets a pod.
    pub(crate) fn remove_pod(&mut self, pod: &Pod) {
        let (ns, name) = (pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
        let Some(names) = self.pods.get_mut(ns) else {
            return;
        };
        let old = names.remove(name);
        if names.is_empty() {
            self.pods.remove(ns);
        }
        if let Some(old) = old {
            self.unindex_pod(&old);
            let key = ObjKey::new(kinds::PODS, ns, name);
            self.index_pod_meta(&key, Some(&old.pod), None);
            self.pod_changed(Some(&old), None);
        }
    }

    fn unindex_pod(&mut self, old: &KPod) {
        let (ns, name) = (old.namespace(), old.name());
        if let Some(uid) = &old.info.controller
            && let Some(of) = self.by_controller.get_mut(uid)
        {
            of.remove(name);
            if of.is_empty() {
                self.by_controller.remove(uid);
            }
        }
        if let Some(names) = self.orphans.get_mut(ns) {
            names.remove(name);
            if names.is_empty() {
                self.orphans.remove(ns);
            }
        }
        if old.info.kube {
            self.unplaced.remove(&(Arc::from(ns), Arc::from(name)));
        }
    }

    /// Notes a typed object (node, Swarm service) that is not kept here, so that it can be an owner.
    pub(crate) fn note_uid<K: Kind>(&mut self, object: &K, present: bool) {
        let meta = object.meta();
        if present {
            let key = ObjKey::new(K::RESOURCE, meta.namespace.as_str(), meta.name.as_str());
            self.uids.insert(meta.uid.as_str().into(), key);
        } else {
            self.uids.remove(meta.uid.as_str());
            self.owner_gone(&meta.uid);
        }
    }

    fn index_pod_meta(&mut self, key: &ObjKey, old: Option<&Pod>, new: Option<&Pod>) {
        if let (Some(old), Some(new)) = (old, new)
            && old.metadata.uid == new.metadata.uid
            && old.metadata.owner_references == new.metadata.owner_references
        {
            return;
        }
        let (old, new) = (
            old.map(|p| Meta::from(&p.metadata)),
            new.map(|p| Meta::from(&p.metadata)),
        );
        self.index_meta(key, old.as_ref(), new.as_ref());
    }

    fn index_meta(&mut self, key: &ObjKey, old: Option<&Meta>, new: Option<&Meta>) {
        for owner in old.iter().flat_map(|m| &m.owner_references) {
            if let Some(of) = self.dependents.get_mut(owner.uid.as_str()) {
                of.remove(key);
                if of.is_empty() {
                    self.dependents.remove(owner.uid.as_str());
                }
            }
        }
        let same = old.map(|m| &m.uid) == new.map(|m| &m.uid);
        if let Some(old) = old.filter(|m| !same && !m.uid.is_empty()) {
            self.uids.remove(&old.uid);
            self.owner_gone(&old.uid);
        }
        let Some(new) = new else { return };
        if !new.uid.is_empty() {
            self.uids.insert(new.uid.clone(), key.clone());
        }
        for owner in &new.owner_references {
            let uid: Arc<str> = owner.uid.as_str().into();
            self.dependents.entry(uid).or_default().insert(key.clone());
        }
    }

    fn owner_gone(&mut self, uid: &str) {
        let left: Vec<ObjKey> = self.dependents(uid).cloned().collect();
        left.into_iter()
            .for_each(|key| self.mark(Controller::Garbage, key));
    }

    /// Since when Kubernetes' events are kept, for the one that goes first.
    pub(super) fn first_expiry(&self) -> Option<Time> {
        self.events.first_expiry()
    }
}
