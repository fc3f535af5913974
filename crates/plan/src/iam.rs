//! Whether policies allow an action: an explicit Deny decides, else an Allow is needed.
//!
//! Statements are read as IAM reads them: actions and resources with wildcards, `NotAction`, `NotResource`, principals of
//! trust and resource policies, conditions (see [`condition`]) and policy variables.

mod condition;
mod grammar;

use std::collections::BTreeMap;

use serde_json::Value;

pub use grammar::{check_identity, check_trust};

/// Keys of a request that conditions look at (`aws:username`), folded to lower case, with their values.
pub type Context = BTreeMap<String, Vec<String>>;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// `service:Operation`.
    pub action: &'a str,
    /// The names that a resource goes by: a statement is about it when it is about one of them.
    pub resource: &'a [String],
    /// What is known of the request.
    pub context: &'a Context,
}

/// What policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows, and none denies.
    Allowed,
    /// No statement is about it.
    ImplicitDeny,
    /// A statement denies.
    ExplicitDeny,
}

impl Decision {
    /// What is said when two sets of policies must both allow, as a boundary and the policies within it.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::ExplicitDeny, _) | (_, Self::ExplicitDeny) => Self::ExplicitDeny,
            (Self::Allowed, Self::Allowed) => Self::Allowed,
            _ => Self::ImplicitDeny,
        }
    }

    /// What is said when either may allow, as a user's and a resource's policies.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::ExplicitDeny, _) | (_, Self::ExplicitDeny) => Self::ExplicitDeny,
            (Self::Allowed, _) | (_, Self::Allowed) => Self::Allowed,
            _ => Self::ImplicitDeny,
        }
    }

    /// The word of IAM's policy simulator.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::ImplicitDeny => "implicitDeny",
            Self::ExplicitDeny => "explicitDeny",
        }
    }
}

/// What identity policies say of a question.
pub fn decide<'a>(documents: impl IntoIterator<Item = &'a str>, question: &Question<'_>) -> Decision {
    documents
        .into_iter()
        .fold(Decision::ImplicitDeny, |so_far, document| {
            so_far.or(one(document, question, &|_| true))
        })
}

/// Who asks, as the `Principal` of statements names them.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// A service, `ecs-tasks.amazonaws.com`.
    Service(&'a str),
    /// A user or role of the account.
    Identity {
        /// The names it goes by: ARNs of user, role and session.
        arns: &'a [String],
        /// The account's number.
        account: &'a str,
    },
}

/// What the policy of a resource, or of a role's trust, says of a question of a principal: of it by name, and of it as
/// a member of its account (which lets its own policies decide).
pub fn of_resource(document: &str, who: &Who<'_>, question: &Question<'_>) -> (Decision, Decision) {
    let by_name = one(document, question, &|s| {
        principal(s, who, false) || (deny(s) && principal(s, who, true))
    });
    let by_account = one(document, question, &|s| principal(s, who, true));
    (by_name, by_account)
}

/// Whether the trust policy of a role lets a service assume it.
pub fn trusts_service(document: &str, service: &str) -> bool {
    let context = Context::new();
    let question = Question {
        action: "sts:AssumeRole",
        resource: &[],
        context: &context,
    };
    of_resource(document, &Who::Service(service), &question).0 == Decision::Allowed
}

fn deny(statement: &Value) -> bool {
    statement.get("Effect").and_then(Value::as_str) == Some("Deny")
}

/// What one document says, of the statements that `concerns` keeps.
fn one(document: &str, question: &Question<'_>, concerns: &dyn Fn(&Value) -> bool) -> Decision {
    let Ok(document) = serde_json::from_str::<Value>(document) else {
        return Decision::ImplicitDeny;
    };
    // The older version knows no variables.
    let version = document.get("Version").and_then(Value::as_str);
    let variables = version == Some("2012-10-17");
    let mut decision = Decision::ImplicitDeny;
    for statement in each(document.get("Statement")) {
        let applies = applies(statement, question, variables)
            && concerns(statement)
            && condition::holds(statement.get("Condition"), question.context, variables);
        match statement.get("Effect").and_then(Value::as_str) {
            Some("Deny") if applies => return Decision::ExplicitDeny,
            Some("Allow") if applies => decision = Decision::Allowed,
            _ => {}
        }
    }
    decision
}

