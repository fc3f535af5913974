//! Container instances: the nodes that take part in a cluster.

use serde_json::{Value, json};
use tripod_model::ecs::{EcsCluster, EcsInstance};
use tripod_model::node::Node;
use tripod_plan::ecs::place::{self, Instance};

use super::{cluster, last_part, listed, missing, no_cluster};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of, tag_list, tags_of};

/// ARN of an instance.
pub(super) fn arn(call: &Call, cluster: &EcsCluster, id: &str) -> String {
    call.arn("ecs", &format!("container-instance/{}/{id}", cluster.spec.name))
}

/// The instances of a cluster.
pub(super) fn all(call: &Call, cluster: &EcsCluster) -> Vec<Instance> {
    call.manager.with_view(|v| place::instances(v, cluster, &[]))
}

/// An instance by identifier or ARN.
pub(super) fn find(call: &Call, cluster: &EcsCluster, named: &str) -> Result<Instance, Fault> {
    let id = last_part(named);
    let found = all(call, cluster)
        .into_iter()
        .find(|i| i.id == id || i.node == id);
    found.ok_or_else(|| {
        Fault::parameter(format!(
            "The referenced container instance was not found: {named}"
        ))
    })
}

fn resource(name: &str, amount: i64) -> Value {
    json!({ "name": name, "type": "INTEGER", "doubleValue": 0.0, "longValue": 0, "integerValue": amount })
}

fn resources(cpu: i64, memory: i64, ports: &[i64]) -> Value {
    let ports: Vec<String> = ports.iter().map(i64::to_string).collect();
    json!([
        resource("CPU", cpu), resource("MEMORY", memory),
        { "name": "PORTS", "type": "STRINGSET", "doubleValue": 0.0, "longValue": 0, "integerValue": 0,
          "stringSetValue": ports },
    ])
}

fn shown(call: &Call, cluster: &EcsCluster, i: &Instance, tags: bool) -> Value {
    let kept = cluster.spec.instances.get(&i.node).cloned().unwrap_or_default();
    let (attributes, since) = call.manager.with_view(|v| {
        let node = v.node(&i.node);
        let list = node.map(|n| place::attributes(cluster, n)).unwrap_or_default();
        (list, node.and_then(|n| n.metadata.creation_timestamp))
    });
    let attributes: Value = attributes
        .into_iter()
        .map(|(name, value)| dense(json!({ "name": name, "value": value })))
        .collect();
    dense(json!({
        "containerInstanceArn": arn(call, cluster, &i.id), "ec2InstanceId": i.node, "version": 1,
        "versionInfo": { "agentVersion": "1.90.0", "dockerVersion": format!("DockerVersion: {}", env!("CARGO_PKG_VERSION")) },
        "remainingResources": resources(i.cpu.1, i.memory.1, &i.ports),
        "registeredResources": resources(i.cpu.0, i.memory.0, &[]), "status": i.status,
        "agentConnected": i.connected, "runningTasksCount": i.running, "pendingTasksCount": i.pending,
        "attributes": attributes, "registeredAt": epoch_of(since), "attachments": [],
        "tags": if tags { tag_list(&kept.tags, "key", "value") } else { json!([]) },
    }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let mut found = all(&call, &cluster);
    if let Some(status) = input.maybe("status") {
        found.retain(|i| i.status == status);
    }
    if let Some(text) = input.maybe("filter").filter(|t| !t.is_empty()) {
        let query = tripod_plan::ecs::query::Query::parse(text)
            .map_err(|why| Fault::parameter(format!("filter: invalid expression: {why}")))?;
        found.retain(|i| query.holds(&i.subject));
    }
    let arns = found.iter().map(|i| arn(&call, &cluster, &i.id)).collect();
    listed(&input, "containerInstanceArns", arns, 100)
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let names = input.texts("containerInstances");
    if names.is_empty() {
        return Err(Fault::parameter("Container Instances cannot be empty."));
    }
    let tags = input.texts("include").iter().any(|i| i == "TAGS");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &names {
        match find(&call, &cluster, name) {
            Ok(i) => found.push(shown(&call, &cluster, &i, tags)),
            Err(_) => failures.push(missing(arn(&call, &cluster, last_part(name)))),
        }
    }
    Ok(json!({ "containerInstances": found, "failures": failures }))
}

async fn keep(
    call: &Call,
    cluster: &EcsCluster,
    node: &str,
    change: impl Fn(&mut EcsInstance) + Send + Sync,
) -> Result<EcsCluster, Fault> {
    let done = call
        .edit("", &cluster.metadata.name, no_cluster, |c: &mut EcsCluster| {
            change(c.spec.instances.entry(node.to_owned()).or_default());
            Ok(())
        })
        .await?;
    Ok(done.0)
}

pub(super) async fn register(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    super::check_tags(input.items("tags"))?;
    let document: Value = serde_json::from_str(input.text("instanceIdentityDocument")).unwrap_or_default();
    let name = document.text("instanceId");
    if call.state().get::<Node>("", name)?.is_none() {
        let text = "instanceIdentityDocument: its instanceId must name a node of the cluster. Nodes whose daemons were \
                    started with --label ecs.cluster=NAME register by themselves.";
        return Err(Fault::client(text));
    }
    let tags = tags_of(input.items("tags"), "key", "value");
    let cluster = keep(&call, &cluster, name, |i| {
        i.deregistered = false;
        i.draining = false;
        i.tags.extend(tags.clone());
    })
    .await?;
    let instance = find(&call, &cluster, name)?;
    Ok(json!({ "containerInstance": shown(&call, &cluster, &instance, true) }))
}

pub(super) async fn deregister(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let instance = find(&call, &cluster, input.text("containerInstance"))?;
    if instance.running + instance.pending > 0 && input.flag("force") != Some(true) {
        let text = "Found running tasks on the instance. To deregister it with its tasks, use force.";
        return Err(Fault::parameter(text));
    }
    let mut out = shown(&call, &cluster, &instance, true);
    keep(&call, &cluster, &instance.node, |i| i.deregistered = true).await?;
    out["status"] = "INACTIVE".into();
    Ok(json!({ "containerInstance": out }))
}

pub(super) async fn update_state(call: Call, input: Value) -> Reply {
    let mut cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let status = input.text("status");
    if !matches!(status, "ACTIVE" | "DRAINING") {
        return Err(Fault::parameter("status must be ACTIVE or DRAINING."));
    }
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in input.texts("containerInstances") {
        let Ok(instance) = find(&call, &cluster, &name) else {
            failures.push(missing(arn(&call, &cluster, last_part(&name))));
            continue;
        };
        cluster = keep(&call, &cluster, &instance.node, |i| {
            i.draining = status == "DRAINING";
        })
        .await?;
        let mut out = shown(&call, &cluster, &instance, true);
        out["status"] = status.into();
        found.push(out);
    }
    Ok(json!({ "containerInstances": found, "failures": failures }))
}
