//! Tasks: run, started on instances, stopped, told, listed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_engine::TypedTxn as _;
use tripod_model::ecs::{EcsCluster, EcsTemplate, TaskDefinition};
use tripod_model::pod::{DesiredState, Pod};
use tripod_plan::Rng;
use tripod_plan::ecs::task::{Launch, make};
use tripod_plan::ecs::{life, place};
use tripod_plan::{Object, Write};
use tripod_store::{Key, Txn};

use super::{
    check_tags, cluster, find_task, instances, last_part, listed_as, missing, network, providers, shown,
    task_arn, tasks_where, usable_definition,
};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tags_of};

/// What tasks are made of, as a request says.
pub(super) fn template(
    call: &Call,
    cluster: &EcsCluster,
    definition: &TaskDefinition,
    input: &Value,
) -> Result<EcsTemplate, Fault> {
    // An empty strategy beside a launch type is none.
    let mut strategy = input.items("capacityProviderStrategy").to_vec();
    let mut launch_type = input.text("launchType").to_owned();
    if !strategy.is_empty() && !launch_type.is_empty() {
        let text = "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try \
                    again.";
        return Err(Fault::parameter(text));
    }
    providers::check_strategy(call, &strategy)?;
    if strategy.is_empty() && launch_type.is_empty() {
        strategy.clone_from(&cluster.spec.default_strategy);
        if strategy.is_empty() {
            launch_type = "EC2".into();
        }
    }
    let mut template = EcsTemplate {
        task_definition: definition.spec.arn(),
        launch_type,
        capacity_provider_strategy: strategy,
        execute_command: input.flag("enableExecuteCommand").unwrap_or(false),
        ..EcsTemplate::default()
    };
    let fargate = template.is_fargate();
    let compatible = |kind: &str| {
        let list = definition
            .spec
            .definition
            .get("compatibilities")
            .and_then(Value::as_array);
        list.is_some_and(|l| l.iter().any(|c| c == kind))
    };
    if fargate && !compatible("FARGATE") {
        return Err(Fault::parameter(
            "Task definition does not support launch_type FARGATE.",
        ));
    }
    let version = input.maybe("platformVersion");
    match (fargate, version) {
        (false, Some(_)) => {
            let text = "The platform version must be null when specifying an EC2 launch type.";
            return Err(Fault::parameter(text));
        }
        (true, Some("LATEST" | "1.4.0" | "1.3.0")) => {}
        (true, Some(_)) => {
            let text = "The specified platform version does not exist.";
            return Err(Fault::new("PlatformUnknownException", text));
        }
        (_, None) => {}
    }
    if fargate {
        template.platform_version = version.unwrap_or("LATEST").to_owned();
    }
    template.network_configuration = network::checked(call, input, &definition.spec, fargate)?;
    Ok(template)
}

/// Refuses what RunTask and StartTask do not take.
fn check(input: &Value, definition: &TaskDefinition) -> Result<(), Fault> {
    check_tags(input.items("tags"))?;
    if !input.items("volumeConfigurations").is_empty() {
        return Err(Fault::parameter(
            "volumeConfigurations are not supported by this endpoint.",
        ));
    }
    if input.text("startedBy").len() > 128 {
        return Err(Fault::parameter("startedBy takes at most 128 characters."));
    }
    if input.text("group").starts_with("service:") {
        return Err(Fault::parameter("Invalid namespace for group."));
    }
    let overrides = input.get("overrides").cloned().unwrap_or_default();
    for o in overrides.items("containerOverrides") {
        let name = o.text("name");
        if !definition
            .spec
            .containers()
            .iter()
            .any(|c| c.text("name") == name)
        {
            let text =
                format!("Override for container named {name} is not a container in the TaskDefinition.");
            return Err(Fault::parameter(text));
        }
    }
    for constraint in input.items("placementConstraints") {
        if constraint.text("type") == "memberOf"
            && let Err(why) = tripod_plan::ecs::query::Query::parse(constraint.text("expression"))
        {
            return Err(Fault::parameter(format!(
                "placementConstraints: invalid expression: {why}"
            )));
        }
    }
    Ok(())
}

/// The tags that a task begins with.
fn first_tags(
    input: &Value,
    cluster: &EcsCluster,
    definition: &TaskDefinition,
) -> std::collections::BTreeMap<String, String> {
    let mut tags = match input.text("propagateTags") {
        "TASK_DEFINITION" => definition.spec.tags.clone(),
        _ => Default::default(),
    };
    tags.extend(tags_of(input.items("tags"), "key", "value"));
    if input.flag("enableECSManagedTags") == Some(true) {
        tags.insert("aws:ecs:clusterName".into(), cluster.spec.name.clone());
    }
    tags
}

