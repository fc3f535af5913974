//! Frames of SPDY/3.1, as far as streams of pods need them.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes that a frame may have.
const LIMIT: usize = 1 << 20;

/// What the words of headers are compressed against.
const WORDS: [&str; 63] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
];
const LAST_WORDS: [&str; 2] = ["keep-alive", "origin"];
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
                    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
                    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar \
                    Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,\
                    image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
                    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary that the standard prescribes.
fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.iter().chain(&LAST_WORDS) {
        out.put_u32(word.len() as u32);
        out.put_slice(word.as_bytes());
    }
    out.put_slice(TAIL.as_bytes());
    out
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream opens.
    Open {
        id: u32,
        headers: Vec<(String, String)>,
        last: bool,
    },
    /// Bytes of a stream.
    Data { id: u32, bytes: Bytes, last: bool },
    /// A stream is given up.
    Reset { id: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// The client ends.
    GoAway,
    /// Anything else.
    Other,
}

/// Reads frames.
pub(super) struct Source<R> {
    reader: R,
    buffer: BytesMut,
    inflate: Inflate,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            inflate: Inflate::default(),
        }
    }

    /// The next frame; `None` at the end, or when it is none.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        self.fill(8).await?;
        let head = self.buffer.split_to(8);
        let length = usize::try_from(u32::from_be_bytes([0, head[5], head[6], head[7]])).ok()?;
        if length > LIMIT {
            return None;
        }
        let flags = head[4];
        self.fill(length).await?;
        let mut body = self.buffer.split_to(length).freeze();
        if head[0] & 0x80 == 0 {
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            return Some(Frame::Data {
                id,
                bytes: body,
                last: flags & 1 != 0,
            });
        }
        let kind = u16::from_be_bytes([head[2], head[3]]);
        let number = |body: &mut Bytes| (body.len() >= 4).then(|| body.get_u32() & 0x7fff_ffff);
        match kind {
            1 => {
                let id = number(&mut body)?;
                if body.len() < 6 {
                    return None;
                }
                body.advance(6);
                let headers = headers(&self.inflate.read(&body)?)?;
                Some(Frame::Open {
                    id,
                    headers,
                    last: flags & 1 != 0,
                })
            }
            2 | 8 => {
                // Headers that are not looked at still move the compression on.
                number(&mut body)?;
                self.inflate.read(&body)?;
                Some(Frame::Other)
            }
            3 => Some(Frame::Reset {
                id: number(&mut body)?,
            }),
            6 => Some(Frame::Ping {
                id: (body.len() >= 4).then(|| body.get_u32())?,
            }),
            7 => Some(Frame::GoAway),
            _ => Some(Frame::Other),
        }
    }

    async fn fill(&mut self, wanted: usize) -> Option<()> {
        while self.buffer.len() < wanted {
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        Some(())
    }
}

/// Names and values of a block of headers.
fn headers(block: &[u8]) -> Option<Vec<(String, String)>> {
    let mut block = Bytes::copy_from_slice(block);
    let text = |block: &mut Bytes| {
        if block.len() < 4 {
            return None;
        }
        let length = usize::try_from(block.get_u32()).ok()?;
        (block.len() >= length).then(|| String::from_utf8_lossy(&block.split_to(length)).into_owned())
    };
    if block.len() < 4 {
        return None;
    }
    let count = block.get_u32();
    (0..count.min(256))
        .map(|_| Some((text(&mut block)?, text(&mut block)?)))
        .collect()
}

/// Decompresses headers: one stream for the whole connection, begun with the dictionary.
#[derive(Default)]
struct Inflate(Option<Decompress>);

