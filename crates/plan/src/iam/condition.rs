//! Conditions of policy statements: operators over the values of the request's keys.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use tripod_model::Time;

use super::{Context, each, filled, matches};

/// Whether every block of a condition holds. What cannot be read does not.
pub(super) fn holds(condition: Option<&Value>, context: &Context, variables: bool) -> bool {
    let Some(condition) = condition else { return true };
    let Some(blocks) = condition.as_object() else {
        return false;
    };
    blocks.iter().all(|(operator, keys)| {
        let Some(operator) = Operator::read(operator) else {
            return false;
        };
        let Some(keys) = keys.as_object() else {
            return false;
        };
        keys.iter().all(|(key, wanted)| {
            let wanted: Vec<String> = each(Some(wanted))
                .filter_map(text)
                .filter_map(|w| if variables { filled(&w, context) } else { Some(w) })
                .collect();
            let found = context.get(&key.to_lowercase()).map(Vec::as_slice);
            operator.holds(found, &wanted)
        })
    })
}

/// Booleans and numbers may be written bare.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    One,
    All,
    Any,
}

struct Operator<'a> {
    set: Set,
    /// Without `Not` and `IfExists`.
    name: &'a str,
    not: bool,
    if_exists: bool,
}

impl<'a> Operator<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (set, text) = match text.split_once(':') {
            Some(("ForAllValues", rest)) => (Set::All, rest),
            Some(("ForAnyValue", rest)) => (Set::Any, rest),
            Some(_) => return None,
            None => (Set::One, text),
        };
        let (text, if_exists) = match text.strip_suffix("IfExists") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (name, not) = match text {
            "StringNotEquals" => ("StringEquals", true),
            "StringNotEqualsIgnoreCase" => ("StringEqualsIgnoreCase", true),
            "StringNotLike" => ("StringLike", true),
            "NumericNotEquals" => ("NumericEquals", true),
            "DateNotEquals" => ("DateEquals", true),
            "NotIpAddress" => ("IpAddress", true),
            "ArnNotEquals" | "ArnNotLike" => ("ArnLike", true),
            "ArnEquals" => ("ArnLike", false),
            known => (known, false),
        };
        Some(Self {
            set,
            name,
            not,
            if_exists,
        })
    }

    fn holds(&self, found: Option<&[String]>, wanted: &[String]) -> bool {
        if self.name == "Null" {
            let absent = found.is_none_or(<[String]>::is_empty);
            return wanted.iter().any(|w| w == if absent { "true" } else { "false" });
        }
        let Some(found) = found.filter(|f| !f.is_empty()) else {
            // A negated operator holds of what is not there, as does one over all of no values.
            return self.if_exists || self.not || self.set == Set::All;
        };
        let fits = |value: &String| wanted.iter().any(|w| compare(self.name, value, w)) != self.not;
        match self.set {
            Set::All => found.iter().all(fits),
            Set::Any => found.iter().any(fits),
            Set::One if self.not => found.iter().all(fits),
            Set::One => found.iter().any(fits),
        }
    }
}

fn compare(operator: &str, value: &str, wanted: &str) -> bool {
    let numbers = || Some((value.parse::<f64>().ok()?, wanted.parse::<f64>().ok()?));
    let times = || Some((time(value)?, time(wanted)?));
    let plain = wanted.replace('\u{0}', "");
    match operator {
        "StringEquals" | "BinaryEquals" => value == plain,
        "StringEqualsIgnoreCase" => value.to_lowercase() == plain.to_lowercase(),
        "StringLike" | "ArnLike" => matches(wanted, value),
        "Bool" => value.eq_ignore_ascii_case(&plain),
        "NumericEquals" => numbers().is_some_and(|(a, b)| a == b),
        "NumericLessThan" => numbers().is_some_and(|(a, b)| a < b),
        "NumericLessThanEquals" => numbers().is_some_and(|(a, b)| a <= b),
        "NumericGreaterThan" => numbers().is_some_and(|(a, b)| a > b),
        "NumericGreaterThanEquals" => numbers().is_some_and(|(a, b)| a >= b),
        "DateEquals" => times().is_some_and(|(a, b)| a == b),
        "DateLessThan" => times().is_some_and(|(a, b)| a < b),
        "DateLessThanEquals" => times().is_some_and(|(a, b)| a <= b),
        "DateGreaterThan" => times().is_some_and(|(a, b)| a > b),
        "DateGreaterThanEquals" => times().is_some_and(|(a, b)| a >= b),
        "IpAddress" => {
            let Ok(address) = value.parse::<IpAddr>() else {
                return false;
            };
            match plain.parse::<IpNet>() {
                Ok(net) => net.contains(&address),
                Err(_) => plain.parse::<IpAddr>() == Ok(address),
            }
        }
        _ => false,
    }
}

