//! Pages over a store in memory.

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_store::{Key, State, Txn};

use super::{detail, listing, overview, search, workloads};
use crate::call::Ctx;
use crate::kinds::KindDef;
use crate::lang::Lang;
use crate::object::get;
use crate::view::{Page, Ui, render};

const NASTY: &str = "<img src=x onerror=alert(1)>";

fn object(resource: &str, api_version: &str, kind: &str, name: &str, rest: Value) -> (Key, Value) {
    let cluster = ["nodes", "persistentvolumes", "namespaces"].contains(&resource);
    let namespace = if cluster { "" } else { "default" };
    let mut value = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    if !cluster {
        value["metadata"]["namespace"] = json!("default");
    }
    for (k, v) in rest.as_object().into_iter().flatten() {
        match k.as_str() {
            "metadata" => v
                .as_object()
                .into_iter()
                .flatten()
                .for_each(|(k, v)| value["metadata"][k] = v.clone()),
            _ => value[k] = v.clone(),
        }
    }
    (Key::new(resource, namespace, name), value)
}

fn owned(kind: &str, owner: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": format!("uid-{owner}"), "controller": true}])
}

/// A cluster with a deployment of which one pod waits, a node, a service, a claim, and hostile texts.
fn ctx(lang: Lang) -> Ctx {
    let template = json!({"spec": {"containers": [{"name": "web", "image": "nginx:1"}]}});
    let objects = [
        object(
            "deployments.apps",
            "apps/v1",
            "Deployment",
            "web",
            json!({
                "metadata": {"generation": 1, "annotations": {"deployment.kubernetes.io/revision": "2"}},
                "spec": {"replicas": 2, "template": template},
                "status": {"observedGeneration": 1, "readyReplicas": 1, "updatedReplicas": 2},
            }),
        ),
        object(
            "replicasets.apps",
            "apps/v1",
            "ReplicaSet",
            "web-1",
            json!({
                "metadata": {"ownerReferences": owned("Deployment", "web")},
                "spec": {"replicas": 2, "template": template}, "status": {"readyReplicas": 1},
            }),
        ),
        object(
            "pods",
            "v1",
            "Pod",
            "web-1-a",
            json!({
                "metadata": {"ownerReferences": owned("ReplicaSet", "web-1")},
                "spec": {"nodeName": "minikube", "containers": [{"name": "web", "image": "nginx:1"}]},
                "status": {"phase": "Running", "podIP": "10.244.0.7",
                    "containerStatuses": [{"name": "web", "ready": true, "state": {"running": {}}}]},
            }),
        ),
        object(
            "pods",
            "v1",
            "Pod",
            "web-1-b",
            json!({
                "metadata": {"ownerReferences": owned("ReplicaSet", "web-1")},
                "spec": {"containers": [{"name": "web", "image": "nginx:1"}]},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]},
            }),
        ),
        object(
            "nodes",
            "v1",
            "Node",
            "minikube",
            json!({
                "status": {"state": "ready", "addr": "10.0.0.1", "description": {"nanoCpus": 2_000_000_000, "memory": 4096}},
            }),
        ),
        object(
            "services",
            "v1",
            "Service",
            "hello-minikube",
            json!({
                "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"app": "x"},
                    "ports": [{"port": 8080, "nodePort": 30_080}]},
            }),
        ),
        object(
            "persistentvolumeclaims",
            "v1",
            "PersistentVolumeClaim",
            "cache-data-claim",
            json!({
                "spec": {"storageClassName": NASTY}, "status": {"phase": "Bound"},
            }),
        ),
        object(
            "secrets",
            "v1",
            "Secret",
            "token",
            json!({"type": "Opaque", "data": {"password": "aHVudGVyMg=="}}),
        ),
        object(
            "events",
            "v1",
            "Event",
            "web.1",
            json!({
                "type": "Warning", "reason": "FailedScheduling", "message": NASTY, "count": 3,
                "lastTimestamp": "2026-01-01T00:00:00Z",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web-1-b"},
            }),
        ),
    ];
    let txns: Vec<Txn> = objects
        .into_iter()
        .map(|(key, value)| Txn::new().put(key, value.to_string()))
        .collect();
    let mut state = State::new();
    state.apply(&txns);
    Ctx {
        state: Arc::new(state),
        manager: None,
        kube: None,
        readings: Arc::default(),
        known: Arc::default(),
        tasks: Default::default(),
        ui: Ui {
            lang,
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
            ..Ui::default()
        },
    }
}

