//! Sets of fields, in the form in which `managedFields` keeps them (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::types::{Merge, Ty, types};

/// A set of fields: whether this one is in it, and what of those below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// This field itself is in the set.
    pub here: bool,
    /// By step: `f:NAME`, `k:{keys}`, `v:value`.
    pub children: BTreeMap<String, Set>,
}

/// The step to an element of a list with keys.
pub(super) fn key_step(item: &Value, keys: &[String]) -> String {
    let mut map = Map::new();
    for key in keys {
        match item.get(key) {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            // The one key that has a default.
            None if key == "protocol" => drop(map.insert(key.clone(), "TCP".into())),
            None => {}
        }
    }
    format!("k:{}", Value::Object(map))
}

/// The step to an element of a set.
pub(super) fn value_step(item: &Value) -> String {
    format!("v:{item}")
}

impl Set {
    fn leaf() -> Self {
        Self {
            here: true,
            children: BTreeMap::new(),
        }
    }

    /// Reads `FieldsV1`.
    pub fn read(value: &Value) -> Self {
        let Value::Object(map) = value else {
            return Self::default();
        };
        let mut set = Self::default();
        for (step, below) in map {
            if step == "." {
                set.here = true;
                continue;
            }
            let empty = below.as_object().is_none_or(Map::is_empty);
            let child = if empty { Self::leaf() } else { Self::read(below) };
            set.children.insert(step.clone(), child);
        }
        set
    }

    /// Writes `FieldsV1`.
    pub fn write(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (step, child) in &self.children {
            map.insert(step.clone(), child.write());
        }
        Value::Object(map)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.here && self.children.values().all(Self::is_empty)
    }

    /// Drops branches without anything.
    pub fn prune(&mut self) {
        for child in self.children.values_mut() {
            child.prune();
        }
        self.children.retain(|_, child| !child.is_empty());
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let children = self.children.iter().map(|(step, child)| {
            let left = match other.children.get(step) {
                Some(other) => child.minus(other),
                None => child.clone(),
            };
            (step.clone(), left)
        });
        let mut set = Self {
            here: self.here && !other.here,
            children: children.collect(),
        };
        set.prune();
        set
    }

