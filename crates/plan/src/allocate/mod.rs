//! Addresses and ports: of services, of their tasks, of networks.

mod network;
mod ports;

use std::net::IpAddr;

use tripod_model::network::NetworkDriver;
use tripod_model::pod::{Pod, PodNetwork};
use tripod_model::swarm::{
    EndpointMode, EndpointSpec, NetworkAttachmentConfig, PublishMode, ServiceEndpoint, SwarmService,
    TaskState, VirtualIp,
};
use tripod_model::{Error, Result};

use crate::draft::Draft;
use crate::planner::Planner;
use crate::view::View;

pub use network::{INGRESS_NAME, complete_network};
pub use ports::{conflict, publish};

/// Networks that each node has of its own.
const NODE_LOCAL: [&str; 3] = ["bridge", "host", "none"];

/// A network of a task, resolved: it is of the cluster, and its tasks get an address, or of the node.
struct Attachment {
    id: String,
    name: String,
    cluster: bool,
    config: NetworkAttachmentConfig,
}

/// Whether a service is reached through the routing mesh.
pub fn uses_ingress(service: &SwarmService) -> bool {
    service.spec.endpoint_spec.as_ref().is_some_and(|e| {
        e.mode == EndpointMode::Vip && e.ports.iter().any(|p| p.publish_mode == PublishMode::Ingress)
    })
}

/// The networks of a service's tasks, the mesh's first.
fn attachments(view: &View, service: &SwarmService) -> Result<Vec<Attachment>> {
    let mut found: Vec<Attachment> = Vec::new();
    if uses_ingress(service) {
        let Some(ingress) = view.ingress_network() else {
            return Err(Error::unavailable("no ingress network: published ports need one"));
        };
        let (id, name) = (ingress.metadata.name.clone(), ingress.spec.name.clone());
        found.push(Attachment {
            id,
            name,
            cluster: true,
            config: NetworkAttachmentConfig::default(),
        });
    }
    let template = &service.spec.task_template.networks;
    for config in if template.is_empty() {
        &service.spec.networks
    } else {
        template
    } {
        let config = config.clone();
        let attachment = match view.network(&config.target) {
            Some(n) => {
                let cluster = n.spec.driver == NetworkDriver::Overlay;
                Attachment {
                    id: n.metadata.name.clone(),
                    name: n.spec.name.clone(),
                    cluster,
                    config,
                }
            }
            None if NODE_LOCAL.contains(&config.target.as_str()) => {
                let name = config.target.clone();
                Attachment {
                    id: name.clone(),
                    name,
                    cluster: false,
                    config,
                }
            }
            None => {
                return Err(Error::not_found(format_args!(
                    "network {} not found",
                    config.target
                )));
            }
        };
        if found.iter().all(|a| a.id != attachment.id) {
            found.push(attachment);
        }
    }
    Ok(found)
}

/// Settles how a service is reached: a virtual address in each of its networks, numbers for its ports. What it has
/// and still needs stays; what it needs no longer is given back.
pub(crate) fn service(p: &mut Planner<'_, '_>) {
    let asked = p.service.spec.endpoint_spec.clone().unwrap_or_default();
    match endpoint(p.d, &p.service, asked) {
        Ok(endpoint) => {
            if p.service.status.endpoint.as_ref() != Some(&endpoint) {
                p.edit_service().status.endpoint = Some(endpoint);
            }
        }
        Err(e) => {
            let service = p.service.clone();
            p.d.explain(service.as_ref(), "AllocationFailed", e.message);
        }
    }
}

fn endpoint(d: &mut Draft<'_>, service: &SwarmService, asked: EndpointSpec) -> Result<ServiceEndpoint> {
    let had = service.status.endpoint.clone().unwrap_or_default();
    let mut virtual_ips = Vec::new();
    if asked.mode == EndpointMode::Vip {
        for a in attachments(d.view, service)?.into_iter().filter(|a| a.cluster) {
            let kept = had.virtual_ips.iter().find(|v| v.network_id == a.id).cloned();
            virtual_ips.push(match kept {
                Some(vip) => vip,
                None => VirtualIp {
                    addr: d.take_address(&a.id)?,
                    network_id: a.id,
                },
            });
        }
    }
    let ports = ports::settle(d, service, &asked, &had.ports)?;
    Ok(ServiceEndpoint {
        spec: asked,
        ports,
        virtual_ips,
    })
}

