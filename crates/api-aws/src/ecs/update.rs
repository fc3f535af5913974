//! UpdateService: other settings, and a new deployment where the tasks change.

use serde_json::{Value, json};
use tripod_model::ecs::{EcsService, EcsServiceSpec, EcsTemplate, TaskDefinition};
use tripod_plan::Rng;
use tripod_plan::ecs::service::begin;

use super::services::{deployment_settings, placement, refuse, shown};
use super::{cluster, find_definition, find_service, no_service, tasks, usable_definition};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::Get as _;

/// Members whose change makes a new deployment.
const REDEPLOYS: &[&str] = &[
    "taskDefinition",
    "networkConfiguration",
    "capacityProviderStrategy",
    "platformVersion",
    "enableExecuteCommand",
];

pub(super) async fn update(call: Call, input: Value) -> Reply {
    refuse(&input)?;
    placement(&input)?;
    let cluster = cluster(&call, &input)?;
    let service = find_service(&call, &cluster, input.text("service"))?.ok_or_else(no_service)?;
    if service.status.state != "ACTIVE" {
        return Err(Fault::new("ServiceNotActiveException", "Service was not ACTIVE."));
    }
    if input.number("desiredCount").is_some_and(|n| n < 0) {
        return Err(Fault::parameter("desiredCount must not be negative."));
    }
    if service.spec.daemon && input.number("desiredCount").is_some() {
        return Err(Fault::parameter(
            "The daemon scheduling strategy does not support a desired count for services.",
        ));
    }
    let definition = match input.maybe("taskDefinition") {
        Some(named) => usable_definition(&call, named).await?,
        None => {
            call.manager.caught_up().await;
            let named = &service.spec.template.task_definition;
            find_definition(&call, named).ok_or_else(|| Fault::client("TaskDefinition not found."))?
        }
    };
    let redeploys =
        input.flag("forceNewDeployment") == Some(true) || REDEPLOYS.iter().any(|m| input.member(m).is_some());
    let template = match redeploys {
        true => Some(next_template(&call, &cluster, &service, &definition, &input)?),
        false => None,
    };
    let deployment = deployment_settings(&input, service.spec.deployment.clone(), service.spec.daemon)?;
    let now = call.now();
    let (namespace, name) = (cluster.metadata.name.clone(), service.metadata.name.clone());
    let done = call
        .edit(&namespace, &name, no_service, |s: &mut EcsService| {
            if s.status.state != "ACTIVE" {
                return Err(Fault::new("ServiceNotActiveException", "Service was not ACTIVE."));
            }
            settings(&mut s.spec, &input);
            s.spec.deployment.clone_from(&deployment);
            let desired = s.spec.desired_count;
            if let Some(primary) = s.status.deployments.first_mut()
                && primary.desired_count != desired
            {
                primary.desired_count = desired;
                primary.updated_at = Some(now);
                s.status.steady = false;
            }
            let forced = input.flag("forceNewDeployment") == Some(true);
            if let Some(template) = template.as_ref().filter(|t| forced || **t != s.spec.template) {
                begin(s, template.clone(), "", now, &mut Rng::new(rand::random()));
            }
            Ok(())
        })
        .await?;
    Ok(json!({ "service": shown(&call, &done.0, true) }))
}

/// What the next deployment is made of: the request over what is there.
fn next_template(
    call: &Call,
    cluster: &tripod_model::ecs::EcsCluster,
    service: &EcsService,
    definition: &TaskDefinition,
    input: &Value,
) -> Result<EcsTemplate, Fault> {
    let before = &service.spec.template;
    let mut whole = json!({
        "networkConfiguration": before.network_configuration,
        "enableExecuteCommand": before.execute_command,
    });
    if before.launch_type.is_empty() {
        whole["capacityProviderStrategy"] = before.capacity_provider_strategy.clone().into();
    } else {
        whole["launchType"] = before.launch_type.as_str().into();
    }
    if before.is_fargate() && !before.platform_version.is_empty() {
        whole["platformVersion"] = before.platform_version.as_str().into();
    }
    if let Some(strategy) = input
        .member("capacityProviderStrategy")
        .filter(|s| s.as_array().is_some_and(|l| !l.is_empty()))
    {
        whole["capacityProviderStrategy"] = strategy.clone();
        whole["launchType"] = Value::Null;
    }
    for member in ["networkConfiguration", "enableExecuteCommand", "platformVersion"] {
        if let Some(value) = input.member(member) {
            whole[member] = value.clone();
        }
    }
    tasks::template(call, cluster, definition, &whole)
}

fn settings(spec: &mut EcsServiceSpec, input: &Value) {
    if let Some(n) = input.number("desiredCount") {
        spec.desired_count = n;
    }
    if input.member("placementConstraints").is_some() {
        spec.placement_constraints = input.items("placementConstraints").to_vec();
    }
    if input.member("placementStrategy").is_some() {
        spec.placement_strategy = input.items("placementStrategy").to_vec();
    }
    if let Some(text) = input.maybe("propagateTags") {
        spec.propagate_tags = text.to_owned();
    }
    if let Some(on) = input.flag("enableECSManagedTags") {
        spec.managed_tags = on;
    }
    for member in ["healthCheckGracePeriodSeconds", "availabilityZoneRebalancing"] {
        if let Some(value) = input.member(member) {
            spec.rest.insert(member.into(), value.clone());
        }
    }
}
