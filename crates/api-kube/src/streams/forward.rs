//! `portforward`: over SPDY, over SPDY inside of a WebSocket, and over the channels of a WebSocket.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tripod_engine::NodeDoor;
use tripod_model::door::{ContainerTarget, PortForwardRequest};
use tripod_schema::Failure;

use super::websocket::{Message, Sink, Source};
use super::{Transport, Upgraded, node_failure, pod, spdy, transport, upgrade};
use crate::call::Call;
use crate::reply::Reply;
use crate::target::Target;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOLS: [&str; 4] = [
    TUNNEL,
    "portforward.k8s.io",
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
];

pub(super) async fn serve(call: &Call, target: &Target) -> Reply {
    let pod = pod(call, target)?;
    let text = |path: &[&str]| tripod_schema::value::text(&pod, path).to_owned();
    let node = text(&["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Failure::bad_request(format_args!(
            "pod {} does not have a host assigned",
            target.name
        )));
    }
    let who = ContainerTarget {
        namespace: text(&["metadata", "namespace"]),
        pod: text(&["metadata", "name"]),
        uid: text(&["metadata", "uid"]),
        container: String::new(),
    };
    let mut ports = Vec::new();
    for port in call.query.all("ports").flat_map(|p| p.split(',')) {
        let number = port.parse::<u16>().ok().filter(|p| *p > 0);
        ports.push(
            number.ok_or_else(|| Failure::bad_request(format_args!("unable to parse {port:?} as a port")))?,
        );
    }
    let transport = transport(call, &PROTOCOLS)?;
    let door = call.manager.door(&node).map_err(|e| node_failure(&e))?;
    let (response, coming) = upgrade(call, &transport);
    tokio::spawn(async move {
        let Some(connection) = coming.await else { return };
        match transport {
            Transport::Spdy { .. } => spdy::forward(connection, door, who).await,
            Transport::WebSocket { protocol, .. } if protocol.as_deref() == Some(TUNNEL) => {
                spdy::forward(tunnel(connection), door, who).await;
            }
            Transport::WebSocket { .. } => channels(connection, door, who, ports).await,
        }
    });
    Ok(response)
}

/// The bytes that travel in the messages of a WebSocket.
struct Tunnel {
    incoming: mpsc::Receiver<Bytes>,
    rest: Bytes,
    outgoing: tokio_util::sync::PollSender<Bytes>,
}

fn tunnel(connection: Upgraded) -> Tunnel {
    let (reader, writer) = tokio::io::split(connection);
    let (up, incoming) = mpsc::channel(16);
    let (outgoing, mut down) = mpsc::channel::<Bytes>(16);
    let sink = Arc::new(Mutex::new(Sink::new(writer)));
    let pongs = sink.clone();
    tokio::spawn(async move {
        let mut source = Source::new(reader);
        while let Some(message) = source.next().await {
            let fine = match message {
                Message::Data(bytes) => up.send(bytes).await.is_ok(),
                Message::Ping(body) => pongs.lock().await.pong(&body).await.is_ok(),
                Message::Close => false,
            };
            if !fine {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(bytes) = down.recv().await {
            if sink.lock().await.binary(&[], &bytes).await.is_err() {
                return;
            }
        }
        let _ = sink.lock().await.close().await;
    });
    Tunnel {
        incoming,
        rest: Bytes::new(),
        outgoing: tokio_util::sync::PollSender::new(outgoing),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.incoming.poll_recv(cx)) {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        std::task::ready!(self.outgoing.poll_reserve(cx)).map_err(|_| gone())?;
        self.outgoing
            .send_item(Bytes::copy_from_slice(bytes))
            .map_err(|_| gone())?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

/// Ports over channels: 2n carries the bytes of the n-th port, 2n+1 what went wrong; each starts with the port's number.
async fn channels(connection: Upgraded, door: Arc<dyn NodeDoor>, who: ContainerTarget, ports: Vec<u16>) {
    let (reader, writer) = tokio::io::split(connection);
    let sink = Arc::new(Mutex::new(Sink::new(writer)));
    let mut senders: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    let mut connections = tokio::task::JoinSet::new();
    for (i, port) in ports.into_iter().enumerate().take(64) {
        let channel = (2 * i) as u8;
        let (sender, mut incoming) = mpsc::channel::<Bytes>(16);
        senders.insert(channel, sender);
        for number in [channel, channel + 1] {
            if sink
                .lock()
                .await
                .binary(&[number], &port.to_le_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
        let (sink, door, target) = (sink.clone(), door.clone(), who.clone());
        connections.spawn(async move {
            let stream = match door.port_forward(PortForwardRequest { target, port }).await {
                Ok(stream) => stream,
                Err(e) => {
                    let text = format!("an error occurred forwarding {port}: {e}");
                    let _ = sink.lock().await.binary(&[channel + 1], text.as_bytes()).await;
                    return;
                }
            };
            let (mut from, mut to) = tokio::io::split(stream);
            let up = async {
                while let Some(bytes) = incoming.recv().await {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            let down = async {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(n @ 1..) = from.read(&mut buffer).await {
                    if sink.lock().await.binary(&[channel], &buffer[..n]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        });
    }
    let reading = async {
        let mut source = Source::new(reader);
        while let Some(message) = source.next().await {
            match message {
                Message::Data(bytes) => {
                    if let Some(sender) = bytes.first().and_then(|c| senders.get(c)) {
                        let _ = sender.send(bytes.slice(1..)).await;
                    }
                }
                Message::Ping(body) => {
                    if sink.lock().await.pong(&body).await.is_err() {
                        return;
                    }
                }
                Message::Close => return,
            }
        }
    };
    let ended = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = reading => {}
        () = ended => {}
    }
    let _ = sink.lock().await.close().await;
}
