//! `/services`.

use std::time::Duration;

use serde_json::{Value, json};
use tripod_engine::{Manager, ServiceUpdate};
use tripod_model::image::RegistryAuth;
use tripod_model::reference::Reference;
use tripod_model::swarm::{Credentials, ServiceSpec, SwarmService};

use super::service_spec as wire;
use super::{from_wire, logs, to_wire};
use crate::call::{Call, Version};
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

/// How long a registry may take to tell a digest before the name is used as it is.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(3);

/// From this version on clients look digests up themselves (`/distribution/NAME/json`).
const PINNED_BY_CLIENTS: Version = Version(30);

pub(super) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    let manager = docker.swarm().manager()?;
    match (call.method.as_str(), parts) {
        ("GET", []) => list(&manager, &call),
        ("POST", ["create"]) => create(docker, &manager, call).await,
        ("GET", [id]) => {
            let defaults = call.query.flag("insertDefaults");
            reply::json(&service(&manager.service(id)?, defaults))
        }
        ("DELETE", [id]) => {
            manager.service_remove(id).await?;
            reply::status(http::StatusCode::OK)
        }
        ("POST", [id, "update"]) => update(docker, &manager, call, id).await,
        ("GET", [id, "logs"]) => logs::service(docker, &manager, &call, id).await,
        _ => Err(Fault::page_not_found()),
    }
}

fn list(manager: &Manager, call: &Call) -> Reply {
    let services = manager.services(&super::filters(call)?)?;
    let with_status = call.query.flag("status");
    let all: Vec<Value> = services
        .iter()
        .map(|s| {
            let mut value = service(s, false);
            if with_status {
                let counts = manager.service_counts(s);
                value["ServiceStatus"] = json!({
                    "RunningTasks": counts.running,
                    "DesiredTasks": counts.desired,
                    "CompletedTasks": counts.completed,
                });
            }
            value
        })
        .collect();
    reply::json(&all)
}

/// The body of create and update.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    task_template: ForceUpdate,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ForceUpdate {
    force_update: u64,
}

async fn read_spec(call: Call) -> Result<ServiceSpec, Fault> {
    let body: Value = call.json().await?;
    let decode = |e| Fault::bad(format_args!("invalid JSON: {e}"));
    let spec: wire::ServiceSpec = crate::decode::from_value(&body).map_err(decode)?;
    let forced: Body = crate::decode::from_value(&body).map_err(decode)?;
    Ok(from_wire::service(spec, forced.task_template.force_update)?)
}

async fn create(docker: &Docker, manager: &Manager, call: Call) -> Reply {
    let auth = call.header("X-Registry-Auth").map(str::to_owned);
    let is_old = call.version < PINNED_BY_CLIENTS;
    let mut spec = read_spec(call).await?;
    if spec.name.is_empty() {
        spec.name = tripod_agent::generate_name(|name| manager.service(name).is_ok());
    }
    let warnings = pin(docker, &mut spec, auth, None, is_old).await;
    let made = manager.service_create(spec).await?;
    let mut answer = json!({"ID": made.metadata.name});
    if !warnings.is_empty() {
        answer["Warnings"] = json!(warnings);
    }
    reply::created(&answer)
}

