//! Logs of services and tasks: the lines of their containers, on whichever node, merged as they come.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::mpsc;
use tripod_agent::ports::{LogLine, LogQuery, OutputStream};
use tripod_engine::{Filters, Manager, Task};
use tripod_model::door::{ContainerTarget, LogRecord, LogRequest};
use tripod_model::pod::Pod;
use tripod_model::{ErrorKind, Result, Time};

use crate::Docker;
use crate::call::Call;
use crate::containers::logs::{Format, query};
use crate::framing::{MULTIPLEXED, RAW};
use crate::reply::{self, Reply};

/// Lines that wait for a slow client before the reading of logs pauses.
const WAITING: usize = 256;

/// Between two attempts to reach a node whose logs are followed.
const AGAIN: Duration = Duration::from_secs(1);

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
        since: HashMap::new(),
        missing: BTreeSet::new(),
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
    let (format, missing) = (reader.format, std::mem::take(&mut reader.missing));
    // At its end the stream says what is not in it.
    let all = futures::stream::unfold(
        (all, missing, false),
        move |(mut all, mut missing, over)| async move {
            if over {
                return None;
            }
            loop {
                return match all.next().await {
                    Some(Item::Line(line)) => Some((line, (all, missing, false))),
                    Some(Item::Lost(lost)) => {
                        missing.insert(format!("node {} disconnected unexpectedly", lost.node));
                        continue;
                    }
                    None if missing.is_empty() => None,
                    None => Some((incomplete(format, &missing), (all, missing, true))),
                };
            }
        },
    );
    reply::stream(kind, all.map(Ok::<Bytes, std::convert::Infallible>))
}

/// What is told at the end of a stream from which something is missing.
fn incomplete(format: Format, reasons: &BTreeSet<String>) -> Bytes {
    let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
    format.system_error(&format!(
        "rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be retrieved for the \
         following reasons: {}",
        reasons.join(", ")
    ))
}

struct Reader {
    docker: Docker,
    manager: Arc<Manager>,
    filters: Filters,
    format: Format,
    query: LogQuery,
    /// Containers whose log is being read.
    known: HashSet<String>,
    /// Since when the logs of containers are wanted whose nodes went away while they were followed.
    since: HashMap<String, Time>,
    /// Why logs are missing.
    missing: BTreeSet<String>,
}

/// What comes of the logs.
enum Item {
    Line(Bytes),
    Lost(Lost),
}

/// A log that broke off.
struct Lost {
    container: String,
    /// Swarm identifier.
    node: String,
    /// The time of the last line that came.
    at: Option<Time>,
}

type Lines = SelectAll<BoxStream<'static, Item>>;

impl Reader {
    /// The logs of tasks that have a container now and had none before.
    async fn open_new(&mut self) -> Result<Lines> {
        let mut lines = Lines::new();
        for task in self.manager.tasks(&self.filters)? {
            let container = task.pod.state.container_id.clone();
            if container.is_empty() || !self.known.insert(container.clone()) {
                continue;
            }
            match self.open(&task, &container).await {
                Ok(log) => lines.push(self.items(&task, container, log)),
                // Its node may come back: a client that follows wants its lines then.
                Err(e) if e.kind == ErrorKind::Unavailable || e.kind == ErrorKind::Timeout => {
                    self.known.remove(&container);
                    self.missing
                        .insert(format!("node {} is not available", task.node_id));
                }
                // A container that is removed already has no log to show.
                Err(e) if e.kind == ErrorKind::NotFound && task.pod.state.observed.is_final() => {}
                // One that is only being made will have one: its task changes then.
                Err(_) => drop(self.known.remove(&container)),
            }
        }
        Ok(lines)
    }

    /// The lines of a log as they are sent, and its end if that is not the container's.
    fn items(
        &self,
        task: &Task,
        container: String,
        log: BoxStream<'static, Result<LogLine>>,
    ) -> BoxStream<'static, Item> {
        let details = self.query.details.then(|| details(task));
        let (format, node) = (self.format, task.node_id.clone());
        let mut last = None;
        Box::pin(log.map(move |line| match line {
            Ok(mut line) => {
                last = Some(line.at);
                line.attrs = merge(details.as_deref(), line.attrs.take());
                Item::Line(format.line(&line))
            }
            Err(_) => Item::Lost(Lost {
                container: container.clone(),
                node: node.clone(),
                at: last,
            }),
        }))
    }

    /// A container's log: from this node's own agent, which knows containers that have ended too, else by the door of
    /// the node that runs the task.
    async fn open(&self, task: &Task, container: &str) -> Result<BoxStream<'static, Result<LogLine>>> {
        if let Ok(log) = self.docker.agent().logs(container, self.query.clone()).await {
            return Ok(Box::pin(log));
        }
        let pod = &task.pod;
        let door = self.manager.door(&pod.spec.node_name)?;
        let mut query = self.query.clone();
        if let Some(since) = self.since.get(container) {
            (query.since, query.tail) = (Some(*since), None);
        }
        let log = door.logs(request(pod, &query)).await?;
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
            self.missing.clear();
            match self.open_new().await {
                Ok(new) => lines.extend(new),
                Err(_) => return,
            }
            if std::mem::take(&mut first) {
                self.query.tail = None;
            }
            // Lines that come meanwhile do not put it off.
            let again = tokio::time::Instant::now() + AGAIN;
            loop {
                tokio::select! {
                    () = client.closed() => return,
                    // A node that is back is not told by a change of any task.
                    () = tokio::time::sleep_until(again), if !self.missing.is_empty() => break,
                    changed = changes.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some(item) = next(&mut lines) => match item {
                        Item::Line(line) => if client.send(line).await.is_err() {
                            return;
                        },
                        Item::Lost(lost) => self.lose(lost),
                    },
                }
            }
        }
    }
}

impl Reader {
    /// A log that is followed broke off: it is opened again when its node is back, after the last line that came.
    fn lose(&mut self, lost: Lost) {
        self.known.remove(&lost.container);
        self.missing.insert(lost.node);
        if let Some(at) = lost.at {
            let after = at
                .saturating_add(jiff::SignedDuration::from_nanos(1))
                .unwrap_or(at);
            self.since.insert(lost.container, after);
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
async fn next(lines: &mut Lines) -> Option<Item> {
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
