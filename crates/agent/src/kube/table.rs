//! The pods of this node that run from their PodSpec, and what was last said of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tripod_model::door::ContainerTarget;
use tripod_model::k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::place::PlaceRecord;
use crate::Agent;

/// What is known of pods.
#[derive(Default)]
pub(crate) struct PodTable {
    /// Unique identifiers and statuses by `namespace/name`.
    statuses: Mutex<HashMap<String, (String, Arc<PodStatus>)>>,
    /// Places by unique identifier.
    places: Mutex<HashMap<String, PlaceRecord>>,
    /// One worker per pod at a time, by unique identifier.
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl PodTable {
    fn get(&self, key: &str) -> Option<Arc<PodStatus>> {
        self.statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .map(|(_, status)| status.clone())
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, PlaceRecord>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    pub(super) fn set_pod_status(&self, key: &str, uid: &str, status: &PodStatus) {
        let mut statuses = self
            .inner
            .pods
            .statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        statuses.insert(key.to_owned(), (uid.to_owned(), Arc::new(status.clone())));
    }

    pub(super) fn forget_pod(&self, key: &str, uid: &str) {
        let mut statuses = self
            .inner
            .pods
            .statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if statuses.get(key).is_some_and(|(known, _)| known == uid) {
            statuses.remove(key);
        }
    }

    /// What the other pods here were given: processors and memory, in thousandths.
    pub(super) fn allocated_to_others(&self, uid: &str) -> super::resize::Amounts {
        let statuses = self
            .inner
            .pods
            .statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut sums = super::resize::Amounts::new();
        let others = statuses.values().filter(|(u, _)| u != uid).map(|(_, s)| s);
        let live = others.filter(|s| !matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
        for container in live.flat_map(|s| s.container_statuses.iter().flatten()) {
            for name in ["cpu", "memory"] {
                let amount = container.allocated_resources.as_ref().and_then(|a| a.get(name));
                *sums.entry(name).or_default() += amount.and_then(super::quantity::milli).unwrap_or(0);
            }
        }
        sums
    }

    /// Held by the pod's worker.
    pub(super) fn pod_lock(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self
            .inner
            .pods
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(uid).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(uid.to_owned(), Arc::downgrade(&lock));
        lock
    }

    pub(super) fn place_of(&self, uid: &str) -> Option<PlaceRecord> {
        self.inner.pods.places().get(uid).cloned()
    }

    pub(super) fn keep_place(&self, record: PlaceRecord) {
        self.inner.pods.places().insert(record.uid.clone(), record);
    }

    pub(super) fn forget_place(&self, uid: &str) {
        self.inner.pods.places().remove(uid);
    }

    /// Unique identifiers of the pods that have a place here, and the names of their sandboxes.
    pub(crate) fn pod_places(&self) -> Vec<(String, String)> {
        let places = self.inner.pods.places();
        places
            .values()
            .map(|p| (p.uid.clone(), p.sandbox.clone()))
            .collect()
    }

    /// Whether a pod that runs from its PodSpec is here.
    pub(crate) fn has_pod(&self, key: &str) -> bool {
        self.inner.pods.get(key).is_some()
    }

    fn container_status(&self, target: &ContainerTarget) -> Option<ContainerStatus> {
        let status = self
            .inner
            .pods
            .get(&format!("{}/{}", target.namespace, target.pod))?;
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let found = lists
            .into_iter()
            .flatten()
            .flatten()
            .find(|c| c.name == target.container);
        found.cloned()
    }

    /// Whether a container is to run again: its last run is the previous one by now.
    pub(crate) fn waits_to_run(&self, target: &ContainerTarget) -> bool {
        let waits = self.container_status(target).and_then(|s| s.state?.waiting);
        waits.is_some()
    }

    /// Why a container does not run yet.
    pub(crate) fn waiting_reason(&self, target: &ContainerTarget) -> String {
        let waits = self
            .container_status(target)
            .and_then(|s| s.state?.waiting?.reason);
        waits.unwrap_or_else(|| "ContainerCreating".into())
    }
}
