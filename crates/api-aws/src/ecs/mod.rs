//! Amazon ECS.

mod attributes;
mod clusters;
mod definitions;
mod deployments;
mod instances;
mod network;
mod protection;
mod providers;
mod register;
mod services;
mod settings;
mod shown;
mod tags;
mod tasks;
mod update;
mod validate;

use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition, cluster_namespace, service_name};
use tripod_model::pod::Pod;

use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, page};

pub(crate) use shown::zone;
pub(crate) use tags::of_arn as tags_of_arn;

crate::operations! {
    CreateCluster => clusters::create;
    DescribeClusters => clusters::describe, "no attachments";
    ListClusters => clusters::list;
    DeleteCluster => clusters::delete;
    UpdateCluster => clusters::update;
    UpdateClusterSettings => clusters::update_settings;
    PutClusterCapacityProviders => clusters::put_providers;
    RegisterTaskDefinition => register::register, "no FireLens, proxies, GPUs, FSx or S3 volumes: refused by name";
    DescribeTaskDefinition => definitions::describe;
    ListTaskDefinitions => definitions::list;
    ListTaskDefinitionFamilies => definitions::families;
    DeregisterTaskDefinition => definitions::deregister;
    DeleteTaskDefinitions => definitions::delete;
    RunTask => tasks::run, "no EBS volumes";
    StartTask => tasks::start, "no EBS volumes";
    StopTask => tasks::stop;
    DescribeTasks => tasks::describe;
    ListTasks => tasks::list;
    GetTaskProtection => protection::get;
    UpdateTaskProtection => protection::update;
    CreateService => services::create, "rolling deployments; no load balancers, registries, Service Connect or EBS volumes: refused by name";
    DescribeServices => services::describe;
    ListServices => services::list;
    ListServicesByNamespace => services::list_by_namespace, "there are no namespaces of Cloud Map";
    UpdateService => update::update, "as CreateService";
    DeleteService => services::delete;
    DescribeServiceDeployments => deployments::describe;
    ListServiceDeployments => deployments::list;
    StopServiceDeployment => deployments::stop;
    DescribeServiceRevisions => deployments::revisions;
    TagResource => tags::tag;
    UntagResource => tags::untag;
    ListTagsForResource => tags::list;
    ListAccountSettings => settings::list;
    PutAccountSetting => settings::put;
    PutAccountSettingDefault => settings::put_default;
    DeleteAccountSetting => settings::delete;
    PutAttributes => attributes::put;
    DeleteAttributes => attributes::delete;
    ListAttributes => attributes::list;
    ListContainerInstances => instances::list;
    DescribeContainerInstances => instances::describe;
    RegisterContainerInstance => instances::register, "the identity document's `instanceId` names a node";
    DeregisterContainerInstance => instances::deregister;
    UpdateContainerInstancesState => instances::update_state;
    DescribeCapacityProviders => providers::describe;
    CreateCapacityProvider => providers::create, "kept and told; there are no Auto Scaling groups";
    UpdateCapacityProvider => providers::update;
    DeleteCapacityProvider => providers::delete;
    ExecuteCommand => execute_command, "refused: TargetNotConnectedException";
}

/// `execute-command` needs a session service that is not there.
async fn execute_command(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    find_task(&call, &cluster, input.text("task"))?;
    let text = "The execute command failed: ExecuteCommand is not implemented by this endpoint. Use docker exec or \
                kubectl exec on the task's containers.";
    Err(Fault::new("TargetNotConnectedException", text))
}

