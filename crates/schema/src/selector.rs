//! Label selectors and field selectors.

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::value::{at, list, text};

/// What a requirement asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A label selector; the empty one accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<(String, Op)>);

impl LabelSelector {
    /// Reads `a=b,c in (d,e),!f`.
    ///
    /// # Errors
    /// 400 with what could not be read.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| Failure::bad_request(format_args!("unable to parse requirement: {why}"));
        let mut requirements = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(bad("found '', expected: identifier".into()));
            }
            let (key, op) = requirement(part).ok_or_else(|| {
                bad(format!(
                    "found '{part}', expected: identifier, '=', '!=', '==', 'in', 'notin'"
                ))
            })?;
            if let Some(why) = bad_key(&key) {
                return Err(bad(format!("<nil>: Invalid value: {key:?}: {why}")));
            }
            if let Op::In(values) | Op::NotIn(values) = &op
                && let Some(value) = values.iter().find(|v| bad_value(v))
            {
                return Err(bad(format!(
                    "values[0][{key}]: Invalid value: {value:?}: {BAD_VALUE}"
                )));
            }
            requirements.push((key, op));
        }
        Ok(Self(requirements))
    }

    /// The selector of a `LabelSelector` object.
    pub fn of(selector: &Value) -> Self {
        let mut all = Vec::new();
        if let Some(labels) = selector["matchLabels"].as_object() {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default().to_owned();
                all.push((key.clone(), Op::In(vec![value])));
            }
        }
        for e in list(selector, &["matchExpressions"]) {
            let values: Vec<String> = list(e, &["values"])
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            let op = match text(e, &["operator"]) {
                "In" => Op::In(values),
                "NotIn" => Op::NotIn(values),
                "Exists" => Op::Exists,
                _ => Op::Absent,
            };
            all.push((text(e, &["key"]).to_owned(), op));
        }
        Self(all)
    }

    /// Whether it accepts everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels, looked up by key, are accepted.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|(key, op)| {
            let value = get(key);
            match op {
                Op::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Op::NotIn(values) => value.is_none_or(|v| !values.iter().any(|w| w == v)),
                Op::Exists => value.is_some(),
                Op::Absent => value.is_none(),
                Op::Greater(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
                Op::Less(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
            }
        })
    }

    /// Whether an object's labels are accepted.
    pub fn accepts(&self, object: &Value) -> bool {
        self.matches(|key| at(object, &["metadata", "labels", key]).and_then(Value::as_str))
    }
}

/// The text that selects what a `LabelSelector` object selects.
pub fn selector_text(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for e in list(selector, &["matchExpressions"]) {
        let key = text(e, &["key"]);
        let values: Vec<&str> = list(e, &["values"]).iter().filter_map(Value::as_str).collect();
        parts.push(match text(e, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Option<(String, Op)> {
    if let Some(key) = part.strip_prefix('!') {
        return Some((key.trim().to_owned(), Op::Absent));
    }
    for (sign, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let values = vec![value.trim().to_owned()];
            let op = if negative {
                Op::NotIn(values)
            } else {
                Op::In(values)
            };
            return Some((key.trim().to_owned(), op));
        }
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let number = value.trim().parse().ok()?;
            let op = if greater {
                Op::Greater(number)
            } else {
                Op::Less(number)
            };
            return Some((key.trim().to_owned(), op));
        }
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.trim().strip_suffix(')')?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let op = match word {
            "in" => Op::In(values),
            "notin" => Op::NotIn(values),
            _ => return None,
        };
        return Some((key.trim().to_owned(), op));
    }
    (!part.contains(char::is_whitespace)).then(|| (part.to_owned(), Op::Exists))
}

const BAD_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const BAD_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Why a text is no label key; `None` if it is one.
pub fn bad_key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return Some("a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into());
    }
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".into());
        }
        if !is_subdomain(prefix) {
            return Some(format!("prefix part {BAD_SUBDOMAIN}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".into());
    }
    (!is_word(name)).then(|| BAD_NAME.into())
}

/// What a DNS subdomain must be, in the words of the API.
pub const BAD_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Whether a text is a DNS subdomain.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && !text.is_empty() && text.split('.').all(is_label)
}

/// Whether a text is a DNS label.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

/// Whether a text is no label value.
pub fn bad_value(value: &str) -> bool {
    value.len() > 63 || (!value.is_empty() && !is_word(value))
}

/// Why a text is no label value; `None` if it is one.
pub fn bad_value_why(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must be no more than 63 bytes");
    }
    bad_value(value).then_some(BAD_VALUE)
}

