//! The patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and the strategic merge patch, which merges lists
//! by the keys of their types.

use serde_json::{Map, Value};

use crate::failure::{Failure, Result};
use crate::types::{Field, Object, Ty, types};

/// Applies a JSON merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch.
///
/// # Errors
/// 400 for what is no JSON patch, 422 for one that does not apply.
pub fn json(target: &mut Value, patch: &[u8]) -> Result<()> {
    let patch: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|e| Failure::bad_request(format_args!("error decoding patch: {e}")))?;
    if patch.0.len() > 10_000 {
        return Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            "The allowed maximum operations in a JSON patch is 10000",
        ));
    }
    // On a copy: what the library does to take steps back does not work for every patch.
    let mut patched = target.clone();
    json_patch::patch_unsafe(&mut patched, &patch).map_err(|e| {
        Failure::new(
            422,
            "Invalid",
            format_args!("the server rejected our request due to an error in our request: {e}"),
        )
    })?;
    *target = patched;
    Ok(())
}

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of a schema.
///
/// # Errors
/// 400 for a directive that is none.
pub fn strategic(target: &mut Value, patch: &Value, schema: &str) -> Result<()> {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(Failure::bad_request("a strategic merge patch must be an object"));
    };
    merge_object(target, patch, &types().named(schema))
}

fn object_of(ty: &Ty) -> Option<&'static Object> {
    match ty {
        Ty::Object(id) => Some(types().object(*id)),
        _ => None,
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE_PRIMITIVES)
}

fn merge_object(target: &mut Map<String, Value>, patch: &Map<String, Value>, ty: &Ty) -> Result<()> {
    match patch.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
        Some("replace") => {
            target.clear();
            target.extend(
                patch
                    .iter()
                    .filter(|(k, _)| !is_directive(k))
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Failure::bad_request(format_args!("unknown patch type: {other}"))),
    }
    if let Some(Value::Array(keep)) = patch.get(RETAIN) {
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    let object = object_of(ty);
    let any = Ty::Any;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (target.get_mut(name), value) {
                list.retain(|v| !gone.contains(v));
            }
            continue;
        }
        if is_directive(key) {
            continue;
        }
        let field = object.and_then(|o| o.fields.get(key));
        let inner = match (field, ty) {
            (Some(field), _) => &field.ty,
            (None, Ty::Map(inner)) => inner,
            _ => &any,
        };
        merge_member(target, key, value, inner, field)?;
    }
    for (key, order) in patch {
        if let (Some(name), Value::Array(order)) = (key.strip_prefix(ORDER), order)
            && let Some(Value::Array(list)) = target.get_mut(name)
        {
            let by = object
                .and_then(|o| o.fields.get(name))
                .and_then(|f| f.patch_key.as_deref());
            reorder(list, order, by.unwrap_or_default());
        }
    }
    Ok(())
}

fn merge_member(
    target: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    ty: &Ty,
    field: Option<&Field>,
) -> Result<()> {
    match value {
        Value::Null => drop(target.remove(key)),
        Value::Object(patch) => {
            let here = target
                .entry(key.to_owned())
                .or_insert_with(|| Value::Object(Map::new()));
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            let delete = patch.get(DIRECTIVE).is_some_and(|d| d == "delete");
            if let Value::Object(here) = here {
                merge_object(here, patch, ty)?;
            }
            if delete {
                target.remove(key);
            }
        }
        Value::Array(patch) => {
            let by = field.and_then(|f| f.patch_key.as_deref());
            let inner = match ty {
                Ty::List(inner) => inner,
                _ => &Ty::Any,
            };
            match (by, target.get_mut(key)) {
                (Some(by), Some(Value::Array(list))) => merge_list(list, patch, by, inner)?,
                (by, _) => {
                    let mut list = Vec::new();
                    match by {
                        Some(by) => merge_list(&mut list, patch, by, inner)?,
                        None => list.clone_from(patch),
                    }
                    target.insert(key.to_owned(), Value::Array(list));
                }
            }
        }
        other => drop(target.insert(key.to_owned(), other.clone())),
    }
    Ok(())
}

fn merge_list(list: &mut Vec<Value>, patch: &[Value], by: &str, ty: &Ty) -> Result<()> {
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch
        .iter()
        .any(|item| directive(item).as_deref() == Some("replace") && item.get(by).is_none())
    {
        list.clear();
        list.extend(patch.iter().filter(|item| directive(item).is_none()).cloned());
        return Ok(());
    }
    for item in patch {
        if by.is_empty() {
            if !list.contains(item) {
                list.push(item.clone());
            }
            continue;
        }
        let Some(key) = item.get(by) else {
            return Err(Failure::bad_request(format_args!(
                "map: {item} does not contain declared merge key: {by}"
            )));
        };
        let found = list.iter().position(|have| have.get(by) == Some(key));
        match (directive(item).as_deref(), found) {
            (Some("delete"), _) => list.retain(|have| have.get(by) != Some(key)),
            (_, found) => {
                let mut fresh = Value::Object(Map::new());
                let here = match found {
                    Some(at) => &mut list[at],
                    None => &mut fresh,
                };
                if let (Value::Object(here), Value::Object(item)) = (here, item) {
                    merge_object(here, item, ty)?;
                }
                if found.is_none() {
                    list.push(fresh);
                }
            }
        }
    }
    Ok(())
}

