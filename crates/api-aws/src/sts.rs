//! STS: who the caller is, and sessions of roles.

use jiff::SignedDuration;
use serde_json::{Value, json};
use tripod_engine::Manager;
use tripod_engine::aws::{hex_id, iam_id, secret_key, uid};
use tripod_model::Time;
use tripod_model::aws::{AccessKey, AccessKeySpec};

use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::iam::{find_role, role_arn};
use crate::value::{Get as _, epoch_of};

crate::operations! {
    GetCallerIdentity => identity;
    AssumeRole => assume, "session policies and MFA are not evaluated";
    GetSessionToken => session_token, "MFA is not evaluated";
    GetAccessKeyInfo => key_info;
    DecodeAuthorizationMessage => decode, "refused: messages are not encoded";
}

async fn identity(call: Call, _: Value) -> Reply {
    let p = &call.principal;
    Ok(json!({ "UserId": p.id, "Account": call.account(), "Arn": p.arn }))
}

/// Makes the key of a session.
pub(crate) async fn make_session(
    manager: &Manager,
    spec: AccessKeySpec,
    seconds: i64,
) -> Result<AccessKey, Fault> {
    let now = Time::now();
    let expires = now
        .saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Time::MAX);
    let spec = AccessKeySpec {
        id: iam_id("ASIA")[..20].to_owned(),
        secret: secret_key(),
        token: hex_id(64) + &hex_id(64),
        expires: Some(expires),
        ..spec
    };
    let key = AccessKey::new(spec.id.to_lowercase(), uid(), now, spec);
    Ok(manager.db().create(&key).await?)
}

/// The same, as answers have it.
async fn session(call: &Call, spec: AccessKeySpec, seconds: i64) -> Result<Value, Fault> {
    let key = make_session(&call.manager, spec, seconds).await?.spec;
    Ok(json!({
        "AccessKeyId": key.id, "SecretAccessKey": key.secret, "SessionToken": key.token,
        "Expiration": epoch_of(key.expires),
    }))
}

async fn assume(call: Call, input: Value) -> Reply {
    let (arn, name) = (input.text("RoleArn"), input.text("RoleSessionName"));
    let denied = || {
        let text = format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}",
            call.principal.arn
        );
        Fault::new("AccessDenied", text).status(403)
    };
    let role = find_role(&call.state(), arn.rsplit('/').next().unwrap_or_default())?;
    let role = role
        .filter(|r| role_arn(call.account(), &r.spec) == arn)
        .ok_or_else(denied)?;
    let root = format!("arn:aws:iam::{}:root", call.account());
    if !tripod_plan::iam::trusts(
        &role.spec.trust,
        "AWS",
        &[&call.principal.arn, &root, call.account()],
    ) {
        return Err(denied());
    }
    let seconds = input.number("DurationSeconds").unwrap_or(3600);
    if seconds > role.spec.max_session {
        let text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(Fault::new("ValidationError", text));
    }
    let session_arn = format!(
        "arn:aws:sts::{}:assumed-role/{}/{name}",
        call.account(),
        role.spec.name
    );
    let session_id = format!("{}:{name}", role.spec.id);
    let spec = AccessKeySpec {
        session_arn: session_arn.clone(),
        session_id: session_id.clone(),
        session_role: role.spec.name.clone(),
        ..AccessKeySpec::default()
    };
    Ok(json!({
        "Credentials": session(&call, spec, seconds).await?,
        "AssumedRoleUser": { "AssumedRoleId": session_id, "Arn": session_arn },
    }))
}

async fn session_token(call: Call, input: Value) -> Reply {
    let Some(user) = &call.principal.user else {
        let text = "Cannot call GetSessionToken with session credentials";
        return Err(Fault::new("AccessDenied", text).status(403));
    };
    let spec = AccessKeySpec {
        user: user.clone(),
        ..AccessKeySpec::default()
    };
    let seconds = input.number("DurationSeconds").unwrap_or(43200);
    Ok(json!({ "Credentials": session(&call, spec, seconds).await? }))
}

async fn key_info(call: Call, input: Value) -> Reply {
    let id = input.text("AccessKeyId");
    let key = call.state().get::<AccessKey>("", &id.to_lowercase())?;
    key.ok_or_else(|| Fault::new("ValidationError", format!("Access key {id} does not exist.")))?;
    Ok(json!({ "Account": call.account() }))
}

async fn decode(_: Call, _: Value) -> Reply {
    Err(Fault::new(
        "InvalidAuthorizationMessageException",
        "Message is not an encoded authorization message",
    ))
}
