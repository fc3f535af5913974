//! Content digests (`sha256:…`, `sha512:…`), computed while bytes pass through.

use std::io::{self, Read, Write};

use ring::digest;
use tripod_model::{Error, Result};

/// A running digest of one algorithm.
#[derive(Clone)]
pub(crate) struct Hasher {
    context: digest::Context,
    name: &'static str,
}

impl Hasher {
    /// SHA-256, what images are addressed by unless they say otherwise.
    pub(crate) fn sha256() -> Self {
        Self {
            context: digest::Context::new(&digest::SHA256),
            name: "sha256",
        }
    }

    /// The algorithm of a given digest.
    pub(crate) fn for_digest(expected: &str) -> Result<Self> {
        match expected.split_once(':') {
            Some(("sha256", hex)) if is_hex(hex, 64) => Ok(Self::sha256()),
            Some(("sha512", hex)) if is_hex(hex, 128) => Ok(Self {
                context: digest::Context::new(&digest::SHA512),
                name: "sha512",
            }),
            _ => Err(Error::invalid(format!("invalid digest: {expected:?}"))),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest with its algorithm, `sha256:…`.
    pub(crate) fn finish(self) -> String {
        format!("{}:{}", self.name, hex::encode(self.context.finish()))
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the text is a digest of a known algorithm, so that it is safe as a file name too.
pub(crate) fn is_digest(text: &str) -> bool {
    Hasher::for_digest(text).is_ok()
}

/// The digest of bytes in memory.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut h = Hasher::sha256();
    h.update(bytes);
    h.finish()
}

/// First twelve hexadecimal digits, as docker shows identifiers.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex).to_owned()
}

/// Checks bytes against a digest.
pub(crate) fn verify(expected: &str, bytes: &[u8]) -> Result<()> {
    let mut h = Hasher::for_digest(expected)?;
    h.update(bytes);
    let got = h.finish();
    if got == expected {
        Ok(())
    } else {
        Err(mismatch(expected, &got))
    }
}

/// The error for content that is not what its digest says.
pub(crate) fn mismatch(expected: &str, got: &str) -> Error {
    Error::invalid(format!(
        "filesystem layer verification failed for digest {expected}: content has {got}"
    ))
}

/// A reader that digests and counts what it hands on.
pub(crate) struct HashRead<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> HashRead<R> {
    pub(crate) fn new(inner: R, hasher: Hasher) -> Self {
        Self {
            inner,
            hasher,
            count: 0,
        }
    }

    /// Reads to the end (padding after a tar's last entry counts too), then the digest and number of bytes.
    pub(crate) fn drain(mut self) -> io::Result<(String, u64)> {
        let mut buf = vec![0; 32 * 1024];
        while self.read(&mut buf)? > 0 {}
        Ok((self.hasher.finish(), self.count))
    }
}

impl<R: Read> Read for HashRead<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// A writer that digests and counts what passes.
pub(crate) struct HashWrite<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> HashWrite<W> {
    pub(crate) fn new(inner: W, hasher: Hasher) -> Self {
        Self {
            inner,
            hasher,
            count: 0,
        }
    }

    pub(crate) fn finish(self) -> (W, String, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<W: Write> Write for HashWrite<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        assert!(verify(empty, b"").is_ok());
        assert!(verify(empty, b"x").is_err());
        assert!(!is_digest("sha256:../../etc"));
        assert!(!is_digest("md5:00"));
        let (d, n) = HashRead::new(&b"abc"[..], Hasher::sha256()).drain().unwrap();
        assert_eq!((d, n), (sha256(b"abc"), 3));
    }
}
