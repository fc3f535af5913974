//! The network as it is told: the default VPC and its parts, made of the cluster's pod network and the region's name,
//! and what users made.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use tripod_engine::Snapshot;
use tripod_model::aws::VpcPart;
use tripod_model::data::Network;

use super::filter::{filtered, named, paged};
use super::parts::{self, ACL, GATEWAY, SUBNET, Sort, TABLE, VPC};
use super::{fixed_id, tags};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::Get as _;

/// Identifier of the cluster network of all pods.
const PODS: &str = "pods";
/// The pods' addresses where no such network is there yet.
const POD_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Zones of a region, and subnets of a VPC.
const SUBNETS: [&str; 3] = ["a", "b", "c"];

/// The default VPC of a region.
pub(crate) fn vpc_id(region: &str) -> String {
    fixed_id("vpc", region, "vpc")
}

/// A region with its subnets, by zone.
type Subnets = Arc<(String, [String; 3])>;

/// The subnets of a region, by zone. They are asked for once for each task that is shown: the last ones are kept.
fn subnet_ids(region: &str) -> Subnets {
    static LAST: RwLock<Option<Subnets>> = RwLock::new(None);
    let last = LAST.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(last) = last.filter(|last| last.0 == region) {
        return last;
    }
    let ids = SUBNETS.map(|zone| fixed_id("subnet", region, zone));
    let made = Arc::new((region.to_owned(), ids));
    *LAST.write().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
    made
}

/// The zone of a subnet of a region.
pub(crate) fn zone_of_subnet(state: &Snapshot, region: &str, subnet: &str) -> Option<String> {
    if let Some(at) = subnet_ids(region).1.iter().position(|s| s == subnet) {
        return Some(format!("{region}{}", SUBNETS[at]));
    }
    Some(made(state, region, subnet)?.text("AvailabilityZone").to_owned())
}

/// The VPC of a subnet of a region.
pub(crate) fn vpc_of_subnet(state: &Snapshot, region: &str, subnet: &str) -> Option<String> {
    if subnet_ids(region).1.iter().any(|s| s == subnet) {
        return Some(vpc_id(region));
    }
    Some(made(state, region, subnet)?.text("VpcId").to_owned())
}

/// A subnet that a user made.
fn made(state: &Snapshot, region: &str, subnet: &str) -> Option<Value> {
    let part = state.get::<VpcPart>("", subnet).ok().flatten()?;
    (part.spec.region == region && part.spec.kind == SUBNET.kind).then_some(part.spec.content)
}

/// A zone that a request names, the first when it names none.
pub(super) fn zone_named(region: &str, name: Option<&str>, id: Option<&str>) -> Result<&'static str, Fault> {
    let fits = |zone: &&str| match (name, id) {
        (Some(name), _) => name == format!("{region}{zone}"),
        (None, Some(id)) => id == zone_id(region, zone),
        (None, None) => true,
    };
    SUBNETS.into_iter().find(fits).ok_or_else(|| {
        let given = name.or(id).unwrap_or_default();
        let all: Vec<String> = SUBNETS.iter().map(|z| format!("{region}{z}")).collect();
        let text = format!(
            "Value ({given}) for parameter availabilityZone is invalid. Subnets can currently only be created in the \
             following availability zones: {}.",
            all.join(", ")
        );
        Fault::new("InvalidParameterValue", text)
    })
}

/// What is there by itself, of a kind.
pub(super) fn defaults(call: &Call, sort: Sort) -> Result<Vec<Value>, Fault> {
    Ok(match sort {
        VPC => vec![default_vpc(call)?],
        SUBNET => default_subnets(call)?,
        TABLE => vec![default_table(call)?],
        GATEWAY => vec![json!({
            "InternetGatewayId": fixed_id("igw", &call.region, "igw"), "OwnerId": call.account(),
            "Attachments": [{ "VpcId": vpc_id(&call.region), "State": "available" }],
        })],
        ACL => vec![json!({
            "NetworkAclId": fixed_id("acl", &call.region, "acl"), "VpcId": vpc_id(&call.region), "IsDefault": true,
            "OwnerId": call.account(), "Entries": acl_entries(),
        })],
        _ => Vec::new(),
    })
}

/// The route of a VPC to itself.
pub(super) fn local_route(cidr: &str) -> Value {
    json!({ "DestinationCidrBlock": cidr, "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active" })
}

