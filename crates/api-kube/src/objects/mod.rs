//! Operations on stored objects, the same for every kind.

mod create;
mod delete;
mod fault;
mod patch;
mod prepare;
mod read;
mod update;

pub(crate) use delete::{DeleteOptions, remove};
pub(crate) use fault::model_failure;
pub(crate) use prepare::{generated, new_uid};
pub(crate) use read::{Selection, reached, revision};
pub(crate) use update::change;

use serde_json::Value;
use tripod_schema::Failure;
use tripod_schema::apply::Writer;
use tripod_schema::decode::{Findings, conform, format_time};
use tripod_schema::failure::Result;
use tripod_store::Key;

use crate::call::Call;
use crate::reply::Reply;
use crate::target::Target;

/// Does what a request asks of objects.
pub(crate) async fn serve(call: &Call, target: &Target, verb: &str) -> Reply {
    if let Some(value) = call.query.all("dryRun").find(|v| !v.is_empty() && *v != "All") {
        return Err(Failure::bad_request(format_args!(
            "Invalid value: {value:?}: must be one of 'All'"
        )));
    }
    match verb {
        "get" => read::get(call, target),
        "list" => read::list(call, target).await,
        "watch" => crate::watch::serve(call, target).await,
        "create" => create::create(call, target).await,
        "update" => update::update(call, target).await,
        "patch" => patch::patch(call, target).await,
        "delete" => delete::delete(call, target).await,
        "deletecollection" => delete::collection(call, target).await,
        _ => Err(Failure::method_not_allowed(target.kind, verb)),
    }
}

/// Where an object is stored.
pub(crate) fn key(target: &Target) -> Key {
    Key::new(
        target.kind.stored().as_str(),
        target.namespace.as_str(),
        target.name.as_str(),
    )
}

/// Does something in the name of who writes.
pub(crate) fn with_writer<T>(call: &Call, target: &Target, act: impl FnOnce(&Writer<'_>) -> T) -> T {
    let manager = call.field_manager();
    let time = format_time(call.now(), false);
    act(&Writer {
        manager: &manager,
        subresource: target.sub.map_or("", |s| s.name),
        time: &time,
    })
}

/// How strictly bodies are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

pub(crate) fn strictness(call: &Call) -> Result<Strictness> {
    match call.query.get("fieldValidation") {
        None | Some("" | "Warn") => Ok(Strictness::Warn),
        Some("Ignore") => Ok(Strictness::Ignore),
        Some("Strict") => Ok(Strictness::Strict),
        Some(other) => Err(Failure::new(
            422,
            "Invalid",
            format_args!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            ),
        )),
    }
}

/// Brings an object into the form of its kind; what is unknown is told or refused.
pub(crate) fn conformed(
    call: &Call,
    target: &Target,
    object: &mut Value,
    mut findings: Findings,
) -> Result<()> {
    let kind = target.kind;
    let cannot = |why: &str| {
        Failure::bad_request(format_args!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            kind.kind, kind.version, kind.kind
        ))
    };
    conform(object, kind.schema, kind.kind, &mut findings).map_err(|e| cannot(&e))?;
    if findings.strict.is_empty() {
        return Ok(());
    }
    match strictness(call)? {
        Strictness::Ignore => Ok(()),
        Strictness::Warn => {
            findings.strict.iter().for_each(|text| call.warn(text));
            Ok(())
        }
        Strictness::Strict => Err(cannot(&format!(
            "strict decoding error: {}",
            findings.strict.join(", ")
        ))),
    }
}
