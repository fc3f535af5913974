//! Amazon ECS: clusters, task definitions, services, and what a pod that is an ECS task has beside its PodSpec.
//!
//! What plans decide on is typed; what the API only echoes is kept as the API writes it (camelCase members).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Time;
use crate::object::ObjectMeta;

/// Label of a task's pod with the identifier of the task.
pub const TASK_LABEL: &str = "ecs.tripod.dev/task";
/// Label of a task's pod with the family of its definition.
pub const FAMILY_LABEL: &str = "ecs.tripod.dev/family";
/// Label of a task's pod with the name of its service.
pub const SERVICE_LABEL: &str = "ecs.tripod.dev/service";
/// Label of a daemon (`--label ecs.cluster=NAME`) that makes its node a container instance of a cluster.
pub const INSTANCE_LABEL: &str = "ecs.cluster";

/// A name made of a user's name and of what it is unique in: stable, and a Kubernetes name.
pub fn object_name(scope: &str, name: &str) -> String {
    format!("{:016x}", fnv(&[scope, name]))
}

/// The namespace of a cluster's services and tasks, and the cluster's own `metadata.name`.
pub fn cluster_namespace(region: &str, cluster: &str) -> String {
    format!("ecs-{:016x}", fnv(&[region, cluster]))
}

/// The `metadata.name` of a revision of a task definition.
pub fn definition_name(region: &str, family: &str, revision: i64) -> String {
    format!(
        "{}.{:08x}.{revision}",
        readable(family),
        fnv(&[region, family]) & 0xffff_ffff
    )
}

/// The `metadata.name` of a service in its cluster's namespace.
pub fn service_name(name: &str) -> String {
    format!("{}.{:08x}", readable(name), fnv(&[name]) & 0xffff_ffff)
}

/// A beginning of `name` in the letters that Kubernetes allows.
pub fn readable(name: &str) -> String {
    let safe = name
        .to_ascii_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let cut = safe.get(..safe.len().min(40)).unwrap_or_default();
    match cut.trim_matches('-') {
        "" => "x".into(),
        s => s.to_owned(),
    }
}

/// FNV-1a, 64 bits, over the parts, each closed by a byte that names cannot hold.
pub fn fnv(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|p| p.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A cluster of ECS.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsCluster {
    /// Metadata; the name is also the namespace of what is in it.
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: EcsClusterSpec,
}
crate::kind!(EcsCluster, "ecs.tripod.dev/v1", "EcsCluster", "ecsclusters.ecs.tripod.dev", namespaced: false);

/// Settings of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsClusterSpec {
    /// AWS region.
    pub region: String,
    /// Account.
    pub account: String,
    /// The user's name.
    pub name: String,
    /// It was deleted: kept so that it can be described as INACTIVE.
    #[serde(skip_serializing_if = "is_default")]
    pub inactive: bool,
    /// Settings, such as `containerInsights`.
    pub settings: Vec<Value>,
    /// `configuration` of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    /// Capacity providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capacity_providers: Vec<String>,
    /// Strategy of tasks that name none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_strategy: Vec<Value>,
    /// `serviceConnectDefaults` of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_connect_defaults: Option<Value>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Attributes of container instances by node, and of other targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<EcsAttribute>,
    /// Nodes registered by call, beside those whose daemons name the cluster; and nodes that drain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<String, EcsInstance>,
}

/// A custom attribute of a container instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsAttribute {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Name of the node.
    pub node: String,
}

/// What is kept of a container instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsInstance {
    /// It gives up its tasks.
    #[serde(skip_serializing_if = "is_default")]
    pub draining: bool,
    /// Taken out of the cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub deregistered: bool,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A revision of a task definition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskDefinition {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The definition.
    pub spec: TaskDefinitionSpec,
}
crate::kind!(TaskDefinition, "ecs.tripod.dev/v1", "TaskDefinition", "taskdefinitions.ecs.tripod.dev", namespaced: false);

/// A revision of a task definition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskDefinitionSpec {
    /// AWS region.
    pub region: String,
    /// Account.
    pub account: String,
    /// Family.
    pub family: String,
    /// From 1.
    pub revision: i64,
    /// ACTIVE, INACTIVE, DELETE_IN_PROGRESS.
    pub status: String,
    /// What was registered, in the API's spelling and with the API's defaults filled in.
    pub definition: Map<String, Value>,
    /// Who registered it.
    pub registered_by: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Time>,
    /// When it became inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deregistered_at: Option<Time>,
    /// When its deletion was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_requested_at: Option<Time>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl TaskDefinitionSpec {
    /// `arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`.
    pub fn arn(&self) -> String {
        format!(
            "arn:aws:ecs:{}:{}:task-definition/{}:{}",
            self.region, self.account, self.family, self.revision
        )
    }

    /// Its container definitions.
    pub fn containers(&self) -> &[Value] {
        let list = self
            .definition
            .get("containerDefinitions")
            .and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }

    /// A text member of the definition, empty when absent.
    pub fn text(&self, member: &str) -> &str {
        self.definition
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// A service of ECS.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsService {
    /// Metadata; in the cluster's namespace.
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: EcsServiceSpec,
    /// What became of it.
    pub status: EcsServiceStatus,
}
crate::kind!(EcsService, "ecs.tripod.dev/v1", "EcsService", "ecsservices.ecs.tripod.dev", namespaced: true);

