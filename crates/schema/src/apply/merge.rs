//! Merging a configuration into an object, and taking fields out of it.

use serde_json::{Map, Value};

use super::set::{Set, key_step, value_step};
use crate::types::{Merge, Ty, types};

/// `config` merged into `base`.
pub(super) fn merged(base: &Value, config: &Value, ty: &Ty, merge: &Merge) -> Value {
    match (base, config, ty, merge) {
        (Value::Object(base), Value::Object(config), Ty::Object(id), Merge::Granular) => {
            let fields = &types().object(*id).fields;
            let any = (Ty::Any, Merge::Atomic);
            members(base, config, |name| {
                fields.get(name).map_or((&any.0, &any.1), |f| (&f.ty, &f.merge))
            })
        }
        (Value::Object(base), Value::Object(config), Ty::Map(inner), Merge::Granular) => {
            members(base, config, |_| (inner, &Merge::Atomic))
        }
        (Value::Array(base), Value::Array(config), Ty::List(inner), Merge::Keys(keys)) => {
            let mut list = base.clone();
            for item in config {
                let step = key_step(item, keys);
                match list.iter_mut().find(|have| key_step(have, keys) == step) {
                    Some(have) => *have = merged(have, item, inner, &Merge::Granular),
                    None => list.push(item.clone()),
                }
            }
            Value::Array(list)
        }
        (Value::Array(base), Value::Array(config), _, Merge::Set) => {
            let mut list = base.clone();
            list.extend(config.iter().filter(|item| !base.contains(item)).cloned());
            Value::Array(list)
        }
        _ => config.clone(),
    }
}

fn members<'a>(
    base: &Map<String, Value>,
    config: &Map<String, Value>,
    of: impl Fn(&str) -> (&'a Ty, &'a Merge),
) -> Value {
    let mut map = base.clone();
    for (name, value) in config.iter().filter(|(_, v)| !v.is_null()) {
        let (ty, merge) = of(name);
        let next = match base.get(name) {
            Some(before) => merged(before, value, ty, merge),
            None => value.clone(),
        };
        map.insert(name.clone(), next);
    }
    Value::Object(map)
}

/// Takes the fields of a set out of a value.
pub(super) fn without(value: &mut Value, set: &Set, ty: &Ty) {
    match (value, ty) {
        (Value::Object(map), Ty::Object(id)) => {
            let fields = &types().object(*id).fields;
            for (step, child) in &set.children {
                let Some(name) = step.strip_prefix("f:") else {
                    continue;
                };
                if child.here {
                    map.remove(name);
                    continue;
                }
                if let (Some(below), Some(field)) = (map.get_mut(name), fields.get(name)) {
                    match &field.merge {
                        Merge::Keys(keys) => without_items(below, child, &field.ty, keys),
                        Merge::Set => without_values(below, child),
                        _ => without(below, child, &field.ty),
                    }
                    let empty = match below {
                        Value::Object(map) => map.is_empty(),
                        Value::Array(list) => list.is_empty(),
                        _ => false,
                    };
                    if empty {
                        map.remove(name);
                    }
                }
            }
        }
        (Value::Object(map), Ty::Map(_)) => {
            for (step, child) in &set.children {
                if let (Some(name), true) = (step.strip_prefix("f:"), child.here) {
                    map.remove(name);
                }
            }
        }
        _ => {}
    }
}

fn without_items(value: &mut Value, set: &Set, ty: &Ty, keys: &[String]) {
    let (Value::Array(list), Ty::List(inner)) = (value, ty) else {
        return;
    };
    list.retain_mut(|item| match set.children.get(&key_step(item, keys)) {
        Some(child) if child.here => false,
        Some(child) => {
            without(item, child, inner);
            true
        }
        None => true,
    });
}

fn without_values(value: &mut Value, set: &Set) {
    if let Value::Array(list) = value {
        list.retain(|item| !set.children.contains_key(&value_step(item)));
    }
}
