//! Lanes: connections between managers that carry appends and votes of the Raft group, and nothing else.
//!
//! A write waits for them, so nothing is in their way: no other streams, and no other thread. Who dials does so on
//! the store's thread, where openraft asks; who is dialled moves the connection to its own store's thread after the
//! handshake. A request is answered before the next is sent on the same lane. The first message of a lane says which
//! run of a daemon dialled (u64, little-endian).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, client, server};
use tokio_util::sync::CancellationToken;
use tripod_model::node::NodeRole;
use tripod_raft::{Cluster, NodeId, Request, Response, TransportError};

use super::message::{Answer, Call};
use super::tls::{Holder, LANE, manager_name};
use super::{Link, frame, pool};

/// How long a manager may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// How long a manager may take to say which run of its daemon it is.
const WHO: Duration = Duration::from_millis(700);
/// Lanes to one manager that are kept when nothing is asked.
const IDLE: usize = 2;

/// A connection that can change its runtime.
pub(crate) struct Io(Option<TcpStream>);

impl Io {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self(Some(tcp))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.0.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

type Lane = client::TlsStream<TcpStream>;

#[derive(Default)]
struct Slot {
    idle: Vec<Lane>,
    /// A dial under way, and how it ended.
    dialling: Option<watch::Receiver<Option<Result<(), String>>>>,
}

/// The lanes that this node dialled, by address.
#[derive(Clone, Default)]
pub(super) struct Lanes(Arc<Mutex<HashMap<String, Slot>>>);

impl Lanes {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up all lanes: they were made with an identity that is no longer this node's.
    pub(super) fn clear(&self) {
        self.slots().clear();
    }

    fn idle(&self, address: &str) -> Option<Lane> {
        self.slots().get_mut(address)?.idle.pop()
    }

    /// Keeps a lane for the next request.
    fn keep(&self, address: &str, lane: Lane) {
        if let Some(slot) = self.slots().get_mut(address)
            && slot.idle.len() < IDLE
        {
            slot.idle.push(lane);
        }
    }

    /// A lane that was just made. A dial goes on when the caller gives up waiting, for the next one.
    async fn dial(&self, address: &str, config: Arc<ClientConfig>, instance: u64) -> Result<Lane, String> {
        loop {
            let mut dialling = {
                let mut slots = self.slots();
                let slot = slots.entry(address.to_owned()).or_default();
                let going = slot
                    .dialling
                    .clone()
                    .filter(|d| d.borrow().is_none() && d.has_changed().is_ok());
                match going {
                    Some(dialling) => dialling,
                    None => {
                        let (done, dialling) = watch::channel(None);
                        let (lanes, to, config) = (self.clone(), address.to_owned(), config.clone());
                        tokio::spawn(async move {
                            let dialled = connect(&to, config, instance).await;
                            done.send_replace(Some(dialled.map(|lane| lanes.keep(&to, lane))));
                        });
                        slot.dialling = Some(dialling.clone());
                        dialling
                    }
                }
            };
            let done = dialling.wait_for(Option::is_some).await;
            match done.as_deref() {
                Ok(Some(Err(why))) => return Err(why.clone()),
                Ok(_) => {}
                Err(_) => return Err("the connection was given up".into()),
            }
            // Another request may have been faster.
            if let Some(lane) = self.idle(address) {
                return Ok(lane);
            }
        }
    }
}

async fn connect(address: &str, config: Arc<ClientConfig>, instance: u64) -> Result<Lane, String> {
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        pool::tune(&tcp);
        let mut lane = TlsConnector::from(config).connect(manager_name(), tcp).await?;
        frame::write(&mut lane, &instance.to_le_bytes()).await?;
        Ok::<_, io::Error>(lane)
    };
    match tokio::time::timeout(CONNECT, connect).await {
        Ok(lane) => lane.map_err(|e| format!("{address}: {e}")),
        Err(_) => Err(format!("{address}: i/o timeout")),
    }
}

async fn exchange(lane: &mut Lane, question: &[u8]) -> io::Result<Vec<u8>> {
    frame::write(lane, question).await?;
    let answer = frame::read(lane, frame::MAX).await?;
    answer.ok_or(io::ErrorKind::UnexpectedEof.into())
}

impl Link {
    /// Asks a manager over a lane.
    pub(super) async fn by_lane(&self, address: &str, request: Request) -> Result<Response, TransportError> {
        let (question, _) = request.encode()?;
        let lanes = &self.0.lanes;
        if let Some(mut lane) = lanes.idle(address) {
            // One that broke while it was idle says nothing about the manager; appends and votes may be repeated.
            if let Ok(answer) = exchange(&mut lane, &question).await {
                lanes.keep(address, lane);
                return Response::decode(&answer);
            }
        }
        let config = self.lane().map_err(|e| TransportError::NotSent(e.message))?;
        let dialled = lanes.dial(address, config, self.instance()).await;
        let mut lane = dialled.map_err(TransportError::NotSent)?;
        let answer = exchange(&mut lane, &question).await;
        let answer = answer.map_err(|e| TransportError::Lost(format!("{address}: {e}")))?;
        lanes.keep(address, lane);
        Response::decode(&answer)
    }

