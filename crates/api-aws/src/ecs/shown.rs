//! Tasks as answers have them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tripod_engine::Snapshot;
use tripod_model::ecs::{EcsContainer, EcsTask};
use tripod_model::pod::Pod;
use tripod_plan::ecs::life::{self, Observed};
use tripod_plan::ecs::{place, state};

use super::{cluster_arn, task_arn};
use crate::call::Call;
use crate::ec2::{private_dns_name, zone_of_subnet};
use crate::value::{Get as _, dense, epoch_of, some, tag_list};

/// A task.
pub(super) fn task(call: &Call, pod: &Pod, tags: bool) -> Value {
    let Some(t) = pod.ecs() else { return Value::Null };
    let s = state(pod);
    let seen = life::containers(pod);
    let fargate = t.launch_type == "FARGATE";
    let instance = (!fargate && !pod.spec.node_name.is_empty())
        .then(|| instance_arn(call, pod, t))
        .flatten();
    let storage = (t.ephemeral_storage > 0).then(|| json!({ "sizeInGiB": t.ephemeral_storage }));
    let containers: Value = t.containers.iter().map(|c| container(pod, t, c, &seen)).collect();
    dense(json!({
        "attachments": attachments(pod, t), "attributes": attributes(call, pod, fargate),
        "availabilityZone": zone(&call.state(), pod), "capacityProviderName": some(&t.capacity_provider),
        "clusterArn": cluster_arn(call, &t.cluster), "connectivity": s.connectivity_at.map(|_| "CONNECTED"),
        "connectivityAt": epoch_of(s.connectivity_at), "containerInstanceArn": instance, "containers": containers,
        "cpu": some(&t.cpu), "memory": some(&t.memory), "createdAt": epoch_of(pod.metadata.creation_timestamp),
        "desiredStatus": life::desired(pod), "enableExecuteCommand": t.execute_command,
        "ephemeralStorage": storage, "fargateEphemeralStorage": if fargate { storage.clone() } else { None },
        "executionStoppedAt": epoch_of(s.execution_stopped_at), "group": t.group, "healthStatus": life::health(pod),
        "inferenceAccelerators": [], "lastStatus": s.last_status, "launchType": t.launch_type,
        "overrides": t.overrides, "platformVersion": some(&t.platform_version),
        "platformFamily": if fargate { "Linux".into() } else { Value::Null },
        "pullStartedAt": epoch_of(s.pull_started_at), "pullStoppedAt": epoch_of(s.pull_stopped_at),
        "startedAt": epoch_of(s.started_at), "startedBy": some(&t.started_by), "stopCode": some(&s.stop_code),
        "stoppedAt": epoch_of(s.stopped_at), "stoppedReason": some(&s.stopped_reason),
        "stoppingAt": epoch_of(s.stopping_at), "tags": if tags { tag_list(&s.tags, "key", "value") } else { json!([]) },
        "taskArn": task_arn(pod), "taskDefinitionArn": t.definition, "version": s.version,
    }))
}

fn instance_arn(call: &Call, pod: &Pod, t: &EcsTask) -> Option<String> {
    call.manager.with_view(|v| {
        let cluster = v.ecs().cluster(&pod.metadata.namespace)?;
        let node = v.node(&pod.spec.node_name)?;
        let id = place::instance_id(cluster, node);
        Some(call.arn("ecs", &format!("container-instance/{}/{id}", t.cluster)))
    })
}

fn attributes(call: &Call, pod: &Pod, fargate: bool) -> Value {
    if !fargate {
        return json!([]);
    }
    let arm = call.manager.with_view(|v| {
        v.node(&pod.spec.node_name)
            .is_some_and(|n| n.status.description.platform.architecture == "aarch64")
    });
    json!([{ "name": "ecs.cpu-architecture", "value": if arm { "arm64" } else { "x86_64" } }])
}

/// The zone of the task's subnet.
pub(crate) fn zone(state: &Snapshot, pod: &Pod) -> String {
    let Some(t) = pod.ecs() else { return String::new() };
    let zone = t
        .interface
        .as_ref()
        .and_then(|i| zone_of_subnet(state, &t.region, &i.subnet));
    zone.unwrap_or_else(|| format!("{}a", t.region))
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.pod_ip.map(|ip| ip.to_string())
}

fn attachments(pod: &Pod, t: &EcsTask) -> Value {
    let Some(i) = &t.interface else { return json!([]) };
    let status = match (address(pod), state(pod).stopped_at) {
        (_, Some(_)) => "DELETED",
        (Some(_), None) => "ATTACHED",
        (None, None) => "PRECREATED",
    };
    let mut details = vec![json!({ "name": "subnetId", "value": i.subnet })];
    let mut add = |name: &str, value: &str| details.push(json!({ "name": name, "value": value }));
    add("networkInterfaceId", &i.id);
    add("macAddress", &i.mac);
    if let Some(address) = address(pod) {
        add("privateDnsName", &private_dns_name(&t.region, &address));
        add("privateIPv4Address", &address);
    }
    json!([{ "id": i.attachment, "type": "ElasticNetworkInterface", "status": status, "details": details }])
}

fn container(pod: &Pod, t: &EcsTask, c: &EcsContainer, seen: &BTreeMap<String, Observed>) -> Value {
    let observed = seen.get(&c.pod_name).cloned().unwrap_or_default();
    let s = state(pod);
    let status = match (observed.running, observed.ended || s.stopped_at.is_some()) {
        (_, true) => "STOPPED",
        (true, _) => "RUNNING",
        _ => "PENDING",
    };
    let health = match (&observed.health, c.health_check) {
        (Some(tripod_model::container::HealthStatus::Healthy), true) => "HEALTHY",
        (Some(tripod_model::container::HealthStatus::Unhealthy), true) => "UNHEALTHY",
        _ => "UNKNOWN",
    };
    let interfaces: Value = t
        .interface
        .iter()
        .filter_map(|i| Some(json!({ "attachmentId": i.attachment, "privateIpv4Address": address(pod)? })))
        .collect();
    json!({
        "containerArn": format!("arn:aws:ecs:{}:{}:container/{}/{}/{}", t.region, t.account, t.cluster, t.id, c.id),
        "taskArn": task_arn(pod), "name": c.name, "image": c.image, "imageDigest": some(&observed.image_digest),
        "runtimeId": some(&observed.runtime_id), "lastStatus": status, "exitCode": observed.exit_code,
        "reason": s.reasons.get(&c.name), "networkBindings": bindings(pod, t, c), "networkInterfaces": interfaces,
        "healthStatus": health, "cpu": c.cpu.to_string(), "memory": c.memory.map(|m| m.to_string()),
        "memoryReservation": c.memory_reservation.map(|m| m.to_string()),
    })
}

/// Ports of the node that lead to a container: of tasks without an interface of their own.
fn bindings(pod: &Pod, t: &EcsTask, c: &EcsContainer) -> Value {
    if t.interface.is_some() || state(pod).started_at.is_none() {
        return json!([]);
    }
    let container = pod.spec.containers.iter().find(|p| p.name == c.pod_name);
    let ports = container
        .and_then(|p| p.rest.get("ports"))
        .and_then(Value::as_array);
    let bound = ports
        .into_iter()
        .flatten()
        .filter(|p| p.number("hostPort").is_some());
    bound
        .map(|p| {
            json!({
                "bindIP": "0.0.0.0", "containerPort": p.get("containerPort"), "hostPort": p.get("hostPort"),
                "protocol": p.text("protocol").to_ascii_lowercase(),
            })
        })
        .collect()
}
