//! Service deployments and revisions.

use serde_json::{Value, json};
use tripod_model::ecs::{EcsCluster, EcsDeployment, EcsService, EcsServiceSpec};
use tripod_plan::Rng;
use tripod_plan::ecs::service::{begin, last_good};

use super::{cluster, cluster_arn, find_service, last_part, listed, missing, named_cluster, no_service};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of, some};

/// ARN of a deployment.
pub(super) fn arn(call: &Call, s: &EcsServiceSpec, d: &EcsDeployment) -> String {
    let id = last_part(&d.id);
    call.arn(
        "ecs",
        &format!("service-deployment/{}/{}/{id}", s.cluster, s.name),
    )
}

fn revision_arn(call: &Call, s: &EcsServiceSpec, d: &EcsDeployment) -> String {
    call.arn(
        "ecs",
        &format!("service-revision/{}/{}/{}", s.cluster, s.name, d.revision),
    )
}

fn all(service: &EcsService) -> Vec<&EcsDeployment> {
    service
        .status
        .deployments
        .iter()
        .chain(&service.status.past)
        .collect()
}

fn status(d: &EcsDeployment, primary: bool) -> &'static str {
    match (d.rollout.as_str(), d.stopped, primary) {
        (_, true, _) => "STOPPED",
        ("COMPLETED", ..) => "SUCCESSFUL",
        ("FAILED", ..) => "ROLLBACK_SUCCESSFUL",
        (_, _, true) => "IN_PROGRESS",
        _ => "STOPPED",
    }
}

fn shown(call: &Call, service: &EcsService, d: &EcsDeployment) -> Value {
    let s = &service.spec;
    let primary = service.status.deployments.first().is_some_and(|p| p.id == d.id);
    let (running, pending) = call.manager.with_view(|v| {
        let tasks = v.ecs().tasks_of(&service.metadata.namespace, &s.name);
        tripod_plan::ecs::service::counts(tasks, &d.id)
    });
    let breaker = &s.deployment;
    let state = match (breaker.circuit_breaker, d.rollout.as_str()) {
        (false, _) => "DISABLED",
        (true, "FAILED") => "TRIGGERED",
        (true, "IN_PROGRESS") => "MONITORING",
        (true, _) => "MONITORING_COMPLETE",
    };
    let sources: Value = all(service)
        .iter()
        .filter(|o| o.id != d.id && o.created_at < d.created_at)
        .take(1)
        .map(|o| {
            json!({ "arn": revision_arn(call, s, o), "requestedTaskCount": 0, "runningTaskCount": 0,
                         "pendingTaskCount": 0 })
        })
        .collect();
    dense(json!({
        "serviceDeploymentArn": arn(call, s, d), "serviceArn": super::services::arn(call, s),
        "clusterArn": cluster_arn(call, &s.cluster), "createdAt": epoch_of(d.created_at),
        "startedAt": epoch_of(d.created_at), "finishedAt": epoch_of(d.finished_at), "updatedAt": epoch_of(d.updated_at),
        "sourceServiceRevisions": sources,
        "targetServiceRevision": {
            "arn": revision_arn(call, s, d), "requestedTaskCount": d.desired_count, "runningTaskCount": running,
            "pendingTaskCount": pending,
        },
        "status": status(d, primary), "statusReason": some(&d.reason),
        "deploymentConfiguration": {
            "maximumPercent": breaker.maximum_percent, "minimumHealthyPercent": breaker.minimum_healthy_percent,
            "deploymentCircuitBreaker": { "enable": breaker.circuit_breaker, "rollback": breaker.rollback },
            "strategy": "ROLLING",
        },
        "deploymentCircuitBreaker": {
            "status": state, "failureCount": d.failed,
            "threshold": ((s.desired_count + 1) / 2).clamp(3, 200),
        },
    }))
}