/// What a default list of access control has.
pub(super) fn acl_entries() -> Value {
    let entry = |egress: bool, number: i64, action: &str| {
        json!({ "CidrBlock": "0.0.0.0/0", "Egress": egress, "Protocol": "-1", "RuleAction": action,
                "RuleNumber": number })
    };
    json!([
        entry(true, 100, "allow"),
        entry(true, 32767, "deny"),
        entry(false, 100, "allow"),
        entry(false, 32767, "deny")
    ])
}

/// A subnet as it is told.
pub(super) fn subnet(call: &Call, id: &str, vpc: &str, net: Ipv4Net, zone: &str, default: bool) -> Value {
    let hosts = 1_u64 << (32 - u32::from(net.prefix_len()));
    json!({
        "SubnetId": id, "VpcId": vpc, "CidrBlock": net.to_string(), "OwnerId": call.account(),
        "AvailabilityZone": format!("{}{zone}", call.region), "AvailabilityZoneId": zone_id(&call.region, zone),
        "State": "available", "DefaultForAz": default, "MapPublicIpOnLaunch": default,
        "AssignIpv6AddressOnCreation": false, "AvailableIpAddressCount": hosts.saturating_sub(5),
        "SubnetArn": call.arn("ec2", &format!("subnet/{id}")),
        "Ipv6CidrBlockAssociationSet": [], "Ipv6Native": false, "EnableDns64": false,
        "MapCustomerOwnedIpOnLaunch": false,
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": "ip-name", "EnableResourceNameDnsARecord": false,
            "EnableResourceNameDnsAAAARecord": false,
        },
    })
}

fn range(call: &Call) -> Result<Ipv4Net, Fault> {
    let network = call.state().get::<Network>("", PODS)?;
    let subnet = network.and_then(|n| n.spec.subnets.first().map(|s| s.subnet));
    Ok(match subnet {
        Some(IpNet::V4(net)) => net,
        _ => POD_RANGE,
    })
}

fn default_vpc(call: &Call) -> Result<Value, Fault> {
    let range = range(call)?.to_string();
    Ok(json!({
        "VpcId": vpc_id(&call.region), "CidrBlock": range, "IsDefault": true, "State": "available",
        "DhcpOptionsId": fixed_id("dopt", &call.region, "dopt"), "InstanceTenancy": "default",
        "OwnerId": call.account(),
        "CidrBlockAssociationSet": [{
            "AssociationId": fixed_id("vpc-cidr-assoc", &call.region, "cidr"), "CidrBlock": range,
            "CidrBlockState": { "State": "associated" },
        }],
        "BlockPublicAccessStates": { "InternetGatewayBlockMode": "off" },
        "enableDnsSupport": true, "enableDnsHostnames": true, "enableNetworkAddressUsageMetrics": false,
    }))
}

pub(super) async fn vpcs(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, VPC)?;
    let items = named(items, &input.texts("VpcIds"), "VpcId", VPC.code(), VPC.what())?;
    let known = [
        ("vpc-id", "VpcId"),
        ("cidr", "CidrBlock"),
        ("isDefault", "IsDefault"),
        ("is-default", "IsDefault"),
        ("state", "State"),
        ("owner-id", "OwnerId"),
        ("dhcp-options-id", "DhcpOptionsId"),
        ("cidr-block-association.cidr-block", "CidrBlock"),
    ];
    paged(&input, "Vpcs", filtered(items, &input, &known)?)
}

fn default_subnets(call: &Call) -> Result<Vec<Value>, Fault> {
    let range = range(call)?;
    let parts = range
        .subnets((range.prefix_len() + 2).min(32))
        .into_iter()
        .flatten();
    let zones = subnet_ids(&call.region)
        .1
        .clone()
        .into_iter()
        .zip(SUBNETS)
        .zip(parts);
    let vpc = vpc_id(&call.region);
    Ok(zones
        .map(|((id, zone), part)| subnet(call, &id, &vpc, part, zone, true))
        .collect())
}

pub(super) async fn subnets(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, SUBNET)?;
    let items = named(
        items,
        &input.texts("SubnetIds"),
        "SubnetId",
        SUBNET.code(),
        SUBNET.what(),
    )?;
    let known = [
        ("subnet-id", "SubnetId"),
        ("vpc-id", "VpcId"),
        ("availability-zone", "AvailabilityZone"),
        ("availabilityZone", "AvailabilityZone"),
        ("availability-zone-id", "AvailabilityZoneId"),
        ("cidr-block", "CidrBlock"),
        ("cidr", "CidrBlock"),
        ("cidrBlock", "CidrBlock"),
        ("state", "State"),
        ("default-for-az", "DefaultForAz"),
        ("defaultForAz", "DefaultForAz"),
        ("owner-id", "OwnerId"),
        ("map-public-ip-on-launch", "MapPublicIpOnLaunch"),
        ("subnet-arn", "SubnetArn"),
    ];
    paged(&input, "Subnets", filtered(items, &input, &known)?)
}

