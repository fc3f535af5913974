//! Parameters read.

use serde_json::{Value, json};
use tripod_model::aws::{Parameter, ParameterVersion};

use super::{arn, find, not_found, write};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of, page, tag_list};

/// What stands for a SecureString that is not asked for in the clear.
fn value(p: &Parameter, v: &ParameterVersion, decrypt: bool) -> String {
    if p.spec.kind == "SecureString" && !decrypt {
        use base64::Engine as _;
        return base64::engine::general_purpose::STANDARD.encode(format!("{}#{}", p.spec.name, v.version));
    }
    v.value.clone()
}

fn shown(call: &Call, p: &Parameter, v: &ParameterVersion, selector: &str, decrypt: bool) -> Value {
    dense(json!({
        "Name": p.spec.name, "Type": p.spec.kind, "Value": value(p, v, decrypt), "Version": v.version,
        "LastModifiedDate": epoch_of(v.at), "ARN": arn(call, &p.spec.name), "DataType": v.data_type,
        "Selector": if selector.is_empty() { Value::Null } else { format!(":{selector}").into() },
    }))
}

/// The version that `name[:selector]` means.
fn pick(call: &Call, named: &str) -> Result<(Parameter, ParameterVersion, String), Fault> {
    let is_arn = named.starts_with("arn:");
    let (name, selector) = match named.rsplit_once(':') {
        Some((name, selector)) if !selector.contains('/') && (!is_arn || name.contains(":parameter")) => {
            (name, selector)
        }
        _ => (named, ""),
    };
    let found = find(call, name)?.ok_or_else(|| not_found(named))?;
    let version = match selector {
        "" => found.spec.versions.last(),
        text => found
            .spec
            .versions
            .iter()
            .find(|v| v.version.to_string() == text || v.labels.iter().any(|l| l == text)),
    };
    let version = version.cloned().ok_or_else(|| {
        let text = format!(
            "Systems Manager could not find version {selector} of {name}. Verify the version and try again."
        );
        Fault::new("ParameterVersionNotFound", text)
    })?;
    Ok((found, version, selector.to_owned()))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let (p, v, selector) = pick(&call, input.text("Name"))?;
    let decrypt = input.flag("WithDecryption").unwrap_or(false);
    Ok(json!({ "Parameter": shown(&call, &p, &v, &selector, decrypt) }))
}

pub(super) async fn get_several(call: Call, input: Value) -> Reply {
    let decrypt = input.flag("WithDecryption").unwrap_or(false);
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    let mut names = input.texts("Names");
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|n| seen.insert(n.clone()));
    for name in names {
        match pick(&call, &name) {
            Ok((p, v, selector)) => found.push(shown(&call, &p, &v, &selector, decrypt)),
            Err(_) => invalid.push(name),
        }
    }
    Ok(json!({ "Parameters": found, "InvalidParameters": invalid }))
}

fn of_region(call: &Call) -> Result<Vec<Parameter>, Fault> {
    let mut all = call.state().list::<Parameter>(None)?;
    all.retain(|p| p.spec.region == call.region);
    all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(all)
}

fn paged(input: &Value, member: &str, items: Vec<Value>, most: i64) -> Reply {
    let size = usize::try_from(input.number("MaxResults").unwrap_or(most)).unwrap_or(1);
    let (items, next) = page(items, input.maybe("NextToken"), size)
        .ok_or_else(|| Fault::new("InvalidNextToken", "The specified token is not valid."))?;
    Ok(json!({ member: items, "NextToken": next }))
}

