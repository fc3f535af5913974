//! Instance profiles.

use serde_json::{Value, json};
use tripod_engine::aws::{iam_id, uid};
use tripod_model::aws::{InstanceProfile, InstanceProfileSpec};

use super::{conflict, exists, listed, path_of, roles};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, tag_list};

pub(super) fn profile_object(name: &str) -> String {
    tripod_model::ecs::object_name("profile", &name.to_lowercase())
}

fn missing(name: &str) -> Fault {
    Fault::new(
        "NoSuchEntityException",
        format!("Instance Profile {name} cannot be found."),
    )
}

fn find(call: &Call, name: &str) -> Result<InstanceProfile, Fault> {
    let profile = call.state().get::<InstanceProfile>("", &profile_object(name))?;
    profile.ok_or_else(|| missing(name))
}

pub(super) fn shown(call: &Call, profile: &InstanceProfile) -> Result<Value, Fault> {
    let s = &profile.spec;
    let state = call.state();
    let mut held = Vec::new();
    for name in &s.roles {
        if let Some(role) = super::find_role(&state, name)? {
            held.push(roles::shown(call, &role, false));
        }
    }
    Ok(json!({
        "Path": s.path, "InstanceProfileName": s.name, "InstanceProfileId": s.id,
        "Arn": format!("arn:aws:iam::{}:instance-profile{}{}", call.account(), s.path, s.name),
        "CreateDate": epoch_of(profile.metadata.creation_timestamp), "Roles": held,
        "Tags": if s.tags.is_empty() { Value::Null } else { tag_list(&s.tags, "Key", "Value") },
    }))
}

async fn change(
    call: &Call,
    input: &Value,
    change: impl Fn(&mut InstanceProfileSpec) -> Result<(), Fault> + Send + Sync,
) -> Reply {
    let name = input.text("InstanceProfileName");
    call.edit(
        "",
        &profile_object(name),
        || missing(name),
        |p: &mut InstanceProfile| change(&mut p.spec),
    )
    .await?;
    Ok(Value::Null)
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("InstanceProfileName");
    let spec = InstanceProfileSpec {
        name: name.to_owned(),
        path: path_of(&input),
        id: iam_id("AIPA"),
        roles: Vec::new(),
        tags: super::tags_given(&input)?,
    };
    let profile = InstanceProfile::new(profile_object(name), uid(), call.now(), spec);
    let taken = || Fault {
        message: format!("Instance Profile {name} already exists."),
        ..exists("Instance Profile", name)
    };
    let profile = call.create(&profile, taken).await?;
    Ok(json!({ "InstanceProfile": shown(&call, &profile)? }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let profile = find(&call, input.text("InstanceProfileName"))?;
    Ok(json!({ "InstanceProfile": shown(&call, &profile)? }))
}

fn list_of(call: &Call, input: &Value, keep: impl Fn(&InstanceProfileSpec) -> bool) -> Reply {
    let mut profiles = call.state().list::<InstanceProfile>(None)?;
    profiles.retain(|p| keep(&p.spec));
    profiles.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let shown = profiles
        .iter()
        .map(|p| shown(call, p))
        .collect::<Result<_, _>>()?;
    listed(input, "InstanceProfiles", shown)
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    list_of(&call, &input, |p| p.path.starts_with(prefix))
}

pub(super) async fn of_role(call: Call, input: Value) -> Reply {
    let role = roles::find(&call, input.text("RoleName"))?;
    list_of(&call, &input, |p| p.roles.contains(&role.spec.name))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let profile = find(&call, input.text("InstanceProfileName"))?;
    if !profile.spec.roles.is_empty() {
        return Err(conflict(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    call.remove(&profile).await?;
    Ok(Value::Null)
}

pub(super) async fn add_role(call: Call, input: Value) -> Reply {
    let role = roles::find(&call, input.text("RoleName"))?;
    change(&call, &input, |p| {
        if !p.roles.is_empty() {
            let text = "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1";
            return Err(Fault::new("LimitExceededException", text));
        }
        p.roles.push(role.spec.name.clone());
        Ok(())
    })
    .await
}

pub(super) async fn remove_role(call: Call, input: Value) -> Reply {
    let role = input.text("RoleName");
    change(&call, &input, |p| {
        let before = p.roles.len();
        p.roles.retain(|r| r != role);
        if p.roles.len() == before {
            return Err(super::no_such("role", role));
        }
        Ok(())
    })
    .await
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let tags = super::tags_given(&input)?;
    change(&call, &input, |p| {
        p.tags.extend(tags.clone());
        Ok(())
    })
    .await
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let keys = input.texts("TagKeys");
    change(&call, &input, |p| {
        p.tags.retain(|k, _| !keys.contains(k));
        Ok(())
    })
    .await
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    let profile = find(&call, input.text("InstanceProfileName"))?;
    let tags = tag_list(&profile.spec.tags, "Key", "Value");
    listed(&input, "Tags", tags.as_array().cloned().unwrap_or_default())
}
