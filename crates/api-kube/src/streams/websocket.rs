//! WebSocket (RFC 6455) from the server's side: messages in, messages out.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that a message of a client may have.
const LIMIT: usize = 16 << 20;

/// The proof that a key was read.
pub(super) fn accept_key(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.as_ref())
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Text or bytes.
    Data(Bytes),
    /// To be answered with a pong.
    Ping(Bytes),
    /// The client ends.
    Close,
}

/// The half that reads.
pub(super) struct Source<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None` at the end of the connection, or when it does not speak WebSocket.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let mut whole = BytesMut::new();
        loop {
            let (last, opcode, payload) = self.frame().await?;
            match opcode {
                0..=2 => {
                    if whole.len() + payload.len() > LIMIT {
                        return None;
                    }
                    whole.extend_from_slice(&payload);
                    if last {
                        return Some(Message::Data(whole.freeze()));
                    }
                }
                8 => return Some(Message::Close),
                9 => return Some(Message::Ping(payload.freeze())),
                10 => {}
                _ => return None,
            }
        }
    }

    async fn frame(&mut self) -> Option<(bool, u8, BytesMut)> {
        self.fill(2).await?;
        let (first, second) = (self.buffer[0], self.buffer[1]);
        self.buffer.advance(2);
        let length = match second & 0x7f {
            126 => {
                self.fill(2).await?;
                usize::from(self.buffer.get_u16())
            }
            127 => {
                self.fill(8).await?;
                usize::try_from(self.buffer.get_u64()).ok()?
            }
            short => usize::from(short),
        };
        if length > LIMIT {
            return None;
        }
        let mask = if second & 0x80 == 0 {
            [0; 4]
        } else {
            self.fill(4).await?;
            self.buffer.get_u32().to_be_bytes()
        };
        self.fill(length).await?;
        let mut payload = self.buffer.split_to(length);
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[i % 4];
        }
        Some((first & 0x80 != 0, first & 0x0f, payload))
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

/// The half that writes.
pub(super) struct Sink<W>(W);

impl<W: AsyncWrite + Unpin> Sink<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(writer)
    }

    /// Sends a message of bytes, made of a head and a body.
    pub(super) async fn binary(&mut self, head: &[u8], body: &[u8]) -> std::io::Result<()> {
        self.frame(2, head, body).await
    }

    /// Sends a message of text.
    pub(super) async fn text(&mut self, body: &[u8]) -> std::io::Result<()> {
        self.frame(1, &[], body).await
    }

    pub(super) async fn pong(&mut self, body: &[u8]) -> std::io::Result<()> {
        self.frame(10, &[], body).await
    }

    /// Ends the connection in an orderly way.
    pub(super) async fn close(&mut self) -> std::io::Result<()> {
        self.frame(8, &1000u16.to_be_bytes(), &[]).await?;
        self.0.shutdown().await
    }

    async fn frame(&mut self, opcode: u8, head: &[u8], body: &[u8]) -> std::io::Result<()> {
        let length = head.len() + body.len();
        let mut out = BytesMut::with_capacity(length + 10);
        out.extend_from_slice(&[0x80 | opcode]);
        match length {
            0..126 => out.extend_from_slice(&[length as u8]),
            126..=0xffff => {
                out.extend_from_slice(&[126]);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                out.extend_from_slice(&[127]);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        self.0.write_all(&out).await?;
        self.0.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_proved_as_the_standard_says() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test]
    async fn messages_are_read_in_pieces() {
        let bytes: &[u8] = &[
            0x02,
            0x82,
            1,
            2,
            3,
            4,
            b'a' ^ 1,
            b'b' ^ 2, // first half, masked
            0x89,
            0x00, // a ping in between ends nothing here
        ];
        let mut source = Source::new(bytes);
        assert_eq!(source.next().await, Some(Message::Ping(Bytes::new())));
        let bytes: &[u8] = &[0x02, 0x01, b'x', 0x80, 0x01, b'y', 0x88, 0x00];
        let mut source = Source::new(bytes);
        assert_eq!(
            source.next().await,
            Some(Message::Data(Bytes::from_static(b"xy")))
        );
        assert_eq!(source.next().await, Some(Message::Close));
        assert_eq!(source.next().await, None);
    }
}
