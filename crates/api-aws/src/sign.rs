//! Signature Version 4: who signed a request, and whether the signature is theirs.

use std::fmt::Write as _;

use http::HeaderMap;
use ring::{digest, hmac};
use tripod_model::Time;

/// Seconds that a client's clock may be off.
const SKEW: i64 = 300;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a request says of its signature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Claim {
    pub(crate) key: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    headers: Vec<String>,
    signature: String,
    /// `20260102T030405Z`.
    time: String,
}

/// What is wrong with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// There is none.
    Missing,
    /// It cannot be read.
    Incomplete(String),
    /// It is too old, or of the future.
    Expired(String),
    /// It is another's.
    Mismatch,
}

/// The claim in the headers.
pub(crate) fn claim(headers: &HeaderMap) -> Result<Claim, Wrong> {
    let authorization = text(headers, "authorization").ok_or(Wrong::Missing)?;
    let fields = authorization.strip_prefix(ALGORITHM).ok_or_else(|| {
        let name = authorization.split(' ').next().unwrap_or_default();
        Wrong::Incomplete(format!(
            "Unsupported signature algorithm '{name}'; use {ALGORITHM}."
        ))
    })?;
    let mut claim = Claim::default();
    for field in fields.split(',').filter_map(|f| f.trim().split_once('=')) {
        match field {
            ("Credential", scope) => {
                let parts: Vec<&str> = scope.split('/').collect();
                if let [key, date, region, service, "aws4_request"] = parts[..] {
                    (claim.key, claim.date) = (key.into(), date.into());
                    (claim.region, claim.service) = (region.into(), service.into());
                }
            }
            ("SignedHeaders", names) => claim.headers = names.split(';').map(str::to_owned).collect(),
            ("Signature", hex) => claim.signature = hex.to_owned(),
            _ => {}
        }
    }
    claim.time = text(headers, "x-amz-date").unwrap_or_default().to_owned();
    let parts = [
        ("Credential", claim.key.is_empty()),
        ("SignedHeaders", claim.headers.is_empty()),
        ("Signature", claim.signature.is_empty()),
        ("X-Amz-Date", claim.time.is_empty()),
    ];
    match parts.iter().find(|(_, absent)| *absent) {
        Some((name, _)) => {
            let text =
                format!("Authorization header requires '{name}' parameter. Authorization={authorization}");
            Err(Wrong::Incomplete(text))
        }
        None => Ok(claim),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The parts of a request that are signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Whether the claim is true of the request, under the key's secret.
pub(crate) fn verify(claim: &Claim, request: &Signed<'_>, secret: &str, now: Time) -> Result<(), Wrong> {
    if !claim.headers.iter().any(|h| h == "host") {
        return Err(Wrong::Mismatch);
    }
    fresh(claim, now)?;
    let canonical = canonical(claim, request)?;
    let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{scope}\n{}",
        claim.time,
        hash(canonical.as_bytes())
    );
    let mut key = mac(format!("AWS4{secret}").as_bytes(), &claim.date);
    for part in [claim.region.as_str(), &claim.service, "aws4_request"] {
        key = mac(&key, part);
    }
    let given = hex::decode(&claim.signature).map_err(|_| Wrong::Mismatch)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, to_sign.as_bytes(), &given).map_err(|_| Wrong::Mismatch)
}