/// What is asked of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsServiceSpec {
    /// AWS region.
    pub region: String,
    /// Account.
    pub account: String,
    /// The cluster's name.
    pub cluster: String,
    /// The service's name.
    pub name: String,
    /// Tasks wanted; of a DAEMON service what its instances make it.
    pub desired_count: i64,
    /// DAEMON: a task on each container instance.
    #[serde(skip_serializing_if = "is_default")]
    pub daemon: bool,
    /// How deployments go.
    pub deployment: DeploymentSettings,
    /// What new deployments are made of.
    pub template: EcsTemplate,
    /// Service's place: constraints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<Value>,
    /// Service's place: strategy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_strategy: Vec<Value>,
    /// NONE, SERVICE, TASK_DEFINITION.
    pub propagate_tags: String,
    /// Tasks get the tags `aws:ecs:clusterName` and `aws:ecs:serviceName`.
    #[serde(skip_serializing_if = "is_default")]
    pub managed_tags: bool,
    /// ARN of who made it.
    pub created_by: String,
    /// Token of the request that made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_token: String,
    /// Digest of the request that made it, so that a token is not used for another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Members of the API that are echoed.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub rest: Map<String, Value>,
}

/// What a deployment's tasks are made of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsTemplate {
    /// ARN of the task definition.
    pub task_definition: String,
    /// EC2, FARGATE or EXTERNAL; empty with a strategy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub launch_type: String,
    /// Instead of a launch type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capacity_provider_strategy: Vec<Value>,
    /// As asked for, `LATEST` or a version; FARGATE only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform_version: String,
    /// `networkConfiguration` of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<Value>,
    /// ExecuteCommand is wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub execute_command: bool,
}

impl EcsTemplate {
    /// Whether its tasks run on Fargate.
    pub fn is_fargate(&self) -> bool {
        match self.launch_type.as_str() {
            "" => self.provider().is_some_and(|p| p.starts_with("FARGATE")),
            launch => launch == "FARGATE",
        }
    }

    /// The capacity provider of the strategy with the largest weight (its base counts first).
    pub fn provider(&self) -> Option<&str> {
        let number = |v: &Value, k: &str| v.get(k).and_then(Value::as_i64).unwrap_or(0);
        let best = self
            .capacity_provider_strategy
            .iter()
            .rev()
            .max_by_key(|v| (number(v, "base"), number(v, "weight")));
        best?.get("capacityProvider")?.as_str()
    }
}

/// How deployments go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentSettings {
    /// Percent of the desired count that may run or be pending; rounds down.
    pub maximum_percent: i64,
    /// Percent of the desired count that stays healthy; rounds up.
    pub minimum_healthy_percent: i64,
    /// The circuit breaker is on.
    pub circuit_breaker: bool,
    /// It goes back to the last deployment that completed.
    pub rollback: bool,
    /// Other members of `deploymentConfiguration`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub rest: Map<String, Value>,
}

impl Default for DeploymentSettings {
    fn default() -> Self {
        Self {
            maximum_percent: 200,
            minimum_healthy_percent: 100,
            circuit_breaker: false,
            rollback: false,
            rest: Map::new(),
        }
    }
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsServiceStatus {
    /// ACTIVE, DRAINING, INACTIVE.
    pub state: String,
    /// The one that is wanted first, then those that still have tasks.
    pub deployments: Vec<EcsDeployment>,
    /// Deployments that are over, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<EcsDeployment>,
    /// Newest first, at most 100.
    pub events: Vec<ServiceEvent>,
    /// A steady state was told of and still holds.
    #[serde(skip_serializing_if = "is_default")]
    pub steady: bool,
    /// No task starts before this time: starts kept failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When it became INACTIVE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
}

/// A deployment of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsDeployment {
    /// `ecs-svc/` and digits.
    pub id: String,
    /// Digits of the service revision.
    pub revision: String,
    /// What its tasks are made of.
    pub template: EcsTemplate,
    /// Tasks wanted of it.
    pub desired_count: i64,
    /// Tasks that failed to start.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: i64,
    /// All its tasks run, and a circuit breaker still watches them.
    #[serde(skip_serializing_if = "is_default")]
    pub on_trial: bool,
    /// IN_PROGRESS, COMPLETED, FAILED.
    pub rollout: String,
    /// Why, for people.
    pub reason: String,
    /// When it was made.
    pub created_at: Option<Time>,
    /// When it last changed.
    pub updated_at: Option<Time>,
    /// When it completed or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The deployment that this one undoes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub undoes: String,
    /// It was told to stop (StopServiceDeployment).
    #[serde(skip_serializing_if = "is_default")]
    pub stopped: bool,
}

