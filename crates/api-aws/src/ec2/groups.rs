//! Security groups.

use serde_json::{Value, json};
use tripod_engine::aws::{hex_id, uid};
use tripod_model::Time;
use tripod_model::aws::{GroupRule, SecurityGroup, SecurityGroupSpec};

use super::filter::{filtered, named, paged};
use super::parts::{self, VPC};
use super::{fixed_id, rules, vpc_id};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tag_list, tags_of};

/// The default group of a VPC.
pub(crate) fn default_group(region: &str, vpc: &str) -> String {
    match vpc == vpc_id(region) {
        true => fixed_id("sg", region, "default"),
        false => fixed_id("sg", vpc, "default"),
    }
}

/// What the default group is until somebody changes it: its members reach each other, and everything outside.
fn untouched(region: &str, vpc: &str) -> SecurityGroup {
    let id = default_group(region, vpc);
    let rule = |egress: bool, what: &str| GroupRule {
        id: fixed_id("sgr", &id, what),
        egress,
        protocol: "-1".into(),
        from: -1,
        to: -1,
        ..GroupRule::default()
    };
    let within = GroupRule {
        group: id.clone(),
        ..rule(false, "default in")
    };
    let out = GroupRule {
        cidr: "0.0.0.0/0".into(),
        ..rule(true, "default out")
    };
    let spec = SecurityGroupSpec {
        region: region.to_owned(),
        name: "default".into(),
        description: "default VPC security group".into(),
        vpc: vpc.to_owned(),
        rules: vec![within, out],
        tags: Default::default(),
    };
    SecurityGroup::new(id, String::new(), Time::UNIX_EPOCH, spec)
}

/// The groups of the caller's region.
pub(super) fn all(call: &Call) -> Result<Vec<SecurityGroup>, Fault> {
    let mut groups = call.state().list::<SecurityGroup>(None)?;
    groups.retain(|g| g.spec.region == call.region);
    for (at, vpc) in parts::all(call, VPC)?.iter().enumerate() {
        let vpc = vpc.text("VpcId");
        let default = default_group(&call.region, vpc);
        if !groups.iter().any(|g| g.metadata.name == default) {
            groups.insert(at.min(groups.len()), untouched(&call.region, vpc));
        }
    }
    Ok(groups)
}

/// Identifiers of the groups of the caller's region, and of the VPC of each.
pub(crate) fn group_vpcs(call: &Call) -> Result<Vec<(String, String)>, Fault> {
    let pair = |g: SecurityGroup| (g.metadata.name, g.spec.vpc);
    Ok(all(call)?.into_iter().map(pair).collect())
}

pub(super) fn missing(id: &str) -> Fault {
    Fault::new(
        "InvalidGroup.NotFound",
        format!("The security group '{id}' does not exist"),
    )
}

/// Changes a group; the default one is written down at its first change.
pub(super) async fn change<T>(
    call: &Call,
    id: &str,
    change: impl Fn(&mut SecurityGroupSpec) -> Result<T, Fault> + Send + Sync,
) -> Result<T, Fault> {
    let there = call.state().get::<SecurityGroup>("", id)?.is_some();
    let untouched = all(call)?.into_iter().find(|g| !there && g.metadata.name == id);
    if let Some(mut group) = untouched {
        group.metadata.uid = uid();
        group.metadata.creation_timestamp = Some(call.now());
        // Somebody else may be first.
        let _ = call.db().create(&group).await;
    }
    let region = call.region.clone();
    let done = call
        .edit(
            "",
            id,
            || missing(id),
            |g: &mut SecurityGroup| {
                if g.spec.region != region {
                    return Err(missing(id));
                }
                change(&mut g.spec)
            },
        )
        .await?;
    Ok(done.1)
}

/// The group that a request names by identifier or name.
pub(super) fn pick(call: &Call, input: &Value) -> Result<String, Fault> {
    if let Some(id) = input.maybe("GroupId") {
        return Ok(id.to_owned());
    }
    let Some(name) = input.maybe("GroupName") else {
        let text = "The request must contain the parameter groupName or groupId";
        return Err(Fault::new("MissingParameter", text));
    };
    // A name without a VPC is one of the default VPC.
    let vpc = input
        .maybe("VpcId")
        .map_or_else(|| vpc_id(&call.region), str::to_owned);
    let group = all(call)?
        .into_iter()
        .find(|g| g.spec.name == name && g.spec.vpc == vpc);
    group.map(|g| g.metadata.name).ok_or_else(|| missing(name))
}

