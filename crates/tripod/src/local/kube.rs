//! A small client of the Kubernetes API for what the local commands need, with the credentials of a kubeconfig.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use serde_yaml::Value as Yaml;
use tokio::net::TcpStream;
use tripod_model::{Error, Result};

/// Whom to call, and as whom.
pub(super) struct KubeClient {
    host: String,
    port: u16,
    tls: tokio_rustls::TlsConnector,
}

impl KubeClient {
    /// The client of a kubeconfig with one cluster and one user who has a certificate.
    ///
    /// # Errors
    /// A kubeconfig of another form.
    pub(super) fn new(kubeconfig: &str) -> Result<Self> {
        let config: Yaml = serde_yaml::from_str(kubeconfig).map_err(Error::internal)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let pem = |value: &Yaml, what: &str| -> Result<Vec<u8>> {
            value
                .as_str()
                .and_then(|t| STANDARD.decode(t).ok())
                .ok_or_else(|| Error::internal(format_args!("the kubeconfig has no {what}")))
        };
        let url = cluster["server"].as_str().unwrap_or_default();
        let (host, port) = url
            .strip_prefix("https://")
            .and_then(|a| a.trim_end_matches('/').rsplit_once(':'))
            .and_then(|(h, p)| Some((h.to_owned(), p.parse().ok()?)))
            .ok_or_else(|| Error::internal(format_args!("unexpected server {url}")))?;
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&pem(&cluster["certificate-authority-data"], "authority")?)
        {
            roots
                .add(cert.map_err(Error::internal)?)
                .map_err(Error::internal)?;
        }
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem(&user["client-certificate-data"], "certificate")?)
                .collect::<std::result::Result<_, _>>()
                .map_err(Error::internal)?;
        let key =
            PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"], "key")?).map_err(Error::internal)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates, key)
            .map_err(Error::internal)?;
        Ok(Self {
            host,
            port,
            tls: Arc::new(config).into(),
        })
    }

    /// GET of a path, as JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let bytes = self
            .call(Method::GET, path, "application/json", Bytes::new())
            .await?;
        serde_json::from_slice(&bytes).map_err(Error::internal)
    }

    /// Whether the server says that it is ready.
    pub(super) async fn ready(&self) -> bool {
        self.call(Method::GET, "/readyz", "*/*", Bytes::new())
            .await
            .is_ok()
    }

    async fn call(&self, method: Method, path: &str, accept: &str, body: Bytes) -> Result<Bytes> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| Error::unavailable(format_args!("cannot reach {}:{}: {e}", self.host, self.port)))?;
        let name = ServerName::try_from(self.host.clone()).map_err(Error::internal)?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|e| Error::unavailable(format_args!("{}: {e}", self.host)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::internal)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", format!("{}:{}", self.host, self.port))
            .header("Accept", accept)
            .body(Full::new(body))
            .map_err(Error::internal)?;
        let response = sender.send_request(request).await.map_err(Error::internal)?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(Error::internal)?
            .to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = value["message"].as_str().unwrap_or("the API does not say why");
        Err(match status.as_u16() {
            404 => Error::not_found(message),
            _ => Error::internal(message),
        })
    }
}
