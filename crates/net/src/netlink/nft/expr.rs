//! Expressions of nftables rules.

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
    /// Back to the chain that asked.
    Return,
    /// Ask another chain, and come back.
    Jump(String),
    /// Ask another chain for good.
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, m: &mut Msg) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(c) => (-3, Some(c.as_str())),
            Self::Goto(c) => (-4, Some(c.as_str())),
            Self::Return => (-5, None),
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
    /// Loads the direction of the packet in its connection: 0 as it began, 1 back (one byte).
    CtDirection(u32),
    /// Loads the connection's mark.
    CtMark(u32),
    /// Sets the connection's mark.
    SetCtMark(u32),
    /// Sets the packet's mark.
    SetMark(u32),
    /// Loads the last four bytes of the hardware address from which the packet came.
    EtherSaddrTail(u32),
    /// Loads the kind of the destination address, as the routing tables see it.
    FibDaddrType(u32),
    /// Loads the kind of the source address, as the routing tables see it.
    FibSaddrType(u32),
    /// Loads the index of the interface on which the source address is reached, 0 if it is not the one by which the
    /// packet came.
    FibSaddrIif(u32),
    /// Compares a register with bytes.
    Eq(u32, Vec<u8>),
    /// The opposite.
    Ne(u32, Vec<u8>),
    /// Compares bytes of the network's order: at least.
    Ge(u32, Vec<u8>),
    /// At most.
    Le(u32, Vec<u8>),
    /// Masks a number of four bytes in place.
    Mask(u32, [u8; 4]),
    /// Continues only when the key is in the set (or is not).
    InSet(&'static str, u32, bool),
    /// Loads what a map leads to into a register.
    Map(&'static str, u32, u32),
    /// Goes where a verdict map leads.
    Vmap(&'static str, u32),
    /// Loads one of the values at random. All have the same length: an address, or an address and a port.
    Random(u32, Vec<Vec<u8>>),
    /// Loads one of the values by the hash of the source address, which is loaded into the first register.
    BySource(u32, Vec<Vec<u8>>),
    /// Continues only when the registers hold one of these values.
    OneOf(u32, Vec<Vec<u8>>),
    /// Puts an element into a map with a time limit: key, value, milliseconds. One that is there keeps its value and
    /// starts anew.
    Remember(&'static str, u32, u32, u64),
    /// Takes an element out of a map, if it is there: key, and the register of values (which is not read).
    Forget(&'static str, u32, u32),
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
    /// `iifname == name`; a name that ends with `*` stands for all that begin so.
    pub(crate) fn iif_is(name: &str) -> [Self; 2] {
        [Self::IifName(0), Self::Eq(0, name_bytes(name))]
    }

    /// `oifname == name`; a name that ends with `*` stands for all that begin so.
    pub(crate) fn oif_is(name: &str) -> [Self; 2] {
        [Self::OifName(0), Self::Eq(0, name_bytes(name))]
    }

    /// `oifname != name`; a name that ends with `*` stands for all that begin so.
    pub(crate) fn oif_is_not(name: &str) -> [Self; 2] {
        [Self::OifName(0), Self::Ne(0, name_bytes(name))]
    }

    /// `iifname != name`; a name that ends with `*` stands for all that begin so.
    pub(crate) fn iif_is_not(name: &str) -> [Self; 2] {
        [Self::IifName(0), Self::Ne(0, name_bytes(name))]
    }

    /// The source (else destination) address is in the block, which is compared in this register.
    pub(crate) fn in_block(source: bool, reg: u32, net: ipnet::Ipv4Net) -> Vec<Self> {
        let load = if source {
            Self::Saddr(reg)
        } else {
            Self::Daddr(reg)
        };
        match net.prefix_len() {
            0 => Vec::new(),
            32 => vec![load, Self::Eq(reg, net.addr().octets().to_vec())],
            _ => vec![
                load,
                Self::Mask(reg, net.netmask().octets()),
                Self::Eq(reg, net.network().octets().to_vec()),
            ],
        }
    }

    /// Any of these bits of a number of the machine's order.
    pub(crate) fn any_bit(load: Self, reg: u32, bits: HostOrder) -> [Self; 3] {
        [
            load,
            Self::Mask(reg, bits.0.to_ne_bytes()),
            Self::Ne(reg, vec![0; 4]),
        ]
    }

    /// The anonymous map (or set, which is false) that the expression needs: the values, in order.
    pub(super) fn choices(&self) -> Option<(&[Vec<u8>], bool)> {
        match self {
            Self::Random(_, v) | Self::BySource(_, v) if v.len() > 1 => Some((v, true)),
            Self::OneOf(_, v) => Some((v, false)),
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
            Self::CtDirection(r) => ct(m, *r, 1),
            Self::CtMark(r) => ct(m, *r, 3),
            Self::SetCtMark(r) => one(m, "ct", |m| {
                m.be32(2, 3).be32(4, REG0 + r);
            }),
            Self::SetMark(r) => one(m, "meta", |m| {
                m.be32(2, 3).be32(3, REG0 + r);
            }),
            Self::EtherSaddrTail(r) => payload(m, *r, 0, 8, 4),
            Self::FibDaddrType(r) => fib(m, *r, 3, 2),
            Self::FibSaddrType(r) => fib(m, *r, 3, 1),
            Self::FibSaddrIif(r) => fib(m, *r, 1, 1 | 8),
            Self::Eq(r, v) => cmp(m, *r, 0, v),
            Self::Ne(r, v) => cmp(m, *r, 1, v),
            Self::Ge(r, v) => cmp(m, *r, 5, v),
            Self::Le(r, v) => cmp(m, *r, 3, v),
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
            Self::OneOf(r, _) => one(m, "lookup", |m| {
                m.str(1, "__set%d").be32(2, REG0 + r).be32(4, set_id);
            }),
            Self::Remember(map, key, data, ms) => one(m, "dynset", |m| {
                m.str(1, map)
                    .be32(3, 1)
                    .be32(4, REG0 + key)
                    .be32(5, REG0 + data)
                    .attr(6, &ms.to_be_bytes());
            }),
            Self::Forget(map, key, data) => one(m, "dynset", |m| {
                m.str(1, map).be32(3, 2).be32(4, REG0 + key).be32(5, REG0 + data);
            }),
            Self::Load(r, v) => load(m, *r, v),
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

/// An interface's name as it is compared: whole, or its beginning.
fn name_bytes(name: &str) -> Vec<u8> {
    match name.strip_suffix('*') {
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => ifname(name).to_vec(),
    }
}

/// Bytes into registers: the kernel takes sixteen at a time, each part into registers of its own.
fn load(m: &mut Msg, reg: u32, v: &[u8]) {
    for (i, part) in v.chunks(16).enumerate() {
        one(m, "immediate", |m| {
            m.be32(1, REG0 + reg + 4 * i as u32);
            value(m, 2, part);
        });
    }
}

fn fib(m: &mut Msg, reg: u32, result: u32, flags: u32) {
    one(m, "fib", |m| {
        m.be32(1, REG0 + reg).be32(2, result).be32(3, flags);
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

fn choose(m: &mut Msg, reg: u32, among: &[Vec<u8>], set_id: u32, by_source: bool) {
    if let [only] = among {
        return load(m, reg, only);
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
