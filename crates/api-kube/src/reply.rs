//! Answers.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;
use tripod_edge::full;
use tripod_schema::Failure;
use tripod_schema::failure::Result;

/// What a handler comes to.
pub(crate) type Reply = Result<tripod_edge::Response>;

pub(crate) const JSON: &str = "application/json";

/// A response of bytes.
pub(crate) fn bytes(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> tripod_edge::Response {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Nothing may keep answers about a changing cluster.
    response.headers_mut().insert(
        HeaderName::from_static("cache-control"),
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// 200 with a JSON value.
pub(crate) fn json(value: &Value) -> tripod_edge::Response {
    json_status(StatusCode::OK, value)
}

/// A JSON value with a status.
pub(crate) fn json_status(status: StatusCode, value: &Value) -> tripod_edge::Response {
    let mut out = serde_json::to_vec(value).unwrap_or_default();
    out.push(b'\n');
    bytes(status, JSON, out)
}

/// 200 with a text.
pub(crate) fn text(text: impl Into<Bytes>) -> tripod_edge::Response {
    bytes(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// The response that a failure is.
pub(crate) fn failure(failure: &Failure) -> tripod_edge::Response {
    let status = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_status(status, &failure.status());
    if let Some(seconds) = failure.details.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    if failure.code == 401 {
        response.headers_mut().insert(
            "www-authenticate",
            HeaderValue::from_static("Bearer realm=\"kubernetes\""),
        );
    }
    response
}