/// A field selector: fields and what they must be (or not be).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(pub Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads `a.b=c,d!=e`.
    ///
    /// # Errors
    /// 400 with what could not be read.
    pub fn parse(text: &str) -> Result<Self> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = if let Some((k, v)) = part.split_once("!=") {
                (k, v, false)
            } else if let Some((k, v)) = part.split_once("==") {
                (k, v, true)
            } else if let Some((k, v)) = part.split_once('=') {
                (k, v, true)
            } else {
                return Err(Failure::bad_request(format_args!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            terms.push((key.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(terms))
    }

    /// Fails on a field that this kind cannot be selected by.
    ///
    /// # Errors
    /// 400 naming the field.
    pub fn check(&self, resource: &str) -> Result<()> {
        for (key, _, _) in &self.0 {
            let meta = ["metadata.name", "metadata.namespace"].contains(&key.as_str());
            if !meta && !selectable(resource).contains(&key.as_str()) {
                return Err(Failure::bad_request(format_args!(
                    "field label not supported: {key}"
                )));
            }
        }
        Ok(())
    }

    /// Whether only names and namespaces are asked for.
    pub fn is_meta_only(&self) -> bool {
        self.0.iter().all(|(k, _, _)| k.starts_with("metadata."))
    }

    /// Whether an object is accepted.
    pub fn accepts(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|(key, equal, wanted)| (field(object, key) == *wanted) == *equal)
    }

    /// The name that is asked for, if one is.
    pub fn name(&self) -> Option<&str> {
        let named = |(key, equal, _): &&(String, bool, String)| key == "metadata.name" && *equal;
        self.0.iter().find(named).map(|(_, _, name)| name.as_str())
    }
}

/// Fields that a kind can be selected by, beside name and namespace.
pub fn selectable(resource: &str) -> &'static [&'static str] {
    match resource {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        "events" | "events.events.k8s.io" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        "secrets" => &["type"],
        "namespaces" => &["status.phase"],
        "nodes" => &["spec.unschedulable"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicationcontrollers" | "replicasets.apps" => &["status.replicas"],
        "jobs.batch" => &["status.successful"],
        "certificatesigningrequests.certificates.k8s.io" => &["spec.signerName"],
        _ => &[],
    }
}

fn field(object: &Value, key: &str) -> String {
    let key = match key.strip_prefix("regarding.") {
        Some(rest) if object.get("involvedObject").is_some() => format!("involvedObject.{rest}"),
        _ => key.to_owned(),
    };
    match key.as_str() {
        "source" => {
            let component = text(object, &["source", "component"]);
            if component.is_empty() {
                text(object, &["reportingComponent"])
            } else {
                component
            }
            .to_owned()
        }
        "reportingController" => text(object, &["reportingComponent"]).to_owned(),
        "status.successful" => at(object, &["status", "succeeded"]).map_or("0".into(), Value::to_string),
        "status.podIPs" => text(object, &["status", "podIP"]).to_owned(),
        key => {
            let value = key.split('.').try_fold(object, |v, name| v.get(name));
            match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None if key == "spec.unschedulable" || key == "spec.hostNetwork" => {
                    "false".into()
                }
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let object = json!({"metadata": {"labels": {"app": "web", "n": "5"}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,n=5", true),
            ("app!=web", false),
            ("app in (db, web)", true),
            ("app notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<4", false),
            ("other!=x", true),
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap().accepts(&object),
                expected,
                "{text}"
            );
        }
        for bad in ["a b", "app in web", "a=b,,c=d", "-a=b", "a=-b", "a/b/c=d"] {
            assert_eq!(LabelSelector::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn label_selector_objects() {
        let s = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]});
        assert!(LabelSelector::of(&s).accepts(&json!({"metadata": {"labels": {"a": "b"}}})));
        assert!(!LabelSelector::of(&s).accepts(&json!({"metadata": {"labels": {"a": "b", "c": "d"}}})));
        assert_eq!(selector_text(&s), "a=b,c notin (d)");
    }

    #[test]
    fn field_selectors() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let s = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        s.check("pods").unwrap();
        assert!(s.accepts(&pod));
        assert_eq!(s.check("configmaps").unwrap_err().code, 400);
        assert!(!FieldSelector::parse("metadata.name=b").unwrap().accepts(&pod));
        assert_eq!(FieldSelector::parse("metadata.name=b").unwrap().name(), Some("b"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
