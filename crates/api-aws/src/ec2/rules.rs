//! Rules of security groups.

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use tripod_engine::aws::hex_id;
use tripod_model::aws::{GroupRule, SecurityGroupSpec, Tags};

use super::filter::{filtered, named, paged};
use super::groups;
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, some, tag_list, tags_of};

/// The rules of one direction as permissions: those of equal protocol and ports together.
pub(super) fn permissions(call: &Call, group: &SecurityGroupSpec, egress: bool) -> Value {
    let mut out: Vec<Value> = Vec::new();
    for rule in group.rules.iter().filter(|r| r.egress == egress) {
        let ports = |p: &Value| {
            let own = |n: i64| if rule.protocol == "-1" { None } else { Some(n) };
            p.number("FromPort") == own(rule.from) && p.number("ToPort") == own(rule.to)
        };
        let same = out
            .iter_mut()
            .find(|p| p.text("IpProtocol") == rule.protocol && ports(p));
        let at = match same {
            Some(p) => p,
            None => {
                let mut p = json!({
                    "IpProtocol": rule.protocol, "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [],
                    "UserIdGroupPairs": [],
                });
                if rule.protocol != "-1" {
                    p["FromPort"] = rule.from.into();
                    p["ToPort"] = rule.to.into();
                }
                out.push(p);
                let last = out.len() - 1;
                &mut out[last]
            }
        };
        let described = some(&rule.description);
        let (member, peer) = if !rule.cidr.is_empty() {
            (
                "IpRanges",
                json!({ "CidrIp": rule.cidr, "Description": described }),
            )
        } else if !rule.cidr6.is_empty() {
            (
                "Ipv6Ranges",
                json!({ "CidrIpv6": rule.cidr6, "Description": described }),
            )
        } else if !rule.prefix_list.is_empty() {
            (
                "PrefixListIds",
                json!({ "PrefixListId": rule.prefix_list, "Description": described }),
            )
        } else {
            let pair = json!({ "GroupId": rule.group, "UserId": call.account(), "Description": described });
            ("UserIdGroupPairs", pair)
        };
        if let Some(list) = at[member].as_array_mut() {
            list.push(peer);
        }
    }
    out.into()
}

/// The rules that a request lists.
fn wanted(call: &Call, input: &Value, egress: bool) -> Result<Vec<GroupRule>, Fault> {
    let mut rules = Vec::new();
    for permission in input.items("IpPermissions") {
        one_permission(call, permission, egress, &mut rules)?;
    }
    if let Some(protocol) = input.maybe("IpProtocol") {
        let legacy = json!({
            "IpProtocol": protocol, "FromPort": input.get("FromPort"), "ToPort": input.get("ToPort"),
            "IpRanges": input.maybe("CidrIp").map(|c| json!([{ "CidrIp": c }])).unwrap_or_else(|| json!([])),
            "UserIdGroupPairs": input.maybe("SourceSecurityGroupName")
                .map(|n| json!([{ "GroupName": n }])).unwrap_or_else(|| json!([])),
        });
        one_permission(call, &legacy, egress, &mut rules)?;
    }
    if rules.is_empty() {
        return Err(Fault::new(
            "MissingParameter",
            "The request must contain the parameter ipPermissions",
        ));
    }
    let tags = input
        .items("TagSpecifications")
        .iter()
        .flat_map(|t| tags_of(t.items("Tags"), "Key", "Value"));
    let tags: Tags = tags.collect();
    rules.iter_mut().for_each(|r| r.tags.clone_from(&tags));
    Ok(rules)
}

fn one_permission(call: &Call, p: &Value, egress: bool, out: &mut Vec<GroupRule>) -> Result<(), Fault> {
    let base = GroupRule { egress, ..ports(p)? };
    let described = |v: &Value, rule: GroupRule| GroupRule {
        description: v.text("Description").to_owned(),
        id: format!("sgr-0{}", hex_id(16)),
        ..rule
    };
    let before = out.len();
    for v in p.items("IpRanges") {
        let cidr = v.text("CidrIp");
        let net: Ipv4Net = cidr
            .parse()
            .map_err(|_| Fault::new("InvalidParameterValue", format!("CIDR block {cidr} is malformed")))?;
        let cidr = net.trunc().to_string();
        out.push(described(v, GroupRule { cidr, ..base.clone() }));
    }
    for v in p.items("Ipv6Ranges") {
        let cidr6 = v.text("CidrIpv6");
        let net: Ipv6Net = cidr6.parse().map_err(|_| {
            Fault::new(
                "InvalidParameterValue",
                format!("CIDR block {cidr6} is malformed"),
            )
        })?;
        let cidr6 = net.trunc().to_string();
        out.push(described(
            v,
            GroupRule {
                cidr6,
                ..base.clone()
            },
        ));
    }
    for v in p.items("UserIdGroupPairs") {
        let id = groups::pick(call, v)?;
        let known = groups::all(call)?.iter().any(|g| g.metadata.name == id);
        if !known {
            return Err(groups::missing(&id));
        }
        out.push(described(
            v,
            GroupRule {
                group: id,
                ..base.clone()
            },
        ));
    }
    if let Some(v) = p.items("PrefixListIds").first() {
        let id = v.text("PrefixListId");
        let text = format!("The prefix list ID '{id}' does not exist");
        return Err(Fault::new("InvalidPrefixListId.NotFound", text));
    }
    if out.len() == before {
        let text = "The request must contain a source or destination: a CIDR block or a security group";
        return Err(Fault::new("MissingParameter", text));
    }
    Ok(())
}

