//! The connections between the nodes of a cluster: one port, mutual TLS, many streams.
//!
//! A manager listens; every node dials managers. The first message of a stream says what it is for
//! ([`message::Purpose`]): a question, a request of the Raft group, a node's session, or a stream to a node.

pub(crate) mod frame;
mod lanes;
pub(crate) mod message;
pub(crate) mod mux;
pub(crate) mod pool;
mod raft;
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ClientConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tripod_model::node::NodeRole;
use tripod_model::{Error, Result};
use tripod_raft::Cluster;

use lanes::{Io, Lanes};
use message::{Answer, Asker, Call, Purpose};
use mux::{Mux, Side, Stream};
use pool::Pool;
pub(crate) use raft::{Reach, answer as answer_raft};
use tls::{Holder, Tls};

/// How long a stranger may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once.
const HANDSHAKES: usize = 64;
/// How long a question may take, that of a manager who is to catch up included.
const CALL: Duration = Duration::from_secs(60);

/// Who is at the other end of a stream that was accepted.
#[derive(Clone)]
pub(crate) struct Caller {
    /// By its certificate; `None` for a stranger.
    pub(crate) holder: Option<Holder>,
    /// Where it calls from.
    pub(crate) address: IpAddr,
    /// Its connection.
    pub(crate) mux: Mux,
}

impl Caller {
    /// As who it asks.
    pub(crate) fn asker(&self) -> Asker {
        Asker {
            node_id: self
                .holder
                .as_ref()
                .map_or_else(String::new, |h| h.node_id.clone()),
            role: self.holder.as_ref().map_or(NodeRole::Worker, |h| h.role),
            address: self.address,
        }
    }
}

/// What answers streams.
pub(crate) type Handler = Arc<dyn Fn(Caller, Stream) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
struct Inner {
    tls: RwLock<Option<Tls>>,
    /// Roots and certificates that `tls` was made of.
    installed: Mutex<String>,
    /// The part of the store that answers the Raft group.
    cluster: RwLock<Option<Cluster>>,
    pool: Pool,
    lanes: Lanes,
    reach: Reach,
    instance: Instance,
}

/// Tells this run of the daemon from others, also from that of a copy of its data root.
struct Instance(u64);

impl Default for Instance {
    fn default() -> Self {
        Self(rand::random())
    }
}

/// This node's side of all connections. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Inner>);

impl Link {
    /// Takes an identity on: PEM of roots, certificate chain and key.
    pub(crate) fn install(&self, roots: &str, chain: &str, key: &str) -> Result<()> {
        let text = format!("{roots}{chain}");
        let mut installed = self.0.installed.lock().unwrap_or_else(PoisonError::into_inner);
        if *installed == text {
            return Ok(());
        }
        let tls = Tls::new(roots, chain, key)?;
        *installed = text;
        *self.0.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
        self.0.pool.clear();
        self.0.lanes.clear();
        Ok(())
    }

    /// Forgets the identity and ends all connections that this node made.
    pub(crate) fn clear(&self) {
        self.0
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        *self.0.tls.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.set_cluster(None);
        self.0.pool.clear();
        self.0.lanes.clear();
        self.0.reach.clear();
    }

    fn tls(&self) -> Result<Tls> {
        let tls = self.0.tls.read().unwrap_or_else(PoisonError::into_inner);
        tls.clone()
            .ok_or_else(|| Error::unavailable("this node has no certificate"))
    }

