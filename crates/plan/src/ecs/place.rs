//! Places for tasks of launch type EC2: container instances, what they have left, constraints and strategies.

use std::collections::BTreeMap;

use serde_json::Value;
use tripod_model::ecs::{EcsCluster, INSTANCE_LABEL, fnv};
use tripod_model::node::{Node, NodeState};
use tripod_model::pod::Pod;

use super::query::{Query, Subject};
use super::state;
use crate::rng::Rng;
use crate::view::View;

/// A container instance: a node that takes part in a cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instance {
    /// The node's `metadata.name`.
    pub node: String,
    /// 32 hex digits, as in its ARN.
    pub id: String,
    /// What expressions see.
    pub subject: Subject,
    /// ACTIVE, DRAINING.
    pub status: String,
    /// It can be reached.
    pub connected: bool,
    /// CPU units, all and left.
    pub cpu: (i64, i64),
    /// MiB, all and left.
    pub memory: (i64, i64),
    /// Tasks that run.
    pub running: usize,
    /// Tasks that are on their way.
    pub pending: usize,
    /// Families and services of the tasks on it, for `distinctInstance` and `spread`.
    pub groups: Vec<String>,
    /// Ports of the node that tasks hold.
    pub ports: Vec<i64>,
}

/// What a task asks of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// CPU units.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// Ports of the node.
    pub ports: Vec<i64>,
}

/// Identifier of a node as a container instance.
pub fn instance_id(cluster: &EcsCluster, node: &Node) -> String {
    let parts = [
        cluster.spec.region.as_str(),
        &cluster.spec.name,
        &node.metadata.uid,
    ];
    format!(
        "{:016x}{:016x}",
        fnv(&parts),
        fnv(&[&parts.join("/"), "instance"])
    )
}

/// Whether a node takes part in a cluster.
pub fn takes_part(cluster: &EcsCluster, node: &Node) -> bool {
    let labelled = node.status.description.engine_labels.get(INSTANCE_LABEL) == Some(&cluster.spec.name);
    match cluster.spec.instances.get(&node.metadata.name) {
        Some(instance) => !instance.deregistered,
        None => labelled,
    }
}

/// The container instances of a cluster; `extra` are pods that a plan in the making has placed.
pub fn instances(view: &View, cluster: &EcsCluster, extra: &[Pod]) -> Vec<Instance> {
    let namespace = &cluster.metadata.name;
    let nodes = view.nodes().filter(|n| takes_part(cluster, n));
    nodes
        .map(|node| {
            let mut instance = empty(cluster, node);
            let here = |p: &&Pod| p.spec.node_name == node.metadata.name;
            let stored = view.ecs().tasks(namespace).map(AsRef::as_ref);
            for pod in stored.chain(extra.iter()).filter(here) {
                count(&mut instance, pod);
            }
            let running = instance.running.to_string();
            instance
                .subject
                .fields
                .insert("runningTasksCount".into(), running);
            let pending = instance.pending.to_string();
            instance
                .subject
                .fields
                .insert("pendingTasksCount".into(), pending);
            instance
        })
        .collect()
}

fn empty(cluster: &EcsCluster, node: &Node) -> Instance {
    let description = &node.status.description;
    let kept = cluster.spec.instances.get(&node.metadata.name);
    let draining = kept.is_some_and(|k| k.draining)
        || node.spec.swarm.availability == tripod_model::node::Availability::Drain
        || node.spec.unschedulable;
    let cpu = description.nano_cpus / 1_000_000 * 1024 / 1000;
    let memory = description.memory >> 20;
    let id = instance_id(cluster, node);
    let mut subject = Subject::default();
    for (name, value) in attributes(cluster, node) {
        subject.attributes.insert(name, value);
    }
    subject
        .fields
        .insert("ec2InstanceId".into(), node.metadata.name.clone());
    subject.fields.insert(
        "agentConnected".into(),
        (node.status.state == NodeState::Ready).to_string(),
    );
    Instance {
        node: node.metadata.name.clone(),
        id,
        subject,
        status: if draining { "DRAINING" } else { "ACTIVE" }.into(),
        connected: node.status.state == NodeState::Ready,
        cpu: (cpu, cpu),
        memory: (memory, memory),
        ..Instance::default()
    }
}