/// Puts the elements that `order` names into its order; the others stay behind the element that they followed.
fn reorder(list: &mut Vec<Value>, order: &[Value], by: &str) {
    let same = |a: &Value, b: &Value| {
        if by.is_empty() {
            a == b
        } else {
            a.get(by) == b.get(by)
        }
    };
    let rank = |item: &Value| order.iter().position(|o| same(o, item));
    let mut last = None;
    let mut ranked: Vec<(Option<usize>, usize, Value)> = Vec::new();
    for (i, item) in std::mem::take(list).into_iter().enumerate() {
        let own = rank(&item);
        // What the patch does not know goes with the known element before it.
        let at = own.or(last);
        if own.is_some() {
            last = own;
        }
        ranked.push((at, if own.is_some() { 0 } else { i + 1 }, item));
    }
    ranked.sort_by_key(|(rank, after, _)| (*rank, *after));
    list.extend(ranked.into_iter().map(|(_, _, item)| item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patches() {
        let mut v = json!({"a": 1, "b": {"c": 2, "d": 3}});
        merge(
            &mut v,
            &json!({"a": null, "b": {"c": 5}, "e": {"f": null, "g": 1}}),
        );
        assert_eq!(v, json!({"b": {"c": 5, "d": 3}, "e": {"g": 1}}));
    }

    #[test]
    fn json_patches() {
        let mut v = json!({"a": [1]});
        json(
            &mut v,
            br#"[{"op":"add","path":"/a/-","value":2},{"op":"test","path":"/a/0","value":1}]"#,
        )
        .unwrap();
        assert_eq!(v, json!({"a": [1, 2]}));
        assert_eq!(
            json(&mut v, br#"[{"op":"remove","path":"/x"}]"#)
                .unwrap_err()
                .code,
            422
        );
        assert_eq!(json(&mut v, b"{}").unwrap_err().code, 400);
        let whole = br#"[{"op":"move","path":"","from":"/a"},{"op":"remove","path":"/x"}]"#;
        assert_eq!(json(&mut v, whole).unwrap_err().code, 422);
        assert_eq!(v, json!({"a": [1, 2]}));
    }

    fn pod(patch: Value) -> Value {
        let mut v = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "one", "image": "1"}, {"name": "two", "image": "2"}],
                "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}]}});
        strategic(&mut v, &patch, "core.v1.Pod").unwrap();
        v
    }

    #[test]
    fn strategic_patches_merge_by_key() {
        let v = pod(
            json!({"spec": {"containers": [{"name": "two", "image": "3"}, {"name": "three", "image": "4"}],
            "tolerations": [{"key": "z"}]}, "metadata": {"labels": {"c": "d"}, "finalizers": ["y", "x"]}}),
        );
        assert_eq!(
            v["spec"]["containers"],
            json!([{"name": "one", "image": "1"}, {"name": "two", "image": "3"}, {"name": "three", "image": "4"}])
        );
        assert_eq!(v["spec"]["tolerations"], json!([{"key": "z"}]));
        assert_eq!(v["metadata"]["labels"], json!({"a": "b", "c": "d"}));
        assert_eq!(v["metadata"]["finalizers"], json!(["x", "y"]));
    }

    #[test]
    fn strategic_directives() {
        let v = pod(
            json!({"spec": {"containers": [{"name": "one", "$patch": "delete"}]},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "labels": {"$patch": "replace", "z": "z"}}}),
        );
        assert_eq!(v["spec"]["containers"], json!([{"name": "two", "image": "2"}]));
        assert_eq!(v["metadata"], json!({"labels": {"z": "z"}, "finalizers": []}));
        let v = pod(
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        );
        assert_eq!(
            v["spec"]["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/"}}])
        );
        let v = pod(
            json!({"spec": {"$setElementOrder/containers": [{"name": "new"}, {"name": "two"}, {"name": "one"}],
            "containers": [{"name": "new", "image": "n"}]}}),
        );
        let names: Vec<_> = v["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["new", "two", "one"]);
        let mut v = json!({});
        assert!(
            strategic(
                &mut v,
                &json!({"spec": {"containers": [{"image": "x"}]}}),
                "core.v1.Pod"
            )
            .is_err()
        );
    }
}
