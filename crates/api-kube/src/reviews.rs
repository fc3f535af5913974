//! Reviews: who somebody is, and what somebody may do.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};
use tripod_schema::failure::Result;
use tripod_schema::value::{list, object_mut, text};
use tripod_schema::{Cause, Failure};

use crate::authn::User;
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::encode::value_reply;
use crate::reply::Reply;
use crate::subresources::read;
use crate::target::Target;

/// Answers a review.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let kind = target.kind;
    let mut review = read(call, kind.schema, kind.kind).await?;
    let status = match kind.kind {
        "TokenReview" => token(call, &review).await?,
        "SelfSubjectReview" => json!({"userInfo": info(&call.user)}),
        "SelfSubjectRulesReview" => rules(call, &review)?,
        "SelfSubjectAccessReview" => access(call, &call.user, &review)?,
        "LocalSubjectAccessReview" => {
            let namespace = text(&review, &["spec", "resourceAttributes", "namespace"]);
            if namespace != target.namespace {
                let why = "must match metadata.namespace";
                let causes = vec![Cause::invalid_text(
                    "spec.resourceAttributes.namespace",
                    namespace,
                    why,
                )];
                return Err(Failure::invalid(kind, "", causes));
            }
            access(call, &subject(&review)?, &review)?
        }
        "SubjectAccessReview" => access(call, &subject(&review)?, &review)?,
        _ => return Err(Failure::no_page()),
    };
    let map = object_mut(&mut review, &[]);
    map.insert("apiVersion".into(), kind.api_version().into());
    map.insert("kind".into(), kind.kind.into());
    map.entry("metadata").or_insert_with(|| json!({}));
    map.insert("status".into(), status);
    value_reply(call, StatusCode::CREATED, &review)
}

/// `UserInfo` of a user.
fn info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

async fn token(call: &Call, review: &Value) -> Result<Value> {
    let token = text(review, &["spec", "token"]);
    if token.is_empty() {
        return Err(Failure::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<String> = list(review, &["spec", "audiences"])
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    match crate::token::user(&call.shared, &call.manager, token, &audiences).await {
        Ok((user, met)) => Ok(json!({"authenticated": true, "user": info(&user), "audiences": met})),
        Err(failure) if failure.code == 401 => {
            Ok(json!({"user": {}, "error": "[invalid bearer token, the token cannot be verified]"}))
        }
        Err(failure) => Err(failure),
    }
}

/// The user that a review asks about.
fn subject(review: &Value) -> Result<User> {
    let spec = &review["spec"];
    let groups: Vec<String> = list(spec, &["groups"])
        .iter()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect();
    let name = text(spec, &["user"]).to_owned();
    if name.is_empty() && groups.is_empty() {
        let causes = vec![Cause::invalid_text(
            "spec.user",
            "",
            "at least one of user or group must be specified",
        )];
        return Err(Failure::invalid_named(
            "authorization.k8s.io",
            "SubjectAccessReview",
            "",
            causes,
        ));
    }
    Ok(User {
        name,
        groups,
        uid: text(spec, &["uid"]).to_owned(),
        extra: BTreeMap::new(),
    })
}

/// What a review asks for.
fn asked(review: &Value) -> Result<Attributes> {
    let spec = &review["spec"];
    if let Some(path) = spec.get("nonResourceAttributes") {
        if spec.get("resourceAttributes").is_some() {
            let why = "cannot be specified in combination with resourceAttributes";
            let causes = vec![Cause::invalid("spec.nonResourceAttributes", path, why)];
            return Err(Failure::invalid_named(
                "authorization.k8s.io",
                text(review, &["kind"]),
                "",
                causes,
            ));
        }
        return Ok(Attributes {
            verb: text(path, &["verb"]).to_owned(),
            path: text(path, &["path"]).to_owned(),
            ..Attributes::default()
        });
    }
    let Some(resource) = spec.get("resourceAttributes") else {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let causes = vec![Cause::invalid("spec.resourceAttributes", &Value::Null, why)];
        return Err(Failure::invalid_named(
            "authorization.k8s.io",
            text(review, &["kind"]),
            "",
            causes,
        ));
    };
    let word = |name: &str| text(resource, &[name]).to_owned();
    let sub = word("subresource");
    let plural = word("resource");
    Ok(Attributes {
        verb: word("verb"),
        group: word("group"),
        resource: if sub.is_empty() {
            plural
        } else {
            format!("{plural}/{sub}")
        },
        namespace: word("namespace"),
        name: word("name"),
        path: String::new(),
    })
}

fn access(call: &Call, user: &User, review: &Value) -> Result<Value> {
    let asked = asked(review)?;
    let rules = call.shared.rules.rules(&call.manager);
    Ok(if authz::allowed(&rules, user, &asked) {
        json!({"allowed": true, "reason": "RBAC: allowed"})
    } else {
        json!({"allowed": false})
    })
}

fn rules(call: &Call, review: &Value) -> Result<Value> {
    let namespace = text(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let all = call.shared.rules.rules(&call.manager);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if call.user.is_master() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in all.of_user(&call.user, namespace) {
        if !rule.resources.is_empty() {
            let mut shown =
                json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                shown["resourceNames"] = json!(rule.names);
            }
            resources.push(shown);
        }
        if !rule.paths.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}
