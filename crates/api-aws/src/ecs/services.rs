//! Services: made, told, listed, deleted.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tripod_engine::aws::uid;
use tripod_model::ecs::{
    DeploymentSettings, EcsCluster, EcsDeployment, EcsService, EcsServiceSpec, EcsServiceStatus, service_name,
};
use tripod_model::object::ObjectMeta;
use tripod_model::pod::Pod;
use tripod_plan::Rng;
use tripod_plan::ecs::service::{begin, counts};
use tripod_plan::ecs::task::PLATFORM_VERSION;

use super::{
    check_tags, cluster, cluster_arn, find_service, last_part, listed, missing, named_cluster, no_service,
    tasks, usable_definition,
};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::iam;
use crate::value::{Get as _, dense, epoch_of, some, tag_list, tags_of};

/// Members of CreateService and UpdateService that are refused when they hold anything.
const REFUSED: &[&str] = &[
    "loadBalancers",
    "serviceRegistries",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
    "monitoring",
];
/// Members that are kept and told again.
const ECHOED: &[&str] = &["healthCheckGracePeriodSeconds", "availabilityZoneRebalancing"];

/// ARN of a service.
pub(super) fn arn(call: &Call, s: &EcsServiceSpec) -> String {
    call.arn("ecs", &format!("service/{}/{}", s.cluster, s.name))
}

/// The service's role.
fn role_arn(call: &Call) -> String {
    format!(
        "arn:aws:iam::{}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
        call.account()
    )
}

fn configuration(s: &EcsServiceSpec) -> Value {
    let d = &s.deployment;
    let mut out = d.rest.clone();
    out.insert("maximumPercent".into(), d.maximum_percent.into());
    out.insert("minimumHealthyPercent".into(), d.minimum_healthy_percent.into());
    let breaker = json!({ "enable": d.circuit_breaker, "rollback": d.rollback });
    out.insert("deploymentCircuitBreaker".into(), breaker);
    out.entry("strategy").or_insert_with(|| "ROLLING".into());
    out.into()
}

fn deployment(d: &EcsDeployment, primary: bool, tasks: &[Arc<Pod>]) -> Value {
    let (running, pending) = counts(tasks, &d.id);
    let fargate = d.template.is_fargate();
    let desired = if primary {
        d.desired_count
    } else {
        running + pending
    };
    json!({
        "id": d.id, "status": if primary { "PRIMARY" } else { "ACTIVE" }, "taskDefinition": d.template.task_definition,
        "desiredCount": desired, "pendingCount": pending, "runningCount": running, "failedTasks": d.failed,
        "createdAt": epoch_of(d.created_at), "updatedAt": epoch_of(d.updated_at),
        "launchType": some(&d.template.launch_type),
        "capacityProviderStrategy": strategy(&d.template.capacity_provider_strategy),
        "platformVersion": if fargate { PLATFORM_VERSION.into() } else { Value::Null },
        "platformFamily": if fargate { "Linux".into() } else { Value::Null },
        "networkConfiguration": d.template.network_configuration, "rolloutState": d.rollout,
        "rolloutStateReason": d.reason,
    })
}

fn strategy(list: &[Value]) -> Value {
    if list.is_empty() {
        return Value::Null;
    }
    let whole = list.iter().map(|s| {
        json!({
            "capacityProvider": s.get("capacityProvider"), "weight": s.number("weight").unwrap_or(0),
            "base": s.number("base").unwrap_or(0),
        })
    });
    whole.collect()
}