/// Gives new tasks their addresses.
pub(crate) fn tasks(p: &mut Planner<'_, '_>) {
    let fresh: Vec<usize> = (0..p.tasks.len())
        .filter(|&i| p.pod(i).state.observed == TaskState::New && p.pod(i).is_live() && !p.tasks[i].removed)
        .collect();
    if fresh.is_empty() {
        return;
    }
    // Tasks of a service whose ports are not settled wait.
    let settled = match &p.service.status.endpoint {
        Some(e) if e.spec == p.service.spec.endpoint_spec.clone().unwrap_or_default() => {
            attachments(p.d.view, &p.service)
        }
        _ => endpoint(
            p.d,
            &p.service,
            p.service.spec.endpoint_spec.clone().unwrap_or_default(),
        )
        .and_then(|_| attachments(p.d.view, &p.service)),
    };
    for i in fresh {
        let networks = match &settled {
            Ok(attachments) => addresses(p.d, attachments),
            Err(e) => Err(e.clone()),
        };
        let now = p.now();
        match networks {
            Ok(networks) => {
                let pod = p.tasks[i].edit();
                pod.extension.networks = networks;
                pod.state.observed = TaskState::Pending;
                pod.state.message = "pending task scheduling".into();
                pod.state.error.clear();
                pod.state.at = Some(now);
            }
            Err(e) if p.pod(i).state.error != e.message => {
                p.tasks[i].edit().state.error = e.message;
            }
            Err(_) => {}
        }
    }
}

fn addresses(d: &mut Draft<'_>, attachments: &[Attachment]) -> Result<Vec<PodNetwork>> {
    let mut networks = Vec::with_capacity(attachments.len().max(1));
    for a in attachments {
        let address = if a.cluster {
            Some(d.take_address(&a.id)?)
        } else {
            None
        };
        networks.push(PodNetwork {
            network_id: a.id.clone(),
            network_name: a.name.clone(),
            address,
            aliases: a.config.aliases.clone(),
            driver_opts: a.config.driver_opts.clone(),
        });
    }
    if networks.is_empty() {
        // A task without networks is on its node's default bridge.
        networks.push(PodNetwork {
            network_id: "bridge".into(),
            network_name: "bridge".into(),
            address: None,
            aliases: Vec::new(),
            driver_opts: Default::default(),
        });
    }
    Ok(networks)
}

/// An address for a container that attaches itself to a cluster network: the one asked for, or a free one. The
/// caller records it with [`View::upsert_lease`].
pub fn lease(view: &View, network: &str, wanted: Option<IpAddr>) -> Result<ipnet::IpNet> {
    let Some(net) = view.network(network) else {
        return Err(Error::not_found(format_args!("network {network} not found")));
    };
    let Some(pool) = net.spec.subnets.first() else {
        return Err(Error::invalid(format_args!("network {network} has no subnet")));
    };
    let held = view.network_use(&net.metadata.name);
    let used = |a: &IpAddr| held.is_some_and(|h| h.used.contains_key(a));
    let address = match wanted {
        Some(a) if !pool.subnet.contains(&a) => {
            return Err(Error::invalid(format_args!(
                "no configured subnet contains IP address {a}"
            )));
        }
        Some(a) if used(&a) || Some(a) == pool.gateway => {
            return Err(Error::forbidden("Address already in use"));
        }
        Some(a) => a,
        None => tripod_model::ipam::allocate_where(pool, used, held.and_then(|h| h.cursor))?,
    };
    ipnet::IpNet::new(address, pool.subnet.prefix_len()).map_err(Error::internal)
}

/// Address of a pod in a network.
pub fn address_in(pod: &Pod, network_id: &str) -> Option<IpAddr> {
    let net = pod
        .extension
        .networks
        .iter()
        .find(|n| n.network_id == network_id)?;
    net.address.map(|a| a.addr())
}
