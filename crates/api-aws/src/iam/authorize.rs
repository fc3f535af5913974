//! Whether policies allow a call.

use serde_json::Value;
use tripod_model::aws::User;
use tripod_plan::iam::{Context, Decision, Question, Who, of_resource};

use super::identity::{Identity, of_caller};
use super::{resources, role_arn};
use crate::call::Call;
use crate::fault::Fault;
use crate::service::{Protocol, service};
use crate::value::Get as _;

/// What everybody may ask, or what decides for itself.
const FREE: &[&str] = &["GetCallerIdentity", "GetSessionToken", "AssumeRole"];

/// Refuses a call that no policy allows.
pub(crate) fn authorize(call: &Call, input: &Value) -> Result<(), Fault> {
    if call.service == "sts" && FREE.contains(&call.operation.as_str()) {
        return Ok(());
    }
    let identity = of_caller(call)?;
    let action = format!("{}:{}", call.service, call.operation);
    let context = context(call, input, &identity);
    for resource in resources::of(call, input) {
        let question = Question {
            action: &action,
            resource: &resource,
            context: &context,
        };
        let own = identity.decide(&question);
        let theirs = resources::policy(call, input)?;
        let decision = match &theirs {
            Some(policy) => own.or(by_resource(call, policy, &identity, &question)),
            None => own,
        };
        require(call, decision, &question)?;
    }
    for (role, to) in resources::passed_roles(call, input) {
        let mut context = context.clone();
        context.insert("iam:passedtoservice".into(), vec![to.into()]);
        let question = Question {
            action: "iam:PassRole",
            resource: &[role],
            context: &context,
        };
        require(call, identity.decide(&question), &question)?;
    }
    Ok(())
}

/// What the policy of a resource says of the caller. What it says of the whole account leaves the decision to the
/// account's own policies.
fn by_resource(call: &Call, policy: &str, identity: &Identity, question: &Question<'_>) -> Decision {
    let who = Who::Identity {
        arns: &identity.arns,
        account: call.account(),
    };
    let (by_name, by_account) = of_resource(policy, &who, question);
    match by_account {
        Decision::ExplicitDeny => Decision::ExplicitDeny,
        _ => by_name,
    }
}

/// Refuses unless the decision is to allow.
pub(crate) fn require(call: &Call, decision: Decision, question: &Question<'_>) -> Result<(), Fault> {
    let action = question.action;
    let why = match decision {
        Decision::Allowed => return Ok(()),
        Decision::ExplicitDeny => "with an explicit deny in an identity-based policy".to_owned(),
        Decision::ImplicitDeny => format!("because no identity-based policy allows the {action} action"),
    };
    let on = match question.resource.first() {
        Some(resource) if resource != "*" => format!(" on resource: {resource}"),
        _ => String::new(),
    };
    let text = format!(
        "User: {} is not authorized to perform: {action}{on} {why}",
        call.principal.arn
    );
    let protocol = service(&call.service).map_or(Protocol::Query, |s| s.protocol);
    Err(match protocol {
        Protocol::Json => Fault::new("AccessDeniedException", text),
        Protocol::Query => Fault::new("AccessDenied", text).status(403),
        Protocol::Ec2 => Fault::new("UnauthorizedOperation", text).status(403),
    })
}

/// What conditions can ask of a call.
pub(crate) fn context(call: &Call, input: &Value, identity: &Identity) -> Context {
    let mut out = Context::new();
    let mut add = |key: &str, value: String| {
        out.insert(key.to_lowercase(), vec![value]);
    };
    let p = &call.principal;
    let now = call.now();
    add(
        "aws:PrincipalArn",
        identity.arns.first().cloned().unwrap_or_default(),
    );
    add("aws:PrincipalAccount", call.account().into());
    add("aws:userid", p.id.clone());
    let kind = match &p.user {
        Some(_) => "User",
        None if p.arn.contains(":federated-user/") => "FederatedUser",
        None => "AssumedRole",
    };
    add("aws:PrincipalType", kind.into());
    if let Some(user) = &p.user {
        add("aws:username", user.clone());
    }
    add("aws:RequestedRegion", call.region.clone());
    add("aws:CurrentTime", now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    add("aws:EpochTime", now.as_second().to_string());
    add("aws:SecureTransport", "false".into());
    if let Some(source) = call.source {
        add("aws:SourceIp", source.to_string());
    }
    for (key, value) in &identity.tags {
        add(&format!("aws:PrincipalTag/{key}"), value.clone());
    }
    let tags = resources::request_tags(input);
    for (key, value) in &tags {
        add(&format!("aws:RequestTag/{key}"), value.clone());
    }
    let keys: Vec<String> = tags
        .into_keys()
        .chain(input.texts("tagKeys"))
        .chain(input.texts("TagKeys"))
        .collect();
    for (key, value) in resources::own_keys(call, input) {
        add(key, value);
    }
    let asks_for_tags = |d: &String| d.to_lowercase().contains("resourcetag/");
    if identity
        .documents
        .iter()
        .chain(identity.bounds.iter().flatten())
        .any(asks_for_tags)
    {
        for (key, value) in resources::tags(call, input) {
            add(&format!("aws:ResourceTag/{key}"), value.clone());
            add(&format!("{}:ResourceTag/{key}", call.service), value);
        }
    }
    if !keys.is_empty() {
        out.insert("aws:tagkeys".into(), keys);
    }
    out
}

/// Whether the caller may assume a role: its trust policy names the caller, or names the account, whose policies allow it.
pub(crate) fn may_assume(
    call: &Call,
    input: &Value,
    role: &tripod_model::aws::RoleSpec,
) -> Result<bool, Fault> {
    let identity = of_caller(call)?;
    let mut context = context(call, input, &identity);
    let mut add = |key: &str, value: Option<&str>| {
        context.extend(value.map(|v| (key.to_owned(), vec![v.to_owned()])));
    };
    add("sts:externalid", input.maybe("ExternalId"));
    add("sts:rolesessionname", input.maybe("RoleSessionName"));
    add("sts:sourceidentity", input.maybe("SourceIdentity"));
    let resource = [role_arn(call.account(), role)];
    let question = Question {
        action: "sts:AssumeRole",
        resource: &resource,
        context: &context,
    };
    let who = Who::Identity {
        arns: &identity.arns,
        account: call.account(),
    };
    let (by_name, by_account) = of_resource(&role.trust, &who, &question);
    let own = identity.decide(&question);
    Ok(match (by_name, by_account, own) {
        (Decision::ExplicitDeny, _, _) | (_, Decision::ExplicitDeny, _) | (_, _, Decision::ExplicitDeny) => {
            false
        }
        (Decision::Allowed, _, _) => true,
        (_, Decision::Allowed, own) => own == Decision::Allowed,
        _ => false,
    })
}

/// The user that an ARN names.
pub(super) fn user_of_arn(call: &Call, arn: &str) -> Result<Option<User>, Fault> {
    let name = arn.rsplit('/').next().unwrap_or_default();
    let user = call
        .state()
        .get::<User>("", &tripod_engine::aws::user_object(name))?;
    Ok(user.filter(|u| super::users::arn(call, &u.spec) == arn))
}