/// The last part of an ARN, or the text itself.
pub(crate) fn last_part(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

fn no_cluster() -> Fault {
    Fault::new("ClusterNotFoundException", "Cluster not found.")
}

/// The active cluster that a request names; `default` when it names none.
fn cluster(call: &Call, input: &Value) -> Result<EcsCluster, Fault> {
    named_cluster(call, input.maybe("cluster").unwrap_or("default"))
}

fn named_cluster(call: &Call, name: &str) -> Result<EcsCluster, Fault> {
    let name = if name.is_empty() {
        "default"
    } else {
        last_part(name)
    };
    let cluster = call
        .state()
        .get::<EcsCluster>("", &cluster_namespace(&call.region, name))?;
    cluster
        .filter(|c| !c.spec.inactive && c.spec.name == name)
        .ok_or_else(no_cluster)
}

fn cluster_arn(call: &Call, name: &str) -> String {
    call.arn("ecs", &format!("cluster/{name}"))
}

/// `arn:…:task/CLUSTER/ID`.
pub(crate) fn task_arn(pod: &Pod) -> String {
    pod.ecs().map_or_else(String::new, |t| {
        format!(
            "arn:aws:ecs:{}:{}:task/{}/{}",
            t.region, t.account, t.cluster, t.id
        )
    })
}

/// The tasks of a cluster, oldest first.
fn tasks_in(call: &Call, cluster: &EcsCluster) -> Vec<Arc<Pod>> {
    tasks_where(call, cluster, |_| true)
}

/// The tasks of a cluster that are asked for, oldest first.
fn tasks_where(call: &Call, cluster: &EcsCluster, is_wanted: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
    let mut tasks: Vec<Arc<Pod>> = call.manager.with_view(|v| {
        let all = v.ecs().tasks(&cluster.metadata.name);
        all.filter(|p| is_wanted(p)).cloned().collect()
    });
    tasks.sort_by(|a, b| {
        let (a, b) = (&a.metadata, &b.metadata);
        (a.creation_timestamp, &a.name).cmp(&(b.creation_timestamp, &b.name))
    });
    tasks
}

/// A task by identifier or ARN.
fn find_task(call: &Call, cluster: &EcsCluster, named: &str) -> Result<Arc<Pod>, Fault> {
    let id = last_part(named);
    let found = call.manager.with_view(|v| {
        let mut tasks = v.ecs().tasks(&cluster.metadata.name);
        tasks.find(|p| p.ecs().is_some_and(|t| t.id == id)).cloned()
    });
    found.ok_or_else(|| Fault::parameter("The referenced task was not found."))
}

/// A service by name or ARN.
fn find_service(call: &Call, cluster: &EcsCluster, named: &str) -> Result<Option<EcsService>, Fault> {
    let name = last_part(named);
    let service = call
        .state()
        .get::<EcsService>(&cluster.metadata.name, &service_name(name))?;
    Ok(service.filter(|s| s.spec.name == name))
}

fn no_service() -> Fault {
    Fault::new("ServiceNotFoundException", "Service not found.")
}

/// A revision that a request names by ARN, `family:revision`, or `family` (the latest active one).
fn find_definition(call: &Call, named: &str) -> Option<Arc<TaskDefinition>> {
    let short = last_part(named);
    call.manager.with_view(|v| match short.rsplit_once(':') {
        Some((family, revision)) => {
            let arn = call.arn("ecs", &format!("task-definition/{family}:{revision}"));
            v.ecs().definition(&arn).cloned()
        }
        None => {
            let of_family = v.ecs().definitions().filter(|d| {
                d.spec.family == short && d.spec.region == call.region && d.spec.status == "ACTIVE"
            });
            of_family.max_by_key(|d| d.spec.revision).cloned()
        }
    })
}

/// The ARN of the revision that a request means, whether there is one or not.
pub(crate) fn definition_arn(call: &Call, named: &str) -> String {
    if named.starts_with("arn:") && named.rsplit('/').next().is_some_and(|n| n.contains(':')) {
        return named.to_owned();
    }
    let short = match find_definition(call, named) {
        Some(d) => format!("{}:{}", d.spec.family, d.spec.revision),
        None => last_part(named).to_owned(),
    };
    call.arn("ecs", &format!("task-definition/{short}"))
}

/// A definition from which tasks are to be made.
async fn usable_definition(call: &Call, named: &str) -> Result<Arc<TaskDefinition>, Fault> {
    call.manager.caught_up().await;
    let definition =
        find_definition(call, named).ok_or_else(|| Fault::client("TaskDefinition not found."))?;
    match definition.spec.status.as_str() {
        "ACTIVE" => Ok(definition),
        _ => Err(Fault::client("TaskDefinition is inactive")),
    }
}

/// A page of ARNs.
fn listed(input: &Value, member: &str, items: Vec<String>, most: usize) -> Reply {
    listed_as(input, member, items, String::clone, most)
}

/// A page of a list, of which only the items on the page are written.
fn listed_as<T>(
    input: &Value,
    member: &str,
    items: Vec<T>,
    write: impl Fn(&T) -> String,
    most: usize,
) -> Reply {
    let size = input
        .number("maxResults")
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(most);
    if !(1..=100).contains(&size) {
        return Err(Fault::parameter("maxResults must be between 1 and 100"));
    }
    let (items, next) =
        page(items, input.maybe("nextToken"), size).ok_or_else(|| Fault::parameter("Invalid token"))?;
    let items: Vec<String> = items.iter().map(write).collect();
    Ok(json!({ member: items, "nextToken": next }))
}

/// `failures` entry of what is not there.
fn missing(arn: String) -> Value {
    json!({ "arn": arn, "reason": "MISSING" })
}

/// Refuses more or other tags than there may be.
fn check_tags(list: &[Value]) -> Result<(), Fault> {
    if list.len() > 50 {
        return Err(Fault::parameter("tags: at most 50 tags are allowed"));
    }
    for tag in list {
        let key = tag.text("key");
        if key.is_empty() || key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Fault::parameter(format!(
                "tags: '{key}' cannot be the key of a tag"
            )));
        }
    }
    Ok(())
}