/// Attributes of a node as a container instance.
pub fn attributes(cluster: &EcsCluster, node: &Node) -> Vec<(String, Option<String>)> {
    let platform = &node.status.description.platform;
    let zone = node.metadata.labels.get("topology.kubernetes.io/zone").cloned();
    let zone = zone.unwrap_or_else(|| format!("{}a", cluster.spec.region));
    let arch = if platform.architecture == "aarch64" {
        "arm64"
    } else {
        "x86_64"
    };
    let known = [
        ("ecs.os-type", "linux"),
        ("ecs.cpu-architecture", arch),
        ("ecs.instance-type", "tripod"),
        ("ecs.availability-zone", zone.as_str()),
    ];
    let mut out: Vec<(String, Option<String>)> = known
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())))
        .collect();
    for capability in [
        "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        "com.amazonaws.ecs.capability.docker-remote-api.1.19",
        "com.amazonaws.ecs.capability.docker-remote-api.1.21",
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "com.amazonaws.ecs.capability.logging-driver.json-file",
        "com.amazonaws.ecs.capability.task-iam-role",
        "ecs.capability.task-eni",
        "ecs.capability.execution-role-awslogs",
        "ecs.capability.container-health-check",
        "ecs.capability.container-ordering",
        "ecs.capability.secrets.ssm.environment-variables",
        "ecs.capability.secrets.asm.environment-variables",
    ] {
        out.push((capability.to_owned(), None));
    }
    let own = cluster
        .spec
        .attributes
        .iter()
        .filter(|a| a.node == node.metadata.name);
    out.extend(own.map(|a| (a.name.clone(), a.value.clone())));
    for (k, v) in &node.status.description.engine_labels {
        if k != INSTANCE_LABEL {
            out.push((k.clone(), Some(v.clone())));
        }
    }
    out
}

fn count(instance: &mut Instance, pod: &Pod) {
    let Some(task) = pod.ecs() else { return };
    let s = state(pod);
    // What Fargate runs on the node is not the instance's.
    if s.stopped_at.is_some() || task.launch_type == "FARGATE" {
        return;
    }
    match s.last_status.as_str() {
        "RUNNING" | "DEACTIVATING" => instance.running += 1,
        _ => instance.pending += 1,
    }
    let needs = needs_of(pod);
    instance.cpu.1 -= needs.cpu;
    instance.memory.1 -= needs.memory;
    instance.ports.extend(needs.ports);
    instance.groups.push(task.group.clone());
    instance.subject.groups.insert(task.group.clone());
}

/// What a task that was made asks of its instance.
pub fn needs_of(pod: &Pod) -> Needs {
    let Some(task) = pod.ecs() else {
        return Needs::default();
    };
    let sum = |of: fn(&tripod_model::ecs::EcsContainer) -> i64| task.containers.iter().map(of).sum::<i64>();
    let memory = sum(|c| c.memory_reservation.or(c.memory).unwrap_or(0));
    let ports = pod.spec.containers.iter().flat_map(|c| {
        let list = c.rest.get("ports").and_then(Value::as_array);
        let ports = list
            .into_iter()
            .flatten()
            .filter_map(|p| p.get("hostPort")?.as_i64());
        ports.collect::<Vec<_>>()
    });
    Needs {
        cpu: task.cpu.parse().unwrap_or_else(|_| sum(|c| c.cpu)),
        memory: task.memory.parse().unwrap_or(memory),
        ports: ports.collect(),
    }
}

/// The instance for a task, or why there is none: a reason as RunTask's failures have it.
///
/// # Errors
/// `AGENT`, `RESOURCE:CPU`, `RESOURCE:MEMORY`, `RESOURCE:PORTS`, `MemberOf placement constraint unsatisfied.` …
pub fn choose(
    instances: &[Instance],
    needs: &Needs,
    group: &str,
    constraints: &[Value],
    strategy: &[Value],
    rng: &mut Rng,
) -> Result<String, String> {
    let active: Vec<&Instance> = instances.iter().filter(|i| i.status == "ACTIVE").collect();
    if active.is_empty() {
        return Err("No Container Instances were found in your cluster.".into());
    }
    let mut left: Vec<&Instance> = active.into_iter().filter(|i| i.connected).collect();
    let mut narrow = |keep: &dyn Fn(&Instance) -> bool, reason: &str| {
        left.retain(|i| keep(i));
        if left.is_empty() {
            Err(reason.to_owned())
        } else {
            Ok(())
        }
    };
    narrow(&|_| true, "AGENT")?;
    for constraint in constraints {
        let text = |k: &str| constraint.get(k).and_then(Value::as_str).unwrap_or_default();
        if text("type") == "distinctInstance" {
            narrow(
                &|i| !i.groups.iter().any(|g| g == group),
                "DistinctInstance placement constraint unsatisfied.",
            )?;
        } else if let Ok(query) = Query::parse(text("expression")) {
            narrow(
                &|i| query.holds(&i.subject),
                "MemberOf placement constraint unsatisfied.",
            )?;
        }
    }
    narrow(&|i| i.cpu.1 >= needs.cpu, "RESOURCE:CPU")?;
    narrow(&|i| i.memory.1 >= needs.memory, "RESOURCE:MEMORY")?;
    narrow(
        &|i| !needs.ports.iter().any(|p| i.ports.contains(p)),
        "RESOURCE:PORTS",
    )?;
    let best = rank(left, group, strategy, rng);
    Ok(best.node.clone())
}

