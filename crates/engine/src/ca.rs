//! The cluster's certificate authority, join tokens and unlock keys.
//!
//! The root is a self-signed ECDSA P-256 certificate named `swarm-ca`. A node's certificate carries its identifier
//! as common name, its role as organisational unit (`swarm-manager`, `swarm-worker`) and the cluster as
//! organisation, as SwarmKit's do.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    string::PrintableString,
};
use sha2::{Digest, Sha256};
use tripod_model::node::NodeRole;
use tripod_model::{Error, Result, Time};
use x509_parser::prelude::FromDer;

use crate::raw::Certificate;

/// How long a root certificate lasts: twenty years.
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Clocks of nodes may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const KEY_PREFIX: &str = "SWMKEY-1-";

/// A root certificate and its key.
#[derive(Clone)]
pub(crate) struct Authority {
    /// PEM of the certificate.
    pub cert: String,
    /// PEM (PKCS#8) of the key.
    pub key: String,
}

/// What nodes tell of the root they trust (`TLSInfo` of the Docker API).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustInfo {
    /// PEM of the certificate.
    pub trust_root: String,
    /// DER of its subject, base64.
    pub issuer_subject: String,
    /// DER of its public key, base64.
    pub issuer_public_key: String,
}

/// A node's certificate and key.
#[derive(Clone)]
pub(crate) struct NodeIdentity {
    /// PEM of the certificate.
    pub cert: String,
    /// PEM (PKCS#8) of the key.
    pub key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeIdentity(…)")
    }
}

fn failed(e: rcgen::Error) -> Error {
    Error::internal(format_args!("certificate authority: {e}"))
}

impl Authority {
    /// A new root with a new key.
    pub(crate) fn generate() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "swarm-ca");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let cert = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A root that the user supplies.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] unless both are PEM and the key belongs to a certificate of an authority.
    pub(crate) fn from_pem(cert: &str, key: &str) -> Result<Self> {
        let der = pem_der(cert)?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&der)
            .map_err(|_| Error::invalid("invalid signing CA certificate"))?;
        if !parsed.is_ca() {
            return Err(Error::invalid(
                "the signing CA certificate is not the certificate of an authority",
            ));
        }
        let pair = KeyPair::from_pem(key).map_err(|_| Error::invalid("invalid signing CA key"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(Error::invalid(
                "the signing CA key does not belong to the signing CA certificate",
            ));
        }
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
        })
    }

    /// A certificate for a node, with a new key.
    pub(crate) fn issue(
        &self,
        node_id: &str,
        role: NodeRole,
        cluster: &str,
        valid: Duration,
    ) -> Result<NodeIdentity> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        Ok(NodeIdentity {
            cert: self.certify(&key, node_id, role, cluster, valid)?,
            key: key.serialize_pem(),
        })
    }

    /// A certificate for the key of a request (PEM); what else the request says does not count.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] unless it is a request that its key signed.
    pub(crate) fn sign_request(
        &self,
        csr: &str,
        node_id: &str,
        role: NodeRole,
        cluster: &str,
        valid: Duration,
    ) -> Result<String> {
        let request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|e| Error::invalid(format_args!("invalid certificate request: {e}")))?;
        self.certify(&request.public_key, node_id, role, cluster, valid)
    }

    /// A certificate for what a client's request (PEM) asks: its subject and names, for these usages.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] unless it is a request that its key signed.
    pub(crate) fn sign_client(&self, csr: &str, server: bool, valid: Duration) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|e| Error::invalid(format_args!("invalid certificate request: {e}")))?;
        let params = &mut request.params;
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let usage = if server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        };
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + valid).into();
        Ok(request.signed_by(&self.issuer()?).map_err(failed)?.pem())
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        node_id: &str,
        role: NodeRole,
        cluster: &str,
        valid: Duration,
    ) -> Result<String> {
        let unit = match role {
            NodeRole::Manager => "swarm-manager",
            NodeRole::Worker => "swarm-worker",
        };
        let names = vec![unit.to_owned(), node_id.to_owned()];
        let mut params = CertificateParams::new(names).map_err(failed)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, cluster);
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::CommonName, node_id);
        params.distinguished_name = name;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + valid).into();
        Ok(params.signed_by(key, &self.issuer()?).map_err(failed)?.pem())
    }

    fn issuer(&self) -> Result<Issuer<'_, KeyPair>> {
        let root = KeyPair::from_pem(&self.key).map_err(failed)?;
        Issuer::from_ca_cert_pem(&self.cert, root).map_err(failed)
    }

    /// The certificate (PEM) by which those who trust this root come to trust `new`.
    pub(crate) fn cross_sign(&self, new: &Self) -> Result<String> {
        let key = KeyPair::from_pem(&new.key).map_err(failed)?;
        let der = pem_der(&new.cert)?;
        let (_, cert) = x509_parser::certificate::X509Certificate::from_der(&der)
            .map_err(|e| Error::internal(format_args!("certificate authority: {e}")))?;
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        for attribute in cert.subject().iter_attributes() {
            let oid: Option<Vec<u64>> = attribute.attr_type().iter().map(Iterator::collect);
            let text = attribute
                .as_str()
                .map_err(|e| Error::invalid(format_args!("signing CA certificate: {e}")))?;
            let printable = attribute.attr_value().tag() == x509_parser::asn1_rs::Tag::PrintableString;
            let value = match PrintableString::try_from(text) {
                Ok(text) if printable => DnValue::PrintableString(text),
                _ => DnValue::Utf8String(text.to_owned()),
            };
            params
                .distinguished_name
                .push(DnType::from_oid(&oid.unwrap_or_default()), value);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        Ok(params.signed_by(&key, &self.issuer()?).map_err(failed)?.pem())
    }

    /// A certificate for a server under these names and addresses, with a new key.
    pub(crate) fn issue_server(
        &self,
        common: &str,
        names: Vec<String>,
        valid: Duration,
    ) -> Result<Certificate> {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common);
        self.issue_for(name, names, ExtendedKeyUsagePurpose::ServerAuth, valid)
    }

    /// A certificate for a client: its name is the common name, its groups are the organisations.
    pub(crate) fn issue_client(&self, user: &str, groups: &[&str], valid: Duration) -> Result<Certificate> {
        let mut name = DistinguishedName::new();
        for group in groups {
            name.push(DnType::OrganizationName, *group);
        }
        name.push(DnType::CommonName, user);
        self.issue_for(name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, valid)
    }

    fn issue_for(
        &self,
        name: DistinguishedName,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
        valid: Duration,
    ) -> Result<Certificate> {
        let root = KeyPair::from_pem(&self.key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&self.cert, root).map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = name;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + valid).into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let cert = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Certificate {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What nodes tell of this root.
    pub(crate) fn trust(&self) -> Result<TrustInfo> {
        trust(&self.cert)
    }

    /// A join token: the digest of this root, by which a joining node knows the right cluster, and a new secret.
    pub(crate) fn token(&self) -> String {
        let secret = base36(&rand::random::<[u8; 16]>(), 25);
        format!("SWMTKN-1-{}-{secret}", fingerprint(&self.cert))
    }
}

