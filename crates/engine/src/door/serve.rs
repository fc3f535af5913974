//! This node's door, for those who ask over the network.

use futures::StreamExt as _;
use tokio::io::{AsyncWriteExt as _, ReadHalf};
use tokio::sync::mpsc;
use tripod_model::door::{LogRecord, ProcessInput};
use tripod_model::{Error, Result};

use super::wire::{self, Question, Reply, broken};
use super::{Blob, Process};
use crate::engine::Engine;
use crate::link::frame;
use crate::link::message::Purpose;
use crate::link::mux::Stream;

/// Answers one question about this node.
pub(crate) async fn serve(engine: &Engine, mut stream: Stream) {
    let question = match frame::receive(&mut stream, frame::MAX).await {
        Ok(question) => question,
        Err(_) => return,
    };
    if let Err(error) = answer(engine, question, stream).await {
        tracing::debug!(%error, "a question about this node was not answered");
    }
}

/// Answers, or says why not.
async fn answer(engine: &Engine, question: Question, mut stream: Stream) -> Result<()> {
    let Some(door) = engine.own_door() else {
        return refuse(&mut stream, Error::unavailable("this node has no agent")).await;
    };
    match question {
        Question::Logs(request) => match door.logs(request).await {
            Ok(mut records) => {
                reply(&mut stream, Reply::Open).await?;
                let (mut reading, mut writing) = tokio::io::split(stream);
                loop {
                    tokio::select! {
                        record = records.next() => match record {
                            Some(record) => wire::put(&mut writing, &Some(record)).await?,
                            None => break,
                        },
                        // Nothing is sent this way: who asked went away.
                        _ = frame::read(&mut reading, frame::MAX) => return Ok(()),
                    }
                }
                // A stream that ends without it was cut off.
                wire::put(&mut writing, &None::<Result<LogRecord>>).await?;
                writing.shutdown().await.map_err(broken)
            }
            Err(e) => refuse(&mut stream, e).await,
        },
        Question::Exec(request) => process(door.exec(request).await, stream).await,
        Question::Attach(request) => process(door.attach(request).await, stream).await,
        Question::PortForward(request) => match door.port_forward(request).await {
            Ok(mut connection) => {
                reply(&mut stream, Reply::Open).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut connection)
                    .await
                    .map(drop)
                    .map_err(broken)
            }
            Err(e) => refuse(&mut stream, e).await,
        },
        Question::Stats => {
            let stats = door.stats().await.map(|stats| Reply::Stats(Box::new(stats)));
            frame::send(&mut stream, &stats).await.map_err(broken)?;
            stream.shutdown().await.map_err(broken)
        }
        Question::Image(name) => {
            let offer = door.image(&name).await.map(|offer| Reply::Image(Box::new(offer)));
            frame::send(&mut stream, &offer).await.map_err(broken)?;
            stream.shutdown().await.map_err(broken)
        }
        Question::Blob { digest, from } => blob(door.blob(&digest, from).await, stream).await,
    }
}

async fn reply(stream: &mut Stream, reply: Reply) -> Result<()> {
    frame::send(stream, &Ok::<_, Error>(reply)).await.map_err(broken)
}

async fn refuse(stream: &mut Stream, error: Error) -> Result<()> {
    frame::send(stream, &Err::<Reply, _>(error))
        .await
        .map_err(broken)?;
    stream.shutdown().await.map_err(broken)
}

/// The answer to a question for content: bytes in all.
pub(crate) async fn expect_blob(stream: &mut Stream) -> Result<u64> {
    let reply: Result<Reply> = frame::receive(stream, frame::MAX).await.map_err(broken)?;
    match reply? {
        Reply::Blob(size) => Ok(size),
        _ => Err(Error::internal("an answer to another question")),
    }
}

/// Sends content.
pub(crate) async fn blob(found: Result<Blob>, mut stream: Stream) -> Result<()> {
    match found {
        Ok(mut blob) => {
            reply(&mut stream, Reply::Blob(blob.size)).await?;
            tokio::io::copy(&mut blob.data, &mut stream)
                .await
                .map_err(broken)?;
            stream.shutdown().await.map_err(broken)
        }
        Err(e) => refuse(&mut stream, e).await,
    }
}

async fn process(started: Result<Process>, mut stream: Stream) -> Result<()> {
    let Process { input, mut output } = match started {
        Ok(process) => process,
        Err(e) => return refuse(&mut stream, e).await,
    };
    reply(&mut stream, Reply::Open).await?;
    let (reading, mut writing) = tokio::io::split(stream);
    let inputs = tokio::spawn(pass_input(reading, input));
    let written = async {
        while let Some(item) = output.next().await {
            wire::put(&mut writing, &item).await?;
        }
        writing.shutdown().await.map_err(broken)
    };
    let written = written.await;
    inputs.abort();
    written
}

/// Passes a client's input on. When the client goes away its input is dropped, which detaches it.
async fn pass_input(mut reading: ReadHalf<Stream>, input: mpsc::Sender<ProcessInput>) {
    while let Ok(Some(item)) = wire::take::<wire::Input>(&mut reading).await {
        let item = match item {
            wire::Input::Stdin(bytes) => ProcessInput::Stdin(bytes),
            wire::Input::CloseStdin => ProcessInput::CloseStdin,
            wire::Input::Resize(height, width) => ProcessInput::Resize { height, width },
        };
        if input.send(item).await.is_err() {
            return;
        }
    }
}

/// Connects who asks with a node that has its session with this manager.
pub(crate) async fn relay(engine: &Engine, node_id: &str, mut stream: Stream) {
    let manager = match engine.manager() {
        Ok(manager) => manager,
        Err(_) => return,
    };
    if manager.node_id() == node_id {
        return serve(engine, stream).await;
    }
    let opened = async {
        let mux = manager.sessions.connections.get(node_id);
        let mux = mux.ok_or(std::io::ErrorKind::NotConnected)?;
        let mut onward = mux.open().await?;
        frame::send(&mut onward, &Purpose::Door).await?;
        Ok::<_, std::io::Error>(onward)
    };
    match opened.await {
        Ok(mut onward) => {
            // Either side may end it; that is how such streams end.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        }
        Err(_) => {
            let error = Error::unavailable(format_args!("node {node_id} cannot be reached"));
            let _ = refuse(&mut stream, error).await;
        }
    }
}
