//! What containers of ECS have beside those of a PodSpec, and their volumes and rights.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tripod_model::container::{Device, HealthCheck, LogConfig, Mount, MountKind, Ulimit};
use tripod_model::ecs::{EcsTask, TaskDefinitionSpec, readable};
use tripod_model::pod::{ContainerExtension, Dependency, DependencyCondition};

use super::task::pod_name;

/// Seconds between the stop signal and SIGKILL.
const GRACE: i64 = 30;
const SECOND: i64 = 1_000_000_000;
const MIB: i64 = 1 << 20;

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

fn flag(v: &Value, member: &str) -> bool {
    v.get(member).and_then(Value::as_bool) == Some(true)
}

/// The longest `stopTimeout` of a definition.
pub(super) fn grace(definition: &TaskDefinitionSpec) -> i64 {
    let timeouts = definition
        .containers()
        .iter()
        .filter_map(|c| number(c, "stopTimeout"));
    timeouts.max().unwrap_or(GRACE)
}

/// By the container's name in the PodSpec.
pub(super) fn additions(
    definition: &TaskDefinitionSpec,
    task: &EcsTask,
) -> BTreeMap<String, ContainerExtension> {
    let containers = definition.containers().iter().zip(&task.containers);
    containers
        .map(|(c, e)| (e.pod_name.clone(), addition(definition, task, c, e.essential)))
        .collect()
}

fn addition(
    definition: &TaskDefinitionSpec,
    task: &EcsTask,
    c: &Value,
    essential: bool,
) -> ContainerExtension {
    let linux = c.get("linuxParameters").cloned().unwrap_or_default();
    let ulimits = items(c, "ulimits").iter().map(|u| Ulimit {
        name: text(u, "name").to_owned(),
        soft: number(u, "softLimit").unwrap_or(0),
        hard: number(u, "hardLimit").unwrap_or(0),
    });
    let depends_on = items(c, "dependsOn").iter().map(|d| Dependency {
        container: pod_name(text(d, "containerName")),
        condition: match text(d, "condition") {
            "COMPLETE" => DependencyCondition::Complete,
            "SUCCESS" => DependencyCondition::Success,
            "HEALTHY" => DependencyCondition::Healthy,
            _ => DependencyCondition::Start,
        },
    });
    let devices = items(&linux, "devices").iter().map(|d| Device {
        host_path: text(d, "hostPath").to_owned(),
        container_path: Some(text(d, "containerPath"))
            .filter(|p| !p.is_empty())
            .unwrap_or(text(d, "hostPath"))
            .to_owned(),
        permissions: permissions(d),
    });
    ContainerExtension {
        ulimits: ulimits.collect(),
        health_check: c.get("healthCheck").map(health),
        essential,
        depends_on: depends_on.collect(),
        start_timeout: number(c, "startTimeout"),
        stop_timeout: Some(number(c, "stopTimeout").unwrap_or(GRACE)),
        user: text(c, "user").to_owned(),
        log: log(c),
        init: flag(&linux, "initProcessEnabled"),
        shm_size: number(&linux, "sharedMemorySize").unwrap_or(0) * MIB,
        devices: devices.collect(),
        mounts: special_mounts(definition, c, &linux),
        labels: labels(definition, task, c),
        memory_swap: swap(c, &linux),
        memory_swappiness: number(&linux, "swappiness"),
        memory_reservation: number(c, "memoryReservation").unwrap_or(0) * MIB,
        cpu_shares: number(c, "cpu").filter(|n| *n >= 2).unwrap_or(0),
        ..ContainerExtension::default()
    }
}

fn permissions(device: &Value) -> String {
    let names = texts(device, "permissions");
    if names.is_empty() {
        return "rwm".into();
    }
    let letters = [("read", 'r'), ("write", 'w'), ("mknod", 'm')];
    letters
        .iter()
        .filter(|(n, _)| names.iter().any(|x| x == n))
        .map(|(_, c)| *c)
        .collect()
}

fn health(check: &Value) -> HealthCheck {
    HealthCheck {
        test: texts(check, "command"),
        interval: number(check, "interval").unwrap_or(30) * SECOND,
        timeout: number(check, "timeout").unwrap_or(5) * SECOND,
        retries: number(check, "retries").unwrap_or(3),
        start_period: number(check, "startPeriod").unwrap_or(0) * SECOND,
        ..HealthCheck::default()
    }
}

/// Logs of the driver `awslogs` are kept on the node as well: from there they are delivered.
fn log(c: &Value) -> Option<LogConfig> {
    let config = c.get("logConfiguration")?;
    let driver = match text(config, "logDriver") {
        "awslogs" => "json-file",
        other => other,
    };
    let options = config
        .get("options")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let options =
        options.filter(|(k, _)| !k.starts_with("awslogs-") && *k != "mode" && *k != "max-buffer-size");
    Some(LogConfig {
        driver: driver.to_owned(),
        options: options
            .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect(),
    })
}

fn swap(c: &Value, linux: &Value) -> i64 {
    match (number(linux, "maxSwap"), number(c, "memory")) {
        (Some(swap), Some(memory)) => (swap + memory) * MIB,
        _ => 0,
    }
}