fn fresh(claim: &Claim, now: Time) -> Result<(), Wrong> {
    let unreadable = || {
        Wrong::Incomplete(format!(
            "Date '{}' is not of the form 20060102T150405Z.",
            claim.time
        ))
    };
    let t = &claim.time;
    let digits = |r: std::ops::Range<usize>| t.get(r).unwrap_or_default();
    let iso = format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits(0..4),
        digits(4..6),
        digits(6..8),
        digits(9..11),
        digits(11..13),
        digits(13..15)
    );
    let at: Time = iso.parse().map_err(|_| unreadable())?;
    if digits(0..8) != claim.date {
        let text = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP";
        return Err(Wrong::Incomplete(text.into()));
    }
    let off = now.as_second() - at.as_second();
    let stamp = |t: Time| t.strftime("%Y%m%dT%H%M%SZ").to_string();
    let limit = |by: i64| {
        let limit = Time::from_second(now.as_second() + by).unwrap_or(now);
        format!(
            "{} ({} {} 5 min.)",
            stamp(limit),
            stamp(now),
            if by < 0 { "-" } else { "+" }
        )
    };
    if off > SKEW {
        let text = format!("Signature expired: {t} is now earlier than {}", limit(-SKEW));
        return Err(Wrong::Expired(text));
    }
    if off < -SKEW {
        let text = format!(
            "Signature not yet current: {t} is still later than {}",
            limit(SKEW)
        );
        return Err(Wrong::Expired(text));
    }
    Ok(())
}

fn canonical(claim: &Claim, request: &Signed<'_>) -> Result<String, Wrong> {
    let mut headers = String::new();
    for name in &claim.headers {
        let values: Vec<&str> = request
            .headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect();
        if values.is_empty() {
            return Err(Wrong::Mismatch);
        }
        let value = values.join(",");
        let value: Vec<&str> = value.split(' ').filter(|w| !w.is_empty()).collect();
        // Writing into a String does not fail.
        let _ = writeln!(headers, "{name}:{}", value.join(" "));
    }
    let path = if request.path.is_empty() {
        "/"
    } else {
        request.path
    };
    let mut query: Vec<&str> = request.query.split('&').filter(|p| !p.is_empty()).collect();
    query.sort_unstable();
    Ok(format!(
        "{}\n{path}\n{}\n{headers}\n{}\n{}",
        request.method,
        query.join("&"),
        claim.headers.join(";"),
        hash(request.body)
    ))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with botocore's signer: POST / of `Action=ListUsers` to 127.0.0.1:4566, key AKIDEXAMPLE, secret `secret`.
    const SIGNATURE: &str = "32970387061074d8a3e665a9d5f22139d58af15749f78277cafb33dab4c48e8a";
    const BODY: &[u8] = b"Action=ListUsers&Version=2010-05-08";

    fn headers(signature: &str) -> HeaderMap {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
        );
        let pairs = [
            ("host", "127.0.0.1:4566"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-amz-date", "20260102T030405Z"),
            ("authorization", authorization.as_str()),
        ];
        let pairs = pairs.map(|(k, v)| {
            let name = http::HeaderName::try_from(k).unwrap();
            (name, http::HeaderValue::try_from(v).unwrap())
        });
        HeaderMap::from_iter(pairs)
    }

    fn check(secret: &str, now: &str, body: &[u8]) -> Result<(), Wrong> {
        let headers = headers(SIGNATURE);
        let signed = Signed {
            method: "POST",
            path: "/",
            query: "",
            headers: &headers,
            body,
        };
        verify(&claim(&headers)?, &signed, secret, now.parse().unwrap())
    }

    #[test]
    fn signatures_hold_for_the_very_request() {
        let now = "2026-01-02T03:06:00Z";
        assert_eq!(check("secret", now, BODY), Ok(()));
        assert_eq!(check("other", now, BODY), Err(Wrong::Mismatch));
        assert_eq!(check("secret", now, b"Action=DeleteUser"), Err(Wrong::Mismatch));
        assert!(matches!(
            check("secret", "2026-01-02T03:10:00Z", BODY),
            Err(Wrong::Expired(_))
        ));
        assert!(matches!(
            check("secret", "2026-01-02T02:50:00Z", BODY),
            Err(Wrong::Expired(_))
        ));
    }

    #[test]
    fn what_is_no_signature() {
        assert_eq!(claim(&HeaderMap::new()), Err(Wrong::Missing));
        assert!(matches!(claim(&headers("")), Err(Wrong::Incomplete(_))));
    }
}
