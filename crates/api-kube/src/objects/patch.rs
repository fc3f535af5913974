//! Patching objects: JSON patch, merge patch, strategic merge patch, server-side apply.

use http::StatusCode;
use serde_json::Value;
use tripod_schema::decode::Findings;
use tripod_schema::failure::Result;
use tripod_schema::value::{name, object_mut};
use tripod_schema::{Cause, Failure, apply, patch as patches};

use super::create::{self, check_namespace, check_type};
use super::{conformed, update};
use crate::body;
use crate::call::Call;
use crate::convert::{inward, outward};
use crate::encode::object_reply;
use crate::reply::Reply;
use crate::target::Target;

/// How often an apply is tried anew while the object comes and goes.
const ATTEMPTS: usize = 8;

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
        "application/apply-patch+yaml" => return applied(call, target, &bytes).await,
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

/// Server-side apply.
async fn applied(call: &Call, target: &Target, bytes: &[u8]) -> Reply {
    let kind = target.kind;
    let missing = |field: &str, why: &str| {
        let causes = vec![Cause::required(field, why)];
        Failure::invalid_named("meta.k8s.io", "PatchOptions", "", causes)
    };
    if call.query.get("fieldManager").unwrap_or_default().is_empty() {
        return Err(missing("fieldManager", "is required for apply patch"));
    }
    let mut config = body::yaml(bytes)?;
    if config["apiVersion"].is_null() || config["kind"].is_null() {
        return Err(Failure::bad_request("apply patch must set apiVersion and kind"));
    }
    check_type(target, &config)?;
    conformed(call, target, &mut config, Findings::default())?;
    if config["metadata"]
        .get("managedFields")
        .is_some_and(|f| f.as_array().is_some_and(|l| !l.is_empty()))
    {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let said = name(&config);
    if !said.is_empty() && said != target.name {
        return Err(Failure::bad_request(format_args!(
            "the name of the object ({said}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let mut config = inward(kind, config);
    object_mut(&mut config, &["metadata"]).insert("name".into(), target.name.clone().into());
    check_namespace(target, &config)?;
    let force = call.query.flag("force");
    for _ in 0..ATTEMPTS {
        if call.manager.state().get(&super::key(target)).is_none() {
            if target.sub.is_some() {
                return Err(Failure::not_found(kind, &target.name));
            }
            let made = super::with_writer(call, target, |w| {
                apply::apply(kind.storage(), None, &config, w, force)
            })?;
            let fields = made["metadata"].get("managedFields").cloned();
            match create::insert(call, target, config.clone(), fields.or(Some(Value::Null))).await {
                Ok(bytes) => return object_reply(call, kind, StatusCode::CREATED, &bytes),
                // Somebody else was faster: then it is a change.
                Err(failure) if failure.reason == "AlreadyExists" => continue,
                Err(failure) => return Err(failure),
            }
        }
        let make = |old: &Value| {
            let mut new = super::with_writer(call, target, |w| {
                apply::apply(kind.storage(), Some(old), &config, w, force)
            })?;
            if config["metadata"].get("resourceVersion").is_none() {
                object_mut(&mut new, &["metadata"]).remove("resourceVersion");
            }
            Ok(new)
        };
        let shown = update::change_as(call, target, make, true).await?;
        return object_reply(call, kind, StatusCode::OK, &shown);
    }
    Err(Failure::modified(kind, &target.name))
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
