//! Network modes, endpoints, and networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::container::{EndpointRequest, NetworkAttachment};
use tripod_model::network::{Endpoint, NetworkSpec, Subnet};
use tripod_model::{Error, Result};

use super::ports;
use crate::when;
use crate::wire::container::{CreateBody, EndpointBody, EndpointIpam, EndpointSettings};
use crate::wire::network::{ConfigFrom, Ipam, IpamPool, Network};

/// How a new container is connected.
pub(crate) fn attachment(body: &CreateBody) -> Result<NetworkAttachment> {
    let h = &body.host_config;
    let mode = if h.network_mode.is_empty() {
        "default"
    } else {
        h.network_mode.as_str()
    };
    check_mode(mode, body)?;
    let endpoints = &body.networking_config.endpoints_config;
    let mut requests = Vec::with_capacity(endpoints.len());
    for (network, e) in endpoints {
        let e = e.clone().unwrap_or_default();
        requests.push(endpoint(network, &e)?);
    }
    // The network of the mode comes first: it is eth0.
    let is_main = |r: &EndpointRequest| r.network == mode || (mode == "default" && r.network == "bridge");
    requests.sort_by_key(|r| !is_main(r));
    if !body.mac_address.is_empty() {
        check_mac(&body.mac_address)?;
        match requests.iter_mut().find(|r| is_main(r)) {
            Some(r) if r.mac.is_none() => r.mac = Some(body.mac_address.to_ascii_lowercase()),
            Some(_) => {}
            None => requests.insert(
                0,
                EndpointRequest {
                    network: mode.into(),
                    mac: Some(body.mac_address.to_ascii_lowercase()),
                    ..EndpointRequest::default()
                },
            ),
        }
    }
    for address in &h.dns {
        if address.parse::<IpAddr>().is_err() {
            return Err(invalid(
                format_args!("bad nameserver address: {address}"),
                "HostConfig.Dns",
            ));
        }
    }
    for line in &h.extra_hosts {
        check_extra_host(line)?;
    }
    for line in &h.links {
        if line.is_empty() || line.split(':').count() > 2 {
            return Err(invalid(
                format_args!("bad format for links: {line}"),
                "HostConfig.Links",
            ));
        }
    }
    Ok(NetworkAttachment {
        mode: mode.to_owned(),
        endpoints: requests,
        port_bindings: ports::bindings(&h.port_bindings)?,
        publish_all: h.publish_all_ports,
        dns: h.dns.clone(),
        dns_options: h.dns_options.clone(),
        dns_search: h.dns_search.clone(),
        extra_hosts: h.extra_hosts.clone(),
        links: h.links.clone(),
        disabled: body.network_disabled,
    })
}

fn invalid(text: impl std::fmt::Display, field: &str) -> Error {
    Error::invalid(text).at(field)
}

/// What cannot go together with a network mode.
fn check_mode(mode: &str, body: &CreateBody) -> Result<()> {
    let h = &body.host_config;
    let conflict = |text: &str| {
        Err(invalid(
            format_args!("conflicting options: {text}"),
            "HostConfig.NetworkMode",
        ))
    };
    if let Some(of) = mode.strip_prefix("container:") {
        if of.is_empty() {
            return Err(invalid(
                "Invalid network mode: invalid container format container:<name|id>",
                "HostConfig.NetworkMode",
            ));
        }
        if !body.hostname.is_empty() {
            return conflict("hostname and the network mode");
        }
        if !h.links.is_empty() {
            return conflict(
                "container type network can't be used with links. This would result in undefined behavior",
            );
        }
        if !h.dns.is_empty() {
            return conflict("dns and the network mode");
        }
        if !h.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        if !h.port_bindings.is_empty() || h.publish_all_ports {
            return conflict("port publishing and the container type network mode");
        }
        if !body.exposed_ports.is_empty() {
            return conflict("port exposing and the container type network mode");
        }
        if !body.mac_address.is_empty() {
            return conflict("mac-address and the network mode");
        }
    }
    if mode == "host" {
        if !h.links.is_empty() {
            return conflict(
                "host type networking can't be used with links. This would result in undefined behavior",
            );
        }
        if !body.mac_address.is_empty() {
            return conflict("mac-address and the network mode");
        }
    }
    if h.uts_mode == "host" && !body.hostname.is_empty() {
        return Err(invalid(
            "conflicting options: hostname and the UTS mode",
            "HostConfig.UTSMode",
        ));
    }
    Ok(())
}

