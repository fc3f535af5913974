//! Bodies: read with a limit, decoded from JSON, YAML or protobuf.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tripod_schema::Failure;
use tripod_schema::decode::{Findings, parse};
use tripod_schema::failure::Result;

use crate::call::Call;

/// Bytes that a body may have: what the store of Kubernetes takes.
const LIMIT: usize = 3 << 20;
/// How deep values may nest.
const DEPTH: usize = 100;

/// The whole body.
pub(crate) async fn read(call: &Call) -> Result<Bytes> {
    let Some(mut body) = call.take_body() else {
        return Ok(Bytes::new());
    };
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Failure::bad_request(format_args!("cannot read the request's body: {e}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > LIMIT {
                return Err(Failure::new(
                    413,
                    "RequestEntityTooLarge",
                    format_args!("Request entity too large: limit is {LIMIT}"),
                ));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The media type of the body, without parameters.
pub(crate) fn media_type(call: &Call) -> &str {
    let header = call.header("content-type").unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim()
}

/// A value from a body in one of the forms that objects may have.
pub(crate) fn value(call: &Call, bytes: &[u8], findings: &mut Findings) -> Result<Value> {
    match media_type(call) {
        "application/json" | "" => json(bytes, findings),
        "application/yaml" | "text/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => crate::encode::from_protobuf(bytes),
        other => Err(Failure::new(
            415,
            "UnsupportedMediaType",
            format_args!(
                "the body of the request was in an unknown format ({other}) - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf"
            ),
        )),
    }
}

/// A value from JSON.
pub(crate) fn json(bytes: &[u8], findings: &mut Findings) -> Result<Value> {
    let value = parse(bytes, findings).map_err(|e| {
        Failure::bad_request(format_args!("couldn't get version/kind; json parse error: {e}"))
    })?;
    if depth(&value) > DEPTH {
        return Err(Failure::bad_request("the object is nested too deeply"));
    }
    Ok(value)
}

/// A value from YAML.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value> {
    let value: Value = serde_yaml::from_slice(bytes).map_err(|e| {
        Failure::bad_request(format_args!("couldn't get version/kind; yaml parse error: {e}"))
    })?;
    if depth(&value) > DEPTH {
        return Err(Failure::bad_request("the object is nested too deeply"));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