/// Writes tasks that were made.
async fn submit(call: &Call, made: Vec<(Pod, Vec<Write>)>) -> Result<Vec<Pod>, Fault> {
    let mut txn = Txn::new();
    let mut pods = Vec::new();
    for (pod, before) in made {
        for write in &before {
            if let (Write::Create(_), Object::Raw(raw)) = (write, write.object()) {
                let key = Key::new(&*raw.key.resource, &*raw.key.namespace, &*raw.key.name);
                txn = txn.create(key, raw.bytes.clone(), Vec::new());
            }
        }
        txn = txn.insert(&pod);
        pods.push(pod);
    }
    if !pods.is_empty() {
        call.db().submit(txn).await?;
        call.manager.caught_up().await;
    }
    Ok(pods)
}

/// Tasks that an earlier request with the same token made.
fn of_token(call: &Call, cluster: &EcsCluster, token: &str) -> Vec<Arc<Pod>> {
    if token.is_empty() {
        return Vec::new();
    }
    tasks_where(call, cluster, |p| {
        p.ecs().is_some_and(|t| t.client_token == token)
    })
}

pub(super) async fn run(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    let definition = usable_definition(&call, input.text("taskDefinition")).await?;
    let count = input.number("count").unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(Fault::parameter("count must be between 1 and 10."));
    }
    check(&input, &definition)?;
    let template = template(&call, &cluster, &definition, &input)?;
    let token = input.text("clientToken");
    let earlier = of_token(&call, &cluster, token);
    if !earlier.is_empty() {
        let tasks: Value = earlier.iter().map(|p| shown::task(&call, p, true)).collect();
        return Ok(json!({ "tasks": tasks, "failures": [] }));
    }
    let family = format!("family:{}", definition.spec.family);
    let overrides = input.get("overrides").cloned().unwrap_or_default();
    let launch = Launch {
        cluster: &cluster,
        definition: &definition,
        template: &template,
        overrides: &overrides,
        group: input.maybe("group").unwrap_or(&family),
        started_by: input.text("startedBy"),
        service: "",
        tags: first_tags(&input, &cluster, &definition),
        client_token: token,
    };
    let (made, failures) = call.manager.with_view(|view| {
        let (now, mut rng) = (call.now(), Rng::new(rand::random()));
        let (mut made, mut failures, mut placed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (mut pod, before) = make(view, &launch, now, &mut rng);
            if !template.is_fargate() {
                let mut constraints = input.items("placementConstraints").to_vec();
                let own = definition
                    .spec
                    .definition
                    .get("placementConstraints")
                    .and_then(Value::as_array);
                constraints.extend(own.into_iter().flatten().cloned());
                let all = place::instances(view, &cluster, &placed);
                let strategy = input.items("placementStrategy");
                let needs = place::needs_of(&pod);
                match place::choose(&all, &needs, launch.group, &constraints, strategy, &mut rng) {
                    Ok(node) => pod.spec.node_name = node,
                    Err(reason) => {
                        failures.push(reason);
                        continue;
                    }
                }
            }
            placed.push(pod.clone());
            made.push((pod, before));
        }
        (made, failures)
    });
    if made.is_empty() && failures.iter().any(|f| f.starts_with("No Container Instances")) {
        return Err(Fault::parameter(
            "No Container Instances were found in your cluster.",
        ));
    }
    let failures: Vec<Value> = failures
        .into_iter()
        .map(|reason| json!({ "reason": reason }))
        .collect();
    let pods = submit(&call, made).await?;
    let tasks: Value = pods.iter().map(|p| shown::task(&call, p, true)).collect();
    Ok(json!({ "tasks": tasks, "failures": failures }))
}

