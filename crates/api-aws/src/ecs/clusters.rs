//! Clusters.

use serde_json::{Value, json};
use tripod_engine::TypedTxn as _;
use tripod_engine::aws::uid;
use tripod_model::ecs::{EcsCluster, EcsClusterSpec, cluster_namespace};
use tripod_model::object::ObjectMeta;
use tripod_plan::ecs::place;
use tripod_store::{Key, Txn};

use super::{check_tags, cluster, cluster_arn, last_part, listed, missing, named_cluster, providers};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tag_list, tags_of};

/// Refuses a name that cannot be one.
fn check_name(name: &str) -> Result<(), Fault> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(letter) {
        let text = "Invalid identifier: Identifier is for a cluster name; clusterName takes up to 255 letters, digits, \
                    hyphens and underscores.";
        return Err(Fault::parameter(text));
    }
    Ok(())
}

fn check_settings(settings: &[Value]) -> Result<(), Fault> {
    for setting in settings {
        let known = setting.text("name") == "containerInsights"
            && matches!(setting.text("value"), "enabled" | "disabled" | "enhanced");
        if !known {
            let text = format!(
                "Invalid cluster setting: settings takes containerInsights with enabled, disabled or enhanced, not {} \
                 with {}.",
                setting.text("name"),
                setting.text("value")
            );
            return Err(Fault::parameter(text));
        }
    }
    Ok(())
}

fn default_settings() -> Vec<Value> {
    vec![json!({ "name": "containerInsights", "value": "disabled" })]
}

/// The cluster as answers have it.
pub(super) fn shown(call: &Call, cluster: &EcsCluster, include: &[String]) -> Value {
    let s = &cluster.spec;
    let (instances, running, pending, services) = call.manager.with_view(|v| {
        let namespace = &cluster.metadata.name;
        let (mut running, mut pending) = (0, 0);
        for pod in v.ecs().tasks(namespace) {
            match tripod_plan::ecs::state(pod).last_status.as_str() {
                "RUNNING" | "DEACTIVATING" => running += 1,
                "STOPPED" => {}
                _ => pending += 1,
            }
        }
        let services = v
            .ecs()
            .services(namespace)
            .filter(|s| s.status.state == "ACTIVE")
            .count();
        let instances = v.nodes().filter(|n| place::takes_part(cluster, n)).count();
        (instances, running, pending, services)
    });
    let with = |what: &str| include.iter().any(|i| i == what);
    let mut out = json!({
        "clusterArn": cluster_arn(call, &s.name), "clusterName": s.name,
        "status": if s.inactive { "INACTIVE" } else { "ACTIVE" },
        "registeredContainerInstancesCount": if s.inactive { 0 } else { instances },
        "runningTasksCount": running, "pendingTasksCount": pending, "activeServicesCount": services,
        "statistics": [], "tags": [], "settings": [], "capacityProviders": s.capacity_providers,
        "defaultCapacityProviderStrategy": s.default_strategy,
        "serviceConnectDefaults": s.service_connect_defaults,
    });
    if with("TAGS") {
        out["tags"] = tag_list(&s.tags, "key", "value");
    }
    if with("SETTINGS") {
        out["settings"] = s.settings.clone().into();
    }
    if with("CONFIGURATIONS") {
        out["configuration"] = s.configuration.clone().into();
    }
    if with("STATISTICS") {
        let pairs = [
            ("runningEC2TasksCount", 0),
            ("runningFargateTasksCount", running),
            ("pendingEC2TasksCount", 0),
            ("pendingFargateTasksCount", pending),
        ];
        out["statistics"] = pairs
            .iter()
            .map(|(name, n)| json!({ "name": name, "value": n.to_string() }))
            .collect();
    }
    out
}

fn whole(call: &Call, cluster: &EcsCluster) -> Value {
    let all = ["TAGS", "SETTINGS", "CONFIGURATIONS"].map(str::to_owned);
    json!({ "cluster": shown(call, cluster, &all) })
}

