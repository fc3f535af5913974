//! The policy simulator: what policies would say.

use serde_json::{Value, json};
use tripod_plan::iam::{Context, Decision, Question, Who, context_keys, decide, of_resource};

use super::authorize::user_of_arn;
use super::groups;
use super::identity::{Identity, of_role, of_user};
use super::{document, document_of, find_role, listed, role_arn};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::Get as _;

/// The identity that an ARN names: a user, a role, or a group with its policies alone.
fn source(call: &Call, arn: &str) -> Result<Identity, Fault> {
    let missing = || {
        Fault::new(
            "NoSuchEntityException",
            format!("The entity {arn} cannot be found."),
        )
    };
    let name = crate::ecs::last_part(arn);
    if arn.contains(":user/") {
        return of_user(call, &user_of_arn(call, arn)?.ok_or_else(missing)?);
    }
    if arn.contains(":role/") {
        let role = find_role(&call.state(), name)?.filter(|r| role_arn(call.account(), &r.spec) == arn);
        return of_role(call, &role.ok_or_else(missing)?);
    }
    if !arn.contains(":group/") {
        let text = format!("Invalid Entity Arn: {arn} does not clearly define entity type and name.");
        return Err(Fault::new("InvalidInputException", text));
    }
    let group = groups::find(call, name).map_err(|_| missing())?.spec;
    let mut documents: Vec<String> = group.inline.into_values().collect();
    for arn in &group.attached {
        documents.extend(document_of(&call.state(), arn)?);
    }
    Ok(Identity {
        documents,
        arns: vec![arn.to_owned()],
        ..Identity::default()
    })
}

fn context(input: &Value, identity: &Identity) -> Context {
    let mut out = Context::new();
    if let Some(arn) = identity.arns.first() {
        out.insert("aws:principalarn".into(), vec![arn.clone()]);
        if arn.contains(":user/") {
            out.insert("aws:username".into(), vec![crate::ecs::last_part(arn).to_owned()]);
        }
    }
    for (key, value) in &identity.tags {
        out.insert(
            format!("aws:principaltag/{}", key.to_lowercase()),
            vec![value.clone()],
        );
    }
    for entry in input.items("ContextEntries") {
        out.insert(
            entry.text("ContextKeyName").to_lowercase(),
            entry.texts("ContextKeyValues"),
        );
    }
    out
}

fn run(call: &Call, input: &Value, identity: &Identity) -> Reply {
    let context = context(input, identity);
    let mut resources = input.texts("ResourceArns");
    if resources.is_empty() {
        resources.push("*".into());
    }
    let wanted: Vec<String> = identity
        .documents
        .iter()
        .chain(identity.bounds.iter().flatten())
        .flat_map(|d| context_keys(d))
        .filter(|k| !context.contains_key(&k.to_lowercase()))
        .collect();
    let mut results = Vec::new();
    for action in input.texts("ActionNames") {
        if !action.contains(':') {
            let text = format!("Invalid action name: {action}");
            return Err(Fault::new("InvalidInputException", text));
        }
        for resource in &resources {
            let question = Question {
                action: &action,
                resource: std::slice::from_ref(resource),
                context: &context,
            };
            let mut decision = identity.decide(&question);
            if let Some(policy) = input.maybe("ResourcePolicy") {
                let arns: Vec<String> = input.maybe("CallerArn").map(str::to_owned).into_iter().collect();
                let arns = if arns.is_empty() {
                    identity.arns.clone()
                } else {
                    arns
                };
                let who = Who::Identity {
                    arns: &arns,
                    account: call.account(),
                };
                decision = decision.or(of_resource(policy, &who, &question).0);
            }
            let bounded = !identity.bounds.is_empty();
            let within = identity
                .bounds
                .iter()
                .all(|b| decide(b.iter().map(String::as_str), &question) == Decision::Allowed);
            results.push(json!({
                "EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision.word(),
                "MatchedStatements": [], "MissingContextValues": wanted,
                "PermissionsBoundaryDecisionDetail":
                    bounded.then(|| json!({ "AllowedByPermissionsBoundary": within })),
            }));
        }
    }
    listed(input, "EvaluationResults", results)
}

pub(super) async fn custom(call: Call, input: Value) -> Reply {
    let mut identity = Identity {
        documents: input.texts("PolicyInputList"),
        ..Identity::default()
    };
    let bound = input.texts("PermissionsBoundaryPolicyInputList");
    identity
        .documents
        .iter()
        .chain(&bound)
        .try_for_each(|d| document(d))?;
    if !bound.is_empty() {
        identity.bounds.push(bound);
    }
    identity.arns.extend(input.maybe("CallerArn").map(str::to_owned));
    run(&call, &input, &identity)
}

pub(super) async fn principal(call: Call, input: Value) -> Reply {
    let mut identity = source(&call, input.text("PolicySourceArn"))?;
    let more = input.texts("PolicyInputList");
    let bound = input.texts("PermissionsBoundaryPolicyInputList");
    more.iter().chain(&bound).try_for_each(|d| document(d))?;
    identity.documents.extend(more);
    if !bound.is_empty() {
        identity.bounds = vec![bound];
    }
    run(&call, &input, &identity)
}

fn keys(documents: &[String]) -> Value {
    let mut keys: Vec<String> = documents.iter().flat_map(|d| context_keys(d)).collect();
    keys.sort_unstable();
    keys.dedup();
    json!({ "ContextKeyNames": keys })
}

pub(super) async fn custom_keys(_: Call, input: Value) -> Reply {
    let documents = input.texts("PolicyInputList");
    documents.iter().try_for_each(|d| document(d))?;
    Ok(keys(&documents))
}

pub(super) async fn principal_keys(call: Call, input: Value) -> Reply {
    let mut documents = source(&call, input.text("PolicySourceArn"))?.documents;
    documents.extend(input.texts("PolicyInputList"));
    Ok(keys(&documents))
}

/// Whether an ARN is that of a policy that can be a boundary.
pub(super) fn boundary(call: &Call, arn: &str) -> Result<(), Fault> {
    if document_of(&call.state(), arn)?.is_some() {
        return Ok(());
    }
    Err(Fault::new(
        "NoSuchEntityException",
        format!("Scope ARN: {arn} does not exist or is not attachable."),
    ))
}
