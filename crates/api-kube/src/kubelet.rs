//! What a node's own server (the kubelet's) would answer, behind the proxy of a node: health, its pods, what they use,
//! logs. Nodes serve no port of their own; their manager asks them over their session.

use std::fmt::Write as _;

use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::door::{ContainerTarget, LogRequest, NodeStats, Usage};
use tripod_schema::Failure;
use tripod_schema::decode::format_time;
use tripod_schema::value::text;
use tripod_store::{Key, KindId};

use crate::call::Call;
use crate::objects::model_failure;
use crate::reply::{self, Reply};
use crate::target::Target;

/// Carries a request to a node.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let name = match target.name.split(':').collect::<Vec<_>>()[..] {
        [name] | [name, _] | ["http" | "https" | "", name, _] => name.to_owned(),
        _ => {
            return Err(Failure::bad_request(format_args!(
                "invalid proxy request {:?}",
                target.name
            )));
        }
    };
    if call
        .manager
        .state()
        .get(&Key::cluster("nodes", name.as_str()))
        .is_none()
    {
        return Err(Failure::not_found(target.kind, &name));
    }
    if call.method != "GET" && call.method != "HEAD" {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
    }
    let path: Vec<&str> = target.rest.split('/').filter(|s| !s.is_empty()).collect();
    match path[..] {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => {
            call.manager.door(&name).map_err(|e| model_failure(&e))?;
            plain(StatusCode::OK, "ok")
        }
        ["pods" | "runningpods"] => Ok(reply::json(&pods(call, &name))),
        ["configz"] => Ok(reply::json(&json!({"kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDomain": "cluster.local", "maxPods": 110, "registerNode": true,
        }}))),
        ["stats", "summary"] => Ok(reply::json(&summary(&name, &stats(call, &name).await?))),
        ["metrics"] => metrics(&kubelet_metrics(call, &name, &stats(call, &name).await?)),
        ["metrics", "resource" | "cadvisor"] => metrics(&resource_metrics(&stats(call, &name).await?)),
        ["containerLogs", namespace, pod, container] => logs(call, &name, namespace, pod, container).await,
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Reply {
    Ok(reply::bytes(status, "text/plain; charset=utf-8", text.to_owned()))
}

fn metrics(text: &str) -> Reply {
    Ok(reply::bytes(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        text.to_owned(),
    ))
}

async fn stats(call: &Call, node: &str) -> tripod_schema::failure::Result<NodeStats> {
    let door = call.manager.door(node).map_err(|e| model_failure(&e))?;
    door.stats().await.map_err(|e| model_failure(&e))
}

fn on_node(call: &Call, node: &str) -> Vec<Value> {
    let state = call.manager.state();
    let kind = KindId::from("pods");
    let pods = state.iter(&kind, None);
    pods.filter_map(|o| serde_json::from_slice(&o.bytes).ok())
        .filter(|p: &Value| text(p, &["spec", "nodeName"]) == node)
        .collect()
}

fn pods(call: &Call, node: &str) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": on_node(call, node)})
}

fn cpu(at: &str, usage: &Usage) -> Value {
    json!({"time": at, "usageNanoCores": usage.nano_cores, "usageCoreNanoSeconds": usage.cpu_nanos})
}

fn memory(at: &str, usage: &Usage) -> Value {
    json!({
        "time": at, "usageBytes": usage.memory_usage, "workingSetBytes": usage.memory_working_set,
        "rssBytes": usage.memory_rss,
    })
}

fn network(at: &str, (received, sent): (u64, u64)) -> Value {
    json!({"time": at, "name": "eth0", "rxBytes": received, "txBytes": sent})
}

