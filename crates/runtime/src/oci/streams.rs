//! The daemon's end of an attachment.

use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tripod_agent::ports::{OutputChunk, OutputStream, Streams};
use tripod_model::{Error, Result};

/// Makes the port's streams of an attachment's socket.
pub(super) fn streams(fds: Vec<OwnedFd>, stdin: bool) -> Result<Streams> {
    let fd = fds
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("the keeper sent no stream"))?;
    let socket = std::os::unix::net::UnixStream::from(fd);
    socket.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(socket)?.into_split();
    // Where nobody writes, the half is kept as long as the output is read: its end would mean the input's end.
    let (stdin, held) = if stdin {
        (Some(Box::new(write) as _), None)
    } else {
        (None, Some(write))
    };
    let output = Output {
        read: BufReader::with_capacity(32 * 1024, read),
        _held: held,
    };
    let output = futures::stream::unfold(
        output,
        |mut o| async move { o.next().await.map(|item| (item, o)) },
    )
    .boxed();
    Ok(Streams { stdin, output })
}

struct Output {
    read: BufReader<OwnedReadHalf>,
    _held: Option<OwnedWriteHalf>,
}

impl Output {
    async fn next(&mut self) -> Option<Result<OutputChunk>> {
        let mut head = [0u8; 4];
        // A keeper that was killed ends the stream too.
        self.read.read_exact(&mut head).await.ok()?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
        let mut data = BytesMut::zeroed(len);
        if let Err(e) = self.read.read_exact(&mut data).await {
            return Some(Err(Error::internal(format!("reading output: {e}"))));
        }
        let stream = if head[0] == 2 {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        };
        Some(Ok(OutputChunk {
            stream,
            data: Bytes::from(data),
        }))
    }
}