/// Cluster and service of an ARN `…:KIND/CLUSTER/SERVICE/ID`.
fn of_arn(call: &Call, arn: &str) -> Result<Option<(EcsService, String)>, Fault> {
    let parts: Vec<&str> = arn.split('/').collect();
    let [_, cluster, service, id] = parts[..] else {
        return Err(Fault::parameter(format!("Invalid identifier: {arn}")));
    };
    let Ok(cluster) = named_cluster(call, cluster) else {
        return Ok(None);
    };
    Ok(find_service(call, &cluster, service)?.map(|s| (s, id.to_owned())))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in input.texts("serviceDeploymentArns") {
        let of = of_arn(&call, &arn)?;
        let hit = of
            .as_ref()
            .and_then(|(s, id)| Some((s, all(s).into_iter().find(|d| last_part(&d.id) == id)?)));
        match hit {
            Some((service, d)) => found.push(shown(&call, service, d)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(json!({ "serviceDeployments": found, "failures": failures }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let of: EcsCluster = cluster(&call, &input)?;
    let service = find_service(&call, &of, input.text("service"))?.ok_or_else(no_service)?;
    let wanted = input.texts("status");
    let mut items: Vec<Value> = all(&service)
        .into_iter()
        .map(|d| shown(&call, &service, d))
        .collect();
    items.retain(|d| wanted.is_empty() || wanted.iter().any(|w| w == d.text("status")));
    let brief = |d: &Value| {
        let target = d.get("targetServiceRevision").map(|t| t.text("arn").to_owned());
        json!({
            "serviceDeploymentArn": d.get("serviceDeploymentArn"), "serviceArn": d.get("serviceArn"),
            "clusterArn": d.get("clusterArn"), "createdAt": d.get("createdAt"), "startedAt": d.get("startedAt"),
            "finishedAt": d.get("finishedAt"), "targetServiceRevisionArn": target, "status": d.get("status"),
            "statusReason": d.get("statusReason"),
        })
    };
    let arns = items
        .iter()
        .map(|d| d.text("serviceDeploymentArn").to_owned())
        .collect();
    let page = listed(&input, "arns", arns, 100)?;
    let kept = page.texts("arns");
    let shown: Value = items
        .iter()
        .filter(|d| kept.iter().any(|a| a == d.text("serviceDeploymentArn")))
        .map(brief)
        .collect();
    Ok(json!({ "serviceDeployments": shown, "nextToken": page.get("nextToken") }))
}

pub(super) async fn stop(call: Call, input: Value) -> Reply {
    let named = input.text("serviceDeploymentArn");
    let missing = || {
        Fault::new(
            "ServiceDeploymentNotFoundException",
            format!("Service deployment {named} was not found."),
        )
    };
    let (service, id) = of_arn(&call, named)?.ok_or_else(missing)?;
    let now = call.now();
    call.edit(
        &service.metadata.namespace,
        &service.metadata.name,
        no_service,
        |s: &mut EcsService| {
            let primary = s.status.deployments.first_mut();
            let primary = primary.filter(|d| last_part(&d.id) == id).ok_or_else(missing)?;
            if primary.rollout != "IN_PROGRESS" {
                let text = format!("Service deployment {named} is not in progress.");
                return Err(Fault::new("ConflictException", text));
            }
            primary.rollout = "FAILED".into();
            primary.stopped = true;
            primary.reason = "Deployment stopped by user.".into();
            primary.finished_at = Some(now);
            primary.desired_count = 0;
            if let Some((template, good)) = last_good(s).filter(|_| input.text("stopType") != "ABORT") {
                begin(s, template, &good, now, &mut Rng::new(rand::random()));
            }
            Ok(())
        },
    )
    .await?;
    Ok(json!({ "serviceDeploymentArn": named }))
}

pub(super) async fn revisions(call: Call, input: Value) -> Reply {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in input.texts("serviceRevisionArns") {
        let of = of_arn(&call, &arn)?;
        let hit = of
            .as_ref()
            .and_then(|(s, id)| Some((s, all(s).into_iter().find(|d| d.revision == *id)?)));
        let Some((service, d)) = hit else {
            failures.push(missing(arn));
            continue;
        };
        let t = &d.template;
        found.push(dense(json!({
            "serviceRevisionArn": arn, "serviceArn": super::services::arn(&call, &service.spec),
            "clusterArn": cluster_arn(&call, &service.spec.cluster), "taskDefinition": t.task_definition,
            "capacityProviderStrategy": if t.capacity_provider_strategy.is_empty() { Value::Null } else { t.capacity_provider_strategy.clone().into() },
            "launchType": some(&t.launch_type), "platformVersion": some(&t.platform_version),
            "platformFamily": if t.is_fargate() { "Linux".into() } else { Value::Null },
            "networkConfiguration": t.network_configuration, "loadBalancers": [], "serviceRegistries": [],
            "containerImages": [], "guardDutyEnabled": false, "createdAt": epoch_of(d.created_at),
        })));
    }
    Ok(json!({ "serviceRevisions": found, "failures": failures }))
}
