//! What a container of a pod may have beside its core/v1 Container: the options of Docker and ECS that a PodSpec lacks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::{Device, HealthCheck, LogConfig, Mount, Ulimit};

/// Additions to one container of a pod, by the container's name in [`super::PodExtension::containers`]. Empty fields
/// add nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerExtension {
    /// Resource limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// A check by a command in the container (Docker's and ECS's). The verdict is in
    /// [`super::PodState::health`]; other containers may wait for it (`depends_on`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When it ends, for whatever reason, the pod ends. With none of a pod's containers essential, a pod ends when
    /// all of its containers have.
    #[serde(skip_serializing_if = "is_false")]
    pub essential: bool,
    /// Containers of the same pod for which its start waits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Seconds within which its dependencies must be fulfilled, else the pod fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<i64>,
    /// Seconds between the stop signal and SIGKILL, instead of the pod's grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Signal that asks it to end, instead of the image's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// `user[:group]`, names or numbers, instead of the security context's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Where its output goes; `None` is the node's default (`json-file`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
    /// A small init as its first process.
    #[serde(skip_serializing_if = "is_false")]
    pub init: bool,
    /// Bytes of `/dev/shm`; 0 is the pod's.
    #[serde(skip_serializing_if = "is_zero")]
    pub shm_size: i64,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Named Docker volumes, binds and tmpfs, beside the pod's volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Labels of the container in `docker ps`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Bytes of memory plus swap; 0 is the memory limit, -1 without limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_swap: i64,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// Soft limit of memory in bytes; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_reservation: i64,
    /// Weight of the container's share of processors (2 to 262144); 0 follows from the request.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_shares: i64,
    /// Restarts within the pod's life after a failure (ECS's container restart policy); with it set, the pod's own
    /// restart policy does not hold for this container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<ContainerRestart>,
}

/// A condition on another container of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Dependency {
    /// The other container's name.
    pub container: String,
    /// What it must have come to.
    pub condition: DependencyCondition,
}

/// What a container waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DependencyCondition {
    /// It was started.
    #[default]
    Start,
    /// It ran to its end.
    Complete,
    /// It ended with status 0.
    Success,
    /// Its health check passed.
    Healthy,
}

/// ECS's restart policy of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerRestart {
    /// Exit statuses after which it is not started again.
    pub ignored_exit_codes: Vec<i64>,
    /// Seconds that it must have run to be started again (ECS's default is 300).
    pub attempt_period: i64,
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
