//! Creating objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::Value;
use tripod_schema::decode::Findings;
use tripod_schema::failure::Result;
use tripod_schema::value::{name, namespace, object_mut, text};
use tripod_schema::{Failure, apply, validate};
use tripod_store::{Expected, Key, Txn};

use super::{conformed, fault, prepare};
use crate::body;
use crate::call::Call;
use crate::convert::{inward, outward_bytes};
use crate::encode::object_reply;
use crate::reply::Reply;
use crate::target::Target;

/// How often another name is tried when a generated one is taken.
const NAMES: usize = 8;

/// `POST` to a collection.
pub(super) async fn create(call: &Call, target: &Target) -> Reply {
    let bytes = body::read(call).await?;
    let mut findings = Findings::default();
    let mut object = body::value(call, &bytes, &mut findings)?;
    check_type(target, &object)?;
    conformed(call, target, &mut object, findings)?;
    let created = insert(call, target, object, None).await?;
    object_reply(call, target.kind, StatusCode::CREATED, &created)
}

/// Creates an object that was read already, and returns it as it is shown.
///
/// `fields` are its managed fields where they are not those of a plain creation.
pub(super) async fn insert(
    call: &Call,
    target: &Target,
    object: Value,
    fields: Option<Value>,
) -> Result<bytes::Bytes> {
    let kind = target.kind;
    let object = inward(kind, object);
    check_namespace(target, &object)?;
    let made_up = name(&object).is_empty();
    let _turn = call.shared.turns.take(call, target).await;
    let mut attempt = 0;
    loop {
        let mut candidate = object.clone();
        prepare::birth(call, target, &mut candidate)?;
        prepare::strategy_create(kind, &mut candidate);
        prepare::stamp_taints(kind, &mut candidate, call.now());
        if name(&candidate).is_empty() {
            return Err(Failure::invalid(
                kind,
                "",
                vec![tripod_schema::Cause::required(
                    "metadata.name",
                    "name or generateName is required",
                )],
            ));
        }
        let named = name(&candidate).to_owned();
        let key = Key::new(kind.stored().as_str(), target.namespace.as_str(), named.as_str());
        let mut txn = Txn::new();
        if kind.namespaced {
            txn = txn.check(alive(call, target)?, Expected::Exists);
        }
        crate::admission::create(call, target, &mut candidate)?;
        validate::create(kind.storage(), &candidate)?;
        if text(&candidate, &["type"]) == TOKEN_SECRET && kind.resource() == "secrets" {
            fill_token(call, target, &mut candidate).await?;
        }
        let charges = crate::admission::charge(call, target, None, &candidate)?;
        match &fields {
            Some(fields) => candidate["metadata"]["managedFields"] = fields.clone(),
            None => super::with_writer(call, target, |writer| {
                apply::update(kind.storage(), None, &mut candidate, writer);
            }),
        }
        let claims = prepare::claims(kind, &candidate, &[]);
        let stored = prepare::stored_bytes(kind, &mut candidate)?;
        if call.manager.state().get(&key).is_some() {
            if made_up && attempt < NAMES {
                attempt += 1;
                continue;
            }
            return Err(Failure::already_exists(kind, &named));
        }
        if call.dry_run() {
            return Ok(outward_bytes(kind, &stored.into()));
        }
        let txn = charges
            .into_iter()
            .fold(txn.create(key, stored, claims), |txn, charge| charge.onto(txn));
        match call.manager.write(txn).await {
            Ok(done) => {
                let stored = done.objects.into_iter().flatten().next();
                let stored = stored.ok_or_else(|| Failure::internal("nothing was written"))?;
                return Ok(outward_bytes(kind, &stored.bytes));
            }
            // Somebody else's object was counted meanwhile.
            Err(e) if fault::recounted(&e) => {}
            Err(e) => {
                let failure = fault::failure(kind, &named, e);
                if !(made_up && failure.reason == "AlreadyExists" && attempt < NAMES) {
                    return Err(failure);
                }
                attempt += 1;
            }
        }
    }
}