/// What nodes tell of the first of these roots (PEM).
pub(crate) fn trust(roots: &str) -> Result<TrustInfo> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let first = roots.find(END).map_or(roots, |at| &roots[..at + END.len()]);
    let der = pem_der(first)?;
    let (_, cert) = x509_parser::certificate::X509Certificate::from_der(&der)
        .map_err(|e| Error::internal(format_args!("certificate authority: {e}")))?;
    Ok(TrustInfo {
        trust_root: first.to_owned(),
        issuer_subject: STANDARD.encode(cert.subject().as_raw()),
        issuer_public_key: STANDARD.encode(cert.public_key().raw),
    })
}

/// The digest of a root (PEM) that tokens carry.
pub(crate) fn fingerprint(root: &str) -> String {
    base36(&Sha256::digest(root.as_bytes()), 50)
}

/// The digest of the root that a join token names.
///
/// # Errors
/// [`tripod_model::ErrorKind::Invalid`] unless it has the form of a token.
pub(crate) fn token_fingerprint(token: &str) -> Result<&str> {
    let digits =
        |text: &str, n| text.len() == n && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    match token.split('-').collect::<Vec<_>>()[..] {
        ["SWMTKN", "1", digest, secret] if digits(digest, 50) && digits(secret, 25) => Ok(digest),
        _ => Err(Error::invalid("invalid join token")),
    }
}

/// A new key (PEM) and the request (PEM) for its certificate.
pub(crate) fn request() -> Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let params = CertificateParams::new(Vec::new()).map_err(failed)?;
    let csr = params
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(failed)?;
    Ok((key.serialize_pem(), csr))
}

/// When half of a certificate's life is over and it is to be renewed; the beginning of time for what is none.
pub(crate) fn renew_at(cert: &str) -> Time {
    let Ok(der) = pem_der(cert) else { return Time::MIN };
    let Ok((_, cert)) = x509_parser::certificate::X509Certificate::from_der(&der) else {
        return Time::MIN;
    };
    let (from, to) = (
        cert.validity().not_before.timestamp(),
        cert.validity().not_after.timestamp(),
    );
    let issued = from + CLOCK_SKEW.as_secs() as i64;
    Time::from_second(issued + (to - issued) / 2).unwrap_or(Time::MIN)
}

fn pem_der(pem: &str) -> Result<Vec<u8>> {
    match x509_parser::pem::parse_x509_pem(pem.as_bytes()) {
        Ok((_, pem)) => Ok(pem.contents),
        Err(_) => Err(Error::invalid("invalid certificate: not PEM")),
    }
}

/// A big-endian number in base 36, padded to `width` digits.
fn base36(bytes: &[u8], width: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            rest = value % 36;
        }
        *digit = DIGITS[rest as usize];
    }
    digits.iter().map(|&d| char::from(d)).collect()
}

