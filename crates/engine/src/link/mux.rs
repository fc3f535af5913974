//! Many streams on one connection (yamux).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tokio_util::sync::CancellationToken;

/// A stream of a connection. One that was opened here keeps its connection.
pub(crate) struct Stream {
    inner: Compat<yamux::Stream>,
    _mux: Option<Mux>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Streams of one connection that are open at once.
const STREAMS: usize = 4096;

/// Which side of a connection this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It dialled: the connection ends when nobody here uses it any more.
    Dialled,
    /// It was dialled: the connection ends when the other side ends it.
    Accepted,
}

type Open = oneshot::Sender<io::Result<yamux::Stream>>;

/// A handle on a connection. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Mux {
    opens: mpsc::Sender<Open>,
    closed: CancellationToken,
    /// Ends the connection at once.
    kill: Arc<CancellationToken>,
}

impl Mux {
    /// Takes a connection over. Streams that the other side opens go to `accept`.
    pub(crate) fn start<T, F>(io: T, side: Side, accept: F) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(Stream) + Send + 'static,
    {
        let mut config = yamux::Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(STREAMS);
        let mode = match side {
            Side::Dialled => yamux::Mode::Client,
            Side::Accepted => yamux::Mode::Server,
        };
        let connection = yamux::Connection::new(io.compat(), config, mode);
        let (opens, asked) = mpsc::channel(64);
        let (closed, kill) = (CancellationToken::new(), CancellationToken::new());
        let over = closed.clone().drop_guard();
        let killed = kill.clone();
        tokio::spawn(async move {
            let _over = over;
            tokio::select! {
                () = drive(connection, asked, side, accept) => {}
                () = killed.cancelled() => {}
            }
        });
        Self {
            opens,
            closed,
            kill: Arc::new(kill),
        }
    }

    /// Opens a stream.
    pub(crate) async fn open(&self) -> io::Result<Stream> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.opens.send(reply).await.map_err(|_| gone())?;
        let stream = answer.await.map_err(|_| gone())??;
        Ok(Stream {
            inner: stream.compat(),
            _mux: Some(self.clone()),
        })
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Returns when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ends the connection with all its streams.
    pub(crate) fn end(&self) {
        self.kill.cancel();
    }
}

async fn drive<T, F>(
    mut connection: yamux::Connection<Compat<T>>,
    mut asked: mpsc::Receiver<Open>,
    side: Side,
    accept: F,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Stream),
{
    let mut waiting: Option<Open> = None;
    let mut unused = false;
    poll_fn(move |cx| {
        loop {
            if waiting.is_none() && !unused {
                match asked.poll_recv(cx) {
                    Poll::Ready(Some(open)) => waiting = Some(open),
                    Poll::Ready(None) => unused = true,
                    Poll::Pending => {}
                }
            }
            if unused && side == Side::Dialled {
                // Its errors say that it is closed already.
                return connection.poll_close(cx).map(|_| ());
            }
            if let Some(open) = waiting.take() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(stream) => {
                        // Who asked may have gone away: then the stream ends unused.
                        let _ = open.send(stream.map_err(io::Error::other));
                        continue;
                    }
                    Poll::Pending => waiting = Some(open),
                }
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => accept(Stream {
                    inner: stream.compat(),
                    _mux: None,
                }),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn streams_go_both_ways_and_end_with_the_connection() {
        let (a, b) = tokio::io::duplex(64 << 10);
        let echo = |mut stream: Stream| {
            tokio::spawn(async move {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                stream.write_all(&text).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        };
        let dialled = Mux::start(a, Side::Dialled, echo);
        let accepted = Mux::start(b, Side::Accepted, echo);
        for mux in [&dialled, &accepted] {
            let mut stream = mux.open().await.unwrap();
            stream.write_all(&[1; 300_000]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert_eq!(back.len(), 300_000);
        }
        drop(dialled);
        accepted.closed().await;
        assert!(accepted.open().await.is_err());
    }
}