async fn update(docker: &Docker, manager: &Manager, call: Call, id: &str) -> Reply {
    let version = super::version(&call)?;
    let rollback = match call.query.text("rollback") {
        "" | "none" => false,
        "previous" => true,
        other => return Err(Fault::bad(format_args!("unrecognized rollback option {other}"))),
    };
    let auth_from_previous = match call.query.text("registryAuthFrom") {
        "" | "spec" => false,
        "previous-spec" => true,
        _ => return Err(Fault::bad("unsupported registryAuthFrom value")),
    };
    let auth = call.header("X-Registry-Auth").map(str::to_owned);
    let before = manager.service(id)?;
    let is_old = call.version < PINNED_BY_CLIENTS;
    let mut spec = read_spec(call).await?;
    let mut warnings = Vec::new();
    if !rollback {
        warnings = pin(docker, &mut spec, auth, Some(&before), is_old).await;
    }
    manager
        .service_update(
            id,
            version,
            spec,
            ServiceUpdate {
                rollback,
                auth_from_previous,
            },
        )
        .await?;
    reply::json(&json!({"Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) }}))
}

/// Takes the credentials over, and for clients that do not do so themselves asks the registry for the digest of the
/// image, so that every node runs the same bytes. Where none answers the name stays, and the client is told.
async fn pin(
    docker: &Docker,
    spec: &mut ServiceSpec,
    auth: Option<String>,
    before: Option<&SwarmService>,
    is_old: bool,
) -> Vec<String> {
    let container = &mut spec.task_template.container;
    let credentials = auth.as_deref().and_then(decode_auth);
    container.registry_auth = Credentials(credentials.clone());
    let Ok(reference) = Reference::parse(&container.image) else {
        return Vec::new();
    };
    if !is_old {
        return Vec::new();
    }
    let unchanged = before.is_some_and(|s| s.spec.task_template.container.image == container.image);
    if reference.digest.is_some() || unchanged {
        return Vec::new();
    }
    let images = docker.agent().images();
    let asked = tokio::time::timeout(REGISTRY_PATIENCE, images.inspect_remote(&reference, credentials)).await;
    if let Ok(Ok(found)) = asked
        && !found.descriptor.digest.is_empty()
    {
        container.image = format!("{}@{}", reference.familiar(), found.descriptor.digest);
        return Vec::new();
    }
    vec![format!(
        "image {} could not be accessed on a registry to record\nits digest. Each node will access {0} independently,\npossibly leading to different nodes running different\nversions of the image.\n",
        container.image
    )]
}

/// `X-Registry-Auth`: base64 (URL alphabet) of JSON.
fn decode_auth(header: &str) -> Option<RegistryAuth> {
    crate::wire::system::registry_auth(Some(header)).ok().flatten()
}

/// `Service`, with the defaults of its specification filled in or not.
pub(super) fn service(s: &SwarmService, defaults: bool) -> Value {
    let created = when::or_never(s.metadata.creation_timestamp);
    let mut value = json!({
        "ID": s.metadata.name,
        "Version": {"Index": s.metadata.revision()},
        "CreatedAt": created,
        "UpdatedAt": s.status.updated_at.map_or(created, when::rfc3339),
        "Spec": to_wire::service(&s.spec, defaults),
        "Endpoint": endpoint(s),
    });
    if let Some(previous) = &s.previous_spec {
        value["PreviousSpec"] = to_wire::service(previous, defaults);
    }
    if let Some(update) = &s.status.update {
        let mut status = json!({"State": update.state.as_str(), "Message": update.message});
        if let Some(at) = update.started_at {
            status["StartedAt"] = json!(when::rfc3339(at));
        }
        if let Some(at) = update.completed_at {
            status["CompletedAt"] = json!(when::rfc3339(at));
        }
        value["UpdateStatus"] = status;
    }
    if let Some(job) = &s.status.job {
        value["JobStatus"] = json!({
            "JobIteration": iteration(job.iteration),
            "LastExecution": when::or_never(job.last_execution),
        });
    }
    value
}

/// A counter as the API writes it: none is no member.
pub(super) fn iteration(index: u64) -> Value {
    match index {
        0 => json!({}),
        index => json!({"Index": index}),
    }
}

fn endpoint(s: &SwarmService) -> Value {
    let Some(e) = &s.status.endpoint else {
        return json!({"Spec": {}});
    };
    let mut value = json!({"Spec": {}});
    if s.spec.endpoint_spec.is_some() {
        value["Spec"] = json!(to_wire::endpoint_spec(&e.spec));
    }
    if !e.ports.is_empty() {
        value["Ports"] = json!(e.ports.iter().map(to_wire::port).collect::<Vec<_>>());
    }
    if !e.virtual_ips.is_empty() {
        let vips = e
            .virtual_ips
            .iter()
            .map(|v| json!({"NetworkID": v.network_id, "Addr": v.addr}));
        value["VirtualIPs"] = json!(vips.collect::<Vec<_>>());
    }
    value
}
