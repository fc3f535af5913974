//! OpenAPI, versions 2 and 3.

use http::StatusCode;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use serde_json::json;
use tripod_schema::failure::Result;
use tripod_schema::{Failure, openapi, openapi_proto};

use crate::call::Call;
use crate::reply::{self, Reply};

/// Changes when what is described does.
fn etag() -> String {
    format!("\"{}-{}\"", crate::KUBERNETES_VERSION, env!("CARGO_PKG_VERSION"))
}

/// Answers `/openapi/…`.
pub(crate) fn serve(call: &Call, rest: &[&str]) -> Reply {
    let fresh = call
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == etag().as_bytes());
    let document = match rest {
        ["v2"] => {
            let wanted = call.header("accept").unwrap_or_default();
            let json = ["application/json", "*/*", "application/*"]
                .iter()
                .any(|t| wanted.contains(t));
            if wanted.contains("application/com.github.proto-openapi.spec.v2") {
                return if fresh { not_modified() } else { protobuf() };
            }
            if !json && !wanted.is_empty() {
                return Err(Failure::new(
                    406,
                    "NotAcceptable",
                    "only the following media types are accepted: application/json",
                ));
            }
            if fresh {
                return not_modified();
            }
            openapi::v2()
        }
        ["v3"] => {
            let hash = etag().trim_matches('"').to_owned();
            let paths = openapi::group_versions().into_iter().map(|path| {
                let url = format!("/openapi/v3/{path}?hash={hash}");
                (path, json!({"serverRelativeURL": url}))
            });
            let paths: serde_json::Map<_, _> = paths.collect();
            json!({ "paths": paths })
        }
        ["v3", "api", version] => openapi::v3("", version).ok_or_else(Failure::no_page)?,
        ["v3", "apis", group, version] => openapi::v3(group, version).ok_or_else(Failure::no_page)?,
        _ => return Err(Failure::no_page()),
    };
    if fresh {
        return not_modified();
    }
    tagged(reply::json(&document))
}

/// The document of version 2 as protobuf.
fn protobuf() -> Reply {
    static BYTES: std::sync::OnceLock<bytes::Bytes> = std::sync::OnceLock::new();
    let bytes = BYTES.get_or_init(|| openapi_proto::document(&openapi::v2()).into());
    tagged(reply::bytes(
        StatusCode::OK,
        openapi_proto::MEDIA_TYPE,
        bytes.clone(),
    ))
}

fn tagged(mut response: tripod_edge::Response) -> Reply {
    if let Ok(value) = HeaderValue::from_str(&etag()) {
        response.headers_mut().insert(ETAG, value);
    }
    Ok(response)
}

fn not_modified() -> Result<tripod_edge::Response> {
    let mut response = http::Response::new(tripod_edge::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(response)
}