/// A time of ISO 8601, or seconds since 1970.
fn time(text: &str) -> Option<Time> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Time::from_second(seconds).ok();
    }
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    format!("{text}T00:00:00Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operators() {
        let context: Context = [
            ("aws:username", vec!["Ann"]),
            ("aws:sourceip", vec!["10.1.2.3"]),
            ("aws:currenttime", vec!["2026-01-02T03:04:05Z"]),
            ("aws:tagkeys", vec!["a", "b"]),
            ("s:count", vec!["5"]),
            ("aws:securetransport", vec!["false"]),
            ("s:arn", vec!["arn:aws:ecs:r:1:cluster/c"]),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.into_iter().map(str::to_owned).collect()))
        .collect();
        for (condition, is) in [
            (json!({ "StringEquals": { "aws:UserName": "Ann" } }), true),
            (
                json!({ "StringEquals": { "aws:username": ["Bob", "Ann"] } }),
                true,
            ),
            (json!({ "StringEquals": { "aws:username": "ann" } }), false),
            (
                json!({ "StringEqualsIgnoreCase": { "aws:username": "ann" } }),
                true,
            ),
            (
                json!({ "StringNotEquals": { "aws:username": ["Bob", "Ann"] } }),
                false,
            ),
            (json!({ "StringLike": { "aws:username": "A*" } }), true),
            (json!({ "StringNotLike": { "aws:username": "B*" } }), true),
            (json!({ "StringEquals": { "none": "x" } }), false),
            (json!({ "StringNotEquals": { "none": "x" } }), true),
            (json!({ "StringEqualsIfExists": { "none": "x" } }), true),
            (json!({ "Null": { "none": "true" } }), true),
            (json!({ "Null": { "aws:username": true } }), false),
            (json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } }), true),
            (json!({ "IpAddress": { "aws:SourceIp": "10.1.2.4" } }), false),
            (json!({ "NotIpAddress": { "aws:SourceIp": "10.0.0.0/8" } }), false),
            (
                json!({ "DateGreaterThan": { "aws:CurrentTime": "2026-01-01T00:00:00Z" } }),
                true,
            ),
            (
                json!({ "DateLessThan": { "aws:CurrentTime": "2026-01-02" } }),
                false,
            ),
            (json!({ "NumericLessThanEquals": { "s:count": 5 } }), true),
            (json!({ "NumericGreaterThan": { "s:count": "5" } }), false),
            (json!({ "Bool": { "aws:SecureTransport": false } }), true),
            (
                json!({ "ArnEquals": { "s:arn": "arn:aws:ecs:*:1:cluster/c" } }),
                true,
            ),
            (
                json!({ "ForAllValues:StringEquals": { "aws:TagKeys": ["a", "b", "c"] } }),
                true,
            ),
            (
                json!({ "ForAllValues:StringEquals": { "aws:TagKeys": ["a"] } }),
                false,
            ),
            (
                json!({ "ForAnyValue:StringEquals": { "aws:TagKeys": ["a"] } }),
                true,
            ),
            (json!({ "ForAllValues:StringEquals": { "none": ["a"] } }), true),
            (json!({ "ForAnyValue:StringEquals": { "none": ["a"] } }), false),
            (
                json!({ "StringEquals": { "aws:username": "${aws:username}" } }),
                true,
            ),
            (json!({ "StringSounds": { "aws:username": "Ann" } }), false),
            (
                json!({ "StringEquals": { "aws:username": "Ann" }, "Bool": { "aws:SecureTransport": "true" } }),
                false,
            ),
        ] {
            assert_eq!(holds(Some(&condition), &context, true), is, "{condition}");
        }
        assert!(holds(None, &context, true));
    }
}