/// A service's event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEvent {
    /// A UUID.
    pub id: String,
    /// When.
    pub at: Option<Time>,
    /// What.
    pub message: String,
}

/// What a pod that is an ECS task has beside its PodSpec; part of the pod's extension, unchangeable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsTask {
    /// 32 hex digits.
    pub id: String,
    /// AWS region.
    pub region: String,
    /// Account.
    pub account: String,
    /// The cluster's name.
    pub cluster: String,
    /// ARN of the task definition.
    pub definition: String,
    /// `family:NAME` or `service:NAME`, or what the caller said.
    pub group: String,
    /// A deployment's id, or what the caller said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub started_by: String,
    /// The service's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// EC2, FARGATE or EXTERNAL.
    pub launch_type: String,
    /// Capacity provider.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub capacity_provider: String,
    /// Fargate's platform version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform_version: String,
    /// CPU units of the task, decimal; empty when none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cpu: String,
    /// MiB of the task, decimal; empty when none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory: String,
    /// `overrides` of the API.
    pub overrides: Value,
    /// Its containers in order.
    pub containers: Vec<EcsContainer>,
    /// awsvpc: its interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<EcsInterface>,
    /// GiB of the writable layer.
    #[serde(skip_serializing_if = "is_default")]
    pub ephemeral_storage: i64,
    /// ARN of the task's role.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_role: String,
    /// ARN of the role that fetches images and secrets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub execution_role: String,
    /// `enableExecuteCommand`.
    #[serde(skip_serializing_if = "is_default")]
    pub execute_command: bool,
    /// Token of the request that made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_token: String,
    /// Secret in the path of the metadata and credentials endpoints.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_id: String,
}

/// A container of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsContainer {
    /// Name in the definition.
    pub name: String,
    /// Name in the PodSpec.
    pub pod_name: String,
    /// UUID of its ARN.
    pub id: String,
    /// Image as written.
    pub image: String,
    /// The task ends with it.
    pub essential: bool,
    /// It has a health check.
    #[serde(skip_serializing_if = "is_default")]
    pub health_check: bool,
    /// CPU units.
    pub cpu: i64,
    /// MiB, hard limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// MiB, soft limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// `awslogs` options: group, region, stream, and where the stream's name is left out of the driver's options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<EcsLogs>,
}

/// Where a container's log goes (driver `awslogs`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsLogs {
    /// Log group.
    pub group: String,
    /// Its region.
    pub region: String,
    /// Log stream.
    pub stream: String,
    /// Make the group when it is not there.
    #[serde(skip_serializing_if = "is_default")]
    pub create: bool,
}

/// A network interface of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsInterface {
    /// UUID of the attachment.
    pub attachment: String,
    /// `eni-…`.
    pub id: String,
    /// `02:…`.
    pub mac: String,
    /// `subnet-…`.
    pub subnet: String,
    /// `sg-…`.
    pub groups: Vec<String>,
    /// It is to have a public address.
    #[serde(skip_serializing_if = "is_default")]
    pub public: bool,
}

/// Where an ECS task is in its life; part of the pod's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EcsTaskState {
    /// PROVISIONING … STOPPED, as the task's own state machine has it.
    pub last_status: String,
    /// Rises with each change.
    pub version: i64,
    /// `UserInitiated` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_code: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stopped_reason: String,
    /// When the node had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connectivity_at: Option<Time>,
    /// When images began to be pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Time>,
    /// When they were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Time>,
    /// When it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was told to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Time>,
    /// When its containers had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Time>,
    /// When nothing was left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Time>,
    /// Reasons of containers, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, String>,
    /// Until when scaling in spares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<Time>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_of_kubernetes() {
        assert_eq!(
            cluster_namespace("us-east-1", "a"),
            cluster_namespace("us-east-1", "a")
        );
        assert_ne!(
            cluster_namespace("us-east-1", "a"),
            cluster_namespace("us-east-2", "a")
        );
        assert_ne!(fnv(&["ab", "c"]), fnv(&["a", "bc"]));
        assert!(definition_name("r", "My_Family", 3).starts_with("my-family."));
        assert!(service_name("__").starts_with("x."));
    }

    #[test]
    fn the_provider_with_most_weight_counts() {
        let strategy = serde_json::json!([
            { "capacityProvider": "FARGATE", "weight": 1 },
            { "capacityProvider": "FARGATE_SPOT", "weight": 3 },
        ]);
        let template = EcsTemplate {
            capacity_provider_strategy: strategy.as_array().cloned().unwrap_or_default(),
            ..EcsTemplate::default()
        };
        assert_eq!(template.provider(), Some("FARGATE_SPOT"));
        assert!(template.is_fargate());
    }
}
