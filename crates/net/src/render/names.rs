//! Names and hardware addresses derived from identifiers, so that what exists is found again.

use std::net::{IpAddr, Ipv4Addr};

/// Hardware address of every router end; sandboxes know it as a permanent neighbour, and nobody asks for it.
pub(crate) const ROUTER_MAC: [u8; 6] = [0x02, 0x74, 0x72, 0x69, 0x70, 0x01];
/// Name of the uplink inside a router namespace.
pub(crate) const UPLINK: &str = "uplink";
/// First address of the pool of uplinks, two per router. Link-local: not routed by anybody, so that no host
/// network can overlap; above the address of cloud metadata services.
pub(crate) const UPLINK_POOL: Ipv4Addr = Ipv4Addr::new(169, 254, 192, 0);
/// How many routers the pool can serve.
pub(crate) const UPLINKS: u32 = 8192;

/// Name of the tunnel of the pods' network; also holds the node's address in it.
pub(crate) const POD_TUNNEL: &str = "tp-pods";
/// All interfaces of the pods' network in the host's namespace.
pub(crate) const POD_PORTS: &str = "tp-*";
/// Name of the tunnel inside a router namespace.
pub(crate) const ROUTER_TUNNEL: &str = "tunnel";

/// Host's end of a pod's pair.
pub(crate) fn pod_port(endpoint: &str) -> String {
    format!("tp-{}", digits(endpoint, 12))
}

/// Tunnel of a network that lives in the host's namespace as a bridge (the routing mesh).
pub(crate) fn host_tunnel(network: &str) -> String {
    format!("tv-{}", digits(network, 12))
}

fn digits(id: &str, n: usize) -> &str {
    id.get(..n).unwrap_or(id)
}

/// Host's end of a sandbox's pair on a bridge.
pub(crate) fn bridge_port(endpoint: &str) -> String {
    format!("veth{}", digits(endpoint, 10))
}

/// Router's end of a sandbox's pair.
pub(crate) fn router_port(endpoint: &str) -> String {
    format!("v{}", digits(endpoint, 14))
}

/// Host's end of a router's uplink.
pub(crate) fn host_uplink(network: &str) -> String {
    format!("tu-{}", digits(network, 12))
}

/// Host's and router's address on the uplink of this number.
pub(crate) fn uplink_addresses(number: u32) -> (Ipv4Addr, Ipv4Addr) {
    let base = u32::from(UPLINK_POOL) + number * 2;
    (base.into(), (base + 1).into())
}

/// A stable, locally administered hardware address for an address: `02:42:` and the four bytes.
pub(crate) fn mac_for(ip: IpAddr) -> [u8; 6] {
    match ip {
        IpAddr::V4(a) => {
            let o = a.octets();
            [0x02, 0x42, o[0], o[1], o[2], o[3]]
        }
        IpAddr::V6(a) => {
            let o = a.octets();
            [0x02, 0x43, o[12], o[13], o[14], o[15]]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for n in [
            bridge_port(id),
            router_port(id),
            host_uplink(id),
            pod_port(id),
            host_tunnel(id),
        ] {
            assert!(n.len() <= 15, "{n}");
        }
        assert_eq!(bridge_port("ab"), "vethab");
    }

    #[test]
    fn uplinks_do_not_overlap() {
        assert_eq!(
            uplink_addresses(0),
            (Ipv4Addr::new(169, 254, 192, 0), Ipv4Addr::new(169, 254, 192, 1))
        );
        assert_eq!(uplink_addresses(128).0, Ipv4Addr::new(169, 254, 193, 0));
        assert_eq!(uplink_addresses(UPLINKS - 1).1, Ipv4Addr::new(169, 254, 255, 255));
    }
}
