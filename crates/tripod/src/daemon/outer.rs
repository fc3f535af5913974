//! Ports of the machine around a node of a local cluster that always lead to the node (`--outer-forward`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tripod_model::network::PortProtocol;
use tripod_model::{Error, Result};
use tripod_net::outer::{Forward, Outer};

use crate::cli::DaemonArgs;

/// A port of the machine and the node's port behind it.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    listen: SocketAddr,
    node_port: u16,
    protocol: PortProtocol,
}

/// Opens the ports that the command line names; they close when the result is dropped.
///
/// # Errors
/// A wrong form, or a port that is in use on the machine.
pub(super) fn open(args: &DaemonArgs) -> Result<Vec<Forward>> {
    if args.outer_forwards.is_empty() {
        return Ok(Vec::new());
    }
    let path = args
        .outer_netns
        .as_ref()
        .ok_or_else(|| Error::invalid("--outer-forward needs --outer-netns").at("outer-forward"))?;
    let node = args.advertise_addr.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let outer = Outer::open(path, node)?;
    let mut forwards = Vec::new();
    for text in &args.outer_forwards {
        let way = parse(text)?;
        let opened = outer
            .forward(way.listen.ip(), way.protocol, way.listen.port(), way.node_port)
            .map_err(|e| Error::conflict(format_args!("port {} of this machine: {e}", way.listen)))?;
        forwards.extend(opened);
    }
    Ok(forwards)
}

fn parse(text: &str) -> Result<Way> {
    let wrong = || {
        Error::invalid(format_args!(
            "--outer-forward {text:?} is not [IP:]PORT=PORT[/udp]"
        ))
        .at("outer-forward")
    };
    let (from, to) = text.split_once('=').ok_or_else(wrong)?;
    let (to, protocol) = to.split_once('/').unwrap_or((to, "tcp"));
    let protocol = match protocol {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        _ => return Err(wrong()),
    };
    let listen = match from.parse::<u16>() {
        Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        Err(_) => from.parse().map_err(|_| wrong())?,
    };
    Ok(Way {
        listen,
        node_port: to.parse().map_err(|_| wrong())?,
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let way = parse("127.0.0.1:8088=30080").unwrap();
        assert_eq!(way.listen, "127.0.0.1:8088".parse().unwrap());
        assert_eq!((way.node_port, way.protocol), (30080, PortProtocol::Tcp));
        let way = parse("53=53/udp").unwrap();
        assert_eq!(way.listen, "0.0.0.0:53".parse().unwrap());
        assert_eq!(way.protocol, PortProtocol::Udp);
        for bad in ["", "80", "80=x", "80=80/sctp", "x=80"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