/// The namespace object of a cluster, for those who look at the tasks as pods.
fn namespace_bytes(call: &Call, cluster: &EcsCluster) -> Vec<u8> {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": cluster.metadata.name, "uid": uid(), "creationTimestamp": call.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "labels": { "kubernetes.io/metadata.name": cluster.metadata.name },
            "annotations": { "tripod.dev/name": format!("{}/{}", cluster.spec.region, cluster.spec.name) },
        },
        "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
    });
    object.to_string().into_bytes()
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.maybe("clusterName").unwrap_or("default");
    check_name(name)?;
    check_settings(input.items("settings"))?;
    check_tags(input.items("tags"))?;
    providers::check_known(&call, &input.texts("capacityProviders"))?;
    providers::check_strategy(&call, input.items("defaultCapacityProviderStrategy"))?;
    let namespace = cluster_namespace(&call.region, name);
    let settings = match input.items("settings") {
        [] => default_settings(),
        list => list.to_vec(),
    };
    let spec = EcsClusterSpec {
        region: call.region.clone(),
        account: call.account().to_owned(),
        name: name.to_owned(),
        settings,
        configuration: input.member("configuration").cloned(),
        capacity_providers: input.texts("capacityProviders"),
        default_strategy: input.items("defaultCapacityProviderStrategy").to_vec(),
        service_connect_defaults: input.member("serviceConnectDefaults").cloned(),
        tags: tags_of(input.items("tags"), "key", "value"),
        ..EcsClusterSpec::default()
    };
    loop {
        let state = call.state();
        match state.get::<EcsCluster>("", &namespace)? {
            Some(there) if !there.spec.inactive => return Ok(whole(&call, &there)),
            Some(mut gone) => {
                gone.spec = spec.clone();
                match call.db().update(&gone).await {
                    Ok(cluster) => return Ok(whole(&call, &cluster)),
                    Err(e) if e.kind == tripod_model::ErrorKind::OutOfSequence => {}
                    Err(e) => return Err(e.into()),
                }
            }
            None => {
                let metadata = ObjectMeta {
                    name: namespace.clone(),
                    uid: uid(),
                    creation_timestamp: Some(call.now()),
                    ..ObjectMeta::default()
                };
                let cluster = EcsCluster {
                    metadata,
                    spec: spec.clone(),
                };
                let key = Key::new("namespaces", "", namespace.as_str());
                let txn =
                    Txn::new()
                        .insert(&cluster)
                        .create(key, namespace_bytes(&call, &cluster), Vec::new());
                match call.db().submit(txn).await {
                    Ok(_) => return Ok(whole(&call, &cluster)),
                    Err(e) if e.kind == tripod_model::ErrorKind::OutOfSequence => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    call.manager.caught_up().await;
    let mut names = input.texts("clusters");
    if names.is_empty() {
        names.push("default".into());
    }
    let include = input.texts("include");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    let state = call.state();
    for name in &names {
        let short = last_part(name);
        match state.get::<EcsCluster>("", &cluster_namespace(&call.region, short))? {
            Some(cluster) => found.push(shown(&call, &cluster, &include)),
            None => failures.push(missing(cluster_arn(&call, short))),
        }
    }
    Ok(json!({ "clusters": found, "failures": failures }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let mut clusters = call.state().list::<EcsCluster>(None)?;
    clusters.retain(|c| !c.spec.inactive && c.spec.region == call.region);
    let mut arns: Vec<String> = clusters
        .iter()
        .map(|c| cluster_arn(&call, &c.spec.name))
        .collect();
    arns.sort();
    listed(&input, "clusterArns", arns, 100)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let found = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let namespace = found.metadata.name.clone();
    let (services, tasks, instances) = call.manager.with_view(|v| {
        let services = v.ecs().services(&namespace).any(|s| s.status.state != "INACTIVE");
        let live = |p: &tripod_model::pod::Pod| tripod_plan::ecs::state(p).stopped_at.is_none();
        let tasks = v.ecs().tasks(&namespace).any(|p| live(p));
        (services, tasks, v.nodes().any(|n| place::takes_part(&found, n)))
    });
    let refused = |code: &str, what: &str| {
        let text = format!("The Cluster cannot be deleted while {what}.");
        Err(Fault::new(format!("ClusterContains{code}Exception"), text))
    };
    if services {
        return refused("Services", "Services are active");
    }
    if tasks {
        return refused("Tasks", "Tasks are active");
    }
    if instances {
        return refused("ContainerInstances", "Container Instances are active or draining");
    }
    let done = call
        .edit("", &namespace, super::no_cluster, |c: &mut EcsCluster| {
            c.spec.inactive = true;
            Ok(())
        })
        .await?;
    Ok(json!({ "cluster": shown(&call, &done.0, &["SETTINGS".to_owned()]) }))
}

async fn change(call: &Call, input: &Value, change: impl Fn(&mut EcsClusterSpec) + Send + Sync) -> Reply {
    let found = named_cluster(call, input.text("cluster"))?;
    let done = call
        .edit(
            "",
            &found.metadata.name,
            super::no_cluster,
            |c: &mut EcsCluster| {
                change(&mut c.spec);
                Ok(())
            },
        )
        .await?;
    Ok(whole(call, &done.0))
}

fn set(spec: &mut EcsClusterSpec, settings: &[Value]) {
    for new in settings {
        spec.settings.retain(|s| s.text("name") != new.text("name"));
        spec.settings.push(new.clone());
    }
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    check_settings(input.items("settings"))?;
    change(&call, &input, |c| {
        set(c, input.items("settings"));
        if let Some(configuration) = input.member("configuration") {
            c.configuration = Some(configuration.clone());
        }
        if let Some(defaults) = input.member("serviceConnectDefaults") {
            c.service_connect_defaults = Some(defaults.clone());
        }
    })
    .await
}

pub(super) async fn update_settings(call: Call, input: Value) -> Reply {
    check_settings(input.items("settings"))?;
    change(&call, &input, |c| set(c, input.items("settings"))).await
}

pub(super) async fn put_providers(call: Call, input: Value) -> Reply {
    providers::check_known(&call, &input.texts("capacityProviders"))?;
    providers::check_strategy(&call, input.items("defaultCapacityProviderStrategy"))?;
    let listed = input.texts("capacityProviders");
    let strategy = input.items("defaultCapacityProviderStrategy");
    if let Some(other) = strategy
        .iter()
        .find(|s| !listed.iter().any(|l| l == s.text("capacityProvider")))
    {
        let text = format!(
            "The specified capacity provider '{}' of defaultCapacityProviderStrategy is not associated with the cluster.",
            other.text("capacityProvider")
        );
        return Err(Fault::parameter(text));
    }
    change(&call, &input, |c| {
        c.capacity_providers.clone_from(&listed);
        c.default_strategy = strategy.to_vec();
    })
    .await
}
