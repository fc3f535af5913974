//! Values of secrets, and their versions.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{ManagedSecret, ManagedSecretSpec, SecretVersion};

use super::{find, live, missing};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of, page};

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// Adds a version, which gets the stages; the one that was current becomes the previous one.
pub(super) fn add(
    spec: &mut ManagedSecretSpec,
    call: &Call,
    input: &Value,
    id: &str,
    stages: &[String],
) -> Result<(), Fault> {
    let text = input.maybe("SecretString").map(str::to_owned);
    let bytes = input.maybe("SecretBinary").map(str::to_owned);
    if text.is_some() && bytes.is_some() {
        return Err(Fault::parameter(
            "You can't specify both SecretString and SecretBinary.",
        ));
    }
    if let Some(there) = spec.versions.get(id) {
        if (&there.string, &there.binary) == (&text, &bytes) {
            return Ok(());
        }
        let text = format!(
            "You can't use ClientRequestToken {id} because that value is already in use for a version of secret {}.",
            spec.arn
        );
        return Err(Fault::new("ResourceExistsException", text));
    }
    let version = SecretVersion {
        string: text,
        binary: bytes,
        stages: Vec::new(),
        created: Some(call.now()),
    };
    let first = spec.versions.is_empty();
    spec.versions.insert(id.to_owned(), version);
    for stage in stages {
        give(spec, stage, id);
    }
    // The first version is the current one, whatever else it is.
    if first {
        give(spec, CURRENT, id);
    }
    spec.versions.retain(|_, v| !v.stages.is_empty());
    spec.changed = Some(call.now());
    Ok(())
}

/// Moves a stage to a version.
fn give(spec: &mut ManagedSecretSpec, stage: &str, id: &str) {
    let before = spec
        .versions
        .iter()
        .find(|(_, v)| v.stages.iter().any(|s| s == stage))
        .map(|(k, _)| k.clone());
    if before.as_deref() == Some(id) {
        return;
    }
    for v in spec.versions.values_mut() {
        v.stages.retain(|s| s != stage);
    }
    if let (CURRENT, Some(before)) = (stage, &before) {
        give(spec, PREVIOUS, before);
    }
    if let Some(v) = spec.versions.get_mut(id) {
        v.stages.retain(|s| stage != CURRENT || s != PREVIOUS);
        v.stages.push(stage.to_owned());
    }
}

/// The version that a request means.
fn pick<'s>(spec: &'s ManagedSecretSpec, input: &Value) -> Result<(&'s String, &'s SecretVersion), Fault> {
    let stage = input.maybe("VersionStage");
    let found = match input.maybe("VersionId") {
        Some(id) => spec.versions.get_key_value(id),
        None => {
            let stage = stage.unwrap_or(CURRENT);
            spec.versions
                .iter()
                .find(|(_, v)| v.stages.iter().any(|s| s == stage))
        }
    };
    let found = found.filter(|(_, v)| {
        input.maybe("VersionId").is_none() || stage.is_none_or(|s| v.stages.iter().any(|x| x == s))
    });
    found.ok_or_else(|| {
        let text = match input.maybe("VersionId") {
            Some(id) => format!("Secrets Manager can't find the specified secret value for VersionId: {id}"),
            None => {
                let stage = stage.unwrap_or(CURRENT);
                format!("Secrets Manager can't find the specified secret value for staging label: {stage}")
            }
        };
        Fault::new("ResourceNotFoundException", text)
    })
}

