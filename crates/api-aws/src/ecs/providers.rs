//! Capacity providers: FARGATE, FARGATE_SPOT, and the user's own.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{CapacityProvider, CapacityProviderSpec};
use tripod_model::ecs::{EcsCluster, object_name};

use super::{last_part, missing};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, page, tag_list, tags_of};

/// Those that are always there.
const BUILT_IN: [&str; 2] = ["FARGATE", "FARGATE_SPOT"];

fn object(region: &str, name: &str) -> String {
    object_name(&format!("capacity-provider/{region}"), name)
}

fn arn(call: &Call, name: &str) -> String {
    call.arn("ecs", &format!("capacity-provider/{name}"))
}

fn find(call: &Call, name: &str) -> Result<Option<CapacityProvider>, Fault> {
    Ok(call
        .state()
        .get::<CapacityProvider>("", &object(&call.region, last_part(name)))?)
}

fn built_in(call: &Call, name: &str) -> Value {
    json!({ "capacityProviderArn": arn(call, name), "name": name, "status": "ACTIVE", "tags": [],
            "type": name })
}

fn shown(call: &Call, provider: &CapacityProvider, tags: bool) -> Value {
    let tags = if tags {
        tag_list(&provider.spec.tags, "key", "value")
    } else {
        json!([])
    };
    json!({
        "capacityProviderArn": arn(call, &provider.spec.name), "name": provider.spec.name, "status": "ACTIVE",
        "autoScalingGroupProvider": provider.spec.group, "tags": tags, "type": "EC2_AUTOSCALING",
    })
}

/// What a request says of an Auto Scaling group, over what was there, with the API's defaults.
fn completed(before: &Value, change: &Value) -> Value {
    let mut out = before.as_object().cloned().unwrap_or_default();
    let scaling = |v: &Value| {
        v.get("managedScaling")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let mut managed = scaling(before);
    out.extend(change.as_object().cloned().unwrap_or_default());
    managed.extend(scaling(change));
    let defaults = [
        ("status", json!("DISABLED")),
        ("targetCapacity", json!(100)),
        ("minimumScalingStepSize", json!(1)),
        ("maximumScalingStepSize", json!(10000)),
        ("instanceWarmupPeriod", json!(300)),
    ];
    if !managed.is_empty() {
        for (member, value) in defaults {
            managed.entry(member).or_insert(value);
        }
        out.insert("managedScaling".into(), managed.into());
    }
    out.entry("managedTerminationProtection")
        .or_insert_with(|| "DISABLED".into());
    out.into()
}

/// Refuses names of providers that are not there.
pub(super) fn check_known(call: &Call, names: &[String]) -> Result<(), Fault> {
    for name in names {
        if !BUILT_IN.contains(&name.as_str()) && find(call, name)?.is_none() {
            let text = format!("The specified capacity provider '{name}' was not found.");
            return Err(Fault::parameter(text));
        }
    }
    Ok(())
}

/// Refuses a strategy that cannot be.
pub(super) fn check_strategy(call: &Call, strategy: &[Value]) -> Result<(), Fault> {
    let names: Vec<String> = strategy
        .iter()
        .map(|s| s.text("capacityProvider").to_owned())
        .collect();
    check_known(call, &names)?;
    let fargate = names.iter().filter(|n| n.starts_with("FARGATE")).count();
    if fargate > 0 && fargate < names.len() {
        let text = "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups \
                    and Fargate providers. Specify one or the other and try again.";
        return Err(Fault::parameter(text));
    }
    if strategy
        .iter()
        .filter(|s| s.number("base").unwrap_or(0) > 0)
        .count()
        > 1
    {
        let text = "Only one item in a capacityProviderStrategy can have a base above 0.";
        return Err(Fault::parameter(text));
    }
    if !strategy.is_empty() && strategy.iter().all(|s| s.number("weight") == Some(0)) {
        let text = "At least one item of a capacityProviderStrategy must have a weight above 0.";
        return Err(Fault::parameter(text));
    }
    Ok(())
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let wanted = input.texts("capacityProviders");
    let tags = input.texts("include").iter().any(|i| i == "TAGS");
    let mut own = call.state().list::<CapacityProvider>(None)?;
    own.retain(|p| p.spec.region == call.region);
    let mut all: Vec<Value> = BUILT_IN.iter().map(|name| built_in(&call, name)).collect();
    all.extend(own.iter().map(|p| shown(&call, p, tags)));
    let mut failures = Vec::new();
    if !wanted.is_empty() {
        for name in wanted.iter().map(|w| last_part(w)) {
            if !all.iter().any(|p| p.text("name") == name) {
                failures.push(missing(arn(&call, name)));
            }
        }
        all.retain(|p| wanted.iter().any(|w| last_part(w) == p.text("name")));
    }
    let size = usize::try_from(input.number("maxResults").unwrap_or(100)).unwrap_or(100);
    let (items, next) =
        page(all, input.maybe("nextToken"), size).ok_or_else(|| Fault::parameter("Invalid token"))?;
    Ok(json!({ "capacityProviders": items, "failures": failures, "nextToken": next }))
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("name");
    let reserved = ["aws", "ecs", "fargate"]
        .iter()
        .any(|p| name.to_ascii_lowercase().starts_with(p));
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if reserved || name.is_empty() || name.len() > 255 || !name.chars().all(letter) {
        let text = format!("The specified capacity provider name '{name}' is invalid.");
        return Err(Fault::parameter(text));
    }
    let Some(group) = input.member("autoScalingGroupProvider") else {
        return Err(Fault::parameter("autoScalingGroupProvider must be specified."));
    };
    super::check_tags(input.items("tags"))?;
    let spec = CapacityProviderSpec {
        region: call.region.clone(),
        name: name.to_owned(),
        group: completed(&json!({}), group),
        tags: tags_of(input.items("tags"), "key", "value"),
    };
    let provider = CapacityProvider::new(object(&call.region, name), uid(), call.now(), spec);
    let taken = || Fault::parameter(format!("The specified capacity provider already exists: {name}"));
    let provider = call.create(&provider, taken).await?;
    Ok(json!({ "capacityProvider": shown(&call, &provider, true) }))
}

fn unknown() -> Fault {
    Fault::parameter("The specified capacity provider does not exist.")
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let name = input.text("name");
    let change = input.get("autoScalingGroupProvider").cloned().unwrap_or_default();
    let done = call
        .edit(
            "",
            &object(&call.region, name),
            unknown,
            |p: &mut CapacityProvider| {
                p.spec.group = completed(&p.spec.group, &change);
                Ok(())
            },
        )
        .await?;
    Ok(json!({ "capacityProvider": shown(&call, &done.0, true) }))
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let name = last_part(input.text("capacityProvider"));
    let provider = find(&call, name)?.ok_or_else(unknown)?;
    let clusters = call.state().list::<EcsCluster>(None)?;
    if clusters
        .iter()
        .any(|c| !c.spec.inactive && c.spec.capacity_providers.iter().any(|p| p == name))
    {
        let text = "The specified capacity provider is in use and cannot be removed.";
        return Err(Fault::parameter(text));
    }
    call.remove(&provider).await?;
    let mut shown = shown(&call, &provider, true);
    shown["status"] = "INACTIVE".into();
    Ok(json!({ "capacityProvider": shown }))
}
