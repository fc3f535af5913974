//! Roles, those of services included.

use serde_json::{Value, json};
use tripod_engine::aws::{iam_id, uid};
use tripod_model::aws::{InstanceProfile, Role, RoleSpec};

use super::{conflict, encoded, exists, listed, no_such, path_of, trust_document};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, tag_list};

/// `metadata.name` of a role.
pub(crate) fn role_object(name: &str) -> String {
    tripod_model::ecs::object_name("role", &name.to_lowercase())
}

/// ARN of a role.
pub(crate) fn role_arn(account: &str, role: &RoleSpec) -> String {
    format!("arn:aws:iam::{account}:role{}{}", role.path, role.name)
}

pub(super) fn shown(call: &Call, role: &Role, whole: bool) -> Value {
    let s = &role.spec;
    let mut out = json!({
        "Path": s.path, "RoleName": s.name, "RoleId": s.id, "Arn": role_arn(call.account(), s),
        "CreateDate": epoch_of(role.metadata.creation_timestamp),
        "AssumeRolePolicyDocument": encoded(&s.trust), "MaxSessionDuration": s.max_session,
        "Description": s.description,
    });
    if !s.boundary.is_empty() {
        out["PermissionsBoundary"] =
            json!({ "PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": s.boundary });
    }
    if whole {
        out["RoleLastUsed"] = json!({});
        if !s.tags.is_empty() {
            out["Tags"] = tag_list(&s.tags, "Key", "Value");
        }
    }
    out
}

pub(super) fn find(call: &Call, name: &str) -> Result<Role, Fault> {
    super::find_role(&call.state(), name)?.ok_or_else(|| no_such("role", name))
}