impl Inflate {
    fn read(&mut self, mut input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(4096);
        if self.0.is_none() {
            // The head of a zlib stream; with bit 5 of its second byte the dictionary's number follows.
            let flags = *input.get(1)?;
            input = input.get(if flags & 0x20 == 0 { 2 } else { 6 }..)?;
            let mut state = Decompress::new(false);
            if flags & 0x20 != 0 {
                // A block that is stored uncompressed puts the dictionary into the window.
                let words = dictionary();
                let length = words.len() as u16;
                let mut block = vec![0];
                block.put_u16_le(length);
                block.put_u16_le(!length);
                block.extend_from_slice(&words);
                let mut skipped = Vec::with_capacity(4096);
                state
                    .decompress_vec(&block, &mut skipped, FlushDecompress::None)
                    .ok()?;
                if skipped != words {
                    return None;
                }
            }
            self.0 = Some(state);
        }
        let state = self.0.as_mut()?;
        loop {
            let before = state.total_in();
            let written = out.len();
            let status = state
                .decompress_vec(input, &mut out, FlushDecompress::Sync)
                .ok()?;
            input = &input[usize::try_from(state.total_in() - before).ok()?..];
            if out.len() == out.capacity() {
                if out.len() > LIMIT {
                    return None;
                }
                out.reserve(4096);
                continue;
            }
            let stuck = out.len() == written;
            if input.is_empty() || stuck || matches!(status, Status::StreamEnd) {
                return Some(out);
            }
        }
    }
}

/// Compresses the headers of replies.
pub(super) struct Deflate(Compress);

impl Default for Deflate {
    fn default() -> Self {
        Self(Compress::new(Compression::fast(), true))
    }
}

impl Deflate {
    fn write(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(block.len() + 256);
        self.0
            .compress_vec(block, &mut out, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        Ok(out)
    }

    /// The frame that accepts a stream.
    pub(super) fn reply(&mut self, id: u32) -> io::Result<Vec<u8>> {
        let block = self.write(&0u32.to_be_bytes())?;
        let mut frame = control(2, 0, block.len() + 4);
        frame.put_u32(id);
        frame.extend_from_slice(&block);
        Ok(frame)
    }
}

fn control(kind: u16, flags: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length + 8);
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u32(u32::from(flags) << 24 | length as u32 & 0x00ff_ffff);
    frame
}

/// The frame that answers a ping.
pub(super) fn ping(id: u32) -> Vec<u8> {
    let mut frame = control(6, 0, 4);
    frame.put_u32(id);
    frame
}

/// A frame of bytes; `last` ends this side of the stream.
pub(super) fn data(id: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    frame.put_u32(id & 0x7fff_ffff);
    frame.put_u32(u32::from(last) << 24 | bytes.len() as u32 & 0x00ff_ffff);
    frame.extend_from_slice(bytes);
    frame
}

/// The frame that gives up a stream.
pub(super) fn reset(id: u32) -> Vec<u8> {
    let mut frame = control(3, 0, 8);
    frame.put_u32(id);
    frame.put_u32(5);
    frame
}

/// The frame that ends the connection.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    let mut frame = control(7, 0, 8);
    frame.put_u32(last);
    frame.put_u32(0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_prescribed_one() {
        let words = dictionary();
        assert_eq!(words.len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &words {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[tokio::test]
    async fn frames_are_read() {
        let mut bytes = data(1, b"hello", true);
        bytes.extend(ping(7));
        bytes.extend(reset(3));
        bytes.extend(go_away(1));
        let mut source = Source::new(&bytes[..]);
        assert_eq!(
            source.next().await,
            Some(Frame::Data {
                id: 1,
                bytes: Bytes::from_static(b"hello"),
                last: true
            })
        );
        assert_eq!(source.next().await, Some(Frame::Ping { id: 7 }));
        assert_eq!(source.next().await, Some(Frame::Reset { id: 3 }));
        assert_eq!(source.next().await, Some(Frame::GoAway));
        assert_eq!(source.next().await, None);
    }

    #[tokio::test]
    async fn headers_are_decompressed_across_frames() {
        let mut deflate = Deflate::default();
        let mut bytes = Vec::new();
        for (id, value) in [(1u32, "stdin"), (3, "stdout")] {
            let mut block = Vec::new();
            block.put_u32(1);
            for text in ["streamtype", value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
            let block = deflate.write(&block).unwrap();
            let mut frame = control(1, 0, block.len() + 10);
            frame.put_u32(id);
            frame.put_u32(0);
            frame.put_u16(0);
            frame.extend_from_slice(&block);
            bytes.extend(frame);
        }
        let mut source = Source::new(&bytes[..]);
        for value in ["stdin", "stdout"] {
            let Some(Frame::Open { headers, .. }) = source.next().await else {
                panic!("no stream")
            };
            assert_eq!(headers, [("streamtype".to_owned(), value.to_owned())]);
        }
    }
}
