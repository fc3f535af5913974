//! Bridges between blocking writers and asynchronous readers, with a bounded number of bytes in between.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tripod_agent::ports::BoxRead;
use tripod_model::Result;

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;

/// Gives a reader of what `work` writes, on a thread of its own. When `work` fails the reader fails too, so that
/// nobody takes a part for the whole; when the reader is dropped, writing fails and `work` ends.
pub(crate) fn produce(work: impl FnOnce(&mut Sink) -> Result<()> + Send + 'static) -> BoxRead {
    let (send, receive) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink {
            send,
            buf: BytesMut::with_capacity(CHUNK),
        };
        let done = work(&mut sink).and_then(|()| sink.flush().map_err(Into::into));
        if let Err(e) = done {
            // The reader is gone or gets the error.
            let _ = sink.send.blocking_send(Err(io::Error::other(e)));
        }
    });
    Box::new(StreamReader::new(ReceiverStream::new(receive)))
}

/// The blocking end.
pub(crate) struct Sink {
    send: mpsc::Sender<io::Result<Bytes>>,
    buf: BytesMut,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(CHUNK - self.buf.len());
        self.buf.extend_from_slice(&data[..n]);
        if self.buf.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buf, BytesMut::with_capacity(CHUNK)).freeze();
        self.send
            .blocking_send(Ok(full))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tripod_model::Error;

    use super::*;

    #[tokio::test]
    async fn bytes_and_errors_arrive() {
        let mut out = Vec::new();
        produce(|w| Ok(w.write_all(&vec![7; 300_000])?))
            .read_to_end(&mut out)
            .await
            .unwrap();
        assert_eq!(out.len(), 300_000);
        let mut failing = produce(|w| {
            w.write_all(b"part")?;
            Err(Error::internal("broken"))
        });
        let e = failing.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(e.to_string().contains("broken"));
    }
}
