//! Messages to values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Raw, Reader};
use crate::decode::format_time;
use crate::types::{Field, Merge, Object, Ty, types};

/// Numbers that clients write as 0 when they mean nothing.
const NUMBERS: &[&str] = &[
    "generation",
    "hostPort",
    "nodePort",
    "healthCheckNodePort",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "minReadySeconds",
    "count",
    "deprecatedCount",
    "signal",
    "observedGeneration",
    "active",
    "succeeded",
    "failed",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "fullyLabeledReplicas",
    "currentReplicas",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];
/// Truths that clients write as false when they mean nothing.
const TRUTHS: &[&str] = &[
    "stdin",
    "stdinOnce",
    "tty",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "readOnly",
    "paused",
    "unschedulable",
    "publishNotReadyAddresses",
    "globalDefault",
    "denied",
    "authenticated",
];
/// Texts that mean something when they are empty.
const TEXTS: &[&str] = &["storageClassName"];

/// The value of a message.
pub(super) fn message(bytes: &[u8], ty: &Ty) -> Result<Value, String> {
    match ty {
        Ty::Object(id) => {
            let mut map = Map::new();
            object(&mut map, bytes, types().object(*id), &mut Vec::new())?;
            Ok(Value::Object(map))
        }
        Ty::Quantity => Ok(first(bytes)?.map_or(Value::Null, |b| text(b).into())),
        Ty::Time | Ty::MicroTime => time(bytes, *ty == Ty::MicroTime),
        Ty::IntOrString => int_or_string(bytes),
        Ty::List(inner) => {
            let mut list = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((_, raw)) = reader.next()? {
                list.push(scalar(raw, inner)?);
            }
            Ok(Value::Array(list))
        }
        _ => match first(bytes)? {
            Some(raw) if !raw.is_empty() => {
                serde_json::from_slice(raw).map_err(|e| format!("raw data is not JSON: {e}"))
            }
            _ => Ok(Value::Null),
        },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of field 1.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        if number == 1 {
            return Ok(raw.bytes());
        }
    }
    Ok(None)
}

fn time(bytes: &[u8], micros: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => seconds = raw.number().unwrap_or(0) as i64,
            2 => nanos = raw.number().unwrap_or(0) as i32,
            _ => {}
        }
    }
    // No time at all, as clients write it: nothing, or the first second of the year 1.
    if bytes.is_empty() || seconds == -62_135_596_800 {
        return Ok(Value::Null);
    }
    let at = Timestamp::new(seconds, nanos).map_err(|e| e.to_string())?;
    Ok(format_time(at, micros).into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut said) = (false, 0i32, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, raw)) = reader.next()? {
        match (field, raw) {
            (1, raw) => is_text = raw.number() == Some(1),
            (2, raw) => number = raw.number().unwrap_or(0) as i32,
            (3, Raw::Bytes(bytes)) => said = text(bytes),
            _ => {}
        }
    }
    Ok(if is_text { said.into() } else { number.into() })
}

/// Reads the fields of an object, or of a message embedded in it (`prefix` are the numbers on the way).
fn object(
    map: &mut Map<String, Value>,
    bytes: &[u8],
    object_type: &Object,
    prefix: &mut Vec<u32>,
) -> Result<(), String> {
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        prefix.push(number);
        let exact = object_type.fields.iter().find(|(_, f)| f.number == *prefix);
        match exact {
            Some((name, field)) => member(map, name, field, raw)?,
            None => {
                let embedded = object_type.fields.values().any(|f| f.number.starts_with(prefix));
                if let (true, Some(inner)) = (embedded, raw.bytes()) {
                    object(map, inner, object_type, prefix)?;
                }
            }
        }
        prefix.pop();
    }
    Ok(())
}

fn member(map: &mut Map<String, Value>, name: &str, field: &Field, raw: Raw<'_>) -> Result<(), String> {
    match &field.ty {
        Ty::List(inner) => {
            let list = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            if let (Ty::Int32 | Ty::Int64, Raw::Bytes(packed)) = (&**inner, raw) {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    list.push((reader.varint()? as i64).into());
                }
                return Ok(());
            }
            list.push(scalar(raw, inner)?);
        }
        Ty::Map(inner) => {
            let entries = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let (Value::Object(entries), Some(bytes)) = (entries, raw.bytes()) else {
                return Ok(());
            };
            let (mut key, mut value) = (String::new(), None);
            let mut reader = Reader::new(bytes);
            while let Some((number, raw)) = reader.next()? {
                match number {
                    1 => key = text(raw.bytes().unwrap_or_default()),
                    2 => value = Some(scalar(raw, inner)?),
                    _ => {}
                }
            }
            entries.insert(key, value.unwrap_or_else(|| empty(inner)));
        }
        ty => {
            let value = scalar(raw, ty)?;
            let nothing = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty() && !TEXTS.contains(&name),
                Value::Number(n) => n.as_i64() == Some(0) && NUMBERS.contains(&name),
                Value::Bool(b) => !*b && TRUTHS.contains(&name),
                _ => false,
            };
            if !nothing || (field.required && !value.is_null() && field.merge != Merge::Granular) {
                map.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn empty(ty: &Ty) -> Value {
    match ty {
        Ty::String | Ty::Bytes => "".into(),
        Ty::List(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

fn scalar(raw: Raw<'_>, ty: &Ty) -> Result<Value, String> {
    let wrong = || "proto: wrong wireType".to_owned();
    Ok(match ty {
        Ty::String => text(raw.bytes().ok_or_else(wrong)?).into(),
        Ty::Bytes => STANDARD.encode(raw.bytes().ok_or_else(wrong)?).into(),
        Ty::Int32 => (raw.number().ok_or_else(wrong)? as i32).into(),
        Ty::Int64 => (raw.number().ok_or_else(wrong)? as i64).into(),
        Ty::Bool => (raw.number().ok_or_else(wrong)? != 0).into(),
        Ty::Double => f64::from_bits(raw.number().ok_or_else(wrong)?).into(),
        ty => message(raw.bytes().ok_or_else(wrong)?, ty)?,
    })
}
