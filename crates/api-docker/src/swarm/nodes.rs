//! `/nodes`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tripod_model::Error;
use tripod_model::node::{Availability, Node, NodeRole, NodeState, NodeSwarmSpec};

use super::cluster::availability;
use super::to_wire::generic;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

pub(super) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    let manager = docker.swarm().manager()?;
    match (call.method.as_str(), parts) {
        ("GET", []) => {
            let nodes = manager.nodes(&super::filters(&call)?)?;
            reply::json(&nodes.iter().map(node).collect::<Vec<_>>())
        }
        ("GET", [id]) => reply::json(&node(&manager.node(id)?)),
        ("POST", [id, "update"]) => {
            let version = super::version(&call)?;
            let body: SpecBody = call.json().await?;
            let node_id = manager.node(id)?.spec.swarm.node_id;
            let spec = NodeSwarmSpec {
                node_id: node_id.clone(),
                name: body.name,
                labels: body.labels,
                role: match body.role.as_str() {
                    "manager" => NodeRole::Manager,
                    "worker" => NodeRole::Worker,
                    other => return Err(Error::invalid(format_args!("invalid Role: \"{other}\"")).into()),
                },
                availability: availability(&body.availability)?,
                ..NodeSwarmSpec::default()
            };
            manager.node_update(&node_id, version, spec).await?;
            reply::status(http::StatusCode::OK)
        }
        ("DELETE", [id]) => {
            manager.node_remove(id, call.query.flag("force")).await?;
            reply::status(http::StatusCode::OK)
        }
        _ => Err(Fault::page_not_found()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct SpecBody {
    name: String,
    labels: BTreeMap<String, String>,
    role: String,
    availability: String,
}

/// `Node`.
fn node(n: &Node) -> Value {
    let (swarm, status, description) = (&n.spec.swarm, &n.status, &n.status.description);
    let created = when::or_never(n.metadata.creation_timestamp);
    let mut spec = json!({
        "Labels": swarm.labels,
        "Role": match swarm.role { NodeRole::Manager => "manager", NodeRole::Worker => "worker" },
        "Availability": match swarm.availability {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        },
    });
    if !swarm.name.is_empty() {
        spec["Name"] = json!(swarm.name);
    }
    let mut engine = json!({
        "EngineVersion": description.engine_version,
        "Plugins": description
            .plugins
            .iter()
            .map(|(kind, name)| json!({"Type": kind, "Name": name}))
            .collect::<Vec<_>>(),
    });
    if !description.engine_labels.is_empty() {
        engine["Labels"] = json!(description.engine_labels);
    }
    let mut resources = json!({"NanoCPUs": description.nano_cpus, "MemoryBytes": description.memory});
    if !description.generic.is_empty() {
        resources["GenericResources"] = json!(description.generic.iter().map(generic).collect::<Vec<_>>());
    }
    let mut value = json!({
        "ID": swarm.node_id,
        "Version": {"Index": n.metadata.revision()},
        "CreatedAt": created,
        "UpdatedAt": status.updated_at.map_or(created, when::rfc3339),
        "Spec": spec,
        "Description": {
            "Hostname": description.hostname,
            "Platform": {"Architecture": description.platform.architecture, "OS": description.platform.os},
            "Resources": resources,
            "Engine": engine,
            "TLSInfo": {
                "TrustRoot": description.trust_root,
                "CertIssuerSubject": description.issuer_subject,
                "CertIssuerPublicKey": description.issuer_public_key,
            },
        },
        "Status": {
            "State": match status.state {
                NodeState::Unknown => "unknown",
                NodeState::Down => "down",
                NodeState::Ready => "ready",
                NodeState::Disconnected => "disconnected",
            },
            "Addr": status.addr,
        },
    });
    if !status.message.is_empty() {
        value["Status"]["Message"] = json!(status.message);
    }
    if let Some(manager) = &status.manager {
        let mut standing = json!({
            "Reachability": if manager.reachable { "reachable" } else { "unreachable" },
            "Addr": manager.addr,
        });
        if manager.leader {
            standing["Leader"] = true.into();
        }
        value["ManagerStatus"] = standing;
    }
    value
}
