//! Leases of nodes in `kube-node-lease`: while the leader hears a node, its lease is renewed.
//!
//! Nodes are heard over their sessions; the leases only tell clients so. In large clusters they are renewed less often,
//! so that they never are more than some writes a second.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tripod_engine::Manager;
use tripod_model::Time;
use tripod_schema::value::{list, text};
use tripod_store::{Key, KindId, StoredObject, Txn};

const NAMESPACE: &str = "kube-node-lease";
const LEASES: &str = "leases.coordination.k8s.io";
/// Seconds between renewals, in a cluster of few nodes.
const RENEWAL: u64 = 10;
/// Renewals in a second, at most.
const RATE: u64 = 20;

/// Renews leases until `over`.
pub(crate) async fn keep(manager: Arc<Manager>, over: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_secs(1);
        if !manager.leads()
            || manager
                .state()
                .get(&Key::cluster("namespaces", NAMESPACE))
                .is_none()
        {
            continue;
        }
        let state = manager.state();
        let nodes: Vec<Arc<StoredObject>> = state.iter(&KindId::from("nodes"), None).cloned().collect();
        let seconds = RENEWAL.max(nodes.len() as u64 / RATE);
        let mut heard = false;
        for node in nodes.iter().filter(|n| is_ready(n)) {
            heard = true;
            renew(&manager, node, seconds).await;
        }
        if heard {
            wait = Duration::from_secs(seconds);
        }
    }
}

/// Whether it is a node of ours that is heard; others renew their own.
fn is_ready(node: &StoredObject) -> bool {
    let node: Value = serde_json::from_slice(&node.bytes).unwrap_or_default();
    !text(&node, &["spec", "swarm", "nodeId"]).is_empty()
        && list(&node, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True")
}

async fn renew(manager: &Manager, node: &StoredObject, seconds: u64) {
    let name = &*node.key.name;
    let key = Key::new(LEASES, NAMESPACE, name);
    let found = manager.state().get(&key).cloned();
    let mut lease: Value = match &found {
        Some(stored) => serde_json::from_slice(&stored.bytes).unwrap_or_default(),
        None => json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": crate::objects::new_uid(),
                "creationTimestamp": tripod_schema::decode::format_time(Time::now(), false),
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": *node.uid }],
            },
        }),
    };
    lease["spec"] = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": 4 * seconds,
        "renewTime": tripod_schema::decode::format_time(Time::now(), true),
    });
    let bytes = tripod_schema::value::to_bytes(&lease);
    let txn = match &found {
        Some(stored) => Txn::new().update(key, stored.revision, bytes, Vec::new()),
        None => Txn::new().create(key, bytes, Vec::new()),
    };
    // Who wrote in between renewed it, or the next round does.
    if let Err(e) = manager.write(txn).await {
        tracing::debug!("the lease of node {name} was not renewed: {e:?}");
    }
}
