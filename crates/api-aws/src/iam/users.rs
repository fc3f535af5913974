//! Users.

use serde_json::{Value, json};
use tripod_engine::TypedTxn as _;
use tripod_engine::aws::{iam_id, uid, user_object};
use tripod_model::aws::{AccessKey, User, UserSpec};
use tripod_store::Txn;

use super::{conflict, exists, listed, no_such, path_of};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, tag_list};

pub(super) fn arn(call: &Call, user: &UserSpec) -> String {
    format!("arn:aws:iam::{}:user{}{}", call.account(), user.path, user.name)
}

pub(super) fn shown(call: &Call, user: &User) -> Value {
    let s = &user.spec;
    let mut out = json!({
        "Path": s.path, "UserName": s.name, "UserId": s.id, "Arn": arn(call, s),
        "CreateDate": epoch_of(user.metadata.creation_timestamp),
    });
    if !s.boundary.is_empty() {
        out["PermissionsBoundary"] =
            json!({ "PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": s.boundary });
    }
    out
}

pub(super) fn with_tags(mut out: Value, user: &User) -> Value {
    if !user.spec.tags.is_empty() {
        out["Tags"] = tag_list(&user.spec.tags, "Key", "Value");
    }
    out
}

/// The user that a request names, or the caller.
pub(super) fn named(call: &Call, input: &Value) -> Result<String, Fault> {
    let own = call.principal.user.as_deref();
    let name = input.maybe("UserName").or(own);
    let text = "Must specify userName when calling with non-User credentials";
    name.map(str::to_owned)
        .ok_or_else(|| Fault::new("ValidationError", text))
}

