//! Expressions of nftables rules.

use std::net::Ipv4Addr;

use super::super::Msg;
use super::ifname;

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// First of the sixteen four-byte registers.
const REG0: u32 = 8;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Drop it.
    Drop,
    /// Accept it (as far as this table is asked).
    Accept,
    /// Ask another chain, and come back.
    Jump(String),
}

impl Verdict {
    pub(super) fn encode(&self, m: &mut Msg) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(c) => (-3, Some(c.as_str())),
        };
        encode_verdict(m, code, chain);
    }
}

/// The nested verdict of a rule or map element.
pub(super) fn encode_verdict(m: &mut Msg, code: i32, chain: Option<&str>) {
    m.nest(2, |m| {
        m.be32(1, code as u32);
        if let Some(c) = chain {
            m.str(2, c);
        }
    });
}

/// Bits that the kernel keeps in the machine's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostOrder(pub(crate) u32);

/// One expression. Registers are numbered 0 to 15, four bytes each; addresses and names take as many as they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    /// Loads the input interface's name (four registers).
    IifName(u32),
    /// Loads the output interface's name (four registers).
    OifName(u32),
    /// Loads the transport protocol.
    L4Proto(u32),
    /// Loads the source address.
    Saddr(u32),
    /// Loads the destination address.
    Daddr(u32),
    /// Loads the source port.
    Sport(u32),
    /// Loads the destination port.
    Dport(u32),
    /// Loads the connection's state bits.
    CtState(u32),
    /// Loads the connection's status bits.
    CtStatus(u32),
    /// Loads the kind of the destination address, as the routing tables see it.
    FibDaddrType(u32),
    /// Compares a register with bytes.
    Eq(u32, Vec<u8>),
    /// The opposite.
    Ne(u32, Vec<u8>),
    /// Masks a number of four bytes in place.
    Mask(u32, [u8; 4]),
    /// Continues only when the key is in the set (or is not).
    InSet(&'static str, u32, bool),
    /// Loads what a map leads to into a register.
    Map(&'static str, u32, u32),
    /// Goes where a verdict map leads.
    Vmap(&'static str, u32),
    /// Loads one of the addresses at random.
    Random(u32, Vec<Ipv4Addr>),
    /// Loads one of the addresses by the hash of the source address, which is loaded into the first register.
    BySource(u32, Vec<Ipv4Addr>),
    /// Loads bytes.
    Load(u32, Vec<u8>),
    /// Translates the destination to the address, and the port where one is given, in these registers.
    Dnat(u32, Option<u32>),
    /// Translates the source to the address in this register.
    Snat(u32),
    /// Translates the source to the outgoing interface's address.
    Masquerade,
    /// Answers with a TCP reset.
    RejectTcp,
    /// Answers with an ICMP port unreachable.
    Reject,
    /// Writes the port in a register into the packet: as destination, else as source. The offset is that of the
    /// transport's checksum (16 for TCP, 6 for UDP).
    SetPort {
        /// Register with the port.
        reg: u32,
        /// Whether the destination is written.
        destination: bool,
        /// Offset of the checksum in the transport header.
        checksum: u32,
    },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
}

impl Expr {
    /// `iifname == name`
    pub(crate) fn iif_is(name: &str) -> [Self; 2] {
        [Self::IifName(0), Self::Eq(0, ifname(name).to_vec())]
    }

    /// `oifname == name`
    pub(crate) fn oif_is(name: &str) -> [Self; 2] {
        [Self::OifName(0), Self::Eq(0, ifname(name).to_vec())]
    }

    /// Any of these bits of a number of the machine's order.
    pub(crate) fn any_bit(load: Self, reg: u32, bits: HostOrder) -> [Self; 3] {
        [
            load,
            Self::Mask(reg, bits.0.to_ne_bytes()),
            Self::Ne(reg, vec![0; 4]),
        ]
    }

    /// Sets of anonymous lookups that the rule needs: the addresses, in order.
    pub(super) fn choices(&self) -> Option<&[Ipv4Addr]> {
        match self {
            Self::Random(_, v) | Self::BySource(_, v) if v.len() > 1 => Some(v),
            _ => None,
        }
    }

    /// Encodes the expression as list elements; `set_id` names the anonymous map of a choice.
    pub(super) fn encode(&self, m: &mut Msg, set_id: u32) {
        match self {
            Self::IifName(r) => meta(m, *r, 6),
            Self::OifName(r) => meta(m, *r, 7),
            Self::L4Proto(r) => meta(m, *r, 16),
            Self::Saddr(r) => payload(m, *r, 1, 12, 4),
            Self::Daddr(r) => payload(m, *r, 1, 16, 4),
            Self::Sport(r) => payload(m, *r, 2, 0, 2),
            Self::Dport(r) => payload(m, *r, 2, 2, 2),
            Self::CtState(r) => ct(m, *r, 0),
            Self::CtStatus(r) => ct(m, *r, 2),
            Self::FibDaddrType(r) => one(m, "fib", |m| {
                m.be32(1, REG0 + r).be32(2, 3).be32(3, 2);
            }),
            Self::Eq(r, v) => cmp(m, *r, 0, v),
            Self::Ne(r, v) => cmp(m, *r, 1, v),
            Self::Mask(r, mask) => one(m, "bitwise", |m| {
                m.be32(1, REG0 + r).be32(2, REG0 + r).be32(3, 4);
                value(m, 4, mask);
                value(m, 5, &[0; 4]);
            }),
            Self::InSet(set, r, wanted) => one(m, "lookup", |m| {
                m.str(1, set).be32(2, REG0 + r);
                if !wanted {
                    m.be32(5, 1);
                }
            }),
            Self::Map(set, r, dst) => one(m, "lookup", |m| {
                m.str(1, set).be32(2, REG0 + r).be32(3, REG0 + dst);
            }),
            Self::Vmap(set, r) => one(m, "lookup", |m| {
                m.str(1, set).be32(2, REG0 + r).be32(3, 0);
            }),
            Self::Random(r, v) => choose(m, *r, v, set_id, false),
            Self::BySource(r, v) => choose(m, *r, v, set_id, true),
            Self::Load(r, v) => one(m, "immediate", |m| {
                m.be32(1, REG0 + r);
                value(m, 2, v);
            }),
            Self::Dnat(addr, port) => nat(m, 1, *addr, *port),
            Self::Snat(addr) => nat(m, 0, *addr, None),
            Self::Masquerade => one(m, "masq", |_| {}),
            Self::RejectTcp => one(m, "reject", |m| {
                m.be32(1, 1).u8(2, 0);
            }),
            Self::Reject => one(m, "reject", |m| {
                m.be32(1, 0).u8(2, 3);
            }),
            Self::SetPort {
                reg,
                destination,
                checksum,
            } => one(m, "payload", |m| {
                m.be32(5, REG0 + reg)
                    .be32(2, 2)
                    .be32(3, if *destination { 2 } else { 0 })
                    .be32(4, 2);
                m.be32(6, 1).be32(7, *checksum).be32(8, 0);
            }),
            Self::Verdict(v) => one(m, "immediate", |m| {
                m.be32(1, 0).nest(2, |m| v.encode(m));
            }),
        }
    }
}

fn one(m: &mut Msg, name: &str, fill: impl FnOnce(&mut Msg)) {
    m.nest(1, |m| {
        m.str(EXPR_NAME, name).nest(EXPR_DATA, fill);
    });
}

fn value(m: &mut Msg, kind: u16, v: &[u8]) {
    m.nest(kind, |m| {
        m.attr(1, v);
    });
}

fn meta(m: &mut Msg, reg: u32, key: u32) {
    one(m, "meta", |m| {
        m.be32(1, REG0 + reg).be32(2, key);
    });
}

fn ct(m: &mut Msg, reg: u32, key: u32) {
    one(m, "ct", |m| {
        m.be32(1, REG0 + reg).be32(2, key);
    });
}

fn payload(m: &mut Msg, reg: u32, base: u32, offset: u32, len: u32) {
    one(m, "payload", |m| {
        m.be32(1, REG0 + reg).be32(2, base).be32(3, offset).be32(4, len);
    });
}

fn cmp(m: &mut Msg, reg: u32, op: u32, v: &[u8]) {
    one(m, "cmp", |m| {
        m.be32(1, REG0 + reg).be32(2, op);
        value(m, 3, v);
    });
}

fn nat(m: &mut Msg, kind: u32, addr: u32, port: Option<u32>) {
    one(m, "nat", |m| {
        m.be32(1, kind).be32(2, 2).be32(3, REG0 + addr);
        if let Some(p) = port {
            m.be32(5, REG0 + p);
        }
    });
}

fn choose(m: &mut Msg, reg: u32, among: &[Ipv4Addr], set_id: u32, by_source: bool) {
    if let [only] = among {
        return one(m, "immediate", |m| {
            m.be32(1, REG0 + reg);
            value(m, 2, &only.octets());
        });
    }
    let n = among.len() as u32;
    if by_source {
        payload(m, reg, 1, 12, 4);
        one(m, "hash", |m| {
            m.be32(1, REG0 + reg)
                .be32(2, REG0 + reg)
                .be32(3, 4)
                .be32(4, n)
                .be32(5, 0x7472_6970)
                .be32(7, 0);
        });
    } else {
        one(m, "numgen", |m| {
            m.be32(1, REG0 + reg).be32(2, n).be32(3, 1).be32(4, 0);
        });
    }
    one(m, "lookup", |m| {
        m.str(1, "__map%d")
            .be32(2, REG0 + reg)
            .be32(3, REG0 + reg)
            .be32(4, set_id);
    });
}
