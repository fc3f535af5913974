//! Whether policies allow an action: an explicit Deny decides, else an Allow is needed.

use serde_json::Value;

/// What the documents say of an action on a resource.
pub fn allowed<'a>(documents: impl IntoIterator<Item = &'a str>, action: &str, resource: &str) -> bool {
    let mut allow = false;
    for document in documents {
        let Ok(document) = serde_json::from_str::<Value>(document) else {
            continue;
        };
        for statement in each(document.get("Statement")) {
            if !applies(statement, action, resource) {
                continue;
            }
            // Conditions are not evaluated: they are taken to hold where that refuses, and not where it allows.
            match statement.get("Effect").and_then(Value::as_str) {
                Some("Deny") => return false,
                Some("Allow") if statement.get("Condition").is_none() => allow = true,
                _ => {}
            }
        }
    }
    allow
}

fn applies(statement: &Value, action: &str, resource: &str) -> bool {
    let of = |key: &str, text: &str, fold: bool| {
        let mut patterns = each(statement.get(key)).filter_map(Value::as_str);
        patterns.any(|p| {
            if fold {
                matches(&p.to_lowercase(), &text.to_lowercase())
            } else {
                matches(p, text)
            }
        })
    };
    let has = |key: &str| statement.get(key).is_some();
    let action_applies = of("Action", action, true) || (has("NotAction") && !of("NotAction", action, true));
    let resource_applies = of("Resource", resource, false)
        || (has("NotResource") && !of("NotResource", resource, false))
        // Trust policies name no resource.
        || !(has("Resource") || has("NotResource"));
    action_applies && resource_applies
}

/// Whether the trust policy of a role lets a principal assume it: `kind` is `Service` or `AWS`.
pub fn trusts(document: &str, kind: &str, names: &[&str]) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(document) else {
        return false;
    };
    let mut statements = each(document.get("Statement"));
    statements.any(|s| {
        let principal = s.get("Principal");
        let everybody = principal.and_then(Value::as_str) == Some("*");
        let listed = each(principal.and_then(|p| p.get(kind))).filter_map(Value::as_str);
        let named = listed.into_iter().any(|p| p == "*" || names.contains(&p));
        s.get("Effect").and_then(Value::as_str) == Some("Allow")
            && (everybody || named)
            && applies(s, "sts:AssumeRole", "")
    })
}

/// The elements of a list, or the one value.
fn each(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let list = value.and_then(Value::as_array);
    let one = value.filter(|v| !v.is_array());
    list.into_iter().flatten().chain(one)
}

/// `*` stands for any text, `?` for a letter.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        if p.get(i) == Some(&'*') {
            star = Some((i, j));
            i += 1;
        } else if p.get(i).is_some_and(|c| *c == '?' || *c == t[j]) {
            i += 1;
            j += 1;
        } else if let Some((at, from)) = star {
            // The star takes one letter more.
            star = Some((at, from + 1));
            (i, j) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("ecs:*", "ecs:RunTask", true),
            ("ecs:Run?ask", "ecs:RunTask", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("ecs", "ecs:RunTask", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn deny_wins_and_nothing_allows_by_itself() {
        let allow = r#"{"Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}"#;
        let deny = r#"{"Statement":{"Effect":"Deny","Action":["ecs:Delete*"],"Resource":"*"}}"#;
        let scoped = r#"{"Statement":[{"Effect":"Allow","Action":"s:*","Resource":"arn:a/*"}]}"#;
        let not = r#"{"Statement":[{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}]}"#;
        assert!(allowed([allow], "ecs:RunTask", "r"));
        assert!(allowed([allow], "ECS:runtask", "r"));
        assert!(!allowed([allow, deny], "ecs:DeleteCluster", "r"));
        assert!(!allowed([allow], "iam:ListUsers", "r"));
        assert!(!allowed([], "ecs:RunTask", "r"));
        assert!(allowed([scoped], "s:Get", "arn:a/b") && !allowed([scoped], "s:Get", "arn:b"));
        assert!(allowed([not], "ecs:RunTask", "r") && !allowed([not], "iam:GetUser", "r"));
    }

    #[test]
    fn trust() {
        let d = r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":["ecs-tasks.amazonaws.com"]},
                   "Action":"sts:AssumeRole"}]}"#;
        assert!(trusts(d, "Service", &["ecs-tasks.amazonaws.com"]));
        assert!(!trusts(d, "Service", &["ec2.amazonaws.com"]));
        assert!(!trusts(d, "AWS", &["*"]));
    }
}
