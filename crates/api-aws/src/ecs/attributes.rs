//! Custom attributes of container instances.

use serde_json::{Value, json};
use tripod_model::ecs::{EcsAttribute, EcsCluster};
use tripod_plan::ecs::place;

use super::{cluster, instances, no_cluster};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, page};

/// The attributes of a request, with the nodes that they are of.
fn wanted(call: &Call, cluster: &EcsCluster, input: &Value) -> Result<Vec<EcsAttribute>, Fault> {
    let mut out = Vec::new();
    for a in input.items("attributes") {
        let name = a.text("name");
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_./\\".contains(c);
        if name.is_empty() || name.len() > 128 || !name.chars().all(letter) || name.starts_with("ecs.") {
            return Err(Fault::parameter(format!(
                "attributes: '{name}' cannot be the name of an attribute."
            )));
        }
        let instance = instances::find(call, cluster, a.text("targetId")).map_err(|_| {
            Fault::new(
                "TargetNotFoundException",
                format!("Unable to find target: {}", a.text("targetId")),
            )
        })?;
        out.push(EcsAttribute {
            name: name.to_owned(),
            value: a.maybe("value").map(str::to_owned),
            node: instance.node,
        });
    }
    Ok(out)
}

pub(super) async fn put(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let wanted = wanted(&call, &cluster, &input)?;
    call.edit("", &cluster.metadata.name, no_cluster, |c: &mut EcsCluster| {
        for a in &wanted {
            c.spec
                .attributes
                .retain(|o| (&o.name, &o.node) != (&a.name, &a.node));
            c.spec.attributes.push(a.clone());
        }
        Ok(())
    })
    .await?;
    Ok(json!({ "attributes": input.items("attributes") }))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let wanted = wanted(&call, &cluster, &input)?;
    call.edit("", &cluster.metadata.name, no_cluster, |c: &mut EcsCluster| {
        for a in &wanted {
            c.spec
                .attributes
                .retain(|o| (&o.name, &o.node) != (&a.name, &a.node));
        }
        Ok(())
    })
    .await?;
    Ok(json!({ "attributes": input.items("attributes") }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let mut items: Vec<Value> = call.manager.with_view(|v| {
        let nodes = v.nodes().filter(|n| place::takes_part(&cluster, n));
        let of = nodes.flat_map(|n| {
            let target = instances::arn(&call, &cluster, &place::instance_id(&cluster, n));
            place::attributes(&cluster, n)
                .into_iter()
                .map(move |(name, value)| dense(json!({ "name": name, "value": value, "targetId": target })))
        });
        of.collect()
    });
    items.retain(|a| {
        input.maybe("attributeName").is_none_or(|n| a.text("name") == n)
            && input.maybe("attributeValue").is_none_or(|n| a.text("value") == n)
    });
    let size = usize::try_from(input.number("maxResults").unwrap_or(100)).unwrap_or(100);
    let (items, next) =
        page(items, input.maybe("nextToken"), size).ok_or_else(|| Fault::parameter("Invalid token"))?;
    Ok(json!({ "attributes": items, "nextToken": next }))
}
