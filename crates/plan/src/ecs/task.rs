//! What a task is made of: the pod of a task definition, with its overrides.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tripod_model::Time;
use tripod_model::ecs::{
    EcsCluster, EcsContainer, EcsInterface, EcsLogs, EcsTask, EcsTaskState, EcsTemplate, FAMILY_LABEL,
    SERVICE_LABEL, TASK_LABEL, TaskDefinition, readable,
};
use tripod_model::object::{NAME_ANNOTATION, ObjectMeta};
use tripod_model::pod::{DesiredState, Pod, PodContainer, PodExtension, PodSpec, PodState, PodStatus};

use super::extension::{additions, grace};
use super::secrets::{self, Resolved, key_of, object_of};
use super::{extension, life};
use crate::rng::Rng;
use crate::view::View;
use crate::write::Write;

/// Address of the endpoints for metadata and credentials.
pub const TASK_ENDPOINT: &str = "169.254.170.2";
/// What Fargate runs.
pub const PLATFORM_VERSION: &str = "1.4.0";
/// GiB of a Fargate task's disk that asks for no other size.
const EPHEMERAL_STORAGE: i64 = 20;

/// A task that is to be made.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Where.
    pub cluster: &'a EcsCluster,
    /// Of what.
    pub definition: &'a TaskDefinition,
    /// How.
    pub template: &'a EcsTemplate,
    /// `overrides` of the API, or null.
    pub overrides: &'a Value,
    /// `family:…`, `service:…`, or the caller's.
    pub group: &'a str,
    /// A deployment, or the caller's.
    pub started_by: &'a str,
    /// Name of the service; empty for a task by itself.
    pub service: &'a str,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Token of the request.
    pub client_token: &'a str,
}

fn text<'v>(v: &'v Value, member: &str) -> &'v str {
    v.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn items<'v>(v: &'v Value, member: &str) -> &'v [Value] {
    v.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(v: &Value, member: &str) -> Vec<String> {
    items(v, member)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn number(v: &Value, member: &str) -> Option<i64> {
    v.get(member)?.as_i64()
}

/// 32 random hex digits.
fn hex(rng: &mut Rng) -> String {
    format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

/// Makes a task: its pod, and what is to be written before it. One whose secrets cannot be had is made to end.
pub fn make(view: &View, launch: &Launch<'_>, now: Time, rng: &mut Rng) -> (Pod, Vec<Write>) {
    let definition = &launch.definition.spec;
    let task = describe(launch, rng);
    let name = format!(
        "{}-{}",
        readable(&definition.family)
            .get(..24)
            .unwrap_or(&readable(&definition.family)),
        task.id
    );
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: name.clone(),
            namespace: launch.cluster.metadata.name.clone(),
            uid: rng.uid(),
            creation_timestamp: Some(now),
            labels: labels(launch, &task),
            annotations: [(
                NAME_ANNOTATION.to_owned(),
                format!("{}/{}", launch.cluster.spec.name, task.id),
            )]
            .into(),
            ..ObjectMeta::default()
        },
        status: PodStatus {
            phase: "Pending".into(),
            ..PodStatus::default()
        },
        state: PodState {
            ecs: Some(EcsTaskState {
                last_status: "PROVISIONING".into(),
                version: 1,
                tags: launch.tags.clone(),
                ..EcsTaskState::default()
            }),
            ..PodState::default()
        },
        ..Pod::default()
    };
    let values = secrets::resolve(view, definition);
    pod.spec = spec(launch, &task, &name, values.as_ref().unwrap_or(&Vec::new()));
    pod.extension = PodExtension {
        containers: additions(definition, &task),
        ecs: Some(task),
        ..PodExtension::default()
    };
    let mut writes = Vec::new();
    match values {
        Ok(values) if values.is_empty() => {}
        Ok(values) => writes.push(secrets::write(&pod, &values, now, rng.uid())),
        Err(why) => life::stop(&mut pod, "TaskFailedToStart", &why, now),
    }
    debug_assert!(pod.state.desired >= DesiredState::Running);
    (pod, writes)
}

fn labels(launch: &Launch<'_>, task: &EcsTask) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (TASK_LABEL.to_owned(), task.id.clone()),
        (FAMILY_LABEL.to_owned(), readable(&launch.definition.spec.family)),
    ]);
    if !launch.service.is_empty() {
        labels.insert(SERVICE_LABEL.into(), readable(launch.service));
    }
    labels
}

