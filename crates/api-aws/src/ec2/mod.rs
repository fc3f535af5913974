//! EC2 as ECS users need it: VPCs and their parts, security groups, and the network interfaces of tasks.
//!
//! The default VPC is the cluster's pod network; its subnets are views of it, one for each zone.

mod filter;
mod groups;
mod interfaces;
mod network;
mod parts;
mod routes;
mod rules;
mod tags;
mod vpcs;

use serde_json::{Value, json};

use crate::call::Call;
use crate::fault::Reply;

pub(crate) use groups::{default_group, group_vpcs};
pub(crate) use interfaces::private_dns_name;
pub(crate) use network::{vpc_id, vpc_of_subnet, zone_of_subnet};
pub(crate) use tags::{kind as kind_of, of_id as tags_of_id};

crate::operations! {
    DescribeVpcs => network::vpcs;
    CreateVpc => vpcs::create, "tasks in it have addresses of the cluster's pod network; no IPv6";
    DeleteVpc => vpcs::delete;
    DescribeVpcAttribute => vpcs::attribute;
    ModifyVpcAttribute => vpcs::modify_attribute, "kept and told";
    DescribeSubnets => network::subnets;
    CreateSubnet => vpcs::create_subnet, "tasks in it have addresses of the cluster's pod network; no IPv6";
    DeleteSubnet => vpcs::delete_subnet;
    ModifySubnetAttribute => vpcs::modify_subnet, "kept and told; no IPv6";
    DescribeRouteTables => network::route_tables;
    CreateRouteTable => routes::create_table, "kept and told: every task reaches the outside";
    DeleteRouteTable => routes::delete_table;
    CreateRoute => routes::create_route, "to gateways; kept and told";
    ReplaceRoute => routes::replace_route, "as CreateRoute";
    DeleteRoute => routes::delete_route;
    AssociateRouteTable => routes::associate, "with subnets";
    DisassociateRouteTable => routes::disassociate;
    ReplaceRouteTableAssociation => routes::replace_association;
    CreateInternetGateway => routes::create_gateway, "kept and told: every task reaches the outside";
    AttachInternetGateway => routes::attach_gateway;
    DetachInternetGateway => routes::detach_gateway;
    DeleteInternetGateway => routes::delete_gateway;
    AllocateAddress => routes::allocate, "the address of a node; of use with NAT gateways";
    ReleaseAddress => routes::release;
    DescribeAddressesAttribute => routes::address_attributes, "addresses have no names";
    CreateNatGateway => routes::create_nat, "kept and told: tasks reach the outside by the address of their node";
    DeleteNatGateway => routes::delete_nat;
    CreateNetworkAclEntry => vpcs::create_acl_entry, "kept and told; lists are not enforced";
    ReplaceNetworkAclEntry => vpcs::replace_acl_entry, "kept and told; lists are not enforced";
    DeleteNetworkAclEntry => vpcs::delete_acl_entry;
    DescribeInternetGateways => network::gateways;
    DescribeNetworkAcls => network::acls, "the default lists only; lists are not enforced";
    DescribeDhcpOptions => network::dhcp_options;
    DescribeAvailabilityZones => network::zones;
    DescribeRegions => network::regions;
    DescribeAccountAttributes => network::account_attributes;
    DescribeNatGateways => routes::nats;
    DescribeVpcEndpoints => none_endpoints;
    DescribeVpcPeeringConnections => none_peerings;
    DescribePrefixLists => none_prefix_lists;
    DescribeManagedPrefixLists => none_prefix_lists;
    DescribeInstances => none_instances, "container instances are nodes of the cluster, not EC2 instances";
    DescribeAddresses => routes::addresses;
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

async fn none_vpcs(_: Call, _: Value) -> Reply {
    Ok(json!({ "Vpcs": [] }))
}

/// An identifier that is the same in every answer: a prefix, and 17 digits.
fn fixed_id(prefix: &str, region: &str, what: &str) -> String {
    format!("{prefix}-0{:016x}", tripod_model::ecs::fnv(&[region, what]))
}
