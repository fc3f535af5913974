//! The resources that a call is about, as policies name them, and what conditions may ask of them.

use std::collections::BTreeMap;

use serde_json::Value;
use tripod_model::aws::{InstanceProfile, Tags};

use super::{groups, role_arn, role_object, users};
use crate::call::Call;
use crate::ecs::last_part;
use crate::fault::Fault;
use crate::value::{Get as _, tags_of};
use crate::{ecs, secrets, ssm};

/// Each resource with the names it goes by; `*` where a call is about none in particular.
pub(super) fn of(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let found = match call.service.as_str() {
        "ecs" => of_ecs(call, input),
        "iam" => of_iam(call, input),
        "ec2" => of_ec2(call, input),
        "logs" => of_logs(call, input),
        "ssm" => of_ssm(call, input),
        "secretsmanager" => of_secrets(call, input),
        _ => Vec::new(),
    };
    if found.is_empty() {
        vec![vec!["*".into()]]
    } else {
        found
    }
}

fn cluster(input: &Value) -> &str {
    match input.maybe("cluster") {
        None | Some("") => "default",
        Some(name) => last_part(name),
    }
}

fn of_ecs(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let arn = |rest: String| vec![call.arn("ecs", &rest)];
    let below = |kind: &str, names: Vec<String>| {
        let one = |name: String| match name.starts_with("arn:") {
            true => vec![name],
            false => arn(format!("{kind}/{}/{}", cluster(input), last_part(&name))),
        };
        names.into_iter().map(one).collect::<Vec<_>>()
    };
    let text = |member: &str| {
        input
            .maybe(member)
            .map(str::to_owned)
            .into_iter()
            .collect::<Vec<_>>()
    };
    match call.operation.as_str() {
        "CreateCluster" => vec![arn(format!(
            "cluster/{}",
            input.maybe("clusterName").unwrap_or("default")
        ))],
        "DeleteCluster"
        | "UpdateCluster"
        | "UpdateClusterSettings"
        | "PutClusterCapacityProviders"
        | "ListContainerInstances"
        | "RegisterContainerInstance"
        | "ListAttributes" => {
            vec![arn(format!("cluster/{}", cluster(input)))]
        }
        "DescribeClusters" => {
            let mut names = input.texts("clusters");
            if names.is_empty() {
                names.push("default".into());
            }
            let names = names.iter();
            names.map(|n| arn(format!("cluster/{}", last_part(n)))).collect()
        }
        "CreateService" => below("service", text("serviceName")),
        "UpdateService" | "DeleteService" | "ListServiceDeployments" => below("service", text("service")),
        "DescribeServices" => below("service", input.texts("services")),
        "RunTask" | "StartTask" => vec![vec![ecs::definition_arn(call, input.text("taskDefinition"))]],
        "RegisterTaskDefinition" => vec![arn(format!("task-definition/{}:*", input.text("family")))],
        "DeleteTaskDefinitions" => {
            let names = input.texts("taskDefinitions");
            names.iter().map(|n| vec![ecs::definition_arn(call, n)]).collect()
        }
        "StopTask" | "ExecuteCommand" => below("task", text("task")),
        "DescribeTasks" | "GetTaskProtection" | "UpdateTaskProtection" => below("task", input.texts("tasks")),
        "DescribeContainerInstances" | "UpdateContainerInstancesState" => {
            below("container-instance", input.texts("containerInstances"))
        }
        "DeregisterContainerInstance" => below("container-instance", text("containerInstance")),
        "TagResource" | "UntagResource" | "ListTagsForResource" => vec![text("resourceArn")],
        "CreateCapacityProvider" | "UpdateCapacityProvider" => {
            vec![arn(format!("capacity-provider/{}", input.text("name")))]
        }
        "DeleteCapacityProvider" => {
            vec![arn(format!(
                "capacity-provider/{}",
                last_part(input.text("capacityProvider"))
            ))]
        }
        "StopServiceDeployment" => vec![text("serviceDeploymentArn")],
        _ => Vec::new(),
    }
}

