//! A process behind a WebSocket: each message starts with the number of its channel.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::Mutex;
use tripod_engine::Process;
use tripod_model::door::{ProcessInput, ProcessOutput};

use super::Upgraded;
use super::process::outcome;
use super::websocket::{Message, Sink, Source};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Of version 5: the channel that follows is closed.
const CLOSE: u8 = 255;

/// Carries a process's streams until it ends or the client goes.
pub(super) async fn carry(connection: Upgraded, mut process: Process) {
    let (reader, writer) = tokio::io::split(connection);
    let sink = Arc::new(Mutex::new(Sink::new(writer)));
    let input = process.input.clone();
    let pongs = sink.clone();
    let reading = async move {
        let mut source = Source::new(reader);
        while let Some(message) = source.next().await {
            match message {
                Message::Data(bytes) => {
                    if let Some(item) = read(&bytes)
                        && input.send(item).await.is_err()
                    {
                        // The process has ended: what is left to read is what it wrote.
                        std::future::pending::<()>().await;
                    }
                }
                Message::Ping(body) => {
                    if pongs.lock().await.pong(&body).await.is_err() {
                        return;
                    }
                }
                Message::Close => return,
            }
        }
    };
    let writing = async {
        let mut end = None;
        while let Some(item) = process.output.next().await {
            let mut sink = sink.lock().await;
            let sent = match item {
                Ok(ProcessOutput::Stdout(bytes)) => sink.binary(&[STDOUT], &bytes).await,
                Ok(ProcessOutput::Stderr(bytes)) => sink.binary(&[STDERR], &bytes).await,
                Ok(ProcessOutput::Exit(code)) => {
                    end = Some(Ok(code));
                    Ok(())
                }
                Err(e) => {
                    end = Some(Err(e));
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
        let status = outcome(end.unwrap_or(Ok(0))).to_string();
        let mut sink = sink.lock().await;
        // A client that has gone does not read it.
        let _ = sink.binary(&[ERROR], status.as_bytes()).await;
        let _ = sink.close().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

fn read(message: &Bytes) -> Option<ProcessInput> {
    let (&channel, body) = message.split_first()?;
    match channel {
        STDIN if body.is_empty() => None,
        STDIN => Some(ProcessInput::Stdin(message.slice(1..))),
        RESIZE => size(body),
        CLOSE if body == [STDIN] => Some(ProcessInput::CloseStdin),
        _ => None,
    }
}

/// The size of a terminal, `{"Width":W,"Height":H}`.
pub(super) fn size(text: &[u8]) -> Option<ProcessInput> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let of = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(ProcessInput::Resize {
        height: of("Height")?,
        width: of("Width")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels() {
        assert_eq!(
            read(&Bytes::from_static(b"\0hi")),
            Some(ProcessInput::Stdin(Bytes::from_static(b"hi")))
        );
        assert_eq!(
            read(&Bytes::from_static(b"\xff\0")),
            Some(ProcessInput::CloseStdin)
        );
        let resize = Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}");
        assert_eq!(
            read(&resize),
            Some(ProcessInput::Resize {
                height: 24,
                width: 80
            })
        );
        assert_eq!(read(&Bytes::new()), None);
        assert_eq!(read(&Bytes::from_static(b"\x09x")), None);
    }
}