fn check_extra_host(line: &str) -> Result<()> {
    let bad = || {
        invalid(
            format_args!("bad format for add-host: \"{line}\""),
            "HostConfig.ExtraHosts",
        )
    };
    let (name, address) = line
        .split_once(':')
        .or_else(|| line.split_once('='))
        .ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(invalid(
            format_args!("invalid IP address in add-host: \"{address}\""),
            "HostConfig.ExtraHosts",
        ));
    }
    Ok(())
}

/// Six pairs of hex digits.
fn check_mac(mac: &str) -> Result<()> {
    let pairs: Vec<&str> = mac.split([':', '-']).collect();
    let ok = pairs.len() == 6
        && pairs
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if ok {
        Ok(())
    } else {
        Err(invalid(format_args!("invalid MAC address: {mac}"), "MacAddress"))
    }
}

/// A wish for an endpoint.
pub(crate) fn endpoint(network: &str, e: &EndpointBody) -> Result<EndpointRequest> {
    let ipam = e.ipam_config.clone().unwrap_or_default();
    let address = |text: &str, v4: bool| match text {
        "" => Ok(None),
        text => match text.parse::<IpAddr>() {
            Ok(a) if a.is_ipv4() == v4 => Ok(Some(a)),
            _ => {
                let version = if v4 { "4" } else { "6" };
                let text = format!("invalid endpoint settings:\ninvalid IPv{version} address: {text}");
                Err(invalid(text, "IPAMConfig"))
            }
        },
    };
    let mac = match e.mac_address.as_str() {
        "" => None,
        mac => {
            check_mac(mac)?;
            Some(mac.to_ascii_lowercase().replace('-', ":"))
        }
    };
    let link_local = ipam.link_local_ips.iter().map(|ip| {
        ip.parse().map_err(|_| {
            invalid(
                format_args!("invalid endpoint settings:\ninvalid link-local IP address: {ip}"),
                "IPAMConfig",
            )
        })
    });
    Ok(EndpointRequest {
        network: if network.is_empty() {
            e.network_id.clone()
        } else {
            network.to_owned()
        },
        aliases: e.aliases.clone(),
        links: e.links.clone(),
        ipv4: address(&ipam.ipv4_address, true)?,
        ipv6: address(&ipam.ipv6_address, false)?,
        link_local: link_local.collect::<Result<_>>()?,
        mac,
        driver_opts: e.driver_opts.clone(),
        gw_priority: e.gw_priority,
    })
}

