//! Which controllers a change concerns.

use std::sync::Arc;

use tripod_model::aws::{SecurityGroup, VpcPart};
use tripod_model::node::Node;
use tripod_model::object::{Kind as _, OwnerReference};

use super::kinds;
use super::object::{KObject, Meta, ObjKey};
use super::pod::KPod;
use super::view::{Controller, KubeView};

/// Kinds that adopt pods which their selector matches.
const ADOPTERS: [&str; 5] = [
    kinds::REPLICA_SETS,
    kinds::REPLICATION_CONTROLLERS,
    kinds::STATEFUL_SETS,
    kinds::DAEMON_SETS,
    kinds::JOBS,
];
/// Names of objects that every namespace is given.
pub(super) const GIVEN: [(&str, &str); 2] = [
    (kinds::SERVICE_ACCOUNTS, "default"),
    (kinds::CONFIG_MAPS, "kube-root-ca.crt"),
];

impl KubeView {
    pub(super) fn object_changed(&mut self, old: Option<&KObject>, new: Option<&KObject>) {
        let Some(any) = new.or(old) else { return };
        let key = &any.key;
        let info = kinds::info(&key.resource);
        if let Some(controller) = info.and_then(|i| i.controller) {
            self.mark(controller, key.clone());
        }
        for object in old.into_iter().chain(new) {
            self.mark_owner(object.meta.controller());
        }
        self.mark_garbage(key, old.map(|o| &o.meta), new.map(|o| &o.meta));
        self.kind_changed(key, old, new);
        if old.is_none() != new.is_none() {
            self.mark_all_in(Controller::Quota, kinds::RESOURCE_QUOTAS, &key.namespace);
        }
    }

    /// What is particular to a kind.
    fn kind_changed(&mut self, key: &ObjKey, old: Option<&KObject>, new: Option<&KObject>) {
        match &*key.resource {
            kinds::NAMESPACES => {
                self.mark(Controller::Account, key.clone());
                if new.is_none() {
                    self.mark_only(Controller::Bootstrap);
                }
                if old.map(|n| &n.meta.labels) != new.map(|n| &n.meta.labels) {
                    self.bump_epoch();
                }
            }
            crate::network::NETWORK_POLICIES | SecurityGroup::RESOURCE | VpcPart::RESOURCE => {
                self.bump_epoch();
            }
            kinds::SERVICES => {
                self.index_selector(old, false);
                self.index_selector(new, true);
                self.bump_epoch();
            }
            kinds::ENDPOINT_SLICES => {
                self.bump_epoch();
                self.mark_service_of(key, old.or(new));
            }
            kinds::ENDPOINTS => {
                self.mark(
                    Controller::Endpoints,
                    ObjKey::new(kinds::SERVICES, key.namespace.clone(), key.name.clone()),
                );
            }
            kinds::EVENTS => self.note_event(old, new),
            kinds::CLAIMS | kinds::VOLUMES | kinds::STORAGE_CLASSES => self.storage_changed(key, new),
            kinds::REPLICA_SETS if new.is_some_and(|o| o.meta.controller().is_none()) => {
                self.mark_all_in(Controller::Deployment, kinds::DEPLOYMENTS, &key.namespace);
            }
            kinds::SERVICE_ACCOUNTS => {
                self.mark_all_in(Controller::Token, kinds::SECRETS, &key.namespace);
                self.mark_account(key);
            }
            kinds::CONFIG_MAPS => self.mark_account(key),
            kinds::PRIORITY_CLASSES if new.is_none() => self.mark_only(Controller::Bootstrap),
            _ => {}
        }
        if new.is_none() && old.is_some_and(|_| !self.namespace_lives(&key.namespace)) {
            self.mark_namespace(&key.namespace);
        }
        if &*key.resource == kinds::RESOURCE_QUOTAS || new.is_none() && &*key.resource == kinds::PODS {
            // A pod that a quota held back may be made now.
            for resource in ADOPTERS {
                let controller = kinds::info(resource).and_then(|i| i.controller);
                if let Some(controller) = controller {
                    self.mark_all_in(controller, resource, &key.namespace);
                }
            }
        }
    }

    fn mark_account(&mut self, key: &ObjKey) {
        if GIVEN.contains(&(&key.resource, &key.name)) {
            let namespace = ObjKey::new(kinds::NAMESPACES, "", key.namespace.clone());
            self.mark(Controller::Account, namespace);
        }
    }

