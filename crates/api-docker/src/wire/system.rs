//! Bodies of system requests.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use tripod_model::image::RegistryAuth;

use crate::decode::decode;
use crate::fault::Fault;

/// Docker's AuthConfig.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AuthBody {
    username: String,
    password: String,
    /// `user:password` in base64, where a client sends it as it stands in its configuration.
    auth: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl From<AuthBody> for RegistryAuth {
    fn from(a: AuthBody) -> Self {
        let (mut username, mut password) = (a.username, a.password);
        if username.is_empty()
            && let Ok(plain) = base64::engine::general_purpose::STANDARD.decode(&a.auth)
            && let Some((user, pass)) = String::from_utf8(plain)
                .ok()
                .as_deref()
                .and_then(|p| p.split_once(':'))
        {
            (username, password) = (user.to_owned(), pass.trim_end_matches('\0').to_owned());
        }
        Self {
            username,
            password,
            identity_token: a.identitytoken,
            registry_token: a.registrytoken,
            server_address: a.serveraddress,
        }
    }
}

/// base64url, padded or not: clients do both.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of `X-Registry-Auth`; `None` when there are none in it.
pub(crate) fn registry_auth(header: Option<&str>) -> Result<Option<RegistryAuth>, Fault> {
    let Some(text) = header.filter(|h| !h.is_empty()) else {
        return Ok(None);
    };
    let bad = |e: &dyn std::fmt::Display| Fault::bad(format_args!("invalid X-Registry-Auth header: {e}"));
    let text = text.replace('+', "-").replace('/', "_");
    let json = LENIENT.decode(text).map_err(|e| bad(&e))?;
    let auth: RegistryAuth = decode::<AuthBody>(&json).map_err(|e| bad(&e.message))?.into();
    let empty = auth.username.is_empty() && auth.identity_token.is_empty() && auth.registry_token.is_empty();
    Ok((!empty).then_some(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_headers() {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let json = r#"{"username":"u","password":"p?>~","serveraddress":"r:5000"}"#;
        for text in [STANDARD.encode(json), URL_SAFE_NO_PAD.encode(json)] {
            let auth = registry_auth(Some(&text)).unwrap().unwrap();
            assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p?>~"));
        }
        assert_eq!(registry_auth(Some(&STANDARD.encode("{}"))).unwrap(), None);
        assert_eq!(registry_auth(None).unwrap(), None);
        assert_eq!(registry_auth(Some("%%%")).unwrap_err().status.as_u16(), 400);
        let plain = format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("a:b:c"));
        let auth = registry_auth(Some(&STANDARD.encode(plain))).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("a", "b:c"));
    }
}
