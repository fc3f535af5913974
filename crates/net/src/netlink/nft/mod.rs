//! nftables as data: what the renderers say ([`Op`]), and its encoding as one netlink transaction.
//!
//! Only what Tripod's own tables need is here. All tables are of family `ip`.

mod encode;
mod expr;
mod foreign;

use std::io;

use nix::sys::socket::SockProtocol;

pub(crate) use encode::{Table, dump_elements, transaction};
pub(crate) use expr::{Expr, HostOrder, Verdict};
pub(crate) use foreign::{admit, dismiss, dropping_forward_chains};

use super::Socket;

/// Type numbers of `nft`, so that it can print the sets.
pub(crate) const IPV4: u32 = 7;
/// Type number of a number.
pub(crate) const INTEGER: u32 = 4;
/// Type number of a transport protocol.
pub(crate) const PROTO: u32 = 12;
/// Type number of a port.
pub(crate) const SERVICE: u32 = 13;
/// Type number of an interface name.
pub(crate) const IFNAME: u32 = 41;
/// Type number of a verdict.
pub(crate) const VERDICT: u32 = 0xffff_ff00;

/// Where a chain hangs in the path of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To a process of this namespace.
    Input = 1,
    /// Between two interfaces.
    Forward = 2,
    /// From a process of this namespace.
    Output = 3,
    /// Before leaving.
    Postrouting = 4,
}

/// A base chain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainType {
    /// Verdicts on each packet.
    Filter,
    /// Address translation, asked once per connection.
    Nat,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    /// Name.
    pub(crate) name: &'static str,
    /// Types of the parts of its key.
    pub(crate) key: &'static [u32],
    /// Types of the parts of its data; empty for a plain set.
    pub(crate) data: &'static [u32],
    /// Rules put elements in, which are dropped when they are old.
    pub(crate) dynamic: bool,
}

impl Set {
    /// A plain set.
    pub(crate) fn of(name: &'static str, key: &'static [u32]) -> Self {
        Self::map(name, key, &[])
    }

    /// A map.
    pub(crate) fn map(name: &'static str, key: &'static [u32], data: &'static [u32]) -> Self {
        Self {
            name,
            key,
            data,
            dynamic: false,
        }
    }
}

/// What a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: a plain set.
    None,
    /// A value.
    Value(Vec<u8>),
    /// Go to a chain.
    Goto(String),
    /// Ask a chain, and come back.
    Jump(String),
}

/// An element of a set or map. Keys and values are laid out in registers: each part padded to four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    /// Key.
    pub(crate) key: Vec<u8>,
    /// What it leads to.
    pub(crate) data: Data,
}

/// One step of a transaction on a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Makes a set or map unless it is there.
    Set(Set),
    /// Makes a base chain unless it is there.
    BaseChain {
        /// Name.
        name: &'static str,
        /// Type.
        kind: ChainType,
        /// Hook.
        hook: Hook,
        /// Priority.
        priority: i32,
    },
    /// Makes a chain unless it is there.
    Chain(String),
    /// Removes a chain.
    DelChain(String),
    /// Removes all rules of a chain.
    Flush(String),
    /// Adds a rule at the end of a chain.
    Rule(String, Vec<Expr>),
    /// Adds elements to a set or map.
    Add(&'static str, Vec<Element>),
    /// Removes elements of a set or map.
    Del(&'static str, Vec<Element>),
}

/// Opens an nftables (and connection tracking) socket in the calling thread's namespace.
pub(crate) fn open() -> io::Result<Socket> {
    Socket::open(SockProtocol::NetlinkNetFilter)
}

/// A register image of the parts: each is padded to four bytes.
pub(crate) fn concat(parts: &[&[u8]]) -> Vec<u8> {
    let mut v = Vec::with_capacity(parts.len() * 4);
    for p in parts {
        v.extend_from_slice(p);
        v.resize(v.len().next_multiple_of(4), 0);
    }
    v
}

/// An interface name as nftables compares it: 16 bytes, padded with zeros.
pub(crate) fn ifname(name: &str) -> [u8; 16] {
    let mut b = [0u8; 16];
    for (slot, c) in b.iter_mut().take(15).zip(name.bytes()) {
        *slot = c;
    }
    b
}
