//! Streams over SPDY/3.1: a process, or connections to ports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::{Mutex, mpsc};
use tripod_engine::{NodeDoor, Process};
use tripod_model::door::{ContainerTarget, PortForwardRequest, ProcessInput, ProcessOutput};

use super::channel::size;
use super::process::{Wanted, outcome};
use super::spdy_frame::{Deflate, Frame, Source, data, go_away, ping, reset};

/// The client must open its streams within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The half that writes, shared by all streams.
struct Writer<S>(Mutex<(WriteHalf<S>, Deflate)>);

impl<S: AsyncRead + AsyncWrite + Send> Writer<S> {
    async fn send(&self, frame: &[u8]) -> std::io::Result<()> {
        let mut inner = self.0.lock().await;
        inner.0.write_all(frame).await?;
        inner.0.flush().await
    }

    async fn accept(&self, id: u32) -> std::io::Result<()> {
        let mut inner = self.0.lock().await;
        let frame = inner.1.reply(id)?;
        inner.0.write_all(&frame).await?;
        inner.0.flush().await
    }

    async fn shutdown(&self) {
        let mut inner = self.0.lock().await;
        // The client may have gone already.
        let _ = inner.0.shutdown().await;
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map_or("", |(_, v)| v.as_str())
}

/// Carries a process's streams until it ends or the client goes.
pub(super) async fn carry<S>(connection: S, mut process: Process, wanted: Wanted)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(connection);
    let writer = Writer(Mutex::new((writer, Deflate::default())));
    let mut source = Source::new(reader);
    let mut expected = vec!["error"];
    let flags = [
        (wanted.stdin, "stdin"),
        (wanted.stdout, "stdout"),
        (wanted.stderr, "stderr"),
        (wanted.tty, "resize"),
    ];
    expected.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name));
    let mut streams: HashMap<String, u32> = HashMap::new();
    let opening = async {
        while !expected.iter().all(|name| streams.contains_key(*name)) {
            match source.next().await? {
                Frame::Open { id, headers, .. } => {
                    writer.accept(id).await.ok()?;
                    streams.insert(header(&headers, "streamtype").to_owned(), id);
                }
                Frame::Ping { id } => writer.send(&ping(id)).await.ok()?,
                Frame::GoAway => return None,
                _ => {}
            }
        }
        Some(())
    };
    if !matches!(tokio::time::timeout(PATIENCE, opening).await, Ok(Some(()))) {
        return writer.shutdown().await;
    }
    let input = process.input.clone();
    let of = |name: &str| streams.get(name).copied();
    let (stdin, resize) = (of("stdin"), of("resize"));
    let reading = async {
        while let Some(frame) = source.next().await {
            let item = match frame {
                Frame::Data { id, bytes, last } if Some(id) == stdin => {
                    if !bytes.is_empty() && input.send(ProcessInput::Stdin(bytes)).await.is_err() {
                        continue;
                    }
                    last.then_some(ProcessInput::CloseStdin)
                }
                Frame::Data { id, bytes, .. } if Some(id) == resize => size(&bytes),
                Frame::Reset { id } if Some(id) == stdin => Some(ProcessInput::CloseStdin),
                Frame::Ping { id } => {
                    if writer.send(&ping(id)).await.is_err() {
                        return;
                    }
                    None
                }
                Frame::GoAway => return,
                _ => None,
            };
            if let Some(item) = item {
                // A process that has ended takes nothing more; what it wrote is still to be sent.
                let _ = input.send(item).await;
            }
        }
    };
    let writing = async {
        let mut end = Ok(0);
        while let Some(item) = process.output.next().await {
            let frame = match item {
                Ok(ProcessOutput::Stdout(bytes)) => of("stdout").map(|id| data(id, &bytes, false)),
                Ok(ProcessOutput::Stderr(bytes)) => of("stderr").map(|id| data(id, &bytes, false)),
                Ok(ProcessOutput::Exit(code)) => {
                    end = Ok(code);
                    None
                }
                Err(e) => {
                    end = Err(e);
                    None
                }
            };
            if let Some(frame) = frame
                && writer.send(&frame).await.is_err()
            {
                return;
            }
        }
        for name in ["stdout", "stderr"] {
            if let Some(id) = of(name) {
                let _ = writer.send(&data(id, b"", true)).await;
            }
        }
        if let Some(id) = of("error") {
            let status = outcome(end).to_string();
            let _ = writer.send(&data(id, status.as_bytes(), true)).await;
        }
        let _ = writer
            .send(&go_away(streams.values().copied().max().unwrap_or(0)))
            .await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    writer.shutdown().await;
}

