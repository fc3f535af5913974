//! `/tasks`.

use serde_json::{Value, json};
use tripod_engine::{Filters, Manager, Task};
use tripod_model::network::NetworkSpec;
use tripod_model::pod::{DesiredState, HostPort};
use tripod_model::swarm::{PortConfig, PublishMode};

use super::{logs, networks, to_wire};
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

pub(super) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    let manager = docker.swarm().manager()?;
    match (call.method.as_str(), parts) {
        ("GET", []) => {
            let tasks = manager.tasks(&super::filters(&call)?)?;
            let networks = cluster_networks(&manager)?;
            reply::json(&tasks.iter().map(|t| task(t, &networks)).collect::<Vec<_>>())
        }
        ("GET", [id]) => {
            let found = manager.task(id)?;
            reply::json(&task(&found, &cluster_networks(&manager)?))
        }
        ("GET", [id, "logs"]) => logs::task(docker, &manager, &call, id).await,
        _ => Err(Fault::page_not_found()),
    }
}

fn cluster_networks(manager: &Manager) -> Result<Vec<NetworkSpec>, Fault> {
    Ok(manager
        .networks(&Filters::new())?
        .into_iter()
        .map(|n| n.spec)
        .collect())
}

/// `Task`.
fn task(t: &Task, networks: &[NetworkSpec]) -> Value {
    let pod = &t.pod;
    let Some(swarm) = pod.swarm() else {
        return Value::Null;
    };
    let state = &pod.state;
    let created = when::or_never(pod.metadata.creation_timestamp);
    let stamp = state.at.map_or_else(|| created.clone(), when::rfc3339);
    let mut status = json!({
        "Timestamp": stamp,
        "State": state.observed.as_str(),
        "Message": state.message,
        "PortStatus": port_status(&state.ports),
    });
    if !state.error.is_empty() {
        status["Err"] = json!(state.error);
    }
    if !state.container_id.is_empty() {
        status["ContainerStatus"] = json!({
            "ContainerID": state.container_id,
            "PID": state.pid,
            "ExitCode": state.exit_code.unwrap_or(0),
        });
    }
    let mut value = json!({
        "ID": swarm.task_id,
        "Version": {"Index": pod.metadata.revision()},
        "CreatedAt": created,
        "UpdatedAt": stamp,
        "Labels": {},
        "Spec": to_wire::task(&swarm.template, false),
        "ServiceID": swarm.service_id,
        "Status": status,
        "DesiredState": match state.desired {
            DesiredState::Ready => "ready",
            DesiredState::Running => "running",
            DesiredState::Complete => "complete",
            DesiredState::Shutdown => "shutdown",
            DesiredState::Remove => "remove",
        },
    });
    if swarm.slot > 0 {
        value["Slot"] = swarm.slot.into();
    }
    let node = if t.node_id.is_empty() {
        &swarm.node_id
    } else {
        &t.node_id
    };
    if !node.is_empty() {
        value["NodeID"] = json!(node);
    }
    if let Some(iteration) = swarm.job_iteration {
        value["JobIteration"] = super::services::iteration(iteration);
    }
    let attachments: Vec<Value> = pod
        .extension
        .networks
        .iter()
        .filter_map(|n| {
            // Networks of the node's own are no business of the cluster.
            let spec = networks.iter().find(|s| s.id == n.network_id)?;
            Some(json!({
                "Network": networks::attachment(spec),
                "Addresses": n.address.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }))
        })
        .collect();
    if !attachments.is_empty() {
        value["NetworksAttachments"] = attachments.into();
    }
    value
}

fn port_status(ports: &[HostPort]) -> Value {
    if ports.is_empty() {
        return json!({});
    }
    let ports: Vec<_> = ports
        .iter()
        .map(|p| {
            to_wire::port(&PortConfig {
                name: String::new(),
                protocol: p.protocol,
                target_port: p.target,
                published_port: p.published,
                publish_mode: PublishMode::Host,
            })
        })
        .collect();
    json!({"Ports": ports})
}
