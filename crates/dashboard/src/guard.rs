//! Who may change something: the page must be one that this daemon gave to this browser.
//!
//! Every browser gets a random cookie; a form carries its HMAC. A request that changes something must bring both, and
//! must not say that it comes from another site. Host names that are not this machine's are refused, so that a page of
//! another site cannot reach the dashboard by a name that it had resolved to 127.0.0.1.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};
use ring::hmac;

/// The keys of this daemon's life.
pub(crate) struct Guard {
    key: hmac::Key,
    /// Name of the cookie. Ports share their cookies: daemons on one machine must not share a name.
    cookie: String,
    secure: bool,
}

impl Guard {
    /// `secure`: only https is spoken, and cookies are to go nowhere else.
    pub(crate) fn new(secure: bool) -> Self {
        let secret: [u8; 32] = rand::random();
        let mark: [u8; 4] = rand::random();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            cookie: match secure {
                // Browsers take a cookie of such a name from this very host by https only.
                true => format!("__Host-tripod_{}", hex::encode(mark)),
                false => format!("tripod_{}", hex::encode(mark)),
            },
            secure,
        }
    }

    /// The browser's cookie, or a new one with the header that sets it.
    pub(crate) fn visitor(&self, headers: &HeaderMap, base: &str) -> (String, Option<String>) {
        match cookie(headers, &self.cookie) {
            Some(value) if value.len() == 32 => (value, None),
            _ => {
                let value = hex::encode(rand::random::<[u8; 16]>());
                let secure = if self.secure { "; Secure" } else { "" };
                let set = format!(
                    "{}={value}; Path={base}/; HttpOnly; SameSite=Strict{secure}",
                    self.cookie
                );
                (value, Some(set))
            }
        }
    }

    /// Name of the cookie of a session.
    pub(crate) fn session_cookie(&self) -> String {
        format!("{}_session", self.cookie)
    }

    /// The header that sets a cookie of a session: kept until the browser is closed, shown to nobody else.
    pub(crate) fn line(&self, name: &str, value: &str) -> String {
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Secure")
    }

    /// What a form of this browser must carry.
    pub(crate) fn token(&self, visitor: &str) -> String {
        hex::encode(&hmac::sign(&self.key, visitor.as_bytes()).as_ref()[..16])
    }

    /// Whether a change is asked for by a page of this dashboard. The text of an error is for people.
    pub(crate) fn check(&self, headers: &HeaderMap, token: &str) -> Result<(), &'static str> {
        self.same_origin(headers)?;
        let visitor = cookie(headers, &self.cookie).ok_or("The request carries no cookie of this page.")?;
        let sent = hex::decode(token).unwrap_or_default();
        let expected = hmac::sign(&self.key, visitor.as_bytes());
        // A comparison that takes as long wherever the difference is.
        let sent_tag = hmac::sign(&self.key, &sent);
        hmac::verify(&self.key, &expected.as_ref()[..16], sent_tag.as_ref())
            .map_err(|_| "The form is too old: load the page again.")
    }

    /// Refuses what a browser says to come from another site.
    pub(crate) fn same_origin(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        const OTHER: &str = "The request comes from another site.";
        let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        if let Some(site) = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok())
            && !matches!(site, "same-origin" | "none")
        {
            return Err(OTHER);
        }
        match text(header::ORIGIN) {
            None => Ok(()),
            Some(origin) => {
                let origin = origin.split_once("://").map_or(origin, |(_, rest)| rest);
                (Some(origin) == text(header::HOST)).then_some(()).ok_or(OTHER)
            }
        }
    }
}

/// Whether a `Host` is an address or this machine's own name.
pub(crate) fn is_own_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let said = headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let Some(said) = said else { return true };
    let name = match said.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => said.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// The value of a cookie.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|v| v.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (header::HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_change_needs_the_cookie_its_token_and_this_origin() {
        let guard = Guard::new(false);
        let (visitor, set) = guard.visitor(&HeaderMap::new(), "");
        let set = set.unwrap();
        assert!(
            set.contains("HttpOnly") && set.contains("SameSite=Strict"),
            "{set}"
        );
        let line = format!("{}={visitor}", guard.cookie);
        let token = guard.token(&visitor);
        let with = |more: &[(&'static str, &str)]| {
            let mut all = headers(&[("cookie", &line), ("host", "127.0.0.1:8001")]);
            all.extend(headers(more));
            all
        };
        assert_eq!(guard.check(&with(&[]), &token), Ok(()));
        assert_eq!(
            guard.check(&with(&[("origin", "http://127.0.0.1:8001")]), &token),
            Ok(())
        );
        assert_eq!(
            guard.check(&with(&[("sec-fetch-site", "same-origin")]), &token),
            Ok(())
        );
        assert!(guard.check(&with(&[]), "").is_err());
        assert!(
            guard
                .check(&with(&[]), &Guard::new(false).token(&visitor))
                .is_err()
        );
        assert!(
            guard
                .check(&headers(&[("host", "127.0.0.1:8001")]), &token)
                .is_err()
        );
        assert!(
            guard
                .check(&with(&[("origin", "http://evil.example")]), &token)
                .is_err()
        );
        assert!(guard.check(&with(&[("origin", "null")]), &token).is_err());
        assert!(
            guard
                .check(&with(&[("sec-fetch-site", "cross-site")]), &token)
                .is_err()
        );
        assert!(
            guard
                .check(&with(&[("sec-fetch-site", "same-site")]), &token)
                .is_err()
        );
    }

    #[test]
    fn only_addresses_and_this_machine_are_hosts() {
        let own = |host: &str| is_own_host(&headers(&[("host", host)]), &Uri::from_static("/"));
        for host in [
            "127.0.0.1:40123",
            "localhost:1",
            "[::1]:8001",
            "10.0.0.1",
            "tripod.localhost:80",
        ] {
            assert!(own(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8001",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
        ] {
            assert!(!own(host), "{host}");
        }
    }
}