/// Protocol and ports.
fn ports(p: &Value) -> Result<GroupRule, Fault> {
    let protocol = match p.text("IpProtocol").to_ascii_lowercase().as_str() {
        "6" => "tcp".to_owned(),
        "17" => "udp".into(),
        "1" => "icmp".into(),
        "58" => "icmpv6".into(),
        "all" | "-1" => "-1".into(),
        known @ ("tcp" | "udp" | "icmp" | "icmpv6") => known.into(),
        number if number.parse::<u8>().is_ok() => number.into(),
        other => {
            let text = format!("Invalid value '{other}' for IP protocol. Unknown protocol.");
            return Err(Fault::new("InvalidPermission.Malformed", text));
        }
    };
    let (from, to) = (p.number("FromPort"), p.number("ToPort"));
    if matches!(protocol.as_str(), "tcp" | "udp") {
        let (Some(from), Some(to)) = (from, to) else {
            let text = "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.";
            return Err(Fault::new("InvalidParameterValue", text));
        };
        let whole = from == -1 && to == -1;
        if !whole && (from < 0 || from > to || to > 65535) {
            let text = format!("Invalid TCP/UDP port range ({from}:{to})");
            return Err(Fault::new("InvalidParameterValue", text));
        }
        let (from, to) = if whole { (0, 65535) } else { (from, to) };
        return Ok(GroupRule {
            protocol,
            from,
            to,
            ..GroupRule::default()
        });
    }
    let (from, to) = match protocol.as_str() {
        "icmp" | "icmpv6" => (from.unwrap_or(-1), to.unwrap_or(-1)),
        _ => (-1, -1),
    };
    Ok(GroupRule {
        protocol,
        from,
        to,
        ..GroupRule::default()
    })
}

fn peer(rule: &GroupRule) -> &str {
    let peers = [&rule.cidr, &rule.cidr6, &rule.group, &rule.prefix_list];
    peers
        .into_iter()
        .find(|p| !p.is_empty())
        .map_or("", String::as_str)
}

fn duplicate(rule: &GroupRule) -> Fault {
    let ports = match rule.protocol.as_str() {
        "-1" => "ALL".to_owned(),
        p => format!(
            "{}, from port: {}, to port: {}",
            p.to_uppercase(),
            rule.from,
            rule.to
        ),
    };
    let text = format!(
        "the specified rule \"peer: {}, {ports}, ALLOW\" already exists",
        peer(rule)
    );
    Fault::new("InvalidPermission.Duplicate", text)
}

fn shown(call: &Call, group: &str, rule: &GroupRule) -> Value {
    let referenced =
        (!rule.group.is_empty()).then(|| json!({ "GroupId": rule.group, "UserId": call.account() }));
    json!({
        "SecurityGroupRuleId": rule.id, "GroupId": group, "GroupOwnerId": call.account(), "IsEgress": rule.egress,
        "IpProtocol": rule.protocol, "FromPort": rule.from, "ToPort": rule.to, "CidrIpv4": some(&rule.cidr),
        "CidrIpv6": some(&rule.cidr6), "PrefixListId": some(&rule.prefix_list),
        "ReferencedGroupInfo": referenced, "Description": some(&rule.description),
        "Tags": tag_list(&rule.tags, "Key", "Value"),
        "SecurityGroupRuleArn": call.arn("ec2", &format!("security-group-rule/{}", rule.id)),
    })
}

async fn authorize(call: Call, input: Value, egress: bool) -> Reply {
    let id = groups::pick(&call, &input)?;
    let rules = wanted(&call, &input, egress)?;
    groups::change(&call, &id, |g| {
        for rule in &rules {
            if g.rules.iter().any(|r| r.same(rule)) {
                return Err(duplicate(rule));
            }
            g.rules.push(rule.clone());
        }
        Ok(())
    })
    .await?;
    let shown: Value = rules.iter().map(|r| shown(&call, &id, r)).collect();
    Ok(json!({ "Return": true, "SecurityGroupRules": shown }))
}

