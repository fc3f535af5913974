//! `metrics.k8s.io`: what nodes and pods use now, asked from the nodes themselves.

use std::collections::HashMap;

use http::StatusCode;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::door::{NodeStats, Usage};
use tripod_schema::Failure;
use tripod_schema::decode::format_time;
use tripod_schema::failure::Result;
use tripod_store::{Key, KindId};

use crate::call::Call;
use crate::encode::value_reply;
use crate::objects::Selection;
use crate::reply::Reply;
use crate::target::Target;

/// The group that this answers for.
pub(crate) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "metrics.k8s.io/v1beta1";

/// Answers `get` and `list`.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let selection = Selection::of(call, target)?;
    let nodes = target.kind.plural == "nodes";
    let readings = readings(
        call,
        (nodes && !target.name.is_empty()).then_some(target.name.as_str()),
    )
    .await;
    let mut items = Vec::new();
    let state = call.manager.state();
    for (node, stats) in &readings {
        if nodes {
            let labelled = state.get(&Key::cluster("nodes", node.as_str()));
            if labelled.is_some_and(|o| selection.accepts(o)) {
                let mut item = item("NodeMetrics", json!({"name": node}), stats, &stats.node);
                item["usage"] = amounts(&stats.node);
                items.push(item);
            }
            continue;
        }
        for pod in &stats.pods {
            let wanted = (target.namespace.is_empty() || pod.namespace == target.namespace)
                && (target.name.is_empty() || pod.name == target.name);
            let stored = state.get(&Key::new("pods", pod.namespace.as_str(), pod.name.as_str()));
            if !wanted || pod.containers.is_empty() || stored.is_none_or(|o| !selection.accepts(o)) {
                continue;
            }
            let first = pod.containers.first().map(|c| c.usage).unwrap_or_default();
            let mut item = item(
                "PodMetrics",
                json!({"name": pod.name, "namespace": pod.namespace}),
                stats,
                &first,
            );
            let containers = pod
                .containers
                .iter()
                .map(|c| json!({"name": c.name, "usage": amounts(&c.usage)}));
            item["containers"] = containers.collect();
            items.push(item);
        }
    }
    if target.name.is_empty() {
        let kind = target.kind.list_kind();
        let list = json!({"apiVersion": VERSION, "kind": kind, "metadata": {}, "items": items});
        return value_reply(call, StatusCode::OK, &list);
    }
    let found = items.into_iter().next();
    let found: Result<Value> = found.ok_or_else(|| Failure::not_found(target.kind, &target.name));
    value_reply(call, StatusCode::OK, &found?)
}

/// What the nodes read; those that cannot be reached are left out.
async fn readings(call: &Call, only: Option<&str>) -> Vec<(String, NodeStats)> {
    let names: Vec<String> = {
        let state = call.manager.state();
        let kind = KindId::from("nodes");
        let nodes = state.iter(&kind, None).map(|o| o.key.name.to_string());
        nodes.filter(|name| only.is_none_or(|o| o == name)).collect()
    };
    let asked = names.into_iter().map(|name| async {
        let door = call.manager.door(&name).ok()?;
        let stats = door.stats().await.ok()?;
        Some((name, stats))
    });
    let mut seen: HashMap<String, NodeStats> = futures::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect();
    let mut all: Vec<(String, NodeStats)> = seen.drain().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn item(kind: &str, mut metadata: Value, stats: &NodeStats, usage: &Usage) -> Value {
    let at = stats.at.unwrap_or_else(Time::now);
    metadata["creationTimestamp"] = format_time(Time::now(), false).into();
    json!({
        "apiVersion": VERSION,
        "kind": kind,
        "metadata": metadata,
        "timestamp": format_time(at, false),
        "window": format!("{:.3}s", usage.window_seconds),
    })
}

fn amounts(usage: &Usage) -> Value {
    json!({"cpu": format!("{}n", usage.nano_cores), "memory": format!("{}Ki", usage.memory_working_set / 1024)})
}