fn shown(call: &Call, group: &SecurityGroup) -> Value {
    let s = &group.spec;
    let id = &group.metadata.name;
    json!({
        "GroupId": id, "GroupName": s.name, "Description": s.description, "VpcId": s.vpc, "OwnerId": call.account(),
        "SecurityGroupArn": call.arn("ec2", &format!("security-group/{id}")),
        "IpPermissions": rules::permissions(call, s, false), "IpPermissionsEgress": rules::permissions(call, s, true),
        "Tags": tag_list(&s.tags, "Key", "Value"),
    })
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let groups = all(&call)?;
    let items = groups.iter().map(|g| shown(&call, g)).collect();
    let (code, what) = ("InvalidGroup.NotFound", "security group");
    let items = named(items, &input.texts("GroupIds"), "GroupId", code, what)?;
    let items = named(items, &input.texts("GroupNames"), "GroupName", code, what)?;
    let known = [
        ("group-id", "GroupId"),
        ("group-name", "GroupName"),
        ("vpc-id", "VpcId"),
        ("description", "Description"),
        ("owner-id", "OwnerId"),
        ("ip-permission.protocol", "IpPermissions.IpProtocol"),
        ("ip-permission.from-port", "IpPermissions.FromPort"),
        ("ip-permission.to-port", "IpPermissions.ToPort"),
        ("ip-permission.cidr", "IpPermissions.IpRanges.CidrIp"),
        ("ip-permission.group-id", "IpPermissions.UserIdGroupPairs.GroupId"),
        ("egress.ip-permission.cidr", "IpPermissionsEgress.IpRanges.CidrIp"),
    ];
    paged(&input, "SecurityGroups", filtered(items, &input, &known)?)
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let (name, vpc) = (input.text("GroupName"), input.maybe("VpcId").map(str::to_owned));
    let vpc = vpc.unwrap_or_else(|| vpc_id(&call.region));
    parts::find(&call, VPC, &vpc)?;
    if name.starts_with("sg-") {
        let text = format!("Invalid value '{name}' for groupName. Must not begin with 'sg-'");
        return Err(Fault::new("InvalidParameterValue", text));
    }
    if all(&call)?
        .iter()
        .any(|g| g.spec.name == name && g.spec.vpc == vpc)
    {
        let text = format!("The security group '{name}' already exists for VPC '{vpc}'");
        return Err(Fault::new("InvalidGroup.Duplicate", text));
    }
    let out = GroupRule {
        id: format!("sgr-0{}", hex_id(16)),
        egress: true,
        protocol: "-1".into(),
        from: -1,
        to: -1,
        cidr: "0.0.0.0/0".into(),
        ..GroupRule::default()
    };
    let tags = input
        .items("TagSpecifications")
        .iter()
        .flat_map(|t| tags_of(t.items("Tags"), "Key", "Value"));
    let spec = SecurityGroupSpec {
        region: call.region.clone(),
        name: name.to_owned(),
        description: input.text("Description").to_owned(),
        vpc,
        rules: vec![out],
        tags: tags.collect(),
    };
    let id = format!("sg-0{}", hex_id(16));
    let group = SecurityGroup::new(&id, uid(), call.now(), spec);
    let group = call
        .create(&group, || {
            Fault::new("InternalError", "the identifier is taken").status(500)
        })
        .await?;
    Ok(json!({
        "GroupId": id, "Tags": tag_list(&group.spec.tags, "Key", "Value"),
        "SecurityGroupArn": call.arn("ec2", &format!("security-group/{id}")),
    }))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let id = pick(&call, &input)?;
    let groups = all(&call)?;
    let group = groups
        .iter()
        .find(|g| g.metadata.name == id)
        .ok_or_else(|| missing(&id))?;
    if group.spec.name == "default" {
        let text = format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user");
        return Err(Fault::new("CannotDelete", text));
    }
    let refers = |g: &SecurityGroup| g.metadata.name != id && g.spec.rules.iter().any(|r| r.group == id);
    let used = call.manager.with_view(|v| {
        let interfaces = v
            .pods()
            .filter(|p| p.is_live())
            .filter_map(|p| p.ecs()?.interface.clone());
        interfaces.into_iter().any(|i| i.groups.contains(&id))
    });
    if used || groups.iter().any(refers) {
        let text = format!("resource {id} has a dependent object");
        return Err(Fault::new("DependencyViolation", text));
    }
    call.remove(group).await?;
    Ok(json!({ "Return": true, "GroupId": id }))
}
