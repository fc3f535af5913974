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
    AssumeRole => assume, "there are no MFA devices; session tags are not kept";
    GetSessionToken => session_token, "there are no MFA devices";
    GetFederationToken => federation_token;
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
    if !crate::iam::may_assume(&call, &input, &role.spec)? {
        return Err(denied());
    }
    no_mfa(&input)?;
    let seconds = input.number("DurationSeconds").unwrap_or(3600);
    if seconds > role.spec.max_session {
        let text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(Fault::new("ValidationError", text));
    }
    if call.principal.user.is_none() && seconds > 3600 {
        let text = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
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
        session_policies: session_policies(&call, &input)?,
        ..AccessKeySpec::default()
    };
    Ok(json!({
        "Credentials": session(&call, spec, seconds).await?,
        "AssumedRoleUser": { "AssumedRoleId": session_id, "Arn": session_arn },
        "PackedPolicySize": packed(&input), "SourceIdentity": input.get("SourceIdentity"),
    }))
}

/// Policies that a session is to be held within: the one given, and managed ones.
fn session_policies(call: &Call, input: &Value) -> Result<Vec<String>, Fault> {
    let mut out: Vec<String> = input.maybe("Policy").map(str::to_owned).into_iter().collect();
    out.iter().try_for_each(|text| crate::iam::document(text))?;
    for given in input.items("PolicyArns") {
        let arn = given.text("arn");
        let text = format!("PolicyArns: {arn} does not exist.");
        let document = crate::iam::document_of(&call.state(), arn)?;
        out.push(document.ok_or_else(|| Fault::new("ValidationError", text))?);
    }
    Ok(out)
}

/// Per cent of the room for session policies and tags that is used.
fn packed(input: &Value) -> Value {
    let bytes = input.text("Policy").len();
    match bytes {
        0 => Value::Null,
        bytes => (bytes * 100 / 2048).clamp(1, 100).into(),
    }
}

/// There are no MFA devices: a code is never right.
fn no_mfa(input: &Value) -> Result<(), Fault> {
    if input.maybe("SerialNumber").is_none() && input.maybe("TokenCode").is_none() {
        return Ok(());
    }
    let text = "MultiFactorAuthentication failed with invalid MFA one time pass code.";
    Err(Fault::new("AccessDenied", text).status(403))
}

async fn federation_token(call: Call, input: Value) -> Reply {
    let Some(user) = &call.principal.user else {
        let text = "Cannot call GetFederationToken with session credentials";
        return Err(Fault::new("AccessDenied", text).status(403));
    };
    let name = input.text("Name");
    let arn = format!("arn:aws:sts::{}:federated-user/{name}", call.account());
    let id = format!("{}:{name}", call.account());
    let mut policies = session_policies(&call, &input)?;
    if policies.is_empty() {
        // Without a policy such a session may do nothing.
        policies.push(json!({ "Version": "2012-10-17", "Statement": [] }).to_string());
    }
    let spec = AccessKeySpec {
        session_arn: arn.clone(),
        session_id: id.clone(),
        session_user: user.clone(),
        session_policies: policies,
        ..AccessKeySpec::default()
    };
    let seconds = input.number("DurationSeconds").unwrap_or(43200);
    Ok(json!({
        "Credentials": session(&call, spec, seconds).await?,
        "FederatedUser": { "FederatedUserId": id, "Arn": arn }, "PackedPolicySize": packed(&input),
    }))
}

async fn session_token(call: Call, input: Value) -> Reply {
    let Some(user) = &call.principal.user else {
        let text = "Cannot call GetSessionToken with session credentials";
        return Err(Fault::new("AccessDenied", text).status(403));
    };
    no_mfa(&input)?;
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
