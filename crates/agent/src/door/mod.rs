//! What a manager asks this node about its pods: logs, processes, connections. Readings are in `readings`.

mod readings;

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tripod_model::door::{
    AttachRequest, ContainerTarget, ExecRequest, LogRecord, LogRequest, PortForwardRequest, ProcessInput,
    ProcessOutput,
};
use tripod_model::{Error, Result};

pub(crate) use readings::Readings;

use crate::Agent;
use crate::ports::{self, BoxDuplex, BoxStream, BoxWrite, LogQuery, OutputStream, Streams};
use crate::record::{ContainerRecord, Owner};

/// Items of a client's input that wait until the process takes them.
const INPUT_QUEUE: usize = 32;

/// The two directions of a process's streams.
pub type ProcessStreams = (mpsc::Sender<ProcessInput>, BoxStream<Result<ProcessOutput>>);

/// Whose terminal takes the size that a client sends.
enum Terminal {
    None,
    Container(String),
    Exec(String),
}

impl Agent {
    /// The containers of a pod: the newest run of each, and earlier ones that are kept, oldest first.
    pub(crate) fn pod_containers(&self, target: &ContainerTarget) -> Result<Vec<Arc<ContainerRecord>>> {
        let key = format!("{}/{}", target.namespace, target.pod);
        let mut found: Vec<_> = self
            .containers()
            .into_iter()
            .filter(|r| match &r.owner {
                Owner::Pod {
                    pod, uid, container, ..
                } => {
                    *pod == key
                        && (target.uid.is_empty() || *uid == target.uid)
                        && (target.container.is_empty() || *container == target.container)
                }
                Owner::Local => false,
            })
            .collect();
        found.sort_by_key(|r| (r.owner.attempt(), r.created));
        if found.is_empty() && !self.has_pod(&key) {
            return Err(Error::not_found(format_args!(
                "pod {key} does not run on this node"
            )));
        }
        Ok(found)
    }

    /// A container of a pod that runs.
    fn running_container(&self, target: &ContainerTarget) -> Result<Arc<ContainerRecord>> {
        let found = self.pod_containers(target)?;
        let running = found.iter().rev().find(|r| r.is_running());
        running.cloned().ok_or_else(|| {
            Error::invalid(format_args!(
                "container not found (\"{}\"): it does not run",
                target.container
            ))
        })
    }