fn of_iam(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let account = call.account();
    let path = input.maybe("Path").unwrap_or("/");
    let new = call.operation.starts_with("Create");
    // Operations that are about all of a kind may name one as a filter.
    if let Some(name) = input
        .maybe("RoleName")
        .filter(|_| call.operation != "AddRoleToInstanceProfile")
    {
        let known = super::find_role(&call.state(), name).ok().flatten();
        let arn = match known {
            Some(role) if !new => role_arn(account, &role.spec),
            _ => format!("arn:aws:iam::{account}:role{path}{name}"),
        };
        return vec![vec![arn]];
    }
    if let Some(name) = input.maybe("InstanceProfileName") {
        let state = call.state();
        let known = state
            .get::<InstanceProfile>("", &super::profiles::profile_object(name))
            .ok()
            .flatten();
        let path = known.map_or_else(|| path.to_owned(), |p| p.spec.path);
        return vec![vec![format!(
            "arn:aws:iam::{account}:instance-profile{path}{name}"
        )]];
    }
    if let Some(name) = input.maybe("GroupName") {
        let known = groups::find(call, name).ok();
        let path = known.map_or_else(|| path.to_owned(), |g| g.spec.path);
        return vec![vec![format!("arn:aws:iam::{account}:group{path}{name}")]];
    }
    let own = matches!(
        call.operation.as_str(),
        "GetUser"
            | "ListAccessKeys"
            | "CreateAccessKey"
            | "DeleteAccessKey"
            | "UpdateAccessKey"
            | "ChangePassword"
    );
    let named = input
        .maybe("UserName")
        .or(call.principal.user.as_deref().filter(|_| own));
    if let Some(name) = named {
        let arn = match users::find(call, name) {
            Ok(user) if !new || own => users::arn(call, &user.spec),
            _ => format!("arn:aws:iam::{account}:user{path}{name}"),
        };
        return vec![vec![arn]];
    }
    if let Some(name) = input.maybe("PolicyName") {
        return vec![vec![format!("arn:aws:iam::{account}:policy{path}{name}")]];
    }
    let arn = input.maybe("PolicyArn").or(input.maybe("PolicySourceArn"));
    arn.map(|a| vec![vec![a.to_owned()]]).unwrap_or_default()
}

/// Members that name a resource, and its kind. The describe calls of EC2 know no resources.
const EC2: &[(&str, &str)] = &[
    ("GroupId", "security-group"),
    ("SubnetId", "subnet"),
    ("RouteTableId", "route-table"),
    ("InternetGatewayId", "internet-gateway"),
    ("NatGatewayId", "natgateway"),
    ("AllocationId", "elastic-ip"),
    ("NetworkAclId", "network-acl"),
    ("VpcId", "vpc"),
];

fn of_ec2(call: &Call, input: &Value) -> Vec<Vec<String>> {
    if call.operation.starts_with("Describe") {
        return Vec::new();
    }
    let arn = |kind: &str, id: &str| vec![call.arn("ec2", &format!("{kind}/{id}"))];
    if matches!(call.operation.as_str(), "CreateTags" | "DeleteTags") {
        let ids = input.texts("Resources");
        return ids
            .iter()
            .map(|id| arn(crate::ec2::kind_of(id).unwrap_or("*"), id))
            .collect();
    }
    let given = EC2
        .iter()
        .filter_map(|(member, kind)| Some(arn(kind, input.maybe(member)?)));
    given.collect()
}

fn of_logs(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let named = [
        "logGroupName",
        "logGroupIdentifier",
        "resourceArn",
        "resourceIdentifier",
        "logGroupNamePrefix",
    ];
    let Some(name) = named.iter().find_map(|m| input.maybe(m)) else {
        return match call.operation.as_str() {
            "DescribeLogGroups" | "ListLogGroups" => vec![log_group(call, "", "")],
            _ => Vec::new(),
        };
    };
    let name = name
        .split_once(":log-group:")
        .map_or(name, |(_, rest)| rest.trim_end_matches(":*"));
    vec![log_group(call, name, input.text("logStreamName"))]
}