fn applies(statement: &Value, question: &Question<'_>, variables: bool) -> bool {
    let action = question.action.to_lowercase();
    let acts = |key: &str| {
        let mut patterns = each(statement.get(key)).filter_map(Value::as_str);
        patterns.any(|p| matches(&p.to_lowercase(), &action))
    };
    let names = |key: &str| {
        let mut patterns = each(statement.get(key)).filter_map(Value::as_str);
        patterns.any(|p| {
            let p = if variables {
                filled(p, question.context)
            } else {
                Some(p.to_owned())
            };
            p.is_some_and(|p| question.resource.iter().any(|r| matches(&p, r)))
        })
    };
    let has = |key: &str| statement.get(key).is_some();
    let action_applies = acts("Action") || (has("NotAction") && !acts("NotAction"));
    let resource_applies = names("Resource")
        || (has("NotResource") && !names("NotResource"))
        // Trust policies name no resource.
        || !(has("Resource") || has("NotResource"));
    action_applies && resource_applies
}

/// Whether a statement's principal is the one who asks; with `account` the whole account's.
fn principal(statement: &Value, who: &Who<'_>, account: bool) -> bool {
    let listed = |principal: Option<&Value>| {
        if principal.and_then(Value::as_str) == Some("*") {
            return true;
        }
        let of = |kind: &str| {
            let list = each(principal.and_then(|p| p.get(kind))).filter_map(Value::as_str);
            list.map(str::to_owned).collect::<Vec<_>>()
        };
        match who {
            Who::Service(name) => of("Service").iter().any(|p| p == name || p == "*"),
            Who::Identity { arns, account: own } => {
                let root = format!("arn:aws:iam::{own}:root");
                of("AWS").iter().any(|p| match account {
                    true => p == *own || *p == root,
                    false => p == "*" || arns.contains(p),
                })
            }
        }
    };
    match statement.get("NotPrincipal") {
        Some(others) => !listed(Some(others)),
        None => listed(statement.get("Principal")),
    }
}

/// A pattern with its variables (`${aws:username}`) filled in; `None` when one is not known. What a variable stands for is
/// taken literally.
fn filled(pattern: &str, context: &Context) -> Option<String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (name, after) = after.split_once('}')?;
        rest = after;
        let (name, otherwise) = match name.split_once(',') {
            Some((name, default)) => (name.trim(), Some(default.trim().trim_matches('\''))),
            None => (name, None),
        };
        match name {
            "*" | "?" | "$" => {
                out.push(LITERAL);
                out.push_str(name);
            }
            name => {
                let known = context.get(&name.to_lowercase()).and_then(|v| v.first());
                let value = known.map(String::as_str).or(otherwise)?;
                for letter in value.chars() {
                    if matches!(letter, '*' | '?') {
                        out.push(LITERAL);
                    }
                    out.push(letter);
                }
            }
        }
    }
    out.push_str(rest);
    Some(out)
}