/// An endpoint as inspect shows it; what is settled only while the container runs is left out when it does not.
pub(crate) fn show_endpoint(
    e: &Endpoint,
    asked: Option<&EndpointRequest>,
    running: bool,
) -> EndpointSettings {
    let text = |a: Option<IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
    let fixed = EndpointIpam {
        ipv4_address: text(e.ipv4.filter(|_| e.fixed_ipv4).map(|n| n.addr())),
        ipv6_address: text(asked.and_then(|a| a.ipv6)),
        link_local_ips: asked.map_or_else(Vec::new, |a| {
            a.link_local.iter().map(ToString::to_string).collect()
        }),
    };
    let given =
        !fixed.ipv4_address.is_empty() || !fixed.ipv6_address.is_empty() || !fixed.link_local_ips.is_empty();
    let mut out = EndpointSettings {
        ipam_config: given.then_some(fixed),
        // Of one that does not run it is the address that was asked for.
        mac_address: e.mac.clone(),
        links: e.links.clone(),
        aliases: e.aliases.clone(),
        driver_opts: e.driver_opts.clone(),
        gw_priority: e.gw_priority,
        network_id: e.network_id.clone(),
        dns_names: e.names.clone(),
        ..EndpointSettings::default()
    };
    if running {
        let ip = |a: Option<IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
        out.endpoint_id.clone_from(&e.id);
        out.gateway = ip(e.gateway);
        out.ip_address = ip(e.ipv4.map(|n| n.addr()));
        out.ip_prefix_len = e.ipv4.map_or(0, |n| n.prefix_len());
        out.ipv6_gateway = ip(e.gateway6);
        out.global_ipv6_address = ip(e.ipv6.map(|n| n.addr()));
        out.global_ipv6_prefix_len = e.ipv6.map_or(0, |n| n.prefix_len());
    }
    out
}

/// Pools of a network.
pub(crate) fn subnets(ipam: &Ipam) -> Result<Vec<Subnet>> {
    let mut out = Vec::with_capacity(ipam.config.len());
    for pool in &ipam.config {
        let net = |text: &str, what: &str| {
            text.parse::<IpNet>().map_err(|_| {
                let text = format!("invalid {what}: invalid CIDR block notation: {text}");
                invalid(text, "IPAM.Config")
            })
        };
        let ip = |text: &str, what: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| invalid(format_args!("invalid {what} address: {text}"), "IPAM.Config"))
        };
        if pool.subnet.is_empty() {
            if pool.ip_range.is_empty() && pool.gateway.is_empty() && pool.auxiliary_addresses.is_empty() {
                continue;
            }
            return Err(invalid(
                "invalid network config:\ninvalid subnet : invalid CIDR block notation",
                "IPAM.Config",
            ));
        }
        let subnet = net(&pool.subnet, "subnet")?;
        if subnet.trunc() != subnet {
            let text = format!(
                "invalid network config:\ninvalid subnet {subnet}: it should be {}",
                subnet.trunc()
            );
            return Err(invalid(text, "IPAM.Config"));
        }
        let ip_range = match pool.ip_range.as_str() {
            "" => None,
            range => Some(net(range, "ip-range")?),
        };
        let gateway = match pool.gateway.as_str() {
            "" => None,
            gateway => Some(ip(gateway, "gateway")?),
        };
        let aux = pool
            .auxiliary_addresses
            .iter()
            .map(|(name, a)| Ok((name.clone(), ip(a, "auxiliary")?)));
        let aux_addresses: BTreeMap<_, _> = aux.collect::<Result<_>>()?;
        if let Some(outside) = ip_range.filter(|r| !subnet.contains(r)) {
            let text = format!(
                "invalid network config:\ninvalid ip-range {outside}: subnet {subnet} does not contain it"
            );
            return Err(invalid(text, "IPAM.Config"));
        }
        if let Some(outside) = gateway
            .iter()
            .chain(aux_addresses.values())
            .find(|a| !subnet.contains(*a))
        {
            let text = format!(
                "invalid network config:\ninvalid address {outside}: subnet {subnet} does not contain it"
            );
            return Err(invalid(text, "IPAM.Config"));
        }
        out.push(Subnet {
            subnet,
            gateway,
            ip_range,
            aux_addresses,
        });
    }
    Ok(out)
}

