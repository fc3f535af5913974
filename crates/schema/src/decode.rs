//! Reading objects of clients: JSON with repeated members found, and values brought into the form of their type.

use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::quantity::Quantity;
use crate::types::{Ty, Types, types};

/// What was found while an object was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub strict: Vec<String>,
}

/// Parses JSON; members that occur twice are told, the last one counts.
///
/// # Errors
/// The parser's words for what is no JSON.
pub fn parse(bytes: &[u8], findings: &mut Findings) -> Result<Value, String> {
    let mut path = String::new();
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        path: &mut path,
        findings,
    };
    let value = seed.deserialize(&mut de).map_err(|e| e.to_string())?;
    de.end().map_err(|e| e.to_string())?;
    Ok(value)
}

struct Seed<'a> {
    path: &'a mut String,
    findings: &'a mut Findings,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let length = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let next = seq.next_element_seed(Seed {
                path: self.path,
                findings: self.findings,
            })?;
            self.path.truncate(length);
            match next {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let length = self.path.len();
        while let Some(key) = access.next_key::<String>()? {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if map.contains_key(&key) {
                self.findings
                    .strict
                    .push(format!("duplicate field {:?}", self.path));
            }
            let value = access.next_value_seed(Seed {
                path: self.path,
                findings: self.findings,
            })?;
            self.path.truncate(length);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Brings an object into the form of its type: unknown fields and nulls go, quantities and times become canonical.
///
/// # Errors
/// `json: cannot unmarshal …` when a value is not of its field's type.
pub fn conform(object: &mut Value, schema: &str, kind: &str, findings: &mut Findings) -> Result<(), String> {
    if schema.is_empty() {
        return Ok(());
    }
    let types = types();
    let mut walk = Walk {
        types,
        kind,
        path: String::new(),
        findings,
    };
    walk.value(object, &types.named(schema))
}

struct Walk<'a> {
    types: &'a Types,
    kind: &'a str,
    path: String,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    fn value(&mut self, value: &mut Value, ty: &Ty) -> Result<(), String> {
        match (ty, &mut *value) {
            (Ty::Any, _) => Ok(()),
            (Ty::Object(id), Value::Object(map)) => self.object(map, *id),
            (Ty::Map(inner), Value::Object(map)) => {
                map.retain(|_, v| !v.is_null() || **inner == Ty::String);
                for (key, value) in map.iter_mut() {
                    if value.is_null() {
                        *value = "".into();
                    }
                    self.below(&format!(".{key}"), value, inner)?;
                }
                Ok(())
            }
            (Ty::List(inner), Value::Array(list)) => {
                for (i, value) in list.iter_mut().enumerate() {
                    if value.is_null() {
                        return Err(self.mismatch("null", inner));
                    }
                    self.below(&format!("[{i}]"), value, inner)?;
                }
                Ok(())
            }
            (Ty::String | Ty::IntOrString, Value::String(_))
            | (Ty::Bool, Value::Bool(_))
            | (Ty::Double, Value::Number(_)) => Ok(()),
            (Ty::Int32 | Ty::IntOrString, Value::Number(n)) => {
                match n.as_i64().and_then(|n| i32::try_from(n).ok()) {
                    Some(_) => Ok(()),
                    None => Err(self.mismatch(&format!("number {n}"), ty)),
                }
            }
            (Ty::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
            (Ty::Int64, Value::Number(n)) => Err(self.mismatch(&format!("number {n}"), ty)),
            (Ty::Bytes, Value::String(text)) => match bad_base64(text) {
                None => Ok(()),
                Some(at) => Err(format!("illegal base64 data at input byte {at}")),
            },
            (Ty::Quantity, Value::String(_) | Value::Number(_)) => self.quantity(value),
            (Ty::Time | Ty::MicroTime, Value::String(text)) => {
                *value = time(text, *ty == Ty::MicroTime)?.into();
                Ok(())
            }
            (_, other) => {
                let found = name_of(other);
                Err(self.mismatch(found, ty))
            }
        }
    }

    fn below(&mut self, step: &str, value: &mut Value, ty: &Ty) -> Result<(), String> {
        let length = self.path.len();
        self.path.push_str(step);
        let outcome = self.value(value, ty);
        self.path.truncate(length);
        outcome
    }

    fn object(&mut self, map: &mut Map<String, Value>, id: usize) -> Result<(), String> {
        let object = self.types.object(id);
        let mut unknown = Vec::new();
        for (key, value) in map.iter_mut() {
            match object.fields.get(key) {
                None if object.open => {}
                None => unknown.push(key.clone()),
                Some(_) if value.is_null() => {}
                Some(field) => self.below(&format!(".{key}"), value, &field.ty)?,
            }
        }
        for key in unknown {
            map.remove(&key);
            let path = format!("{}.{key}", self.path);
            let path = path.trim_start_matches('.');
            self.findings.strict.push(format!("unknown field {path:?}"));
        }
        map.retain(|key, value| {
            let field = object.fields.get(key);
            let nothing = match value {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty() && field.is_some_and(|f| matches!(f.ty, Ty::Map(_))),
                _ => false,
            };
            !nothing
        });
        Ok(())
    }

    fn quantity(&self, value: &mut Value) -> Result<(), String> {
        let text = match &*value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match Quantity::parse(&text) {
            Some(quantity) => {
                *value = quantity.to_string().into();
                Ok(())
            }
            None => Err(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .to_owned(),
            ),
        }
    }

    fn mismatch(&self, found: &str, ty: &Ty) -> String {
        let wanted = match ty {
            Ty::Object(id) => {
                let name = &self.types.object(*id).name;
                let mut parts = name.rsplitn(3, '.');
                let (kind, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                format!("{version}.{kind}")
            }
            ty => go_name(ty),
        };
        let mut path = String::with_capacity(self.path.len());
        let mut depth = 0;
        for c in self.path.chars() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                c if depth == 0 => path.push(c),
                _ => {}
            }
        }
        format!(
            "json: cannot unmarshal {found} into Go struct field {}{path} of type {wanted}",
            self.kind
        )
    }
}

fn go_name(ty: &Ty) -> String {
    match ty {
        Ty::Object(_) | Ty::Any => "object".into(),
        Ty::Map(inner) => format!("map[string]{}", go_name(inner)),
        Ty::List(inner) => format!("[]{}", go_name(inner)),
        Ty::String => "string".into(),
        Ty::Bytes => "[]uint8".into(),
        Ty::Int32 => "int32".into(),
        Ty::Int64 => "int64".into(),
        Ty::Double => "float64".into(),
        Ty::Bool => "bool".into(),
        Ty::Quantity => "resource.Quantity".into(),
        Ty::IntOrString => "intstr.IntOrString".into(),
        Ty::Time => "v1.Time".into(),
        Ty::MicroTime => "v1.MicroTime".into(),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The first byte that is wrong in base64 with padding.
fn bad_base64(text: &str) -> Option<usize> {
    let body = text.trim_end_matches('=');
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/' || b == b'\n' || b == b'\r';
    if let Some(at) = body.bytes().position(|b| !ok(b)) {
        return Some(at);
    }
    let digits = text.bytes().filter(|b| *b != b'\n' && *b != b'\r').count();
    (!digits.is_multiple_of(4) || text.len() - body.len() > 2).then_some(text.len())
}

/// A time in its canonical form.
///
/// # Errors
/// When the text is none.
pub fn time(text: &str, micros: bool) -> Result<String, String> {
    let at: Timestamp = text.parse().map_err(|_| {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    })?;
    Ok(format_time(at, micros))
}

/// RFC 3339 in UTC, with seconds or microseconds.
pub fn format_time(at: Timestamp, micros: bool) -> String {
    if micros {
        at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    } else {
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> (Value, Result<(), String>, Vec<String>) {
        let (mut value, mut findings) = (value, Findings::default());
        let outcome = conform(&mut value, "core.v1.Pod", "Pod", &mut findings);
        (value, outcome, findings.strict)
    }

    #[test]
    fn unknown_fields_go_and_are_told() {
        let (v, ok, strict) =
            read(json!({"kind": "Pod", "spec": {"foo": 1, "containers": [{"name": "a", "bar": true}]}}));
        ok.unwrap();
        assert_eq!(v, json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}]}}));
        assert_eq!(
            strict,
            [
                "unknown field \"spec.containers[0].bar\"",
                "unknown field \"spec.foo\""
            ]
        );
    }

    #[test]
    fn types_are_checked() {
        let (_, bad, _) = read(json!({"spec": {"containers": [{"name": 5}]}}));
        assert_eq!(
            bad.unwrap_err(),
            "json: cannot unmarshal number into Go struct field Pod.spec.containers.name of type string"
        );
        let (_, bad, _) = read(json!({"spec": {"containers": {}}}));
        assert!(bad.unwrap_err().ends_with("of type []object"));
        let (_, bad, _) = read(json!({"spec": {"activeDeadlineSeconds": 1.5}}));
        assert!(bad.unwrap_err().contains("number 1.5"));
    }

    #[test]
    fn quantities_and_times_become_canonical() {
        let (v, ok, _) = read(
            json!({"metadata": {"creationTimestamp": "2024-01-01T01:00:00+01:00", "labels": {}},
            "spec": {"overhead": {"cpu": 0.5, "memory": "1024Mi"}}}),
        );
        ok.unwrap();
        assert_eq!(
            v,
            json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"overhead": {"cpu": "500m", "memory": "1Gi"}}})
        );
    }

    #[test]
    fn repeated_members_are_told() {
        let mut findings = Findings::default();
        let v = parse(br#"{"a":{"b":1,"b":2},"l":[{"x":1,"x":1}]}"#, &mut findings).unwrap();
        assert_eq!(v["a"]["b"], 2);
        assert_eq!(
            findings.strict,
            ["duplicate field \"a.b\"", "duplicate field \"l[0].x\""]
        );
        assert!(parse(b"{", &mut findings).is_err());
        assert!(parse(b"{} x", &mut findings).is_err());
    }

    #[test]
    fn base64_is_checked() {
        assert_eq!(bad_base64("YWJj"), None);
        assert_eq!(bad_base64("YQ=="), None);
        assert_eq!(bad_base64("Y*=="), Some(1));
        assert!(bad_base64("YWJ").is_some());
    }
}
