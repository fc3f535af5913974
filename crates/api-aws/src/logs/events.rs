//! Events: put, read from a stream, filtered over streams.

use serde_json::{Value, json};
use tripod_engine::aws_logs::events;
use tripod_model::aws::{LogEvent, LogGroup, LogStream};
use tripod_model::ecs::fnv;

use super::pattern::Pattern;
use super::{group, stream, streams_of};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, page};

/// Events of an answer.
const PAGE: i64 = 10_000;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

pub(super) async fn put(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?.spec.name;
    let name = input.text("logStreamName");
    stream(&call, &group, name)?;
    let now = call.now().as_millisecond();
    let (mut lines, mut old, mut new) = (Vec::new(), None, None);
    let mut last = i64::MIN;
    for (i, e) in input.items("logEvents").iter().enumerate() {
        let at = e.number("timestamp").unwrap_or(0);
        if at < last {
            let text = "Log events in a single PutLogEvents request must be in chronological order.";
            return Err(Fault::parameter(text));
        }
        last = at;
        if at < now - 14 * DAY {
            old = Some(i + 1);
        } else if at > now + 2 * 3_600_000 {
            new = new.or(Some(i));
        } else {
            lines.push((at, e.text("message").to_owned()));
        }
    }
    if !lines.is_empty() {
        call.manager
            .log_append(&call.region, &group, name, &lines)
            .await?;
    }
    let after = stream(&call, &group, name)?;
    let mut out = json!({ "nextSequenceToken": format!("{:056}", after.spec.events) });
    if old.is_some() || new.is_some() {
        out["rejectedLogEventsInfo"] =
            json!({ "tooOldLogEventEndIndex": old, "tooNewLogEventStartIndex": new });
    }
    Ok(out)
}

/// The events of a stream that its group still keeps, by time.
fn kept(call: &Call, group: &LogGroup, stream: &LogStream, input: &Value) -> Result<Vec<LogEvent>, Fault> {
    let mut list = events(&call.state(), stream)?;
    let oldest = match group.spec.retention {
        0 => i64::MIN,
        days => call.now().as_millisecond() - days * DAY,
    };
    let from = input.number("startTime").unwrap_or(i64::MIN);
    let to = input.number("endTime").unwrap_or(i64::MAX);
    list.retain(|e| e.at >= oldest && e.at >= from && e.at < to);
    list.sort_by_key(|e| (e.at, e.number));
    Ok(list)
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?;
    let stream = stream(&call, &group.spec.name, input.text("logStreamName"))?;
    let list = kept(&call, &group, &stream, &input)?;
    let limit = usize::try_from(input.number("limit").unwrap_or(PAGE).clamp(1, PAGE)).unwrap_or(1);
    let bad = || Fault::parameter("The specified nextToken is invalid.");
    let token = match input.maybe("nextToken") {
        None => None,
        Some(text) => {
            let (way, number) = text.split_once('/').ok_or_else(bad)?;
            Some((way, number.parse::<usize>().map_err(|_| bad())?))
        }
    };
    let (from, to) = match token {
        Some(("f", from)) => (from.min(list.len()), (from + limit).min(list.len())),
        Some(("b", to)) => (to.min(list.len()).saturating_sub(limit), to.min(list.len())),
        Some(_) => return Err(bad()),
        None if input.flag("startFromHead") == Some(true) => (0, limit.min(list.len())),
        None => (list.len().saturating_sub(limit), list.len()),
    };
    let shown: Value = list[from..to]
        .iter()
        .map(|e| json!({ "timestamp": e.at, "message": e.message, "ingestionTime": e.ingested }))
        .collect();
    Ok(json!({
        "events": shown, "nextForwardToken": format!("f/{to:056}"), "nextBackwardToken": format!("b/{from:056}"),
    }))
}

pub(super) async fn filter(call: Call, input: Value) -> Reply {
    let group = group(&call, &input)?;
    let pattern = Pattern::parse(input.text("filterPattern"))
        .map_err(|why| Fault::parameter(format!("Invalid filter pattern: {why}")))?;
    let names = input.texts("logStreamNames");
    let prefix = input.maybe("logStreamNamePrefix");
    if !names.is_empty() && prefix.is_some() {
        return Err(Fault::parameter(
            "logStreamNames and logStreamNamePrefix cannot both be given.",
        ));
    }
    for name in &names {
        stream(&call, &group.spec.name, name)?;
    }
    let mut found = Vec::new();
    for stream in streams_of(&call, &group.spec.name)? {
        let name = &stream.spec.name;
        if (!names.is_empty() && !names.contains(name)) || prefix.is_some_and(|p| !name.starts_with(p)) {
            continue;
        }
        let salt = fnv(&[&group.spec.name, name]);
        for e in kept(&call, &group, &stream, &input)? {
            if pattern.matches(&e.message) {
                found.push((e, name.clone(), salt));
            }
        }
    }
    found.sort_by(|(a, x, _), (b, y, _)| (a.at, x, a.number).cmp(&(b.at, y, b.number)));
    let limit = usize::try_from(input.number("limit").unwrap_or(PAGE).clamp(1, PAGE)).unwrap_or(1);
    let (found, next) = page(found, input.maybe("nextToken"), limit)
        .ok_or_else(|| Fault::parameter("The specified nextToken is invalid."))?;
    let shown: Value = found
        .iter()
        .map(|(e, name, salt)| {
            json!({
                "logStreamName": name, "timestamp": e.at, "message": e.message, "ingestionTime": e.ingested,
                "eventId": format!("{:016}{salt:020}{:020}", e.at, e.number),
            })
        })
        .collect();
    Ok(json!({ "events": shown, "searchedLogStreams": [], "nextToken": next }))
}

pub(super) async fn test_filter(_: Call, input: Value) -> Reply {
    let pattern = Pattern::parse(input.text("filterPattern"))
        .map_err(|why| Fault::parameter(format!("Invalid filter pattern: {why}")))?;
    let lines = input.texts("logEventMessages");
    let matches = lines.iter().enumerate().filter_map(|(i, line)| {
        let values = pattern.extract(line)?;
        Some(json!({ "eventNumber": i + 1, "eventMessage": line, "extractedValues": values }))
    });
    Ok(json!({ "matches": matches.collect::<Value>() }))
}
