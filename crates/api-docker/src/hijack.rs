//! Streams that take over a connection: attach and exec.
//!
//! A client that asks for it (`Upgrade: tcp`) gets 101 and then the raw bytes of both directions. One that does not
//! gets 200 with the output as the body of the response, and its request's body is the input.

use std::borrow::Cow;
use std::future::Future;
use std::ops::ControlFlow;

use bytes::{Buf, Bytes};
use futures::{StreamExt as _, stream};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tripod_agent::ports::{BoxRead, BoxStream, BoxWrite, OutputChunk, OutputStream};
use tripod_edge::empty;
use tripod_model::Result;

use crate::call::Call;
use crate::fault::Fault;
use crate::framing::{self, MULTIPLEXED, RAW, SYSTEM_ERROR};
use crate::reply::{self, Reply};

/// A process's streams and how the client wants them.
pub(crate) struct Session {
    pub(crate) stdin: Option<BoxWrite>,
    pub(crate) output: BoxStream<Result<OutputChunk>>,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    /// Keys that detach the client.
    pub(crate) keys: Option<DetachKeys>,
}

impl Session {
    pub(crate) fn wants(&self, chunk: &OutputChunk) -> bool {
        match chunk.stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}

/// Answers with the streams.
pub(crate) fn serve(mut call: Call, session: Session) -> Reply {
    let kind = if session.tty || call.version.0 < 42 {
        RAW
    } else {
        MULTIPLEXED
    };
    let Some(upgrade) = call.upgrade("tcp") else {
        return unhijacked(kind, call.reader(), session);
    };
    tokio::spawn(upgraded(upgrade, session));
    switching(kind)
}

/// The same for streams that are yet to be opened, after the body of the request was read. A client that takes the
/// connection over is answered first, as the real daemon does: it must have read the head of the answer before the first
/// output comes. An error then is told as output.
pub(crate) async fn serve_when_open(
    client: Client,
    tty: bool,
    open: impl Future<Output = Result<Session>> + Send + 'static,
) -> Reply {
    let kind = if tty || !client.multiplexed {
        RAW
    } else {
        MULTIPLEXED
    };
    let Some(upgrade) = client.upgrade else {
        return unhijacked(kind, Box::new(tokio::io::empty()), open.await?);
    };
    tokio::spawn(async move {
        let connection = match upgrade.await {
            Ok(connection) => TokioIo::new(connection),
            Err(e) => return tracing::debug!("the client went away before its streams began: {e}"),
        };
        let session = open.await.unwrap_or_else(|e| Session {
            stdin: None,
            output: stream::iter([Ok(OutputChunk {
                stream: OutputStream::Stdout,
                data: format!("{}\r\n", e.message).into(),
            })])
            .boxed(),
            stdout: true,
            stderr: true,
            tty,
            keys: None,
        });
        pump(connection, session).await;
    });
    switching(kind)
}

/// How a client wants to be served, taken from the request before its body is read.
pub(crate) struct Client {
    pub(crate) multiplexed: bool,
    pub(crate) upgrade: Option<OnUpgrade>,
}

fn switching(kind: &'static str) -> Reply {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Output as the response's body, input from the request's.
fn unhijacked(kind: &'static str, input: BoxRead, mut session: Session) -> Reply {
    let (keys, stdin) = (session.keys.take(), session.stdin.take());
    // Ends with the response, or when the client sends no more.
    let feeding =
        stdin.map(|stdin| tokio_util::task::AbortOnDropHandle::new(tokio::spawn(feed(input, stdin, keys))));
    let state = (session, feeding);
    let pieces = stream::unfold(state, |(mut session, feeding)| async move {
        loop {
            let chunk = session.output.next().await?;
            match chunk {
                Ok(chunk) if !session.wants(&chunk) => {}
                Ok(chunk) if session.tty => return Some((vec![chunk.data], (session, feeding))),
                Ok(chunk) => {
                    let header = framing::header(framing::number(chunk.stream), chunk.data.len());
                    return Some((
                        vec![Bytes::copy_from_slice(&header), chunk.data],
                        (session, feeding),
                    ));
                }
                Err(e) => {
                    let piece = framing::framed(SYSTEM_ERROR, &[e.message.as_bytes()]);
                    return Some((vec![piece], (session, feeding)));
                }
            }
        }
    });
    let pieces =
        pieces.flat_map(|list| stream::iter(list.into_iter().map(Ok::<Bytes, std::convert::Infallible>)));
    reply::stream(kind, pieces)
}

async fn upgraded(upgrade: OnUpgrade, session: Session) {
    match upgrade.await {
        Ok(connection) => pump(TokioIo::new(connection), session).await,
        Err(e) => tracing::debug!("the client went away before its streams began: {e}"),
    }
}

/// Carries both directions until the output ends or the client leaves.
async fn pump(connection: impl AsyncRead + AsyncWrite + Send + 'static, mut session: Session) {
    let (reader, mut writer) = tokio::io::split(connection);
    let (stdin, keys) = (session.stdin.take(), session.keys.take());
    let input = async move {
        match stdin {
            Some(stdin) => feed(reader, stdin, keys).await,
            None => {
                drain(reader).await;
                Fed::Ended
            }
        }
    };
    {
        let output = write_output(&mut writer, session);
        tokio::pin!(input, output);
        tokio::select! {
            () = &mut output => {}
            fed = &mut input => match fed {
                Fed::Detached => {}
                // Half closed: the output goes on.
                Fed::Ended => output.await,
            },
        }
    }
    let _ = writer.shutdown().await;
}

async fn write_output(writer: &mut (impl AsyncWrite + Unpin), mut session: Session) {
    while let Some(chunk) = session.output.next().await {
        let written = match chunk {
            Ok(chunk) if !session.wants(&chunk) => continue,
            Ok(chunk) if session.tty => writer.write_all(&chunk.data).await,
            Ok(chunk) => {
                let header = framing::header(framing::number(chunk.stream), chunk.data.len());
                writer
                    .write_all_buf(&mut Buf::chain(&header[..], chunk.data))
                    .await
            }
            Err(e) => {
                writer
                    .write_all(&framing::framed(SYSTEM_ERROR, &[e.message.as_bytes()]))
                    .await
            }
        };
        if written.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Reads and forgets: the client's end is noticed.
async fn drain(mut reader: impl AsyncRead + Unpin) {
    let mut buffer = [0; 1024];
    while matches!(reader.read(&mut buffer).await, Ok(n) if n > 0) {}
}

/// How feeding the input ended.
pub(crate) enum Fed {
    /// The client sends no more, or the process reads no more.
    Ended,
    /// The client typed its detach keys.
    Detached,
}

/// Copies the client's bytes to the process; at the end the process's input is closed.
async fn feed(mut reader: impl AsyncRead + Unpin, mut stdin: BoxWrite, mut keys: Option<DetachKeys>) -> Fed {
    let mut buffer = vec![0; 8 << 10];
    loop {
        let n = match reader.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        let (bytes, detach) = match &mut keys {
            None => (Cow::Borrowed(&buffer[..n]), false),
            Some(keys) => {
                let (bytes, detach) = keys.pass(&buffer[..n]);
                (bytes.into(), detach)
            }
        };
        if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
            // The process reads no more; the client may go on listening.
            return Fed::Ended;
        }
        if detach {
            return Fed::Detached;
        }
    }
    let _ = stdin.shutdown().await;
    Fed::Ended
}

/// Gives a piece of input to the process; `Break` when the client detaches or the process reads no more.
pub(crate) async fn attach_input(
    stdin: Option<&mut BoxWrite>,
    keys: Option<&mut DetachKeys>,
    data: &[u8],
) -> ControlFlow<()> {
    let Some(stdin) = stdin else {
        return ControlFlow::Continue(());
    };
    let (bytes, detach) = match keys {
        None => (Cow::Borrowed(data), false),
        Some(keys) => {
            let (bytes, detach) = keys.pass(data);
            (bytes.into(), detach)
        }
    };
    if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() || detach {
        return ControlFlow::Break(());
    }
    ControlFlow::Continue(())
}

/// Keys that, typed one after the other, detach the client.
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q` and the like; nothing is that default.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let key = |word: &str| match word.as_bytes() {
            [one] => Some(*one),
            _ => match word.strip_prefix("ctrl-")?.as_bytes() {
                [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
                [b'@'] => Some(0),
                [b'['] => Some(27),
                [b'\\'] => Some(28),
                [b']'] => Some(29),
                [b'^'] => Some(30),
                [b'_'] => Some(31),
                _ => None,
            },
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or_else(|| Fault::bad(format_args!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, matched: 0 })
    }

    /// What of these bytes goes to the process, and whether the keys are complete. Keys typed in part are held back
    /// until it is clear that they were not meant.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + self.matched);
        for b in bytes {
            if self.keys.get(self.matched) == Some(b) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(b));
            if self.matched == 0 {
                out.push(*b);
            }
        }
        (out, false)
    }
}

impl Call {
    /// Whether the client asks for this protocol instead of HTTP.
    pub(crate) fn wants_upgrade(&self, protocol: &str) -> bool {
        self.header(UPGRADE.as_str())
            .is_some_and(|u| u.eq_ignore_ascii_case(protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys() {
        let mut k = DetachKeys::parse("").unwrap();
        assert_eq!(k.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(k.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(k.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(k.pass(b"\x11z"), (Vec::new(), true));
        assert_eq!(DetachKeys::parse("ctrl-a,x").unwrap().keys, [1, b'x']);
        assert!(DetachKeys::parse("ctrl-!").is_err());
        assert!(DetachKeys::parse("foo").is_err());
    }

    #[tokio::test]
    async fn output_is_framed_and_input_arrives() {
        use futures::stream;
        let (client, server) = tokio::io::duplex(1024);
        let (stdin, mut got) = tokio::io::duplex(1024);
        let chunk = |stream, data: &'static [u8]| {
            Ok(OutputChunk {
                stream,
                data: Bytes::from_static(data),
            })
        };
        let output = stream::iter([
            chunk(OutputStream::Stdout, b"out"),
            chunk(OutputStream::Stderr, b"err"),
        ]);
        // The output stays open until the input has ended, as a process that echoes would.
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        let output = output
            .chain(stream::once(wait).filter_map(|_| async { None }))
            .boxed();
        let session = Session {
            stdin: Some(Box::new(stdin)),
            output,
            stdout: true,
            stderr: true,
            tty: false,
            keys: None,
        };
        let task = tokio::spawn(pump(server, session));
        let (mut reader, mut writer) = tokio::io::split(client);
        writer.write_all(b"hello").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut input = Vec::new();
        got.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"hello");
        drop(ended);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err");
        task.await.unwrap();
    }
}