fn log_group(call: &Call, name: &str, stream: &str) -> Vec<String> {
    vec![
        call.arn("logs", &format!("log-group:{name}:log-stream:{stream}")),
        call.arn("logs", &format!("log-group:{name}")),
    ]
}

fn of_ssm(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let one = |name: &str| match name.starts_with("arn:") {
        true => vec![name.to_owned()],
        // A version or label after the name is not part of it.
        false => vec![ssm::arn(call, name.split(':').next().unwrap_or_default())],
    };
    if let Some(path) = input.maybe("Path") {
        let arn = ssm::arn(call, path.trim_end_matches('/'));
        return vec![vec![format!("{arn}/"), arn]];
    }
    let mut names = input.texts("Names");
    names.extend(
        input
            .maybe("Name")
            .or(input.maybe("ResourceId"))
            .map(str::to_owned),
    );
    names.iter().map(|n| one(n)).collect()
}

fn of_secrets(call: &Call, input: &Value) -> Vec<Vec<String>> {
    let one = |id: &str| match secrets::find(call, id) {
        Ok(secret) => vec![secret.spec.arn],
        Err(_) if id.starts_with("arn:") => vec![id.to_owned()],
        Err(_) => vec![call.arn("secretsmanager", &format!("secret:{id}"))],
    };
    let id = input
        .maybe("SecretId")
        .or(input.maybe("Name").filter(|_| call.operation == "CreateSecret"));
    id.map(|id| vec![one(id)]).unwrap_or_default()
}

/// The policy of the resource itself, of those that can have one.
pub(super) fn policy(call: &Call, input: &Value) -> Result<Option<String>, Fault> {
    match (call.service.as_str(), input.maybe("SecretId")) {
        ("secretsmanager", Some(id)) => Ok(secrets::find(call, id).ok().and_then(|s| s.spec.policy)),
        _ => Ok(None),
    }
}

/// Roles that a call hands to a service, and the service.
pub(super) fn passed_roles(call: &Call, input: &Value) -> Vec<(String, &'static str)> {
    let (holder, to) = match (call.service.as_str(), call.operation.as_str()) {
        ("ecs", "RegisterTaskDefinition") => (Some(input), "ecs-tasks.amazonaws.com"),
        ("ecs", "RunTask" | "StartTask") => (input.member("overrides"), "ecs-tasks.amazonaws.com"),
        ("ecs", "CreateService") => {
            let role = input.maybe("role").map(|r| full(call, r));
            return role.map(|r| (r, "ecs.amazonaws.com")).into_iter().collect();
        }
        ("iam", "AddRoleToInstanceProfile") => {
            let role = input.maybe("RoleName").map(|r| full(call, r));
            return role.map(|r| (r, "ec2.amazonaws.com")).into_iter().collect();
        }
        _ => return Vec::new(),
    };
    let roles = ["taskRoleArn", "executionRoleArn"];
    let given = roles
        .iter()
        .filter_map(|m| holder?.maybe(m))
        .filter(|r| !r.is_empty());
    given.map(|r| (full(call, r), to)).collect()
}

/// The ARN of a role that is given by ARN or name.
fn full(call: &Call, role: &str) -> String {
    if role.starts_with("arn:") {
        return role.to_owned();
    }
    let known = call
        .state()
        .get::<tripod_model::aws::Role>("", &role_object(role))
        .ok()
        .flatten();
    known.map_or_else(
        || format!("arn:aws:iam::{}:role/{role}", call.account()),
        |r| role_arn(call.account(), &r.spec),
    )
}

