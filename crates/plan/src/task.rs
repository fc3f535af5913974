//! Making tasks: pods filled in from a service.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tripod_model::Time;
use tripod_model::object::{Kind, NAME_ANNOTATION, ObjectMeta, OwnerReference};
use tripod_model::pod::{
    DesiredState, HostPort, Pod, PodContainer, PodExtension, PodSpec, PodState, SwarmTask,
};
use tripod_model::swarm::{
    EndpointMode, NAMESPACE, PublishMode, ResourceAmounts, SwarmCluster, SwarmService, TaskSpec, TaskState,
};

use crate::rng::Rng;

/// Label with the identifier of a task's service.
pub const SERVICE_ID_LABEL: &str = "swarm.tripod.dev/service-id";
/// Label with a Kubernetes form of the name of a task's service.
pub const SERVICE_NAME_LABEL: &str = "swarm.tripod.dev/service-name";
/// Label with the identifier of a task.
pub const TASK_ID_LABEL: &str = "swarm.tripod.dev/task-id";
/// Label with the slot of a task.
pub const SLOT_LABEL: &str = "swarm.tripod.dev/slot";
/// Seconds between the stop signal and SIGKILL when the service names none (Docker's default).
const DEFAULT_GRACE_SECONDS: i64 = 10;

/// Where a task belongs: a slot, or (slot 0) a node by its Swarm identifier.
pub(crate) type Place = (u64, String);

/// The place of a task.
pub(crate) fn place(task: &SwarmTask) -> Place {
    if task.slot == 0 {
        (0, task.node_id.clone())
    } else {
        (task.slot, String::new())
    }
}

/// A name as Kubernetes allows it in a part of `metadata.name`.
pub fn safe_name(name: &str) -> String {
    let mut safe: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    while safe.ends_with('-') {
        safe.pop();
    }
    let safe = safe.trim_start_matches('-');
    if safe.is_empty() {
        "service".into()
    } else {
        safe.into()
    }
}

/// The name of a task's container, as `docker ps` shows it: `web.1.<task id>`, or with the node for global ones.
pub fn container_name(task: &SwarmTask) -> String {
    match task.slot {
        0 => format!("{}.{}.{}", task.service_name, task.node_id, task.task_id),
        slot => format!("{}.{slot}.{}", task.service_name, task.task_id),
    }
}

/// The template as tasks take it over: networks of the service's older field, the cluster's log driver.
pub fn effective_template(service: &SwarmService, cluster: Option<&SwarmCluster>) -> TaskSpec {
    let mut template = service.spec.task_template.clone();
    if template.networks.is_empty() {
        template.networks.clone_from(&service.spec.networks);
    }
    if template.log_driver.is_none() {
        template.log_driver = cluster.and_then(|c| c.spec.log_driver.clone());
    }
    template
}

/// Ports of the tasks of a service: those of mode `host`, those of the mesh.
pub(crate) fn task_ports(service: &SwarmService) -> (Vec<HostPort>, Vec<HostPort>) {
    let Some(endpoint) = &service.spec.endpoint_spec else {
        return Default::default();
    };
    let pick = |mode| {
        let ports = endpoint.ports.iter().filter(|p| p.publish_mode == mode);
        ports
            .map(|p| HostPort {
                target: p.target_port,
                published: p.published_port,
                protocol: p.protocol,
            })
            .collect()
    };
    let mesh = if endpoint.mode == EndpointMode::Vip {
        pick(PublishMode::Ingress)
    } else {
        Vec::new()
    };
    (pick(PublishMode::Host), mesh)
}

/// Makes the tasks of one service: what they share is computed once.
pub(crate) struct TaskMaker {
    prefix: String,
    shared: Pod,
}

impl TaskMaker {
    pub(crate) fn new(service: &SwarmService, cluster: Option<&SwarmCluster>) -> Self {
        let template = effective_template(service, cluster);
        let prefix = safe_name(&service.spec.name);
        let (host_ports, mesh_ports) = task_ports(service);
        let labels = BTreeMap::from([
            (SERVICE_ID_LABEL.to_owned(), service.metadata.name.clone()),
            (SERVICE_NAME_LABEL.to_owned(), prefix.clone()),
        ]);
        let metadata = ObjectMeta {
            namespace: NAMESPACE.into(),
            labels,
            owner_references: vec![OwnerReference {
                api_version: SwarmService::API_VERSION.into(),
                kind: SwarmService::KIND.into(),
                name: service.metadata.name.clone(),
                uid: service.metadata.uid.clone(),
                controller: Some(true),
                block_owner_deletion: None,
            }],
            ..ObjectMeta::default()
        };
        let task = SwarmTask {
            service_id: service.metadata.name.clone(),
            service_name: service.spec.name.clone(),
            service_labels: service.spec.labels.clone(),
            service_generation: service.metadata.generation,
            job_iteration: service
                .spec
                .mode
                .is_job()
                .then(|| service.status.job.as_ref().map_or(0, |j| j.iteration)),
            host_ports,
            mesh_ports,
            ..SwarmTask::default()
        };
        let spec = pod_spec(&prefix, &template, &task);
        let swarm = Some(SwarmTask { template, ..task });
        let extension = PodExtension {
            swarm,
            ..PodExtension::default()
        };
        let status = tripod_model::pod::PodStatus {
            phase: "Pending".into(),
            ..Default::default()
        };
        Self {
            prefix,
            shared: Pod {
                metadata,
                spec,
                extension,
                status,
                state: PodState::default(),
            },
        }
    }

