//! The log driver `awslogs`: what containers of ECS tasks write is delivered into their log streams.
//!
//! The leading manager follows each such container's log through the door of its node, from the last event that the
//! stream has. Lines that come close together are written together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::JoinHandle;
use tripod_model::aws::LogStream;
use tripod_model::door::{ContainerTarget, LogRecord, LogRequest};
use tripod_model::ecs::EcsLogs;
use tripod_model::{ErrorKind, Result, Time};

use crate::aws_logs::stream_object;
use crate::manager::Manager;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(250);
/// Lines that are written at once.
const LINES: usize = 1000;
/// Before a log that could not be followed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an event; the rest of a longer line is another event.
const EVENT: usize = 250_000;

/// A log that is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    node: String,
    target: ContainerTarget,
    logs: EcsLogs,
    /// The container has ended: what is there is all there will be.
    over: bool,
}

/// Starts and ends deliveries as tasks come and go, for as long as the manager is there.
pub(crate) async fn deliver(manager: Arc<Manager>) {
    let mut running: HashMap<String, JoinHandle<()>> = HashMap::new();
    let mut changes = manager.view_revision();
    loop {
        running.retain(|_, task| !task.is_finished());
        if manager.db().cluster().is_leader() {
            for source in sources(&manager) {
                let key = format!("{}/{}", source.target.uid, source.target.container);
                // A log that was followed to its end is not followed again.
                let known = running.contains_key(&key) || (source.over && delivered(&manager, &source));
                if !known {
                    running.insert(key, tokio::spawn(follow(manager.clone(), source)));
                }
            }
        } else {
            running.drain().for_each(|(_, task)| task.abort());
        }
        if changes.changed().await.is_err() {
            return;
        }
        // Changes come in bursts.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The containers whose log is to be delivered: of tasks that have a node, and of those that ended a moment ago.
fn sources(manager: &Manager) -> Vec<Source> {
    let now = Time::now();
    manager.with_view(|view| {
        let mut out = Vec::new();
        for pod in view.ecs().all_tasks() {
            let Some(task) = pod.ecs() else { continue };
            let state = tripod_plan::ecs::state(pod);
            let stopped = state.stopped_at.map(|t| now.as_second() - t.as_second());
            if pod.spec.node_name.is_empty()
                || state.pull_stopped_at.is_none()
                || stopped.is_some_and(|s| s > 30)
            {
                continue;
            }
            let seen = tripod_plan::ecs::life::containers(pod);
            for c in &task.containers {
                let Some(o) = seen.get(&c.pod_name).filter(|o| o.running || o.ended) else {
                    continue;
                };
                let Some(logs) = c.logs.clone() else { continue };
                out.push(Source {
                    node: pod.spec.node_name.clone(),
                    target: ContainerTarget {
                        namespace: pod.metadata.namespace.clone(),
                        pod: pod.metadata.name.clone(),
                        uid: pod.metadata.uid.clone(),
                        container: c.pod_name.clone(),
                    },
                    logs,
                    over: o.ended || stopped.is_some(),
                });
            }
        }
        out
    })
}

/// Whether the stream of a container that ended exists: its log was followed while it ran.
fn delivered(manager: &Manager, source: &Source) -> bool {
    let name = stream_object(&source.logs.region, &source.logs.group, &source.logs.stream);
    matches!(manager.db().snapshot().get::<LogStream>("", &name), Ok(Some(_)))
}

async fn follow(manager: Arc<Manager>, source: Source) {
    loop {
        match try_follow(&manager, &source).await {
            Ok(()) => return,
            // The container, the pod or the group is gone: nothing will come any more.
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                tracing::warn!(pod = source.target.pod, "a log is not delivered: {e}");
                return;
            }
            Err(e) => {
                tracing::warn!(pod = source.target.pod, "a log cannot be followed now: {e}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn try_follow(manager: &Arc<Manager>, source: &Source) -> Result<()> {
    let logs = &source.logs;
    manager
        .log_stream_ensure(&logs.region, &logs.group, &logs.stream, logs.create)
        .await?;
    let name = stream_object(&logs.region, &logs.group, &logs.stream);
    let stream = manager.db().snapshot().get::<LogStream>("", &name)?;
    let last = stream.and_then(|s| s.spec.last);
    let since = last.and_then(|ms| Time::from_millisecond(ms + 1).ok());
    let request = LogRequest {
        target: source.target.clone(),
        follow: true,
        since,
        ..LogRequest::default()
    };
    let records = manager.door(&source.node)?.logs(request).await?;
    let mut batches = std::pin::pin!(records.ready_chunks(LINES));
    while let Some(batch) = batches.next().await {
        let mut lines = Vec::new();
        for record in batch {
            lines.extend(events(&record?));
        }
        manager
            .log_append(&logs.region, &logs.group, &logs.stream, &lines)
            .await?;
        // What comes meanwhile is written together.
        tokio::time::sleep(GATHER).await;
    }
    Ok(())
}

/// The events of a line.
fn events(record: &LogRecord) -> Vec<(i64, String)> {
    let text = String::from_utf8_lossy(&record.data);
    let text = text.trim_end_matches(['\n', '\r']);
    let at = record.at.as_millisecond();
    let (mut rest, mut out) = (text, Vec::new());
    while rest.len() > EVENT {
        let mut cut = EVENT;
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        out.push((at, rest[..cut].to_owned()));
        rest = &rest[cut..];
    }
    if !rest.is_empty() {
        out.push((at, rest.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events() {
        let record = |text: &str| LogRecord {
            stderr: false,
            at: Time::from_millisecond(1_234).unwrap(),
            data: text.to_owned().into(),
            attrs: None,
        };
        assert_eq!(events(&record("hello\n")), [(1_234, "hello".to_owned())]);
        assert!(events(&record("\n")).is_empty());
        // A piece never ends inside a character.
        let long = format!("a{}", "é".repeat(EVENT));
        let pieces = events(&record(&long));
        assert_eq!(pieces.len(), 3);
        let joined: String = pieces.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(joined, long);
    }
}
