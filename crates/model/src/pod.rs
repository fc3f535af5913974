//! The unit of work: a pod (core/v1), with the extension that holds what a PodSpec lacks.
//!
//! The extension and the controllers' state live in annotations, so that a pod stays a plain Kubernetes object;
//! in memory they are typed fields.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::fields::Fields;
use crate::network::PortProtocol;
use crate::object::ObjectMeta;
use crate::swarm::{TaskSpec, TaskState};

mod extension;

pub use extension::{ContainerExtension, ContainerRestart, Dependency, DependencyCondition};

/// Annotation with the [`PodExtension`]; immutable after creation, but for what the scheduler settles.
pub const EXTENSION_ANNOTATION: &str = "tripod.dev/pod";
/// Annotation with the [`PodState`]; written by controllers and nodes only.
pub const STATE_ANNOTATION: &str = "tripod.dev/state";

/// A pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, from = "RawPod", into = "RawPod")]
pub struct Pod {
    /// Metadata, without the two annotations above.
    pub metadata: ObjectMeta,
    /// What to run.
    pub spec: PodSpec,
    /// What became of it, in Kubernetes' terms.
    pub status: PodStatus,
    /// What a PodSpec lacks.
    pub extension: PodExtension,
    /// What the controllers want and the node reports, beyond Kubernetes' status.
    pub state: PodState,
}

crate::kind!(Pod, "v1", "Pod", "pods", namespaced: true);

/// The stored form of [`Pod`].
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPod {
    metadata: ObjectMeta,
    spec: PodSpec,
    status: PodStatus,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod {
            mut metadata,
            spec,
            status,
        } = raw;
        let extension = metadata
            .annotations
            .remove(EXTENSION_ANNOTATION)
            .and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or_default();
        let state = metadata
            .annotations
            .remove(STATE_ANNOTATION)
            .and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or_default();
        Self {
            metadata,
            spec,
            status,
            extension,
            state,
        }
    }
}

impl From<Pod> for RawPod {
    fn from(pod: Pod) -> Self {
        let Pod {
            mut metadata,
            spec,
            status,
            extension,
            state,
        } = pod;
        // Plain structs with string keys: serialisation cannot fail. An annotation that would hold nothing is not made.
        if extension != PodExtension::default()
            && let Ok(text) = serde_json::to_string(&extension)
        {
            metadata.annotations.insert(EXTENSION_ANNOTATION.into(), text);
        }
        if state != PodState::default()
            && let Ok(text) = serde_json::to_string(&state)
        {
            metadata.annotations.insert(STATE_ANNOTATION.into(), text);
        }
        Self {
            metadata,
            spec,
            status,
        }
    }
}

/// The part of core/v1 PodSpec that Tripod's own code reads; what it does not know is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Name of the node, empty until it is scheduled.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// Containers.
    pub containers: Vec<PodContainer>,
    /// Always, OnFailure, Never.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub restart_policy: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Fields,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodContainer {
    /// Unique in the pod.
    pub name: String,
    /// Image as the user wrote it.
    pub image: String,
    /// Entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Fields,
}

/// The part of core/v1 PodStatus that Tripod's own code reads and writes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed, Unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why, one word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Address in the first network.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// When the node took it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Fields,
}

/// What a Swarm task or ECS task has and a PodSpec lacks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodExtension {
    /// The Swarm task that this pod is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<SwarmTask>,
    /// The ECS task that this pod is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecs: Option<crate::ecs::EcsTask>,
    /// Networks to attach to, with addresses settled by the leader.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<PodNetwork>,
    /// Additions to containers (init containers too), by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, ContainerExtension>,
}

