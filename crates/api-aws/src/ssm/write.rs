//! Parameters written, labelled, tagged, deleted.

use regex::Regex;
use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{Parameter, ParameterSpec, ParameterVersion};

use super::{check_name, find, not_found, object};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tags_of};

/// Versions that are kept.
const VERSIONS: usize = 100;

/// Labels that a version may have.
const LABELS: usize = 10;

fn invalid(text: impl Into<String>) -> Fault {
    Fault::new("ValidationException", text)
}

fn version(call: &Call, input: &Value, before: Option<&ParameterVersion>, number: i64) -> ParameterVersion {
    let own = |member: &str| input.maybe(member).map(str::to_owned);
    ParameterVersion {
        version: number,
        value: input.text("Value").to_owned(),
        description: own("Description").or_else(|| before?.description.clone()),
        allowed_pattern: own("AllowedPattern").or_else(|| before?.allowed_pattern.clone()),
        key: own("KeyId").or_else(|| before?.key.clone()),
        tier: match input.maybe("Tier") {
            Some("Advanced") => "Advanced".into(),
            _ => before.map_or_else(|| "Standard".into(), |b| b.tier.clone()),
        },
        data_type: own("DataType").unwrap_or_else(|| "text".into()),
        at: Some(call.now()),
        by: call.principal.arn.clone(),
        labels: Vec::new(),
    }
}

fn check(input: &Value) -> Result<(), Fault> {
    check_name(input.text("Name"))?;
    if input.text("Value").is_empty() {
        return Err(invalid(
            "1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must \
                            have length greater than or equal to 1",
        ));
    }
    let limit = if input.text("Tier") == "Advanced" {
        8192
    } else {
        4096
    };
    if input.text("Value").len() > limit {
        let text = format!("Value: parameter values have at most {limit} characters in this tier.");
        return Err(invalid(text));
    }
    let kinds = ["text", "aws:ec2:image", "aws:ssm:integration"];
    if let Some(kind) = input.maybe("DataType").filter(|k| !kinds.contains(k)) {
        let text =
            format!("The following data type is not supported: {kind} (Data type names are all lowercase.)");
        return Err(invalid(text));
    }
    if !matches!(input.text("Policies"), "" | "[]" | "[{}]") {
        return Err(Fault::new(
            "InvalidPolicyTypeException",
            "Policies are not supported by this endpoint.",
        ));
    }
    if let Some(pattern) = input.maybe("AllowedPattern").filter(|p| !p.is_empty()) {
        let regex = Regex::new(&format!("^(?:{pattern})$"));
        let regex = regex.map_err(|_| {
            Fault::new(
                "InvalidAllowedPatternException",
                format!("The pattern {pattern} is invalid."),
            )
        })?;
        if !regex.is_match(input.text("Value")) {
            let text = format!("Parameter value, cannot be validated against allowedPattern: {pattern}");
            return Err(Fault::new("ParameterPatternMismatchException", text));
        }
    }
    Ok(())
}

