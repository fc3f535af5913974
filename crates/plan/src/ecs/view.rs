//! What the decisions of ECS look at, by the keys that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition};
use tripod_model::pod::Pod;

use super::state;

/// What a change concerns. Tasks come before services in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The tasks of a cluster, by namespace.
    Tasks(String),
    /// A service, by namespace and name.
    Service(String, String),
}

type ByName<T> = BTreeMap<String, Arc<T>>;

/// Clusters, definitions, services and tasks.
#[derive(Debug, Clone, Default)]
pub struct EcsView {
    clusters: ByName<EcsCluster>,
    definitions: ByName<TaskDefinition>,
    services: BTreeMap<String, ByName<EcsService>>,
    tasks: BTreeMap<String, ByName<Pod>>,
    /// Names of pods, by namespace and the service's name.
    by_service: BTreeMap<(String, String), BTreeSet<String>>,
    dirty: BTreeSet<Key>,
}

impl EcsView {
    /// A cluster by its namespace.
    pub fn cluster(&self, namespace: &str) -> Option<&Arc<EcsCluster>> {
        self.clusters.get(namespace)
    }

    /// All clusters, by namespace.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<EcsCluster>> {
        self.clusters.values()
    }

    /// A task definition by ARN.
    pub fn definition(&self, arn: &str) -> Option<&Arc<TaskDefinition>> {
        self.definitions.get(arn)
    }

    /// All revisions of task definitions, by ARN.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<TaskDefinition>> {
        self.definitions.values()
    }

    /// A service by namespace and `metadata.name`.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<EcsService>> {
        self.services.get(namespace)?.get(name)
    }

    /// The services of a cluster.
    pub fn services(&self, namespace: &str) -> impl Iterator<Item = &Arc<EcsService>> {
        self.services
            .get(namespace)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// The tasks of a cluster.
    pub fn tasks(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.tasks.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The tasks of all clusters.
    pub fn all_tasks(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.tasks.values().flat_map(BTreeMap::values)
    }

    /// A task by namespace and `metadata.name` of its pod.
    pub fn task(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.tasks.get(namespace)?.get(name)
    }

    /// The tasks of a service, by the service's own name.
    pub fn tasks_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let key = (namespace.to_owned(), service.to_owned());
        let names = self.by_service.get(&key).into_iter().flatten();
        let tasks = self.tasks.get(namespace);
        names.filter_map(move |name| tasks?.get(name))
    }

    /// What changes since the last call concern.
    pub fn take_dirty(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.dirty)
    }

    /// Has something decided about again.
    pub fn mark(&mut self, key: Key) {
        self.dirty.insert(key);
    }

    /// Has everything decided about again.
    pub fn mark_all(&mut self) {
        let namespaces = self.clusters.keys().chain(self.tasks.keys()).cloned();
        let mut keys: BTreeSet<Key> = namespaces.map(Key::Tasks).collect();
        for (namespace, services) in &self.services {
            keys.extend(
                services
                    .keys()
                    .map(|name| Key::Service(namespace.clone(), name.clone())),
            );
        }
        self.dirty.extend(keys);
    }

    /// Takes over a cluster.
    pub fn upsert_cluster(&mut self, cluster: Arc<EcsCluster>) {
        let namespace = cluster.metadata.name.clone();
        let names: Vec<String> = self
            .services
            .get(&namespace)
            .into_iter()
            .flat_map(|s| s.keys().cloned())
            .collect();
        self.dirty
            .extend(names.into_iter().map(|n| Key::Service(namespace.clone(), n)));
        self.clusters.insert(namespace, cluster);
    }

    /// Takes over a definition.
    pub fn upsert_definition(&mut self, definition: Arc<TaskDefinition>) {
        self.definitions.insert(definition.spec.arn(), definition);
    }

    /// Takes over a service.
    pub fn upsert_service(&mut self, service: Arc<EcsService>) {
        let (namespace, name) = (service.metadata.namespace.clone(), service.metadata.name.clone());
        self.dirty.insert(Key::Service(namespace.clone(), name.clone()));
        self.services.entry(namespace).or_default().insert(name, service);
    }

    /// Forgets what has this key.
    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        use tripod_model::object::Kind as _;
        match resource {
            EcsCluster::RESOURCE => drop(self.clusters.remove(name)),
            TaskDefinition::RESOURCE => self.definitions.retain(|_, d| d.metadata.name != name),
            EcsService::RESOURCE => {
                if let Some(services) = self.services.get_mut(namespace) {
                    services.remove(name);
                }
            }
            _ => {}
        }
    }

    /// Takes over a task's pod, new or changed.
    pub(crate) fn upsert_pod(&mut self, pod: &Arc<Pod>) {
        let Some(task) = pod.ecs() else { return };
        let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let old = self.task(&namespace, &name).cloned();
        if !task.service.is_empty() {
            let key = (namespace.clone(), task.service.clone());
            self.by_service.entry(key).or_default().insert(name.clone());
        }
        if old.as_deref().map(standing) != Some(standing(pod)) {
            self.touch(pod);
        }
        self.tasks.entry(namespace).or_default().insert(name, pod.clone());
    }

    /// Forgets a task's pod.
    pub(crate) fn remove_pod(&mut self, pod: &Pod) {
        let Some(task) = pod.ecs() else { return };
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let key = (namespace.clone(), task.service.clone());
        if let Some(names) = self.by_service.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                self.by_service.remove(&key);
            }
        }
        if let Some(tasks) = self.tasks.get_mut(namespace) {
            tasks.remove(name);
            if tasks.is_empty() {
                self.tasks.remove(namespace);
            }
        }
        self.touch(pod);
    }

    fn touch(&mut self, pod: &Pod) {
        let namespace = pod.metadata.namespace.clone();
        if let Some(task) = pod.ecs().filter(|t| !t.service.is_empty()) {
            let name = tripod_model::ecs::service_name(&task.service);
            self.dirty.insert(Key::Service(namespace.clone(), name));
        }
        self.dirty.insert(Key::Tasks(namespace));
    }

    /// A node came, went or changed: everything that may be on it is looked at.
    pub(crate) fn node_changed(&mut self) {
        self.mark_all();
    }
}

/// What of a task decides.
fn standing(pod: &Pod) -> (&str, u8, &str, bool, String) {
    let s = state(pod);
    let desired = pod.state.desired as u8;
    let done = pod.state.observed.is_final();
    (
        s.last_status.as_str(),
        desired,
        pod.spec.node_name.as_str(),
        done,
        format!("{:?}", s.protected_until),
    )
}
