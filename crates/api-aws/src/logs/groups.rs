//! Log groups.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_engine::aws_logs::group_object;
use tripod_model::aws::{LogGroup, LogGroupSpec, Tags};

use super::{group, group_name, listed, no_group, streams_of};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, some};

/// Days that a group may keep its events.
const DAYS: &[i64] = &[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

fn tags_of(input: &Value) -> Tags {
    let map = input.get("tags").and_then(Value::as_object).into_iter().flatten();
    map.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn arn(call: &Call, name: &str) -> String {
    call.arn("logs", &format!("log-group:{name}"))
}

fn millis(group: &LogGroup) -> Value {
    group
        .metadata
        .creation_timestamp
        .map_or(Value::Null, |t| t.as_millisecond().into())
}

fn shown(call: &Call, group: &LogGroup) -> Result<Value, Fault> {
    let s = &group.spec;
    let bytes: u64 = streams_of(call, &s.name)?.iter().map(|s| s.spec.bytes).sum();
    Ok(dense(json!({
        "logGroupName": s.name, "creationTime": millis(group), "metricFilterCount": 0,
        "arn": format!("{}:*", arn(call, &s.name)), "logGroupArn": arn(call, &s.name), "storedBytes": bytes,
        "logGroupClass": s.class, "kmsKeyId": some(&s.kms_key),
        "retentionInDays": if s.retention == 0 { Value::Null } else { s.retention.into() },
    })))
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("logGroupName");
    let spec = LogGroupSpec {
        region: call.region.clone(),
        name: name.to_owned(),
        class: input.maybe("logGroupClass").unwrap_or("STANDARD").to_owned(),
        kms_key: input.text("kmsKeyId").to_owned(),
        tags: tags_of(&input),
        ..LogGroupSpec::default()
    };
    let group = LogGroup::new(group_object(&call.region, name), uid(), call.now(), spec);
    let taken = || {
        Fault::new(
            "ResourceAlreadyExistsException",
            "The specified log group already exists",
        )
    };
    call.create(&group, taken).await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?;
    for stream in streams_of(&call, &group.spec.name)? {
        // One that changed meanwhile goes with the next try.
        while let Ok(stream) = super::stream(&call, &group.spec.name, &stream.spec.name) {
            if call.manager.log_stream_remove(&stream).await.is_ok() {
                break;
            }
        }
    }
    call.remove(&group).await?;
    Ok(Value::Null)
}

fn of_region(call: &Call, input: &Value) -> Result<Vec<LogGroup>, Fault> {
    let mut groups = call.state().list::<LogGroup>(None)?;
    let pattern = input.maybe("logGroupNamePattern").map(str::to_lowercase);
    groups.retain(|g| {
        g.spec.region == call.region
            && g.spec.name.starts_with(input.text("logGroupNamePrefix"))
            && pattern
                .as_ref()
                .is_none_or(|p| g.spec.name.to_lowercase().contains(p))
    });
    groups.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(groups)
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let groups = of_region(&call, &input)?;
    let items = groups.iter().map(|g| shown(&call, g)).collect::<Result<_, _>>()?;
    listed(&input, "logGroups", items)
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let groups = of_region(&call, &input)?;
    let items = groups.iter().map(|g| {
        json!({ "logGroupName": g.spec.name, "logGroupArn": arn(&call, &g.spec.name), "logGroupClass": g.spec.class })
    });
    listed(&input, "logGroups", items.collect())
}

async fn change(call: &Call, name: &str, change: impl Fn(&mut LogGroupSpec) + Send + Sync) -> Reply {
    call.edit(
        "",
        &group_object(&call.region, name),
        no_group,
        |g: &mut LogGroup| {
            change(&mut g.spec);
            Ok(())
        },
    )
    .await?;
    Ok(Value::Null)
}

pub(super) async fn put_retention(call: Call, input: Value) -> Reply {
    let days = input.number("retentionInDays").unwrap_or(0);
    if !DAYS.contains(&days) {
        let text = format!("Invalid retentionInDays {days}: it must be one of {DAYS:?}");
        return Err(Fault::parameter(text));
    }
    change(&call, &group_name(&input)?, |g| g.retention = days).await
}

pub(super) async fn delete_retention(call: Call, input: Value) -> Reply {
    change(&call, &group_name(&input)?, |g| g.retention = 0).await
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let tags = tags_of(&input);
    change(&call, &group_name(&input)?, |g| g.tags.extend(tags.clone())).await
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let keys = input.texts("tags");
    change(&call, &group_name(&input)?, |g| {
        g.tags.retain(|k, _| !keys.contains(k));
    })
    .await
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    Ok(json!({ "tags": group(&call, &input)?.spec.tags }))
}

/// The name of the group of an ARN.
fn of_arn(input: &Value) -> Result<String, Fault> {
    let arn = input.text("resourceArn");
    let name = arn
        .split_once(":log-group:")
        .map(|(_, name)| name.trim_end_matches(":*").to_owned());
    name.ok_or_else(|| Fault::parameter(format!("resourceArn: {arn} is not the ARN of a log group")))
}

pub(super) async fn tag_arn(call: Call, input: Value) -> Reply {
    let tags = tags_of(&input);
    change(&call, &of_arn(&input)?, |g| g.tags.extend(tags.clone())).await
}

pub(super) async fn untag_arn(call: Call, input: Value) -> Reply {
    let keys = input.texts("tagKeys");
    change(&call, &of_arn(&input)?, |g| {
        g.tags.retain(|k, _| !keys.contains(k));
    })
    .await
}

pub(super) async fn tags_arn(call: Call, input: Value) -> Reply {
    let name = of_arn(&input)?;
    let group = call
        .state()
        .get::<LogGroup>("", &group_object(&call.region, &name))?
        .ok_or_else(no_group)?;
    Ok(json!({ "tags": group.spec.tags }))
}