/// A Swarm task's identity and template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmTask {
    /// 25 base-36 digits.
    pub task_id: String,
    /// 25 base-36 digits.
    pub service_id: String,
    /// Name of the service.
    pub service_name: String,
    /// Labels of the service.
    pub service_labels: BTreeMap<String, String>,
    /// From 1; 0 for global services.
    pub slot: u64,
    /// Swarm identifier of the node to which a global task belongs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_id: String,
    /// The template as it was when the task was made.
    pub template: TaskSpec,
    /// Generation of the service whose template this is.
    pub service_generation: i64,
    /// Execution number of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<u64>,
    /// Ports in mode `host`, published on the task's own node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// Ports that the routing mesh leads to this task (target ports): the task enters its frontends when they listen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mesh_ports: Vec<HostPort>,
}

/// A port to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HostPort {
    /// Port in the container.
    pub target: u16,
    /// Port of the host; 0 in mode `host` takes a free one.
    pub published: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

/// One network of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodNetwork {
    /// Identifier of the network.
    pub network_id: String,
    /// Name of the network.
    pub network_name: String,
    /// Address with the subnet's prefix length; `None` for node-local networks (`host`, `bridge`).
    pub address: Option<IpNet>,
    /// Names in that network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Driver options of the attachment.
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
}

/// What controllers want of a pod and what its node says of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodState {
    /// What it is to come to.
    pub desired: DesiredState,
    /// Where it is, in SwarmKit's finer terms.
    pub observed: TaskState,
    /// When `observed` was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// When its process was first seen to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_at: Option<Time>,
    /// What is being done (`started`, `preparing`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The container on the node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Process on the node.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: i32,
    /// Exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Ports of the node that lead to it (mode `host`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HostPort>,
    /// Verdicts of its containers' health checks, by container (ECS).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub health: BTreeMap<String, crate::container::HealthStatus>,
    /// It may be sent connections: its target ports listen, or its health check passed.
    #[serde(skip_serializing_if = "is_default")]
    pub serving: bool,
    /// Another task is to take its place elsewhere; it ends when that one serves.
    #[serde(skip_serializing_if = "is_default")]
    pub moving: bool,
    /// Not before this time (restart delay).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Where an ECS task is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecs: Option<crate::ecs::EcsTaskState>,
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// What a pod is to come to. Ordered: it only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Everything made ready, not started (start-first updates, restart delays).
    Ready,
    /// Running.
    #[default]
    Running,
    /// Run to its end (jobs).
    Complete,
    /// Ended, and remembered.
    Shutdown,
    /// Ended, and forgotten.
    Remove,
}

impl Pod {
    /// The Swarm task, when it is one.
    pub fn swarm(&self) -> Option<&SwarmTask> {
        self.extension.swarm.as_ref()
    }

    /// The complete specification, typed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] when a field is not what core/v1 says.
    pub fn kube_spec(&self) -> crate::Result<k8s_openapi::api::core::v1::PodSpec> {
        serde_json::to_value(&self.spec)
            .and_then(serde_json::from_value)
            .map_err(|e| crate::Error::invalid(format_args!("the pod's spec cannot be read: {e}")))
    }

    /// The ECS task, when it is one.
    pub fn ecs(&self) -> Option<&crate::ecs::EcsTask> {
        self.extension.ecs.as_ref()
    }

    /// Whether its process is still to run or runs: neither ended nor to be ended.
    pub fn is_live(&self) -> bool {
        self.state.desired <= DesiredState::Complete && !self.state.observed.is_final()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{decode, encode};

    #[test]
    fn extension_and_state_travel_in_annotations() {
        let mut pod = Pod::default();
        pod.metadata.name = "web.1.abc".into();
        pod.extension.swarm = Some(SwarmTask {
            task_id: "abc".into(),
            slot: 1,
            ..Default::default()
        });
        pod.state.desired = DesiredState::Shutdown;
        pod.spec.rest.insert("hostNetwork", true.into());
        let bytes = encode(&pod);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["kind"], "Pod");
        assert!(value["metadata"]["annotations"][EXTENSION_ANNOTATION].is_string());
        assert_eq!(value["spec"]["hostNetwork"], true);
        assert_eq!(decode::<Pod>(&bytes).unwrap(), pod);
        let plain = encode(&Pod::default());
        let value: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert!(value["metadata"].get("annotations").is_none(), "{value}");
    }
}