/// Tags that a request gives.
pub(super) fn request_tags(input: &Value) -> Tags {
    let mut tags = tags_of(input.items("tags"), "key", "value");
    tags.extend(tags_of(input.items("Tags"), "Key", "Value"));
    for specification in input.items("TagSpecifications") {
        tags.extend(tags_of(specification.items("Tags"), "Key", "Value"));
    }
    if let Some(map) = input.member("tags").and_then(Value::as_object) {
        tags.extend(
            map.iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())),
        );
    }
    tags
}

/// Keys of conditions that belong to the service.
pub(super) fn own_keys(call: &Call, input: &Value) -> BTreeMap<&'static str, String> {
    let mut out = BTreeMap::new();
    let mut add = |key: &'static str, value: Option<String>| out.extend(value.map(|v| (key, v)));
    match call.service.as_str() {
        "ecs" => {
            add(
                "ecs:cluster",
                Some(call.arn("ecs", &format!("cluster/{}", cluster(input)))),
            );
            let definition = input.maybe("taskDefinition");
            add(
                "ecs:task-definition",
                definition.map(|d| ecs::definition_arn(call, d)),
            );
            let service = input.maybe("service").or(input.maybe("serviceName"));
            let service =
                service.map(|s| call.arn("ecs", &format!("service/{}/{}", cluster(input), last_part(s))));
            add("ecs:service", service);
            add(
                "ecs:enable-execute-command",
                input.flag("enableExecuteCommand").map(|f| f.to_string()),
            );
            add("ecs:task-cpu", input.maybe("cpu").map(str::to_owned));
            add("ecs:task-memory", input.maybe("memory").map(str::to_owned));
        }
        "iam" => {
            add("iam:policyarn", input.maybe("PolicyArn").map(str::to_owned));
            add(
                "iam:permissionsboundary",
                input.maybe("PermissionsBoundary").map(str::to_owned),
            );
            add(
                "iam:awsservicename",
                input.maybe("AWSServiceName").map(str::to_owned),
            );
        }
        "ec2" => {
            add("ec2:region", Some(call.region.clone()));
            add(
                "ec2:vpc",
                input.maybe("VpcId").map(|v| call.arn("ec2", &format!("vpc/{v}"))),
            );
        }
        "secretsmanager" => {
            add("secretsmanager:name", input.maybe("Name").map(str::to_owned));
            add(
                "secretsmanager:secretid",
                input.maybe("SecretId").map(str::to_owned),
            );
            add(
                "secretsmanager:versionstage",
                input.maybe("VersionStage").map(str::to_owned),
            );
        }
        _ => {}
    }
    out
}

/// Tags of the resource that a call is about, where one is named.
pub(super) fn tags(call: &Call, input: &Value) -> Tags {
    let state = call.state();
    match call.service.as_str() {
        "ecs" => of_ecs(call, input)
            .into_iter()
            .flatten()
            .next()
            .map(|arn| ecs::tags_of_arn(call, &arn))
            .unwrap_or_default(),
        "iam" => match (input.maybe("RoleName"), input.maybe("UserName")) {
            (Some(role), _) => super::find_role(&state, role).ok().flatten().map(|r| r.spec.tags),
            (_, Some(user)) => users::find(call, user).ok().map(|u| u.spec.tags),
            _ => None,
        }
        .unwrap_or_default(),
        "secretsmanager" => {
            let secret = input
                .maybe("SecretId")
                .and_then(|id| secrets::find(call, id).ok());
            secret.map(|s| s.spec.tags).unwrap_or_default()
        }
        "ssm" => {
            let parameter = input
                .maybe("Name")
                .and_then(|n| ssm::find(call, n).ok().flatten());
            parameter.map(|p| p.spec.tags).unwrap_or_default()
        }
        "ec2" => {
            let id = EC2.iter().find_map(|(member, _)| input.maybe(member));
            id.map(|id| crate::ec2::tags_of_id(call, id)).unwrap_or_default()
        }
        _ => Tags::new(),
    }
}
