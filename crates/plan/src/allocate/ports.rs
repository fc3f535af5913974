//! Published ports: numbers for those that ask for none, and conflicts.

use std::collections::BTreeMap;

use tripod_model::network::PortProtocol;
use tripod_model::swarm::{EndpointMode, EndpointSpec, PortConfig, PublishMode, SwarmService};
use tripod_model::{Error, Result};

use crate::draft::Draft;
use crate::view::View;

/// Ports given to services that ask for none in particular.
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ports of a service with numbers. A port that had one keeps it.
pub(super) fn settle(
    d: &mut Draft<'_>,
    service: &SwarmService,
    asked: &EndpointSpec,
    had: &[PortConfig],
) -> Result<Vec<PortConfig>> {
    let id = &service.metadata.name;
    let mut settled = Vec::with_capacity(asked.ports.len());
    let mut kept: Vec<&PortConfig> = had.iter().collect();
    for port in &asked.ports {
        let mut port = port.clone();
        // In mode `host`, the node finds a free port by itself.
        if port.publish_mode == PublishMode::Ingress && asked.mode == EndpointMode::Vip {
            if port.published_port == 0 {
                let old = kept.iter().position(|k| {
                    k.publish_mode == PublishMode::Ingress
                        && (k.target_port, k.protocol) == (port.target_port, port.protocol)
                        && DYNAMIC.contains(&k.published_port)
                });
                port.published_port = match old {
                    Some(k) => kept.remove(k).published_port,
                    None => free(d, port.protocol)?,
                };
            }
            let key = (port.protocol, port.published_port);
            let holder = d.view.ingress_port_holder(key.0, key.1);
            if let Some(other) = holder.or_else(|| d.ports.get(&key).map(String::as_str))
                && other != id
            {
                return Err(in_use(d.view, port.published_port, other, "as an ingress port"));
            }
            d.ports.insert(key, id.clone());
        }
        settled.push(port);
    }
    Ok(settled)
}

fn free(d: &Draft<'_>, protocol: PortProtocol) -> Result<u16> {
    DYNAMIC
        .clone()
        .find(|&p| d.view.ingress_port_holder(protocol, p).is_none() && !d.ports.contains_key(&(protocol, p)))
        .ok_or_else(|| Error::forbidden("no published port is free between 30000 and 32767"))
}

fn in_use(view: &View, port: u16, service: &str, how: &str) -> Error {
    let name = view.service(service).map_or("", |s| &s.spec.name);
    Error::invalid(format_args!(
        "port '{port}' is already in use by service '{name}' ({service}) {how}"
    ))
}

/// Refuses ports that another service has (`service` is the one being updated), as the Swarm API does: ports of
/// the mesh exclude each other and those of mode `host`; the latter are a matter of scheduling among themselves.
pub fn conflict(view: &View, endpoint: Option<&EndpointSpec>, service: Option<&str>) -> Result<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let wanted: Vec<&PortConfig> = endpoint.ports.iter().filter(|p| p.published_port != 0).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for other in view
        .services()
        .filter(|s| Some(s.metadata.name.as_str()) != service)
    {
        let asked = other.spec.endpoint_spec.iter().flat_map(|e| &e.ports);
        let settled = other.status.endpoint.iter().flat_map(|e| &e.ports);
        for theirs in asked.chain(settled) {
            let clash = wanted.iter().find(|mine| {
                (mine.published_port, mine.protocol) == (theirs.published_port, theirs.protocol)
                    && !(mine.publish_mode == PublishMode::Host && theirs.publish_mode == PublishMode::Host)
            });
            if let Some(mine) = clash {
                let how = match theirs.publish_mode {
                    PublishMode::Ingress => "as an ingress port",
                    PublishMode::Host => "as a host-published port",
                };
                return Err(in_use(view, mine.published_port, &other.metadata.name, how));
            }
        }
    }
    Ok(())
}

/// The published ports of a service that lead through the mesh, settled: port of the nodes → target.
pub fn publish(service: &SwarmService) -> BTreeMap<(PortProtocol, u16), u16> {
    let ports = service.status.endpoint.iter().flat_map(|e| &e.ports);
    ports
        .filter(|p| p.publish_mode == PublishMode::Ingress && p.published_port != 0)
        .map(|p| ((p.protocol, p.published_port), p.target_port))
        .collect()
}
