//! What a node says in Kubernetes' terms: labels, capacity, conditions, addresses, taints; and what its standing and
//! its availability mean for its pods.

use serde_json::{Map, Value, json};
use tripod_model::network::fabric;
use tripod_model::node::{Availability, Node, NodeRole, NodeState};

use super::conditions::{self, Say};
use super::disruption;
use super::kinds::NODES;
use super::object::ObjKey;
use super::pod::KPod;
use super::pods::{is_foreign, leave_tainted};
use super::work::{Work, later, stamp};
use std::sync::Arc;

/// Pods that a node takes, unless it says otherwise.
pub(super) const MAX_PODS: i64 = 110;
/// The version of the Kubernetes API that nodes report.
const KUBE_VERSION: &str = "v1.36.0";
const COMPONENT: &str = "node-controller";
/// The availability and standing that were last brought into agreement with `spec.unschedulable`.
const AGREED: &str = "tripod.dev/availability";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Seconds until an eviction that a budget forbids is tried again.
const RETRY: i64 = 5;

/// Decides about a node and the pods on it.
pub(super) fn decide(w: &mut Work<'_>, name: &str) {
    let Some(node) = w.view.node(name).cloned() else {
        let gone: Vec<Arc<KPod>> = pods_on(w, name);
        for pod in gone {
            super::pods::decide(w, pod.namespace(), pod.name());
        }
        return;
    };
    let mut next = node.as_ref().clone();
    if node.is_foreign() {
        taint(&mut next, w.now);
        tell(w, &node, &next);
        w.update_node(&node, next.clone());
        for pod in &pods_on(w, name) {
            leave_tainted(w, pod, &next);
        }
        return;
    }
    if !next.metadata.annotations.contains_key(AGREED) {
        introduce(&mut next);
    }
    label(&mut next);
    agree(&mut next);
    taint(&mut next, w.now);
    status(&mut next, w.now);
    tell(w, &node, &next);
    w.update_node(&node, next.clone());
    let pods = pods_on(w, name);
    let down = next.status.state == NodeState::Down;
    for pod in &pods {
        if down {
            not_ready(w, pod);
        }
        leave_tainted(w, pod, &next);
    }
    if next.spec.swarm.availability == Availability::Drain {
        drain(w, &pods);
    }
}

fn pods_on(w: &Work<'_>, name: &str) -> Vec<Arc<KPod>> {
    let pods = w.view.pods_of_node(name);
    let pods = pods.filter_map(|p| w.k.pod(&p.metadata.namespace, &p.metadata.name));
    pods.filter(|p| !is_foreign(&p.pod)).cloned().collect()
}