fn html(ctx: &Ctx, page: &Page) -> String {
    let html = render(&ctx.ui, page, false);
    assert!(!html.contains(NASTY), "{html}");
    html
}

#[test]
fn lists_name_their_objects_and_link_to_them() {
    let ctx = ctx(Lang::En);
    for (slug, wanted) in [
        (
            "pods",
            &[
                "/pods/default/web-1-a",
                "Running",
                "10.244.0.7",
                "Insufficient cpu",
                "60m",
            ][..],
        ),
        ("deployments", &["/deployments/default/web", "nginx:1", "1 / 2"]),
        ("nodes", &["/nodes/minikube", "Ready", "10.0.0.1"]),
        (
            "services",
            &[
                "/services/default/hello-minikube",
                "NodePort",
                "http://10.0.0.1:30080",
            ],
        ),
        (
            "persistentvolumeclaims",
            &["/persistentvolumeclaims/default/cache-data-claim", "Bound"],
        ),
        ("events", &["FailedScheduling", "/pods/default/web-1-b"]),
    ] {
        let def = KindDef::by_slug(slug).unwrap();
        let html = html(&ctx, &listing::kind(&ctx, def, ""));
        for text in wanted {
            assert!(html.contains(text), "{slug}: no {text} in {html}");
        }
        assert!(html.contains("Kubernetes Dashboard</title>"));
    }
}

#[test]
fn the_overview_says_what_needs_attention_and_why() {
    let ctx = ctx(Lang::En);
    let html = html(&ctx, &overview::page(&ctx));
    for text in [
        "Needs attention",
        "0/1 nodes are available: 1 Insufficient cpu.",
        "minikube",
        ">web<",
    ] {
        assert!(html.contains(text), "no {text} in {html}");
    }
}

#[test]
fn a_workload_says_why_it_waits_and_shows_its_pods() {
    let ctx = ctx(Lang::En);
    let web = get(&ctx.state, "deployments.apps", "default", "web").unwrap();
    let html = html(&ctx, &detail::page(&ctx, &web));
    for text in [
        "Pending: Unschedulable: 0/1 nodes",
        "web-1-a",
        "web-1-b",
        "/deployments/default/web/scale",
        "Roll back",
    ] {
        assert!(html.contains(text), "no {text} in {html}");
    }
    let waiting = get(&ctx.state, "pods", "default", "web-1-b").unwrap();
    let page = detail::page(&ctx, &waiting);
    let html = render(&ctx.ui, &page, true);
    assert!(
        html.contains("FailedScheduling") && !html.contains("<html"),
        "{html}"
    );
}

#[test]
fn secrets_are_folded_away() {
    let ctx = ctx(Lang::En);
    let secret = get(&ctx.state, "secrets", "default", "token").unwrap();
    let html = html(&ctx, &detail::page(&ctx, &secret));
    assert!(
        html.contains("<details class=\"hidden\"><summary><code>password</code>"),
        "{html}"
    );
    let def = KindDef::by_slug("secrets").unwrap();
    assert!(!render(&ctx.ui, &listing::kind(&ctx, def, ""), false).contains("hunter2"));
}

#[test]
fn search_finds_by_all_words() {
    let ctx = ctx(Lang::En);
    let found = |words: &str| render(&ctx.ui, &search::page(&ctx, words), true);
    assert!(found("HELLO mini").contains("/services/default/hello-minikube"));
    assert!(found("hello nothing").contains("Nothing has that name."));
}

#[test]
fn pages_are_chinese_when_asked() {
    let ctx = ctx(Lang::Zh);
    let html = html(&ctx, &workloads::page(&ctx));
    assert!(
        html.contains("工作负载") && html.contains("lang=\"zh-CN\""),
        "{html}"
    );
}