async fn change(
    call: &Call,
    input: &Value,
    change: impl Fn(&mut RoleSpec) + Send + Sync,
) -> Result<Role, Fault> {
    let name = input.text("RoleName");
    let done = call
        .edit(
            "",
            &role_object(name),
            || no_such("role", name),
            |r: &mut Role| {
                change(&mut r.spec);
                Ok(())
            },
        )
        .await?;
    Ok(done.0)
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("RoleName");
    let trust = input.text("AssumeRolePolicyDocument");
    trust_document(trust)?;
    if let Some(arn) = input.maybe("PermissionsBoundary") {
        super::simulate::boundary(&call, arn)?;
    }
    let spec = RoleSpec {
        name: name.to_owned(),
        path: path_of(&input),
        id: iam_id("AROA"),
        trust: trust.to_owned(),
        description: input.maybe("Description").map(str::to_owned),
        max_session: input.number("MaxSessionDuration").unwrap_or(3600),
        tags: super::tags_given(&input)?,
        boundary: input.text("PermissionsBoundary").to_owned(),
        ..RoleSpec::default()
    };
    let role = Role::new(role_object(name), uid(), call.now(), spec);
    let role = call.create(&role, || exists("Role", name)).await?;
    let mut shown = shown(&call, &role, true);
    if let Some(map) = shown.as_object_mut() {
        map.remove("RoleLastUsed");
    }
    Ok(json!({ "Role": shown }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let role = find(&call, input.text("RoleName"))?;
    Ok(json!({ "Role": shown(&call, &role, true) }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let mut roles = call.state().list::<Role>(None)?;
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    roles.retain(|r| r.spec.path.starts_with(prefix));
    roles.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    listed(
        &input,
        "Roles",
        roles.iter().map(|r| shown(&call, r, false)).collect(),
    )
}

pub(super) async fn put_boundary(call: Call, input: Value) -> Reply {
    let arn = input.text("PermissionsBoundary");
    super::simulate::boundary(&call, arn)?;
    change(&call, &input, |r| arn.clone_into(&mut r.boundary)).await?;
    Ok(Value::Null)
}

pub(super) async fn delete_boundary(call: Call, input: Value) -> Reply {
    change(&call, &input, |r| r.boundary.clear()).await?;
    Ok(Value::Null)
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    change(&call, &input, |r| {
        if let Some(text) = input.maybe("Description") {
            r.description = Some(text.to_owned());
        }
        if let Some(seconds) = input.number("MaxSessionDuration") {
            r.max_session = seconds;
        }
    })
    .await?;
    Ok(json!({}))
}

pub(super) async fn update_description(call: Call, input: Value) -> Reply {
    let role = change(&call, &input, |r| {
        r.description = input.maybe("Description").map(str::to_owned);
    })
    .await?;
    Ok(json!({ "Role": shown(&call, &role, true) }))
}

pub(super) async fn update_trust(call: Call, input: Value) -> Reply {
    trust_document(input.text("PolicyDocument"))?;
    change(&call, &input, |r| {
        r.trust = input.text("PolicyDocument").to_owned();
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let role = find(&call, input.text("RoleName"))?;
    if role.spec.path.starts_with("/aws-service-role/") {
        let text = "Cannot perform the operation on the protected role '".to_owned() + &role.spec.name;
        let text = text + "' - this role is only modifiable by AWS";
        return Err(Fault::new("UnmodifiableEntityException", text));
    }
    deletable(&call, &role)?;
    call.remove(&role).await?;
    Ok(Value::Null)
}

fn deletable(call: &Call, role: &Role) -> Result<(), Fault> {
    let profiles = call.state().list::<InstanceProfile>(None)?;
    if profiles.iter().any(|p| p.spec.roles.contains(&role.spec.name)) {
        return Err(conflict(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    if !role.spec.attached.is_empty() {
        return Err(conflict("Cannot delete entity, must detach all policies first."));
    }
    if !role.spec.inline.is_empty() {
        return Err(conflict("Cannot delete entity, must delete policies first."));
    }
    Ok(())
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let tags = super::tags_given(&input)?;
    change(&call, &input, |r| r.tags.extend(tags.clone())).await?;
    Ok(Value::Null)
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let keys = input.texts("TagKeys");
    change(&call, &input, |r| r.tags.retain(|k, _| !keys.contains(k))).await?;
    Ok(Value::Null)
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    let role = find(&call, input.text("RoleName"))?;
    let tags = tag_list(&role.spec.tags, "Key", "Value");
    listed(&input, "Tags", tags.as_array().cloned().unwrap_or_default())
}

/// Services with a role of their own, and its name.
const LINKED: &[(&str, &str)] = &[
    ("ecs.amazonaws.com", "AWSServiceRoleForECS"),
    (
        "elasticloadbalancing.amazonaws.com",
        "AWSServiceRoleForElasticLoadBalancing",
    ),
    ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling"),
    (
        "ecs.application-autoscaling.amazonaws.com",
        "AWSServiceRoleForApplicationAutoScaling_ECSService",
    ),
    ("spot.amazonaws.com", "AWSServiceRoleForEC2Spot"),
    (
        "elasticbeanstalk.amazonaws.com",
        "AWSServiceRoleForElasticBeanstalk",
    ),
    ("rds.amazonaws.com", "AWSServiceRoleForRDS"),
    ("elasticache.amazonaws.com", "AWSServiceRoleForElastiCache"),
    ("ops.apigateway.amazonaws.com", "AWSServiceRoleForAPIGateway"),
];

pub(crate) async fn create_linked(call: Call, input: Value) -> Reply {
    let service = input.text("AWSServiceName");
    let Some((_, base)) = LINKED.iter().find(|(s, _)| *s == service) else {
        let text = format!("Service {service} is not known, or has no service linked role.");
        return Err(Fault::new("InvalidInputException", text));
    };
    let name = match input.maybe("CustomSuffix") {
        Some(suffix) if service.starts_with("autoscaling") => format!("{base}_{suffix}"),
        Some(_) => {
            let text = format!("Custom suffix is not allowed for {service}");
            return Err(Fault::new("InvalidInputException", text));
        }
        None => (*base).to_owned(),
    };
    let trust = json!({ "Version": "2012-10-17", "Statement": [
        { "Action": ["sts:AssumeRole"], "Effect": "Allow", "Principal": { "Service": [service] } },
    ] });
    let attached = (*base == "AWSServiceRoleForECS")
        .then(|| "arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy".to_owned());
    let spec = RoleSpec {
        name: name.clone(),
        path: format!("/aws-service-role/{service}/"),
        id: iam_id("AROA"),
        trust: trust.to_string(),
        description: input.maybe("Description").map(str::to_owned),
        max_session: 3600,
        attached: attached.into_iter().collect(),
        ..RoleSpec::default()
    };
    let role = Role::new(role_object(&name), uid(), call.now(), spec);
    let taken = || {
        let text = format!(
            "Service role name {name} has been taken in this account, please try a different suffix."
        );
        Fault::new("InvalidInputException", text)
    };
    let role = call.create(&role, taken).await?;
    Ok(json!({ "Role": shown(&call, &role, false) }))
}

pub(super) async fn delete_linked(call: Call, input: Value) -> Reply {
    let role = find(&call, input.text("RoleName"))?;
    if !role.spec.path.starts_with("/aws-service-role/") {
        return Err(no_such("role", &role.spec.name));
    }
    call.remove(&role).await?;
    let task = format!("task{}{}/{}", role.spec.path, role.spec.name, uid());
    Ok(json!({ "DeletionTaskId": task }))
}

pub(super) async fn deletion_status(call: Call, input: Value) -> Reply {
    let task = input.text("DeletionTaskId");
    let role = task.rsplit('/').nth(1).unwrap_or_default();
    if !task.starts_with("task/aws-service-role/") {
        return Err(Fault::new(
            "NoSuchEntityException",
            format!("Deletion task {task} cannot be found."),
        ));
    }
    let gone = super::find_role(&call.state(), role)?.is_none();
    Ok(json!({ "Status": if gone { "SUCCEEDED" } else { "FAILED" } }))
}
