//! The multiplexed stream of attach, exec and logs: before each piece a header of eight bytes, the stream and the
//! length (big endian).

use bytes::{BufMut as _, Bytes, BytesMut};
use tripod_agent::ports::OutputStream;

/// Content type of streams without headers (terminals).
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
/// Content type of multiplexed streams, since 1.42.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// A stream that carries an error of the daemon.
pub(crate) const SYSTEM_ERROR: u8 = 3;

/// Number of a stream in a header.
pub(crate) fn number(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

/// The header of a piece.
pub(crate) fn header(stream: u8, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, length[0], length[1], length[2], length[3]]
}

/// A piece with its header, for short pieces that are worth one write.
pub(crate) fn framed(stream: u8, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|p| p.len()).sum();
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_slice(&header(stream, length));
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(header(1, 258), [1, 0, 0, 0, 0, 0, 1, 2]);
        let two = framed(number(OutputStream::Stderr), &[b"ab", b"c"]);
        assert_eq!(&two[..], b"\x02\0\0\0\0\0\0\x03abc");
    }
}
