//! Messages on a stream: a length (u32, little-endian) and so many bytes, mostly JSON.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest message among members of a cluster.
pub(crate) const MAX: usize = 64 << 20;
/// The largest message of somebody who has not yet proved to be a member.
pub(crate) const MAX_STRANGER: usize = 256 << 10;

/// Writes one message and hands it to the connection.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = Vec::with_capacity(bytes.len() + 4);
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(bytes);
    to.write_all(&message).await?;
    to.flush().await
}

/// Reads one message; `None` at the end of the stream.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > max {
        let text = format!("a message of {length} bytes exceeds the limit of {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // Grows with what arrives, not with what was promised.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    if from.take(length as u64).read_to_end(&mut bytes).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

/// Writes a value.
pub(crate) async fn send(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    write(to, &serde_json::to_vec(value)?).await
}

/// Reads a value.
pub(crate) async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> io::Result<T> {
    let bytes = read(from, max).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_keep_their_borders() {
        let (mut a, mut b) = tokio::io::duplex(16);
        let writer = tokio::spawn(async move {
            send(&mut a, &"one").await.unwrap();
            write(&mut a, &[7; 100]).await.unwrap();
            write(&mut a, b"too much").await.unwrap();
        });
        assert_eq!(receive::<String>(&mut b, MAX).await.unwrap(), "one");
        assert_eq!(read(&mut b, MAX).await.unwrap().unwrap(), [7; 100]);
        assert!(read(&mut b, 3).await.is_err());
        drop(b);
        let _ = writer.await;
    }

    #[tokio::test]
    async fn a_message_that_is_cut_short_is_an_error_and_an_end_is_none() {
        let (mut a, mut b) = tokio::io::duplex(64);
        a.write_all(&[9, 0, 0, 0, 1]).await.unwrap();
        drop(a);
        assert!(read(&mut b, MAX).await.is_err());
        assert!(read(&mut b, MAX).await.unwrap().is_none());
    }
}
