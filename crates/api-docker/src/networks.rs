//! `/networks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use tripod_agent::{ConnectRequest, ContainerRecord, CreateNetwork, NetworkRecord};
use tripod_model::network::NetworkSpec;

use crate::Docker;
use crate::call::Call;
use crate::containers::until;
use crate::fault::Fault;
use crate::query::Filters;
use crate::reply::{self, Reply};
use crate::swarm;
pub(crate) use crate::translate::network::subnets;
use crate::translate::network::{endpoint, show};
use crate::wire::network::{ConnectBody, CreateBody, DisconnectBody, Network, NetworkContainer};

/// `parts` is what follows `/networks`.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET", [] | [""]) => list(docker, &call).await,
        ("POST", ["create"]) => create(docker, call).await,
        ("POST", ["prune"]) => prune(docker, &call).await,
        ("GET", [id]) => inspect(docker, &call, id).await,
        ("DELETE", [id]) => remove(docker, id).await,
        ("POST", [id, "connect"]) => connect(docker, call, id).await,
        ("POST", [id, "disconnect"]) => disconnect(docker, call, id).await,
        _ => Err(Fault::page_not_found()),
    }
}

const FILTERS: [&str; 8] = [
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
];

/// Local networks, and those of the cluster.
async fn all(docker: &Docker) -> Vec<Arc<NetworkSpec>> {
    let mut all = docker.agent().local_networks();
    for n in swarm::networks(docker).await {
        if !all.iter().any(|have| have.id == n.id) {
            all.push(Arc::new(n));
        }
    }
    all
}

fn predefined(n: &NetworkSpec) -> bool {
    matches!(n.name.as_str(), "bridge" | "host" | "none" | "docker_gwbridge") || n.ingress
}

fn admits(docker: &Docker, f: &Filters, dangling: Option<bool>, n: &NetworkSpec) -> bool {
    let scope = if n.cluster { "swarm" } else { "local" };
    f.labels(&n.labels)
        && f.any("driver", |d| n.driver.as_str() == d)
        && f.any("id", |id| n.id.starts_with(id))
        && f.matches("name", &n.name)
        && f.any("scope", |s| s == scope)
        && f.any("type", |t| (t == "builtin") == predefined(n))
        && dangling.is_none_or(|d| d == (!predefined(n) && docker.agent().network_users(&n.id).is_empty()))
}

async fn list(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&FILTERS)?;
    let dangling = filters.flag("dangling")?;
    if let Some(bad) = filters
        .values("type")
        .iter()
        .find(|t| !matches!(t.as_str(), "custom" | "builtin"))
    {
        return Err(Fault::bad(format_args!("invalid filter: 'type'='{bad}'")));
    }
    let mut all = all(docker).await;
    all.retain(|n| admits(docker, &filters, dangling, n));
    let shown: Vec<Network<'_>> = all.iter().map(|n| show(n)).collect();
    reply::json(&shown)
}

/// The containers that are in a network now.
fn members(id: &str, containers: &[Arc<ContainerRecord>]) -> BTreeMap<String, NetworkContainer> {
    let mut out = BTreeMap::new();
    for c in containers.iter().filter(|c| c.is_running()) {
        if let Some(e) = c.endpoints.iter().find(|e| e.network_id == id) {
            let address = |net: Option<ipnet::IpNet>| net.map(|n| n.to_string()).unwrap_or_default();
            let member = NetworkContainer {
                name: c.name.clone(),
                endpoint_id: e.id.clone(),
                mac_address: e.mac.clone(),
                ipv4_address: address(e.ipv4),
                ipv6_address: address(e.ipv6),
            };
            out.insert(c.id.clone(), member);
        }
    }
    out
}

async fn inspect(docker: &Docker, call: &Call, id: &str) -> Reply {
    let scope = call.query.text("scope");
    if !matches!(scope, "" | "local" | "swarm") {
        return Err(not_found(id).into());
    }
    let local = if scope == "swarm" {
        None
    } else {
        docker.agent().network_record(id).ok()
    };
    let spec = match &local {
        Some(NetworkRecord { spec, .. }) if scope != "local" || !spec.cluster => spec.clone(),
        _ => match swarm::network(docker, id).await.filter(|_| scope != "local") {
            Some(spec) => Arc::new(spec),
            // The error of the look-up tells a name that is not there from one that is ambiguous.
            None => docker.agent().network(id).and_then(|_| Err(not_found(id)))?,
        },
    };
    let mut shown = show(&spec);
    shown.containers = members(&spec.id, &docker.agent().network_users(&spec.id));
    reply::json(&shown)
}

fn not_found(id: &str) -> tripod_model::Error {
    tripod_model::Error::not_found(format_args!("network {id} not found"))
}

async fn create(docker: &Docker, call: Call) -> Reply {
    let body: CreateBody = call.json().await?;
    if body.name.trim().is_empty() {
        return Err(Fault::bad("network name is required"));
    }
    if body.config_only || body.config_from.as_ref().is_some_and(|c| !c.network.is_empty()) {
        return Err(Fault::left_out("a network that only holds configuration"));
    }
    if body.enable_ipv4 == Some(false) {
        return Err(Fault::left_out("a network without IPv4"));
    }
    if body.driver == "overlay" || body.scope == "swarm" || body.ingress {
        return swarm::create_network(docker, body).await;
    }
    if !matches!(body.ipam.driver.as_str(), "" | "default") {
        let text = format!(
            "could not find plugin {} in v1 plugin registry: plugin not found",
            body.ipam.driver
        );
        return Err(Fault::new(StatusCode::NOT_FOUND, text));
    }
    let request = CreateNetwork {
        subnets: subnets(&body.ipam)?,
        name: body.name,
        driver: body.driver,
        internal: body.internal,
        attachable: body.attachable,
        ipv6: body.enable_ipv6,
        options: body.options,
        ipam_options: body.ipam.options,
        labels: body.labels,
    };
    let made = docker.agent().create_network(request).await?;
    reply::created(&json!({ "Id": made.id, "Warning": "" }))
}

async fn remove(docker: &Docker, id: &str) -> Reply {
    match docker.agent().network(id) {
        Ok(local) if !local.cluster => docker.agent().remove_network(&local.id).await?,
        missing => match swarm::network(docker, id).await {
            Some(network) => swarm::remove_network(docker, &network).await?,
            None => return Err(missing.err().unwrap_or_else(|| not_found(id)).into()),
        },
    }
    reply::no_content()
}

async fn connect(docker: &Docker, call: Call, id: &str) -> Reply {
    let body: ConnectBody = call.json().await?;
    if body.container.is_empty() {
        return Err(Fault::bad("invalid container: name or ID must not be empty"));
    }
    let endpoint = endpoint(id, &body.endpoint_config)?;
    docker
        .agent()
        .connect_network(
            id,
            ConnectRequest {
                container: body.container,
                endpoint,
            },
        )
        .await?;
    reply::status(StatusCode::OK)
}

async fn disconnect(docker: &Docker, call: Call, id: &str) -> Reply {
    let body: DisconnectBody = call.json().await?;
    docker
        .agent()
        .disconnect_network(id, &body.container, body.force)
        .await?;
    reply::status(StatusCode::OK)
}

async fn prune(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&["label", "label!", "until"])?;
    let until = until(&filters)?;
    let pruned = docker
        .agent()
        .prune_networks(|n| filters.labels(&n.labels) && until.is_none_or(|t| n.created_at < t))
        .await?;
    reply::json(&json!({ "NetworksDeleted": pruned.removed }))
}