pub(super) async fn put(call: Call, input: Value) -> Reply {
    check(&input)?;
    let name = input.text("Name");
    let overwrite = input.flag("Overwrite").unwrap_or(false);
    let taken = || {
        let text = "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.";
        Fault::new("ParameterAlreadyExists", text)
    };
    let Some(there) = find(&call, name)? else {
        let Some(kind) = input.maybe("Type") else {
            return Err(invalid(
                "A parameter type is required when you create a parameter.",
            ));
        };
        let first = version(&call, &input, None, 1);
        let tier = first.tier.clone();
        let spec = ParameterSpec {
            region: call.region.clone(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            versions: vec![first],
            tags: tags_of(input.items("Tags"), "Key", "Value"),
        };
        let made = Parameter::new(object(&call, name), uid(), call.now(), spec);
        call.create(&made, taken).await?;
        return Ok(json!({ "Version": 1, "Tier": tier }));
    };
    if !overwrite {
        return Err(taken());
    }
    if !input.items("Tags").is_empty() {
        return Err(invalid(
            "Invalid request: tags and overwrite can't be used together.",
        ));
    }
    let done = call
        .edit(
            "",
            &there.metadata.name,
            || not_found(name),
            |p: &mut Parameter| {
                if let Some(kind) = input.maybe("Type") {
                    p.spec.kind = kind.to_owned();
                }
                let before = p.spec.versions.last().cloned();
                let number = before.as_ref().map_or(1, |b| b.version + 1);
                p.spec
                    .versions
                    .push(version(&call, &input, before.as_ref(), number));
                if p.spec.versions.len() > VERSIONS {
                    p.spec.versions.remove(0);
                }
                Ok(p.spec.versions.last().cloned().unwrap_or_default())
            },
        )
        .await?;
    Ok(json!({ "Version": done.1.version, "Tier": done.1.tier }))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let name = input.text("Name");
    let found = find(&call, name)?.ok_or_else(|| not_found(name))?;
    call.remove(&found).await?;
    Ok(Value::Null)
}

pub(super) async fn delete_several(call: Call, input: Value) -> Reply {
    let (mut gone, mut invalid) = (Vec::new(), Vec::new());
    for name in input.texts("Names") {
        match find(&call, &name)? {
            Some(found) => {
                call.remove(&found).await?;
                gone.push(name);
            }
            None => invalid.push(name),
        }
    }
    Ok(json!({ "DeletedParameters": gone, "InvalidParameters": invalid }))
}

async fn change<T>(
    call: &Call,
    name: &str,
    change: impl Fn(&mut ParameterSpec) -> Result<T, Fault> + Send + Sync,
) -> Result<T, Fault> {
    let found = find(call, name)?.ok_or_else(|| not_found(name))?;
    let done = call.edit(
        "",
        &found.metadata.name,
        || not_found(name),
        |p: &mut Parameter| change(&mut p.spec),
    );
    Ok(done.await?.1)
}

fn no_version(name: &str, number: i64) -> Fault {
    let text = format!(
        "Systems Manager could not find version {number} of {name}. Verify the version and try again."
    );
    Fault::new("ParameterVersionNotFound", text)
}

pub(super) async fn label(call: Call, input: Value) -> Reply {
    let name = input.text("Name");
    let labels = input.texts("Labels");
    let bad: Vec<String> = labels
        .iter()
        .filter(|l| {
            let lower = l.to_ascii_lowercase();
            let letter = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            !l.chars().all(letter)
                || l.starts_with(|c: char| c.is_ascii_digit())
                || lower.starts_with("aws")
                || lower.starts_with("ssm")
        })
        .cloned()
        .collect();
    let number = change(&call, name, |p| {
        let number = input
            .number("ParameterVersion")
            .or(p.versions.last().map(|v| v.version))
            .unwrap_or(0);
        if !p.versions.iter().any(|v| v.version == number) {
            return Err(no_version(name, number));
        }
        let new = labels.iter().filter(|l| !bad.contains(l));
        let there = p.versions.iter().find(|v| v.version == number).map(|v| v.labels.clone());
        let all: std::collections::BTreeSet<&String> = there.iter().flatten().chain(new).collect();
        if all.len() > LABELS {
            let text = "A parameter version can have maximum 10 labels. Move one or more labels to another version and \
                        try again.";
            return Err(Fault::new("ParameterVersionLabelLimitExceeded", text));
        }
        for v in &mut p.versions {
            v.labels.retain(|l| !labels.contains(l));
            if v.version == number {
                v.labels
                    .extend(labels.iter().filter(|l| !bad.contains(l)).cloned());
            }
        }
        Ok(number)
    })
    .await?;
    Ok(json!({ "InvalidLabels": bad, "ParameterVersion": number }))
}

pub(super) async fn unlabel(call: Call, input: Value) -> Reply {
    let (name, number) = (input.text("Name"), input.number("ParameterVersion").unwrap_or(0));
    let labels = input.texts("Labels");
    let gone = change(&call, name, |p| {
        let version = p.versions.iter_mut().find(|v| v.version == number);
        let version = version.ok_or_else(|| no_version(name, number))?;
        let (gone, kept) = version.labels.iter().cloned().partition(|l| labels.contains(l));
        version.labels = kept;
        let gone: Vec<String> = gone;
        Ok(gone)
    })
    .await?;
    let bad: Vec<&String> = labels.iter().filter(|l| !gone.contains(l)).collect();
    Ok(json!({ "RemovedLabels": gone, "InvalidLabels": bad }))
}

/// Tags are of parameters only.
pub(super) fn resource(input: &Value) -> Result<String, Fault> {
    match input.text("ResourceType") {
        "Parameter" => Ok(input.text("ResourceId").to_owned()),
        other => Err(Fault::new(
            "InvalidResourceType",
            format!("{other} resources are not supported by this endpoint."),
        )),
    }
}

pub(super) async fn add_tags(call: Call, input: Value) -> Reply {
    let tags = tags_of(input.items("Tags"), "Key", "Value");
    let invalid = |_| Fault::new("InvalidResourceId", "The resource ID is not valid.");
    change(&call, &resource(&input)?, |p| {
        p.tags.extend(tags.clone());
        Ok(())
    })
    .await
    .map_err(invalid)?;
    Ok(json!({}))
}

pub(super) async fn remove_tags(call: Call, input: Value) -> Reply {
    let keys = input.texts("TagKeys");
    let invalid = |_| Fault::new("InvalidResourceId", "The resource ID is not valid.");
    change(&call, &resource(&input)?, |p| {
        p.tags.retain(|k, _| !keys.contains(k));
        Ok(())
    })
    .await
    .map_err(invalid)?;
    Ok(json!({}))
}
