//! Giving out addresses and subnets: pure, so that managers and nodes decide alike.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::network::Subnet;
use crate::{Error, Result};

/// The first free host address of a subnet after `cursor` (round robin, so that an address just released is
/// not given out at once), or an error when the pool is exhausted. Gateway, network and broadcast addresses and
/// the auxiliary ones are never given out.
pub fn allocate(pool: &Subnet, used: &BTreeSet<IpAddr>, cursor: Option<IpAddr>) -> Result<IpAddr> {
    allocate_where(pool, |a| used.contains(a), cursor)
}

/// As [`allocate`], for callers whose addresses in use are not one set.
pub fn allocate_where(
    pool: &Subnet,
    used: impl Fn(&IpAddr) -> bool,
    cursor: Option<IpAddr>,
) -> Result<IpAddr> {
    let IpNet::V4(net) = pool.subnet else {
        return allocate_v6(pool, used);
    };
    let range = match pool.ip_range {
        Some(IpNet::V4(r)) => r,
        _ => net,
    };
    let (low, high) = (u32::from(range.network()), u32::from(range.broadcast()));
    let size = high - low + 1;
    let start = match cursor {
        Some(IpAddr::V4(c)) if range.contains(&c) => u32::from(c) - low + 1,
        _ => 0,
    };
    (0..size)
        .map(|i| Ipv4Addr::from(low + (start + i) % size))
        .filter(|a| net.prefix_len() >= 31 || (*a != net.network() && *a != net.broadcast()))
        .map(IpAddr::V4)
        .find(|a| is_free(pool, &used, a))
        .ok_or_else(exhausted)
}

fn allocate_v6(pool: &Subnet, used: impl Fn(&IpAddr) -> bool) -> Result<IpAddr> {
    let net = pool.ip_range.unwrap_or(pool.subnet);
    net.hosts()
        .skip(1)
        .take(65_536)
        .find(|a| is_free(pool, &used, a))
        .ok_or_else(exhausted)
}

fn is_free(pool: &Subnet, used: impl Fn(&IpAddr) -> bool, a: &IpAddr) -> bool {
    Some(*a) != pool.gateway && !used(a) && !pool.aux_addresses.values().any(|x| x == a)
}

fn exhausted() -> Error {
    Error::forbidden("no available IPv4 addresses on this network's address pools")
}

/// Checks an address that a user asked for.
pub fn claim(pool: &Subnet, used: &BTreeSet<IpAddr>, wanted: IpAddr) -> Result<IpAddr> {
    if !pool.subnet.contains(&wanted) {
        return Err(Error::invalid(format_args!(
            "no configured subnet contains IP address {wanted}"
        )));
    }
    if Some(wanted) == pool.gateway || used.contains(&wanted) {
        return Err(Error::forbidden("Address already in use"));
    }
    Ok(wanted)
}

/// The first subnet of `size` bits in `pools` that overlaps none of `taken`.
pub fn pick_subnet(pools: &[(Ipv4Net, u8)], taken: &[IpNet]) -> Result<Ipv4Net> {
    for (pool, size) in pools {
        let Ok(mut subnets) = pool.subnets(*size) else {
            continue;
        };
        if let Some(free) = subnets.find(|s| !taken.iter().any(|t| overlaps(&IpNet::V4(*s), t))) {
            return Ok(free);
        }
    }
    Err(Error::invalid(
        "all predefined address pools have been fully subnetted",
    ))
}

/// Whether two networks share an address.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The pools from which local bridge networks take their subnets, as Docker's defaults do.
pub fn local_pools() -> Vec<(Ipv4Net, u8)> {
    let mut pools: Vec<(Ipv4Net, u8)> = (17..=31)
        .map(|n| (Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16), 16))
        .collect();
    pools.push((Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20));
    pools
}

/// The first host address of a subnet: the gateway where the user names none.
pub fn first_host(net: &IpNet) -> Option<IpAddr> {
    // The first address of an IPv6 subnet means any of its routers.
    let skipped = usize::from(matches!(net, IpNet::V6(n) if n.prefix_len() < 127));
    net.hosts().nth(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str) -> Subnet {
        let subnet: IpNet = net.parse().unwrap();
        Subnet {
            subnet,
            gateway: first_host(&subnet),
            ip_range: None,
            aux_addresses: Default::default(),
        }
    }

    #[test]
    fn addresses_go_round_and_run_out() {
        let p = pool("10.1.0.0/29");
        let mut used = BTreeSet::new();
        let mut cursor = None;
        for want in 2..=6 {
            let a = allocate(&p, &used, cursor).unwrap();
            assert_eq!(a, format!("10.1.0.{want}").parse::<IpAddr>().unwrap());
            used.insert(a);
            cursor = Some(a);
        }
        assert!(allocate(&p, &used, cursor).is_err());
        used.remove(&"10.1.0.3".parse().unwrap());
        assert_eq!(
            allocate(&p, &used, cursor).unwrap(),
            "10.1.0.3".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn a_released_address_is_not_reused_at_once() {
        let p = pool("10.1.0.0/24");
        let a = allocate(&p, &BTreeSet::new(), Some("10.1.0.2".parse().unwrap())).unwrap();
        assert_eq!(a, "10.1.0.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn subnets_avoid_what_is_taken() {
        let taken = ["172.17.4.0/24".parse().unwrap(), "172.18.0.0/16".parse().unwrap()];
        assert_eq!(
            pick_subnet(&local_pools(), &taken).unwrap().to_string(),
            "172.19.0.0/16"
        );
    }

    #[test]
    fn claims_are_checked() {
        let p = pool("10.1.0.0/24");
        assert!(claim(&p, &BTreeSet::new(), "10.2.0.9".parse().unwrap()).is_err());
        assert!(claim(&p, &BTreeSet::new(), "10.1.0.1".parse().unwrap()).is_err());
        assert!(claim(&p, &BTreeSet::new(), "10.1.0.9".parse().unwrap()).is_ok());
    }
}
