//! Addresses of Services of the type LoadBalancer: those of the nodes, each of which answers on the Service's ports.

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::core::v1::Service;
use tripod_model::node::NodeState;

use super::kinds::SERVICES;
use super::work::Work;

const COMPONENT: &str = "service-controller";

/// Decides about the addresses of a Service.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(service) = w.k.get(SERVICES, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = service.get::<Service>().and_then(|s| s.spec.clone()) else {
        return;
    };
    // Another class is another program's.
    let ours = spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none();
    let before = service.value()["status"]["loadBalancer"]["ingress"].clone();
    let has = before.as_array().is_some_and(|a| !a.is_empty());
    if !ours || service.meta.is_deleted() {
        if has && spec.type_.as_deref() != Some("LoadBalancer") {
            w.update(&service, |v| v["status"]["loadBalancer"] = json!({}));
        }
        return;
    }
    let ready = w
        .view
        .nodes()
        .filter(|n| n.status.state == NodeState::Ready && !n.status.addr.is_empty());
    let mut addresses: Vec<String> = ready.map(|n| n.status.addr.clone()).collect();
    addresses.sort();
    addresses.dedup();
    if let Some(wanted) = spec.load_balancer_ip.filter(|a| addresses.contains(a)) {
        addresses = vec![wanted];
    }
    if addresses.is_empty() {
        return;
    }
    let list: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({ "ip": ip, "ipMode": "VIP" }))
        .collect();
    let list = Value::from(list);
    if before == list {
        return;
    }
    if !has {
        w.note(
            &service,
            COMPONENT,
            "EnsuredLoadBalancer",
            "Ensured load balancer",
        );
    }
    w.update(&service, |v| v["status"]["loadBalancer"]["ingress"] = list);
}
