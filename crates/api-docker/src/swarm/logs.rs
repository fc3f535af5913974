//! Logs of services and tasks: the lines of their containers, on whichever node, merged as they come.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::mpsc;
use tripod_agent::ports::{LogLine, LogQuery, OutputStream};
use tripod_engine::{Filters, Manager, Task};
use tripod_model::Result;
use tripod_model::door::{ContainerTarget, LogRecord, LogRequest};
use tripod_model::pod::Pod;

use crate::Docker;
use crate::call::Call;
use crate::containers::logs::{Format, query};
use crate::framing::{MULTIPLEXED, RAW};
use crate::reply::{self, Reply};

/// Lines that wait for a slow client before the reading of logs pauses.
const WAITING: usize = 256;

/// `/services/{id}/logs`.
pub(super) async fn service(docker: &Docker, manager: &Arc<Manager>, call: &Call, id: &str) -> Reply {
    let found = manager.service(id)?;
    let tty = found.spec.task_template.container.tty;
    let filters = Filters::from_iter([("service", found.metadata.name.clone())]);
    stream(docker, manager, call, filters, tty).await
}

/// `/tasks/{id}/logs`.
pub(super) async fn task(docker: &Docker, manager: &Arc<Manager>, call: &Call, id: &str) -> Reply {
    let found = manager.task(id)?;
    let tty = found.pod.swarm().is_some_and(|t| t.template.container.tty);
    let filters = Filters::from_iter([("id", found.id().to_owned())]);
    stream(docker, manager, call, filters, tty).await
}

async fn stream(docker: &Docker, manager: &Arc<Manager>, call: &Call, filters: Filters, tty: bool) -> Reply {
    let query = query(call)?;
    let reader = Reader {
        docker: docker.clone(),
        manager: manager.clone(),
        filters,
        format: Format {
            tty,
            timestamps: call.query.flag("timestamps"),
        },
        query,
        known: HashSet::new(),
    };
    let kind = if tty || call.version.0 < 42 {
        RAW
    } else {
        MULTIPLEXED
    };
    let (sender, lines) = mpsc::channel(WAITING);
    if reader.query.follow {
        tokio::spawn(reader.follow(sender));
        let lines = tokio_stream::wrappers::ReceiverStream::new(lines);
        return reply::stream(kind, lines.map(Ok::<Bytes, std::convert::Infallible>));
    }
    let mut reader = reader;
    let all = reader.open_new().await?;
    reply::stream(kind, all.map(Ok::<Bytes, std::convert::Infallible>))
}

struct Reader {
    docker: Docker,
    manager: Arc<Manager>,
    filters: Filters,
    format: Format,
    query: LogQuery,
    /// Containers whose log is being read.
    known: HashSet<String>,
}

type Lines = SelectAll<BoxStream<'static, Bytes>>;

impl Reader {
    /// The logs of tasks that have a container now and had none before.
    async fn open_new(&mut self) -> Result<Lines> {
        let mut lines = Lines::new();
        for task in self.manager.tasks(&self.filters)? {
            let container = task.pod.state.container_id.clone();
            if container.is_empty() || !self.known.insert(container.clone()) {
                continue;
            }
            // A container that is removed already, or whose node cannot be reached, has no log to show.
            if let Ok(log) = self.open(&task, &container).await {
                let details = self.query.details.then(|| details(&task));
                let format = self.format;
                lines.push(Box::pin(log.filter_map(move |line| {
                    let line = line.ok().map(|mut line| {
                        line.attrs = merge(details.as_deref(), line.attrs.take());
                        format.line(&line)
                    });
                    async { line }
                })));
            }
        }
        Ok(lines)
    }

    /// A container's log: from this node's own agent, which knows containers that have ended too, else by the door of
    /// the node that runs the task.
    async fn open(&self, task: &Task, container: &str) -> Result<BoxStream<'static, Result<LogLine>>> {
        if let Ok(log) = self.docker.agent().logs(container, self.query.clone()).await {
            return Ok(Box::pin(log));
        }
        let pod = &task.pod;
        let door = self.manager.door(&pod.spec.node_name)?;
        let log = door.logs(request(pod, &self.query)).await?;
        Ok(Box::pin(log.map(|record| record.map(line))))
    }

    /// Goes on with tasks that appear later, until the client leaves.
    async fn follow(mut self, client: mpsc::Sender<Bytes>) {
        let mut changes = self.manager.view_revision();
        let mut lines = Lines::new();
        // From now on a task that appears is shown from its beginning.
        let mut first = true;
        loop {
            changes.borrow_and_update();
            match self.open_new().await {
                Ok(new) => lines.extend(new),
                Err(_) => return,
            }
            if std::mem::take(&mut first) {
                self.query.tail = None;
            }
            loop {
                tokio::select! {
                    () = client.closed() => return,
                    changed = changes.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some(line) = next(&mut lines) => {
                        if client.send(line).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// What the door of a node is asked for.
fn request(pod: &Pod, query: &LogQuery) -> LogRequest {
    LogRequest {
        target: ContainerTarget {
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            container: String::new(),
        },
        follow: query.follow,
        previous: false,
        since: query.since,
        until: query.until,
        tail: query.tail,
        no_stdout: !query.stdout,
        no_stderr: !query.stderr,
        details: query.details,
    }
}

fn line(record: LogRecord) -> LogLine {
    LogLine {
        stream: match record.stderr {
            true => OutputStream::Stderr,
            false => OutputStream::Stdout,
        },
        at: record.at,
        data: record.data,
        attrs: record.attrs,
    }
}

/// The next line; waits for ever where there is no log to read.
async fn next(lines: &mut Lines) -> Option<Bytes> {
    if lines.is_empty() {
        return std::future::pending().await;
    }
    lines.next().await
}

/// What `docker service logs` needs to tell whose line it is.
fn details(task: &Task) -> String {
    let service = task.pod.swarm().map(|t| t.service_id.clone()).unwrap_or_default();
    format!(
        "com.docker.swarm.node.id={},com.docker.swarm.service.id={service},com.docker.swarm.task.id={}",
        task.node_id,
        task.id()
    )
}

fn merge(ours: Option<&str>, theirs: Option<String>) -> Option<String> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if !theirs.is_empty() => Some(format!("{ours},{theirs}")),
        (Some(ours), _) => Some(ours.to_owned()),
        (None, _) => None,
    }
}