    /// Lines of the log of a pod's container.
    pub async fn pod_logs(&self, request: LogRequest) -> Result<BoxStream<Result<LogRecord>>> {
        let target = &request.target;
        let found = self.pod_containers(target)?;
        // A run that ended and is to be followed by another is the previous one already.
        let current = found.last().filter(|r| r.is_running() || r.run > 0);
        let chosen = if request.previous {
            let ended = |r: &&Arc<ContainerRecord>| !r.is_running() && r.run > 0;
            let earlier = found
                .len()
                .saturating_sub(usize::from(!self.waits_to_run(target)));
            found[..earlier].iter().rev().find(ended)
        } else {
            current.or_else(|| found.iter().rev().find(|r| r.run > 0))
        };
        let Some(record) = chosen else {
            let (container, pod) = (&target.container, &target.pod);
            return Err(match request.previous {
                true => Error::invalid(format_args!(
                    "previous terminated container \"{container}\" in pod \"{pod}\" not found"
                )),
                false => Error::invalid(format_args!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: {}",
                    self.waiting_reason(target)
                )),
            });
        };
        let query = LogQuery {
            stdout: !request.no_stdout,
            stderr: !request.no_stderr,
            follow: request.follow,
            since: request.since,
            until: request.until,
            tail: request.tail,
            details: request.details,
        };
        let lines = self.logs(&record.id, query).await?;
        let records = lines.map(|line| {
            line.map(|l| LogRecord {
                stderr: l.stream == OutputStream::Stderr,
                at: l.at,
                data: l.data,
                attrs: l.attrs,
            })
        });
        Ok(records.boxed())
    }

    /// Runs a process in a pod's container.
    pub async fn pod_exec(&self, request: ExecRequest) -> Result<ProcessStreams> {
        let record = self.running_container(&request.target)?;
        let exec = ports::ExecRequest {
            command: request.command,
            tty: request.tty,
            ..ports::ExecRequest::default()
        };
        let attach = (request.stdin, request.stdout, request.stderr);
        let id = self.create_exec(&record.id, exec, attach, String::new())?;
        let streams = self.start_exec(&id, None).await?;
        let terminal = match request.tty {
            true => Terminal::Exec(id.clone()),
            false => Terminal::None,
        };
        let (input, output) = self.carry(streams, terminal, (request.stdout, request.stderr));
        let agent = self.clone();
        let exit = futures::stream::once(async move { Ok(ProcessOutput::Exit(agent.exec_exit(&id).await)) });
        Ok((input, output.chain(exit).boxed()))
    }

    /// The streams of a pod's container.
    pub async fn pod_attach(&self, request: AttachRequest) -> Result<ProcessStreams> {
        let record = self.running_container(&request.target)?;
        if request.stdin && !record.spec.open_stdin {
            return Err(Error::invalid(format_args!(
                "container {} keeps no standard input open",
                request.target.container
            )));
        }
        let mut streams = self.attach(&record.id).await?;
        if !request.stdin {
            streams.stdin = None;
        }
        let terminal = match record.spec.tty {
            true => Terminal::Container(record.id.clone()),
            false => Terminal::None,
        };
        Ok(self.carry(streams, terminal, (request.stdout, request.stderr)))
    }

    /// A connection to a port in a pod's network namespace.
    pub async fn pod_connect(&self, request: PortForwardRequest) -> Result<BoxDuplex> {
        let target = ContainerTarget {
            container: String::new(),
            ..request.target
        };
        let found = self.pod_containers(&target)?;
        let running = found
            .iter()
            .find(|r| r.is_running())
            .ok_or_else(|| Error::invalid(format_args!("pod {} does not run", target.pod)))?;
        let sandbox = match running.spec.network.mode.as_str() {
            "host" => None,
            mode => Some(mode.strip_prefix(ports::SANDBOX_MODE).unwrap_or(&running.id)),
        };
        self.net().dial(sandbox, request.port).await
    }

    /// Leads a client's input to a process, and the process's output to the client.
    fn carry(&self, streams: Streams, terminal: Terminal, (stdout, stderr): (bool, bool)) -> ProcessStreams {
        let (input, items) = mpsc::channel(INPUT_QUEUE);
        tokio::spawn(feed(self.clone(), items, streams.stdin, terminal));
        let output = streams.output.filter_map(move |chunk| {
            let item = match chunk {
                Ok(c) if c.stream == OutputStream::Stdout => {
                    stdout.then_some(Ok(ProcessOutput::Stdout(c.data)))
                }
                Ok(c) => stderr.then_some(Ok(ProcessOutput::Stderr(c.data))),
                Err(e) => Some(Err(e)),
            };
            std::future::ready(item)
        });
        (input, output.boxed())
    }
}

/// Until the client leaves; then the process's input ends (where it is its own).
async fn feed(
    agent: Agent,
    mut items: mpsc::Receiver<ProcessInput>,
    mut stdin: Option<BoxWrite>,
    terminal: Terminal,
) {
    while let Some(item) = items.recv().await {
        match item {
            ProcessInput::Stdin(bytes) => {
                let Some(pipe) = &mut stdin else { continue };
                let written = async {
                    pipe.write_all(&bytes).await?;
                    pipe.flush().await
                };
                // The process reads no more: what follows has no use.
                if written.await.is_err() {
                    stdin = None;
                }
            }
            ProcessInput::CloseStdin => {
                if let Some(mut pipe) = stdin.take() {
                    let _ = pipe.shutdown().await;
                }
            }
            ProcessInput::Resize { height, width } => {
                let resized = match &terminal {
                    Terminal::None => Ok(()),
                    Terminal::Container(id) => agent.runtime().resize(id, height, width).await,
                    Terminal::Exec(id) => agent.resize_exec(id, height, width).await,
                };
                if let Err(e) = resized {
                    tracing::debug!("a terminal keeps its size: {e}");
                }
            }
        }
    }
}
