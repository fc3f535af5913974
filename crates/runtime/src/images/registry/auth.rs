//! Authentication with registries: Basic (RFC 7617), and tokens as the distribution project specifies them
//! ("Token Authentication Specification", "OAuth2 Token Authentication").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde::Deserialize;
use tripod_model::image::RegistryAuth;
use tripod_model::{Error, Result};

use super::http::{Http, full};

const CLIENT: &str = "tripod";

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

/// Reads `WWW-Authenticate` (RFC 9110, 11.6.1).
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let mut found = [String::new(), String::new(), String::new()];
            for (name, value) in parameters(rest) {
                if let Some(i) = ["realm", "service", "scope"]
                    .iter()
                    .position(|n| name.eq_ignore_ascii_case(n))
                {
                    found[i] = value;
                }
            }
            let [realm, service, scope] = found;
            return Some(Challenge::Bearer {
                realm,
                service,
                scope,
            });
        }
    }
    basic
}

fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_owned();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((name, value.to_owned()));
        rest = next;
    }
    out
}

/// The `Authorization` header that answers a challenge. `None` when there is nothing to answer with.
pub(crate) async fn answer(
    http: &Http,
    challenge: &Challenge,
    auth: Option<&RegistryAuth>,
    scopes: &[String],
) -> Result<Option<HeaderValue>> {
    if let Some(token) = auth.map(|a| &a.registry_token).filter(|t| !t.is_empty()) {
        return secret(&format!("Bearer {token}")).map(Some);
    }
    match challenge {
        Challenge::Basic => auth.filter(|a| !a.username.is_empty()).map(basic).transpose(),
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => {
            let scopes = if scopes.is_empty() && !scope.is_empty() {
                std::slice::from_ref(scope)
            } else {
                scopes
            };
            let token = token(http, realm, service, scopes, auth).await?;
            secret(&format!("Bearer {token}")).map(Some)
        }
    }
}

fn basic(auth: &RegistryAuth) -> Result<HeaderValue> {
    secret(&format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", auth.username, auth.password))
    ))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::invalid("credentials have characters that HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

async fn token(
    http: &Http,
    realm: &str,
    service: &str,
    scopes: &[String],
    auth: Option<&RegistryAuth>,
) -> Result<String> {
    let realm_uri: Uri = realm
        .parse()
        .map_err(|_| Error::unavailable(format!("registry sent a bad realm {realm:?}")))?;
    if realm_uri.host().is_none() || !matches!(realm_uri.scheme_str(), Some("http" | "https")) {
        return Err(Error::unavailable(format!("registry sent a bad realm {realm:?}")));
    }
    let refresh = auth.map(|a| a.identity_token.as_str()).filter(|t| !t.is_empty());
    let mut fields = vec![("service", service)];
    let joined = scopes.join(" ");
    let response = if let Some(refresh) = refresh {
        fields.extend([
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("refresh_token", refresh),
            ("scope", &joined),
        ]);
        let request = Request::post(realm_uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(full(form(&fields)))
            .map_err(Error::internal)?;
        http.send(request, std::time::Duration::ZERO).await?
    } else {
        fields.extend(scopes.iter().map(|s| ("scope", s.as_str())));
        let mut headers = HeaderMap::new();
        if let Some(auth) = auth.filter(|a| !a.username.is_empty()) {
            fields.push(("account", &auth.username));
            headers.insert(header::AUTHORIZATION, basic(auth)?);
        }
        let join = if realm.contains('?') { '&' } else { '?' };
        let uri: Uri = format!("{realm}{join}{}", form(&fields))
            .parse()
            .map_err(Error::internal)?;
        http.fetch(&Method::GET, &uri, &headers).await?
    };
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        let why = if auth.is_some() {
            "incorrect username or password"
        } else {
            "authentication required"
        };
        return Err(Error::unauthorized(format!(
            "Get \"{realm}\": unauthorized: {why}"
        )));
    }
    if !status.is_success() {
        return Err(Error::unavailable(format!(
            "Get \"{realm}\": unexpected status from token server: {status}"
        )));
    }
    let token: Token = serde_json::from_slice(&http.document(response).await?)
        .map_err(|e| Error::unavailable(format!("token server answered with a bad document: {e}")))?;
    let token = if token.token.is_empty() {
        token.access_token
    } else {
        token.token
    };
    if token.is_empty() {
        Err(Error::unauthorized(
            "authorization server did not include a token in the response",
        ))
    } else {
        Ok(token)
    }
}

/// `a=b&c=d`, percent-encoded.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    fields
        .iter()
        .map(|(k, v)| format!("{k}={}", percent(v)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Everything but unreserved characters as `%XX` (RFC 3986, 2.1).
pub(crate) fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(b as char);
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
            challenge(&headers)
        };
        assert_eq!(of("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            of("Bearer realm=\"https://a/token\",service=\"r.io\",scope=\"repository:a/b:pull,push\""),
            Some(Challenge::Bearer {
                realm: "https://a/token".into(),
                service: "r.io".into(),
                scope: "repository:a/b:pull,push".into()
            })
        );
        assert_eq!(of("Negotiate"), None);
    }

    #[test]
    fn forms() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }
}
