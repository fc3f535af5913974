//! Looking into values, and their canonical bytes.

use serde_json::{Map, Value};

/// The text at a path of member names; empty if there is none.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of member names.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, name| v.get(name))
}

/// The list at a path; empty if there is none.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The number at a path.
pub fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// Whether the value at a path is `true`.
pub fn is_true(value: &Value, path: &[&str]) -> bool {
    at(value, path) == Some(&Value::Bool(true))
}

/// The members of an object at a path, made if it is not there. A value that is no object is replaced.
pub fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = value;
    for name in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = &mut here[*name];
    }
    if !here.is_object() {
        *here = Value::Object(Map::new());
    }
    match here {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a member where there is none (or null).
pub fn default_to(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    match map.get(name) {
        None | Some(Value::Null) => drop(map.insert(name.to_owned(), value.into())),
        Some(_) => {}
    }
}

/// `metadata.name`.
pub fn name(value: &Value) -> &str {
    text(value, &["metadata", "name"])
}

/// `metadata.namespace`.
pub fn namespace(value: &Value) -> &str {
    text(value, &["metadata", "namespace"])
}

/// Canonical bytes: `apiVersion` and `kind` first, then the members by name.
pub fn to_bytes(object: &Value) -> Vec<u8> {
    let Value::Object(map) = object else {
        return serde_json::to_vec(object).unwrap_or_default();
    };
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    let first = ["apiVersion", "kind"];
    let head = first.iter().filter_map(|k| Some((*k, map.get(*k)?)));
    let tail = map
        .iter()
        .map(|(k, v)| (k.as_str(), v))
        .filter(|(k, _)| !first.contains(k));
    for (i, (key, value)) in head.chain(tail).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Writing values with string keys into memory cannot fail.
        let _ = serde_json::to_writer(&mut out, key);
        out.push(b':');
        let _ = serde_json::to_writer(&mut out, value);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_bytes_start_with_the_type() {
        let v = json!({"kind": "Pod", "metadata": {"name": "a"}, "apiVersion": "v1", "a": 1});
        assert_eq!(
            String::from_utf8(to_bytes(&v)).unwrap(),
            r#"{"apiVersion":"v1","kind":"Pod","a":1,"metadata":{"name":"a"}}"#
        );
        assert_eq!(name(&v), "a");
        assert_eq!(namespace(&v), "");
    }
}
