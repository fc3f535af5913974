//! The grammar of policy documents: what IAM refuses when a policy is written.

use serde_json::{Map, Value};

use super::each;

/// What a document that does not follow the grammar is refused with, unless there is more to say.
const SYNTAX: &str = "Syntax errors in policy.";
const CURRENT: &str = "2012-10-17";
const PARTITIONS: &[&str] = &[
    "*",
    "aws",
    "aws-cn",
    "aws-us-gov",
    "aws-iso",
    "aws-iso-b",
    "aws-iso-e",
    "aws-iso-f",
];
/// What the part of an IAM ARN after the account may begin with.
const IAM_PATHS: &[&str] = &[
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
];
/// Operators of conditions, without `IfExists` and `ForAllValues:`.
const OPERATORS: &[&str] = &[
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "DateEquals",
    "DateNotEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "Bool",
    "BinaryEquals",
    "IpAddress",
    "NotIpAddress",
    "ArnEquals",
    "ArnNotEquals",
    "ArnLike",
    "ArnNotLike",
    "Null",
];

/// Refuses what cannot be the policy of a user, group or role.
///
/// # Errors
/// IAM's words for what is wrong.
pub fn check_identity(text: &str) -> Result<(), String> {
    let document = object(text)?;
    let statements = statements(&document)?;
    for s in &statements {
        if s.contains_key("Principal") || s.contains_key("NotPrincipal") {
            return Err("Policy document should not specify a principal.".into());
        }
    }
    if document.get("Version").and_then(Value::as_str) != Some(CURRENT) {
        return Err("Policy document must be version 2012-10-17 or greater.".into());
    }
    for s in &statements {
        actions(s)?;
    }
    for s in &statements {
        resources(s)?;
    }
    unique(&statements)
}

/// Refuses what cannot be the trust policy of a role.
///
/// # Errors
/// IAM's words for what is wrong.
pub fn check_trust(text: &str) -> Result<(), String> {
    let document = object(text)?;
    let statements = statements(&document)?;
    for s in &statements {
        if !s.contains_key("Principal") && !s.contains_key("NotPrincipal") {
            return Err("Missing required field Principal".into());
        }
        if s.contains_key("Resource") || s.contains_key("NotResource") {
            return Err("Has prohibited field Resource".into());
        }
        if !s.contains_key("Action") && !s.contains_key("NotAction") {
            return Err("Missing required field Action".into());
        }
        actions(s)?;
    }
    unique(&statements)
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|_| SYNTAX)?;
    let Value::Object(document) = value else {
        return Err(SYNTAX.into());
    };
    let known = ["Version", "Id", "Statement"];
    if document.keys().any(|k| !known.contains(&k.as_str())) {
        return Err(SYNTAX.into());
    }
    match document.get("Version") {
        None => {}
        Some(Value::String(v)) if v == CURRENT || v == "2008-10-17" => {}
        Some(_) => return Err(SYNTAX.into()),
    }
    match document.get("Id") {
        None | Some(Value::String(_)) => Ok(document),
        Some(_) => Err(SYNTAX.into()),
    }
}

/// The statements, each of the right form.
fn statements(document: &Map<String, Value>) -> Result<Vec<&Map<String, Value>>, String> {
    let given = document.get("Statement").ok_or(SYNTAX)?;
    let list: Vec<&Value> = each(Some(given)).collect();
    if list.is_empty() {
        return Err(SYNTAX.into());
    }
    let mut out = Vec::new();
    for statement in list {
        let statement = statement.as_object().ok_or(SYNTAX)?;
        form(statement).ok_or(SYNTAX)?;
        out.push(statement);
    }
    Ok(out)
}

/// Whether a statement has the right members, of the right types.
fn form(s: &Map<String, Value>) -> Option<()> {
    for (key, value) in s {
        let fits = match key.as_str() {
            "Sid" => value.is_string(),
            "Effect" => matches!(value.as_str(), Some("Allow" | "Deny")),
            "Action" | "NotAction" | "Resource" | "NotResource" => texts(value),
            "Principal" | "NotPrincipal" => {
                value.as_str() == Some("*") || value.as_object().is_some_and(|m| m.values().all(texts))
            }
            "Condition" => value
                .as_object()
                .is_some_and(|m| m.iter().all(|(o, v)| condition(o, v))),
            _ => false,
        };
        if !fits {
            return None;
        }
    }
    let both = |a: &str, b: &str| s.contains_key(a) && s.contains_key(b);
    let sound = s.contains_key("Effect") && !both("Action", "NotAction") && !both("Resource", "NotResource");
    sound.then_some(())
}

