//! The pods of this node that run from their PodSpec, and what was last said of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tripod_model::door::ContainerTarget;
use tripod_model::k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::Agent;

/// Statuses by `namespace/name`.
#[derive(Default)]
pub(crate) struct PodTable(Mutex<HashMap<String, Arc<PodStatus>>>);

impl PodTable {
    fn get(&self, key: &str) -> Option<Arc<PodStatus>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }
}

impl Agent {
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