/// The override of a container.
fn of_container<'v>(overrides: &'v Value, name: &str) -> Option<&'v Value> {
    items(overrides, "containerOverrides")
        .iter()
        .find(|o| text(o, "name") == name)
}

fn describe(launch: &Launch<'_>, rng: &mut Rng) -> EcsTask {
    let (cluster, definition, template) = (&launch.cluster.spec, &launch.definition.spec, launch.template);
    let own = |member: &str| match launch.overrides.get(member).and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => definition.text(member).to_owned(),
    };
    let fargate = template.is_fargate();
    let id = hex(rng);
    let storage = launch
        .overrides
        .get("ephemeralStorage")
        .or_else(|| definition.definition.get("ephemeralStorage"));
    let storage = storage.and_then(|s| number(s, "sizeInGiB"));
    let containers = definition
        .containers()
        .iter()
        .map(|c| container(c, launch.overrides, &id, rng));
    let containers: Vec<EcsContainer> = containers.collect();
    EcsTask {
        region: cluster.region.clone(),
        account: cluster.account.clone(),
        cluster: cluster.name.clone(),
        definition: definition.arn(),
        group: launch.group.to_owned(),
        started_by: launch.started_by.to_owned(),
        service: launch.service.to_owned(),
        launch_type: if fargate {
            "FARGATE".into()
        } else {
            or(&template.launch_type, "EC2")
        },
        capacity_provider: match template.launch_type.as_str() {
            "" => template.provider().unwrap_or_default().to_owned(),
            _ => String::new(),
        },
        platform_version: if fargate {
            PLATFORM_VERSION.into()
        } else {
            String::new()
        },
        cpu: own("cpu"),
        memory: own("memory"),
        overrides: echoed(launch.overrides, definition.containers()),
        interface: interface(definition.text("networkMode"), template, rng),
        ephemeral_storage: storage.unwrap_or(if fargate { EPHEMERAL_STORAGE } else { 0 }),
        task_role: own("taskRoleArn"),
        execution_role: own("executionRoleArn"),
        execute_command: template.execute_command,
        client_token: launch.client_token.to_owned(),
        endpoint_id: format!("{}-{:010}", id, rng.next_u64() % 10_000_000_000),
        containers,
        id,
    }
}

fn or(text: &str, other: &str) -> String {
    if text.is_empty() { other } else { text }.to_owned()
}

/// `overrides` as tasks show them: an entry for each container.
fn echoed(overrides: &Value, containers: &[Value]) -> Value {
    let mut out = overrides.as_object().cloned().unwrap_or_default();
    let listed: Value = containers
        .iter()
        .map(|c| {
            let name = text(c, "name");
            of_container(overrides, name)
                .cloned()
                .unwrap_or_else(|| json!({ "name": name }))
        })
        .collect();
    out.insert("containerOverrides".into(), listed);
    out.entry("inferenceAcceleratorOverrides")
        .or_insert_with(|| json!([]));
    Value::Object(out)
}

fn container(c: &Value, overrides: &Value, task: &str, rng: &mut Rng) -> EcsContainer {
    let name = text(c, "name");
    let changed = of_container(overrides, name).unwrap_or(&Value::Null);
    let amount = |member: &str| number(changed, member).or_else(|| number(c, member));
    EcsContainer {
        name: name.to_owned(),
        pod_name: pod_name(name),
        id: rng.uid(),
        image: text(c, "image").to_owned(),
        essential: c.get("essential").and_then(Value::as_bool).unwrap_or(true),
        health_check: c.get("healthCheck").is_some(),
        cpu: amount("cpu").unwrap_or(0),
        memory: amount("memory"),
        memory_reservation: amount("memoryReservation"),
        logs: logs(c, name, task),
    }
}

/// A name of a container that Kubernetes allows.
pub fn pod_name(name: &str) -> String {
    let safe = readable(name);
    // What was changed must not meet another name.
    if safe == name {
        safe
    } else {
        format!("{safe}-{:x}", tripod_model::ecs::fnv(&[name]) & 0xffff)
    }
}

fn logs(c: &Value, name: &str, task: &str) -> Option<EcsLogs> {
    let config = c
        .get("logConfiguration")
        .filter(|l| text(l, "logDriver") == "awslogs")?;
    let options = config.get("options")?;
    let stream = match text(options, "awslogs-stream-prefix") {
        "" => format!("{name}/{task}"),
        prefix => format!("{prefix}/{name}/{task}"),
    };
    Some(EcsLogs {
        group: text(options, "awslogs-group").to_owned(),
        region: text(options, "awslogs-region").to_owned(),
        stream,
        create: text(options, "awslogs-create-group") == "true",
    })
}

