//! A model of one nftables table: changes are recorded as the steps of a transaction, and the whole can be
//! rendered to replace what the kernel has.

use std::collections::BTreeMap;

use crate::netlink::nft::{Data, Element, Expr, Op};

/// What the table holds beside its fixed part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    sets: BTreeMap<&'static str, BTreeMap<Vec<u8>, Data>>,
    chains: BTreeMap<String, Vec<Vec<Expr>>>,
}

impl Model {
    /// Puts an element into a set or map, in place of another of the same key.
    pub(crate) fn put(&mut self, ops: &mut Vec<Op>, set: &'static str, key: Vec<u8>, data: Data) {
        let elements = self.sets.entry(set).or_default();
        match elements.get(&key) {
            Some(now) if *now == data => return,
            Some(now) => push(
                ops,
                set,
                Element {
                    key: key.clone(),
                    data: now.clone(),
                },
                false,
            ),
            None => {}
        }
        elements.insert(key.clone(), data.clone());
        push(ops, set, Element { key, data }, true);
    }

    /// Takes an element out.
    pub(crate) fn take(&mut self, ops: &mut Vec<Op>, set: &'static str, key: &[u8]) {
        if let Some(data) = self.sets.get_mut(set).and_then(|e| e.remove(key)) {
            push(
                ops,
                set,
                Element {
                    key: key.to_vec(),
                    data,
                },
                false,
            );
        }
    }

    /// Takes in what the kernel holds already.
    pub(crate) fn adopt(&mut self, set: &'static str, elements: Vec<Element>) {
        self.sets
            .entry(set)
            .or_default()
            .extend(elements.into_iter().map(|e| (e.key, e.data)));
    }

    /// Makes a chain without rules unless it is there, so that rules can lead to it.
    pub(crate) fn declare(&mut self, ops: &mut Vec<Op>, name: &str) {
        if !self.chains.contains_key(name) {
            ops.push(Op::Chain(name.to_owned()));
            self.chains.insert(name.to_owned(), Vec::new());
        }
    }

    /// Makes a chain with these rules, or gives it these rules.
    pub(crate) fn chain(&mut self, ops: &mut Vec<Op>, name: &str, rules: Vec<Vec<Expr>>) {
        match self.chains.get(name) {
            Some(now) if *now == rules => return,
            Some(now) if now.is_empty() => {}
            Some(_) => ops.push(Op::Flush(name.to_owned())),
            None => ops.push(Op::Chain(name.to_owned())),
        }
        ops.extend(rules.iter().map(|r| Op::Rule(name.to_owned(), r.clone())));
        self.chains.insert(name.to_owned(), rules);
    }

    /// Removes a chain; elements and rules that lead to it must be taken out before.
    pub(crate) fn drop_chain(&mut self, ops: &mut Vec<Op>, name: &str) {
        if self.chains.remove(name).is_some() {
            ops.push(Op::DelChain(name.to_owned()));
        }
    }

    /// Removes chains, of which one may lead to another.
    pub(crate) fn drop_chains(&mut self, ops: &mut Vec<Op>, names: &[String]) {
        if names.len() > 1 {
            let full = names
                .iter()
                .filter(|n| self.chains.get(*n).is_some_and(|r| !r.is_empty()));
            ops.extend(full.map(|n| Op::Flush(n.clone())));
        }
        for n in names {
            self.drop_chain(ops, n);
        }
    }

    /// Whether a set or map has the key.
    pub(crate) fn has(&self, set: &str, key: &[u8]) -> bool {
        self.sets.get(set).is_some_and(|e| e.contains_key(key))
    }

    /// Everything, as steps that follow the fixed part in an empty table.
    pub(crate) fn whole(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        ops.extend(self.chains.keys().map(|name| Op::Chain(name.clone())));
        for (name, rules) in &self.chains {
            ops.extend(rules.iter().map(|r| Op::Rule(name.clone(), r.clone())));
        }
        for (set, elements) in &self.sets {
            for (key, data) in elements {
                push(
                    &mut ops,
                    set,
                    Element {
                        key: key.clone(),
                        data: data.clone(),
                    },
                    true,
                );
            }
        }
        ops
    }
}

/// Appends a change of a set, joining it to the step before where that is of the same kind.
fn push(ops: &mut Vec<Op>, set: &'static str, e: Element, add: bool) {
    match ops.last_mut() {
        Some(Op::Add(s, all)) if add && *s == set => all.push(e),
        Some(Op::Del(s, all)) if !add && *s == set => all.push(e),
        _ => ops.push(if add {
            Op::Add(set, vec![e])
        } else {
            Op::Del(set, vec![e])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(v: u8) -> Data {
        Data::Value(vec![v])
    }

    #[test]
    fn only_differences_are_steps() {
        let mut m = Model::default();
        let mut ops = Vec::new();
        m.put(&mut ops, "s", vec![1], value(1));
        m.put(&mut ops, "s", vec![2], value(2));
        assert_eq!(ops.len(), 1, "joined: {ops:?}");
        ops.clear();
        m.put(&mut ops, "s", vec![1], value(1));
        assert!(ops.is_empty());
        m.put(&mut ops, "s", vec![1], value(3));
        assert_eq!(
            ops,
            [
                Op::Del(
                    "s",
                    vec![Element {
                        key: vec![1],
                        data: value(1)
                    }]
                ),
                Op::Add(
                    "s",
                    vec![Element {
                        key: vec![1],
                        data: value(3)
                    }]
                ),
            ]
        );
        ops.clear();
        m.take(&mut ops, "s", &[1]);
        m.take(&mut ops, "s", &[1]);
        assert_eq!(
            ops,
            [Op::Del(
                "s",
                vec![Element {
                    key: vec![1],
                    data: value(3)
                }]
            )]
        );
        assert_eq!(
            m.whole(),
            [Op::Add(
                "s",
                vec![Element {
                    key: vec![2],
                    data: value(2)
                }]
            )]
        );
    }

    #[test]
    fn chains_are_replaced_in_place() {
        let mut m = Model::default();
        let mut ops = Vec::new();
        m.chain(&mut ops, "c", vec![vec![Expr::Masquerade]]);
        m.chain(&mut ops, "c", vec![vec![Expr::Masquerade]]);
        m.chain(&mut ops, "c", vec![vec![Expr::Reject]]);
        m.drop_chain(&mut ops, "c");
        m.drop_chain(&mut ops, "c");
        let c = || "c".to_owned();
        assert_eq!(
            ops,
            [
                Op::Chain(c()),
                Op::Rule(c(), vec![Expr::Masquerade]),
                Op::Flush(c()),
                Op::Rule(c(), vec![Expr::Reject]),
                Op::DelChain(c()),
            ]
        );
        assert!(m.whole().is_empty());
    }
}