pub(super) async fn start(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    let definition = usable_definition(&call, input.text("taskDefinition")).await?;
    let wanted = input.texts("containerInstances");
    if wanted.is_empty() || wanted.len() > 10 {
        return Err(Fault::parameter(
            "containerInstances takes 1 to 10 container instances.",
        ));
    }
    check(&input, &definition)?;
    let template = template(&call, &cluster, &definition, &input)?;
    if template.is_fargate() {
        return Err(Fault::parameter(
            "StartTask starts tasks on container instances, not on Fargate.",
        ));
    }
    let family = format!("family:{}", definition.spec.family);
    let overrides = input.get("overrides").cloned().unwrap_or_default();
    let launch = Launch {
        cluster: &cluster,
        definition: &definition,
        template: &template,
        overrides: &overrides,
        group: input.maybe("group").unwrap_or(&family),
        started_by: input.text("startedBy"),
        service: "",
        tags: first_tags(&input, &cluster, &definition),
        client_token: "",
    };
    let (made, failures) = call.manager.with_view(|view| {
        let (now, mut rng) = (call.now(), Rng::new(rand::random()));
        let (mut made, mut failures) = (Vec::new(), Vec::new());
        let all = place::instances(view, &cluster, &[]);
        for name in &wanted {
            let arn = instances::arn(&call, &cluster, last_part(name));
            match all.iter().find(|i| i.id == last_part(name)) {
                None => failures.push(missing(arn)),
                Some(i) if !i.connected => failures.push(json!({ "arn": arn, "reason": "AGENT" })),
                Some(i) => {
                    let (mut pod, before) = make(view, &launch, now, &mut rng);
                    pod.spec.node_name.clone_from(&i.node);
                    made.push((pod, before));
                }
            }
        }
        (made, failures)
    });
    let pods = submit(&call, made).await?;
    let tasks: Value = pods.iter().map(|p| shown::task(&call, p, true)).collect();
    Ok(json!({ "tasks": tasks, "failures": failures }))
}

pub(super) async fn stop(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let pod = find_task(&call, &cluster, input.text("task"))?;
    let reason = input.maybe("reason").unwrap_or("Task stopped by user");
    if reason.len() > 1024 {
        return Err(Fault::parameter("reason takes at most 1024 characters."));
    }
    let now = call.now();
    let gone = || Fault::parameter("The referenced task was not found.");
    let done = call
        .edit(
            &pod.metadata.namespace,
            &pod.metadata.name,
            gone,
            |p: &mut Pod| {
                if p.state.desired < DesiredState::Shutdown {
                    life::stop(p, "UserInitiated", reason, now);
                }
                Ok(())
            },
        )
        .await?;
    Ok(json!({ "task": shown::task(&call, &done.0, false) }))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let names = input.texts("tasks");
    if names.is_empty() {
        return Err(Fault::parameter("Tasks cannot be empty."));
    }
    if names.len() > 100 {
        return Err(Fault::parameter("tasks takes at most 100 tasks."));
    }
    let tags = input.texts("include").iter().any(|i| i == "TAGS");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    // All in one pass: a cluster may have thousands.
    let wanted: HashSet<&str> = names.iter().map(|n| last_part(n)).collect();
    let pods: HashMap<String, Arc<Pod>> = call.manager.with_view(|v| {
        let of_cluster = v.ecs().tasks(&cluster.metadata.name);
        let named = of_cluster.filter_map(|p| Some((p.ecs()?.id.as_str(), p)));
        let named = named.filter(|(id, _)| wanted.contains(id));
        named.map(|(id, p)| (id.to_owned(), p.clone())).collect()
    });
    for name in &names {
        match pods.get(last_part(name)) {
            Some(pod) => found.push(shown::task(&call, pod, tags)),
            None => {
                let arn = call.arn("ecs", &format!("task/{}/{}", cluster.spec.name, last_part(name)));
                failures.push(missing(arn));
            }
        }
    }
    Ok(json!({ "tasks": found, "failures": failures }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let desired = input.maybe("desiredStatus").unwrap_or("RUNNING");
    let service = input.maybe("serviceName").map(last_part);
    if let Some(service) = service
        && super::find_service(&call, &cluster, service)?.is_none()
    {
        return Err(super::no_service());
    }
    let node = match input.maybe("containerInstance") {
        Some(instance) => Some(instances::find(&call, &cluster, instance)?.node),
        None => None,
    };
    let is = |member: &str, of: fn(&tripod_model::ecs::EcsTask) -> &str, pod: &Pod| {
        input
            .maybe(member)
            .is_none_or(|wanted| pod.ecs().is_some_and(|t| of(t) == wanted))
    };
    let tasks = tasks_where(&call, &cluster, |p| {
        life::desired(p) == desired
            && service.is_none_or(|name| p.ecs().is_some_and(|t| t.service == name))
            && node.as_ref().is_none_or(|name| p.spec.node_name == *name)
            && is("startedBy", |t| &t.started_by, p)
            && is("launchType", |t| &t.launch_type, p)
            && input.maybe("family").is_none_or(|f| {
                let family = |t: &tripod_model::ecs::EcsTask| {
                    last_part(&t.definition)
                        .rsplit_once(':')
                        .is_some_and(|(name, _)| name == f)
                };
                p.ecs().is_some_and(family)
            })
    });
    listed_as(&input, "taskArns", tasks, |p| task_arn(p), 100)
}