    fn storage_changed(&mut self, key: &ObjKey, new: Option<&KObject>) {
        if !self.unplaced.is_empty() {
            self.mark_only(Controller::Schedule);
        }
        if &*key.resource == kinds::CLAIMS {
            let volumes: Vec<ObjKey> = self.all(kinds::VOLUMES).map(|v| v.key.clone()).collect();
            volumes.into_iter().for_each(|v| self.mark(Controller::Volume, v));
        } else if new.is_some() {
            let claims: Vec<ObjKey> = self.all(kinds::CLAIMS).map(|c| c.key.clone()).collect();
            claims.into_iter().for_each(|c| self.mark(Controller::Claim, c));
        }
    }

    fn mark_service_of(&mut self, key: &ObjKey, slice: Option<&KObject>) {
        let labels = slice.map(|s| &s.meta.labels);
        if let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) {
            let service = ObjKey::new(kinds::SERVICES, key.namespace.clone(), service.as_str());
            self.mark(Controller::Endpoints, service.clone());
            let endpoints = ObjKey {
                resource: kinds::ENDPOINTS.into(),
                ..service
            };
            self.mark(Controller::Mirror, endpoints);
        }
    }

    fn index_selector(&mut self, service: Option<&KObject>, present: bool) {
        let Some(service) = service else { return };
        let typed = service.get::<tripod_model::k8s_openapi::api::core::v1::Service>();
        let selector = typed.and_then(|s| s.spec.as_ref()?.selector.clone());
        let Some((label, value)) = selector.into_iter().flatten().next() else {
            return;
        };
        let place = (service.key.namespace.clone(), label, value);
        if present {
            let names = self.selecting.entry(place).or_default();
            names.insert(service.key.name.clone());
        } else if let Some(names) = self.selecting.get_mut(&place) {
            names.remove(&service.key.name);
            if names.is_empty() {
                self.selecting.remove(&place);
            }
        }
    }

    pub(super) fn pod_changed(&mut self, old: Option<&KPod>, new: Option<&KPod>) {
        let Some(any) = new.or(old).filter(|p| p.info.kube) else {
            return;
        };
        let key = ObjKey::new(kinds::PODS, any.namespace(), any.name());
        let ns = key.namespace.clone();
        self.mark(Controller::Pod, key.clone());
        // What policies select, and what they restrict.
        let standing = |p: &KPod| {
            let pod = &p.pod;
            let place = (pod.status.pod_ip, pod.spec.node_name.clone());
            (pod.metadata.labels.clone(), place, p.info.phase.is_final())
        };
        if self.all(crate::network::NETWORK_POLICIES).next().is_some()
            && old.map(standing) != new.map(standing)
        {
            self.bump_epoch();
        }
        if new.is_some_and(KPod::leaves) && !old.is_some_and(KPod::leaves) {
            self.bump_epoch();
        }
        for pod in old.into_iter().chain(new) {
            self.mark_owner(super::object::controller_of(&pod.pod.metadata.owner_references));
            self.mark_selecting(pod);
        }
        let orphan = new.is_some_and(|p| p.info.controller.is_none());
        let was_orphan = old.is_some_and(|p| {
            p.info.controller.is_none() && new.is_some_and(|n| n.pod.metadata.labels == p.pod.metadata.labels)
        });
        if orphan && !was_orphan {
            for resource in ADOPTERS {
                if let Some(controller) = kinds::info(resource).and_then(|i| i.controller) {
                    self.mark_all_in(controller, resource, &ns);
                }
            }
        }
        self.mark_all_in(Controller::Disruption, kinds::DISRUPTION_BUDGETS, &ns);
        self.mark_all_in(Controller::Quota, kinds::RESOURCE_QUOTAS, &ns);
        let meta = |p: &KPod| Meta::from(&p.pod.metadata);
        if new.is_none() || any.info.deleted || !any.pod.metadata.owner_references.is_empty() && old.is_none()
        {
            self.mark_garbage(&key, old.map(meta).as_ref(), new.map(meta).as_ref());
        }
        if new.is_none() && !self.namespace_lives(&ns) {
            self.mark_namespace(&ns);
        }
        let placed = |p: &KPod| !p.pod.spec.node_name.is_empty() && !p.info.phase.is_final();
        let freed = old.is_some_and(placed) && !new.is_some_and(placed);
        let waits = new.is_some_and(|p| p.pod.spec.node_name.is_empty() && p.info.is_active());
        let relabelled = old
            .zip(new)
            .is_some_and(|(o, n)| o.pod.metadata.labels != n.pod.metadata.labels);
        if waits || (freed || relabelled) && !self.unplaced.is_empty() {
            self.mark_only(Controller::Schedule);
        }
        if uses_claims(any) {
            let claims: Vec<ObjKey> = self.list(kinds::CLAIMS, &ns).map(|c| c.key.clone()).collect();
            claims.into_iter().for_each(|c| self.mark(Controller::Claim, c));
        }
    }

    fn mark_selecting(&mut self, pod: &KPod) {
        let ns: Arc<str> = pod.namespace().into();
        let mut names: Vec<Arc<str>> = Vec::new();
        if !self.selecting.is_empty() {
            for (label, value) in &pod.pod.metadata.labels {
                let place = (ns.clone(), label.clone(), value.clone());
                names.extend(self.selecting.get(&place).into_iter().flatten().cloned());
            }
        }
        for name in names {
            self.mark(
                Controller::Endpoints,
                ObjKey::new(kinds::SERVICES, ns.clone(), name),
            );
        }
    }

    /// A node came, changed or went.
    pub(crate) fn node_changed(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let Some(any) = new.or(old) else { return };
        let name: Arc<str> = any.metadata.name.as_str().into();
        self.mark(Controller::Node, ObjKey::new(kinds::NODES, "", name));
        let place = |n: &Node| {
            let status = &n.status.rest;
            (
                n.spec.clone(),
                n.metadata.labels.clone(),
                n.status.state,
                status.get("allocatable").cloned(),
                status.get("addresses").cloned(),
            )
        };
        if old.map(place) != new.map(place) {
            self.mark_only(Controller::Bootstrap);
            self.mark_only(Controller::Schedule);
            let services: Vec<ObjKey> = self.all(kinds::SERVICES).map(|s| s.key.clone()).collect();
            for service in services {
                self.mark(Controller::Endpoints, service);
            }
            let sets: Vec<ObjKey> = self.all(kinds::DAEMON_SETS).map(|s| s.key.clone()).collect();
            sets.into_iter().for_each(|s| self.mark(Controller::DaemonSet, s));
            self.bump_epoch();
        }
        if let (Some(old), None) = (old, new) {
            self.note_uid(old, false);
        } else if let Some(new) = new {
            self.note_uid(new, true);
        }
    }

    fn mark_owner(&mut self, owner: Option<&OwnerReference>) {
        let Some(key) = owner.and_then(|o| self.by_uid(&o.uid)).cloned() else {
            return;
        };
        if let Some(controller) = kinds::info(&key.resource).and_then(|i| i.controller) {
            self.mark(controller, key);
        }
    }

    fn mark_garbage(&mut self, key: &ObjKey, old: Option<&Meta>, new: Option<&Meta>) {
        if let Some(new) = new
            && (new.is_deleted() || new.owner_references.iter().any(|o| self.by_uid(&o.uid).is_none()))
        {
            self.mark(Controller::Garbage, key.clone());
        }
        if new.is_none() || old.map(|m| &m.owner_references) != new.map(|m| &m.owner_references) {
            // An owner that waits for its dependents.
            let owners = old.into_iter().flat_map(|m| &m.owner_references);
            let waiting: Vec<ObjKey> = owners.filter_map(|o| self.by_uid(&o.uid)).cloned().collect();
            for owner in waiting {
                if self.meta(&owner).is_some_and(|m| m.is_deleted()) {
                    self.mark(Controller::Garbage, owner);
                }
            }
        }
    }

    fn mark_namespace(&mut self, name: &str) {
        self.mark(Controller::Namespace, ObjKey::new(kinds::NAMESPACES, "", name));
    }

    pub(super) fn mark_all_in(&mut self, controller: Controller, resource: &str, namespace: &str) {
        let keys: Vec<ObjKey> = self.list(resource, namespace).map(|o| o.key.clone()).collect();
        keys.into_iter().for_each(|key| self.mark(controller, key));
    }
}

fn uses_claims(pod: &KPod) -> bool {
    super::pod::claiming(&pod.pod)
        .iter()
        .any(|v| v.get("persistentVolumeClaim").is_some() || v.get("ephemeral").is_some())
}
