//! Protobuf of the built-in kinds, from and to JSON values, driven by the table of types.
//!
//! An object travels in an envelope: four magic bytes, then a message with the type's name and the object's own
//! message. Watches send events in frames with their length before them.

mod read;
mod wire;
mod write;

use serde_json::Value;

use crate::types::{Ty, types};
use wire::Reader;
pub(crate) use wire::{put_bytes, put_varint_field};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8; 4] = b"k8s\0";

/// The type of an object's message: that of its kind, or one that all kinds share.
fn type_of(api_version: &str, kind: &str) -> Option<Ty> {
    if let Some(known) = crate::kinds::registry().by_kind(api_version, kind) {
        return (!known.schema.is_empty()).then(|| types().named(known.schema));
    }
    let name = match (api_version, kind) {
        (_, "Status") => "meta.v1.Status",
        (_, "DeleteOptions") => "meta.v1.DeleteOptions",
        ("autoscaling/v1", "Scale") => "autoscaling.v1.Scale",
        ("policy/v1", "Eviction") => "policy.v1.Eviction",
        ("authentication.k8s.io/v1", "TokenRequest") => "authentication.v1.TokenRequest",
        _ => return None,
    };
    Some(types().named(name))
}

/// Writes an object of a built-in kind; `None` where there is no message for it.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let message = write::message(object, &type_of(api_version, kind)?);
    Some(envelope(api_version, kind, &message))
}

/// Writes a list of objects of a kind, each as [`item`] wrote it.
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(
        &mut message,
        1,
        &write::message(metadata, &types().named("meta.v1.ListMeta")),
    );
    for item in items {
        put_bytes(&mut message, 2, item);
    }
    envelope(api_version, kind, &message)
}

/// Writes an object without its envelope, for a list.
pub fn item(object: &Value, schema: &str) -> Vec<u8> {
    write::message(object, &types().named(schema))
}

/// Writes an event of a watch in its frame.
pub fn encode_event(what: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    put_bytes(&mut event, 1, what.as_bytes());
    put_bytes(&mut event, 2, &raw);
    let mut frame = u32::try_from(event.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    frame.extend_from_slice(&event);
    frame
}

fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(message.len() + meta.len() + 24);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, message);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Reads an object. What it does not say of its type is as in `expected` (`apiVersion`, `kind`).
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8], expected: Option<(&str, &str)>) -> Result<Value, String> {
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(body);
    while let Some((number, field)) = reader.next()? {
        match (number, field.bytes()) {
            (1, Some(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some((number, field)) = meta.next()? {
                    let text = String::from_utf8_lossy(field.bytes().unwrap_or_default()).into_owned();
                    match number {
                        1 => api_version = text,
                        2 => kind = text,
                        _ => {}
                    }
                }
            }
            (2, Some(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if let Some((version, name)) = expected {
        if api_version.is_empty() {
            api_version = version.to_owned();
        }
        if kind.is_empty() {
            kind = name.to_owned();
        }
    }
    let ty = type_of(&api_version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?}"))?;
    let mut object = read::message(raw, &ty)?;
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
    Ok(object)
}

/// A message of one number, as `IntOrString` needs.
fn int_or_string(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::String(text) => {
            put_varint_field(&mut out, 1, 1);
            put_varint_field(&mut out, 2, 0);
            put_bytes(&mut out, 3, text.as_bytes());
        }
        other => {
            put_varint_field(&mut out, 1, 0);
            put_varint_field(&mut out, 2, other.as_i64().unwrap_or(0) as u64);
            put_bytes(&mut out, 3, b"");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there_and_back(object: Value) {
        let bytes = encode(&object).unwrap();
        assert!(bytes.starts_with(MAGIC));
        assert_eq!(decode(&bytes, None).unwrap(), object);
    }

    #[test]
    fn objects_survive_the_way() {
        there_and_back(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "", "y": "z"}, "creationTimestamp": "2024-05-01T10:00:00Z",
                "generation": 3, "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "n", "uid": "u", "controller": false}],
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "i", "command": ["a", ""], "resources": {"limits": {"cpu": "100m"}},
                    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "securityContext": {"runAsUser": 0, "privileged": false}}],
                "volumes": [{"name": "v", "configMap": {"name": "cm", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}],
                "securityContext": {"supplementalGroups": [1, 2, 300]},
                "tolerations": [{"operator": "Exists", "tolerationSeconds": -1}],
            },
            "status": {},
        }));
        there_and_back(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC", "b": ""}, "type": "Opaque"}),
        );
        there_and_back(
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "eventTime": "2024-05-01T10:00:00.123456Z"}),
        );
        there_and_back(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}, "status": {"loadBalancer": {}}}),
        );
        there_and_back(
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "s"}, "data": {"spec": {"x": [1, "2"]}}, "revision": 2}),
        );
        there_and_back(
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}, "status": {"userInfo": {"username": "u", "extra": {"k": ["a", "b"]}}}}),
        );
        there_and_back(
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "p"}, "spec": {"hostPath": {"path": "/x"}, "capacity": {"storage": "1Gi"}}, "status": {}}),
        );
    }

    #[test]
    fn what_go_writes_for_nothing_is_nothing() {
        // A container port with hostPort 0, an empty name and hostIP: written by clients whose types have no pointers.
        let mut port = Vec::new();
        put_bytes(&mut port, 1, b"");
        put_varint_field(&mut port, 2, 0);
        put_varint_field(&mut port, 3, 80);
        put_bytes(&mut port, 4, b"TCP");
        put_bytes(&mut port, 5, b"");
        let read = read::message(&port, &types().named("core.v1.ContainerPort")).unwrap();
        assert_eq!(read, json!({"containerPort": 80, "protocol": "TCP"}));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(decode(b"{}", None).is_err());
        assert!(decode(b"k8s\0\xff\xff", None).is_err());
        assert!(decode(b"k8s\0", None).is_err());
        assert!(decode(b"k8s\0", Some(("v1", "Pod"))).is_ok());
        for cut in 5..40 {
            let bytes = encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "abcdef"}, "data": {"a": "b"}})).unwrap();
            // Cut anywhere: an error or less, never a panic.
            let _ = decode(&bytes[..cut.min(bytes.len())], None);
        }
    }

    #[test]
    fn events_are_framed() {
        let frame = encode_event("ADDED", b"xyz");
        assert_eq!(
            frame[..4],
            (u32::try_from(frame.len()).unwrap() - 4).to_be_bytes()
        );
    }
}
