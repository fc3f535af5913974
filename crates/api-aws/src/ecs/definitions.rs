//! Task definitions: told, listed, taken out of use.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tripod_model::ecs::TaskDefinition;

use super::{find_definition, listed};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, some, tag_list};

/// A definition as answers have it.
pub(super) fn shown(definition: &TaskDefinition) -> Value {
    let s = &definition.spec;
    let mut out = Map::new();
    out.insert("taskDefinitionArn".into(), s.arn().into());
    out.insert("family".into(), s.family.as_str().into());
    out.insert("revision".into(), s.revision.into());
    out.insert("status".into(), s.status.as_str().into());
    out.extend(s.definition.clone());
    out.insert("registeredAt".into(), epoch_of(s.registered_at));
    out.insert("registeredBy".into(), some(&s.registered_by));
    out.insert("deregisteredAt".into(), epoch_of(s.deregistered_at));
    out.insert("deleteRequestedAt".into(), epoch_of(s.delete_requested_at));
    Value::Object(out)
}

fn unknown() -> Fault {
    Fault::client("Unable to describe task definition.")
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    call.manager.caught_up().await;
    let definition = find_definition(&call, input.text("taskDefinition")).ok_or_else(unknown)?;
    let mut out = json!({ "taskDefinition": shown(&definition) });
    if input.texts("include").iter().any(|i| i == "TAGS") {
        out["tags"] = tag_list(&definition.spec.tags, "key", "value");
    }
    Ok(out)
}

async fn of_region(call: &Call) -> Vec<Arc<TaskDefinition>> {
    call.manager.caught_up().await;
    call.manager.with_view(|v| {
        v.ecs()
            .definitions()
            .filter(|d| d.spec.region == call.region)
            .cloned()
            .collect()
    })
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let status = input.maybe("status").unwrap_or("ACTIVE");
    let family = input.maybe("familyPrefix");
    let mut found = of_region(&call).await;
    found.retain(|d| d.spec.status == status && family.is_none_or(|f| d.spec.family == f));
    found.sort_by(|a, b| (&a.spec.family, a.spec.revision).cmp(&(&b.spec.family, b.spec.revision)));
    if input.text("sort") == "DESC" {
        found.reverse();
    }
    let arns = found.iter().map(|d| d.spec.arn()).collect();
    listed(&input, "taskDefinitionArns", arns, 100)
}

pub(super) async fn families(call: Call, input: Value) -> Reply {
    let status = input.maybe("status").unwrap_or("ACTIVE");
    let prefix = input.text("familyPrefix");
    let found = of_region(&call).await;
    let active: BTreeSet<&str> = found
        .iter()
        .filter(|d| d.spec.status == "ACTIVE")
        .map(|d| d.spec.family.as_str())
        .collect();
    let all: BTreeSet<&str> = found.iter().map(|d| d.spec.family.as_str()).collect();
    let wanted = all.into_iter().filter(|f| match status {
        "ALL" => true,
        "INACTIVE" => !active.contains(f),
        _ => active.contains(f),
    });
    let names = wanted
        .filter(|f| f.starts_with(prefix))
        .map(str::to_owned)
        .collect();
    listed(&input, "families", names, 100)
}

/// The revision that a request names; without a revision it is refused.
fn exact(call: &Call, named: &str) -> Result<Arc<TaskDefinition>, Fault> {
    if !super::last_part(named).contains(':') {
        return Err(Fault::client("Revision is missing."));
    }
    find_definition(call, named).ok_or_else(|| Fault::client("The specified task definition does not exist."))
}

pub(super) async fn deregister(call: Call, input: Value) -> Reply {
    call.manager.caught_up().await;
    let definition = exact(&call, input.text("taskDefinition"))?;
    let now = call.now();
    let done = call
        .edit(
            "",
            &definition.metadata.name,
            unknown,
            |d: &mut TaskDefinition| {
                if d.spec.status == "ACTIVE" {
                    d.spec.status = "INACTIVE".into();
                    d.spec.deregistered_at = Some(now);
                }
                Ok(())
            },
        )
        .await?;
    Ok(json!({ "taskDefinition": shown(&done.0) }))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    call.manager.caught_up().await;
    let names = input.texts("taskDefinitions");
    if names.is_empty() || names.len() > 10 {
        return Err(Fault::parameter("taskDefinitions takes 1 to 10 task definitions"));
    }
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    let now = call.now();
    for name in &names {
        let Ok(definition) = exact(&call, name) else {
            let reason = if super::last_part(name).contains(':') {
                "The specified task definition does not exist. Specify a valid account, family, revision and try again."
            } else {
                "The specified task definition identifier is invalid. Specify a valid name or ARN and try again."
            };
            failures.push(json!({ "arn": name, "reason": reason }));
            continue;
        };
        if definition.spec.status == "ACTIVE" {
            failures.push(json!({ "arn": definition.spec.arn(),
                "reason": "The specified task definition is still in ACTIVE status. Please deregister the target and try again." }));
            continue;
        }
        let changed = call
            .edit(
                "",
                &definition.metadata.name,
                unknown,
                |d: &mut TaskDefinition| {
                    d.spec.status = "DELETE_IN_PROGRESS".into();
                    d.spec.delete_requested_at = d.spec.delete_requested_at.or(Some(now));
                    Ok(())
                },
            )
            .await?;
        done.push(shown(&changed.0));
    }
    Ok(json!({ "taskDefinitions": done, "failures": failures }))
}
