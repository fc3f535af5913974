//! Networks of the cluster, as `/networks` and tasks show them.

use serde_json::{Value, json};
use tripod_engine::{Filters, NetworkRequest};
use tripod_model::network::NetworkSpec;

use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

/// Networks of the cluster; none where this daemon is no manager.
pub(crate) async fn networks(docker: &Docker) -> Vec<NetworkSpec> {
    let Ok(manager) = docker.swarm().manager() else {
        return Vec::new();
    };
    let all = manager.networks(&Filters::new()).unwrap_or_default();
    all.into_iter().map(|n| n.spec).collect()
}

/// A network of the cluster by name, identifier or prefix of one. Those that every node has of its own are known to the
/// cluster by their name alone: services may use them (`docker service create --network host`).
pub(crate) async fn network(docker: &Docker, reference: &str) -> Option<NetworkSpec> {
    let manager = docker.swarm().manager().ok()?;
    if let Ok(network) = manager.network(reference) {
        return Some(network.spec);
    }
    if !matches!(reference, "host" | "bridge") {
        return None;
    }
    let own = docker.agent().network_record(reference).ok()?;
    Some(NetworkSpec {
        id: reference.to_owned(),
        cluster: true,
        ..(*own.spec).clone()
    })
}

/// Makes a network of scope `swarm`.
pub(crate) async fn create_network(docker: &Docker, request: crate::wire::network::CreateBody) -> Reply {
    let manager = docker.swarm().manager()?;
    if request.config_only || request.config_from.is_some() {
        return Err(Fault::left_out("config-only networks of the cluster"));
    }
    let ipam_options = request.ipam.options.clone();
    let subnets = crate::translate::network::subnets(&request.ipam)?;
    let made = manager
        .network_create(NetworkRequest {
            name: request.name,
            internal: request.internal,
            attachable: request.attachable,
            ingress: request.ingress,
            ipv6: request.enable_ipv6,
            subnets,
            options: request.options,
            ipam_options,
            labels: request.labels,
        })
        .await?;
    reply::created(&json!({"Id": made.spec.id, "Warning": ""}))
}

/// Removes a network of the cluster.
pub(crate) async fn remove_network(docker: &Docker, network: &NetworkSpec) -> Result<(), Fault> {
    docker.swarm().manager()?.network_remove(&network.id).await?;
    Ok(())
}

/// `Network` of the Swarm section, in a task's attachment.
pub(super) fn attachment(n: &NetworkSpec) -> Value {
    let created = when::rfc3339(n.created_at);
    let pools: Vec<Value> = n
        .subnets
        .iter()
        .map(|s| json!({"Subnet": s.subnet, "Gateway": s.gateway}))
        .collect();
    let mut spec = json!({
        "Name": n.name,
        "Labels": n.labels,
        "DriverConfiguration": {"Name": n.driver.as_str()},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": pools},
        "Scope": "swarm",
    });
    for (key, set) in [
        ("Internal", n.internal),
        ("Attachable", n.attachable),
        ("Ingress", n.ingress),
    ] {
        if set {
            spec[key] = true.into();
        }
    }
    json!({
        "ID": n.id,
        "CreatedAt": created,
        "UpdatedAt": created,
        "Spec": spec,
        "DriverState": {
            "Name": n.driver.as_str(),
            "Options": {"com.docker.network.driver.overlay.vxlanid_list": n.vni.to_string()},
        },
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": pools},
    })
}