/// A service as answers have it.
pub(super) fn shown(call: &Call, service: &EcsService, tags: bool) -> Value {
    let (s, status) = (&service.spec, &service.status);
    let mut tasks: Vec<Arc<Pod>> = call.manager.with_view(|v| {
        v.ecs()
            .tasks_of(&service.metadata.namespace, &s.name)
            .cloned()
            .collect()
    });
    tasks.retain(|p| p.metadata.creation_timestamp >= service.metadata.creation_timestamp);
    let (running, pending) = counts(&tasks, "");
    let events: Value = status
        .events
        .iter()
        .map(|e| json!({ "id": e.id, "createdAt": epoch_of(e.at), "message": e.message }))
        .collect();
    let deployments: Value = status
        .deployments
        .iter()
        .enumerate()
        .map(|(i, d)| deployment(d, i == 0, &tasks))
        .collect();
    let fargate = s.template.is_fargate();
    let current = status
        .deployments
        .iter()
        .find(|d| d.rollout == "IN_PROGRESS")
        .or(status.deployments.first());
    let mut out = json!({
        "serviceArn": arn(call, s), "serviceName": s.name, "clusterArn": cluster_arn(call, &s.cluster),
        "loadBalancers": [], "serviceRegistries": [], "status": status.state, "desiredCount": s.desired_count,
        "runningCount": running, "pendingCount": pending, "launchType": some(&s.template.launch_type),
        "capacityProviderStrategy": strategy(&s.template.capacity_provider_strategy),
        "platformVersion": some(&s.template.platform_version),
        "platformFamily": if fargate { "Linux".into() } else { Value::Null },
        "taskDefinition": s.template.task_definition, "deploymentConfiguration": configuration(s),
        "deployments": deployments, "roleArn": role_arn(call), "events": events,
        "createdAt": epoch_of(service.metadata.creation_timestamp), "placementConstraints": s.placement_constraints,
        "placementStrategy": s.placement_strategy, "networkConfiguration": s.template.network_configuration,
        "schedulingStrategy": if s.daemon { "DAEMON" } else { "REPLICA" },
        "deploymentController": { "type": "ECS" }, "createdBy": s.created_by,
        "enableECSManagedTags": s.managed_tags, "propagateTags": s.propagate_tags,
        "enableExecuteCommand": s.template.execute_command,
        "currentServiceDeployment": current.map(|d| super::deployments::arn(call, s, d)),
        "currentServiceRevisions": [],
        "tags": if tags { tag_list(&s.tags, "key", "value") } else { Value::Null },
    });
    if let Some(out) = out.as_object_mut() {
        out.extend(s.rest.clone());
        out.remove("currentServiceRevisions");
    }
    dense(out)
}

/// Refuses what is not implemented of a service.
pub(super) fn refuse(input: &Value) -> Result<(), Fault> {
    for member in REFUSED {
        let held = input
            .member(member)
            .is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty()));
        if held {
            return Err(Fault::parameter(format!(
                "{member} is not supported by this endpoint."
            )));
        }
    }
    if input
        .get("serviceConnectConfiguration")
        .and_then(|c| c.flag("enabled"))
        == Some(true)
    {
        return Err(Fault::parameter(
            "serviceConnectConfiguration is not supported by this endpoint.",
        ));
    }
    let controller = input.get("deploymentController").map(|c| c.text("type"));
    if let Some(other) = controller.filter(|c| *c != "ECS") {
        let text = format!("The deploymentController {other} is not supported by this endpoint.");
        return Err(Fault::parameter(text));
    }
    let strategy = input
        .get("deploymentConfiguration")
        .map(|c| c.text("strategy"))
        .unwrap_or_default();
    if !matches!(strategy, "" | "ROLLING") {
        let text = format!("The deployment strategy {strategy} is not supported by this endpoint.");
        return Err(Fault::parameter(text));
    }
    Ok(())
}

/// `deploymentConfiguration` over what is there.
pub(super) fn deployment_settings(
    input: &Value,
    before: DeploymentSettings,
    daemon: bool,
) -> Result<DeploymentSettings, Fault> {
    let mut out = before;
    let Some(given) = input.member("deploymentConfiguration").and_then(Value::as_object) else {
        return Ok(out);
    };
    for (member, value) in given {
        match member.as_str() {
            "maximumPercent" => out.maximum_percent = value.as_i64().unwrap_or(200),
            "minimumHealthyPercent" => out.minimum_healthy_percent = value.as_i64().unwrap_or(100),
            "deploymentCircuitBreaker" => {
                out.circuit_breaker = value.flag("enable").unwrap_or(false);
                out.rollback = value.flag("rollback").unwrap_or(false);
            }
            other => drop(out.rest.insert(other.to_owned(), value.clone())),
        }
    }
    if !(0..=100).contains(&out.minimum_healthy_percent) {
        return Err(Fault::parameter(
            "minimumHealthyPercent must be between 0 and 100.",
        ));
    }
    if !(100..=200).contains(&out.maximum_percent) && !daemon {
        return Err(Fault::parameter("maximumPercent must be between 100 and 200."));
    }
    if out.maximum_percent == 100 && out.minimum_healthy_percent == 100 {
        let text =
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.";
        return Err(Fault::parameter(text));
    }
    Ok(out)
}