fn labels(definition: &TaskDefinitionSpec, task: &EcsTask, c: &Value) -> BTreeMap<String, String> {
    let own = c
        .get("dockerLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut labels: BTreeMap<String, String> = own
        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
        .collect();
    let arn = |kind: &str, rest: &str| format!("arn:aws:ecs:{}:{}:{kind}/{rest}", task.region, task.account);
    let ours = [
        ("com.amazonaws.ecs.cluster", arn("cluster", &task.cluster)),
        ("com.amazonaws.ecs.container-name", text(c, "name").to_owned()),
        (
            "com.amazonaws.ecs.task-arn",
            arn("task", &format!("{}/{}", task.cluster, task.id)),
        ),
        (
            "com.amazonaws.ecs.task-definition-family",
            definition.family.clone(),
        ),
        (
            "com.amazonaws.ecs.task-definition-version",
            definition.revision.to_string(),
        ),
    ];
    labels.extend(ours.map(|(k, v)| (k.to_owned(), v)));
    labels
}

/// The name of a volume in the PodSpec.
fn volume_name(name: &str) -> String {
    pod_name(name)
}

fn volume<'d>(definition: &'d TaskDefinitionSpec, name: &str) -> Option<&'d Value> {
    let list = definition.definition.get("volumes").and_then(Value::as_array)?;
    list.iter().find(|v| text(v, "name") == name)
}

/// Volumes of the PodSpec: directories of the host, empty ones, and NFS for EFS. Docker's volumes are mounts.
pub(super) fn volumes(definition: &TaskDefinitionSpec) -> Vec<Value> {
    let list = definition.definition.get("volumes").and_then(Value::as_array);
    let list = list
        .into_iter()
        .flatten()
        .filter(|v| v.get("dockerVolumeConfiguration").is_none());
    list.map(|v| {
        let name = volume_name(text(v, "name"));
        if let Some(efs) = v.get("efsVolumeConfiguration") {
            let id = text(efs, "fileSystemId");
            // A name with a dot is a server of the user's own.
            let server = if id.contains('.') {
                id.to_owned()
            } else {
                format!("{id}.efs.{}.amazonaws.com", definition.region)
            };
            let path = Some(text(efs, "rootDirectory"))
                .filter(|p| !p.is_empty())
                .unwrap_or("/");
            return json!({ "name": name, "nfs": { "server": server, "path": path } });
        }
        match v.get("host").map(|h| text(h, "sourcePath")).unwrap_or_default() {
            "" => json!({ "name": name, "emptyDir": {} }),
            path => json!({ "name": name, "hostPath": { "path": path, "type": "DirectoryOrCreate" } }),
        }
    })
    .collect()
}

/// The mounts of a container, with those of the containers that it takes volumes from.
fn all_mounts<'d>(definition: &'d TaskDefinitionSpec, c: &'d Value) -> Vec<(&'d Value, bool)> {
    let own = items(c, "mountPoints").iter().map(|m| (m, flag(m, "readOnly")));
    let from = items(c, "volumesFrom").iter().flat_map(|from| {
        let source = definition
            .containers()
            .iter()
            .find(|s| text(s, "name") == text(from, "sourceContainer"));
        let mounts = source.map_or(&[][..], |s| items(s, "mountPoints"));
        mounts
            .iter()
            .map(move |m| (m, flag(m, "readOnly") || flag(from, "readOnly")))
    });
    own.chain(from).collect()
}

/// `volumeMounts` of a container.
pub(super) fn mounts(definition: &TaskDefinitionSpec, c: &Value) -> Vec<Value> {
    let mounts = all_mounts(definition, c).into_iter().filter(|(m, _)| {
        let docker = |v: &Value| v.get("dockerVolumeConfiguration").is_some();
        volume(definition, text(m, "sourceVolume")).is_some_and(|v| !docker(v))
    });
    let mounts = mounts.map(|(m, read_only)| {
        json!({
            "name": volume_name(text(m, "sourceVolume")), "mountPath": text(m, "containerPath"),
            "readOnly": read_only,
        })
    });
    mounts.collect()
}

/// Docker's volumes and tmpfs.
fn special_mounts(definition: &TaskDefinitionSpec, c: &Value, linux: &Value) -> Vec<Mount> {
    let mut out = Vec::new();
    for (m, read_only) in all_mounts(definition, c) {
        let name = text(m, "sourceVolume");
        let Some(docker) = volume(definition, name).and_then(|v| v.get("dockerVolumeConfiguration")) else {
            continue;
        };
        let map = |member: &str| {
            let map = docker
                .get(member)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            map.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        let shared = text(docker, "scope") == "shared";
        out.push(Mount {
            kind: MountKind::Volume,
            source: if shared {
                name.to_owned()
            } else {
                format!("ecs-{}-{name}", readable(&definition.family))
            },
            target: text(m, "containerPath").to_owned(),
            read_only,
            driver: text(docker, "driver").to_owned(),
            driver_opts: map("driverOpts"),
            ..Mount::default()
        });
    }
    for t in items(linux, "tmpfs") {
        out.push(Mount {
            kind: MountKind::Tmpfs,
            target: text(t, "containerPath").to_owned(),
            ..Mount::default()
        });
    }
    out
}

/// `securityContext` of a container.
pub(super) fn security(c: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    if flag(c, "privileged") {
        out.insert("privileged".into(), true.into());
    }
    if flag(c, "readonlyRootFilesystem") {
        out.insert("readOnlyRootFilesystem".into(), true.into());
    }
    let capabilities = c.get("linuxParameters").and_then(|l| l.get("capabilities"));
    if let Some(capabilities) = capabilities {
        out.insert(
            "capabilities".into(),
            json!({ "add": texts(capabilities, "add"), "drop": texts(capabilities, "drop") }),
        );
    }
    out
}
