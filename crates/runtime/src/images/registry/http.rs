//! A small HTTP client for registries: connections are pooled, every wait has a limit, redirects never carry
//! credentials to another host.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tripod_model::{Error, ErrorKind, Result};

/// How the store talks to registries.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries (`host` or `host:port`) to talk plain HTTP with. Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Limit for a connection to be made.
    pub connect: Duration,
    /// Limit for an answer to begin.
    pub answer: Duration,
    /// Limit for the next bytes of an answer to arrive.
    pub idle: Duration,
    /// How often a transfer that makes no progress is tried.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub back_off: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            attempts: 5,
            back_off: Duration::from_millis(500),
        }
    }
}

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body of bytes in memory.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Answers of registries and token servers that are read whole.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;
const MAX_REDIRECTS: usize = 5;

/// The client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<Connector, Body>,
    pub(crate) options: Arc<RegistryOptions>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        let connector = Connector {
            tls: Arc::default(),
            limit: options.connect,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self {
            client,
            options: Arc::new(options),
        }
    }

    /// Sends one request, without following redirects. `patience` is added to the wait for the answer.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        patience: Duration,
    ) -> Result<Response<Incoming>> {
        let what = format!("{} \"{}\"", verb(request.method()), request.uri());
        match tokio::time::timeout(self.options.answer + patience, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => Err(Error::unavailable(format!("{what}: {}", root_cause(&e)))),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{what}: net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
                ),
            )),
        }
    }

    /// Sends a request without body, following redirects.
    pub(crate) async fn fetch(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>> {
        let mut uri = uri.clone();
        let mut headers = headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(full(Bytes::new()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let response = self.send(request, Duration::ZERO).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(to) = response.headers().get(header::LOCATION).filter(|_| moved) else {
                return Ok(response);
            };
            let to = resolve(&uri, to.to_str().unwrap_or_default())?;
            if to.authority() != uri.authority() || to.scheme() != uri.scheme() {
                headers.remove(header::AUTHORIZATION);
            }
            if uri.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
                return Err(Error::unavailable(format!(
                    "registry redirects from https to {to}"
                )));
            }
            uri = to;
        }
        Err(Error::unavailable(format!(
            "Get \"{uri}\": stopped after {MAX_REDIRECTS} redirects"
        )))
    }

    /// Reads a small answer whole.
    pub(crate) async fn document(&self, response: Response<Incoming>) -> Result<Bytes> {
        let mut body = response.into_body();
        let mut out = Vec::new();
        while let Some(chunk) = self.next(&mut body).await? {
            if out.len() + chunk.len() > MAX_DOCUMENT {
                return Err(Error::invalid("registry sent a document that is too long"));
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out.into())
    }

    /// The next bytes of an answer.
    pub(crate) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.options.idle, body.frame())
                .await
                .map_err(|_| Error::new(ErrorKind::Timeout, "registry stopped sending: i/o timeout"))?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => {
                    return Err(Error::unavailable(format!(
                        "registry broke off: {}",
                        root_cause(&e)
                    )));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Go's spelling of a method in errors, which users know.
fn verb(method: &Method) -> String {
    let text = method.as_str();
    format!("{}{}", &text[..1], text[1..].to_lowercase())
}

fn root_cause(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A location relative to where it came from (RFC 9110, 10.2.2).
pub(crate) fn resolve(base: &Uri, location: &str) -> Result<Uri> {
    let bad = |_| Error::unavailable(format!("registry sent a bad location {location:?}"));
    if location.starts_with('/') {
        let authority = base.authority().map(ToString::to_string).unwrap_or_default();
        return format!("{}://{authority}{location}", base.scheme_str().unwrap_or("https"))
            .parse()
            .map_err(bad);
    }
    let uri: Uri = location.parse().map_err(bad)?;
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Error::unavailable(format!(
            "registry sent a bad location {location:?}"
        )));
    }
    Ok(uri)
}

#[derive(Clone)]
struct Connector {
    /// Made at the first connection that needs it: reading the system's certificates takes a while.
    tls: Arc<std::sync::OnceLock<Arc<rustls::ClientConfig>>>,
    limit: Duration,
}

impl tower::Service<Uri> for Connector {
    type Response = Conn;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Conn>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let limit = this.limit;
            tokio::time::timeout(limit, this.connect(&uri))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "dial tcp: i/o timeout"))?
        })
    }
}

impl Connector {
    async fn connect(self, uri: &Uri) -> io::Result<Conn> {
        let host = uri
            .host()
            .ok_or_else(|| io::Error::other("no host"))?
            .trim_matches(['[', ']'])
            .to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|_| io::Error::other(format!("dial tcp: lookup {host}: no such host")))?
            .collect();
        let mut last = io::Error::other(format!("dial tcp: lookup {host}: no such host"));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return if secure {
                        self.secure(tcp, host).await
                    } else {
                        Ok(Conn(TokioIo::new(Box::new(tcp))))
                    };
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    last = io::Error::other(format!("dial tcp {address}: connect: connection refused"));
                }
                Err(e) => last = io::Error::other(format!("dial tcp {address}: {e}")),
            }
        }
        Err(last)
    }

    async fn secure(self, tcp: TcpStream, host: String) -> io::Result<Conn> {
        let config = match self.tls.get() {
            Some(config) => Arc::clone(config),
            None => {
                let made = tokio::task::spawn_blocking(tls_config)
                    .await
                    .map_err(io::Error::other)??;
                Arc::clone(self.tls.get_or_init(|| made))
            }
        };
        let name = rustls::pki_types::ServerName::try_from(host).map_err(io::Error::other)?;
        let tls = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|e| {
                if e.to_string().contains("InvalidContentType") {
                    return io::Error::other("http: server gave HTTP response to HTTPS client");
                }
                io::Error::other(format!("tls: failed to verify certificate: {e}"))
            })?;
        Ok(Conn(TokioIo::new(Box::new(tls))))
    }
}

fn tls_config() -> io::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for certificate in found.certs {
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        tracing::warn!(
            "no certificate authorities on this system (package ca-certificates): https registries cannot be verified"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, with or without TLS.
pub(crate) struct Conn(TokioIo<Box<dyn Duplex>>);

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
