//! `/volumes`.

use http::StatusCode;
use serde_json::{Value, json};
use tripod_agent::CreateVolume;
use tripod_model::volume::Volume;

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::when;
use crate::wire::network::VolumeBody;

/// `parts` is what follows `/volumes`.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET", [] | [""]) => list(docker, &call),
        ("POST", ["create"]) => create(docker, call).await,
        ("POST", ["prune"]) => prune(docker, &call).await,
        ("GET", [name]) => reply::json(&show(&*docker.agent().volume(name)?)),
        ("PUT", [_]) => Err(Fault::left_out("updating a cluster volume")),
        ("DELETE", [name]) => {
            docker
                .agent()
                .remove_volume(name, call.query.flag("force"))
                .await?;
            reply::no_content()
        }
        _ => Err(Fault::page_not_found()),
    }
}

/// A volume in the API's shape.
pub(crate) fn show(v: &Volume) -> Value {
    let mut labels = v.labels.clone();
    if v.anonymous {
        labels.insert("com.docker.volume.anonymous".into(), String::new());
    }
    json!({
        "Name": v.name, "Driver": v.driver, "Mountpoint": v.mountpoint, "CreatedAt": when::rfc3339(v.created_at),
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) }, "Scope": "local",
        "Options": if v.options.is_empty() { Value::Null } else { json!(v.options) },
    })
}

fn list(docker: &Docker, call: &Call) -> Reply {
    let filters = call
        .query
        .filters(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let mut all = docker.agent().volumes();
    all.retain(|v| {
        filters.labels(&v.labels)
            && filters.any("driver", |d| v.driver == d)
            && filters.matches("name", &v.name)
            && dangling.is_none_or(|d| d == docker.agent().volume_users(&v.name).is_empty())
    });
    let shown: Vec<Value> = all.iter().map(|v| show(v)).collect();
    reply::json(&json!({ "Volumes": shown, "Warnings": null }))
}

async fn create(docker: &Docker, call: Call) -> Reply {
    let body: VolumeBody = call.json_or_default().await?;
    if body.cluster_volume_spec.is_some() {
        return Err(Fault::left_out("a cluster volume"));
    }
    let request = CreateVolume {
        name: body.name,
        driver: body.driver,
        options: body.driver_opts,
        labels: body.labels,
    };
    reply::json_status(
        StatusCode::CREATED,
        &show(&*docker.agent().create_volume(request).await?),
    )
}

async fn prune(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&["label", "label!", "all"])?;
    // Since 1.42 only anonymous volumes go, unless all are asked for.
    let all = filters.flag("all")?.unwrap_or(false) || call.version.0 < 42;
    let pruned = docker
        .agent()
        .prune_volumes(|v| (all || v.anonymous) && filters.labels(&v.labels))
        .await?;
    reply::json(&json!({ "VolumesDeleted": pruned.removed, "SpaceReclaimed": pruned.reclaimed }))
}