    /// Answers a lane until it ends, unless it is that of a stranger or of a copy of another manager.
    pub(super) async fn admit_lane(
        &self,
        mut tls: server::TlsStream<Io>,
        holder: Option<Holder>,
        from: SocketAddr,
        stop: CancellationToken,
    ) {
        let ours = self.tls().map(|tls| tls.cluster_id).unwrap_or_default();
        let member = holder.is_some_and(|h| h.role == NodeRole::Manager && h.cluster_id == ours);
        let Some(cluster) = self.cluster().filter(|_| member) else {
            tracing::debug!(%from, "a lane was turned away");
            return;
        };
        let begun = tokio::select! {
            begun = begin(&mut tls) => begun,
            () = stop.cancelled() => return,
        };
        let (instance, sender, first) = match begun {
            Ok(begun) => begun,
            Err(error) => return tracing::debug!(%from, %error, "a lane ended before it was used"),
        };
        if self.is_copy(&cluster, sender, instance).await {
            return tracing::warn!(
                %from, "a copy of a manager's data root wants to take part in the group and is refused"
            );
        }
        let link = self.clone();
        cluster.spawn(async move {
            let serving = async {
                match moved(tls) {
                    Ok(lane) => link.answer_lane(lane, first).await,
                    Err(e) => Err(lost(e)),
                }
            };
            let ended = tokio::select! {
                ended = serving => ended,
                () = stop.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a lane ended");
            }
        });
    }

    /// Whether another run of a daemon is at the address of the manager that somebody says to be. If nobody is, the
    /// manager has moved.
    async fn is_copy(&self, cluster: &Cluster, sender: NodeId, instance: u64) -> bool {
        if sender == cluster.node_id() {
            return true;
        }
        let metrics = cluster.metrics();
        let known = metrics
            .voters
            .get(&sender)
            .or_else(|| metrics.learners.get(&sender));
        let Some(address) = known else { return false };
        let asked = tokio::time::timeout(WHO, self.call(address, Call::Instance));
        matches!(asked.await, Ok(Ok(Answer::Instance(there))) if there != instance)
    }

    async fn answer_lane(
        &self,
        mut lane: server::TlsStream<Io>,
        first: Request,
    ) -> Result<(), TransportError> {
        let mut next = Some(first);
        while let Some(question) = next {
            // Another store, or none, after the node left or was given another role.
            let Some(cluster) = self.cluster() else {
                return Ok(());
            };
            let answer = cluster.handle(question).await;
            frame::write(&mut lane, &answer.encode()?).await.map_err(lost)?;
            next = asked(&mut lane).await?;
        }
        Ok(())
    }
}

fn lost(e: io::Error) -> TransportError {
    TransportError::Lost(e.to_string())
}

/// The next request on a lane; `None` at its end.
async fn asked(lane: &mut server::TlsStream<Io>) -> Result<Option<Request>, TransportError> {
    let Some(question) = frame::read(lane, frame::MAX).await.map_err(lost)? else {
        return Ok(None);
    };
    if Request::has_content(&question)? {
        return Err(lost(io::ErrorKind::InvalidData.into()));
    }
    Request::decode(&question, None).map(Some)
}

/// Which run of a daemon dialled, as which manager of the group, and its first request.
async fn begin(lane: &mut server::TlsStream<Io>) -> Result<(u64, NodeId, Request), TransportError> {
    let instance = frame::read(lane, frame::MAX_STRANGER).await.map_err(lost)?;
    let instance = instance
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let (Some(instance), Some(first)) = (instance, asked(lane).await?) else {
        return Err(lost(io::ErrorKind::UnexpectedEof.into()));
    };
    let sender = first
        .sender()
        .ok_or_else(|| lost(io::ErrorKind::InvalidData.into()))?;
    Ok((instance, sender, first))
}

/// Whether the caller wants a lane.
pub(super) fn is_lane(tls: &server::TlsStream<Io>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(LANE)
}

/// Takes a connection over into the runtime that this is called in.
fn moved(mut tls: server::TlsStream<Io>) -> io::Result<server::TlsStream<Io>> {
    let io = tls.get_mut().0;
    if let Some(tcp) = io.0.take() {
        io.0 = Some(TcpStream::from_std(tcp.into_std()?)?);
    }
    Ok(tls)
}
