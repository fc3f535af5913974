//! `ServiceSpec` and what it holds, as the API writes them (Swarm section of the reference). Fields that are absent are
//! left out, as the real daemon does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

type Map = BTreeMap<String, String>;

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
            #[serde(default, rename_all = "PascalCase")]
            pub(crate) struct $name {
                $(
                    #[serde(skip_serializing_if = "is_default")]
                    $(#[$field_meta])*
                    pub(crate) $field: $type,
                )*
            }
        )*
    };
}

wire! {
    /// What a user wants of a service.
    pub struct ServiceSpec {
        name: String,
        labels: Option<Map>,
        task_template: TaskSpec,
        mode: Mode,
        update_config: Option<UpdateConfig>,
        rollback_config: Option<UpdateConfig>,
        networks: Vec<NetworkAttachment>,
        endpoint_spec: Option<EndpointSpec>,
    }
    /// The template of a task.
    pub struct TaskSpec {
        container_spec: Option<ContainerSpec>,
        plugin_spec: Option<Value>,
        network_attachment_spec: Option<Value>,
        resources: Option<Resources>,
        restart_policy: Option<RestartPolicy>,
        placement: Option<Placement>,
        networks: Vec<NetworkAttachment>,
        log_driver: Option<Driver>,
        #[serde(default)]
        runtime: String,
    }
    /// A container of a service.
    pub struct ContainerSpec {
        image: String,
        labels: Map,
        command: Vec<String>,
        args: Vec<String>,
        hostname: String,
        env: Vec<String>,
        dir: String,
        user: String,
        groups: Vec<String>,
        privileges: Option<Value>,
        init: Option<bool>,
        stop_signal: String,
        #[serde(rename = "TTY")]
        tty: bool,
        open_stdin: bool,
        read_only: bool,
        mounts: Vec<Mount>,
        stop_grace_period: Option<i64>,
        healthcheck: Option<HealthConfig>,
        hosts: Vec<String>,
        #[serde(rename = "DNSConfig")]
        dns_config: Option<DnsConfig>,
        secrets: Vec<SecretReference>,
        configs: Vec<ConfigReference>,
        isolation: String,
        sysctls: Map,
        capability_add: Vec<String>,
        capability_drop: Vec<String>,
        ulimits: Vec<Ulimit>,
        oom_score_adj: i64,
    }
    /// A mount.
    pub struct Mount {
        #[serde(rename = "Type")]
        kind: String,
        source: String,
        target: String,
        read_only: bool,
        consistency: String,
        bind_options: Option<Value>,
        volume_options: Option<Value>,
        tmpfs_options: Option<Value>,
        image_options: Option<Value>,
        cluster_options: Option<Value>,
    }
    /// A health check.
    pub struct HealthConfig {
        test: Vec<String>,
        interval: i64,
        timeout: i64,
        start_period: i64,
        start_interval: i64,
        retries: i64,
    }
    /// Name servers.
    pub struct DnsConfig {
        nameservers: Vec<String>,
        search: Vec<String>,
        options: Vec<String>,
    }
    /// The file that a secret or config becomes.
    pub struct File {
        name: String,
        #[serde(rename = "UID")]
        uid: String,
        #[serde(rename = "GID")]
        gid: String,
        mode: u32,
    }
    /// A secret of a container.
    pub struct SecretReference {
        file: Option<File>,
        #[serde(rename = "SecretID")]
        secret_id: String,
        secret_name: String,
    }
    /// A config of a container.
    pub struct ConfigReference {
        file: Option<File>,
        runtime: Option<Value>,
        #[serde(rename = "ConfigID")]
        config_id: String,
        config_name: String,
    }
    /// A resource limit.
    pub struct Ulimit {
        name: String,
        soft: i64,
        hard: i64,
    }
    /// Limits and reservations.
    pub struct Resources {
        limits: Option<Limits>,
        reservations: Option<Reservations>,
    }
    /// Upper bounds.
    pub struct Limits {
        #[serde(rename = "NanoCPUs")]
        nano_cpus: i64,
        memory_bytes: i64,
        pids: i64,
    }
    /// What must be free.
    pub struct Reservations {
        #[serde(rename = "NanoCPUs")]
        nano_cpus: i64,
        memory_bytes: i64,
        generic_resources: Vec<GenericResource>,
    }
    /// A named or counted resource.
    pub struct GenericResource {
        named_resource_spec: Option<NamedResource>,
        discrete_resource_spec: Option<DiscreteResource>,
    }
    /// One of a set of names.
    pub struct NamedResource {
        kind: String,
        value: String,
    }
    /// So many.
    pub struct DiscreteResource {
        kind: String,
        value: i64,
    }
    /// When a task that ended is replaced.
    pub struct RestartPolicy {
        condition: String,
        delay: Option<i64>,
        max_attempts: Option<u64>,
        window: Option<i64>,
    }
    /// Where tasks may run.
    pub struct Placement {
        constraints: Vec<String>,
        preferences: Vec<Preference>,
        max_replicas: u64,
        platforms: Vec<Platform>,
    }
    /// A preference.
    pub struct Preference {
        spread: Option<Spread>,
    }
    /// Spread over the values of a label.
    pub struct Spread {
        spread_descriptor: String,
    }
    /// A platform.
    pub struct Platform {
        architecture: String,
        #[serde(rename = "OS")]
        os: String,
    }
    /// A driver and its options.
    pub struct Driver {
        name: String,
        options: Option<Map>,
    }
    /// An attachment to a network.
    pub struct NetworkAttachment {
        target: String,
        aliases: Vec<String>,
        driver_opts: Map,
    }
    /// How many tasks and of which sort.
    pub struct Mode {
        replicated: Option<Replicated>,
        global: Option<Empty>,
        replicated_job: Option<ReplicatedJob>,
        global_job: Option<Empty>,
    }
    /// So many tasks.
    pub struct Replicated {
        replicas: Option<u64>,
    }
    /// So many runs.
    pub struct ReplicatedJob {
        max_concurrent: Option<u64>,
        total_completions: Option<u64>,
    }
    /// An object without fields.
    pub struct Empty {}
}

impl TaskSpec {
    /// As JSON: `ForceUpdate` is always there.
    pub(crate) fn to_value(&self, force_update: u64) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["ForceUpdate"] = force_update.into();
        value
    }
}

/// How changes are rolled out; every field is always there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UpdateConfig {
    pub(crate) parallelism: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delay: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) failure_action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) monitor: i64,
    #[serde(serialize_with = "short_float")]
    pub(crate) max_failure_ratio: f32,
    pub(crate) order: String,
}

/// A number of single precision with the digits that it has: widened as it is, 0.4 would become 0.4000000059604645.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn short_float<S: serde::Serializer>(value: &f32, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(value.to_string().parse().unwrap_or_default())
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct EndpointSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct PortConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) target_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) published_port: u32,
    pub(crate) publish_mode: String,
}
