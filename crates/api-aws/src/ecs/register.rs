//! Registering task definitions: defaults, what they need, and the next revision.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tripod_engine::aws::uid;
use tripod_model::ErrorKind;
use tripod_model::ecs::{TaskDefinition, TaskDefinitionSpec, definition_name};
use tripod_model::object::ObjectMeta;

use super::{check_tags, definitions, validate};
use crate::call::Call;
use crate::fault::Reply;
use crate::value::{Get as _, tag_list, tags_of};

/// Members of the request that are kept as they are.
const KEPT: &[&str] = &[
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "cpu",
    "memory",
    "pidMode",
    "ipcMode",
    "runtimePlatform",
    "ephemeralStorage",
    "enableFaultInjection",
    "proxyConfiguration",
];

pub(super) async fn register(call: Call, input: Value) -> Reply {
    let mut input = input;
    validate::normalise(&mut input)?;
    validate::definition(&input)?;
    validate::roles(&call, &input)?;
    check_tags(input.items("tags"))?;
    let definition = completed(&call, &input);
    let tags = tags_of(input.items("tags"), "key", "value");
    let family = input.text("family");
    loop {
        call.manager.caught_up().await;
        let last = call.manager.with_view(|v| {
            let of_family = v
                .ecs()
                .definitions()
                .filter(|d| d.spec.family == family && d.spec.region == call.region);
            of_family.map(|d| d.spec.revision).max().unwrap_or(0)
        });
        let now = call.now();
        let spec = TaskDefinitionSpec {
            region: call.region.clone(),
            account: call.account().to_owned(),
            family: family.to_owned(),
            revision: last + 1,
            status: "ACTIVE".into(),
            definition: definition.clone(),
            registered_by: call.principal.arn.clone(),
            registered_at: Some(now),
            tags: tags.clone(),
            ..TaskDefinitionSpec::default()
        };
        let metadata = ObjectMeta {
            name: definition_name(&call.region, family, last + 1),
            uid: uid(),
            creation_timestamp: Some(now),
            ..ObjectMeta::default()
        };
        match call.db().create(&TaskDefinition { metadata, spec }).await {
            Ok(made) => {
                let mut out = json!({ "taskDefinition": definitions::shown(&made) });
                if !made.spec.tags.is_empty() {
                    out["tags"] = tag_list(&made.spec.tags, "key", "value");
                }
                return Ok(out);
            }
            // Somebody else registered that revision.
            Err(e) if e.kind == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The definition as it is kept: with what the API fills in.
fn completed(call: &Call, input: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let mode = input.maybe("networkMode").unwrap_or("");
    let containers = input
        .items("containerDefinitions")
        .iter()
        .map(|c| container(c, mode));
    out.insert("containerDefinitions".into(), containers.collect());
    for member in KEPT {
        if let Some(value) = input.member(member) {
            out.insert((*member).to_owned(), value.clone());
        }
    }
    if let Some(role) = out
        .get("taskRoleArn")
        .and_then(Value::as_str)
        .filter(|r| !r.starts_with("arn:"))
    {
        let arn = format!("arn:aws:iam::{}:role/{role}", call.account());
        out.insert("taskRoleArn".into(), arn.into());
    }
    for member in ["volumes", "placementConstraints"] {
        out.insert(member.into(), input.items(member).to_vec().into());
    }
    if !input.items("requiresCompatibilities").is_empty() {
        out.insert(
            "requiresCompatibilities".into(),
            input.items("requiresCompatibilities").to_vec().into(),
        );
    }
    let fargate = input
        .texts("requiresCompatibilities")
        .iter()
        .any(|c| c == "FARGATE");
    if !fargate {
        out.entry("networkMode").or_insert_with(|| "bridge".into());
    }
    let volumes = out
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for efs in volumes.filter_map(|v| v.get_mut("efsVolumeConfiguration")?.as_object_mut()) {
        efs.entry("rootDirectory").or_insert_with(|| "/".into());
    }
    out.insert("compatibilities".into(), compatibilities(input).into());
    let attributes: Value = attributes(input)
        .into_iter()
        .map(|name| json!({ "name": name }))
        .collect();
    out.insert("requiresAttributes".into(), attributes);
    out
}

fn compatibilities(input: &Value) -> Vec<&'static str> {
    let fargate = input
        .texts("requiresCompatibilities")
        .iter()
        .any(|c| c == "FARGATE")
        || validate::fargate(input).is_ok();
    match (input.text("networkMode"), fargate) {
        ("awsvpc", true) => vec!["EC2", "FARGATE"],
        ("awsvpc", false) => vec!["EC2"],
        _ => vec!["EXTERNAL", "EC2"],
    }
}

fn container(c: &Value, mode: &str) -> Value {
    let mut out = c.as_object().cloned().unwrap_or_default();
    out.entry("cpu").or_insert_with(|| 0.into());
    out.entry("essential").or_insert_with(|| true.into());
    for member in [
        "portMappings",
        "environment",
        "mountPoints",
        "volumesFrom",
        "systemControls",
    ] {
        out.entry(member).or_insert_with(|| json!([]));
    }
    for mapping in out
        .get_mut("portMappings")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let port = mapping.number("containerPort");
        let Some(mapping) = mapping.as_object_mut() else {
            continue;
        };
        mapping.entry("protocol").or_insert_with(|| "tcp".into());
        let default = match mode {
            "awsvpc" | "host" => port,
            _ => Some(0),
        };
        if let Some(port) = default {
            mapping.entry("hostPort").or_insert_with(|| port.into());
        }
    }
    if let Some(check) = out.get_mut("healthCheck").and_then(Value::as_object_mut) {
        for (member, value) in [("interval", 30), ("timeout", 5), ("retries", 3)] {
            check.entry(member).or_insert_with(|| value.into());
        }
    }
    Value::Object(out)
}

/// What a container instance must be capable of.
fn attributes(input: &Value) -> BTreeSet<String> {
    const PREFIX: &str = "com.amazonaws.ecs.capability.";
    let mut out = BTreeSet::from([format!("{PREFIX}docker-remote-api.1.18")]);
    if input.text("networkMode") == "awsvpc" {
        out.insert("ecs.capability.task-eni".into());
    }
    if !input.text("taskRoleArn").is_empty() {
        out.insert(format!("{PREFIX}task-iam-role"));
    }
    for c in input.items("containerDefinitions") {
        if let Some(log) = c.member("logConfiguration") {
            out.insert(format!("{PREFIX}logging-driver.{}", log.text("logDriver")));
            out.insert(format!("{PREFIX}docker-remote-api.1.19"));
            if log.text("logDriver") == "awslogs" && !input.text("executionRoleArn").is_empty() {
                out.insert("ecs.capability.execution-role-awslogs".into());
            }
        }
        if c.member("healthCheck").is_some() {
            out.insert("ecs.capability.container-health-check".into());
        }
        if !c.items("dependsOn").is_empty() {
            out.insert("ecs.capability.container-ordering".into());
        }
        if c.number("memoryReservation").is_some() {
            out.insert(format!("{PREFIX}docker-remote-api.1.21"));
        }
        if c.flag("privileged") == Some(true) {
            out.insert(format!("{PREFIX}privileged-container"));
        }
        for secret in c.items("secrets") {
            let kind = if secret.text("valueFrom").contains(":secretsmanager:") {
                "asm"
            } else {
                "ssm"
            };
            out.insert(format!("ecs.capability.secrets.{kind}.environment-variables"));
        }
    }
    if input
        .items("volumes")
        .iter()
        .any(|v| v.member("efsVolumeConfiguration").is_some())
    {
        out.insert("ecs.capability.efs".into());
    }
    out
}
