//! Secrets: made, told, listed, deleted, tagged.

use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use tripod_engine::aws::{hex_id, uid};
use tripod_model::aws::{ManagedSecret, ManagedSecretSpec};

use super::{find, live, missing, object, values};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of, page, tag_list, tags_of};

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("Name");
    let letter = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    if !name.chars().all(letter) {
        let text = "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!";
        return Err(Fault::new("ValidationException", text));
    }
    if !input.items("AddReplicaRegions").is_empty() {
        return Err(Fault::parameter(
            "AddReplicaRegions is not supported by this endpoint.",
        ));
    }
    let id = input.maybe("ClientRequestToken").map_or_else(uid, str::to_owned);
    let mut spec = ManagedSecretSpec {
        region: call.region.clone(),
        name: name.to_owned(),
        arn: call.arn("secretsmanager", &format!("secret:{name}-{}", hex_id(6))),
        description: input.maybe("Description").map(str::to_owned),
        kms_key: input.maybe("KmsKeyId").map(str::to_owned),
        changed: Some(call.now()),
        tags: tags_of(input.items("Tags"), "Key", "Value"),
        ..ManagedSecretSpec::default()
    };
    let valued = input.member("SecretString").is_some() || input.member("SecretBinary").is_some();
    if valued {
        values::add(&mut spec, &call, &input, &id, &["AWSCURRENT".to_owned()])?;
    }
    if let Some(there) = call.state().get::<ManagedSecret>("", &object(&call, name))? {
        if there.spec.deleted.is_some() {
            let text = "You can't create this secret because a secret with this name is already scheduled for deletion.";
            return Err(Fault::new("InvalidRequestException", text));
        }
        if let Some(version) = there.spec.versions.get(&id) {
            let same = spec
                .versions
                .get(&id)
                .is_some_and(|v| (&v.string, &v.binary) == (&version.string, &version.binary));
            if !same {
                let text = format!(
                    "You can't use ClientRequestToken {id} because that value is already in use for a version of secret {}.",
                    there.spec.arn
                );
                return Err(Fault::new("ResourceExistsException", text));
            }
            return Ok(json!({ "ARN": there.spec.arn, "Name": name, "VersionId": id }));
        }
    }
    let secret = ManagedSecret::new(object(&call, name), uid(), call.now(), spec);
    let taken = || {
        let text = format!("The operation failed because the secret {name} already exists.");
        Fault::new("ResourceExistsException", text)
    };
    let made = call.create(&secret, taken).await?;
    Ok(dense(json!({
        "ARN": made.spec.arn, "Name": name, "VersionId": if valued { id.into() } else { Value::Null },
    })))
}

fn shown(secret: &ManagedSecret) -> Value {
    let s = &secret.spec;
    let stages: Map<String, Value> = s
        .versions
        .iter()
        .map(|(id, v)| (id.clone(), v.stages.clone().into()))
        .collect();
    dense(json!({
        "ARN": s.arn, "Name": s.name, "Description": s.description, "KmsKeyId": s.kms_key,
        "RotationEnabled": Value::Null, "LastChangedDate": epoch_of(s.changed),
        "CreatedDate": epoch_of(secret.metadata.creation_timestamp),
        "DeletedDate": epoch_of(s.deleted.map(|(asked, _)| asked)),
        "Tags": if s.tags.is_empty() { Value::Null } else { tag_list(&s.tags, "Key", "Value") },
        "VersionIdsToStages": if stages.is_empty() { Value::Null } else { stages.into() },
    }))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    Ok(shown(&find(&call, input.text("SecretId"))?))
}

