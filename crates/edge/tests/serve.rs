//! Listeners over real sockets: answers, limits, TLS with client certificates, the end.
#![allow(missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tripod_edge::{
    Address, Handler, Listener, Options, Peer, Request, Response, TlsFiles, full, serve, server_config,
};

struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request, peer: Arc<Peer>) -> Response {
        Response::new(full(format!(
            "{} {}",
            request.uri().path(),
            peer.certificate.is_some()
        )))
    }
}

async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_unix_socket_serves_and_goes() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    // What a dead process left is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = Address::Unix(path.clone());
    let listener = Listener::bind(&address, None).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let stop = CancellationToken::new();
    let options = Options {
        header_bytes: 64 << 10,
        header_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let served = tokio::spawn(serve(listener, Arc::new(Echo), options, stop.clone()));
    let connect = || UnixStream::connect(&path);
    assert!(ask(connect().await.unwrap(), GET).await.ends_with("/x false"));
    // A second daemon does not take the socket over.
    assert!(Listener::bind(&address, None).await.is_err());
    let long = format!(
        "GET /x HTTP/1.1\r\nHost: d\r\nA: {}\r\n\r\n",
        "x".repeat(100 << 10)
    );
    // Sent to its end although the answer is made before, and long enough to fill every buffer.
    let refused = ask(
        connect().await.unwrap(),
        &long.replace("A: ", &"A: x".repeat(1 << 20)),
    )
    .await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    // A client that does not finish its request is let go.
    let slow = tokio::time::timeout(
        Duration::from_secs(5),
        ask(connect().await.unwrap(), "GET /x HTTP/1.1\r\n"),
    );
    slow.await.expect("the connection ends");
    let _idle = connect().await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .unwrap()
        .unwrap();
    assert!(!path.exists());
}

struct Party {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

fn party(authority: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>) -> Party {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = match authority {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.self_signed(&key).unwrap()
        }
    };
    Party { certificate, key }
}

fn write(dir: &Path, name: &str, text: String) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn tls_wants_the_right_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let mut ca_params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    ca_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca_params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca_params, ca_key);
    let (server, client, stranger) = (party(Some(&issuer)), party(Some(&issuer)), party(None));
    let files = TlsFiles {
        certificate: write(dir.path(), "cert.pem", server.certificate.pem()),
        key: write(dir.path(), "key.pem", server.key.serialize_pem()),
        client_authority: Some(write(dir.path(), "ca.pem", ca_certificate.pem())),
    };
    let config = server_config(&files, false).unwrap();
    let address = Address::Tcp {
        host: "127.0.0.1".into(),
        port: 0,
    };
    let listener = Listener::bind(&address, Some(config)).await.unwrap();
    let local = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, Arc::new(Echo), Options::default(), stop.clone()));
    let connect = async |who: Option<&Party>| {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from(ca_certificate.der().to_vec()))
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match who {
            None => builder.with_no_client_auth(),
            Some(p) => {
                let key = PrivateKeyDer::try_from(p.key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![p.certificate.der().clone()], key)
                    .unwrap()
            }
        };
        let stream = TcpStream::connect(local).await.unwrap();
        let name = "localhost".try_into().unwrap();
        match tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
        {
            Ok(stream) => ask(stream, GET).await,
            Err(_) => String::new(),
        }
    };
    assert!(connect(Some(&client)).await.ends_with("/x true"));
    assert_eq!(connect(None).await, "");
    assert_eq!(connect(Some(&stranger)).await, "");
    assert!(
        !ask(TcpStream::connect(local).await.unwrap(), GET)
            .await
            .contains("/x")
    );
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .unwrap()
        .unwrap();
}
