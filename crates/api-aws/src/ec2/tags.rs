//! Tags of EC2's resources: those of security groups and their rules with them, others by themselves.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{ResourceTags, ResourceTagsSpec, SecurityGroup, Tags};

use super::filter::{filtered, paged};
use super::groups;
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tag_list, tags_of};

/// The tags of a resource that has no object of its own, as answers have them.
pub(super) fn of(call: &Call, id: &str) -> Result<Value, Fault> {
    let tags = call.state().get::<ResourceTags>("", id)?;
    Ok(tag_list(
        &tags.map(|t| t.spec.tags).unwrap_or_default(),
        "Key",
        "Value",
    ))
}

/// The tags of a resource.
pub(crate) fn of_id(call: &Call, id: &str) -> Tags {
    let state = call.state();
    let group = state.get::<SecurityGroup>("", id).ok().flatten();
    let tags = state.get::<ResourceTags>("", id).ok().flatten();
    group
        .map(|g| g.spec.tags)
        .or(tags.map(|t| t.spec.tags))
        .unwrap_or_default()
}

/// Adds tags to a resource.
pub(super) async fn add(call: &Call, id: &str, tags: &Tags) -> Result<(), Fault> {
    change(call, id, |t| t.extend(tags.clone())).await
}

/// What identifiers begin with, and the name of the kind.
const KINDS: &[(&str, &str)] = &[
    ("vpc-", "vpc"),
    ("subnet-", "subnet"),
    ("sg-", "security-group"),
    ("sgr-", "security-group-rule"),
    ("eni-", "network-interface"),
    ("rtb-", "route-table"),
    ("igw-", "internet-gateway"),
    ("acl-", "network-acl"),
    ("dopt-", "dhcp-options"),
    ("nat-", "natgateway"),
    ("eipalloc-", "elastic-ip"),
];

pub(crate) fn kind(id: &str) -> Result<&'static str, Fault> {
    let kind = KINDS
        .iter()
        .find(|(prefix, _)| id.starts_with(prefix))
        .map(|(_, kind)| *kind);
    kind.ok_or_else(|| Fault::new("InvalidID", format!("The ID '{id}' is not valid")))
}

async fn change(call: &Call, id: &str, change: impl Fn(&mut Tags) + Send + Sync) -> Result<(), Fault> {
    match kind(id)? {
        "security-group" => {
            groups::change(call, id, |g| {
                change(&mut g.tags);
                Ok(())
            })
            .await?;
        }
        "security-group-rule" => {
            let holder = groups::all(call)?
                .into_iter()
                .find(|g| g.spec.rules.iter().any(|r| r.id == id));
            let text = format!("The security group rule ID '{id}' does not exist");
            let holder = holder.ok_or_else(|| Fault::new("InvalidSecurityGroupRuleId.NotFound", text))?;
            groups::change(call, &holder.metadata.name, |g| {
                for rule in g.rules.iter_mut().filter(|r| r.id == id) {
                    change(&mut rule.tags);
                }
                Ok(())
            })
            .await?;
        }
        _ => {
            let spec = ResourceTagsSpec {
                id: id.to_owned(),
                region: call.region.clone(),
                tags: Tags::new(),
            };
            let empty = ResourceTags::new(id, uid(), call.now(), spec);
            // It may be there already: then its tags are changed.
            let _ = call.db().create(&empty).await;
            let missing = || Fault::new("InternalError", "the tags are gone").status(500);
            call.edit("", id, missing, |t: &mut ResourceTags| {
                change(&mut t.spec.tags);
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let tags = tags_of(input.items("Tags"), "Key", "Value");
    let ids = input.texts("Resources");
    ids.iter().try_for_each(|id| kind(id).map(drop))?;
    for id in &ids {
        change(&call, id, |t| t.extend(tags.clone())).await?;
    }
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let wanted: Vec<(String, Option<String>)> = input
        .items("Tags")
        .iter()
        .map(|t| (t.text("Key").to_owned(), t.maybe("Value").map(str::to_owned)))
        .collect();
    let ids = input.texts("Resources");
    ids.iter().try_for_each(|id| kind(id).map(drop))?;
    for id in &ids {
        change(&call, id, |tags| {
            tags.retain(|k, v| {
                let listed = |(key, value): &(String, Option<String>)| {
                    key == k && value.as_ref().is_none_or(|wanted| wanted == v)
                };
                !wanted.is_empty() && !wanted.iter().any(listed)
            });
        })
        .await?;
    }
    Ok(Value::Null)
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let state = call.state();
    let mut items = Vec::new();
    let mut add = |id: &str, tags: &Tags| {
        for (k, v) in tags {
            items.push(
                json!({ "ResourceId": id, "ResourceType": kind(id).unwrap_or(""), "Key": k, "Value": v }),
            );
        }
    };
    for group in state
        .list::<SecurityGroup>(None)?
        .iter()
        .filter(|g| g.spec.region == call.region)
    {
        add(&group.metadata.name, &group.spec.tags);
        group.spec.rules.iter().for_each(|r| add(&r.id, &r.tags));
    }
    for tags in state
        .list::<ResourceTags>(None)?
        .iter()
        .filter(|t| t.spec.region == call.region)
    {
        add(&tags.spec.id, &tags.spec.tags);
    }
    let known = [
        ("resource-id", "ResourceId"),
        ("resource-type", "ResourceType"),
        ("key", "Key"),
        ("value", "Value"),
    ];
    paged(&input, "Tags", filtered(items, &input, &known)?)
}