/// A text, or a list of them.
fn texts(value: &Value) -> bool {
    value.is_string() || value.as_array().is_some_and(|l| l.iter().all(Value::is_string))
}

fn condition(operator: &str, keys: &Value) -> bool {
    let plain = operator
        .strip_prefix("ForAllValues:")
        .or_else(|| operator.strip_prefix("ForAnyValue:"))
        .unwrap_or(operator);
    let plain = plain.strip_suffix("IfExists").unwrap_or(plain);
    let scalar = |v: &Value| v.is_string() || v.is_boolean() || v.is_number();
    let values = |v: &Value| scalar(v) || v.as_array().is_some_and(|l| l.iter().all(scalar));
    OPERATORS.contains(&plain) && keys.as_object().is_some_and(|m| m.values().all(values))
}

fn listed<'a>(s: &'a Map<String, Value>, keys: [&str; 2]) -> Vec<&'a str> {
    let values = keys.into_iter().flat_map(|k| each(s.get(k)));
    values.filter_map(Value::as_str).collect()
}

fn actions(s: &Map<String, Value>) -> Result<(), String> {
    let actions = listed(s, ["Action", "NotAction"]);
    if actions.is_empty() {
        return Err("Policy statement must contain actions.".into());
    }
    for action in actions.into_iter().filter(|a| *a != "*") {
        let Some((vendor, name)) = action.split_once(':') else {
            return Err("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.".into());
        };
        if name.contains(':') {
            return Err("Actions/Condition can contain only one colon.".into());
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_*?".contains(c);
        if vendor.is_empty() || !vendor.chars().all(letter) {
            return Err(format!("Vendor {vendor} is not valid"));
        }
    }
    Ok(())
}

fn resources(s: &Map<String, Value>) -> Result<(), String> {
    let resources = listed(s, ["Resource", "NotResource"]);
    if resources.is_empty() {
        return Err("Policy statement must contain resources.".into());
    }
    resources.into_iter().filter(|r| *r != "*").try_for_each(resource)
}

fn resource(text: &str) -> Result<(), String> {
    // Whatever has a colon is taken for an ARN.
    let Some((_, rest)) = text.split_once(':') else {
        return Err(format!("Resource {text} must be in ARN format or \"*\"."));
    };
    let parts: Vec<&str> = rest.splitn(5, ':').collect();
    let part = |i: usize| parts.get(i).copied().unwrap_or("*");
    if !PARTITIONS.contains(&part(0)) {
        let whole: Vec<&str> = (0..5).map(part).collect();
        let whole = whole.join(":");
        return Err(format!(
            "Partition \"{}\" is not valid for resource \"arn:{whole}\".",
            part(0)
        ));
    }
    let (vendor, region) = (part(1), part(2));
    if parts.len() > 1 && vendor != "*" && vendor.contains(['*', '?']) {
        return Err("Resource vendor must be fully qualified and cannot contain regexes.".into());
    }
    if parts.len() < 5 || vendor.is_empty() {
        return Err("The policy failed legacy parsing".into());
    }
    if vendor == "s3" && !region.is_empty() && region != "*" {
        return Err(format!("Resource {text} can not contain region information."));
    }
    if vendor == "iam" {
        if !region.is_empty() && region != "*" {
            return Err(format!("IAM resource {text} cannot contain region information."));
        }
        let path = part(4);
        let known = path == "*" || path == "root" || IAM_PATHS.iter().any(|p| path.starts_with(p));
        if !known && !path.starts_with("${") && !path.contains('*') {
            return Err(format!(
                "IAM resource path must either be \"*\" or start with {}.",
                IAM_PATHS.join(", ")
            ));
        }
    }
    Ok(())
}

fn unique(statements: &[&Map<String, Value>]) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    let ids = statements.iter().filter_map(|s| s.get("Sid")?.as_str());
    for id in ids.filter(|id| !id.is_empty()) {
        if !seen.insert(id) {
            return Err("Statement IDs (SID) in a single policy must be unique.".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(change: impl FnOnce(&mut Value)) -> String {
        let mut document = json!({ "Version": CURRENT, "Statement": [
            { "Sid": "a", "Effect": "Allow", "Action": "ecs:*", "Resource": "*",
              "Condition": { "ForAllValues:StringLikeIfExists": { "k": ["v", true] } } },
        ] });
        change(&mut document);
        document.to_string()
    }

    fn statement(member: &'static str, value: Value) -> String {
        with(|d| d["Statement"][0][member] = value)
    }

    #[test]
    fn identity_policies() {
        assert_eq!(check_identity(&with(|_| {})), Ok(()));
        for arn in [
            "arn:aws:s3:::b/*",
            "arn:aws:iam::1:role/x",
            "arn:*:ecs:*:*:*",
            "arn:aws:iam::*:user/${aws:username}",
        ] {
            assert_eq!(
                check_identity(&statement("Resource", json!([arn]))),
                Ok(()),
                "{arn}"
            );
        }
        let both = with(|d| d["Statement"][0]["NotAction"] = json!("a:b"));
        for (document, why) in [
            ("nothing".to_owned(), SYNTAX),
            ("[]".into(), SYNTAX),
            (with(|d| d["More"] = json!(1)), SYNTAX),
            (with(|d| d["Version"] = json!("2013-10-17")), SYNTAX),
            (
                with(|d| d["Version"] = json!("2008-10-17")),
                "version 2012-10-17 or greater",
            ),
            (with(|d| d["Statement"] = json!([])), SYNTAX),
            (with(|d| d["Statement"] = json!(["x"])), SYNTAX),
            (both, SYNTAX),
            (statement("Effect", json!("Permit")), SYNTAX),
            (statement("Sid", json!(1)), SYNTAX),
            (statement("Condition", json!({ "StringSounds": {} })), SYNTAX),
            (statement("Condition", json!({ "Bool": "true" })), SYNTAX),
            (
                statement("Principal", json!("*")),
                "should not specify a principal",
            ),
            (statement("Action", json!([])), "must contain actions"),
            (statement("Action", json!("RunTask")), "prefaced by a vendor"),
            (statement("Action", json!("a:b:c")), "only one colon"),
            (statement("Action", json!("a a:b")), "Vendor a a is not valid"),
            (statement("Resource", json!([])), "must contain resources"),
            (
                statement("Resource", json!("name")),
                "Resource name must be in ARN format",
            ),
            (
                statement("Resource", json!("arn:b:c:d:e:f")),
                "Partition \"b\" is not valid for resource \"arn:b:c:d:e:f\"",
            ),
            (statement("Resource", json!("arn:aws:e*:::x")), "fully qualified"),
            (statement("Resource", json!("arn:aws:ecs")), "legacy parsing"),
            (
                statement("Resource", json!("arn:aws:s3:r::b")),
                "can not contain region",
            ),
            (
                statement("Resource", json!("arn:aws:iam:r:1:role/x")),
                "cannot contain region",
            ),
            (
                statement("Resource", json!("arn:aws:iam::1:thing")),
                "IAM resource path",
            ),
        ] {
            let said = check_identity(&document).unwrap_err();
            assert!(said.contains(why), "{document}: {said}");
        }
        let twice = with(|d| {
            let first = d["Statement"][0].clone();
            d["Statement"] = json!([first, first]);
        });
        assert!(check_identity(&twice).unwrap_err().contains("must be unique"));
    }

    #[test]
    fn trust_policies() {
        let trust = |principal: Value| {
            json!({ "Statement": { "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" } })
                .to_string()
        };
        assert_eq!(check_trust(&trust(json!({ "Service": ["a", "b"] }))), Ok(()));
        assert_eq!(check_trust(&trust(json!("*"))), Ok(()));
        assert!(check_trust(&trust(json!("me"))).is_err());
        let without = r#"{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}"#;
        assert!(check_trust(without).unwrap_err().contains("Principal"));
        assert!(
            check_trust(&with(|d| d["Statement"][0]["Principal"] = json!("*")))
                .unwrap_err()
                .contains("Resource")
        );
    }
}
