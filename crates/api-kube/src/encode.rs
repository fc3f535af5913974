//! Objects and lists in the form that the client accepts.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tripod_model::Time;
use tripod_schema::failure::Result;
use tripod_schema::{Failure, Kind, proto, table, value};

use crate::call::Call;
use crate::negotiate::{Encoding, Shape};
use crate::reply::{self, Reply};

const META: &str = "meta.k8s.io/v1";

/// Which part of an object a table's row carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn of(call: &Call) -> Result<Self> {
        match call.query.get("includeObject") {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Failure::bad_request(format_args!(
                "Invalid value: {other:?}: must be one of 'None', 'Metadata', 'Object'"
            ))),
        }
    }
}

/// An object of a body that is protobuf.
pub(crate) fn from_protobuf(bytes: &[u8]) -> Result<Value> {
    proto::decode(bytes, None).map_err(Failure::bad_request)
}

/// A value in the encoding that the client accepts.
pub(crate) fn value_reply(call: &Call, status: StatusCode, object: &Value) -> Reply {
    let mut response = match call.accept.encoding {
        Encoding::Protobuf => match proto::encode(object) {
            Some(bytes) => reply::bytes(status, proto::MEDIA_TYPE, bytes),
            None => return Err(unencodable()),
        },
        Encoding::Json => {
            let mut out = value::to_bytes(object);
            out.push(b'\n');
            reply::bytes(status, reply::JSON, out)
        }
        Encoding::Yaml => {
            let text = serde_yaml::to_string(object).map_err(Failure::internal)?;
            reply::bytes(status, "application/yaml", text)
        }
    };
    *response.status_mut() = status;
    Ok(response)
}

/// One object, as the client wants it shown. `bytes` are its JSON in the form of the kind.
pub(crate) fn object_reply(call: &Call, kind: &Kind, status: StatusCode, bytes: &Bytes) -> Reply {
    if call.accept.shape == Shape::Whole && call.accept.encoding == Encoding::Json {
        return Ok(reply::bytes(status, reply::JSON, bytes.clone()));
    }
    let object: Value = serde_json::from_slice(bytes).map_err(Failure::internal)?;
    let shown = match call.accept.shape {
        Shape::Whole | Shape::Discovery(_) => object,
        Shape::Partial => partial(&object),
        Shape::Table => {
            let version = value::text(&object, &["metadata", "resourceVersion"]);
            let rows = vec![row(kind, &object, Include::of(call)?, call.now())];
            table_of(kind, json!({"resourceVersion": version}), rows)
        }
    };
    value_reply(call, status, &shown)
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"apiVersion": META, "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// A row of a table.
pub(crate) fn row(kind: &Kind, object: &Value, include: Include, now: Time) -> Value {
    let mut row = json!({"cells": table::cells(kind, object, now)});
    match include {
        Include::None => row["object"] = Value::Null,
        Include::Metadata => row["object"] = partial(object),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// A table of rows.
pub(crate) fn table_of(kind: &Kind, metadata: Value, rows: Vec<Value>) -> Value {
    json!({
        "apiVersion": META,
        "kind": "Table",
        "metadata": metadata,
        "columnDefinitions": table::columns(kind),
        "rows": rows,
    })
}

/// 406: there is no protobuf of this.
fn unencodable() -> Failure {
    Failure::new(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )
}

/// Whether stored bytes can be sent as they are.
pub(crate) fn is_json(accept: crate::negotiate::Accept) -> bool {
    accept.encoding != Encoding::Protobuf
}

/// Adds an event of a watch.
pub(crate) fn watch_event(accept: crate::negotiate::Accept, what: &str, object: &Value, out: &mut BytesMut) {
    if accept.encoding == Encoding::Protobuf
        && let Some(bytes) = proto::encode(object)
    {
        out.extend_from_slice(&proto::encode_event(what, &bytes));
        return;
    }
    let line = json!({"type": what, "object": object});
    out.extend_from_slice(line.to_string().as_bytes());
    out.extend_from_slice(b"\n");
}

/// `metadata` of a list.
pub(crate) fn list_metadata(revision: u64, next: Option<String>, remaining: Option<usize>) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    if let Some(next) = next {
        metadata.insert("continue".into(), next.into());
    }
    if let Some(remaining) = remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    Value::Object(metadata)
}

/// Bytes from which compression pays.
const WORTH: usize = 128 << 10;

/// 200 with bytes; compressed where the client takes that, is not on this machine, and it pays.
fn compressed(call: &Call, content_type: &'static str, bytes: Vec<u8>) -> Reply {
    use std::io::Write as _;
    let wanted = call.header("accept-encoding").is_some_and(|h| h.contains("gzip"));
    let near = call.peer.address.is_none_or(|a| a.ip().is_loopback());
    if !wanted || near || bytes.len() < WORTH {
        return Ok(reply::bytes(StatusCode::OK, content_type, bytes));
    }
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 8), flate2::Compression::fast());
    encoder.write_all(&bytes).map_err(Failure::internal)?;
    let packed = encoder.finish().map_err(Failure::internal)?;
    let mut response = reply::bytes(StatusCode::OK, content_type, packed);
    let headers = response.headers_mut();
    headers.insert("content-encoding", http::HeaderValue::from_static("gzip"));
    headers.insert("vary", http::HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

/// A list of objects, each given as its JSON in the form of the kind.
pub(crate) fn list_reply(call: &Call, kind: &Kind, metadata: Value, items: Vec<Bytes>) -> Reply {
    if call.accept.shape == Shape::Whole && call.accept.encoding == Encoding::Json {
        let length: usize = items.iter().map(|i| i.len() + 1).sum();
        let mut out = Vec::with_capacity(length + 256);
        let head = format!(
            "{{\"kind\":{:?},\"apiVersion\":{:?},\"metadata\":{metadata},\"items\":[",
            kind.list_kind(),
            kind.api_version()
        );
        out.extend_from_slice(head.as_bytes());
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item);
        }
        out.extend_from_slice(b"]}\n");
        return compressed(call, reply::JSON, out);
    }
    if call.accept.shape == Shape::Whole && call.accept.encoding == Encoding::Protobuf {
        let mut messages = Vec::with_capacity(items.len());
        for bytes in items {
            let object: Value = serde_json::from_slice(&bytes).map_err(Failure::internal)?;
            messages.push(proto::item(&object, kind.schema));
        }
        let items = messages.iter().map(Vec::as_slice);
        let list = proto::encode_list(&kind.api_version(), &kind.list_kind(), &metadata, items);
        return compressed(call, proto::MEDIA_TYPE, list);
    }
    let include = Include::of(call)?;
    let now = call.now();
    let mut shown = Vec::with_capacity(items.len());
    for bytes in items {
        let object: Value = serde_json::from_slice(&bytes).map_err(Failure::internal)?;
        shown.push(match call.accept.shape {
            Shape::Whole | Shape::Discovery(_) => object,
            Shape::Partial => partial(&object),
            Shape::Table => row(kind, &object, include, now),
        });
    }
    let list = match call.accept.shape {
        Shape::Table => table_of(kind, metadata, shown),
        Shape::Partial => {
            json!({"apiVersion": META, "kind": "PartialObjectMetadataList", "metadata": metadata, "items": shown})
        }
        Shape::Whole | Shape::Discovery(_) => {
            json!({"apiVersion": kind.api_version(), "kind": kind.list_kind(), "metadata": metadata, "items": shown})
        }
    };
    value_reply(call, StatusCode::OK, &list)
}
