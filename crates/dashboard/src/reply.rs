//! Answers: headers of safety, compression, and the built-in files.

use std::io::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response as HttpResponse, StatusCode};
use tripod_edge::{Response, full};

/// Nothing from elsewhere, no script or style in the page itself, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Pages shorter than this are not worth packing.
const SMALL: usize = 2048;

/// A page.
pub(crate) fn html(status: StatusCode, text: String, gzip: bool) -> Response {
    let bytes = Bytes::from(text);
    let packed = (gzip && bytes.len() > SMALL).then(|| pack(&bytes, 1));
    let mut response = plain(
        status,
        "text/html; charset=utf-8",
        packed.clone().unwrap_or(bytes),
    );
    if packed.is_some() {
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// A body of some type, never to be kept.
pub(crate) fn plain(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = HttpResponse::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    safe(&mut response);
    response
}

/// Sends the browser elsewhere, by GET.
pub(crate) fn redirect(to: &str) -> Response {
    let mut response = plain(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    if let Ok(value) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// Adds a cookie.
pub(crate) fn set_cookie(response: &mut Response, line: &str) {
    if let Ok(value) = HeaderValue::from_str(line) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The headers that every answer carries.
pub(crate) fn safe(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A file that is part of the program.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    packed: OnceLock<Bytes>,
}

static ASSETS: [Asset; 4] = [
    Asset {
        name: "app.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("../assets/app.css"),
        packed: OnceLock::new(),
    },
    Asset {
        name: "app.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/app.js"),
        packed: OnceLock::new(),
    },
    Asset {
        name: "term.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/term.js"),
        packed: OnceLock::new(),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        text: include_str!("../assets/icon.svg"),
        packed: OnceLock::new(),
    },
];

/// A word that changes with the built-in files: it is in their addresses, so that browsers may keep them for ever.
pub(crate) fn assets_mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        ASSETS.iter().for_each(|a| digest.update(a.text.as_bytes()));
        hex::encode(&digest.finish().as_ref()[..6])
    })
}

/// A built-in file.
pub(crate) fn asset(name: &str, gzip: bool) -> Option<Response> {
    let asset = ASSETS.iter().find(|a| a.name == name)?;
    let mut response = if gzip {
        let packed = asset.packed.get_or_init(|| pack(asset.text.as_bytes(), 9));
        let mut response = plain(StatusCode::OK, asset.kind, packed.clone());
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        plain(StatusCode::OK, asset.kind, asset.text)
    };
    let keep = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    Some(response)
}

fn pack(bytes: &[u8], level: u32) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(bytes.len() / 4),
        flate2::Compression::new(level),
    );
    // Writing to memory does not fail.
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    packed.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_browser_loads_is_small() {
        let all: usize = ASSETS.iter().map(|a| pack(a.text.as_bytes(), 9).len()).sum();
        assert!(all < 100_000, "{all} bytes");
    }

    #[test]
    fn answers_forbid_foreign_and_inline_script() {
        let response = html(StatusCode::OK, "x".into(), false);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