pub(super) fn find(call: &Call, name: &str) -> Result<User, Fault> {
    let user = call.state().get::<User>("", &user_object(name))?;
    user.ok_or_else(|| no_such("user", name))
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("UserName");
    if let Some(arn) = input.maybe("PermissionsBoundary") {
        super::simulate::boundary(&call, arn)?;
    }
    let spec = UserSpec {
        name: name.to_owned(),
        path: path_of(&input),
        id: iam_id("AIDA"),
        tags: super::tags_given(&input)?,
        boundary: input.text("PermissionsBoundary").to_owned(),
        ..UserSpec::default()
    };
    let user = User::new(user_object(name), uid(), call.now(), spec);
    let user = call.create(&user, || exists("User", name)).await?;
    Ok(json!({ "User": with_tags(shown(&call, &user), &user) }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let user = find(&call, &named(&call, &input)?)?;
    Ok(json!({ "User": with_tags(shown(&call, &user), &user) }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let mut users = call.state().list::<User>(None)?;
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    users.retain(|u| u.spec.path.starts_with(prefix));
    users.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    listed(&input, "Users", users.iter().map(|u| shown(&call, u)).collect())
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let name = input.text("UserName").to_owned();
    let new = input.maybe("NewUserName").unwrap_or(&name).to_owned();
    let path = input.maybe("NewPath").map(str::to_owned);
    if user_object(&new) == user_object(&name) {
        call.edit(
            "",
            &user_object(&name),
            || no_such("user", &name),
            |u: &mut User| {
                u.spec.name.clone_from(&new);
                if let Some(path) = &path {
                    u.spec.path.clone_from(path);
                }
                Ok(())
            },
        )
        .await?;
        return Ok(Value::Null);
    }
    rename(&call, &name, &new, path).await
}

/// A user's name is the name of its object and in its keys: all of them change at once.
async fn rename(call: &Call, name: &str, new: &str, path: Option<String>) -> Reply {
    let user = find(call, name)?;
    let state = call.state();
    if state.get::<User>("", &user_object(new))?.is_some() {
        return Err(exists("User", new));
    }
    let mut spec = user.spec.clone();
    new.clone_into(&mut spec.name);
    spec.path = path.unwrap_or(spec.path);
    let mut renamed = User::new(user_object(new), uid(), call.now(), spec);
    renamed.metadata.creation_timestamp = user.metadata.creation_timestamp;
    let mut txn = Txn::new().insert(&renamed).remove(&user);
    for mut key in state.list::<AccessKey>(None)? {
        let names = [&mut key.spec.user, &mut key.spec.session_user];
        let mut concerned = false;
        for held in names.into_iter().filter(|held| **held == user.spec.name) {
            new.clone_into(held);
            concerned = true;
        }
        if concerned {
            txn = txn.replace(&key);
        }
    }
    call.db().submit(txn).await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let user = find(&call, input.text("UserName"))?;
    let keys = call.state().list::<AccessKey>(None)?;
    if keys
        .iter()
        .any(|k| k.spec.user == user.spec.name && k.spec.token.is_empty())
    {
        return Err(conflict("Cannot delete entity, must delete access keys first."));
    }
    if !user.spec.groups.is_empty() {
        return Err(conflict(
            "Cannot delete entity, must remove users from group first.",
        ));
    }
    if !user.spec.attached.is_empty() {
        return Err(conflict("Cannot delete entity, must detach all policies first."));
    }
    if !user.spec.inline.is_empty() {
        return Err(conflict("Cannot delete entity, must delete policies first."));
    }
    call.remove(&user).await?;
    Ok(Value::Null)
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let name = input.text("UserName").to_owned();
    let tags = super::tags_given(&input)?;
    call.edit(
        "",
        &user_object(&name),
        || no_such("user", &name),
        |u: &mut User| {
            u.spec.tags.extend(tags.clone());
            Ok(())
        },
    )
    .await?;
    Ok(Value::Null)
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let name = input.text("UserName").to_owned();
    let keys = input.texts("TagKeys");
    call.edit(
        "",
        &user_object(&name),
        || no_such("user", &name),
        |u: &mut User| {
            u.spec.tags.retain(|k, _| !keys.contains(k));
            Ok(())
        },
    )
    .await?;
    Ok(Value::Null)
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    let user = find(&call, input.text("UserName"))?;
    let tags = tag_list(&user.spec.tags, "Key", "Value");
    listed(&input, "Tags", tags.as_array().cloned().unwrap_or_default())
}

async fn nothing(call: Call, input: Value, member: &str) -> Reply {
    find(&call, &named(&call, &input)?)?;
    listed(&input, member, Vec::new())
}

pub(super) async fn no_devices(call: Call, input: Value) -> Reply {
    nothing(call, input, "MFADevices").await
}

pub(super) async fn no_virtual_devices(_: Call, input: Value) -> Reply {
    listed(&input, "VirtualMFADevices", Vec::new())
}

pub(super) async fn no_ssh_keys(call: Call, input: Value) -> Reply {
    nothing(call, input, "SSHPublicKeys").await
}

pub(super) async fn no_certificates(call: Call, input: Value) -> Reply {
    nothing(call, input, "Certificates").await
}

pub(super) async fn no_credentials(call: Call, input: Value) -> Reply {
    nothing(call, input, "ServiceSpecificCredentials").await
}

pub(super) async fn no_login(call: Call, input: Value) -> Reply {
    let name = named(&call, &input)?;
    find(&call, &name)?;
    let text = format!("Login Profile for User {name} cannot be found.");
    Err(Fault::new("NoSuchEntityException", text))
}

async fn set_boundary(call: &Call, input: &Value, arn: &str) -> Reply {
    let name = input.text("UserName");
    let missing = || no_such("user", name);
    call.edit("", &user_object(name), missing, |u: &mut User| {
        arn.clone_into(&mut u.spec.boundary);
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn put_boundary(call: Call, input: Value) -> Reply {
    let arn = input.text("PermissionsBoundary");
    super::simulate::boundary(&call, arn)?;
    set_boundary(&call, &input, arn).await
}

pub(super) async fn delete_boundary(call: Call, input: Value) -> Reply {
    set_boundary(&call, &input, "").await
}