fn zone_id(region: &str, zone: &str) -> String {
    // `us-east-1` is `use1`: the beginnings of its parts.
    let mut parts = region.split('-');
    let area = parts.next().unwrap_or_default();
    let rest: String = parts.filter_map(|p| p.chars().next()).collect();
    let number = SUBNETS.iter().position(|z| *z == zone).map_or(0, |i| i + 1);
    format!("{area}{rest}-az{number}")
}

pub(super) async fn zones(call: Call, input: Value) -> Reply {
    let items = SUBNETS.map(|zone| {
        json!({
            "ZoneName": format!("{}{zone}", call.region), "ZoneId": zone_id(&call.region, zone), "State": "available",
            "RegionName": call.region, "OptInStatus": "opt-in-not-required", "ZoneType": "availability-zone",
            "GroupName": call.region, "NetworkBorderGroup": call.region, "Messages": [],
        })
    });
    let wanted = input.texts("ZoneNames");
    let items = named(
        items.to_vec(),
        &wanted,
        "ZoneName",
        "InvalidParameterValue",
        "zone",
    )?;
    let wanted = input.texts("ZoneIds");
    let items = named(items, &wanted, "ZoneId", "InvalidParameterValue", "zone")?;
    let known = [
        ("zone-name", "ZoneName"),
        ("zone-id", "ZoneId"),
        ("state", "State"),
        ("region-name", "RegionName"),
        ("zone-type", "ZoneType"),
        ("opt-in-status", "OptInStatus"),
        ("group-name", "GroupName"),
    ];
    Ok(json!({ "AvailabilityZones": filtered(items, &input, &known)? }))
}

pub(super) async fn regions(call: Call, input: Value) -> Reply {
    let names = [
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "eu-west-1",
        "eu-central-1",
        "ap-northeast-1",
    ];
    let mut names = names.map(str::to_owned).to_vec();
    if !names.contains(&call.region) {
        names.push(call.region.clone());
    }
    let items = names.iter().map(|name| {
        json!({
            "RegionName": name, "Endpoint": format!("ec2.{name}.amazonaws.com"),
            "OptInStatus": "opt-in-not-required",
        })
    });
    let wanted = input.texts("RegionNames");
    let items = named(
        items.collect(),
        &wanted,
        "RegionName",
        "InvalidParameterValue",
        "region",
    )?;
    let known = [
        ("region-name", "RegionName"),
        ("endpoint", "Endpoint"),
        ("opt-in-status", "OptInStatus"),
    ];
    Ok(json!({ "Regions": filtered(items, &input, &known)? }))
}

pub(super) async fn account_attributes(call: Call, input: Value) -> Reply {
    let vpc = vpc_id(&call.region);
    let all = [
        ("supported-platforms", "VPC"),
        ("default-vpc", vpc.as_str()),
        ("max-instances", "20"),
        ("vpc-max-security-groups-per-interface", "5"),
        ("max-elastic-ips", "5"),
        ("vpc-max-elastic-ips", "5"),
    ];
    let wanted = input.texts("AttributeNames");
    let items = all
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name));
    let items = items.map(
        |(name, value)| json!({ "AttributeName": name, "AttributeValues": [{ "AttributeValue": value }] }),
    );
    Ok(json!({ "AccountAttributes": items.collect::<Value>() }))
}

fn default_table(call: &Call) -> Result<Value, Fault> {
    let id = fixed_id("rtb", &call.region, "rtb");
    let gateway = fixed_id("igw", &call.region, "igw");
    Ok(json!({
        "RouteTableId": id, "VpcId": vpc_id(&call.region), "OwnerId": call.account(), "PropagatingVgws": [],
        "Associations": [{
            "Main": true, "RouteTableId": id, "RouteTableAssociationId": fixed_id("rtbassoc", &call.region, "main"),
            "AssociationState": { "State": "associated" },
        }],
        "Routes": [
            local_route(&range(call)?.to_string()),
            { "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway, "Origin": "CreateRoute", "State": "active" },
        ],
    }))
}

pub(super) async fn route_tables(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, TABLE)?;
    let items = named(
        items,
        &input.texts("RouteTableIds"),
        "RouteTableId",
        TABLE.code(),
        TABLE.what(),
    )?;
    let known = [
        ("vpc-id", "VpcId"),
        ("route-table-id", "RouteTableId"),
        ("association.main", "Associations.Main"),
        ("association.subnet-id", "Associations.SubnetId"),
        ("owner-id", "OwnerId"),
        (
            "association.route-table-association-id",
            "Associations.RouteTableAssociationId",
        ),
        ("association.route-table-id", "Associations.RouteTableId"),
        ("route.gateway-id", "Routes.GatewayId"),
        ("route.nat-gateway-id", "Routes.NatGatewayId"),
        ("route.destination-cidr-block", "Routes.DestinationCidrBlock"),
        ("route.state", "Routes.State"),
    ];
    paged(&input, "RouteTables", filtered(items, &input, &known)?)
}