/// A network as list and inspect show it, without its containers.
pub(crate) fn show(n: &NetworkSpec) -> Network<'_> {
    let pool = |s: &Subnet| IpamPool {
        subnet: s.subnet.to_string(),
        ip_range: s.ip_range.map(|r| r.to_string()).unwrap_or_default(),
        gateway: s.gateway.map(|g| g.to_string()).unwrap_or_default(),
        auxiliary_addresses: s
            .aux_addresses
            .iter()
            .map(|(k, a)| (k.clone(), a.to_string()))
            .collect(),
    };
    Network {
        name: &n.name,
        id: &n.id,
        created: when::rfc3339(n.created_at),
        scope: if n.cluster { "swarm" } else { "local" },
        driver: n.driver.as_str(),
        enable_ipv4: n.ipv4,
        enable_ipv6: n.ipv6,
        ipam: Ipam {
            driver: "default".into(),
            options: n.ipam_options.clone(),
            config: n.subnets.iter().map(pool).collect(),
        },
        internal: n.internal,
        attachable: n.attachable,
        ingress: n.ingress,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: BTreeMap::new(),
        options: &n.options,
        labels: &n.labels,
        peers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    fn of(json: &str) -> Result<NetworkAttachment> {
        attachment(&decode::<CreateBody>(json.as_bytes()).unwrap())
    }

    #[test]
    fn the_main_network_is_first() {
        let n = of(r#"{"HostConfig":{"NetworkMode":"z"},"MacAddress":"02:42:AC:00:00:01","NetworkingConfig":{"EndpointsConfig":
            {"a":{"Aliases":["x"]},"z":{"IPAMConfig":{"IPv4Address":"10.0.0.9"}},"b":null}}}"#)
        .unwrap();
        let names: Vec<_> = n.endpoints.iter().map(|e| e.network.as_str()).collect();
        assert_eq!(names, ["z", "a", "b"]);
        assert_eq!(n.endpoints[0].mac.as_deref(), Some("02:42:ac:00:00:01"));
        assert_eq!(n.endpoints[0].ipv4, Some("10.0.0.9".parse().unwrap()));
    }

    #[test]
    fn what_is_refused() {
        for (json, text) in [
            (
                r#"{"Hostname":"h","HostConfig":{"NetworkMode":"container:x"}}"#,
                "hostname and the network mode",
            ),
            (
                r#"{"HostConfig":{"NetworkMode":"container:"}}"#,
                "Invalid network mode",
            ),
            (
                r#"{"HostConfig":{"NetworkMode":"container:x","PublishAllPorts":true}}"#,
                "port publishing",
            ),
            (
                r#"{"HostConfig":{"NetworkMode":"host","Links":["a"]}}"#,
                "can't be used with links",
            ),
            (r#"{"HostConfig":{"Dns":["no"]}}"#, "bad nameserver address"),
            (
                r#"{"HostConfig":{"ExtraHosts":["x"]}}"#,
                "bad format for add-host",
            ),
            (
                r#"{"HostConfig":{"ExtraHosts":["x:1.2.3"]}}"#,
                "invalid IP address in add-host",
            ),
            (r#"{"MacAddress":"nope"}"#, "invalid MAC address"),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"::1"}}}}}"#,
                "invalid IPv4 address",
            ),
        ] {
            let e = of(json).unwrap_err();
            assert!(e.message.contains(text), "{json}: {e}");
        }
    }

    #[test]
    fn pools() {
        let of = |json: &str| subnets(&decode::<Ipam>(json.as_bytes()).unwrap());
        let ok =
            of(r#"{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.254","IPRange":"10.9.0.128/25"}]}"#)
                .unwrap();
        assert_eq!(ok[0].gateway, Some("10.9.0.254".parse().unwrap()));
        assert!(of(r#"{"Config":[{}]}"#).unwrap().is_empty());
        for bad in [
            r#"{"Config":[{"Subnet":"10.9.0.0"}]}"#,
            r#"{"Config":[{"Subnet":"10.9.0.1/24"}]}"#,
            r#"{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.8.0.1"}]}"#,
            r#"{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"x"}]}"#,
            r#"{"Config":[{"Subnet":"10.9.0.0/24","IPRange":"10.8.0.0/25"}]}"#,
            r#"{"Config":[{"Gateway":"10.8.0.1"}]}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
