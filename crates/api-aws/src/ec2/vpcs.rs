//! VPCs and subnets that users make.
//!
//! They hold names, blocks and rules: tasks in them have addresses of the cluster's pod network, and a security group's
//! rule for a block is taken to mean the tasks of the subnets within it as well.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tripod_model::aws::SecurityGroup;

use super::parts::{self, ACL, GATEWAY, NAT, SUBNET, TABLE, VPC, in_use};
use super::{fixed_id, groups, network, vpc_id};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::Get as _;

/// A block of a VPC or subnet.
fn block(text: &str, code: &str) -> Result<Ipv4Net, Fault> {
    let malformed = || {
        let text =
            format!("Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block.");
        Fault::new("InvalidParameterValue", text)
    };
    let net: Ipv4Net = text.parse().map_err(|_| malformed())?;
    if !(16..=28).contains(&net.prefix_len()) {
        return Err(Fault::new(code, format!("The CIDR '{text}' is invalid.")));
    }
    Ok(net.trunc())
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let Some(cidr) = input.maybe("CidrBlock") else {
        let text = "The request must contain the parameter cidrBlock";
        return Err(Fault::new("MissingParameter", text));
    };
    if input.flag("AmazonProvidedIpv6CidrBlock") == Some(true) {
        return Err(Fault::unsupported("An IPv6 block of a VPC"));
    }
    let net = block(cidr, "InvalidVpc.Range")?.to_string();
    let id = parts::new_id("vpc");
    let content = json!({
        "VpcId": id, "CidrBlock": net, "IsDefault": false, "State": "available",
        "DhcpOptionsId": fixed_id("dopt", &call.region, "dopt"),
        "InstanceTenancy": input.maybe("InstanceTenancy").unwrap_or("default"),
        "CidrBlockAssociationSet": [{
            "AssociationId": parts::new_id("vpc-cidr-assoc"), "CidrBlock": net,
            "CidrBlockState": { "State": "associated" },
        }],
        "Ipv6CidrBlockAssociationSet": [], "BlockPublicAccessStates": { "InternetGatewayBlockMode": "off" },
        "enableDnsSupport": true, "enableDnsHostnames": false, "enableNetworkAddressUsageMetrics": false,
    });
    let mut made = parts::create(&call, VPC, &input, content).await?;
    let none = json!({});
    let table = parts::new_id("rtb");
    let content = json!({
        "RouteTableId": table, "VpcId": id, "PropagatingVgws": [],
        "Associations": [{
            "Main": true, "RouteTableId": table, "RouteTableAssociationId": parts::new_id("rtbassoc"),
            "AssociationState": { "State": "associated" },
        }],
        "Routes": [network::local_route(&net)],
    });
    parts::create(&call, TABLE, &none, content).await?;
    let content =
        json!({ "VpcId": id, "IsDefault": true, "Entries": network::acl_entries(), "Associations": [] });
    parts::create(&call, ACL, &none, content).await?;
    made["State"] = "pending".into();
    Ok(json!({ "Vpc": made }))
}

fn of_vpc(call: &Call, sort: parts::Sort, vpc: &str) -> Result<Vec<Value>, Fault> {
    let mut parts = parts::all(call, sort)?;
    parts.retain(|p| p.text("VpcId") == vpc);
    Ok(parts)
}

fn is_main(table: &Value) -> bool {
    table
        .items("Associations")
        .iter()
        .any(|a| a.flag("Main") == Some(true))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let id = input.text("VpcId");
    parts::find(&call, VPC, id)?;
    if id == vpc_id(&call.region) {
        return Err(parts::own("vpc", id));
    }
    let gateways = parts::all(&call, GATEWAY)?;
    let attached = gateways.iter().flat_map(|g| g.items("Attachments"));
    let mut groups = groups::all(&call)?;
    groups.retain(|g| g.spec.vpc == id);
    let tables = of_vpc(&call, TABLE, id)?;
    let busy = !of_vpc(&call, SUBNET, id)?.is_empty()
        || attached.into_iter().any(|a| a.text("VpcId") == id)
        || tables.iter().any(|t| !is_main(t))
        || groups.iter().any(|g| g.spec.name != "default");
    if busy {
        return Err(in_use("vpc", id));
    }
    for table in &tables {
        parts::remove(&call, TABLE, table.text("RouteTableId")).await?;
    }
    for acl in of_vpc(&call, ACL, id)? {
        parts::remove(&call, ACL, acl.text("NetworkAclId")).await?;
    }
    for group in groups {
        // The default one may never have been written down.
        if let Some(group) = call.state().get::<SecurityGroup>("", &group.metadata.name)? {
            call.remove(&group).await?;
        }
    }
    parts::remove(&call, VPC, id).await?;
    Ok(Value::Null)
}

