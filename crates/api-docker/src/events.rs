//! `/events`: what happened, past and live.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tripod_model::Time;
use tripod_model::event::Event;

use crate::Docker;
use crate::call::Call;
use crate::query::Filters;
use crate::reply::{self, Reply};

const FILTERS: [&str; 16] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
    "task",
    "label!",
];

pub(crate) fn stream(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&FILTERS)?;
    let since = call.query.time("since")?;
    let until = call.query.time("until")?;
    if let (Some(s), Some(u)) = (since, until)
        && s > u
    {
        return Err(crate::fault::Fault::bad(
            "`since` time cannot be after `until` time",
        ));
    }
    // With an end in the past the past is all that is wanted, from its beginning.
    let from = since.or(until.filter(|u| *u <= Time::now()).map(|_| Time::UNIX_EPOCH));
    let (past, live) = docker.agent().events().subscribe(from);
    let listening = docker.listening();
    let past = stream::iter(past);
    let events = past.chain(until_then(live, until)).filter_map(move |e| {
        let _listening = &listening;
        let wanted = until.is_none_or(|u| e.time <= u) && admits(&filters, &e);
        let line = wanted.then(|| Ok::<Bytes, std::convert::Infallible>(line(&e)));
        async move { line }
    });
    reply::stream("application/json", events)
}

/// Live events up to a time.
fn until_then(live: Receiver<Event>, until: Option<Time>) -> impl Stream<Item = Event> + Send + 'static {
    let left = until.map(|u| {
        let left = u.duration_since(Time::now());
        std::time::Duration::try_from(left).unwrap_or_default()
    });
    let events = stream::unfold(live, |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                // A reader that is too slow misses events, as with the real daemon.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    events.take_until(async move {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    })
}

fn admits(f: &Filters, e: &Event) -> bool {
    // `health_status: healthy` and `exec_create: ls` also go by their first word.
    let action = |a: &str| e.action == a || e.action.split(':').next() == Some(a);
    let name = e.attributes.get("name").map_or("", String::as_str);
    let of = |kind: &str| {
        f.any(kind, |wanted| {
            e.kind == kind && (e.id == wanted || name == wanted || prefix(&e.id, wanted))
        })
    };
    let image = f.any("image", |wanted| {
        let used = e.attributes.get("image").map_or("", String::as_str);
        let bare = |n: &str| {
            n.rsplit_once(':')
                .filter(|(_, t)| !t.contains('/'))
                .map_or(n, |(r, _)| r)
                .to_owned()
        };
        match e.kind.as_str() {
            "image" => e.id == wanted || name == wanted || bare(name) == wanted,
            _ => used == wanted || bare(used) == wanted,
        }
    });
    f.any("type", |t| e.kind == t)
        && f.any("event", action)
        && f.any("scope", |s| e.scope == s)
        && f.labels(&e.attributes)
        && image
        && [
            "container",
            "network",
            "volume",
            "node",
            "service",
            "secret",
            "config",
            "daemon",
            "plugin",
        ]
        .into_iter()
        .all(of)
}

fn prefix(id: &str, wanted: &str) -> bool {
    wanted.len() >= 4 && id.starts_with(wanted)
}

fn line(e: &Event) -> Bytes {
    let mut out = json!({
        "Type": e.kind, "Action": e.action,
        "Actor": { "ID": e.id, "Attributes": e.attributes },
        "scope": e.scope, "time": e.time.as_second(),
        "timeNano": i64::try_from(e.time.as_nanosecond()).unwrap_or(i64::MAX),
    });
    // Fields of the first versions of the API, for containers and images only.
    if matches!(e.kind.as_str(), "container" | "image") {
        out["status"] = json!(e.action);
        out["id"] = json!(e.id);
        if e.kind == "container" {
            out["from"] = json!(e.attributes.get("image"));
        }
    }
    reply::json_line(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let e = Event {
            kind: "container".into(),
            action: "health_status: healthy".into(),
            id: "abcdef".into(),
            attributes: [("name", "web"), ("image", "busybox:latest"), ("k", "v")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            time: Time::UNIX_EPOCH,
            scope: "local".into(),
        };
        for (filter, fits) in [
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"event":["health_status"]}"#, true),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abcd"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"label":["k=v"]}"#, true),
            (r#"{"network":["web"]}"#, false),
        ] {
            assert_eq!(admits(&Filters::parse(filter).unwrap(), &e), fits, "{filter}");
        }
    }
}