/// Keys of the context that a document asks for.
pub fn context_keys(document: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(document) else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    for statement in each(value.get("Statement")) {
        let blocks = statement.get("Condition").and_then(Value::as_object);
        for block in blocks.into_iter().flat_map(serde_json::Map::values) {
            keys.extend(block.as_object().into_iter().flatten().map(|(k, _)| k.clone()));
        }
    }
    let variables = document.split("${").skip(1).filter_map(|part| {
        let name = part.split(['}', ',']).next()?;
        name.contains(':').then(|| name.to_owned())
    });
    keys.extend(variables);
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The elements of a list, or the one value.
fn each(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let list = value.and_then(Value::as_array);
    let one = value.filter(|v| !v.is_array());
    list.into_iter().flatten().chain(one)
}

/// Stands before a letter that is meant as it is; no policy can contain it.
const LITERAL: char = '\u{0}';

/// `*` stands for any text, `?` for a letter.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut p: Vec<(char, bool)> = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            LITERAL => p.extend(letters.next().map(|l| (l, false))),
            letter => p.push((letter, true)),
        }
    }
    let t: Vec<char> = text.chars().collect();
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        if p.get(i) == Some(&('*', true)) {
            star = Some((i, j));
            i += 1;
        } else if p.get(i).is_some_and(|c| *c == ('?', true) || c.0 == t[j]) {
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
    p[i..].iter().all(|c| *c == ('*', true))
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
            ("a\u{0}*", "ab", false),
            ("a\u{0}*", "a*", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    fn context(pairs: &[(&str, &str)]) -> Context {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]))
            .collect()
    }

    fn says(documents: &[&str], action: &str, resource: &str, pairs: &[(&str, &str)]) -> Decision {
        let question = Question {
            action,
            resource: &[resource.to_owned()],
            context: &context(pairs),
        };
        decide(documents.iter().copied(), &question)
    }

    #[test]
    fn deny_wins_and_nothing_allows_by_itself() {
        use Decision::{Allowed, ExplicitDeny, ImplicitDeny};
        let allow = r#"{"Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}"#;
        let deny = r#"{"Statement":{"Effect":"Deny","Action":["ecs:Delete*"],"Resource":"*"}}"#;
        let scoped = r#"{"Statement":[{"Effect":"Allow","Action":"s:*","Resource":"arn:a/*"}]}"#;
        let not = r#"{"Statement":[{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}]}"#;
        let but = r#"{"Statement":[{"Effect":"Allow","Action":"*","NotResource":"arn:a/*"}]}"#;
        let own = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"u/${aws:username}"}]}"#;
        let old = r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"u/${aws:username}"}]}"#;
        let me = [("aws:username", "me")];
        for (documents, action, resource, pairs, is) in [
            (vec![allow], "ecs:RunTask", "r", &[][..], Allowed),
            (vec![allow], "ECS:runtask", "r", &[], Allowed),
            (vec![allow, deny], "ecs:DeleteCluster", "r", &[], ExplicitDeny),
            (vec![deny, allow], "ecs:DeleteCluster", "r", &[], ExplicitDeny),
            (vec![allow], "iam:ListUsers", "r", &[], ImplicitDeny),
            (vec![], "ecs:RunTask", "r", &[], ImplicitDeny),
            (vec![scoped], "s:Get", "arn:a/b", &[], Allowed),
            (vec![scoped], "s:Get", "arn:b", &[], ImplicitDeny),
            (vec![scoped], "s:Get", "*", &[], ImplicitDeny),
            (vec![not], "ecs:RunTask", "r", &[], Allowed),
            (vec![not], "iam:GetUser", "r", &[], ImplicitDeny),
            (vec![but], "s:Get", "arn:b", &[], Allowed),
            (vec![but], "s:Get", "arn:a/x", &[], ImplicitDeny),
            (vec![own], "s:Get", "u/me", &me, Allowed),
            (vec![own], "s:Get", "u/you", &me, ImplicitDeny),
            (vec![own], "s:Get", "u/me", &[], ImplicitDeny),
            (
                vec![own],
                "s:Get",
                "u/you",
                &[("aws:username", "*")],
                ImplicitDeny,
            ),
            (vec![old], "s:Get", "u/me", &me, ImplicitDeny),
            (vec!["{"], "s:Get", "r", &[], ImplicitDeny),
        ] {
            assert_eq!(
                says(&documents, action, resource, pairs),
                is,
                "{documents:?} {action} {resource}"
            );
        }
    }

    #[test]
    fn boundaries_and_resources() {
        use Decision::{Allowed, ExplicitDeny, ImplicitDeny};
        assert_eq!(Allowed.and(ImplicitDeny), ImplicitDeny);
        assert_eq!(Allowed.and(Allowed), Allowed);
        assert_eq!(Allowed.or(ExplicitDeny), ExplicitDeny);
        assert_eq!(ImplicitDeny.or(Allowed), Allowed);
    }

    #[test]
    fn trust() {
        let d = r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":["ecs-tasks.amazonaws.com"]},
                   "Action":"sts:AssumeRole"}]}"#;
        assert!(trusts_service(d, "ecs-tasks.amazonaws.com"));
        assert!(!trusts_service(d, "ec2.amazonaws.com"));
        let arns = ["arn:aws:iam::1:user/a".to_owned()];
        let who = Who::Identity {
            arns: &arns,
            account: "1",
        };
        let ask = |principal: &str, effect: &str| {
            let text = format!(
                r#"{{"Statement":[{{"Effect":"{effect}","Principal":{principal},"Action":"sts:AssumeRole"}}]}}"#
            );
            let context = Context::new();
            let question = Question {
                action: "sts:AssumeRole",
                resource: &[],
                context: &context,
            };
            of_resource(&text, &who, &question)
        };
        use Decision::{Allowed, ExplicitDeny, ImplicitDeny};
        for (principal, effect, by_name, by_account) in [
            (
                r#"{"AWS":"arn:aws:iam::1:user/a"}"#,
                "Allow",
                Allowed,
                ImplicitDeny,
            ),
            (
                r#"{"AWS":"arn:aws:iam::1:user/b"}"#,
                "Allow",
                ImplicitDeny,
                ImplicitDeny,
            ),
            (r#"{"AWS":"arn:aws:iam::1:root"}"#, "Allow", ImplicitDeny, Allowed),
            (r#"{"AWS":["1"]}"#, "Allow", ImplicitDeny, Allowed),
            (r#"{"AWS":"1"}"#, "Deny", ExplicitDeny, ExplicitDeny),
            (r#"{"AWS":"*"}"#, "Allow", Allowed, ImplicitDeny),
            (r#""*""#, "Allow", Allowed, Allowed),
        ] {
            assert_eq!(
                ask(principal, effect),
                (by_name, by_account),
                "{principal} {effect}"
            );
        }
    }

    #[test]
    fn keys_that_are_asked_for() {
        let d = r#"{"Statement":[{"Resource":"${aws:username}/x","Condition":{"StringEquals":{"ecs:cluster":"c"}}}]}"#;
        assert_eq!(context_keys(d), ["aws:username", "ecs:cluster"]);
    }
}