fn interface(mode: &str, template: &EcsTemplate, rng: &mut Rng) -> Option<EcsInterface> {
    if mode != "awsvpc" {
        return None;
    }
    let vpc = template
        .network_configuration
        .as_ref()?
        .get("awsvpcConfiguration")?;
    let subnets = texts(vpc, "subnets");
    let at = usize::try_from(rng.next_u64()).unwrap_or(0) % subnets.len().max(1);
    let mac = rng.next_u64().to_be_bytes();
    Some(EcsInterface {
        attachment: rng.uid(),
        id: format!("eni-0{:016x}", rng.next_u64()),
        mac: format!(
            "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            mac[0], mac[1], mac[2], mac[3], mac[4]
        ),
        subnet: subnets.get(at).cloned().unwrap_or_default(),
        groups: texts(vpc, "securityGroups"),
        public: text(vpc, "assignPublicIp") == "ENABLED",
    })
}

fn spec(launch: &Launch<'_>, task: &EcsTask, pod: &str, values: &Resolved) -> PodSpec {
    let definition = &launch.definition.spec;
    let mut rest = Map::new();
    for (member, off) in [
        ("automountServiceAccountToken", false),
        ("enableServiceLinks", false),
    ] {
        rest.insert(member.into(), off.into());
    }
    rest.insert("dnsPolicy".into(), "Default".into());
    if definition.text("networkMode") == "host" {
        rest.insert("hostNetwork".into(), true.into());
    }
    match definition.text("pidMode") {
        "host" => drop(rest.insert("hostPID".into(), true.into())),
        "task" => drop(rest.insert("shareProcessNamespace".into(), true.into())),
        _ => {}
    }
    if definition.text("ipcMode") == "host" {
        rest.insert("hostIPC".into(), true.into());
    }
    let architecture = definition
        .definition
        .get("runtimePlatform")
        .map(|p| text(p, "cpuArchitecture"));
    if let Some(arch) = match architecture {
        Some("X86_64") => Some("amd64"),
        Some("ARM64") => Some("arm64"),
        _ => None,
    } {
        rest.insert("nodeSelector".into(), json!({ "kubernetes.io/arch": arch }));
    }
    let volumes = extension::volumes(definition);
    if !volumes.is_empty() {
        rest.insert("volumes".into(), volumes.into());
    }
    let containers = definition.containers().iter().zip(&task.containers);
    PodSpec {
        node_name: String::new(),
        containers: containers
            .map(|(c, e)| pod_container(launch, task, c, e, pod, values))
            .collect(),
        restart_policy: "Never".into(),
        termination_grace_period_seconds: Some(grace(definition)),
        rest: rest.into(),
    }
}

fn pod_container(
    launch: &Launch<'_>,
    task: &EcsTask,
    c: &Value,
    e: &EcsContainer,
    pod: &str,
    values: &Resolved,
) -> PodContainer {
    let changed = of_container(launch.overrides, &e.name).unwrap_or(&Value::Null);
    let command = match changed.get("command") {
        Some(_) => texts(changed, "command"),
        None => texts(c, "command"),
    };
    let mut rest = Map::new();
    rest.insert("imagePullPolicy".into(), "IfNotPresent".into());
    rest.insert("env".into(), env(task, c, changed, e, pod, values).into());
    rest.insert("resources".into(), resources(task, e));
    let ports = ports(launch, task, c);
    if !ports.is_empty() {
        rest.insert("ports".into(), ports.into());
    }
    if !text(c, "workingDirectory").is_empty() {
        rest.insert("workingDir".into(), text(c, "workingDirectory").into());
    }
    for (from, to) in [("interactive", "stdin"), ("pseudoTerminal", "tty")] {
        if c.get(from).and_then(Value::as_bool) == Some(true) {
            rest.insert(to.into(), true.into());
        }
    }
    let mounts = extension::mounts(&launch.definition.spec, c);
    if !mounts.is_empty() {
        rest.insert("volumeMounts".into(), mounts.into());
    }
    let security = extension::security(c);
    if !security.is_empty() {
        rest.insert("securityContext".into(), security.into());
    }
    PodContainer {
        name: e.pod_name.clone(),
        image: e.image.clone(),
        command: texts(c, "entryPoint"),
        args: command,
        rest: rest.into(),
    }
}