    /// The configuration for dialling managers.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>> {
        Ok(self.tls()?.client)
    }

    /// The configuration for dialling a lane.
    fn lane(&self) -> Result<Arc<ClientConfig>> {
        Ok(self.tls()?.lane)
    }

    /// Which store answers the Raft group.
    pub(crate) fn set_cluster(&self, cluster: Option<Cluster>) {
        *self.0.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    pub(crate) fn cluster(&self) -> Option<Cluster> {
        let cluster = self.0.cluster.read().unwrap_or_else(PoisonError::into_inner);
        cluster.clone()
    }

    /// Identifies this run of the daemon.
    pub(crate) fn instance(&self) -> u64 {
        self.0.instance.0
    }

    /// Which managers answer.
    pub(crate) fn reach(&self) -> &Reach {
        &self.0.reach
    }

    /// Opens a stream to a manager and says what it is for.
    pub(crate) async fn open(&self, address: &str, purpose: &Purpose) -> Result<Stream> {
        let mux = self.0.pool.get(address, self.client()?).await?;
        let opened = async {
            let mut stream = mux.open().await?;
            frame::send(&mut stream, purpose).await?;
            Ok::<_, std::io::Error>(stream)
        };
        opened
            .await
            .map_err(|e| Error::unavailable(format_args!("{address}: {e}")))
    }

    /// Asks a manager.
    pub(crate) async fn call(&self, address: &str, call: Call) -> Result<Answer> {
        let stream = self.open(address, &Purpose::Call(Box::new(call))).await?;
        answer(stream, address).await
    }

    /// Answers who calls at the address, until `stop` is cancelled.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(crate) async fn listen(
        &self,
        address: SocketAddr,
        handler: Handler,
        stop: CancellationToken,
    ) -> Result<()> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            let why = match e.kind() {
                std::io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
                std::io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".to_owned(),
                _ => e.to_string(),
            };
            Error::internal(format_args!(
                "failed to listen on remote API address: listen tcp {address}: {why}"
            ))
        })?;
        let link = self.clone();
        tokio::spawn(async move {
            let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok((tcp, from)) => {
                        let Ok(permit) = handshakes.clone().acquire_owned().await else {
                            return;
                        };
                        let (link, handler, stop) = (link.clone(), handler.clone(), stop.clone());
                        tokio::spawn(async move {
                            let greeted = tokio::time::timeout(HANDSHAKE, link.greet(tcp)).await;
                            drop(permit);
                            match greeted {
                                Ok(Ok((tls, holder))) if lanes::is_lane(&tls) => {
                                    link.admit_lane(tls, holder, from, stop).await;
                                }
                                Ok(Ok((tls, holder))) => attend(tls, holder, from, handler, stop).await,
                                Ok(Err(error)) => tracing::debug!(%from, %error, "a caller was turned away"),
                                Err(_) => tracing::debug!(%from, "a caller said nothing"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn greet(&self, tcp: TcpStream) -> Result<(tokio_rustls::server::TlsStream<Io>, Option<Holder>)> {
        pool::tune(&tcp);
        let tls = TlsAcceptor::from(self.tls()?.server).accept(Io::new(tcp)).await?;
        let certificate = tls
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let holder = certificate.map(tls::holder).transpose()?;
        Ok((tls, holder))
    }
}

/// Keeps a connection until it ends.
async fn attend(
    tls: tokio_rustls::server::TlsStream<Io>,
    holder: Option<Holder>,
    from: SocketAddr,
    handler: Handler,
    stop: CancellationToken,
) {
    let (streams, mut arriving) = tokio::sync::mpsc::unbounded_channel();
    let mux = Mux::start(tls, Side::Accepted, move |stream| {
        // Nobody takes streams any more when the connection is being ended.
        let _ = streams.send(stream);
    });
    let caller = Caller {
        holder,
        address: from.ip().to_canonical(),
        mux: mux.clone(),
    };
    loop {
        tokio::select! {
            stream = arriving.recv() => match stream {
                Some(stream) => drop(tokio::spawn(handler(caller.clone(), stream))),
                None => return,
            },
            () = stop.cancelled() => return mux.end(),
        }
    }
}

/// Reads the answer to a question.
pub(crate) async fn answer(mut stream: Stream, address: &str) -> Result<Answer> {
    let answer = frame::receive::<Result<Answer>>(&mut stream, frame::MAX);
    match tokio::time::timeout(CALL, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(Error::unavailable(format_args!("{address}: {e}"))),
        Err(_) => Err(Error::timeout(format_args!("{address} does not answer"))),
    }
}

/// Asks a manager as a stranger.
pub(crate) async fn ask_as_stranger(address: &str, config: Arc<ClientConfig>, call: Call) -> Result<Answer> {
    let mux = pool::dial(address, config, |_| {}).await?;
    let opened = async {
        let mut stream = mux.open().await?;
        frame::send(&mut stream, &Purpose::Call(Box::new(call))).await?;
        Ok::<_, std::io::Error>(stream)
    };
    let stream = opened
        .await
        .map_err(|e| Error::unavailable(format_args!("{address}: {e}")))?;
    answer(stream, address).await
}
