//! Names of images, as the distribution project defines them: `[domain/]path[:tag][@digest]`, with Docker's
//! short forms (`busybox` is `docker.io/library/busybox:latest`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A full image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// Registry, such as `docker.io` or `localhost:5000`.
    pub domain: String,
    /// Repository, such as `library/busybox`.
    pub path: String,
    /// Tag, when the name has one.
    pub tag: Option<String>,
    /// Digest, when the name has one.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a name and gives it the tag `latest` when it has neither tag nor digest.
    pub fn parse(name: &str) -> Result<Self> {
        let mut r: Self = name.parse()?;
        if r.tag.is_none() && r.digest.is_none() {
            r.tag = Some("latest".into());
        }
        Ok(r)
    }

    /// Domain and path as people write them: `busybox`, `spkane/quantum-game`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        match self.domain.as_str() {
            "docker.io" => self
                .path
                .strip_prefix("library/")
                .unwrap_or(&self.path)
                .to_owned(),
            domain => format!("{domain}/{}", self.path),
        }
    }

    /// The familiar name with tag and digest.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// The same name without tag and with this digest.
    pub fn with_digest(&self, digest: &str) -> Self {
        Self {
            tag: None,
            digest: Some(digest.to_owned()),
            ..self.clone()
        }
    }

    fn suffixed(&self, mut s: String) -> String {
        if let Some(tag) = &self.tag {
            s.push(':');
            s.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            s.push('@');
            s.push_str(digest);
        }
        s
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.domain, self.path)))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let bad = || Error::invalid("invalid reference format");
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (name, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((r, t)) if !t.contains('/') => {
                if !is_tag(t) {
                    return Err(bad());
                }
                (r, Some(t.to_owned()))
            }
            _ => (rest, None),
        };
        let (domain, path) = match rest.split_once('/') {
            Some((d, p)) if is_domain_word(d) => (normal_domain(d), p.to_owned()),
            _ => ("docker.io".to_owned(), rest.to_owned()),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(Error::invalid(
                "invalid reference format: repository name must be lowercase",
            ));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(bad());
        }
        let path = if domain == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if domain.len() + path.len() > 255 {
            return Err(Error::invalid(
                "repository name must not be more than 255 characters",
            ));
        }
        Ok(Self {
            domain,
            path,
            tag,
            digest,
        })
    }
}

fn normal_domain(d: &str) -> String {
    if d == "index.docker.io" {
        "docker.io".into()
    } else {
        d.to_owned()
    }
}

fn is_domain_word(d: &str) -> bool {
    d == "localhost" || d.contains(['.', ':']) || d.chars().any(|c| c.is_ascii_uppercase())
}

fn is_domain(d: &str) -> bool {
    let (host, port) = match d.rsplit_once(':') {
        Some((h, p)) if !d.ends_with(']') => (h, Some(p)),
        _ => (d, None),
    };
    let host_ok = if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        !v6.is_empty() && v6.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
    } else {
        host.split('.').all(|l| {
            !l.is_empty()
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        })
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(c: &str) -> bool {
    let ends = |f: Option<char>| f.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(c.chars().next())
        && ends(c.chars().last())
        && c.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"]
            .iter()
            .any(|s| c.contains(s))
}

fn is_tag(t: &str) -> bool {
    t.len() <= 128
        && t.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && t.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether the text is a digest, `algorithm:hex`.
pub fn is_digest(d: &str) -> bool {
    match d.split_once(':') {
        Some(("sha256", hex)) => {
            hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        }
        Some(("sha512", hex)) => {
            hex.len() == 128 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        for (name, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            (
                "spkane/mongo:5.0",
                "docker.io/spkane/mongo:5.0",
                "spkane/mongo:5.0",
            ),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b:latest",
                "localhost:5000/a/b:latest",
            ),
            ("ghcr.io/x/y:v1", "ghcr.io/x/y:v1", "ghcr.io/x/y:v1"),
            (
                "index.docker.io/library/x",
                "docker.io/library/x:latest",
                "x:latest",
            ),
        ] {
            let r = Reference::parse(name).unwrap();
            assert_eq!(r.to_string(), full);
            assert_eq!(r.familiar(), familiar);
        }
        let d = format!("busybox@sha256:{}", "a".repeat(64));
        assert_eq!(Reference::parse(&d).unwrap().familiar(), d);
    }

    #[test]
    fn bad_names() {
        for name in [
            "",
            "Busybox",
            "a:b:c/",
            "x:",
            "a//b",
            "-x",
            "x@sha256:1",
            "x:.a",
            "a..b",
            "http://x/y",
        ] {
            assert!(Reference::parse(name).is_err(), "{name}");
        }
    }
}
