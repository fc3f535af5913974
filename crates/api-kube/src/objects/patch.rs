//! Patching objects: JSON patch, merge patch, strategic merge patch, server-side apply.

use http::StatusCode;
use serde_json::Value;
use tripod_schema::decode::Findings;
use tripod_schema::failure::Result;
use tripod_schema::{Failure, patch as patches};

use super::{conformed, update};
use crate::body;
use crate::call::Call;
use crate::convert::{inward, outward};
use crate::encode::object_reply;
use crate::reply::Reply;
use crate::target::Target;

/// `PATCH` of an object, or of a part of it.
pub(super) async fn patch(call: &Call, target: &Target) -> Reply {
    let bytes = body::read(call).await?;
    let media_type = body::media_type(call).to_owned();
    let shown = match media_type.as_str() {
        "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => {
            let changed = |old: &Value| patched(call, target, &media_type, &bytes, old);
            update::change(call, target, changed).await?
        }
        other => {
            return Err(Failure::new(
                415,
                "UnsupportedMediaType",
                format_args!(
                    "the body of the request was in an unknown format ({other}) - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml"
                ),
            ));
        }
    };
    object_reply(call, target.kind, StatusCode::OK, &shown)
}

fn patched(call: &Call, target: &Target, media_type: &str, bytes: &[u8], old: &Value) -> Result<Value> {
    let kind = target.kind;
    let mut object = outward(kind, old);
    let mut findings = Findings::default();
    match media_type {
        "application/json-patch+json" => patches::json(&mut object, bytes)?,
        "application/merge-patch+json" => {
            let patch = body::json(bytes, &mut findings)?;
            patches::merge(&mut object, &patch);
        }
        _ => {
            let patch = body::json(bytes, &mut findings)?;
            if kind.schema.is_empty() {
                return Err(Failure::new(
                    415,
                    "UnsupportedMediaType",
                    "strategic merge patches are not supported for this kind",
                ));
            }
            patches::strategic(&mut object, &patch, kind.schema)?;
        }
    }
    conformed(call, target, &mut object, findings)?;
    let mut object = inward(kind, object);
    // The patch may name a revision; what it leaves alone is no precondition.
    if object["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] && object.is_object() {
        tripod_schema::value::object_mut(&mut object, &["metadata"]).remove("resourceVersion");
    }
    Ok(object)
}
