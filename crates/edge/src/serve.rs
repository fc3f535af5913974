//! The accept loop and the life of a connection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity;
use crate::linger::{AtOnce, Linger, Lingering};
use crate::listen::Stream;
use crate::{Listener, Peer, Request, Response};

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. When the client goes away, the future is dropped.
    fn handle(&self, request: Request, peer: Arc<Peer>) -> impl Future<Output = Response> + Send;
}

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct Options {
    /// A client must send the head of a request within this time, also on a connection kept alive.
    pub header_timeout: Duration,
    /// Bytes that the head of a request may have.
    pub header_bytes: usize,
    /// Header lines that a request may have.
    pub header_lines: usize,
    /// A TLS handshake must be done within this time.
    pub handshake_timeout: Duration,
    /// At the end, requests under way get this time.
    pub drain: Duration,
    /// How long a client that still sends is heard after the last answer.
    pub linger: Linger,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            header_bytes: 256 << 10,
            header_lines: 200,
            handshake_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(3),
            linger: Linger::default(),
        }
    }
}

/// Serves a listener until `stop` is cancelled: then nothing is accepted any more, connections end after the request
/// under way, and what lasts longer than the time to drain is cut off.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    options: Options,
    stop: CancellationToken,
) {
    let options = Arc::new(options);
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let handler = Arc::clone(&handler);
                let (tls, options) = (listener.tls.clone(), Arc::clone(&options));
                let (stop, cut) = (stop.clone(), cut.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = connection(stream, tls, handler, &options, stop) => {}
                    }
                });
            }
            Err(e) if is_transient(&e) => {}
            Err(e) => {
                // Out of file descriptors or memory: there is no event to wait for.
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(options.drain, connections.wait())
        .await
        .is_err()
    {
        cut.cancel();
        connections.wait().await;
    }
}

/// The client went away between the kernel's handshake and our accept.
fn is_transient(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn connection<H: Handler>(
    stream: Stream,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Arc<H>,
    options: &Options,
    stop: CancellationToken,
) {
    let stream = match stream {
        Stream::Unix(s) => {
            let uid = s.peer_cred().ok().map(|c| c.uid());
            return http1(
                s,
                Peer {
                    uid,
                    ..Peer::default()
                },
                handler,
                options,
                stop,
            )
            .await;
        }
        Stream::Tcp(s, address) => (s, address),
    };
    let (stream, address) = stream;
    let mut peer = Peer {
        address: Some(address),
        ..Peer::default()
    };
    let Some(config) = tls else {
        return http1(stream, peer, handler, options, stop).await;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(options.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return tracing::debug!("TLS handshake with {address} failed: {e}"),
        Err(_) => return tracing::debug!("TLS handshake with {address} took too long"),
    };
    let session = stream.get_ref().1;
    peer.tls = true;
    peer.certificate = session
        .peer_certificates()
        .and_then(|c| c.first())
        .map(|c| c.to_vec());
    if session.alpn_protocol() == Some(b"h2") {
        http2(stream, peer, handler, options, stop).await;
    } else {
        http1(stream, peer, handler, options, stop).await;
    }
}

async fn http1<H: Handler, S>(
    stream: S,
    peer: Peer,
    handler: Arc<H>,
    options: &Options,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let at_once = AtOnce::default();
    let stream = Lingering::new(stream, options.linger, Arc::clone(&at_once));
    let service = service_fn(|request| {
        activity::mark();
        let (handler, peer, at_once) = (Arc::clone(&handler), Arc::clone(&peer), Arc::clone(&at_once));
        async move {
            let response = handler.handle(request, peer).await;
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                at_once.store(true, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_header_size(options.header_bytes)
        .max_buf_size(options.header_bytes + (64 << 10))
        .max_headers(options.header_lines)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            at_once.store(true, Ordering::Relaxed);
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::trace!("connection ended: {e}");
    }
}

async fn http2<H: Handler, S>(
    stream: S,
    peer: Peer,
    handler: Arc<H>,
    options: &Options,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        activity::mark();
        let (handler, peer) = (Arc::clone(&handler), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(handler.handle(request, peer).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(options.header_timeout)
        .max_header_list_size(u32::try_from(options.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(256)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::trace!("connection ended: {e}");
    }
}
