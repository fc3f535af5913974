//! EC2 as ECS users need it: the default VPC, security groups, and the network interfaces of tasks.
//!
//! The VPC is the cluster's pod network; its subnets are views of it, one for each zone.

mod filter;
mod groups;
mod interfaces;
mod network;
mod rules;
mod tags;

use serde_json::{Value, json};

use crate::call::Call;
use crate::fault::Reply;

pub(crate) use groups::{default_group, group_ids};
pub(crate) use interfaces::private_dns_name;
pub(crate) use network::{vpc_id, zone_of_subnet};

crate::operations! {
    DescribeVpcs => network::vpcs, "the default VPC only";
    DescribeVpcAttribute => network::vpc_attribute;
    DescribeSubnets => network::subnets, "the subnets of the default VPC only";
    DescribeRouteTables => network::route_tables, "the main table only";
    DescribeInternetGateways => network::gateways;
    DescribeNetworkAcls => network::acls, "the default list only; lists are not enforced";
    DescribeDhcpOptions => network::dhcp_options;
    DescribeAvailabilityZones => network::zones;
    DescribeRegions => network::regions;
    DescribeAccountAttributes => network::account_attributes;
    DescribeNatGateways => none_nat;
    DescribeVpcEndpoints => none_endpoints;
    DescribeVpcPeeringConnections => none_peerings;
    DescribePrefixLists => none_prefix_lists;
    DescribeManagedPrefixLists => none_prefix_lists;
    DescribeInstances => none_instances, "container instances are nodes of the cluster, not EC2 instances";
    DescribeAddresses => none_addresses;
    DescribeVpcClassicLink => none_vpcs;
    DescribeVpcClassicLinkDnsSupport => none_vpcs;
    DescribeSecurityGroups => groups::describe;
    CreateSecurityGroup => groups::create;
    DeleteSecurityGroup => groups::delete;
    DescribeSecurityGroupRules => rules::describe;
    AuthorizeSecurityGroupIngress => rules::authorize_ingress;
    AuthorizeSecurityGroupEgress => rules::authorize_egress;
    RevokeSecurityGroupIngress => rules::revoke_ingress;
    RevokeSecurityGroupEgress => rules::revoke_egress;
    ModifySecurityGroupRules => rules::modify;
    UpdateSecurityGroupRuleDescriptionsIngress => rules::describe_ingress;
    UpdateSecurityGroupRuleDescriptionsEgress => rules::describe_egress;
    DescribeNetworkInterfaces => interfaces::describe, "the interfaces of tasks";
    CreateTags => tags::create;
    DeleteTags => tags::delete;
    DescribeTags => tags::describe;
}

async fn none_nat(_: Call, _: Value) -> Reply {
    Ok(json!({ "NatGateways": [] }))
}

async fn none_endpoints(_: Call, _: Value) -> Reply {
    Ok(json!({ "VpcEndpoints": [] }))
}

async fn none_peerings(_: Call, _: Value) -> Reply {
    Ok(json!({ "VpcPeeringConnections": [] }))
}

async fn none_prefix_lists(_: Call, _: Value) -> Reply {
    Ok(json!({ "PrefixLists": [] }))
}

async fn none_instances(_: Call, _: Value) -> Reply {
    Ok(json!({ "Reservations": [] }))
}

async fn none_addresses(_: Call, _: Value) -> Reply {
    Ok(json!({ "Addresses": [] }))
}

async fn none_vpcs(_: Call, _: Value) -> Reply {
    Ok(json!({ "Vpcs": [] }))
}

/// An identifier that is the same in every answer: a prefix, and 17 digits.
fn fixed_id(prefix: &str, region: &str, what: &str) -> String {
    format!("{prefix}-0{:016x}", tripod_model::ecs::fnv(&[region, what]))
}
