//! The end of a connection whose client may still be sending.
//!
//! A socket that is closed while bytes wait in it is reset, and a client that is in the middle of a long request then
//! never sees the answer which told it to stop. So the sending half is closed first, and what comes in is thrown away
//! until the client closes too, within bounds.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bounds of the wait.
#[derive(Debug, Clone, Copy)]
pub struct Linger {
    /// The longest time between two pieces.
    pub idle: Duration,
    /// Bytes thrown away.
    pub bytes: u64,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            idle: Duration::from_millis(500),
            bytes: 4 << 30,
        }
    }
}

/// Says that a connection is to end without waiting: it was upgraded, so that its bytes are no request's, or the
/// listener ends.
pub(crate) type AtOnce = Arc<AtomicBool>;

/// A stream that ends so.
pub(crate) struct Lingering<S> {
    stream: S,
    bounds: Linger,
    at_once: AtOnce,
    closing: Option<Closing>,
}

struct Closing {
    idle: Pin<Box<Sleep>>,
    left: u64,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S, bounds: Linger, at_once: AtOnce) -> Self {
        Self {
            stream,
            bounds,
            at_once,
            closing: None,
        }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let bounds = self.bounds;
        let closing = self.closing.get_or_insert_with(|| Closing {
            idle: Box::pin(tokio::time::sleep(bounds.idle)),
            left: bounds.bytes,
        });
        let mut scratch = [0; 16 << 10];
        // A fast client must not keep this task from yielding.
        for _ in 0..64 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return closing.idle.as_mut().poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let n = buf.filled().len() as u64;
            closing.left = closing.left.saturating_sub(n);
            if n == 0 || closing.left == 0 {
                return Poll::Ready(());
            }
            let later = tokio::time::Instant::now() + bounds.idle;
            closing.idle.as_mut().reset(later);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes the sending half, then waits for the client's end.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.at_once.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.poll_discard(cx).map(Ok)
    }
}
