//! Paths of the API.

use tripod_model::reference::Reference;

use crate::fault::Fault;

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(String),
    /// Repository; tag or digest.
    Manifest(String, String),
    Blob(String, String),
    Uploads(String),
    Upload(String, String),
    Referrers(String, String),
}

/// A route from a repository's name and the last part of the path.
type Make = fn(String, String) -> Route;

impl Route {
    /// Reads a path. A repository's name may have slashes, so that what it ends with tells.
    pub(crate) fn parse(path: &str) -> Result<Self, Fault> {
        let Some(rest) = path.strip_prefix("/v2") else {
            return Err(Fault::no_such_path());
        };
        let rest = match rest {
            "" | "/" => return Ok(Self::Base),
            rest => rest.strip_prefix('/').ok_or_else(Fault::no_such_path)?,
        };
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let (name, route): (&[&str], Make) = match parts.as_slice() {
            [name @ .., "tags", "list"] => (name, |n, _| Self::Tags(n)),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                (name, |n, _| Self::Uploads(n))
            }
            [name @ .., "blobs", "uploads", _] => (name, Self::Upload),
            [name @ .., "manifests", _] => (name, Self::Manifest),
            [name @ .., "blobs", _] => (name, Self::Blob),
            [name @ .., "referrers", _] => (name, Self::Referrers),
            _ => return Err(Fault::no_such_path()),
        };
        let last = (*parts.last().unwrap_or(&"")).to_owned();
        let name = name.join("/");
        let whole = format!("localhost:1/{name}");
        let fine = whole
            .parse::<Reference>()
            .is_ok_and(|r| r.tag.is_none() && r.digest.is_none() && r.path == name);
        if !fine {
            return Err(Fault::name_invalid(&name));
        }
        let route = route(name, last);
        if let Self::Blob(_, digest) | Self::Referrers(_, digest) = &route
            && !is_digest(digest)
        {
            return Err(Fault::digest_invalid(format_args!("{digest:?} is no digest")));
        }
        Ok(route)
    }
}

/// Whether a text is a digest of an algorithm that is served.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |hex: &str, length| {
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match text.split_once(':') {
        Some(("sha256", h)) => hex(h, 64),
        Some(("sha512", h)) => hex(h, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let s = str::to_owned;
        let cases = [
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/x/tags/list".to_owned(), Route::Tags(s("x"))),
            (
                "/v2/a/b/manifests/v1".to_owned(),
                Route::Manifest(s("a/b"), s("v1")),
            ),
            (
                format!("/v2/a/b/blobs/{digest}"),
                Route::Blob(s("a/b"), digest.clone()),
            ),
            ("/v2/x/blobs/uploads/".to_owned(), Route::Uploads(s("x"))),
            (
                "/v2/x/blobs/uploads/77".to_owned(),
                Route::Upload(s("x"), s("77")),
            ),
            (
                format!("/v2/x/referrers/{digest}"),
                Route::Referrers(s("x"), digest.clone()),
            ),
        ];
        for (path, route) in cases {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
        for bad in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/x",
            "/v2/X/tags/list",
            "/v2/tags/list",
            "/v2/x/blobs/sha256:1",
            "/v2/a:b/manifests/1",
        ] {
            assert!(Route::parse(bad).is_err(), "{bad}");
        }
    }
}