/// What a stream of a forwarded port is.
enum Role {
    /// Bytes for the port.
    Data(mpsc::Sender<Option<Bytes>>),
    /// Says what went wrong.
    Error,
}

/// Forwards ports of a pod: each connection is a pair of streams.
pub(super) async fn forward<S>(connection: S, door: Arc<dyn NodeDoor>, pod: ContainerTarget)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(connection);
    let writer = Arc::new(Writer(Mutex::new((writer, Deflate::default()))));
    let mut source = Source::new(reader);
    let mut roles: HashMap<u32, Role> = HashMap::new();
    // The error stream of each request that waits for its data stream.
    let mut errors: HashMap<String, u32> = HashMap::new();
    let mut connections = tokio::task::JoinSet::new();
    while let Some(frame) = source.next().await {
        match frame {
            Frame::Open { id, headers, .. } => {
                if writer.accept(id).await.is_err() {
                    break;
                }
                let request = header(&headers, "requestid").to_owned();
                let port: Option<u16> = header(&headers, "port").parse().ok();
                match (header(&headers, "streamtype"), port) {
                    ("error", _) => {
                        errors.insert(request, id);
                        roles.insert(id, Role::Error);
                    }
                    ("data", Some(port)) => {
                        let (bytes, incoming) = mpsc::channel(16);
                        roles.insert(id, Role::Data(bytes));
                        let error = errors.remove(&request);
                        let (writer, door, pod) = (writer.clone(), door.clone(), pod.clone());
                        connections.spawn(async move {
                            pipe(
                                &*writer,
                                door,
                                PortForwardRequest { target: pod, port },
                                id,
                                error,
                                incoming,
                            )
                            .await;
                        });
                    }
                    _ => {
                        let _ = writer.send(&reset(id)).await;
                    }
                }
            }
            Frame::Data { id, bytes, last } => {
                let Some(Role::Data(sender)) = roles.get(&id) else {
                    continue;
                };
                if !bytes.is_empty() {
                    // A connection that has ended takes no more.
                    let _ = sender.send(Some(bytes)).await;
                }
                if last {
                    let _ = sender.send(None).await;
                }
            }
            Frame::Reset { id } => drop(roles.remove(&id)),
            Frame::Ping { id } => {
                if writer.send(&ping(id)).await.is_err() {
                    break;
                }
            }
            Frame::GoAway => break,
            Frame::Other => {}
        }
    }
    drop(connections);
    writer.shutdown().await;
}

async fn pipe<S: AsyncRead + AsyncWrite + Send>(
    writer: &Writer<S>,
    door: Arc<dyn NodeDoor>,
    request: PortForwardRequest,
    id: u32,
    error: Option<u32>,
    mut incoming: mpsc::Receiver<Option<Bytes>>,
) {
    let port = request.port;
    let fail = async |text: String| {
        if let Some(error) = error {
            let _ = writer.send(&data(error, text.as_bytes(), true)).await;
        }
    };
    let stream = match door.port_forward(request).await {
        Ok(stream) => stream,
        Err(e) => {
            fail(format!("an error occurred forwarding {port} -> {port}: {e}")).await;
            let _ = writer.send(&data(id, b"", true)).await;
            return;
        }
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let up = async {
        while let Some(Some(bytes)) = incoming.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if writer.send(&data(id, &buffer[..n], false)).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = writer.send(&data(id, b"", true)).await;
        if let Some(error) = error {
            let _ = writer.send(&data(error, b"", true)).await;
        }
    };
    tokio::join!(up, down);
}
