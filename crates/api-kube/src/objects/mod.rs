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
use tripod_schema::apply::Writer;
use tripod_schema::decode::{Findings, conform, format_time};
use tripod_schema::failure::Result;
use tripod_schema::{Cause, Failure};
use tripod_store::Key;

use crate::call::Call;
use crate::reply::Reply;
use crate::target::Target;

/// Does what a request asks of objects.
pub(crate) async fn serve(call: &Call, target: &Target, verb: &str) -> Reply {
    check_options(call, verb)?;
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

/// Refuses options of a write that do not exist.
fn check_options(call: &Call, verb: &str) -> Result<()> {
    let options = match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => return Ok(()),
    };
    let mut causes = Vec::new();
    for value in call.query.all("dryRun").filter(|v| !v.is_empty() && *v != "All") {
        causes.push(Cause::unsupported("dryRun", value, &["All"]));
    }
    if options != "DeleteOptions"
        && let Some(value) = call.query.get("fieldValidation")
        && !["", "Ignore", "Strict", "Warn"].contains(&value)
    {
        let known = ["", "Ignore", "Strict", "Warn"];
        causes.push(Cause::unsupported("fieldValidation", value, &known));
    }
    if let Some(manager) = call.query.get("fieldManager") {
        if manager.chars().count() > 128 {
            causes.push(Cause::too_long("fieldManager", 128));
        }
        if manager.chars().any(char::is_control) {
            causes.push(Cause::invalid(
                "fieldManager",
                &manager.into(),
                "should only contain printable characters",
            ));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid_named("meta.k8s.io", options, "", causes))
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

pub(crate) fn strictness(call: &Call) -> Strictness {
    match call.query.get("fieldValidation") {
        Some("Ignore") => Strictness::Ignore,
        Some("Strict") => Strictness::Strict,
        _ => Strictness::Warn,
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
    match strictness(call) {
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