fn rank<'i>(mut left: Vec<&'i Instance>, group: &str, strategy: &[Value], rng: &mut Rng) -> &'i Instance {
    for step in strategy {
        let text = |k: &str| step.get(k).and_then(Value::as_str).unwrap_or_default();
        let field = text("field");
        match text("type") {
            "random" => {
                let at = usize::try_from(rng.next_u64()).unwrap_or(0) % left.len();
                left = vec![left[at]];
            }
            "binpack" => {
                let rest = |i: &Instance| {
                    if field.eq_ignore_ascii_case("memory") {
                        i.memory.1
                    } else {
                        i.cpu.1
                    }
                };
                let least = left.iter().map(|i| rest(i)).min().unwrap_or(0);
                left.retain(|i| rest(i) == least);
            }
            _ => {
                let place = |i: &Instance| match field.strip_prefix("attribute:") {
                    Some(name) => i
                        .subject
                        .attributes
                        .get(name)
                        .cloned()
                        .flatten()
                        .unwrap_or_default(),
                    None => i.node.clone(),
                };
                let mut held: BTreeMap<String, usize> = BTreeMap::new();
                for i in &left {
                    let n = i.groups.iter().filter(|g| *g == group).count();
                    *held.entry(place(i)).or_default() += n;
                }
                let fewest = held.values().min().copied().unwrap_or(0);
                left.retain(|i| held.get(&place(i)) == Some(&fewest));
            }
        }
    }
    // Without a word from the strategy the emptiest instance is taken.
    left.sort_by_key(|i| (i.running + i.pending, i.node.clone()));
    left[0]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(node: &str, zone: &str, cpu: i64, groups: &[&str]) -> Instance {
        let mut i = Instance {
            node: node.into(),
            status: "ACTIVE".into(),
            connected: true,
            cpu: (2048, cpu),
            memory: (4096, 4096),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..Instance::default()
        };
        i.subject
            .attributes
            .insert("ecs.availability-zone".into(), Some(zone.into()));
        i
    }

    fn pick(constraints: Value, strategy: Value, needs: &Needs) -> Result<String, String> {
        let all = [
            instance("a", "z1", 1024, &["service:web"]),
            instance("b", "z1", 512, &[]),
            instance("c", "z2", 2048, &["service:db"]),
        ];
        let list = |v: Value| v.as_array().cloned().unwrap_or_default();
        choose(
            &all,
            needs,
            "service:web",
            &list(constraints),
            &list(strategy),
            &mut Rng::new(1),
        )
    }

    #[test]
    fn strategies() {
        let none = Needs::default();
        assert_eq!(
            pick(json!([]), json!([{ "type": "binpack", "field": "cpu" }]), &none).unwrap(),
            "b"
        );
        let spread = json!([{ "type": "spread", "field": "attribute:ecs.availability-zone" }]);
        assert_eq!(pick(json!([]), spread, &none).unwrap(), "c");
        let big = Needs {
            cpu: 2000,
            ..Needs::default()
        };
        assert_eq!(
            pick(json!([]), json!([{ "type": "binpack", "field": "cpu" }]), &big).unwrap(),
            "c"
        );
    }

    #[test]
    fn constraints_and_reasons() {
        let none = Needs::default();
        let distinct = json!([{ "type": "distinctInstance" }]);
        assert_ne!(pick(distinct, json!([]), &none).unwrap(), "a");
        let member = json!([{ "type": "memberOf", "expression": "attribute:ecs.availability-zone == z2" }]);
        assert_eq!(pick(member, json!([]), &none).unwrap(), "c");
        let nowhere = json!([{ "type": "memberOf", "expression": "attribute:gpu exists" }]);
        assert!(
            pick(nowhere, json!([]), &none)
                .unwrap_err()
                .starts_with("MemberOf")
        );
        let huge = Needs {
            memory: 1 << 20,
            ..Needs::default()
        };
        assert_eq!(pick(json!([]), json!([]), &huge).unwrap_err(), "RESOURCE:MEMORY");
        assert!(
            choose(&[], &none, "", &[], &[], &mut Rng::new(1))
                .unwrap_err()
                .starts_with("No Container")
        );
    }
}
