//! Groups of users.

use serde_json::{Value, json};
use tripod_engine::TypedTxn as _;
use tripod_engine::aws::{iam_id, uid, user_object};
use tripod_model::aws::{Group, GroupSpec, User};
use tripod_store::Txn;

use super::{conflict, exists, listed, no_such, path_of, users};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of};

/// `metadata.name` of a group.
pub(super) fn group_object(name: &str) -> String {
    tripod_model::ecs::object_name("group", &name.to_lowercase())
}

pub(super) fn find(call: &Call, name: &str) -> Result<Group, Fault> {
    let group = call.state().get::<Group>("", &group_object(name))?;
    group.ok_or_else(|| no_such("group", name))
}

pub(super) fn shown(call: &Call, group: &Group) -> Value {
    let s = &group.spec;
    json!({
        "Path": s.path, "GroupName": s.name, "GroupId": s.id,
        "Arn": format!("arn:aws:iam::{}:group{}{}", call.account(), s.path, s.name),
        "CreateDate": epoch_of(group.metadata.creation_timestamp),
    })
}

/// The members of a group.
fn members(call: &Call, name: &str) -> Result<Vec<User>, Fault> {
    let mut users = call.state().list::<User>(None)?;
    users.retain(|u| u.spec.groups.iter().any(|g| g == name));
    users.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(users)
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("GroupName");
    let spec = GroupSpec {
        name: name.to_owned(),
        path: path_of(&input),
        id: iam_id("AGPA"),
        ..GroupSpec::default()
    };
    let group = Group::new(group_object(name), uid(), call.now(), spec);
    let group = call.create(&group, || exists("Group", name)).await?;
    Ok(json!({ "Group": shown(&call, &group) }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let group = find(&call, input.text("GroupName"))?;
    let users = members(&call, &group.spec.name)?;
    let users = users.iter().map(|u| users::shown(&call, u)).collect();
    let mut out = listed(&input, "Users", users)?;
    out["Group"] = shown(&call, &group);
    Ok(out)
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let mut groups = call.state().list::<Group>(None)?;
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    groups.retain(|g| g.spec.path.starts_with(prefix));
    groups.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let items = groups.iter().map(|g| shown(&call, g)).collect();
    listed(&input, "Groups", items)
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let group = find(&call, input.text("GroupName"))?;
    let old = group.spec.name.clone();
    let new = input.maybe("NewGroupName").unwrap_or(&old).to_owned();
    let mut changed = group.clone();
    changed.spec.name.clone_from(&new);
    if let Some(path) = input.maybe("NewPath") {
        changed.spec.path = path.to_owned();
    }
    if group_object(&new) == group.metadata.name {
        call.db().submit(Txn::new().replace(&changed)).await?;
        return Ok(Value::Null);
    }
    if call.state().get::<Group>("", &group_object(&new))?.is_some() {
        return Err(exists("Group", &new));
    }
    let mut renamed = Group::new(group_object(&new), uid(), call.now(), changed.spec);
    renamed.metadata.creation_timestamp = group.metadata.creation_timestamp;
    let mut txn = Txn::new().insert(&renamed).remove(&group);
    for mut user in members(&call, &old)? {
        user.spec
            .groups
            .iter_mut()
            .filter(|g| **g == old)
            .for_each(|g| g.clone_from(&new));
        txn = txn.replace(&user);
    }
    call.db().submit(txn).await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let group = find(&call, input.text("GroupName"))?;
    if !members(&call, &group.spec.name)?.is_empty() {
        return Err(conflict(
            "Cannot delete entity, must remove users from group first.",
        ));
    }
    if !group.spec.attached.is_empty() {
        return Err(conflict("Cannot delete entity, must detach all policies first."));
    }
    if !group.spec.inline.is_empty() {
        return Err(conflict("Cannot delete entity, must delete policies first."));
    }
    call.remove(&group).await?;
    Ok(Value::Null)
}

pub(super) async fn add_user(call: Call, input: Value) -> Reply {
    let group = find(&call, input.text("GroupName"))?.spec.name;
    let name = input.text("UserName");
    let missing = || no_such("user", name);
    call.edit("", &user_object(name), missing, |u: &mut User| {
        if !u.spec.groups.contains(&group) {
            u.spec.groups.push(group.clone());
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn remove_user(call: Call, input: Value) -> Reply {
    let group = find(&call, input.text("GroupName"))?.spec.name;
    let name = input.text("UserName");
    let missing = || no_such("user", name);
    call.edit("", &user_object(name), missing, |u: &mut User| {
        let before = u.spec.groups.len();
        u.spec.groups.retain(|g| *g != group);
        if u.spec.groups.len() == before {
            let text = format!("User {name} is not in group {group}.");
            return Err(Fault::new("NoSuchEntityException", text));
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn of_user(call: Call, input: Value) -> Reply {
    let user = users::find(&call, &users::named(&call, &input)?)?;
    let mut names = user.spec.groups;
    names.sort_unstable();
    let mut items = Vec::new();
    for name in names {
        items.push(shown(&call, &find(&call, &name)?));
    }
    listed(&input, "Groups", items)
}