/// The secrets of the region that the filters of a request let through.
pub(super) fn filtered(call: &Call, input: &Value) -> Result<Vec<ManagedSecret>, Fault> {
    let mut secrets = call.state().list::<ManagedSecret>(None)?;
    let planned = input.flag("IncludePlannedDeletion") == Some(true);
    secrets.retain(|s| s.spec.region == call.region && (planned || s.spec.deleted.is_none()));
    for filter in input.items("Filters") {
        let (key, values) = (filter.text("Key"), filter.texts("Values"));
        if key.is_empty() {
            return Err(Fault::parameter("Invalid filter key"));
        }
        if values.is_empty() {
            return Err(Fault::parameter(format!("Invalid filter values for key: {key}")));
        }
        secrets.retain(|s| passes(&s.spec, key, &values));
    }
    secrets.sort_by(|a, b| {
        let made = |s: &ManagedSecret| s.metadata.creation_timestamp;
        (made(a), &a.spec.name).cmp(&(made(b), &b.spec.name))
    });
    Ok(secrets)
}

/// Whether a filter lets a secret through: one of the values fits, or with `!` before it does not.
fn passes(s: &ManagedSecretSpec, key: &str, values: &[String]) -> bool {
    let description = s.description.clone().unwrap_or_default();
    let tags = || s.tags.iter().flat_map(|(k, v)| [k.clone(), v.clone()]);
    let fits = |value: &str| match key {
        "name" => s.name.starts_with(value),
        "description" => has_words(&description, value),
        "tag-key" => s.tags.keys().any(|k| k.starts_with(value)),
        "tag-value" => s.tags.values().any(|v| v.starts_with(value)),
        "all" => {
            let mut texts = tags().chain([s.name.clone(), description.clone()]);
            texts.any(|text| has_words(&text, value))
        }
        "primary-region" => s.region.starts_with(value),
        _ => false,
    };
    values.iter().any(|value| match value.strip_prefix('!') {
        Some(not) => !fits(not),
        None => fits(value),
    })
}

/// Whether each word of `wanted` begins a word of `text`, or all of it the text, in capitals or not.
fn has_words(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.to_lowercase(), wanted.to_lowercase());
    let words = |t: &str| -> Vec<String> {
        let parts = t.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        parts.map(str::to_owned).collect()
    };
    let own = words(&text);
    text.starts_with(&wanted)
        || words(&wanted)
            .iter()
            .all(|w| own.iter().any(|o| o.starts_with(w.as_str())))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let mut items: Vec<Value> = filtered(&call, &input)?
        .iter()
        .map(|s| {
            let mut shown = shown(s);
            if let Some(map) = shown.as_object_mut()
                && let Some(stages) = map.remove("VersionIdsToStages")
            {
                map.insert("SecretVersionsToStages".into(), stages);
            }
            shown
        })
        .collect();
    if input.text("SortOrder") == "desc" {
        items.reverse();
    }
    let size = usize::try_from(input.number("MaxResults").unwrap_or(100)).unwrap_or(1);
    let (items, next) = page(items, input.maybe("NextToken"), size)
        .ok_or_else(|| Fault::new("InvalidNextTokenException", "The NextToken value is invalid."))?;
    Ok(json!({ "SecretList": items, "NextToken": next }))
}