pub(super) async fn gateways(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, GATEWAY)?;
    let wanted = input.texts("InternetGatewayIds");
    let items = named(
        items,
        &wanted,
        "InternetGatewayId",
        GATEWAY.code(),
        GATEWAY.what(),
    )?;
    let known = [
        ("attachment.vpc-id", "Attachments.VpcId"),
        ("attachment.state", "Attachments.State"),
        ("internet-gateway-id", "InternetGatewayId"),
        ("owner-id", "OwnerId"),
    ];
    paged(&input, "InternetGateways", filtered(items, &input, &known)?)
}

pub(super) async fn acls(call: Call, input: Value) -> Reply {
    let mut items = parts::all(&call, ACL)?;
    let subnets = parts::all(&call, SUBNET)?;
    for acl in &mut items {
        let own = subnets.iter().filter(|s| s.text("VpcId") == acl.text("VpcId"));
        let associations = own.map(|s| {
            let subnet = s.text("SubnetId");
            let association = fixed_id("aclassoc", &call.region, subnet);
            json!({ "NetworkAclAssociationId": association, "NetworkAclId": acl["NetworkAclId"], "SubnetId": subnet })
        });
        acl["Associations"] = associations.collect();
    }
    let items = named(
        items,
        &input.texts("NetworkAclIds"),
        "NetworkAclId",
        ACL.code(),
        ACL.what(),
    )?;
    let known = [
        ("vpc-id", "VpcId"),
        ("default", "IsDefault"),
        ("network-acl-id", "NetworkAclId"),
        ("owner-id", "OwnerId"),
        ("association.subnet-id", "Associations.SubnetId"),
    ];
    paged(&input, "NetworkAcls", filtered(items, &input, &known)?)
}

pub(super) async fn dhcp_options(call: Call, input: Value) -> Reply {
    let id = fixed_id("dopt", &call.region, "dopt");
    let value = |key: &str, value: &str| json!({ "Key": key, "Values": [{ "Value": value }] });
    let options = json!({
        "DhcpOptionsId": id, "OwnerId": call.account(), "Tags": tags::of(&call, &id)?,
        "DhcpConfigurations": [value("domain-name", &domain(&call.region)),
                               value("domain-name-servers", "AmazonProvidedDNS")],
    });
    let wanted = input.texts("DhcpOptionsIds");
    let code = "InvalidDhcpOptionID.NotFound";
    let items = named(vec![options], &wanted, "DhcpOptionsId", code, "dhcpOption ID")?;
    let known = [("dhcp-options-id", "DhcpOptionsId"), ("owner-id", "OwnerId")];
    paged(&input, "DhcpOptions", filtered(items, &input, &known)?)
}

/// The domain of private names of a region.
pub(super) fn domain(region: &str) -> String {
    match region {
        "us-east-1" => "ec2.internal".into(),
        region => format!("{region}.compute.internal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_stable() {
        assert_eq!(vpc_id("us-east-1"), vpc_id("us-east-1"));
        assert_eq!(vpc_id("us-east-1").len(), "vpc-".len() + 17);
        let [a, b, _] = subnet_ids("us-east-1").1.clone();
        assert_ne!(a, b);
        assert!(!subnet_ids("us-east-2").1.contains(&b));
        assert_eq!(zone_named("us-east-1", None, None).unwrap(), "a");
        assert_eq!(zone_named("us-east-1", Some("us-east-1c"), None).unwrap(), "c");
        assert_eq!(zone_named("us-east-1", None, Some("use1-az2")).unwrap(), "b");
        assert!(zone_named("us-east-1", Some("us-east-1z"), None).is_err());
        assert_eq!(zone_id("us-east-1", "c"), "use1-az3");
        assert_eq!(domain("eu-west-1"), "eu-west-1.compute.internal");
    }
}
