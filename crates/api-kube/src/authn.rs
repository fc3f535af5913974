//! Who asks: client certificates, bearer tokens, nobody.

use std::collections::BTreeMap;

use tripod_edge::Peer;
use tripod_schema::Failure;
use tripod_schema::failure::Result;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Who may do everything.
pub(crate) const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Nobody in particular.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    /// Adds the group of all who proved who they are.
    pub(crate) fn proven(mut self) -> Self {
        if !self.groups.iter().any(|g| g == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }

    /// Whether everything is allowed to it.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }
}

/// The user of a verified certificate: its common name, its organisations as groups.
pub(crate) fn of_certificate(peer: &Peer) -> Result<Option<User>> {
    let Some(der) = &peer.certificate else {
        return Ok(None);
    };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unauthorized())?;
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    let name = subject.iter_common_name().find_map(text).unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let user = User {
        name,
        groups: subject.iter_organization().filter_map(text).collect(),
        ..User::default()
    };
    Ok(Some(user.proven()))
}

/// 401.
pub(crate) fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized", "Unauthorized")
}

/// The bearer token of a request.
pub(crate) fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}
