//! Encoding of a transaction, and reading of what a map holds.

use std::io;

use super::super::{APPEND, CREATE, Msg, Refused, Socket, attr, attrs};
use super::expr::encode_verdict;
use super::{ChainType, Data, Element, Op, Set, VERDICT};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
pub(super) const BATCH_BEGIN: u16 = 16;
pub(super) const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEWCHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GETCHAIN: u16 = SUBSYSTEM | 4;
const DELCHAIN: u16 = SUBSYSTEM | 5;
pub(super) const NEWRULE: u16 = SUBSYSTEM | 6;
pub(super) const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const FAMILY_IP: u8 = 2;
/// Nested lists have a 16 bit length; larger ones are split over several messages.
const LIST_LIMIT: usize = 50_000;

/// What is done with the table as a whole before the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// It is there.
    Keep,
    /// It is made unless it is there.
    Ensure,
    /// It is made anew, empty.
    Replace,
    /// It is removed; no steps follow.
    Remove,
}

/// Carries out all steps on the table, or none.
pub(crate) fn transaction(socket: &Socket, name: &str, table: Table, ops: &[Op]) -> Result<(), Refused> {
    let mut e = Encoder {
        table: name,
        msgs: vec![batch(BATCH_BEGIN)],
        next_set: 0,
    };
    if matches!(table, Table::Ensure | Table::Replace | Table::Remove) {
        e.push(NEWTABLE, CREATE, |m| {
            m.str(1, name);
        });
    }
    if matches!(table, Table::Replace | Table::Remove) {
        e.push(DELTABLE, 0, |m| {
            m.str(1, name);
        });
    }
    if table == Table::Replace {
        e.push(NEWTABLE, CREATE, |m| {
            m.str(1, name);
        });
    }
    for op in ops {
        e.op(op);
    }
    if e.msgs.len() == 1 {
        return Ok(());
    }
    let last = e.msgs.len() - 1;
    e.msgs.push(batch(BATCH_END));
    socket.transact(e.msgs, last)
}

pub(super) fn batch(kind: u16) -> Msg {
    let mut m = Msg::new(kind, 0);
    m.raw(&[0, 0, 0, 10]);
    m
}

struct Encoder<'a> {
    table: &'a str,
    msgs: Vec<Msg>,
    next_set: u32,
}