    /// What is in one of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.here |= other.here;
        for (step, child) in &other.children {
            let sum = match set.children.get(step) {
                Some(own) => own.plus(child),
                None => child.clone(),
            };
            set.children.insert(step.clone(), sum);
        }
        set
    }

    /// What is in both.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(step, child)| {
            let common = child.both(other.children.get(step)?);
            (!common.is_empty()).then(|| (step.clone(), common))
        });
        Self {
            here: self.here && other.here,
            children: children.collect(),
        }
    }

    /// The fields of a value.
    pub fn of(value: &Value, ty: &Ty, merge: &Merge) -> Self {
        match (value, ty, merge) {
            (Value::Null, _, _) => Self::default(),
            (Value::Object(map), Ty::Object(id), Merge::Granular) => {
                if map.is_empty() {
                    return Self::leaf();
                }
                let fields = &types().object(*id).fields;
                let any = (Ty::Any, Merge::Atomic);
                let children = map.iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| {
                    let (ty, merge) = fields.get(name).map_or((&any.0, &any.1), |f| (&f.ty, &f.merge));
                    (format!("f:{name}"), Self::of(value, ty, merge))
                });
                Self {
                    here: false,
                    children: children.collect(),
                }
            }
            (Value::Object(map), Ty::Map(inner), Merge::Granular) => {
                if map.is_empty() {
                    return Self::leaf();
                }
                let children = map.iter().map(|(name, value)| {
                    let mut child = Self::of(value, inner, &Merge::Atomic);
                    child.here = true;
                    (format!("f:{name}"), child)
                });
                Self {
                    here: false,
                    children: children.collect(),
                }
            }
            (Value::Array(list), Ty::List(inner), Merge::Keys(keys)) => {
                let children = list.iter().map(|item| {
                    let mut child = Self::of(item, inner, &Merge::Granular);
                    child.here = true;
                    (key_step(item, keys), child)
                });
                Self {
                    here: list.is_empty(),
                    children: children.collect(),
                }
            }
            (Value::Array(list), _, Merge::Set) => Self {
                here: list.is_empty(),
                children: list.iter().map(|item| (value_step(item), Self::leaf())).collect(),
            },
            _ => Self::leaf(),
        }
    }

    /// The fields that are new or have another value.
    pub fn changed(old: &Value, new: &Value, ty: &Ty, merge: &Merge) -> Self {
        if old == new {
            return Self::default();
        }
        if old.is_null() {
            return Self::of(new, ty, merge);
        }
        match (old, new, ty, merge) {
            (_, Value::Null, _, _) => Self::default(),
            (Value::Object(old), Value::Object(map), Ty::Object(id), Merge::Granular) if !map.is_empty() => {
                let fields = &types().object(*id).fields;
                let any = (Ty::Any, Merge::Atomic);
                let children = map.iter().map(|(name, value)| {
                    let (ty, merge) = fields.get(name).map_or((&any.0, &any.1), |f| (&f.ty, &f.merge));
                    let before = old.get(name).unwrap_or(&Value::Null);
                    (format!("f:{name}"), Self::changed(before, value, ty, merge))
                });
                Self::pruned(children.collect())
            }
            (Value::Object(old), Value::Object(map), Ty::Map(inner), Merge::Granular) if !map.is_empty() => {
                let children = map.iter().map(|(name, value)| {
                    let before = old.get(name).unwrap_or(&Value::Null);
                    (
                        format!("f:{name}"),
                        Self::changed(before, value, inner, &Merge::Atomic),
                    )
                });
                Self::pruned(children.collect())
            }
            (Value::Array(old), Value::Array(list), Ty::List(inner), Merge::Keys(keys)) => {
                let before: BTreeMap<String, &Value> =
                    old.iter().map(|item| (key_step(item, keys), item)).collect();
                let children = list.iter().map(|item| {
                    let step = key_step(item, keys);
                    let child = match before.get(&step) {
                        Some(before) => Self::changed(before, item, inner, &Merge::Granular),
                        None => {
                            let mut child = Self::of(item, inner, &Merge::Granular);
                            child.here = true;
                            child
                        }
                    };
                    (step, child)
                });
                Self::pruned(children.collect())
            }
            (Value::Array(old), Value::Array(list), _, Merge::Set) => {
                let fresh = list.iter().filter(|item| !old.contains(item));
                Self::pruned(fresh.map(|item| (value_step(item), Self::leaf())).collect())
            }
            _ => Self::leaf(),
        }
    }

    fn pruned(children: BTreeMap<String, Self>) -> Self {
        let mut set = Self {
            here: false,
            children,
        };
        set.prune();
        set
    }

    /// The fields as people write them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, path: &str, out: &mut Vec<String>) {
        if self.here {
            out.push(path.to_owned());
        }
        for (step, child) in &self.children {
            let next = match step.split_at_checked(2) {
                Some(("f:", name)) => format!("{path}.{name}"),
                Some(("v:", value)) => format!("{path}[={value}]"),
                Some(("k:", keys)) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("{path}[{}]", keys.join(","))
                }
                _ => format!("{path}{step}"),
            };
            child.collect(&next, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        let fields = json!({"f:a": {}, "f:b": {".": {}, "k:{\"name\":\"x\"}": {".": {}, "f:c": {}}}, "f:d": {"v:\"z\"": {}}});
        let set = Set::read(&fields);
        assert_eq!(set.write(), fields);
        assert_eq!(
            set.paths(),
            [".a", ".b", ".b[name=\"x\"]", ".b[name=\"x\"].c", ".d[=\"z\"]"]
        );
    }

    #[test]
    fn sets_are_compared() {
        let (a, b) = (
            Set::read(&json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}})),
            Set::read(&json!({"f:b": {"f:c": {}}, "f:e": {}})),
        );
        assert_eq!(a.minus(&b).write(), json!({"f:a": {}, "f:b": {"f:d": {}}}));
        assert_eq!(a.both(&b).write(), json!({"f:b": {"f:c": {}}}));
        assert_eq!(
            a.plus(&b).write(),
            json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}, "f:e": {}})
        );
        assert!(a.minus(&a).is_empty());
    }
}
