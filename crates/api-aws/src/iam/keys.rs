//! Access keys.

use serde_json::{Value, json};
use tripod_engine::aws::{new_key, uid};
use tripod_model::aws::AccessKey;

use super::{listed, no_such, users};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of};

/// Keys that a user may have.
const LIMIT: usize = 2;

fn status(key: &AccessKey) -> &'static str {
    if key.spec.inactive { "Inactive" } else { "Active" }
}

fn of_user(call: &Call, user: &str) -> Result<Vec<AccessKey>, Fault> {
    let mut keys = call.state().list::<AccessKey>(None)?;
    keys.retain(|k| k.spec.user == user && k.spec.token.is_empty());
    keys.sort_by_key(|k| k.metadata.creation_timestamp);
    Ok(keys)
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let user = users::find(&call, &users::named(&call, &input)?)?.spec.name;
    if of_user(&call, &user)?.len() >= LIMIT {
        let text = format!("Cannot exceed quota for AccessKeysPerUser: {LIMIT}");
        return Err(Fault::new("LimitExceededException", text));
    }
    let spec = new_key(&user);
    let key = AccessKey::new(spec.id.to_lowercase(), uid(), call.now(), spec);
    let key = call
        .create(&key, || {
            Fault::new("EntityAlreadyExistsException", "the key exists")
        })
        .await?;
    Ok(json!({ "AccessKey": {
        "UserName": user, "AccessKeyId": key.spec.id, "Status": "Active", "SecretAccessKey": key.spec.secret,
        "CreateDate": epoch_of(key.metadata.creation_timestamp),
    } }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let user = users::find(&call, &users::named(&call, &input)?)?.spec.name;
    let keys = of_user(&call, &user)?;
    let shown = keys.iter().map(|k| {
        json!({
            "UserName": user, "AccessKeyId": k.spec.id, "Status": status(k),
            "CreateDate": epoch_of(k.metadata.creation_timestamp),
        })
    });
    listed(&input, "AccessKeyMetadata", shown.collect())
}

fn missing(id: &str) -> Fault {
    no_such("Access Key", id)
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let user = users::named(&call, &input)?;
    let id = input.text("AccessKeyId").to_owned();
    let inactive = input.text("Status") != "Active";
    call.edit(
        "",
        &id.to_lowercase(),
        || missing(&id),
        |k: &mut AccessKey| {
            if k.spec.user != user {
                return Err(missing(&id));
            }
            k.spec.inactive = inactive;
            Ok(())
        },
    )
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let user = users::named(&call, &input)?;
    let id = input.text("AccessKeyId");
    let key = call.state().get::<AccessKey>("", &id.to_lowercase())?;
    let key = key.filter(|k| k.spec.user == user).ok_or_else(|| missing(id))?;
    call.remove(&key).await?;
    Ok(Value::Null)
}

pub(super) async fn last_used(call: Call, input: Value) -> Reply {
    let id = input.text("AccessKeyId");
    let key = call.state().get::<AccessKey>("", &id.to_lowercase())?;
    let key = key.ok_or_else(|| missing(id))?;
    Ok(json!({ "UserName": key.spec.user, "AccessKeyLastUsed": { "ServiceName": "N/A", "Region": "N/A" } }))
}
