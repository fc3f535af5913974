//! Attaching over a WebSocket (RFC 6455), the server's side: output goes out in binary messages, what the client sends
//! is the input.

use base64::Engine as _;
use futures::StreamExt as _;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tripod_edge::empty;

use crate::call::Call;
use crate::fault::Fault;
use crate::hijack::{Session, attach_input};
use crate::reply::Reply;

/// The constant that RFC 6455 (section 1.3) appends to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest message that is taken from a client.
const MAX_MESSAGE: u64 = 1 << 20;

/// The answer to the client's key; an error when the request is no WebSocket handshake.
pub(crate) fn accept(call: &Call) -> Result<HeaderValue, Fault> {
    let key = call
        .header("sec-websocket-key")
        .filter(|_| call.wants_upgrade("websocket"));
    let key = key.ok_or_else(|| Fault::bad("not a websocket handshake"))?;
    HeaderValue::from_str(&accept_key(key)).map_err(Fault::bad)
}

fn accept_key(key: &str) -> String {
    let digest = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Answers with the streams.
pub(crate) fn serve(mut call: Call, accept: HeaderValue, session: Session) -> Reply {
    const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
    let upgrade = call
        .upgrade("websocket")
        .ok_or_else(|| Fault::bad("not a websocket handshake"))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => pump(TokioIo::new(connection), session).await,
            Err(e) => tracing::debug!("the client went away before its streams began: {e}"),
        }
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(ACCEPT, accept);
    Ok(response)
}

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A message of the server's: final, unmasked.
fn message(opcode: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 10);
    out.push(0x80 | opcode);
    match data.len() {
        n @ 0..126 => out.push(n as u8),
        n @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(data);
    out
}

/// One message of the client's, unmasked; `None` when the connection ends or the client breaks the rules.
async fn read_message(reader: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).await.ok()?;
    let length = match head[1] & 0x7f {
        126 => u64::from(reader.read_u16().await.ok()?),
        127 => reader.read_u64().await.ok()?,
        n => u64::from(n),
    };
    // A client must mask what it sends.
    if head[1] & 0x80 == 0 || length > MAX_MESSAGE {
        return None;
    }
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await.ok()?;
    let mut data = vec![0; usize::try_from(length).ok()?];
    reader.read_exact(&mut data).await.ok()?;
    for (i, byte) in data.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
    Some((head[0] & 0x0f, data))
}

async fn pump(connection: impl AsyncRead + AsyncWrite + Send + 'static, mut session: Session) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let mut stdin = session.stdin.take();
    let mut keys = session.keys.take();
    let (answers, mut to_send) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let input = async move {
        while let Some((opcode, data)) = read_message(&mut reader).await {
            match opcode {
                CLOSE => break,
                PING => drop(answers.send(message(PONG, &data)).await),
                PONG => {}
                _ => {
                    if attach_input(stdin.as_mut(), keys.as_mut(), &data)
                        .await
                        .is_break()
                    {
                        break;
                    }
                }
            }
        }
    };
    let output = async {
        loop {
            let piece = tokio::select! {
                Some(answer) = to_send.recv() => answer,
                chunk = session.output.next() => match chunk {
                    Some(Ok(chunk)) if session.wants(&chunk) => message(BINARY, &chunk.data),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => break,
                },
            };
            if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.write_all(&message(CLOSE, &1000_u16.to_be_bytes())).await;
        let _ = writer.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test]
    async fn messages() {
        assert_eq!(message(BINARY, b"Hello"), b"\x82\x05Hello");
        assert_eq!(message(BINARY, &[0; 300])[..4], [0x82, 126, 1, 44]);
        // The masked "Hello" of RFC 6455, section 5.7.
        let mut wire: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(read_message(&mut wire).await, Some((1, b"Hello".to_vec())));
        let mut unmasked: &[u8] = b"\x81\x05Hello";
        assert_eq!(read_message(&mut unmasked).await, None);
        let mut huge: &[u8] = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(read_message(&mut huge).await, None);
    }
}