async fn change<T>(
    call: &Call,
    secret: &ManagedSecret,
    change: impl Fn(&mut ManagedSecretSpec) -> Result<T, Fault> + Send + Sync,
) -> Result<(ManagedSecret, T), Fault> {
    call.edit("", &secret.metadata.name, missing, |s: &mut ManagedSecret| {
        change(&mut s.spec)
    })
    .await
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let id = input.maybe("ClientRequestToken").map_or_else(uid, str::to_owned);
    let valued = input.member("SecretString").is_some() || input.member("SecretBinary").is_some();
    let done = change(&call, &secret, |s| {
        if let Some(text) = input.maybe("Description") {
            s.description = Some(text.to_owned());
        }
        if let Some(key) = input.maybe("KmsKeyId") {
            s.kms_key = Some(key.to_owned());
        }
        s.changed = Some(call.now());
        if valued {
            values::add(s, &call, &input, &id, &["AWSCURRENT".to_owned()])?;
        }
        Ok(())
    })
    .await?;
    Ok(dense(json!({
        "ARN": done.0.spec.arn, "Name": done.0.spec.name, "VersionId": if valued { id.into() } else { Value::Null },
    })))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let (force, days) = (
        input.flag("ForceDeleteWithoutRecovery") == Some(true),
        input.number("RecoveryWindowInDays"),
    );
    if days.is_some_and(|d| !(7..=30).contains(&d)) {
        let text = "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).";
        return Err(Fault::parameter(text));
    }
    if force && days.is_some() {
        let text = "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.";
        return Err(Fault::parameter(text));
    }
    let id = input.text("SecretId");
    let secret = match find(&call, id) {
        // What is not there is gone.
        Err(_) if force => {
            let arn = call.arn("secretsmanager", &format!("secret:{id}-{}", hex_id(6)));
            let arn = if id.starts_with("arn:") {
                id.to_owned()
            } else {
                arn
            };
            return Ok(json!({ "ARN": arn, "Name": id, "DeletionDate": epoch_of(Some(call.now())) }));
        }
        found => found?,
    };
    let now = call.now();
    if force {
        call.remove(&secret).await?;
        return Ok(
            json!({ "ARN": secret.spec.arn, "Name": secret.spec.name, "DeletionDate": epoch_of(Some(now)) }),
        );
    }
    live(&call, input.text("SecretId"))?;
    let end = now
        .saturating_add(SignedDuration::from_hours(24 * days.unwrap_or(30)))
        .unwrap_or(now);
    change(&call, &secret, |s| {
        s.deleted = Some((now, end));
        Ok(())
    })
    .await?;
    Ok(json!({ "ARN": secret.spec.arn, "Name": secret.spec.name, "DeletionDate": epoch_of(Some(end)) }))
}

pub(super) async fn restore(call: Call, input: Value) -> Reply {
    let secret = find(&call, input.text("SecretId"))?;
    change(&call, &secret, |s| {
        s.deleted = None;
        Ok(())
    })
    .await?;
    Ok(json!({ "ARN": secret.spec.arn, "Name": secret.spec.name }))
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let tags = tags_of(input.items("Tags"), "Key", "Value");
    change(&call, &secret, |s| {
        s.tags.extend(tags.clone());
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let keys = input.texts("TagKeys");
    change(&call, &secret, |s| {
        s.tags.retain(|k, _| !keys.contains(k));
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn get_policy(call: Call, input: Value) -> Reply {
    let s = find(&call, input.text("SecretId"))?.spec;
    Ok(dense(
        json!({ "ARN": s.arn, "Name": s.name, "ResourcePolicy": s.policy }),
    ))
}

fn check_policy(text: &str) -> Result<(), Fault> {
    let valid = serde_json::from_str::<Value>(text).is_ok_and(|v| v.get("Statement").is_some());
    match valid {
        true => Ok(()),
        false => {
            let text = "This resource policy contains invalid Json";
            Err(Fault::new("MalformedPolicyDocumentException", text))
        }
    }
}

pub(super) async fn put_policy(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    check_policy(input.text("ResourcePolicy"))?;
    let done = change(&call, &secret, |s| {
        s.policy = Some(input.text("ResourcePolicy").to_owned());
        Ok(())
    })
    .await?;
    Ok(json!({ "ARN": done.0.spec.arn, "Name": done.0.spec.name }))
}

pub(super) async fn delete_policy(call: Call, input: Value) -> Reply {
    let secret = live(&call, input.text("SecretId"))?;
    let done = change(&call, &secret, |s| {
        s.policy = None;
        Ok(())
    })
    .await?;
    Ok(json!({ "ARN": done.0.spec.arn, "Name": done.0.spec.name }))
}

pub(super) async fn validate_policy(_: Call, input: Value) -> Reply {
    check_policy(input.text("ResourcePolicy"))?;
    Ok(json!({ "PolicyValidationPassed": true, "ValidationErrors": [] }))
}
