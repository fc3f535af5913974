//! Connection tracking: counting and forgetting entries that lead to an address.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;

use super::{Msg, Socket, attr};

const NEW: u16 = 1 << 8;
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const FILTER_SOURCE: u32 = 1;
const FILTER_PROTOCOL: u32 = 1 << 3;
/// Number of TCP.
pub(crate) const TCP: u8 = 6;
/// Number of UDP.
pub(crate) const UDP: u8 = 17;
const TCP_ESTABLISHED: u8 = 3;

/// What is known of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Transport protocol number.
    pub(crate) protocol: u8,
    /// Whether it is an established TCP connection.
    pub(crate) established: bool,
    /// Who answers: the source of the replies, after translation.
    pub(crate) answers: Ipv4Addr,
    orig: Vec<u8>,
}

fn tuple(d: &[u8]) -> (Option<Ipv4Addr>, u8) {
    let src = attr(d, 1)
        .and_then(|ip| attr(ip, 1))
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map(Ipv4Addr::from);
    let proto = attr(d, 2)
        .and_then(|p| attr(p, 1))
        .and_then(|b| b.first().copied())
        .unwrap_or(0);
    (src, proto)
}

fn parse(b: &[u8]) -> Option<Entry> {
    let body = b.get(4..)?;
    let orig = attr(body, TUPLE_ORIG)?;
    let (answers, protocol) = tuple(attr(body, TUPLE_REPLY)?);
    let state = attr(body, 4)
        .and_then(|p| attr(p, 1))
        .and_then(|t| attr(t, 1))
        .and_then(|s| s.first().copied());
    Some(Entry {
        protocol,
        established: protocol == TCP && state == Some(TCP_ESTABLISHED),
        answers: answers?,
        orig: orig.to_vec(),
    })
}

/// All entries of the namespace that are answered by this address, of one protocol or of all.
pub(crate) fn answered_by(socket: &Socket, address: IpAddr, protocol: Option<u8>) -> io::Result<Vec<Entry>> {
    let IpAddr::V4(wanted) = address else {
        return Ok(Vec::new());
    };
    let mut m = Msg::new(GET, 0);
    m.raw(&[2, 0, 0, 0]);
    // The kernel passes over the others by itself; one older than 5.8 does not know the filter and lists all.
    m.nest(TUPLE_REPLY, |m| {
        m.nest(1, |m| {
            m.attr(1, &wanted.octets());
        });
        if let Some(p) = protocol {
            m.nest(2, |m| {
                m.u8(1, p);
            });
        }
    });
    m.nest(FILTER, |m| {
        m.u32(2, FILTER_SOURCE | protocol.map_or(0, |_| FILTER_PROTOCOL));
    });
    let mut found = Vec::new();
    socket.dump(m, |kind, b| {
        if kind == NEW
            && let Some(e) = parse(b)
            && e.answers == wanted
            && protocol.is_none_or(|p| p == e.protocol)
        {
            found.push(e);
        }
    })?;
    Ok(found)
}

/// Forgets these entries; those that ended meanwhile are no error.
pub(crate) fn forget(socket: &Socket, entries: &[Entry]) -> io::Result<()> {
    let msgs = entries
        .iter()
        .map(|e| {
            let mut m = Msg::new(DELETE, 0);
            m.raw(&[2, 0, 0, 0]).attr(TUPLE_ORIG | 0x8000, &e.orig);
            m.tolerate(Errno::ENOENT)
        })
        .collect();
    Ok(socket.apply(msgs)?)
}
