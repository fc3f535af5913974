//! CloudWatch Logs: groups, streams, events.

mod events;
mod groups;
mod pattern;
mod streams;

use serde_json::{Value, json};
use tripod_engine::aws_logs::{group_object, stream_object};
use tripod_model::aws::{LogGroup, LogStream};

use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, page};

crate::operations! {
    CreateLogGroup => groups::create, "kmsKeyId is kept and told; nothing is encrypted";
    DeleteLogGroup => groups::delete;
    DescribeLogGroups => groups::describe;
    ListLogGroups => groups::list;
    PutRetentionPolicy => groups::put_retention;
    DeleteRetentionPolicy => groups::delete_retention;
    TagLogGroup => groups::tag;
    UntagLogGroup => groups::untag;
    ListTagsLogGroup => groups::tags;
    TagResource => groups::tag_arn;
    UntagResource => groups::untag_arn;
    ListTagsForResource => groups::tags_arn;
    CreateLogStream => streams::create;
    DeleteLogStream => streams::delete;
    DescribeLogStreams => streams::describe;
    PutLogEvents => events::put;
    GetLogEvents => events::get;
    FilterLogEvents => events::filter;
    TestMetricFilter => events::test_filter;
    DescribeMetricFilters => no_filters;
    DescribeSubscriptionFilters => no_subscriptions;
    DescribeResourcePolicies => no_policies;
}

async fn no_filters(_: Call, _: Value) -> Reply {
    Ok(json!({ "metricFilters": [] }))
}

async fn no_subscriptions(call: Call, input: Value) -> Reply {
    group(&call, &input)?;
    Ok(json!({ "subscriptionFilters": [] }))
}

async fn no_policies(_: Call, _: Value) -> Reply {
    Ok(json!({ "resourcePolicies": [] }))
}

fn no_group() -> Fault {
    Fault::new(
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )
}

fn no_stream() -> Fault {
    Fault::new(
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
}

/// The name of the group that a request means, by name or ARN.
fn group_name(input: &Value) -> Result<String, Fault> {
    let named = input.maybe("logGroupName").or(input.maybe("logGroupIdentifier"));
    let text = "Exactly one of logGroupName and logGroupIdentifier must be given.";
    let named = named.ok_or_else(|| Fault::parameter(text))?;
    Ok(match named.split_once(":log-group:") {
        Some((_, name)) => name.trim_end_matches(":*").to_owned(),
        None => named.to_owned(),
    })
}

fn group(call: &Call, input: &Value) -> Result<LogGroup, Fault> {
    let name = group_name(input)?;
    call.state()
        .get::<LogGroup>("", &group_object(&call.region, &name))?
        .ok_or_else(no_group)
}

fn stream(call: &Call, group: &str, name: &str) -> Result<LogStream, Fault> {
    let stream = call
        .state()
        .get::<LogStream>("", &stream_object(&call.region, group, name))?;
    stream.ok_or_else(no_stream)
}

/// The streams of a group, by name.
fn streams_of(call: &Call, group: &str) -> Result<Vec<LogStream>, Fault> {
    let mut streams = call.state().list::<LogStream>(None)?;
    streams.retain(|s| s.spec.group == group && s.spec.region == call.region);
    streams.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(streams)
}

/// A page of `member`.
fn listed(input: &Value, member: &str, items: Vec<Value>) -> Reply {
    let size = usize::try_from(input.number("limit").unwrap_or(50)).unwrap_or(50);
    let (items, next) = page(items, input.maybe("nextToken"), size)
        .ok_or_else(|| Fault::parameter("The specified nextToken is invalid."))?;
    Ok(json!({ member: items, "nextToken": next }))
}