async fn revoke(call: Call, input: Value, egress: bool) -> Reply {
    let id = groups::pick(&call, &input)?;
    let ids = input.texts("SecurityGroupRuleIds");
    let rules = if ids.is_empty() {
        wanted(&call, &input, egress)?
    } else {
        Vec::new()
    };
    let gone = groups::change(&call, &id, |g| {
        let mut gone = Vec::new();
        for rule_id in &ids {
            let at = g
                .rules
                .iter()
                .position(|r| r.id == *rule_id && r.egress == egress);
            let text = format!("The security group rule ID '{rule_id}' does not exist");
            let at = at.ok_or_else(|| Fault::new("InvalidSecurityGroupRuleId.NotFound", text))?;
            gone.push(g.rules.remove(at));
        }
        for rule in &rules {
            let at = g.rules.iter().position(|r| r.same(rule));
            let text = "The specified rule does not exist in this security group.";
            let at = at.ok_or_else(|| Fault::new("InvalidPermission.NotFound", text))?;
            gone.push(g.rules.remove(at));
        }
        Ok(gone)
    })
    .await?;
    let gone: Value = gone
        .iter()
        .map(|r| {
            let mut shown = shown(&call, &id, r);
            shown["ReferencedGroupId"] = some(&r.group);
            shown
        })
        .collect();
    Ok(json!({ "Return": true, "RevokedSecurityGroupRules": gone }))
}

pub(super) async fn authorize_ingress(call: Call, input: Value) -> Reply {
    authorize(call, input, false).await
}

pub(super) async fn authorize_egress(call: Call, input: Value) -> Reply {
    authorize(call, input, true).await
}

pub(super) async fn revoke_ingress(call: Call, input: Value) -> Reply {
    revoke(call, input, false).await
}

pub(super) async fn revoke_egress(call: Call, input: Value) -> Reply {
    revoke(call, input, true).await
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let mut items = Vec::new();
    for group in groups::all(&call)? {
        items.extend(
            group
                .spec
                .rules
                .iter()
                .map(|r| shown(&call, &group.metadata.name, r)),
        );
    }
    let wanted = input.texts("SecurityGroupRuleIds");
    let code = "InvalidSecurityGroupRuleId.NotFound";
    let items = named(
        items,
        &wanted,
        "SecurityGroupRuleId",
        code,
        "security group rule ID",
    )?;
    let known = [
        ("group-id", "GroupId"),
        ("security-group-rule-id", "SecurityGroupRuleId"),
    ];
    paged(&input, "SecurityGroupRules", filtered(items, &input, &known)?)
}

pub(super) async fn modify(call: Call, input: Value) -> Reply {
    let id = input.text("GroupId").to_owned();
    let mut changes = Vec::new();
    for change in input.items("SecurityGroupRules") {
        let rule = change.get("SecurityGroupRule").cloned().unwrap_or_default();
        let permission = json!({
            "IpProtocol": rule.text("IpProtocol"), "FromPort": rule.get("FromPort"), "ToPort": rule.get("ToPort"),
            "IpRanges": rule.maybe("CidrIpv4").map(|c| vec![json!({ "CidrIp": c })]).unwrap_or_default(),
            "Ipv6Ranges": rule.maybe("CidrIpv6").map(|c| vec![json!({ "CidrIpv6": c })]).unwrap_or_default(),
            "UserIdGroupPairs": rule.maybe("ReferencedGroupId").map(|g| vec![json!({ "GroupId": g })]).unwrap_or_default(),
        });
        let mut made = Vec::new();
        one_permission(&call, &permission, false, &mut made)?;
        if let Some(made) = made.pop() {
            let description = rule.text("Description").to_owned();
            changes.push((
                change.text("SecurityGroupRuleId").to_owned(),
                GroupRule { description, ..made },
            ));
        }
    }
    groups::change(&call, &id, |g| {
        for (rule_id, change) in &changes {
            let text = format!("The security group rule ID '{rule_id}' does not exist");
            let rule = g.rules.iter_mut().find(|r| r.id == *rule_id);
            let rule = rule.ok_or_else(|| Fault::new("InvalidSecurityGroupRuleId.NotFound", text))?;
            let (id, egress, tags) = (rule.id.clone(), rule.egress, rule.tags.clone());
            *rule = GroupRule {
                id,
                egress,
                tags,
                ..change.clone()
            };
        }
        Ok(())
    })
    .await?;
    Ok(json!({ "Return": true }))
}

async fn update_descriptions(call: Call, input: Value, egress: bool) -> Reply {
    let id = groups::pick(&call, &input)?;
    let by_id = input.items("SecurityGroupRuleDescriptions").to_vec();
    let rules = if by_id.is_empty() {
        wanted(&call, &input, egress)?
    } else {
        Vec::new()
    };
    groups::change(&call, &id, |g| {
        let absent = || {
            let text = "The specified rule does not exist in this security group.";
            Fault::new("InvalidPermission.NotFound", text)
        };
        for change in &by_id {
            let rule = g
                .rules
                .iter_mut()
                .find(|r| r.id == change.text("SecurityGroupRuleId"));
            rule.ok_or_else(absent)?.description = change.text("Description").to_owned();
        }
        for change in &rules {
            let rule = g.rules.iter_mut().find(|r| r.same(change));
            rule.ok_or_else(absent)?
                .description
                .clone_from(&change.description);
        }
        Ok(())
    })
    .await?;
    Ok(json!({ "Return": true }))
}

pub(super) async fn describe_ingress(call: Call, input: Value) -> Reply {
    update_descriptions(call, input, false).await
}

pub(super) async fn describe_egress(call: Call, input: Value) -> Reply {
    update_descriptions(call, input, true).await
}