/// Whether a parameter passes the filters of a request.
fn passes(p: &Parameter, filters: &[Value]) -> Result<bool, Fault> {
    for f in filters {
        let (key, option, values) = (
            f.text("Key"),
            f.maybe("Option").unwrap_or("Equals"),
            f.texts("Values"),
        );
        let last = p.spec.versions.last().cloned().unwrap_or_default();
        let own: Vec<String> = match key {
            "Name" => vec![p.spec.name.clone()],
            "Type" => vec![p.spec.kind.clone()],
            "Tier" => vec![last.tier],
            "DataType" => vec![last.data_type],
            "KeyId" => last.key.into_iter().collect(),
            "Label" => last.labels,
            "Path" => {
                if let Some(bad) = values.iter().find(|v| !is_path(v)) {
                    let text = format!(
                        "The parameter doesn't meet the parameter name requirements. The parameter name must begin with \
                         a forward slash \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). It must \
                         use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). \
                         Not '{bad}'."
                    );
                    return Err(Fault::new("ValidationException", text));
                }
                let deep = option == "Recursive";
                if !values.iter().any(|path| below(&p.spec.name, path, deep)) {
                    return Ok(false);
                }
                continue;
            }
            other => match other.strip_prefix("tag:") {
                Some(tag) => p.spec.tags.get(tag).cloned().into_iter().collect(),
                None => {
                    return Err(Fault::new(
                        "InvalidFilterKey",
                        format!("The filter key {other} is not valid."),
                    ));
                }
            },
        };
        let hit = own.iter().any(|o| {
            values.is_empty()
                || values.iter().any(|v| match option {
                    "BeginsWith" => {
                        o.starts_with(v.as_str()) || o.trim_start_matches('/').starts_with(v.as_str())
                    }
                    "Contains" => o.contains(v.as_str()),
                    _ => o == v || o.trim_start_matches('/') == v.trim_start_matches('/'),
                })
        });
        if !hit {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_path(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "/.-_".contains(c);
    text.starts_with('/') && !text.contains("//") && text.chars().all(letter)
}

/// Whether a name is in a path, directly or (deep) anywhere below.
fn below(name: &str, path: &str, deep: bool) -> bool {
    let base = format!("{}/", path.trim_end_matches('/'));
    let whole = format!("/{}", name.trim_start_matches('/'));
    whole
        .strip_prefix(&base)
        .is_some_and(|rest| !rest.is_empty() && (deep || !rest.contains('/')))
}

pub(super) async fn by_path(call: Call, input: Value) -> Reply {
    let path = input.text("Path");
    if !path.starts_with('/') {
        let text = "The parameter path must begin with a slash.";
        return Err(Fault::new("ValidationException", text));
    }
    let (deep, decrypt) = (
        input.flag("Recursive").unwrap_or(false),
        input.flag("WithDecryption").unwrap_or(false),
    );
    let mut items = Vec::new();
    for p in of_region(&call)? {
        if below(&p.spec.name, path, deep)
            && passes(&p, input.items("ParameterFilters"))?
            && let Some(v) = p.spec.versions.last()
        {
            items.push(shown(&call, &p, v, "", decrypt));
        }
    }
    paged(&input, "Parameters", items, 10)
}

fn described(call: &Call, p: &Parameter, v: &ParameterVersion) -> Value {
    dense(json!({
        "Name": p.spec.name, "ARN": arn(call, &p.spec.name), "Type": p.spec.kind, "KeyId": v.key,
        "LastModifiedDate": epoch_of(v.at), "LastModifiedUser": v.by, "Description": v.description,
        "AllowedPattern": v.allowed_pattern, "Version": v.version, "Tier": v.tier, "Policies": [],
        "DataType": v.data_type,
    }))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let mut filters = input.items("ParameterFilters").to_vec();
    for old in input.items("Filters") {
        filters.push(json!({ "Key": old.text("Key"), "Option": "Equals", "Values": old.get("Values") }));
    }
    let mut items = Vec::new();
    for p in of_region(&call)? {
        if passes(&p, &filters)?
            && let Some(v) = p.spec.versions.last()
        {
            items.push(described(&call, &p, v));
        }
    }
    paged(&input, "Parameters", items, 10)
}

pub(super) async fn history(call: Call, input: Value) -> Reply {
    let name = input.text("Name");
    let p = find(&call, name)?.ok_or_else(|| not_found(name))?;
    let decrypt = input.flag("WithDecryption").unwrap_or(false);
    let items = p.spec.versions.iter().map(|v| {
        let mut shown = described(&call, &p, v);
        shown["Value"] = value(&p, v, decrypt).into();
        shown["Labels"] = v.labels.clone().into();
        shown
    });
    paged(&input, "Parameters", items.collect(), 50)
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    let name = write::resource(&input)?;
    let p = find(&call, &name)?;
    let p = p.ok_or_else(|| Fault::new("InvalidResourceId", "The resource ID is not valid."))?;
    Ok(json!({ "TagList": tag_list(&p.spec.tags, "Key", "Value") }))
}