    /// A new task at `place`.
    pub(crate) fn make(&self, place: &Place, desired: DesiredState, now: Time, rng: &mut Rng) -> Pod {
        let mut pod = self.shared.clone();
        let task_id = rng.task_id();
        let middle = if place.0 == 0 {
            place.1.clone()
        } else {
            place.0.to_string()
        };
        pod.metadata.name = format!("{}.{middle}.{task_id}", self.prefix);
        pod.metadata.uid = rng.uid();
        pod.metadata.creation_timestamp = Some(now);
        pod.metadata.labels.insert(TASK_ID_LABEL.into(), task_id.clone());
        if place.0 != 0 {
            pod.metadata.labels.insert(SLOT_LABEL.into(), middle);
        }
        if let Some(task) = &mut pod.extension.swarm {
            task.task_id = task_id;
            task.slot = place.0;
            task.node_id.clone_from(&place.1);
            pod.metadata
                .annotations
                .insert(NAME_ANNOTATION.into(), container_name(task));
        }
        pod.state = PodState {
            desired,
            observed: TaskState::New,
            at: Some(now),
            message: "created".into(),
            ..PodState::default()
        };
        pod
    }
}

/// The task as Kubernetes clients see it.
fn pod_spec(name: &str, template: &TaskSpec, task: &SwarmTask) -> PodSpec {
    let c = &template.container;
    let mut rest = Map::new();
    let mut set = |key: &str, value: Value| {
        rest.insert(key.to_owned(), value);
    };
    if !c.env.is_empty() {
        let env = c.env.iter().map(|e| e.split_once('=').unwrap_or((e, "")));
        set(
            "env",
            env.map(|(name, value)| json!({ "name": name, "value": value }))
                .collect(),
        );
    }
    if !c.dir.is_empty() {
        set("workingDir", c.dir.as_str().into());
    }
    let host = task.host_ports.iter().map(|p| (p, true));
    let ports: Vec<Value> = host
        .chain(task.mesh_ports.iter().map(|p| (p, false)))
        .map(|(p, host)| {
            let mut port =
                json!({ "containerPort": p.target, "protocol": p.protocol.to_string().to_uppercase() });
            if host && p.published != 0 {
                port["hostPort"] = p.published.into();
            }
            port
        })
        .collect();
    if !ports.is_empty() {
        set("ports", ports.into());
    }
    if let Some(resources) = &template.resources {
        let amounts = |a: &Option<ResourceAmounts>| a.as_ref().map(quantities).unwrap_or_default();
        set(
            "resources",
            json!({ "limits": amounts(&resources.limits), "requests": amounts(&resources.reservations) }),
        );
    }
    for (key, on) in [("tty", c.tty), ("stdin", c.open_stdin)] {
        if on {
            set(key, true.into());
        }
    }
    if c.read_only {
        set("securityContext", json!({ "readOnlyRootFilesystem": true }));
    }
    let container = PodContainer {
        name: name.to_owned(),
        image: c.image.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        rest: rest.into(),
    };
    let grace = c
        .stop_grace_period
        .map_or(DEFAULT_GRACE_SECONDS, |n| n.max(0).div_euclid(1_000_000_000));
    PodSpec {
        node_name: String::new(),
        containers: vec![container],
        // Swarm replaces a task that ended; it never restarts one.
        restart_policy: "Never".into(),
        termination_grace_period_seconds: Some(grace),
        rest: Default::default(),
    }
}

fn quantities(amounts: &ResourceAmounts) -> Map<String, Value> {
    let mut map = Map::new();
    if amounts.nano_cpus != 0 {
        map.insert("cpu".into(), format!("{}m", amounts.nano_cpus / 1_000_000).into());
    }
    if amounts.memory != 0 {
        map.insert("memory".into(), amounts.memory.to_string().into());
    }
    for g in &amounts.generic {
        map.insert(
            format!("swarm.tripod.dev/{}", safe_name(&g.kind)),
            g.count.to_string().into(),
        );
    }
    map
}
