//! TLS with rustls: a certificate of the server, and an authority for the clients where they must prove themselves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Files of a TLS listener (dockerd's `--tlscert`, `--tlskey`, `--tlscacert`), all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate with its chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authority of the clients: with it (`--tlsverify`), a client without a certificate of that authority is
    /// turned away in the handshake.
    pub client_authority: Option<PathBuf>,
}

/// Makes the configuration of a listener. `http2` offers HTTP/2 too.
pub fn server_config(files: &TlsFiles, http2: bool) -> io::Result<Arc<ServerConfig>> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| bad(path, e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| bad(path, e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| bad(&files.certificate, e))?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// A certificate of the server with its key, and the authority of clients that show a certificate; all PEM. Clients
/// without one are let in: they prove themselves in another way, or not at all.
#[derive(Clone)]
pub struct TlsPem {
    /// Certificate with its chain.
    pub certificate: String,
    /// Private key.
    pub key: String,
    /// Authority of the clients.
    pub client_authority: String,
}

impl std::fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsPem(…)")
    }
}

/// Makes the configuration of a listener, with HTTP/2 offered.
///
/// # Errors
/// When the certificates or the key cannot be used.
pub fn server_config_of(pem: &TlsPem) -> io::Result<Arc<ServerConfig>> {
    let read = |text: &str| {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in read(&pem.client_authority)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(read(&pem.certificate)?, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &PathBuf) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(path, e))?;
    if found.is_empty() {
        Err(bad(path, "no certificate in it"))
    } else {
        Ok(found)
    }
}

fn bad(path: &std::path::Path, e: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {e}", path.display()))
}