/// The type of secrets that hold a token of a service account for good.
const TOKEN_SECRET: &str = "kubernetes.io/service-account-token";
/// Such tokens have no end of their own: they hold as long as the account and the secret.
const FOR_GOOD: i64 = 10 * 365 * 24 * 3600;

/// Puts the token into a secret that is to hold one.
async fn fill_token(call: &Call, target: &Target, secret: &mut Value) -> Result<()> {
    let name = text(
        secret,
        &["metadata", "annotations", "kubernetes.io/service-account.name"],
    )
    .to_owned();
    let key = Key::new("serviceaccounts", target.namespace.as_str(), name.as_str());
    let uid = call.manager.state().get(&key).map(|o| o.uid.to_string());
    // Without its account nothing is filled in.
    let Some(uid) = uid else { return Ok(()) };
    let said = |secret: &Value, what: &str| text(secret, &["metadata", what]).to_owned();
    let wish = crate::token::Wish {
        namespace: &target.namespace,
        account: &name,
        account_uid: &uid,
        audiences: &[],
        seconds: FOR_GOOD,
        bound: None,
        kept_in: Some((said(secret, "name"), said(secret, "uid"))),
    };
    let (token, _) = crate::token::issue(&call.shared, &call.manager, &wish).await?;
    let authority = call
        .manager
        .authority_certificate()
        .map_err(|e| super::model_failure(&e))?;
    object_mut(secret, &["metadata", "annotations"])
        .insert("kubernetes.io/service-account.uid".into(), uid.into());
    let data = object_mut(secret, &["data"]);
    for (key, value) in [
        ("token", token.as_str()),
        ("ca.crt", authority.as_str()),
        ("namespace", target.namespace.as_str()),
    ] {
        data.insert(key.into(), STANDARD.encode(value).into());
    }
    Ok(())
}

/// The key of the namespace, which must be there and not on its way out.
fn alive(call: &Call, target: &Target) -> Result<Key> {
    let key = Key::cluster("namespaces", target.namespace.as_str());
    let state = call.manager.state();
    let stored = state
        .get(&key)
        .ok_or_else(|| Failure::not_found_named("", "namespaces", &target.namespace))?;
    let namespace: Value = serde_json::from_slice(&stored.bytes).unwrap_or_default();
    if text(&namespace, &["status", "phase"]) == "Terminating" {
        let mut failure = Failure::forbidden(
            target.kind,
            &target.name,
            format_args!(
                "unable to create new content in namespace {} because it is being terminated",
                target.namespace
            ),
        );
        failure.details.causes.push(tripod_schema::Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {} is being terminated", target.namespace),
            field: "metadata.namespace".into(),
        });
        return Err(failure);
    }
    Ok(key)
}

/// Refuses an object of another type than the path's.
pub(super) fn check_type(target: &Target, object: &Value) -> Result<()> {
    let kind = target.kind;
    if !object.is_object() {
        return Err(Failure::bad_request("the object provided is not an object"));
    }
    let (said_version, said_kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    if !said_kind.is_empty() && said_kind != kind.kind {
        let (want, api) = (kind.kind, kind.api_version());
        return Err(Failure::bad_request(format_args!(
            "{said_kind} in version {said_version:?} cannot be handled as a {want}: converting ({said_version}.{said_kind}) \
             to ({api}.{want}): unknown conversion"
        )));
    }
    if !said_version.is_empty() && said_version != kind.api_version() {
        return Err(Failure::bad_request(format_args!(
            "the API version in the data ({said_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    Ok(())
}

/// Refuses an object of another namespace than the path's.
pub(super) fn check_namespace(target: &Target, object: &Value) -> Result<()> {
    let said = namespace(object);
    if target.kind.namespaced && target.namespace.is_empty() {
        return Err(Failure::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    if !said.is_empty() && target.kind.namespaced && said != target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
