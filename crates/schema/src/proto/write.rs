//! Values to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::int_or_string;
use super::wire::{put_bytes, put_varint, put_varint_field};
use crate::types::{Ty, types};

/// The message of a value.
pub(super) fn message(value: &Value, ty: &Ty) -> Vec<u8> {
    let mut out = Vec::new();
    match (ty, value) {
        (Ty::Object(id), Value::Object(map)) => object(&mut out, map, *id),
        (Ty::Quantity, value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            put_bytes(&mut out, 1, text.as_bytes());
        }
        (Ty::Time | Ty::MicroTime, Value::String(text)) => {
            if let Ok(at) = text.parse::<Timestamp>() {
                put_varint_field(&mut out, 1, at.as_second() as u64);
                put_varint_field(&mut out, 2, i64::from(at.subsec_nanosecond()) as u64);
            }
        }
        (Ty::IntOrString, value) => out = int_or_string(value),
        (Ty::List(inner), Value::Array(list)) => list.iter().for_each(|v| field(&mut out, 1, v, inner)),
        (Ty::Any, value) => put_bytes(&mut out, 1, value.to_string().as_bytes()),
        _ => {}
    }
    out
}

/// The members of an object. Those of an embedded message are gathered in it.
fn object(out: &mut Vec<u8>, map: &Map<String, Value>, id: usize) {
    let object = types().object(id);
    let mut members: Vec<(&[u32], &Value, &Ty)> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(name, value)| {
            let field = object.fields.get(name)?;
            (!field.number.is_empty()).then_some((&field.number[..], value, &field.ty))
        })
        .collect();
    members.sort_by_key(|(number, _, _)| *number);
    put_members(out, &members);
}

fn put_members(out: &mut Vec<u8>, mut members: &[(&[u32], &Value, &Ty)]) {
    while let Some((number, value, ty)) = members.first() {
        if let [number] = number {
            field(out, *number, value, ty);
            members = &members[1..];
            continue;
        }
        let head = number[0];
        let count = members.iter().take_while(|(n, _, _)| n[0] == head).count();
        let inner: Vec<_> = members[..count]
            .iter()
            .map(|(n, v, t)| (&n[1..], *v, *t))
            .collect();
        let mut embedded = Vec::new();
        put_members(&mut embedded, &inner);
        put_bytes(out, head, &embedded);
        members = &members[count..];
    }
}

fn field(out: &mut Vec<u8>, number: u32, value: &Value, ty: &Ty) {
    match (ty, value) {
        (Ty::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Ty::Bytes, Value::String(text)) => {
            put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default());
        }
        (Ty::Int32 | Ty::Int64, Value::Number(n)) => {
            put_varint_field(out, number, n.as_i64().unwrap_or(0) as u64);
        }
        (Ty::Bool, Value::Bool(b)) => put_varint_field(out, number, u64::from(*b)),
        (Ty::Double, Value::Number(n)) => {
            put_varint(out, u64::from(number) << 3 | 1);
            out.extend_from_slice(&n.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        (Ty::List(inner), Value::Array(list)) => list.iter().for_each(|v| field(out, number, v, inner)),
        (Ty::Map(inner), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                match **inner {
                    // A list within a map is a message of its own.
                    Ty::List(_) => put_bytes(&mut entry, 2, &message(value, inner)),
                    _ => field(&mut entry, 2, value, inner),
                }
                put_bytes(out, number, &entry);
            }
        }
        (Ty::Object(_) | Ty::Quantity | Ty::Time | Ty::MicroTime | Ty::IntOrString | Ty::Any, value) => {
            put_bytes(out, number, &message(value, ty));
        }
        _ => {}
    }
}