/// `/stats/summary`.
fn summary(node: &str, stats: &NodeStats) -> Value {
    let at = format_time(stats.at.unwrap_or_else(Time::now), false);
    let started = |t: Option<Time>| t.map(|t| format_time(t, false));
    let pods: Vec<Value> = stats
        .pods
        .iter()
        .map(|p| {
            let containers = p.containers.iter().map(|c| {
                json!({
                    "name": c.name, "startTime": started(c.started_at),
                    "cpu": cpu(&at, &c.usage), "memory": memory(&at, &c.usage),
                })
            });
            let mut pod = json!({
                "podRef": {"name": p.name, "namespace": p.namespace, "uid": p.uid},
                "startTime": started(p.started_at), "containers": containers.collect::<Vec<_>>(),
            });
            if let Some(bytes) = p.network {
                pod["network"] = network(&at, bytes);
            }
            pod
        })
        .collect();
    json!({
        "node": {
            "nodeName": node, "cpu": cpu(&at, &stats.node), "memory": memory(&at, &stats.node),
            "network": network(&at, stats.network),
            "fs": {
                "time": at, "capacityBytes": stats.filesystem.capacity, "availableBytes": stats.filesystem.available,
                "usedBytes": stats.filesystem.capacity.saturating_sub(stats.filesystem.available),
            },
        },
        "pods": pods,
    })
}

fn kubelet_metrics(call: &Call, node: &str, stats: &NodeStats) -> String {
    let mut out = String::new();
    let running: usize = stats.pods.iter().map(|p| p.containers.len()).sum();
    for (name, help, value) in [
        (
            "kubelet_running_pods",
            "Pods that have a place on the node.",
            stats.pods.len(),
        ),
        (
            "kubelet_desired_pods",
            "Pods that the node is to run.",
            on_node(call, node).len(),
        ),
        ("kubelet_running_containers", "Containers that run.", running),
    ] {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    out
}

fn resource_metrics(stats: &NodeStats) -> String {
    let mut out = String::new();
    let seconds = |usage: &Usage| usage.cpu_nanos as f64 / 1e9;
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Processor time of the node.",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", seconds(&stats.node));
    head(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "Working set of the node.",
    );
    let _ = writeln!(
        out,
        "node_memory_working_set_bytes {}",
        stats.node.memory_working_set
    );
    let containers = || {
        stats
            .pods
            .iter()
            .flat_map(|p| p.containers.iter().map(move |c| (p, c)))
    };
    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time of a container.",
    );
    for (pod, container) in containers() {
        let labels = format!(
            "container={:?},namespace={:?},pod={:?}",
            container.name, pod.namespace, pod.name
        );
        let _ = writeln!(
            out,
            "container_cpu_usage_seconds_total{{{labels}}} {}",
            seconds(&container.usage)
        );
    }
    head(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "Working set of a container.",
    );
    for (pod, container) in containers() {
        let labels = format!(
            "container={:?},namespace={:?},pod={:?}",
            container.name, pod.namespace, pod.name
        );
        let bytes = container.usage.memory_working_set;
        let _ = writeln!(out, "container_memory_working_set_bytes{{{labels}}} {bytes}");
    }
    out
}

async fn logs(call: &Call, node: &str, namespace: &str, pod: &str, container: &str) -> Reply {
    let found = on_node(call, node)
        .into_iter()
        .find(|p| text(p, &["metadata", "namespace"]) == namespace && text(p, &["metadata", "name"]) == pod);
    let Some(found) = found else {
        return plain(StatusCode::NOT_FOUND, &format!("pod \"{pod}\" does not exist\n"));
    };
    let tail = call
        .query
        .number("tailLines")?
        .and_then(|n| usize::try_from(n).ok());
    let request = LogRequest {
        target: ContainerTarget {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: text(&found, &["metadata", "uid"]).to_owned(),
            container: container.to_owned(),
        },
        follow: call.query.flag("follow"),
        previous: call.query.flag("previous"),
        tail,
        ..LogRequest::default()
    };
    let door = call.manager.door(node).map_err(|e| model_failure(&e))?;
    let records = door.logs(request).await.map_err(|e| model_failure(&e))?;
    let bytes = tripod_engine::log_bytes(records, call.query.flag("timestamps"), None);
    Ok(http::Response::new(crate::watch::body(
        bytes.map(|piece| piece.map_err(Into::into)),
    )))
}
