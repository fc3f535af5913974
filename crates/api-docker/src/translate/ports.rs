//! Exposed and published ports.

use std::net::IpAddr;

use tripod_agent::parse_port;
use tripod_model::container::{PortBinding, PortSpec};
use tripod_model::{Error, Result};

use crate::wire::Set;
use crate::wire::host_config::{self, PortMap};

/// The keys of `ExposedPorts`; a range (`80-82/tcp`) stands for all of its ports.
pub(crate) fn exposed(ports: &Set) -> Result<Vec<PortSpec>> {
    let mut out = Vec::with_capacity(ports.len());
    for text in ports.keys() {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first = parse_port(&format!("{first}/{protocol}")).map_err(|_| bad_port(text))?;
        let last = parse_port(&format!("{last}/{protocol}")).map_err(|_| bad_port(text))?;
        if first.port > last.port {
            return Err(bad_port(text));
        }
        out.extend((first.port..=last.port).map(|port| PortSpec {
            port,
            protocol: first.protocol,
        }));
    }
    Ok(out)
}

fn bad_port(text: &str) -> Error {
    Error::invalid(format_args!("invalid port specification: \"{text}\"")).at("ExposedPorts")
}

/// `PortBindings`.
pub(crate) fn bindings(map: &PortMap) -> Result<Vec<PortBinding>> {
    let mut out = Vec::new();
    for (text, list) in map {
        let target = parse_port(text).map_err(|_| bad_port(text))?;
        let one_free = [host_config::PortBinding::default()];
        let list = list.as_deref().unwrap_or_default();
        // A port without bindings is published on a free one.
        for b in if list.is_empty() { &one_free } else { list } {
            let (host_port, host_port_end) = host_range(&b.host_port)?;
            let host_ip = match b.host_ip.trim_start_matches('[').trim_end_matches(']') {
                "" => None,
                ip => Some(ip.parse::<IpAddr>().map_err(|_| {
                    Error::invalid(format_args!("invalid IP address: {}", b.host_ip))
                        .at("HostConfig.PortBindings")
                })?),
            };
            out.push(PortBinding {
                target,
                host_ip,
                host_port,
                host_port_end,
            });
        }
    }
    Ok(out)
}

/// `8080`, `8000-9000` or nothing.
fn host_range(text: &str) -> Result<(u16, u16)> {
    let bad = || {
        Error::invalid(format_args!("invalid port specification: \"{text}\"")).at("HostConfig.PortBindings")
    };
    let number = |s: &str| s.parse::<u16>().map_err(|_| bad());
    match text.split_once('-') {
        _ if text.is_empty() => Ok((0, 0)),
        None => Ok((number(text)?, 0)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad());
            }
            Ok((first, if last == first { 0 } else { last }))
        }
    }
}

/// `PortBindings` as inspect tells them.
pub(crate) fn show_bindings(bindings: &[PortBinding]) -> PortMap {
    let mut map = PortMap::new();
    for b in bindings {
        let host_port = match (b.host_port, b.host_port_end) {
            (0, _) => String::new(),
            (first, 0) => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = b.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let list = map
            .entry(b.target.to_string())
            .or_default()
            .get_or_insert_default();
        list.push(host_config::PortBinding { host_ip, host_port });
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::set;

    fn map(target: &str, ip: &str, port: &str) -> PortMap {
        let b = host_config::PortBinding {
            host_ip: ip.into(),
            host_port: port.into(),
        };
        PortMap::from([(target.into(), Some(vec![b]))])
    }

    #[test]
    fn there_and_back() {
        for (target, ip, port) in [
            ("80/tcp", "", "8080"),
            ("53/udp", "127.0.0.1", ""),
            ("1/sctp", "::1", "5-9"),
        ] {
            let map = map(target, ip, port);
            assert_eq!(show_bindings(&bindings(&map).unwrap()), map);
        }
        assert_eq!(
            bindings(&PortMap::from([("80".into(), None)])).unwrap()[0].host_port,
            0
        );
    }

    #[test]
    fn what_is_refused() {
        for (target, ip, port) in [
            ("0/tcp", "", "1"),
            ("x", "", "1"),
            ("80/foo", "", "1"),
            ("80/tcp", "nope", "1"),
            ("80/tcp", "", "70000"),
            ("80/tcp", "", "9-5"),
        ] {
            assert!(bindings(&map(target, ip, port)).is_err(), "{target} {ip} {port}");
        }
        assert_eq!(exposed(&set(["80-82/udp"])).unwrap().len(), 3);
        assert!(exposed(&set(["82-80"])).is_err());
        assert!(exposed(&set(["http"])).is_err());
    }
}
