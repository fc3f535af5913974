//! Mutual TLS between the members of a cluster.
//!
//! A certificate names its holder's identifier (common name), role (organisational unit) and cluster (organisation).
//! A client always checks that it talks to a manager of its cluster; a server admits strangers too, who may ask for
//! the root and may join.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tripod_model::node::NodeRole;
use tripod_model::{Error, Result};
use x509_parser::prelude::FromDer as _;

/// What both sides must speak.
const PROTOCOL: &[u8] = b"tripod-node/1";
/// What a connection speaks that carries requests of the Raft group alone: see `lanes`.
pub(super) const LANE: &[u8] = b"tripod-raft/1";
/// The name in every manager's certificate.
const MANAGER: &str = "swarm-manager";

/// The two sides of this node's TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    /// [`Tls::client`] for a lane.
    pub(crate) lane: Arc<ClientConfig>,
    /// The cluster that this node's certificate names.
    pub(crate) cluster_id: String,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Swarm identifier.
    pub(crate) node_id: String,
    pub(crate) role: NodeRole,
    pub(crate) cluster_id: String,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn bad(e: impl std::fmt::Display) -> Error {
    Error::internal(format_args!("node certificate: {e}"))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(bad)
}

impl Tls {
    /// From PEM: the roots that are trusted, this node's certificate with what leads to a root, and its key.
    pub(crate) fn new(roots: &str, chain: &str, key: &str) -> Result<Self> {
        let mut store = RootCertStore::empty();
        for root in certificates(roots)? {
            store.add(root).map_err(bad)?;
        }
        let store = Arc::new(store);
        let chain = certificates(chain)?;
        let cluster_id = holder(chain.first().ok_or_else(|| bad("there is none"))?)?.cluster_id;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(bad)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(bad)?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(bad)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(bad)?;
        // Who a peer is is judged at each connection, and tickets would outlive a change of role.
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![PROTOCOL.to_vec(), LANE.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(bad)?
            .with_root_certificates(store)
            .with_client_auth_cert(chain, key)
            .map_err(bad)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        let mut lane = client.clone();
        lane.alpn_protocols = vec![LANE.to_vec()];
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            lane: Arc::new(lane),
            cluster_id,
        })
    }

    /// The client of a stranger that knows the root, or (`None`) is about to ask for it.
    pub(crate) fn stranger(root: Option<&str>) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(bad)?;
        let mut client = match root {
            Some(root) => {
                let mut store = RootCertStore::empty();
                for root in certificates(root)? {
                    store.add(root).map_err(bad)?;
                }
                builder.with_root_certificates(store).with_no_client_auth()
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
                .with_no_client_auth(),
        };
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(client))
    }
}

/// The name that a manager must have.
pub(crate) fn manager_name() -> ServerName<'static> {
    ServerName::try_from(MANAGER).expect("a valid name")
}

/// Reads who holds a certificate that TLS has verified.
pub(crate) fn holder(certificate: &CertificateDer<'_>) -> Result<Holder> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).map_err(bad)?;
    let subject = parsed.subject();
    fn first<'a>(
        mut names: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    ) -> Result<&'a str> {
        let name = names.next().ok_or_else(|| bad("a name is missing"))?;
        name.as_str().map_err(bad)
    }
    let role = match first(subject.iter_organizational_unit())? {
        "swarm-manager" => NodeRole::Manager,
        "swarm-worker" => NodeRole::Worker,
        other => return Err(bad(format_args!("unknown role {other}"))),
    };
    Ok(Holder {
        node_id: first(subject.iter_common_name())?.to_owned(),
        role,
        cluster_id: first(subject.iter_organization())?.to_owned(),
    })
}

/// Accepts any server: only the root is asked for, and the token tells whether it is the right one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