fn env(
    task: &EcsTask,
    c: &Value,
    changed: &Value,
    e: &EcsContainer,
    pod: &str,
    values: &Resolved,
) -> Vec<Value> {
    let mut plain: BTreeMap<String, String> = BTreeMap::new();
    let fargate = task.launch_type == "FARGATE";
    let uri = format!("http://{TASK_ENDPOINT}/v4/{}/{}", task.endpoint_id, e.id);
    plain.insert("ECS_CONTAINER_METADATA_URI_V4".into(), uri);
    plain.insert(
        "ECS_AGENT_URI".into(),
        format!("http://{TASK_ENDPOINT}/api/{}/{}", task.endpoint_id, e.id),
    );
    plain.insert(
        "AWS_EXECUTION_ENV".into(),
        if fargate { "AWS_ECS_FARGATE" } else { "AWS_ECS_EC2" }.into(),
    );
    plain.insert("AWS_REGION".into(), task.region.clone());
    plain.insert("AWS_DEFAULT_REGION".into(), task.region.clone());
    if !task.task_role.is_empty() {
        let path = format!("/v2/credentials/{}", task.endpoint_id);
        plain.insert("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".into(), path);
    }
    for pair in items(c, "environment")
        .iter()
        .chain(items(changed, "environment"))
    {
        plain.insert(text(pair, "name").to_owned(), text(pair, "value").to_owned());
    }
    let secrets = values.iter().filter(|(container, ..)| *container == e.name);
    let secrets = secrets.map(|(container, variable, _)| {
        json!({ "name": variable, "valueFrom": { "secretKeyRef": {
            "name": object_of(pod), "key": key_of(container, variable),
        } } })
    });
    // Dollar signs are no references here.
    let plain = plain
        .iter()
        .map(|(k, v)| json!({ "name": k, "value": v.replace("$(", "$$(") }));
    plain.chain(secrets).collect()
}

/// Limits; what Fargate gives a task is not taken from a node, which holds as many as fit.
fn resources(task: &EcsTask, e: &EcsContainer) -> Value {
    let mut limits = Map::new();
    let mut requests = Map::from_iter([("cpu".to_owned(), json!("0")), ("memory".to_owned(), json!("0"))]);
    let whole: Option<i64> = task.memory.parse().ok();
    if let Some(memory) = e.memory.or(whole) {
        limits.insert("memory".into(), format!("{memory}Mi").into());
    }
    if let Ok(units) = task.cpu.parse::<i64>() {
        limits.insert("cpu".into(), format!("{}m", units * 1000 / 1024).into());
    }
    if task.launch_type != "FARGATE" {
        requests.insert("cpu".into(), format!("{}m", e.cpu * 1000 / 1024).into());
        let memory = e.memory_reservation.or(e.memory).unwrap_or(0);
        requests.insert("memory".into(), format!("{memory}Mi").into());
    }
    json!({ "limits": limits, "requests": requests })
}

fn ports(launch: &Launch<'_>, task: &EcsTask, c: &Value) -> Vec<Value> {
    let mode = launch.definition.spec.text("networkMode");
    let public = task.interface.as_ref().is_some_and(|i| i.public);
    let mut out: Vec<Value> = Vec::new();
    for mapping in items(c, "portMappings") {
        let Some(port) = number(mapping, "containerPort") else {
            continue;
        };
        let protocol = match text(mapping, "protocol") {
            "udp" => "UDP",
            _ => "TCP",
        };
        let mut made = json!({ "containerPort": port, "protocol": protocol });
        let host = match mode {
            "awsvpc" => public.then_some(port),
            "host" => Some(port),
            _ => match number(mapping, "hostPort") {
                None | Some(0) => Some(dynamic_port(&task.id, port)),
                given => given,
            },
        };
        if let Some(host) = host {
            made["hostPort"] = host.into();
        }
        if !out.contains(&made) {
            out.push(made);
        }
    }
    out
}

/// A port of the node from the range that ECS takes dynamic ports from.
fn dynamic_port(task: &str, port: i64) -> i64 {
    let hash = tripod_model::ecs::fnv(&[task, &port.to_string()]);
    32768 + i64::try_from(hash % 28232).unwrap_or(0)
}
