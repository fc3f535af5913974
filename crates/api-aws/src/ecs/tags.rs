//! Tags of ECS's resources.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tripod_model::aws::CapacityProvider;
use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition, object_name};
use tripod_model::pod::Pod;

use super::{
    check_tags, find_definition, find_service, find_task, instances, last_part, named_cluster, no_service,
};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tag_list, tags_of};

type Tags = BTreeMap<String, String>;

/// Reads the tags of a resource, changed if they are to be.
async fn with_tags(call: &Call, arn: &str, change: impl Fn(&mut Tags) + Send + Sync) -> Result<Tags, Fault> {
    call.manager.caught_up().await;
    let invalid = || Fault::parameter(format!("Invalid arn: {arn}"));
    let prefix = call.arn("ecs", "");
    let Some(rest) = arn.strip_prefix(&prefix) else {
        // A service of another account or region is not there.
        let elsewhere = arn.starts_with("arn:aws:ecs:") && arn.contains(":service/");
        return Err(if elsewhere { no_service() } else { invalid() });
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let gone = || {
        Fault::new(
            "ResourceNotFoundException",
            format!("The specified resource is not there: {arn}"),
        )
    };
    let tags = match parts[..] {
        ["cluster", name] => {
            let cluster = named_cluster(call, name)?;
            let done = call.edit(
                "",
                &cluster.metadata.name,
                super::no_cluster,
                |c: &mut EcsCluster| {
                    change(&mut c.spec.tags);
                    Ok(c.spec.tags.clone())
                },
            );
            done.await?.1
        }
        ["task-definition", _] => {
            let definition = find_definition(call, arn).ok_or_else(gone)?;
            let done = call.edit("", &definition.metadata.name, gone, |d: &mut TaskDefinition| {
                change(&mut d.spec.tags);
                Ok(d.spec.tags.clone())
            });
            done.await?.1
        }
        ["service", _] => return Err(no_service()),
        ["service", cluster, name] => {
            let cluster = named_cluster(call, cluster)?;
            let service = find_service(call, &cluster, name)?.ok_or_else(no_service)?;
            let done = call.edit(
                &cluster.metadata.name,
                &service.metadata.name,
                no_service,
                |s: &mut EcsService| {
                    change(&mut s.spec.tags);
                    Ok(s.spec.tags.clone())
                },
            );
            done.await?.1
        }
        ["task", cluster, id] => {
            let cluster = named_cluster(call, cluster)?;
            let pod = find_task(call, &cluster, id)?;
            let done = call.edit(
                &pod.metadata.namespace,
                &pod.metadata.name,
                gone,
                |p: &mut Pod| {
                    let tags = &mut p.state.ecs.get_or_insert_default().tags;
                    change(tags);
                    Ok(tags.clone())
                },
            );
            done.await?.1
        }
        ["container-instance", cluster, id] => {
            let cluster = named_cluster(call, cluster)?;
            let node = instances::find(call, &cluster, id)?.node;
            let done = call.edit(
                "",
                &cluster.metadata.name,
                super::no_cluster,
                |c: &mut EcsCluster| {
                    let mut tags = c
                        .spec
                        .instances
                        .get(&node)
                        .map(|i| i.tags.clone())
                        .unwrap_or_default();
                    let before = tags.clone();
                    change(&mut tags);
                    if tags != before {
                        c.spec
                            .instances
                            .entry(node.clone())
                            .or_default()
                            .tags
                            .clone_from(&tags);
                    }
                    Ok(tags)
                },
            );
            done.await?.1
        }
        ["capacity-provider", name] => {
            let key = object_name(&format!("capacity-provider/{}", call.region), last_part(name));
            let done = call.edit("", &key, gone, |p: &mut CapacityProvider| {
                change(&mut p.spec.tags);
                Ok(p.spec.tags.clone())
            });
            done.await?.1
        }
        _ => return Err(invalid()),
    };
    Ok(tags)
}

/// The tags of a resource as they are; none of one that is not there.
pub(crate) fn of_arn(call: &Call, arn: &str) -> Tags {
    let parts: Vec<&str> = arn.split(':').nth(5).unwrap_or_default().split('/').collect();
    let cluster = |name: &str| named_cluster(call, name).ok();
    let tags = match parts[..] {
        ["cluster", name] => cluster(name).map(|c| c.spec.tags),
        ["service", name, service] => {
            let service = cluster(name).and_then(|c| find_service(call, &c, service).ok().flatten());
            service.map(|s| s.spec.tags)
        }
        ["task", name, id] => {
            let pod = cluster(name).and_then(|c| find_task(call, &c, id).ok());
            pod.and_then(|p| p.state.ecs.as_ref().map(|s| s.tags.clone()))
        }
        ["task-definition", _] => find_definition(call, arn).map(|d| d.spec.tags.clone()),
        _ => None,
    };
    tags.unwrap_or_default()
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    check_tags(input.items("tags"))?;
    let tags = tags_of(input.items("tags"), "key", "value");
    with_tags(&call, input.text("resourceArn"), |t| t.extend(tags.clone())).await?;
    Ok(json!({}))
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let keys = input.texts("tagKeys");
    with_tags(&call, input.text("resourceArn"), |t| {
        t.retain(|k, _| !keys.contains(k));
    })
    .await?;
    Ok(json!({}))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let tags = with_tags(&call, input.text("resourceArn"), |_| {}).await?;
    Ok(json!({ "tags": tag_list(&tags, "key", "value") }))
}
