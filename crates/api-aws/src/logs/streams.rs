//! Log streams.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_engine::aws_logs::stream_object;
use tripod_model::aws::{LogStream, LogStreamSpec};

use super::{group, listed, stream, streams_of};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense};

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let (group, name) = (group(&call, &input)?.spec.name, input.text("logStreamName"));
    let spec = LogStreamSpec {
        region: call.region.clone(),
        group: group.clone(),
        name: name.to_owned(),
        ..LogStreamSpec::default()
    };
    let object = LogStream::new(stream_object(&call.region, &group, name), uid(), call.now(), spec);
    let taken = || {
        Fault::new(
            "ResourceAlreadyExistsException",
            "The specified log stream already exists",
        )
    };
    call.create(&object, taken).await?;
    Ok(Value::Null)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?.spec.name;
    let found = stream(&call, &group, input.text("logStreamName"))?;
    call.manager.log_stream_remove(&found).await?;
    Ok(Value::Null)
}

fn shown(call: &Call, stream: &LogStream) -> Value {
    let s = &stream.spec;
    dense(json!({
        "logStreamName": s.name, "creationTime": stream.metadata.creation_timestamp.map(|t| t.as_millisecond()),
        "firstEventTimestamp": s.first, "lastEventTimestamp": s.last, "lastIngestionTime": s.ingested,
        "uploadSequenceToken": format!("{:056}", s.events),
        "arn": call.arn("logs", &format!("log-group:{}:log-stream:{}", s.group, s.name)), "storedBytes": 0,
    }))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?.spec.name;
    let mut streams = streams_of(&call, &group)?;
    let (prefix, by_time) = (
        input.maybe("logStreamNamePrefix"),
        input.text("orderBy") == "LastEventTime",
    );
    if by_time && prefix.is_some() {
        return Err(Fault::parameter(
            "Cannot order by LastEventTime with a logStreamNamePrefix.",
        ));
    }
    streams.retain(|s| prefix.is_none_or(|p| s.spec.name.starts_with(p)));
    if by_time {
        streams.sort_by_key(|s| s.spec.last);
    }
    if input.flag("descending") == Some(true) {
        streams.reverse();
    }
    listed(
        &input,
        "logStreams",
        streams.iter().map(|s| shown(&call, s)).collect(),
    )
}