/// A new unlock key.
pub(crate) fn new_unlock_key() -> [u8; 32] {
    rand::random()
}

/// The form in which users see an unlock key: `SWMKEY-1-…`.
pub(crate) fn format_unlock_key(key: &[u8; 32]) -> String {
    format!("{KEY_PREFIX}{}", STANDARD_NO_PAD.encode(key))
}

/// The key of `SWMKEY-1-…`.
///
/// # Errors
/// [`tripod_model::ErrorKind::Invalid`] if it is not of that form.
pub(crate) fn parse_unlock_key(text: &str) -> Result<[u8; 32]> {
    text.trim()
        .strip_prefix(KEY_PREFIX)
        .and_then(|key| STANDARD_NO_PAD.decode(key).ok())
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| Error::invalid("swarm could not be unlocked: invalid key provided"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_documented_form() {
        let ca = Authority::generate().unwrap();
        let (one, two) = (ca.token(), ca.token());
        let parts: Vec<&str> = one.split('-').collect();
        assert_eq!(
            (parts[0], parts[1], parts[2].len(), parts[3].len()),
            ("SWMTKN", "1", 50, 25)
        );
        assert_eq!(one.rsplit_once('-').unwrap().0, two.rsplit_once('-').unwrap().0);
        assert_ne!(one, two);
        assert_eq!(base36(&[1, 0], 4), "0074");
    }

    #[test]
    fn node_certificates_name_node_role_and_cluster_and_verify() {
        let ca = Authority::generate().unwrap();
        let id = ca
            .issue("node1", NodeRole::Manager, "cluster1", Duration::from_secs(3600))
            .unwrap();
        let (der, root) = (pem_der(&id.cert).unwrap(), pem_der(&ca.cert).unwrap());
        let (_, cert) = x509_parser::certificate::X509Certificate::from_der(&der).unwrap();
        let (_, root) = x509_parser::certificate::X509Certificate::from_der(&root).unwrap();
        assert_eq!(
            cert.subject().to_string(),
            "O=cluster1, OU=swarm-manager, CN=node1"
        );
        assert_eq!(cert.issuer().to_string(), "CN=swarm-ca");
        cert.verify_signature(Some(root.public_key())).unwrap();
        let after = |seconds: i64| Time::now() + jiff::SignedDuration::from_secs(seconds);
        assert!((after(1700)..after(1900)).contains(&renew_at(&id.cert)));
        assert_eq!(renew_at("nonsense"), Time::MIN);
    }

    #[test]
    fn foreign_keys_are_refused() {
        let (a, b) = (Authority::generate().unwrap(), Authority::generate().unwrap());
        assert!(Authority::from_pem(&a.cert, &a.key).is_ok());
        assert!(Authority::from_pem(&a.cert, &b.key).is_err());
        let leaf = a
            .issue("n", NodeRole::Worker, "c", Duration::from_secs(60))
            .unwrap();
        assert!(Authority::from_pem(&leaf.cert, &leaf.key).is_err());
    }

    #[test]
    fn requests_get_certificates_for_their_key_only_and_tokens_name_their_root() {
        let ca = Authority::generate().unwrap();
        let (_, csr) = request().unwrap();
        let valid = Duration::from_secs(3600);
        let cert = ca
            .sign_request(&csr, "n1", NodeRole::Worker, "c1", valid)
            .unwrap();
        let der = pem_der(&cert).unwrap();
        let (_, cert) = x509_parser::certificate::X509Certificate::from_der(&der).unwrap();
        assert_eq!(cert.subject().to_string(), "O=c1, OU=swarm-worker, CN=n1");
        assert!(
            ca.sign_request("nonsense", "n1", NodeRole::Worker, "c1", valid)
                .is_err()
        );
        assert_eq!(token_fingerprint(&ca.token()).unwrap(), fingerprint(&ca.cert));
        for bad in ["", "SWMTKN-1-abc-def", "SWMTKN-2"] {
            assert_eq!(token_fingerprint(bad).unwrap_err().message, "invalid join token");
        }
    }

    #[test]
    fn a_cross_signed_root_leads_to_the_old_one() {
        let (old, new) = (Authority::generate().unwrap(), Authority::generate().unwrap());
        let cross = pem_der(&old.cross_sign(&new).unwrap()).unwrap();
        let (_, cross) = x509_parser::certificate::X509Certificate::from_der(&cross).unwrap();
        let root = pem_der(&old.cert).unwrap();
        let (_, root) = x509_parser::certificate::X509Certificate::from_der(&root).unwrap();
        cross.verify_signature(Some(root.public_key())).unwrap();
        assert!(cross.is_ca());
    }

    #[test]
    fn unlock_keys_round_trip() {
        let key = new_unlock_key();
        assert_eq!(parse_unlock_key(&format_unlock_key(&key)).unwrap(), key);
        assert!(parse_unlock_key("SWMKEY-1-abc").is_err());
        assert!(parse_unlock_key("abc").is_err());
    }
}
