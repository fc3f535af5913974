//! How cells are written.

use serde_json::Value;
use tripod_model::Time;

use crate::value::{at, list, text};

pub(super) fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"]).into()
}

pub(super) fn age(object: &Value, now: Time) -> Value {
    since(text(object, &["metadata", "creationTimestamp"]), now).into()
}

/// How long ago a time was, as people say it; `<unknown>` for none.
pub(super) fn since(time: &str, now: Time) -> String {
    match time.parse::<Time>() {
        Ok(at) => duration(now.duration_since(at).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

/// A number of seconds in at most two units: `45s`, `3m20s`, `5d`, `2y30d`.
pub fn duration(seconds: i64) -> String {
    let two = |big: i64, b: &str, small: i64, s: &str| {
        if small == 0 {
            format!("{big}{b}")
        } else {
            format!("{big}{b}{small}{s}")
        }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if s < 600 => two(s / 60, "m", s % 60, "s"),
        s if s < 3 * 3600 => format!("{}m", s / 60),
        s if s < 8 * 3600 => two(s / 3600, "h", s / 60 % 60, "m"),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s if s < 192 * 3600 => two(s / 86400, "d", s / 3600 % 24, "h"),
        s if s < 2 * 365 * 86400 => format!("{}d", s / 86400),
        s if s < 8 * 365 * 86400 => two(s / 86400 / 365, "y", s / 86400 % 365, "d"),
        s => format!("{}y", s / 86400 / 365),
    }
}

/// A text, or a word for none.
pub(super) fn or(text: &str, none: &str) -> Value {
    if text.is_empty() { none.into() } else { text.into() }
}

pub(super) fn none(text: &str) -> Value {
    or(text, "<none>")
}

pub(super) fn count(object: &Value, path: &[&str]) -> Value {
    at(object, path).and_then(Value::as_i64).unwrap_or(0).into()
}

/// `a=b,c=d` of a map of texts.
pub(super) fn pairs(object: &Value, path: &[&str]) -> Value {
    let map = at(object, path).and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> = map
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    none(&pairs.join(","))
}

/// The selector of an object's `spec.selector`, a label selector.
pub(super) fn selector(object: &Value) -> Value {
    let text = at(object, &["spec", "selector"]).map(crate::selector::selector_text);
    none(&text.unwrap_or_default())
}

/// One member of every element of a list, with commas.
pub(super) fn joined(object: &Value, path: &[&str], member: &str) -> Value {
    let all: Vec<&str> = list(object, path).iter().map(|e| text(e, &[member])).collect();
    none(&all.join(","))
}

/// Texts of a list, with commas.
pub(super) fn texts(object: &Value, path: &[&str]) -> String {
    let all: Vec<&str> = list(object, path).iter().filter_map(Value::as_str).collect();
    all.join(",")
}

/// A text or a number, as it is.
pub(super) fn plain(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (10 * 3600, "10h"),
            (50 * 3600, "2d2h"),
            (10 * 86400, "10d"),
            (800 * 86400, "2y70d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
