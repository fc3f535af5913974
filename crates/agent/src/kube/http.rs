//! Requests of probes and hooks: HTTP, HTTPS without a look at the certificate, and the health service of gRPC.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// As much of an answer as is shown.
const SHOWN: usize = 1024;

/// A request of a probe or hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Get {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub tls: bool,
    pub headers: Vec<(String, String)>,
    /// `kube-probe/1.36` or another name of who asks.
    pub agent: &'static str,
}

/// Asks, and follows at most ten redirections on the same host. The status and the beginning of the body, or why there
/// is none.
pub(super) async fn get(request: &Get, timeout: Duration) -> Result<(u16, String), String> {
    let ask = async {
        let mut request = request.clone();
        for _ in 0..10 {
            let (status, location, body) = once(&request).await?;
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Ok((status.as_u16(), body));
            };
            match redirected(&request, &location) {
                Some(next) => request = next,
                // To another host: the container answered, which is what was asked.
                None => return Ok((status.as_u16(), body)),
            }
        }
        Err("stopped after 10 redirects".to_owned())
    };
    let url = format!(
        "{}://{}:{}{}",
        if request.tls { "https" } else { "http" },
        request.host,
        request.port,
        request.path
    );
    match tokio::time::timeout(timeout, ask).await {
        Ok(answer) => answer.map_err(|e| format!("Get \"{url}\": {e}")),
        Err(_) => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn redirected(from: &Get, location: &str) -> Option<Get> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    if uri
        .host()
        .is_some_and(|h| h.trim_matches(['[', ']']) != from.host)
    {
        return None;
    }
    let tls = uri.scheme_str().map_or(from.tls, |s| s == "https");
    let port = match (uri.port_u16(), uri.host()) {
        (Some(port), _) => port,
        (None, Some(_)) => {
            if tls {
                443
            } else {
                80
            }
        }
        (None, None) => from.port,
    };
    Some(Get {
        path,
        tls,
        port,
        ..from.clone()
    })
}

async fn once(request: &Get) -> Result<(StatusCode, Option<String>, String), String> {
    let stream = connect(&request.host, request.port).await?;
    let name = |key: &str| {
        request
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(key))
            .map(|(_, v)| v.as_str())
    };
    let authority = format!("{}:{}", bracketed(&request.host), request.port);
    let path = if request.path.starts_with('/') {
        request.path.clone()
    } else {
        format!("/{}", request.path)
    };
    let mut builder = Request::get(path)
        .header("Host", name("Host").unwrap_or(&authority))
        .header("User-Agent", name("User-Agent").unwrap_or(request.agent))
        .header("Accept", name("Accept").unwrap_or("*/*"))
        .header("Connection", "close");
    for (key, value) in &request.headers {
        if !["host", "user-agent", "accept"].contains(&key.to_ascii_lowercase().as_str()) {
            builder = builder.header(key, value);
        }
    }
    let message = builder
        .body(Full::<Bytes>::default())
        .map_err(|e| e.to_string())?;
    match request.tls {
        false => send(TokioIo::new(stream), message).await,
        true => {
            let server = ServerName::try_from(request.host.clone()).map_err(|e| e.to_string())?;
            let tls = TlsConnector::from(trusting())
                .connect(server, stream)
                .await
                .map_err(|e| e.to_string())?;
            send(TokioIo::new(tls), message).await
        }
    }
}

fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(a)) => format!("[{a}]"),
        _ => host.to_owned(),
    }
}

/// A connection, or why there is none.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|e| format!("dial tcp {}:{port}: connect: {}", bracketed(host), reason(&e)))
}

/// The kernel's words without the number.
fn reason(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn send<T>(
    io: TokioIo<T>,
    message: Request<Full<Bytes>>,
) -> Result<(StatusCode, Option<String>, String), String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(message).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let location = response
            .headers()
            .get("location")
            .and_then(|l| l.to_str().ok())
            .map(str::to_owned);
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                text.extend_from_slice(data);
            }
            if text.len() >= SHOWN {
                break;
            }
        }
        text.truncate(SHOWN);
        Ok((status, location, String::from_utf8_lossy(&text).into_owned()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// Asks gRPC's health service; `Ok` when it serves.
pub(super) async fn grpc(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let ask = async {
        let stream = connect(host, port).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        // HealthCheckRequest { service = 1 }, in a frame that is not compressed.
        let mut message = Vec::new();
        if !service.is_empty() {
            message.push(0x0a);
            message.push(u8::try_from(service.len()).map_err(|_| "the name of the service is too long")?);
            message.extend_from_slice(service.as_bytes());
        }
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
        frame.extend_from_slice(&message);
        let request = Request::post(format!(
            "http://{}:{port}/grpc.health.v1.Health/Check",
            bracketed(host)
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|e| e.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let refused = response
                .headers()
                .get("grpc-status")
                .and_then(|s| s.to_str().ok())
                .map(str::to_owned);
            let body = response.into_body().collect().await.map_err(|e| e.to_string())?;
            let of_trailers = body
                .trailers()
                .and_then(|t| t.get("grpc-status")?.to_str().ok())
                .map(str::to_owned);
            match refused.or(of_trailers).as_deref() {
                Some("0") | None => {}
                Some("12") => {
                    return Err(
                        "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                            .into(),
                    );
                }
                Some(code) => return Err(format!("rpc error: code = {code}")),
            }
            // HealthCheckResponse { status = 1 }: 1 is SERVING; nothing is 0, UNKNOWN.
            match body.to_bytes().get(5..) {
                Some([0x08, 1, ..]) => Ok(()),
                Some([0x08, status, ..]) => {
                    Err(format!("service unhealthy (responded with status {status})"))
                }
                _ => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
            }
        };
        let answer = answer.await;
        connection.abort();
        answer
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "timeout: failed to connect service \"{}:{port}\" within {timeout:?}",
            bracketed(host)
        )),
    }
}

/// Takes any certificate, as probes do: they ask whether the container lives, not who it is.
#[derive(Debug)]
struct Trusting(Vec<rustls::SignatureScheme>);

fn trusting() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let schemes = provider.signature_verification_algorithms.supported_schemes();
            let builder = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has the default protocol versions");
            Arc::new(
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Trusting(schemes)))
                    .with_no_client_auth(),
            )
        })
        .clone()
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    fn request(port: u16) -> Get {
        Get {
            host: "127.0.0.1".into(),
            port,
            path: "/".into(),
            tls: false,
            headers: Vec::new(),
            agent: "test",
        }
    }

    #[tokio::test]
    async fn answers_and_redirections() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let moved = "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n";
        let away = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n";
        let patience = Duration::from_secs(5);
        for (answers, want) in [
            (vec![ok], (200, "hi")),
            (vec![moved, ok], (200, "hi")),
            (vec![away], (302, "")),
        ] {
            let port = server(answers).await;
            let (status, body) = get(&request(port), patience).await.unwrap();
            assert_eq!((status, body.as_str()), want);
        }
    }

    #[tokio::test]
    async fn refusals_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = get(&request(port), Duration::from_secs(5)).await.unwrap_err();
        assert!(
            error.ends_with(&format!("dial tcp 127.0.0.1:{port}: connect: connection refused")),
            "{error}"
        );
    }
}