fn shown(secret: &ManagedSecret, id: &str, v: &SecretVersion) -> Value {
    dense(json!({
        "ARN": secret.spec.arn, "Name": secret.spec.name, "VersionId": id, "SecretString": v.string,
        "SecretBinary": v.binary, "VersionStages": v.stages, "CreatedDate": epoch_of(v.created),
    }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let (id, v) = pick(&secret.spec, &input)?;
    Ok(shown(&secret, id, v))
}

pub(super) async fn batch(call: Call, input: Value) -> Reply {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    let mut ids = input.texts("SecretIdList");
    let filters = !input.items("Filters").is_empty();
    if ids.is_empty() != filters {
        let text = "Either 'SecretIdList' or 'Filters' must be provided, but not both.";
        return Err(Fault::parameter(text));
    }
    if input.number("MaxResults").is_some() && !filters {
        let text = "'Filters' not specified. 'Filters' must also be specified when 'MaxResults' is provided.";
        return Err(Fault::parameter(text));
    }
    if ids.is_empty() {
        ids = super::manage::filtered(&call, &input)?
            .into_iter()
            .map(|s| s.spec.name)
            .collect();
    }
    for id in ids {
        let found = live(&call, &id).and_then(|s| {
            let (version, v) = pick(&s.spec, &json!({}))?;
            Ok(shown(&s, version, v))
        });
        match found {
            Ok(value) => values.push(value),
            Err(e) => errors.push(json!({ "SecretId": id, "ErrorCode": e.code, "Message": e.message })),
        }
    }
    Ok(json!({ "SecretValues": values, "Errors": errors }))
}

pub(super) async fn put(call: Call, input: Value) -> Reply {
    if input.member("SecretString").is_none() && input.member("SecretBinary").is_none() {
        return Err(Fault::new(
            "InvalidRequestException",
            "You must provide either SecretString or SecretBinary.",
        ));
    }
    let secret = live(&call, input.text("SecretId"))?;
    let id = input.maybe("ClientRequestToken").map_or_else(uid, str::to_owned);
    let mut stages = input.texts("VersionStages");
    if stages.is_empty() {
        stages.push(CURRENT.into());
    }
    let done = call
        .edit("", &secret.metadata.name, missing, |s: &mut ManagedSecret| {
            add(&mut s.spec, &call, &input, &id, &stages)
        })
        .await?;
    let stages = done
        .0
        .spec
        .versions
        .get(&id)
        .map(|v| v.stages.clone())
        .unwrap_or_default();
    Ok(json!({ "ARN": done.0.spec.arn, "Name": done.0.spec.name, "VersionId": id, "VersionStages": stages }))
}

pub(super) async fn versions(call: Call, input: Value) -> Reply {
    let secret = find(&call, input.text("SecretId"))?;
    let items: Vec<Value> = secret
        .spec
        .versions
        .iter()
        .map(|(id, v)| json!({ "VersionId": id, "VersionStages": v.stages, "CreatedDate": epoch_of(v.created) }))
        .collect();
    let size = usize::try_from(input.number("MaxResults").unwrap_or(100)).unwrap_or(1);
    let (items, next) = page(items, input.maybe("NextToken"), size)
        .ok_or_else(|| Fault::new("InvalidNextTokenException", "The NextToken value is invalid."))?;
    Ok(json!({ "Versions": items, "ARN": secret.spec.arn, "Name": secret.spec.name, "NextToken": next }))
}

pub(super) async fn stage(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let stage = input.text("VersionStage");
    let (from, to) = (input.maybe("RemoveFromVersionId"), input.maybe("MoveToVersionId"));
    let done = call
        .edit("", &secret.metadata.name, missing, |s: &mut ManagedSecret| {
            let holder = s.spec.versions.iter().find(|(_, v)| v.stages.iter().any(|x| x == stage)).map(|(k, _)| k.clone());
            if holder.as_deref() != from && holder.is_some() {
                let holder = holder.unwrap_or_default();
                let what = match from {
                    None => "can't be empty",
                    Some(_) => "is not the version that has the label",
                };
                let text = format!(
                    "The parameter RemoveFromVersionId {what}. Staging label {stage} is currently attached to version \
                     {holder}, so you must explicitly reference that version in RemoveFromVersionId."
                );
                return Err(Fault::parameter(text));
            }
            match to {
                Some(id) if s.spec.versions.contains_key(id) => give(&mut s.spec, stage, id),
                Some(_) => return Err(missing()),
                None => {
                    for v in s.spec.versions.values_mut() {
                        v.stages.retain(|x| x != stage);
                    }
                }
            }
            s.spec.changed = Some(call.now());
            Ok(())
        })
        .await?;
    Ok(json!({ "ARN": done.0.spec.arn, "Name": done.0.spec.name }))
}

pub(super) async fn random(_: Call, input: Value) -> Reply {
    let mut sets = Vec::new();
    for (member, letters) in [
        ("ExcludeLowercase", "abcdefghijklmnopqrstuvwxyz"),
        ("ExcludeUppercase", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("ExcludeNumbers", "0123456789"),
        ("ExcludePunctuation", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    ] {
        if input.flag(member) != Some(true) {
            let kept = letters
                .chars()
                .filter(|c| !input.text("ExcludeCharacters").contains(*c));
            sets.push(kept.collect::<Vec<char>>());
        }
    }
    sets.retain(|s| !s.is_empty());
    let length = usize::try_from(input.number("PasswordLength").unwrap_or(32)).unwrap_or(32);
    let each = input.flag("RequireEachIncludedType") != Some(false);
    if sets.is_empty() || (each && length < sets.len()) {
        return Err(Fault::parameter(
            "The password cannot be made: too short, or nothing is left to make it of.",
        ));
    }
    let mut all: Vec<char> = sets.concat();
    if input.flag("IncludeSpace") == Some(true) {
        all.push(' ');
    }
    let pick = |set: &[char]| set[usize::try_from(rand::random::<u64>()).unwrap_or(0) % set.len()];
    let mut password: Vec<char> = (0..length).map(|_| pick(&all)).collect();
    if each {
        // One of each kind, at places of their own.
        let offset = usize::try_from(rand::random::<u64>()).unwrap_or(0);
        for (i, set) in sets.iter().enumerate() {
            let at = (offset % length + i) % length;
            password[at] = pick(set);
        }
    }
    Ok(json!({ "RandomPassword": password.into_iter().collect::<String>() }))
}