pub(super) async fn attribute(call: Call, input: Value) -> Reply {
    let id = input.text("VpcId");
    let vpc = parts::find(&call, VPC, id)?;
    let name = input.text("Attribute");
    let member = match name {
        "enableDnsSupport" => "EnableDnsSupport",
        "enableDnsHostnames" => "EnableDnsHostnames",
        _ => "EnableNetworkAddressUsageMetrics",
    };
    let value = vpc.flag(name).unwrap_or(false);
    Ok(json!({ "VpcId": id, member: { "Value": value } }))
}

pub(super) async fn modify_attribute(call: Call, input: Value) -> Reply {
    let members = [
        ("EnableDnsSupport", "enableDnsSupport"),
        ("EnableDnsHostnames", "enableDnsHostnames"),
        (
            "EnableNetworkAddressUsageMetrics",
            "enableNetworkAddressUsageMetrics",
        ),
    ];
    let given = |member: &str| input.member(member).and_then(|v| v.flag("Value"));
    if members.iter().filter(|(m, _)| given(m).is_some()).count() != 1 {
        let text = "Exactly one attribute must be given: EnableDnsSupport, EnableDnsHostnames or \
                    EnableNetworkAddressUsageMetrics";
        return Err(Fault::new("InvalidParameterCombination", text));
    }
    parts::change(&call, VPC, input.text("VpcId"), |vpc| {
        for (member, name) in members {
            if let Some(value) = given(member) {
                vpc[name] = value.into();
            }
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn create_subnet(call: Call, input: Value) -> Reply {
    let vpc = parts::find(&call, VPC, input.text("VpcId"))?;
    let vpc_id = vpc.text("VpcId");
    let Some(cidr) = input.maybe("CidrBlock") else {
        let text = "The request must contain the parameter cidrBlock";
        return Err(Fault::new("MissingParameter", text));
    };
    let net = block(cidr, "InvalidSubnet.Range")?;
    let within: Ipv4Net = vpc.text("CidrBlock").parse().unwrap_or_default();
    if !within.contains(&net) {
        return Err(Fault::new(
            "InvalidSubnet.Range",
            format!("The CIDR '{cidr}' is invalid."),
        ));
    }
    for other in of_vpc(&call, SUBNET, vpc_id)? {
        let there: Ipv4Net = other.text("CidrBlock").parse().unwrap_or_default();
        if there.contains(&net) || net.contains(&there) {
            let text = format!("The CIDR '{cidr}' conflicts with another subnet");
            return Err(Fault::new("InvalidSubnet.Conflict", text));
        }
    }
    let zone = network::zone_named(
        &call.region,
        input.maybe("AvailabilityZone"),
        input.maybe("AvailabilityZoneId"),
    )?;
    let id = parts::new_id("subnet");
    let content = network::subnet(&call, &id, vpc_id, net, zone, false);
    let made = parts::create(&call, SUBNET, &input, content).await?;
    Ok(json!({ "Subnet": made }))
}

pub(super) async fn delete_subnet(call: Call, input: Value) -> Reply {
    let id = input.text("SubnetId");
    let subnet = parts::find(&call, SUBNET, id)?;
    if subnet.flag("DefaultForAz") == Some(true) {
        return Err(parts::own("subnet", id));
    }
    let used = call.manager.with_view(|v| {
        let live = v.pods().filter(|p| p.is_live());
        let interfaces = live.filter_map(|p| p.ecs()?.interface.as_ref());
        interfaces.into_iter().any(|i| i.subnet == id)
    });
    let gateways = parts::all(&call, NAT)?;
    let live = |g: &&Value| g.text("State") != "deleted";
    if used || gateways.iter().filter(live).any(|g| g.text("SubnetId") == id) {
        return Err(in_use("subnet", id));
    }
    for table in parts::all(&call, TABLE)? {
        if table
            .items("Associations")
            .iter()
            .any(|a| a.text("SubnetId") == id)
        {
            parts::change(&call, TABLE, table.text("RouteTableId"), |t| {
                if let Some(list) = t["Associations"].as_array_mut() {
                    list.retain(|a| a.text("SubnetId") != id);
                }
                Ok(())
            })
            .await?;
        }
    }
    parts::remove(&call, SUBNET, id).await?;
    Ok(Value::Null)
}

pub(super) async fn modify_subnet(call: Call, input: Value) -> Reply {
    let ipv6 = [
        "AssignIpv6AddressOnCreation",
        "EnableDns64",
        "EnableResourceNameDnsAAAARecordOnLaunch",
    ];
    let flag = |member: &str| input.member(member).and_then(|v| v.flag("Value"));
    if let Some(member) = ipv6.iter().find(|m| flag(m) == Some(true)) {
        return Err(Fault::unsupported(&format!("{member} (there is no IPv6 yet)")));
    }
    parts::change(&call, SUBNET, input.text("SubnetId"), |subnet| {
        if let Some(on) = flag("MapPublicIpOnLaunch") {
            subnet["MapPublicIpOnLaunch"] = on.into();
        }
        let options = &mut subnet["PrivateDnsNameOptionsOnLaunch"];
        if let Some(kind) = input.maybe("PrivateDnsHostnameTypeOnLaunch") {
            options["HostnameType"] = kind.into();
        }
        if let Some(on) = flag("EnableResourceNameDnsARecordOnLaunch") {
            options["EnableResourceNameDnsARecord"] = on.into();
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn create_acl_entry(call: Call, input: Value) -> Reply {
    put_acl_entry(call, input, false).await
}

pub(super) async fn replace_acl_entry(call: Call, input: Value) -> Reply {
    put_acl_entry(call, input, true).await
}

/// Whether an entry of a list is the one of that number and direction.
fn numbered(entry: &Value, input: &Value) -> bool {
    entry.number("RuleNumber") == input.number("RuleNumber") && entry.flag("Egress") == input.flag("Egress")
}

fn no_entry(input: &Value) -> Fault {
    let text = format!(
        "The network acl entry identified by {} does not exist.",
        input.number("RuleNumber").unwrap_or(0)
    );
    Fault::new("InvalidNetworkAclEntry.NotFound", text)
}

async fn put_acl_entry(call: Call, input: Value, replace: bool) -> Reply {
    let members = [
        "CidrBlock",
        "Ipv6CidrBlock",
        "Egress",
        "Protocol",
        "RuleAction",
        "RuleNumber",
        "PortRange",
    ];
    let mut entry = json!({});
    for member in members.iter().filter(|m| input.get(**m).is_some()) {
        entry[*member] = input[*member].clone();
    }
    if let Some(kind) = input.member("Icmp") {
        entry["IcmpTypeCode"] = kind.clone();
    }
    parts::change(&call, ACL, input.text("NetworkAclId"), |acl| {
        let list = acl["Entries"].as_array_mut();
        let Some(list) = list else { return Ok(()) };
        match (list.iter_mut().find(|e| numbered(e, &input)), replace) {
            (Some(there), true) => *there = entry.clone(),
            (None, false) => list.push(entry.clone()),
            (None, true) => return Err(no_entry(&input)),
            (Some(_), false) => {
                let text = format!(
                    "The network acl entry identified by {} already exists.",
                    input.number("RuleNumber").unwrap_or(0)
                );
                return Err(Fault::new("NetworkAclEntryAlreadyExists", text));
            }
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete_acl_entry(call: Call, input: Value) -> Reply {
    parts::change(&call, ACL, input.text("NetworkAclId"), |acl| {
        let list = acl["Entries"].as_array_mut();
        let Some(list) = list else { return Ok(()) };
        let before = list.len();
        list.retain(|e| !numbered(e, &input));
        if list.len() == before {
            return Err(no_entry(&input));
        }
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}