fn architecture(node: &Node) -> &str {
    match node.status.description.platform.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Labels and taints with which a node's daemon was started: they are its own from then on.
fn introduce(node: &mut Node) {
    for (key, value) in node.status.description.node_labels.clone() {
        node.metadata.labels.entry(key).or_insert(value);
    }
    let asked = node.status.description.taints.clone();
    if asked.is_empty() {
        return;
    }
    let listed = node.spec.rest.get("taints").and_then(Value::as_array).cloned();
    let mut taints = listed.unwrap_or_default();
    for text in asked {
        let Some((name, effect)) = text.rsplit_once(':') else {
            continue;
        };
        let (key, value) = name.split_once('=').unwrap_or((name, ""));
        let same = |t: &Value| t["key"] == key && t["effect"] == effect;
        if taints.iter().any(same) {
            continue;
        }
        let mut taint = json!({ "key": key, "effect": effect });
        if !value.is_empty() {
            taint["value"] = value.into();
        }
        taints.push(taint);
    }
    node.spec.rest.insert("taints".into(), taints.into());
}

fn label(node: &mut Node) {
    let arch = architecture(node).to_owned();
    let name = node.metadata.name.clone();
    let manager = node.spec.swarm.role == NodeRole::Manager;
    let labels = &mut node.metadata.labels;
    for (key, value) in [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux".into()),
        ("kubernetes.io/arch", arch.clone()),
        ("beta.kubernetes.io/os", "linux".into()),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.entry(key.into()).or_insert(value);
    }
    let role = "node-role.kubernetes.io/control-plane";
    if manager {
        labels.entry(role.into()).or_default();
    } else {
        labels.remove(role);
    }
}

/// Brings Swarm's availability and `spec.unschedulable` into agreement: what changed since the last time wins.
fn agree(node: &mut Node) {
    let word = |a: Availability| match a {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    let now = word(node.spec.swarm.availability);
    let known = node
        .metadata
        .annotations
        .get(AGREED)
        .map_or("active", String::as_str);
    let closed = node.spec.swarm.availability != Availability::Active;
    if known != now {
        node.spec.unschedulable = closed;
    } else if node.spec.unschedulable != closed {
        node.spec.swarm.availability = if node.spec.unschedulable {
            Availability::Pause
        } else {
            Availability::Active
        };
    }
    let now = word(node.spec.swarm.availability).to_owned();
    node.metadata.annotations.insert(AGREED.into(), now);
}

/// Whether a node is not ready, and whether it is not heard at all.
pub(super) fn standing(node: &Node) -> (bool, bool) {
    if node.is_foreign() {
        let ready = node.ready_condition();
        return (!["True", "Unknown"].contains(&ready), ready == "Unknown");
    }
    let state = node.status.state;
    let not_ready = matches!(state, NodeState::Unknown | NodeState::Disconnected);
    (not_ready, state == NodeState::Down)
}

fn taint(node: &mut Node, now: tripod_model::Time) {
    let listed = node.spec.rest.get("taints").cloned();
    let mut taints: Vec<Value> = listed.and_then(|v| v.as_array().cloned()).unwrap_or_default();
    let (not_ready, lost) = standing(node);
    let failed = match node.is_foreign() {
        true => node.ready_condition() == "False",
        false => node.status.state == NodeState::Disconnected,
    };
    let wanted = [
        (UNSCHEDULABLE, "NoSchedule", node.spec.unschedulable),
        (NOT_READY, "NoSchedule", not_ready),
        (NOT_READY, "NoExecute", failed),
        (UNREACHABLE, "NoSchedule", lost),
        (UNREACHABLE, "NoExecute", lost),
    ];
    for (key, effect, on) in wanted {
        let same = |t: &Value| t["key"] == key && t["effect"] == effect;
        if on && !taints.iter().any(same) {
            taints.push(json!({ "key": key, "effect": effect, "timeAdded": stamp(now) }));
        } else if !on {
            taints.retain(|t| !same(t));
        }
    }
    if taints.is_empty() {
        node.spec.rest.remove("taints");
    } else {
        node.spec.rest.insert("taints".into(), taints.into());
    }
}

fn status(node: &mut Node, now: tripod_model::Time) {
    let d = &node.status.description;
    let mut capacity = Map::new();
    let mut put = |key: &str, value: String| {
        capacity.insert(key.into(), value.into());
    };
    put("cpu", (d.nano_cpus / 1_000_000_000).to_string());
    put("memory", format!("{}Ki", d.memory / 1024));
    put("pods", MAX_PODS.to_string());
    put("ephemeral-storage", "107374182400".into());
    put("hugepages-2Mi", "0".into());
    put("hugepages-1Gi", "0".into());
    let arch = architecture(node).to_owned();
    let version = match d.kubernetes_version.as_str() {
        "" => KUBE_VERSION,
        version => version,
    };
    let info = json!({
        "architecture": arch, "operatingSystem": "linux",
        "containerRuntimeVersion": format!("tripod://{}", d.engine_version),
        "kubeletVersion": version, "kubeProxyVersion": "",
        "kernelVersion": "", "osImage": "Linux", "bootID": "", "machineID": "", "systemUUID": "",
    });
    let hostname = if d.hostname.is_empty() {
        node.metadata.name.clone()
    } else {
        d.hostname.clone()
    };
    let mut addresses = Vec::new();
    if !node.status.addr.is_empty() {
        addresses.push(json!({ "type": "InternalIP", "address": node.status.addr }));
    }
    addresses.push(json!({ "type": "Hostname", "address": hostname }));
    let rest = &mut node.status.rest;
    // Extended resources that somebody advertised stay.
    for field in ["capacity", "allocatable"] {
        let present = super::object::at(rest.entry(field).or_insert_with(|| json!({})), &[]);
        for (key, value) in &capacity {
            let keep = key == "ephemeral-storage" && present.get(key).is_some();
            if !keep {
                present[key] = value.clone();
            }
        }
    }
    let present = rest.entry("nodeInfo").or_insert_with(|| json!({}));
    for (key, value) in info.as_object().into_iter().flatten() {
        let known = present
            .get(key)
            .and_then(Value::as_str)
            .is_some_and(|t| !t.is_empty());
        if !known || !value.as_str().unwrap_or_default().is_empty() && key != "osImage" {
            present[key] = value.clone();
        }
    }
    rest.insert("addresses".into(), addresses.into());
    rest.entry("daemonEndpoints")
        .or_insert_with(|| json!({ "kubeletEndpoint": { "Port": 10250 } }));
    let list = rest.entry("conditions").or_insert_with(|| json!([]));
    judge(list, node.status.state, now);
}

fn judge(list: &mut Value, state: NodeState, now: tripod_model::Time) {
    let fine = [
        (
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
    ];
    let lost = ("NodeStatusUnknown", "Kubelet stopped posting node status.");
    for (kind, reason, message) in fine {
        let (status, reason, message) = match state {
            NodeState::Down => ("Unknown", lost.0, lost.1),
            _ => ("False", reason, message),
        };
        let say = Say {
            kind,
            status,
            reason,
            message,
        };
        beat(list, say, now);
    }
    let (status, reason, message) = match state {
        NodeState::Ready => ("True", "KubeletReady", "kubelet is posting ready status"),
        NodeState::Down => ("Unknown", lost.0, lost.1),
        _ => ("False", "KubeletNotReady", "node is not connected"),
    };
    let say = Say {
        kind: "Ready",
        status,
        reason,
        message,
    };
    beat(list, say, now);
}

/// Sets a condition with the time of the last heartbeat. Heartbeats themselves stay out of the store.
fn beat(list: &mut Value, say: Say<'_>, now: tripod_model::Time) {
    if conditions::set(list, say, now)
        && let Some(all) = list.as_array_mut()
        && let Some(c) = all.iter_mut().find(|c| c["type"] == say.kind)
    {
        c["lastHeartbeatTime"] = stamp(now);
    }
}

fn tell(w: &mut Work<'_>, old: &Node, new: &Node) {
    let key = ObjKey::new(NODES, "", old.metadata.name.as_str());
    let name = &old.metadata.name;
    let ready = |n: &Node| {
        let list = n.status.rest.get("conditions").cloned().unwrap_or_default();
        conditions::find(&list, "Ready").and_then(|c| c["status"].as_str().map(str::to_owned))
    };
    let (before, after) = (ready(old), ready(new));
    let uid = old.metadata.uid.clone();
    if before.is_none() {
        let text = format!("Node {name} event: Registered Node {name} in Controller");
        w.tell(&key, &uid, COMPONENT, false, "RegisteredNode", text);
    }
    if before.is_some() && before != after {
        let reason = if after.as_deref() == Some("True") {
            "NodeReady"
        } else {
            "NodeNotReady"
        };
        w.tell(
            &key,
            &uid,
            COMPONENT,
            false,
            reason,
            format!("Node {name} status is now: {reason}"),
        );
    }
    if old.spec.unschedulable != new.spec.unschedulable {
        let reason = if new.spec.unschedulable {
            "NodeNotSchedulable"
        } else {
            "NodeSchedulable"
        };
        w.tell(
            &key,
            &uid,
            COMPONENT,
            false,
            reason,
            format!("Node {name} status is now: {reason}"),
        );
    }
}

/// A pod on a node that is not heard is not ready, whatever it said last.
fn not_ready(w: &mut Work<'_>, pod: &KPod) {
    if !pod.info.ready || pod.info.phase.is_final() {
        return;
    }
    let now = w.now;
    w.update_pod(pod, |p| {
        let say = Say {
            kind: "Ready",
            status: "False",
            reason: "",
            message: "",
        };
        p.status
            .rest
            .edit("conditions", |list| conditions::set(list, say, now));
    });
    w.tell_pod(
        &pod.pod.metadata,
        COMPONENT,
        true,
        "NodeNotReady",
        "Node is not ready".into(),
    );
}

/// Moves the pods of a node that gives them up, as its budgets allow. Those of DaemonSets belong to it and stay.
fn drain(w: &mut Work<'_>, pods: &[Arc<KPod>]) {
    let mut held = false;
    for pod in pods {
        let owner = super::object::controller_of(&pod.pod.metadata.owner_references);
        let stays = owner.is_some_and(|o| o.kind == "DaemonSet");
        if stays || !pod.info.is_active() {
            continue;
        }
        if disruption::forbids(w, pod).is_some() {
            held = true;
            continue;
        }
        let text = "Eviction API: evicting";
        super::pods::disrupt(w, pod, "EvictionByEvictionAPI", text, None);
        disruption::spend(w, pod);
    }
    if held {
        let at = later(w.now, RETRY);
        w.wake(at);
    }
}

/// The addresses of nodes that serve the API, for the endpoints of the service `kubernetes`.
pub(super) fn managers(w: &Work<'_>) -> Vec<String> {
    let ready = w.view.nodes().filter(|n| n.spec.swarm.role == NodeRole::Manager);
    let ready = ready.filter(|n| n.status.state == NodeState::Ready && !n.status.addr.is_empty());
    let mut all: Vec<String> = ready.map(|n| n.status.addr.clone()).collect();
    all.sort();
    all.dedup();
    all
}

/// The first address of the services' range: the API's own.
pub(super) fn api_address(w: &Work<'_>) -> String {
    let network = w.view.network(fabric::POD_NETWORK);
    let range = network.and_then(|n| n.spec.options.get(fabric::SERVICE_RANGE_OPTION).cloned());
    let range = range.unwrap_or_else(|| fabric::SERVICE_RANGE.into());
    let net: Option<ipnet::Ipv4Net> = range.parse().ok();
    net.and_then(|n| n.hosts().next())
        .map_or_else(|| "10.96.0.1".into(), |a| a.to_string())
}
