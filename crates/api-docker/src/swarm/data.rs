//! `/secrets` and `/configs`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde_json::{Value, json};
use tripod_engine::Manager;
use tripod_model::data::{ConfigMap, SWARM_DATA_KEY, Secret, SwarmData};
use tripod_model::object::ObjectMeta;

use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

pub(super) async fn route(docker: &Docker, call: Call, kind: &str, parts: &[&str]) -> Reply {
    let manager = docker.swarm().manager()?;
    let secrets = kind == "secrets";
    match (call.method.as_str(), parts) {
        ("GET", []) => {
            let filters = super::filters(&call)?;
            let all: Vec<Value> = if secrets {
                manager.secrets(&filters)?.iter().map(secret).collect()
            } else {
                manager.configs(&filters)?.iter().map(config).collect()
            };
            reply::json(&all)
        }
        ("GET", [id]) if secrets => reply::json(&secret(&manager.secret(id)?)),
        ("GET", [id]) => reply::json(&config(&manager.config(id)?)),
        ("POST", ["create"]) => create(&manager, call.json().await?, secrets).await,
        ("POST", [id, "update"]) => {
            let version = super::version(&call)?;
            update(&manager, id, version, call.json().await?, secrets).await
        }
        ("DELETE", [id]) => {
            if secrets {
                manager.secret_remove(id).await?;
            } else {
                manager.config_remove(id).await?;
            }
            reply::no_content()
        }
        _ => Err(Fault::page_not_found()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    name: String,
    labels: BTreeMap<String, String>,
    data: String,
    driver: Option<DriverBody>,
    templating: Option<DriverBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DriverBody {
    name: String,
}

impl Body {
    fn bytes(&self) -> Result<Vec<u8>, Fault> {
        STANDARD
            .decode(&self.data)
            .or_else(|_| URL_SAFE.decode(&self.data))
            .map_err(|e| {
                Fault::bad(format_args!(
                    "invalid JSON: illegal base64 data in field Data: {e}"
                ))
            })
    }

    fn swarm(&self) -> SwarmData {
        SwarmData {
            labels: self.labels.clone(),
            templating: self
                .templating
                .as_ref()
                .map(|d| d.name.clone())
                .unwrap_or_default(),
            driver: self.driver.as_ref().map(|d| d.name.clone()).unwrap_or_default(),
            updated_at: None,
        }
    }
}

async fn create(manager: &Manager, body: Body, secrets: bool) -> Reply {
    let (bytes, swarm) = (body.bytes()?, body.swarm());
    let id = if secrets {
        manager
            .secret_create(&body.name, swarm, &bytes)
            .await?
            .metadata
            .name
    } else {
        manager
            .config_create(&body.name, swarm, &bytes)
            .await?
            .metadata
            .name
    };
    reply::created(&json!({"ID": id}))
}

async fn update(manager: &Manager, id: &str, version: u64, body: Body, secrets: bool) -> Reply {
    let (bytes, swarm) = (body.bytes()?, body.swarm());
    if secrets {
        manager
            .secret_update(id, version, &body.name, swarm, Some(&bytes))
            .await?;
    } else {
        manager
            .config_update(id, version, &body.name, swarm, Some(&bytes))
            .await?;
    }
    reply::status(http::StatusCode::OK)
}

fn common(meta: &ObjectMeta, swarm: Option<&SwarmData>) -> Value {
    let created = when::or_never(meta.creation_timestamp);
    let updated = swarm
        .and_then(|s| s.updated_at)
        .map_or_else(|| created.clone(), when::rfc3339);
    let mut spec = json!({
        "Name": meta.display_name(),
        "Labels": swarm.map(|s| s.labels.clone()).unwrap_or_default(),
    });
    if let Some(templating) = swarm.map(|s| &s.templating).filter(|t| !t.is_empty()) {
        spec["Templating"] = json!({"Name": templating});
    }
    json!({
        "ID": meta.name,
        "Version": {"Index": meta.revision()},
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Spec": spec,
    })
}

/// `Secret`: never its bytes.
fn secret(s: &Secret) -> Value {
    common(&s.metadata, s.swarm.as_ref())
}

/// `Config`.
fn config(c: &ConfigMap) -> Value {
    let mut value = common(&c.metadata, c.swarm.as_ref());
    let bytes = match (c.binary_data.get(SWARM_DATA_KEY), c.data.get(SWARM_DATA_KEY)) {
        (Some(base64), _) => base64.clone(),
        (None, Some(text)) => STANDARD.encode(text),
        (None, None) => String::new(),
    };
    value["Spec"]["Data"] = json!(bytes);
    value
}
