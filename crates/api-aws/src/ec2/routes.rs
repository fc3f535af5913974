//! Route tables, internet and NAT gateways, addresses: kept and told. What they promise holds anyway: tasks reach each
//! other, and the outside by the address of their node.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tripod_model::node::Node;

use super::filter::{filtered, named, paged};
use super::parts::{self, ADDRESS, GATEWAY, NAT, SUBNET, TABLE, VPC, done, in_use};
use super::{network, vpc_id};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch};

pub(super) async fn create_gateway(call: Call, input: Value) -> Reply {
    let made = parts::create(&call, GATEWAY, &input, json!({ "Attachments": [] })).await?;
    Ok(json!({ "InternetGateway": made }))
}

pub(super) async fn attach_gateway(call: Call, input: Value) -> Reply {
    let (id, vpc) = (input.text("InternetGatewayId"), input.text("VpcId"));
    parts::find(&call, VPC, vpc)?;
    for other in parts::all(&call, GATEWAY)? {
        if other.items("Attachments").iter().any(|a| a.text("VpcId") == vpc) {
            let text = format!(
                "resource {id} is already attached to network {vpc}, or the network has the gateway {}",
                other.text("InternetGatewayId")
            );
            return Err(Fault::new("Resource.AlreadyAssociated", text));
        }
    }
    parts::change(&call, GATEWAY, id, |g| {
        if !g.items("Attachments").is_empty() {
            let text = format!("resource {id} is already attached to a network");
            return Err(Fault::new("Resource.AlreadyAssociated", text));
        }
        g["Attachments"] = json!([{ "VpcId": vpc, "State": "available" }]);
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn detach_gateway(call: Call, input: Value) -> Reply {
    let (id, vpc) = (input.text("InternetGatewayId"), input.text("VpcId"));
    parts::find(&call, VPC, vpc)?;
    if vpc == vpc_id(&call.region) {
        return Err(parts::own("internetGateway", id));
    }
    parts::change(&call, GATEWAY, id, |g| {
        let there = g.items("Attachments").iter().any(|a| a.text("VpcId") == vpc);
        if !there {
            let text = format!("resource {id} is not attached to network {vpc}");
            return Err(Fault::new("Gateway.NotAttached", text));
        }
        g["Attachments"] = json!([]);
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete_gateway(call: Call, input: Value) -> Reply {
    let id = input.text("InternetGatewayId");
    let gateway = parts::find(&call, GATEWAY, id)?;
    if !gateway.items("Attachments").is_empty() {
        return Err(in_use("internetGateway", id));
    }
    parts::remove(&call, GATEWAY, id).await?;
    Ok(Value::Null)
}

pub(super) async fn create_table(call: Call, input: Value) -> Reply {
    let vpc = parts::find(&call, VPC, input.text("VpcId"))?;
    let content = json!({
        "VpcId": vpc["VpcId"], "PropagatingVgws": [], "Associations": [],
        "Routes": [network::local_route(vpc.text("CidrBlock"))],
    });
    let made = parts::create(&call, TABLE, &input, content).await?;
    Ok(json!({ "RouteTable": made }))
}

pub(super) async fn delete_table(call: Call, input: Value) -> Reply {
    let id = input.text("RouteTableId");
    let table = parts::find(&call, TABLE, id)?;
    if !table.items("Associations").is_empty() {
        return Err(in_use("routeTable", id));
    }
    parts::remove(&call, TABLE, id).await?;
    Ok(Value::Null)
}

/// What a route leads to.
const TARGETS: &[&str] = &[
    "GatewayId",
    "NatGatewayId",
    "NetworkInterfaceId",
    "EgressOnlyInternetGatewayId",
];
const DESTINATIONS: &[&str] = &[
    "DestinationCidrBlock",
    "DestinationIpv6CidrBlock",
    "DestinationPrefixListId",
];

/// The destination of a route: its member, and the value.
fn destination(input: &Value) -> Result<(&'static str, String), Fault> {
    let given = DESTINATIONS.iter().find_map(|m| Some((*m, input.maybe(m)?)));
    let Some((member, value)) = given else {
        let text = "The request must contain the parameter destinationCidrBlock";
        return Err(Fault::new("MissingParameter", text));
    };
    if member != "DestinationCidrBlock" {
        return Ok((member, value.to_owned()));
    }
    let malformed = || {
        let text = format!(
            "Value ({value}) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block."
        );
        Fault::new("InvalidParameterValue", text)
    };
    let net: Ipv4Net = value.parse().map_err(|_| malformed())?;
    Ok((member, net.trunc().to_string()))
}

fn route(call: &Call, input: &Value) -> Result<Value, Fault> {
    let (member, value) = destination(input)?;
    let target = TARGETS.iter().find_map(|m| Some((*m, input.maybe(m)?)));
    let Some((target, id)) = target else {
        let text = "The request must contain exactly one of gatewayId, natGatewayId, networkInterfaceId";
        return Err(Fault::new("MissingParameter", text));
    };
    match target {
        "GatewayId" if id.starts_with("igw-") => drop(parts::find(call, GATEWAY, id)?),
        "NatGatewayId" => drop(parts::find(call, NAT, id)?),
        "GatewayId" if id == "local" => {}
        _ => {
            let text = format!("The {target} '{id}' does not exist");
            return Err(Fault::new("InvalidGatewayID.NotFound", text));
        }
    }
    Ok(json!({ member: value, target: id, "Origin": "CreateRoute", "State": "active" }))
}

pub(super) async fn create_route(call: Call, input: Value) -> Reply {
    let id = input.text("RouteTableId");
    parts::find(&call, TABLE, id)?;
    let route = route(&call, &input)?;
    let (member, value) = destination(&input)?;
    parts::change(&call, TABLE, id, |t| {
        let list = t["Routes"].as_array_mut();
        let Some(list) = list else { return Ok(()) };
        match list.iter_mut().find(|r| r.text(member) == value) {
            Some(there) if there.text("GatewayId") == "local" || there != &route => {
                let text = format!("The route identified by {value} already exists.");
                Err(Fault::new("RouteAlreadyExists", text))
            }
            Some(_) => Ok(()),
            None => {
                list.insert(0, route.clone());
                Ok(())
            }
        }
    })
    .await?;
    Ok(done())
}

fn no_route(table: &str, value: &str) -> Fault {
    let text = format!("no route with destination-cidr-block {value} in route table {table}");
    Fault::new("InvalidRoute.NotFound", text)
}

pub(super) async fn replace_route(call: Call, input: Value) -> Reply {
    let id = input.text("RouteTableId");
    parts::find(&call, TABLE, id)?;
    let route = route(&call, &input)?;
    let (member, value) = destination(&input)?;
    parts::change(&call, TABLE, id, |t| {
        let list = t["Routes"].as_array_mut().into_iter().flatten();
        let there = list.into_iter().find(|r| r.text(member) == value);
        *there.ok_or_else(|| no_route(id, &value))? = route.clone();
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete_route(call: Call, input: Value) -> Reply {
    let id = input.text("RouteTableId");
    let (member, value) = destination(&input)?;
    parts::change(&call, TABLE, id, |t| {
        let list = t["Routes"].as_array_mut();
        let Some(list) = list else { return Ok(()) };
        let at = list.iter().position(|r| r.text(member) == value);
        let at = at.ok_or_else(|| no_route(id, &value))?;
        if list[at].text("GatewayId") == "local" {
            let text = format!("cannot remove local route {value} in route table {id}");
            return Err(Fault::new("InvalidParameterValue", text));
        }
        list.remove(at);
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

async fn add_association(call: &Call, table: &str, subnet: &str) -> Result<String, Fault> {
    let id = parts::new_id("rtbassoc");
    let association = json!({
        "Main": false, "RouteTableId": table, "RouteTableAssociationId": id, "SubnetId": subnet,
        "AssociationState": { "State": "associated" },
    });
    parts::change(call, TABLE, table, |t| {
        if let Some(list) = t["Associations"].as_array_mut() {
            list.push(association.clone());
        }
        Ok(())
    })
    .await?;
    Ok(id)
}

pub(super) async fn associate(call: Call, input: Value) -> Reply {
    let table = parts::find(&call, TABLE, input.text("RouteTableId"))?;
    let Some(subnet) = input.maybe("SubnetId") else {
        return Err(Fault::unsupported(
            "The association of a route table with a gateway",
        ));
    };
    let there = parts::find(&call, SUBNET, subnet)?;
    if there.text("VpcId") != table.text("VpcId") {
        let text = "Route table and subnet belong to different networks";
        return Err(Fault::new("InvalidParameterValue", text));
    }
    for other in parts::all(&call, TABLE)? {
        if let Some(a) = other
            .items("Associations")
            .iter()
            .find(|a| a.text("SubnetId") == subnet)
        {
            if other.text("RouteTableId") == table.text("RouteTableId") {
                return Ok(json!({
                    "AssociationId": a["RouteTableAssociationId"], "AssociationState": { "State": "associated" },
                }));
            }
            let text = format!(
                "the specified association for route table {} conflicts with an existing association",
                table.text("RouteTableId")
            );
            return Err(Fault::new("Resource.AlreadyAssociated", text));
        }
    }
    let id = add_association(&call, table.text("RouteTableId"), subnet).await?;
    Ok(json!({ "AssociationId": id, "AssociationState": { "State": "associated" } }))
}

/// The table and the association of an identifier.
fn association(call: &Call, id: &str) -> Result<(String, Value), Fault> {
    for table in parts::all(call, TABLE)? {
        let found = table
            .items("Associations")
            .iter()
            .find(|a| a.text("RouteTableAssociationId") == id);
        if let Some(found) = found {
            return Ok((table.text("RouteTableId").to_owned(), found.clone()));
        }
    }
    let text = format!("The association ID '{id}' does not exist");
    Err(Fault::new("InvalidAssociationID.NotFound", text))
}

async fn drop_association(call: &Call, table: &str, id: &str) -> Result<(), Fault> {
    parts::change(call, TABLE, table, |t| {
        if let Some(list) = t["Associations"].as_array_mut() {
            list.retain(|a| a.text("RouteTableAssociationId") != id);
        }
        Ok(())
    })
    .await
}

pub(super) async fn disassociate(call: Call, input: Value) -> Reply {
    let id = input.text("AssociationId");
    let (table, found) = association(&call, id)?;
    if found.flag("Main") == Some(true) {
        let text = format!("cannot disassociate the main route table association {id}");
        return Err(Fault::new("InvalidParameterValue", text));
    }
    drop_association(&call, &table, id).await?;
    Ok(Value::Null)
}

pub(super) async fn replace_association(call: Call, input: Value) -> Reply {
    let (id, to) = (input.text("AssociationId"), input.text("RouteTableId"));
    parts::find(&call, TABLE, to)?;
    let (table, found) = association(&call, id)?;
    drop_association(&call, &table, id).await?;
    let new = if found.flag("Main") == Some(true) {
        let new = parts::new_id("rtbassoc");
        let main = json!({
            "Main": true, "RouteTableId": to, "RouteTableAssociationId": new,
            "AssociationState": { "State": "associated" },
        });
        parts::change(&call, TABLE, to, |t| {
            if let Some(list) = t["Associations"].as_array_mut() {
                list.push(main.clone());
            }
            Ok(())
        })
        .await?;
        new
    } else {
        add_association(&call, to, found.text("SubnetId")).await?
    };
    Ok(json!({ "NewAssociationId": new, "AssociationState": { "State": "associated" } }))
}

/// The address by which tasks reach the outside: that of a node.
fn outside(call: &Call) -> Result<String, Fault> {
    let nodes = call.state().list::<Node>(None)?;
    let address = nodes
        .iter()
        .map(|n| n.status.addr.clone())
        .find(|a| !a.is_empty());
    address.ok_or_else(|| Fault::new("InsufficientAddressCapacity", "no node has an address"))
}

pub(super) async fn allocate(call: Call, input: Value) -> Reply {
    if input.maybe("Address").is_some() || input.maybe("PublicIpv4Pool").is_some_and(|p| p != "amazon") {
        return Err(Fault::unsupported("An address of one's own choice"));
    }
    let content = json!({
        "PublicIp": outside(&call)?, "Domain": "vpc", "PublicIpv4Pool": "amazon", "NetworkBorderGroup": call.region,
    });
    parts::create(&call, ADDRESS, &input, content).await
}

pub(super) async fn release(call: Call, input: Value) -> Reply {
    let Some(id) = input.maybe("AllocationId") else {
        return Err(Fault::new(
            "MissingParameter",
            "Either public IP or allocation id must be specified",
        ));
    };
    let address = parts::find(&call, ADDRESS, id)?;
    if address.maybe("AssociationId").is_some() {
        let text = format!("Address {} is in use.", address.text("PublicIp"));
        return Err(Fault::new("InvalidIPAddress.InUse", text));
    }
    parts::remove(&call, ADDRESS, id).await?;
    Ok(Value::Null)
}

pub(super) async fn addresses(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, ADDRESS)?;
    let items = named(
        items,
        &input.texts("AllocationIds"),
        "AllocationId",
        ADDRESS.code(),
        ADDRESS.what(),
    )?;
    let items = named(
        items,
        &input.texts("PublicIps"),
        "PublicIp",
        "InvalidAddress.NotFound",
        "address",
    )?;
    let known = [
        ("allocation-id", "AllocationId"),
        ("association-id", "AssociationId"),
        ("domain", "Domain"),
        ("public-ip", "PublicIp"),
        ("network-interface-id", "NetworkInterfaceId"),
        ("instance-id", "InstanceId"),
        ("network-border-group", "NetworkBorderGroup"),
    ];
    Ok(json!({ "Addresses": filtered(items, &input, &known)? }))
}

/// Addresses have no names of the user's own.
pub(super) async fn address_attributes(call: Call, input: Value) -> Reply {
    let mut items = parts::all(&call, ADDRESS)?;
    let wanted = input.texts("AllocationIds");
    items.retain(|a| wanted.is_empty() || wanted.iter().any(|w| w == a.text("AllocationId")));
    let items = items
        .iter()
        .map(|a| json!({ "AllocationId": a["AllocationId"], "PublicIp": a["PublicIp"] }));
    Ok(json!({ "Addresses": items.collect::<Value>() }))
}

pub(super) async fn create_nat(call: Call, input: Value) -> Reply {
    let Some(subnet) = input.maybe("SubnetId") else {
        return Err(Fault::new(
            "MissingParameter",
            "The request must contain the parameter SubnetId",
        ));
    };
    let subnet = parts::find(&call, SUBNET, subnet)?;
    let kind = input.maybe("ConnectivityType").unwrap_or("public");
    let mut address = json!({ "IsPrimary": true, "Status": "succeeded" });
    if kind == "public" {
        let Some(id) = input.maybe("AllocationId") else {
            let text = "The request must contain the parameter AllocationId";
            return Err(Fault::new("MissingParameter", text));
        };
        let association = parts::new_id("eipassoc");
        let public = parts::change(&call, ADDRESS, id, |a| {
            if a.maybe("AssociationId").is_some() {
                let text = format!("Elastic IP address [{id}] is already associated");
                return Err(Fault::new("Resource.AlreadyAssociated", text));
            }
            a["AssociationId"] = association.as_str().into();
            Ok(a["PublicIp"].clone())
        })
        .await?;
        address["AllocationId"] = id.into();
        address["AssociationId"] = association.into();
        address["PublicIp"] = public;
    }
    let content = json!({
        "SubnetId": subnet["SubnetId"], "VpcId": subnet["VpcId"], "State": "available", "ConnectivityType": kind,
        "CreateTime": epoch(call.now()), "NatGatewayAddresses": [address],
    });
    let made = parts::create(&call, NAT, &input, content).await?;
    Ok(json!({ "NatGateway": made, "ClientToken": input.get("ClientToken") }))
}

pub(super) async fn delete_nat(call: Call, input: Value) -> Reply {
    let id = input.text("NatGatewayId");
    let gateway = parts::find(&call, NAT, id)?;
    for address in gateway.items("NatGatewayAddresses") {
        if let Some(allocation) = address.maybe("AllocationId") {
            parts::change(&call, ADDRESS, allocation, |a| {
                if let Some(map) = a.as_object_mut() {
                    map.remove("AssociationId");
                }
                Ok(())
            })
            .await?;
        }
    }
    let now = epoch(call.now());
    parts::change(&call, NAT, id, |g| {
        g["State"] = "deleted".into();
        g["DeleteTime"] = now.clone();
        Ok(())
    })
    .await?;
    Ok(json!({ "NatGatewayId": id }))
}

pub(super) async fn nats(call: Call, input: Value) -> Reply {
    let items = parts::all(&call, NAT)?;
    let items = named(
        items,
        &input.texts("NatGatewayIds"),
        "NatGatewayId",
        NAT.code(),
        NAT.what(),
    )?;
    let known = [
        ("nat-gateway-id", "NatGatewayId"),
        ("state", "State"),
        ("subnet-id", "SubnetId"),
        ("vpc-id", "VpcId"),
    ];
    // This call alone names its filters `Filter`.
    let mut input = input;
    if let Some(filters) = input.get("Filter").cloned() {
        input["Filters"] = filters;
    }
    paged(&input, "NatGateways", filtered(items, &input, &known)?)
}
