//! The door of a node elsewhere: asked over its session's connection, which the leader has.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tripod_model::door::{
    AttachRequest, ExecRequest, LogRecord, LogRequest, NodeStats, PortForwardRequest, ProcessInput,
    ProcessOutput,
};
use tripod_model::image::ImageOffer;
use tripod_model::{Error, Result};

use super::wire::{self, Question, Reply, broken};
use super::{Blob, ByteStream, NodeDoor, Process};
use crate::link::frame;
use crate::link::message::Purpose;
use crate::link::mux::Stream;
use crate::manager::Manager;

/// Items on their way between a stream and who reads it.
const QUEUE: usize = 32;

/// Leads to a node that has a session with the leader.
pub(super) struct RemoteDoor {
    pub(super) manager: Arc<Manager>,
    pub(super) node_id: String,
    pub(super) node_name: String,
}

fn mismatch() -> Error {
    Error::internal("an answer to another question")
}

impl RemoteDoor {
    async fn ask(&self, question: Question) -> Result<(Stream, Reply)> {
        let lost = |e: std::io::Error| {
            Error::unavailable(format_args!("node {} cannot be reached: {e}", self.node_name))
        };
        let mut stream = match self.manager.sessions.connections.get(&self.node_id) {
            Some(mux) => {
                let mut stream = mux.open().await.map_err(lost)?;
                frame::send(&mut stream, &Purpose::Door).await.map_err(lost)?;
                stream
            }
            None => {
                let leader = self.manager.leader_address().ok_or_else(|| {
                    Error::unavailable(format_args!("node {} cannot be reached", self.node_name))
                })?;
                let relay = Purpose::Relay {
                    node_id: self.node_id.clone(),
                };
                self.manager.link.open(&leader, &relay).await?
            }
        };
        frame::send(&mut stream, &question).await.map_err(lost)?;
        let reply: Result<Reply> = frame::receive(&mut stream, frame::MAX).await.map_err(lost)?;
        Ok((stream, reply?))
    }

    async fn process(&self, question: Question) -> Result<Process> {
        let (stream, _) = self.ask(question).await?;
        let (mut reading, mut writing) = tokio::io::split(stream);
        let (input, mut items) = mpsc::channel::<ProcessInput>(QUEUE);
        tokio::spawn(async move {
            while let Some(item) = items.recv().await {
                if wire::put(&mut writing, &wire::Input::from(item)).await.is_err() {
                    return;
                }
            }
            // Its end tells the node that the client went away, unless the process ended before.
            let _ = writing.shutdown().await;
        });
        let (sender, output) = mpsc::channel::<Result<ProcessOutput>>(QUEUE);
        tokio::spawn(async move {
            loop {
                let item = match wire::take::<Result<ProcessOutput>>(&mut reading).await {
                    Ok(Some(item)) => item,
                    Ok(None) => return,
                    Err(e) => Err(e),
                };
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Process {
            input,
            output: received(output),
        })
    }
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
    .boxed()
}

impl From<ProcessInput> for wire::Input {
    fn from(input: ProcessInput) -> Self {
        match input {
            ProcessInput::Stdin(bytes) => Self::Stdin(bytes),
            ProcessInput::CloseStdin => Self::CloseStdin,
            ProcessInput::Resize { height, width } => Self::Resize(height, width),
        }
    }
}

#[async_trait]
impl NodeDoor for RemoteDoor {
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogRecord>>> {
        let (stream, _) = self.ask(Question::Logs(request)).await?;
        let records = futures::stream::unfold(Some(stream), |stream| async {
            let mut stream = stream?;
            match wire::take::<Option<Result<LogRecord>>>(&mut stream).await {
                Ok(Some(Some(record))) => Some((record, Some(stream))),
                Ok(Some(None)) => None,
                Ok(None) => Some((Err(broken("it ended")), None)),
                Err(e) => Some((Err(e), None)),
            }
        });
        Ok(records.boxed())
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process> {
        self.process(Question::Exec(request)).await
    }

    async fn attach(&self, request: AttachRequest) -> Result<Process> {
        self.process(Question::Attach(request)).await
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<Box<dyn ByteStream>> {
        let (stream, _) = self.ask(Question::PortForward(request)).await?;
        Ok(Box::new(stream))
    }

    async fn stats(&self) -> Result<NodeStats> {
        match self.ask(Question::Stats).await?.1 {
            Reply::Stats(stats) => Ok(*stats),
            _ => Err(mismatch()),
        }
    }

    async fn image(&self, name: &str) -> Result<ImageOffer> {
        match self.ask(Question::Image(name.to_owned())).await?.1 {
            Reply::Image(offer) => Ok(*offer),
            _ => Err(mismatch()),
        }
    }

    async fn blob(&self, digest: &str, from: u64) -> Result<Blob> {
        let digest = digest.to_owned();
        match self.ask(Question::Blob { digest, from }).await? {
            (stream, Reply::Blob(size)) => Ok(Blob {
                size,
                data: Box::pin(stream),
            }),
            _ => Err(mismatch()),
        }
    }
}
