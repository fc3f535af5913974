//! Looking into requests and making answers: both are JSON values with the members of the API.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tripod_model::Time;

/// Reads members of a value; what is absent is empty.
pub(crate) trait Get {
    fn maybe(&self, member: &str) -> Option<&str>;
    fn text(&self, member: &str) -> &str {
        self.maybe(member).unwrap_or_default()
    }
    fn items(&self, member: &str) -> &[Value];
    fn texts(&self, member: &str) -> Vec<String> {
        let items = self.items(member).iter();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    }
    fn number(&self, member: &str) -> Option<i64>;
    fn flag(&self, member: &str) -> Option<bool>;
    /// The member when it is there and not null.
    fn member(&self, member: &str) -> Option<&Value>;
}

impl Get for Value {
    fn maybe(&self, member: &str) -> Option<&str> {
        self.get(member)?.as_str()
    }
    fn items(&self, member: &str) -> &[Value] {
        let list = self.get(member).and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }
    fn number(&self, member: &str) -> Option<i64> {
        let v = self.get(member)?;
        v.as_i64().or_else(|| v.as_f64().map(|f| f as i64))
    }
    fn flag(&self, member: &str) -> Option<bool> {
        self.get(member)?.as_bool()
    }
    fn member(&self, member: &str) -> Option<&Value> {
        self.get(member).filter(|v| !v.is_null())
    }
}

/// A time as the services write it in JSON: seconds with milliseconds.
pub(crate) fn epoch(t: Time) -> Value {
    json!(t.as_millisecond() as f64 / 1000.0)
}

/// The same of a time that may not have come.
pub(crate) fn epoch_of(t: Option<Time>) -> Value {
    t.map_or(Value::Null, epoch)
}

/// Seconds since 1970 as XML has them.
pub(crate) fn iso_time(seconds: f64, millis: bool) -> String {
    let t = Time::from_millisecond((seconds * 1000.0).round() as i64).unwrap_or(Time::UNIX_EPOCH);
    let format = if millis {
        "%Y-%m-%dT%H:%M:%S.%3fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    t.strftime(format).to_string()
}

/// Tags as a list of `{key, value}` with the given member names.
pub(crate) fn tag_list(tags: &BTreeMap<String, String>, key: &str, value: &str) -> Value {
    let list = tags.iter().map(|(k, v)| {
        let pair = [
            (key.to_owned(), k.as_str().into()),
            (value.to_owned(), v.as_str().into()),
        ];
        Value::Object(Map::from_iter(pair))
    });
    list.collect()
}

/// Tags from such a list.
pub(crate) fn tags_of(list: &[Value], key: &str, value: &str) -> BTreeMap<String, String> {
    let pairs = list
        .iter()
        .map(|t| (t.text(key).to_owned(), t.text(value).to_owned()));
    pairs.collect()
}

/// An object without the members that are null.
pub(crate) fn dense(mut value: Value) -> Value {
    drop_nulls(&mut value);
    value
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A text that may be empty, which is told as absence.
pub(crate) fn some(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// One page of a list, and the token of the next.
pub(crate) fn page<T>(
    mut items: Vec<T>,
    token: Option<&str>,
    size: usize,
) -> Option<(Vec<T>, Option<String>)> {
    let start = match token {
        None | Some("") => 0,
        Some(token) => read_token(token)?,
    };
    let start = start.min(items.len());
    let mut rest = items.split_off(start);
    let next = (rest.len() > size).then(|| write_token(start + size));
    rest.truncate(size);
    Some((rest, next))
}

fn write_token(offset: usize) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("tripod:{offset}"))
}

fn read_token(token: &str) -> Option<usize> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    std::str::from_utf8(&bytes)
        .ok()?
        .strip_prefix("tripod:")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let (first, token) = page(vec![1, 2, 3], None, 2).unwrap();
        assert_eq!(first, [1, 2]);
        let (second, end) = page(vec![1, 2, 3], token.as_deref(), 2).unwrap();
        assert_eq!((second, end), (vec![3], None));
        assert!(page(vec![1], Some("nonsense"), 2).is_none());
    }

    #[test]
    fn times() {
        let t: Time = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(epoch(t), json!(1_767_323_045.678));
        assert_eq!(iso_time(1_767_323_045.678, true), "2026-01-02T03:04:05.678Z");
        assert_eq!(iso_time(1_767_323_045.678, false), "2026-01-02T03:04:05Z");
    }
}
