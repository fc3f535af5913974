//! `networkConfiguration` of tasks and services.

use serde_json::{Value, json};
use tripod_model::ecs::TaskDefinitionSpec;

use crate::call::Call;
use crate::ec2::{default_group, group_vpcs, vpc_of_subnet};
use crate::fault::Fault;
use crate::value::Get as _;

/// The configuration with the defaults filled in: the default group, no public address.
pub(super) fn checked(
    call: &Call,
    input: &Value,
    definition: &TaskDefinitionSpec,
    fargate: bool,
) -> Result<Option<Value>, Fault> {
    let given = input
        .member("networkConfiguration")
        .and_then(|n| n.member("awsvpcConfiguration"));
    let awsvpc = definition.text("networkMode") == "awsvpc";
    let vpc = match (given, awsvpc) {
        (None, false) => return Ok(None),
        (None, true) => {
            let text = "Network Configuration must be provided when networkMode 'awsvpc' is specified.";
            return Err(Fault::parameter(text));
        }
        (Some(_), false) => {
            let text =
                "Network Configuration is not valid for the given networkMode of this task definition.";
            return Err(Fault::parameter(text));
        }
        (Some(vpc), true) => vpc,
    };
    let subnets = vpc.texts("subnets");
    if subnets.is_empty() {
        return Err(Fault::parameter("subnets can not be empty."));
    }
    if subnets.len() > 16 {
        return Err(Fault::parameter("subnets can have at most 16 items."));
    }
    let state = call.state();
    let vpcs: Vec<Option<String>> = subnets
        .iter()
        .map(|s| vpc_of_subnet(&state, &call.region, s))
        .collect();
    if let Some(at) = vpcs.iter().position(Option::is_none) {
        let subnet = &subnets[at];
        let text = format!(
            "Error retrieving subnet information for [{subnet}]: The subnet ID '{subnet}' does not exist \
             (ErrorCode: InvalidSubnetID.NotFound)"
        );
        return Err(Fault::parameter(text));
    }
    let own_vpc = vpcs[0].clone().unwrap_or_default();
    if vpcs.iter().flatten().any(|v| *v != own_vpc) {
        return Err(Fault::parameter("subnets must all be of the same VPC."));
    }
    let mut groups = vpc.texts("securityGroups");
    if groups.len() > 5 {
        return Err(Fault::parameter("securityGroups can have at most 5 items."));
    }
    let known = group_vpcs(call)?;
    if let Some(group) = groups.iter().find(|g| !known.iter().any(|(id, _)| id == *g)) {
        let text = format!(
            "Error retrieving security group information for [{group}]: The security group '{group}' does not exist \
             (ErrorCode: InvalidGroup.NotFound)"
        );
        return Err(Fault::parameter(text));
    }
    let elsewhere = |g: &&String| known.iter().any(|(id, vpc)| id == *g && *vpc != own_vpc);
    if let Some(group) = groups.iter().find(elsewhere) {
        let text = format!(
            "Security group {group} and subnet {} belong to different networks.",
            subnets[0]
        );
        return Err(Fault::parameter(text));
    }
    if groups.is_empty() {
        groups.push(default_group(&call.region, &own_vpc));
    }
    let public = vpc.maybe("assignPublicIp").unwrap_or("DISABLED");
    if public == "ENABLED" && !fargate {
        return Err(Fault::parameter(
            "Assign public IP is not supported for this launch type.",
        ));
    }
    Ok(Some(json!({ "awsvpcConfiguration": {
        "subnets": subnets, "securityGroups": groups, "assignPublicIp": public,
    } })))
}