fn check_create(input: &Value) -> Result<bool, Fault> {
    refuse(input)?;
    check_tags(input.items("tags"))?;
    let name = input.text("serviceName");
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(letter) {
        return Err(Fault::parameter(
            "serviceName takes up to 255 letters, digits, hyphens and underscores.",
        ));
    }
    let daemon = input.text("schedulingStrategy") == "DAEMON";
    match (daemon, input.number("desiredCount")) {
        (false, None) => {
            return Err(Fault::parameter(
                "desiredCount must be specified for the REPLICA strategy.",
            ));
        }
        (false, Some(n)) if n < 0 => return Err(Fault::parameter("desiredCount must not be negative.")),
        (true, Some(_)) => {
            let text = "The daemon scheduling strategy does not support a desired count for services. Remove the \
                        desired count value and try again.";
            return Err(Fault::parameter(text));
        }
        _ => {}
    }
    if daemon && !input.items("placementStrategy").is_empty() {
        let text = "The daemon scheduling strategy does not support placementStrategy.";
        return Err(Fault::parameter(text));
    }
    placement(input)?;
    Ok(daemon)
}

/// Placement constraints and strategies that can be.
pub(super) fn placement(input: &Value) -> Result<(), Fault> {
    for constraint in input.items("placementConstraints") {
        match constraint.text("type") {
            "distinctInstance" => {}
            "memberOf" => {
                if let Err(why) = tripod_plan::ecs::query::Query::parse(constraint.text("expression")) {
                    return Err(Fault::parameter(format!(
                        "placementConstraints: invalid expression: {why}"
                    )));
                }
            }
            other => {
                return Err(Fault::parameter(format!(
                    "placementConstraints: unknown type '{other}'"
                )));
            }
        }
    }
    for step in input.items("placementStrategy") {
        let field = step.text("field").to_ascii_lowercase();
        let fits = match step.text("type") {
            "random" => true,
            "binpack" => matches!(field.as_str(), "cpu" | "memory"),
            _ => field.starts_with("attribute:") || matches!(field.as_str(), "instanceid" | "host"),
        };
        if !fits {
            let text = format!(
                "placementStrategy: '{}' is no field of {}.",
                step.text("field"),
                step.text("type")
            );
            return Err(Fault::parameter(text));
        }
    }
    Ok(())
}

/// The role of ECS is made when it is not there, as ECS does.
async fn ensure_role(call: &Call) -> Result<(), Fault> {
    if iam::find_role(&call.state(), "AWSServiceRoleForECS")?.is_none() {
        let input = json!({ "AWSServiceName": "ecs.amazonaws.com" });
        // Somebody else may have made it meanwhile.
        let _ = iam::create_linked_role(call.clone(), input).await;
    }
    Ok(())
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    let daemon = check_create(&input)?;
    let definition = usable_definition(&call, input.text("taskDefinition")).await?;
    let template = tasks::template(&call, &cluster, &definition, &input)?;
    if template.is_fargate() {
        if daemon {
            return Err(Fault::parameter(
                "The daemon scheduling strategy is not supported on Fargate.",
            ));
        }
        if !input.items("placementStrategy").is_empty() || !input.items("placementConstraints").is_empty() {
            let text = "Placement strategies and constraints are not supported on Fargate.";
            return Err(Fault::parameter(text));
        }
    }
    let name = input.text("serviceName");
    let digest = {
        let mut told = input.clone();
        if let Some(map) = told.as_object_mut() {
            map.remove("clientToken");
        }
        format!("{:016x}", tripod_model::ecs::fnv(&[&told.to_string()]))
    };
    let first = DeploymentSettings {
        maximum_percent: if daemon { 100 } else { 200 },
        minimum_healthy_percent: if daemon { 0 } else { 100 },
        ..DeploymentSettings::default()
    };
    let mut rest: Map<String, Value> = Map::new();
    for member in ECHOED {
        if let Some(value) = input.member(member) {
            rest.insert((*member).to_owned(), value.clone());
        }
    }
    rest.entry("availabilityZoneRebalancing")
        .or_insert_with(|| if daemon { "DISABLED" } else { "ENABLED" }.into());
    let spec = EcsServiceSpec {
        region: call.region.clone(),
        account: call.account().to_owned(),
        cluster: cluster.spec.name.clone(),
        name: name.to_owned(),
        desired_count: input.number("desiredCount").unwrap_or(0),
        daemon,
        deployment: deployment_settings(&input, first, daemon)?,
        template: template.clone(),
        placement_constraints: input.items("placementConstraints").to_vec(),
        placement_strategy: input.items("placementStrategy").to_vec(),
        propagate_tags: input.maybe("propagateTags").unwrap_or("NONE").to_owned(),
        managed_tags: input.flag("enableECSManagedTags").unwrap_or(false),
        created_by: call.principal.arn.clone(),
        client_token: input.text("clientToken").to_owned(),
        request: digest,
        tags: tags_of(input.items("tags"), "key", "value"),
        rest,
    };
    ensure_role(&call).await?;
    write_new(&call, &cluster, spec).await
}

