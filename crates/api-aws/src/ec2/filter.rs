//! `Filters` and identifiers of EC2's describe calls.

use serde_json::Value;

use crate::fault::Fault;
use crate::value::{Get as _, page};

/// Keeps the items that every filter wants. `known` maps names of filters to members (`Groups.GroupId`).
pub(super) fn filtered(
    mut items: Vec<Value>,
    input: &Value,
    known: &[(&str, &str)],
) -> Result<Vec<Value>, Fault> {
    for filter in input.items("Filters") {
        let (name, wanted) = (filter.text("Name"), filter.texts("Values"));
        let member = known.iter().find(|(n, _)| *n == name).map(|(_, m)| *m);
        if member.is_none() && name != "tag-key" && !name.starts_with("tag:") {
            let text = format!("The filter '{name}' is invalid");
            return Err(Fault::new("InvalidParameterValue", text));
        }
        items.retain(|item| {
            let mut values = Vec::new();
            match (member, name.strip_prefix("tag:")) {
                (Some(member), _) => collect(item, member, &mut values),
                (None, Some(key)) => {
                    let tags = item.items("Tags").iter().filter(|t| t.text("Key") == key);
                    values.extend(tags.map(|t| t.text("Value").to_owned()));
                }
                (None, None) => collect(item, "Tags.Key", &mut values),
            }
            values
                .iter()
                .any(|v| wanted.iter().any(|w| tripod_plan::iam::matches(w, v)))
        });
    }
    Ok(items)
}

fn collect(item: &Value, path: &str, out: &mut Vec<String>) {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let values = match item.get(first) {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(Value::Null) | None => Vec::new(),
        Some(one) => vec![one],
    };
    for value in values {
        match (rest, value) {
            (Some(rest), value) => collect(value, rest, out),
            (None, Value::String(s)) => out.push(s.clone()),
            (None, other) => out.push(other.to_string()),
        }
    }
}

/// Keeps the items that are named; one that is not there is refused with `code`.
pub(super) fn named(
    items: Vec<Value>,
    wanted: &[String],
    member: &str,
    code: &str,
    what: &str,
) -> Result<Vec<Value>, Fault> {
    if wanted.is_empty() {
        return Ok(items);
    }
    for id in wanted {
        if !items.iter().any(|i| i.text(member) == id) {
            return Err(Fault::new(code, format!("The {what} '{id}' does not exist")));
        }
    }
    let named = items
        .into_iter()
        .filter(|i| wanted.iter().any(|w| i.text(member) == w));
    Ok(named.collect())
}

/// A page of items under `member`.
pub(super) fn paged(input: &Value, member: &str, items: Vec<Value>) -> Result<Value, Fault> {
    let size = usize::try_from(input.number("MaxResults").unwrap_or(1000)).unwrap_or(1000);
    let (items, next) = page(items, input.maybe("NextToken"), size)
        .ok_or_else(|| Fault::new("InvalidPaginationToken", "The token is not valid"))?;
    let mut out = serde_json::json!({ member: items });
    if let Some(next) = next {
        out["NextToken"] = next.into();
    }
    Ok(out)
}
