//! Replacing objects.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tripod_schema::decode::Findings;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, name, text};
use tripod_schema::{Failure, apply, validate};
use tripod_store::{Expected, StoredObject, Txn};

use super::create::{check_namespace, check_type};
use super::{conformed, fault, key, prepare};
use crate::body;
use crate::call::Call;
use crate::convert::{inward, outward_bytes};
use crate::encode::object_reply;
use crate::reply::Reply;
use crate::target::Target;

/// How often a change without a precondition is tried anew when others write too.
const ATTEMPTS: usize = 16;

/// `PUT` of an object, or of a part of it.
pub(super) async fn update(call: &Call, target: &Target) -> Reply {
    let bytes = body::read(call).await?;
    let mut findings = Findings::default();
    let mut object = body::value(call, &bytes, &mut findings)?;
    check_type(target, &object)?;
    conformed(call, target, &mut object, findings)?;
    let object = inward(target.kind, object);
    check_namespace(target, &object)?;
    if name(&object) != target.name {
        return Err(Failure::bad_request(format_args!(
            "the name of the object ({}) does not match the name on the URL ({})",
            name(&object),
            target.name
        )));
    }
    let shown = change(call, target, |_| Ok(object.clone())).await?;
    object_reply(call, target.kind, StatusCode::OK, &shown)
}

/// Changes an object: `make` gives the new one from the old. Tried anew while others write, unless the new object names
/// the revision that it is based on.
pub(crate) async fn change(
    call: &Call,
    target: &Target,
    make: impl Fn(&Value) -> Result<Value>,
) -> Result<Bytes> {
    change_as(call, target, make, false).await
}

/// As [`change`]; `applied`: the new object says itself who owns its fields.
pub(super) async fn change_as(
    call: &Call,
    target: &Target,
    make: impl Fn(&Value) -> Result<Value>,
    applied: bool,
) -> Result<Bytes> {
    let kind = target.kind;
    let _turn = call.shared.turns.take(call, target).await;
    for attempt in 1.. {
        let state = call.manager.state();
        let stored = state
            .get(&key(target))
            .ok_or_else(|| Failure::not_found(kind, &target.name))?
            .clone();
        drop(state);
        let old: Value = serde_json::from_slice(&stored.bytes).map_err(Failure::internal)?;
        let mut new = make(&old)?;
        let based_on = check_preconditions(target, &stored, &new)?;
        prepare::inherit(kind, &old, &mut new, target.sub.map(|s| s.name));
        prepare::stamp_taints(kind, &mut new, call.now());
        crate::admission::update(call, target, &old, &mut new)?;
        let sub = target.sub.map(|s| s.name);
        validate::update(kind.storage(), &old, &new, sub)?;
        if !applied {
            super::with_writer(call, target, |writer| {
                apply::update(kind.storage(), Some(&old), &mut new, writer);
            });
        }
        prepare::count(kind, &old, &mut new, target.sub.map(|s| s.name));
        let charges = crate::admission::charge(call, target, Some(&old), &new)?;
        let txn = match transaction(target, &stored, &old, &mut new)? {
            Some(txn) => txn,
            None => return Ok(outward_bytes(kind, &stored.bytes)),
        };
        if call.dry_run() {
            let bytes = prepare::stored_bytes(kind, &mut new)?;
            return Ok(outward_bytes(kind, &bytes.into()));
        }
        let txn = charges.into_iter().fold(txn, |txn, charge| charge.onto(txn));
        match call.manager.write(txn).await {
            Ok(done) => {
                let stored = done.objects.into_iter().flatten().next();
                let stored = stored.ok_or_else(|| Failure::internal("nothing was written"))?;
                return Ok(outward_bytes(kind, &stored.bytes));
            }
            Err(e) if fault::recounted(&e) => {}
            Err(e) if fault::overtaken(&e) && !based_on && attempt < ATTEMPTS => {}
            Err(e) => return Err(fault::failure(kind, &target.name, e)),
        }
    }
    Err(Failure::modified(kind, &target.name))
}

/// Whether the new object says which revision it is based on; fails when that is not the current one.
fn check_preconditions(target: &Target, stored: &StoredObject, new: &Value) -> Result<bool> {
    let uid = text(new, &["metadata", "uid"]);
    if !uid.is_empty() && uid != &*stored.uid {
        return Err(Failure::conflict(
            target.kind,
            &target.name,
            format_args!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                stored.uid
            ),
        ));
    }
    match text(new, &["metadata", "resourceVersion"]) {
        "" => Ok(false),
        version if version.parse() == Ok(stored.revision) => Ok(true),
        version if version.parse::<u64>().is_err() => Err(Failure::bad_request(format_args!(
            "metadata.resourceVersion: Invalid value: {version:?}: must be specified for an update"
        ))),
        _ => Err(Failure::modified(target.kind, &target.name)),
    }
}

/// The write that a change comes to; none when nothing changed.
fn transaction(target: &Target, stored: &StoredObject, old: &Value, new: &mut Value) -> Result<Option<Txn>> {
    let kind = target.kind;
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    new["apiVersion"] = old["apiVersion"].clone();
    new["kind"] = old["kind"].clone();
    if new == old {
        return Ok(None);
    }
    let leaving = !text(new, &["metadata", "deletionTimestamp"]).is_empty();
    let held = !list(new, &["metadata", "finalizers"]).is_empty();
    let spec_held = kind.resource() == "namespaces" && !list(new, &["spec", "finalizers"]).is_empty();
    let graceful = new["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0)
        > 0;
    if leaving && !held && !spec_held && !graceful {
        // The last one who had to agree did.
        let key = key(target);
        return Ok(Some(
            Txn::new()
                .check(key.clone(), Expected::Revision(stored.revision))
                .delete(key),
        ));
    }
    let claims = prepare::claims(kind, new, &stored.claims);
    let bytes = prepare::stored_bytes(kind, new)?;
    Ok(Some(Txn::new().update(
        key(target),
        stored.revision,
        bytes,
        claims,
    )))
}