/// Writes a new service, in the place of one of that name that is over.
async fn write_new(call: &Call, cluster: &EcsCluster, spec: EcsServiceSpec) -> Reply {
    loop {
        let now = call.now();
        let mut service = EcsService {
            metadata: ObjectMeta {
                name: service_name(&spec.name),
                namespace: cluster.metadata.name.clone(),
                uid: uid(),
                creation_timestamp: Some(now),
                ..ObjectMeta::default()
            },
            spec: spec.clone(),
            status: EcsServiceStatus {
                state: "ACTIVE".into(),
                ..EcsServiceStatus::default()
            },
        };
        begin(
            &mut service,
            spec.template.clone(),
            "",
            now,
            &mut Rng::new(rand::random()),
        );
        let written = match find_service(call, cluster, &spec.name)? {
            None => call.db().create(&service).await,
            Some(there) => match there.status.state.as_str() {
                "INACTIVE" => {
                    service.metadata.resource_version = there.metadata.resource_version;
                    call.db().update(&service).await
                }
                "DRAINING" => {
                    return Err(Fault::parameter(
                        "Unable to Start a service that is still Draining.",
                    ));
                }
                _ if !spec.client_token.is_empty()
                    && there.spec.client_token == spec.client_token
                    && there.spec.request == spec.request =>
                {
                    return Ok(json!({ "service": shown(call, &there, true) }));
                }
                _ => return Err(Fault::parameter("Creation of service was not idempotent.")),
            },
        };
        use tripod_model::ErrorKind::{AlreadyExists, OutOfSequence};
        match written {
            Ok(made) => {
                // What it begins with: nothing runs, nothing is told yet.
                return Ok(json!({ "service": shown(call, &made, true) }));
            }
            Err(e) if matches!(e.kind, AlreadyExists | OutOfSequence) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let names = input.texts("services");
    if names.is_empty() {
        return Err(Fault::parameter("Services cannot be empty."));
    }
    if names.len() > 10 {
        return Err(Fault::parameter("services takes at most 10 services."));
    }
    let tags = input.texts("include").iter().any(|i| i == "TAGS");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &names {
        match find_service(&call, &cluster, name)? {
            Some(service) => found.push(shown(&call, &service, tags)),
            None => {
                let short = last_part(name);
                let arn = call.arn("ecs", &format!("service/{}/{short}", cluster.spec.name));
                failures.push(missing(arn));
            }
        }
    }
    Ok(json!({ "services": found, "failures": failures }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    let mut services = call.state().list::<EcsService>(Some(&cluster.metadata.name))?;
    services.retain(|s| {
        let kind = if s.spec.daemon { "DAEMON" } else { "REPLICA" };
        let launch = if s.spec.template.is_fargate() {
            "FARGATE"
        } else {
            &s.spec.template.launch_type
        };
        s.status.state == "ACTIVE"
            && input.maybe("schedulingStrategy").is_none_or(|k| k == kind)
            && input.maybe("launchType").is_none_or(|l| l == launch)
    });
    let mut arns: Vec<String> = services.iter().map(|s| arn(&call, &s.spec)).collect();
    arns.sort();
    listed(&input, "serviceArns", arns, 10)
}

pub(super) async fn list_by_namespace(_: Call, input: Value) -> Reply {
    let text = format!("The namespace {} was not found.", input.text("namespace"));
    Err(Fault::new("NamespaceNotFoundException", text))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let cluster = named_cluster(&call, input.text("cluster"))?;
    let name = input.text("service");
    let service = find_service(&call, &cluster, name)?.ok_or_else(no_service)?;
    let force = input.flag("force").unwrap_or(false);
    let done = call
        .edit(
            &cluster.metadata.name,
            &service.metadata.name,
            no_service,
            |s: &mut EcsService| {
                if s.status.state == "INACTIVE" {
                    return Err(Fault::new("ServiceNotActiveException", "Service was not ACTIVE."));
                }
                if s.spec.desired_count > 0 && !s.spec.daemon && !force && s.status.state == "ACTIVE" {
                    let text = "The service cannot be stopped while it is scaled above 0.";
                    return Err(Fault::parameter(text));
                }
                s.status.state = "DRAINING".into();
                s.spec.desired_count = 0;
                if let Some(d) = s.status.deployments.first_mut() {
                    d.desired_count = 0;
                }
                Ok(())
            },
        )
        .await?;
    Ok(json!({ "service": shown(&call, &done.0, true) }))
}