impl Encoder<'_> {
    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Msg)) {
        let mut m = Msg::new(kind, flags);
        m.raw(&[FAMILY_IP, 0, 0, 0]);
        fill(&mut m);
        self.msgs.push(m);
    }

    fn op(&mut self, op: &Op) {
        let table = self.table;
        match op {
            Op::Set(s) => self.set(s),
            Op::BaseChain {
                name,
                kind,
                hook,
                priority,
            } => self.push(NEWCHAIN, CREATE, |m| {
                m.str(1, table).str(3, name).nest(4, |m| {
                    m.be32(1, *hook as u32).be32(2, *priority as u32);
                });
                m.be32(5, 1)
                    .str(7, if *kind == ChainType::Nat { "nat" } else { "filter" });
            }),
            Op::Chain(c) => self.push(NEWCHAIN, CREATE, |m| {
                m.str(1, table).str(3, c);
            }),
            Op::DelChain(c) => self.push(DELCHAIN, 0, |m| {
                m.str(1, table).str(3, c);
            }),
            Op::Flush(c) => self.push(DELRULE, 0, |m| {
                m.str(1, table).str(2, c);
            }),
            Op::Rule(chain, exprs) => {
                let mut ids = Vec::with_capacity(exprs.len());
                for x in exprs {
                    ids.push(x.choices().map_or(0, |(values, map)| self.choices(values, map)));
                }
                self.push(NEWRULE, CREATE | APPEND, |m| {
                    m.str(1, table).str(2, chain).nest(4, |m| {
                        for (x, id) in exprs.iter().zip(ids) {
                            x.encode(m, id);
                        }
                    });
                });
            }
            Op::Add(set, elements) => self.elements(NEWSETELEM, CREATE, set, 0, elements),
            Op::Del(set, elements) => self.elements(DELSETELEM, 0, set, 0, elements),
        }
    }

    fn set(&mut self, s: &Set) {
        let table = self.table;
        self.next_set += 1;
        let id = self.next_set;
        self.push(NEWSET, CREATE, |m| {
            let map = !s.data.is_empty();
            // A map whose elements rules put in, and which end by themselves.
            let flags = if map { 8 } else { 0 } | if s.dynamic { 0x10 | 0x20 } else { 0 };
            m.str(1, table).str(2, s.name).be32(3, flags);
            m.be32(4, type_of(s.key)).be32(5, len_of(s.key));
            if s.data == [VERDICT] {
                m.be32(6, VERDICT);
            } else if map {
                m.be32(6, type_of(s.data)).be32(7, len_of(s.data));
            }
            m.be32(10, id);
            if s.key == [super::IFNAME] {
                // Tells `nft` to print names in the byte order in which they are stored.
                m.attr(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    /// An anonymous map from 0, 1, 2 … to the values, or a set of them, whose number names it within the transaction.
    fn choices(&mut self, among: &[Vec<u8>], map: bool) -> u32 {
        let table = self.table;
        self.next_set += 1;
        let id = self.next_set;
        let (name, integer) = (if map { "__map%d" } else { "__set%d" }, 4);
        let len = among.first().map_or(4, Vec::len) as u32;
        let kind = type_of(if len > 4 {
            &[super::IPV4, super::SERVICE]
        } else {
            &[super::IPV4]
        });
        self.push(NEWSET, CREATE, |m| {
            // Anonymous and constant.
            m.str(1, table)
                .str(2, name)
                .be32(3, 1 | 2 | if map { 8 } else { 0 });
            if map {
                m.be32(4, integer).be32(5, 4).be32(6, kind).be32(7, len);
            } else {
                m.be32(4, kind).be32(5, len);
            }
            m.be32(10, id);
            m.nest(9, |m| {
                m.be32(1, among.len() as u32);
            });
        });
        let elements: Vec<Element> = among
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let (key, data) = if map {
                    ((i as u32).to_ne_bytes().to_vec(), Data::Value(v.clone()))
                } else {
                    (v.clone(), Data::None)
                };
                Element { key, data }
            })
            .collect();
        self.elements(NEWSETELEM, CREATE, name, id, &elements);
        id
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, id: u32, all: &[Element]) {
        let mut rest = all;
        while !rest.is_empty() {
            let mut m = Msg::new(kind, flags);
            m.raw(&[FAMILY_IP, 0, 0, 0]).str(1, self.table).str(2, set);
            if id != 0 {
                m.be32(4, id);
            }
            let mut taken = 0;
            m.nest(3, |m| {
                for e in rest {
                    if m.len() > LIST_LIMIT {
                        break;
                    }
                    element(m, e);
                    taken += 1;
                }
            });
            self.msgs.push(m);
            rest = &rest[taken..];
        }
    }
}

fn element(m: &mut Msg, e: &Element) {
    m.nest(1, |m| {
        m.nest(1, |m| {
            m.attr(1, &e.key);
        });
        match &e.data {
            Data::None => {}
            Data::Value(v) => {
                m.nest(2, |m| {
                    m.attr(1, v);
                });
            }
            Data::Goto(chain) => {
                m.nest(2, |m| encode_verdict(m, -4, Some(chain)));
            }
            Data::Jump(chain) => {
                m.nest(2, |m| encode_verdict(m, -3, Some(chain)));
            }
        }
    });
}

/// `nft` packs the types of a concatenation six bits each.
fn type_of(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |t, p| (t << 6) | p)
}

fn len_of(parts: &[u32]) -> u32 {
    parts
        .iter()
        .map(|p| if *p == super::IFNAME { 16 } else { 4 })
        .sum::<u32>()
        .min(single_len(parts))
}

/// A key of one part has its natural length.
fn single_len(parts: &[u32]) -> u32 {
    match parts {
        [super::PROTO] => 1,
        [super::SERVICE] => 2,
        _ => u32::MAX,
    }
}

/// The elements of a named set or map (values only, not verdicts); empty when it does not exist.
pub(crate) fn dump_elements(socket: &Socket, table: &str, set: &str) -> io::Result<Vec<Element>> {
    let mut m = Msg::new(GETSETELEM, 0);
    m.raw(&[FAMILY_IP, 0, 0, 0]).str(1, table).str(2, set);
    let mut all = Vec::new();
    let dumped = socket.dump(m, |kind, b| {
        if kind != NEWSETELEM {
            return;
        }
        let list = b.get(4..).and_then(|b| attr(b, 3)).unwrap_or_default();
        for (_, e) in attrs(list) {
            let value = |k| attr(e, k).and_then(|d| attr(d, 1)).map(<[u8]>::to_vec);
            if let Some(key) = value(1) {
                all.push(Element {
                    key,
                    data: value(2).map_or(Data::None, Data::Value),
                });
            }
        }
    });
    match dumped {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(all),
    }
}
