//! A connection whose small writes go out together, and which does not end before its last answer is read.
//!
//! HTTP/2 writes an answer as several pieces (headers, frame header, data) and flushes after nearly each, so that every answer would be
//! a TLS record and a system call of its own. Here a flush that follows new bytes only asks for another poll of the connection; the
//! flush of that poll, when nothing was written since, sends what has gathered. By then the other requests that were ready have
//! answered too. HTTP/2 flushes in every poll of its connection; others may not, so that this is for HTTP/2 alone.
//!
//! A connection of HTTP/1 lingers when it ends: what the client is still sending is read for a moment and dropped, because a socket
//! that is closed over unread bytes resets, and the client would never see why it was refused.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// As much as is held back at most: four TLS records.
const MOST: usize = 64 * 1024;
/// An idle connection keeps no buffer larger than this.
const KEPT: usize = 4 * 1024;

/// How long a connection lingers, as upstream.
const LINGER: Duration = Duration::from_millis(500);

/// See the module. `gathering: false` passes everything through.
pub struct Coalesce<T> {
    inner: T,
    gathering: bool,
    held: Vec<u8>,
    /// How much of `held` has gone out.
    sent: usize,
    /// Bytes have come since the last flush.
    fresh: bool,
    /// The end of lingering, once our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncWrite + Unpin> Coalesce<T> {
    pub fn new(inner: T, gathering: bool) -> Self {
        Coalesce { inner, gathering, held: Vec::new(), sent: 0, fresh: false, lingering: None }
    }

    /// Hands everything held to the connection.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.sent = 0;
        self.held.clear();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Coalesce<T> {
    /// Reads what still comes, until the client has closed its side too or the moment is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut dropped = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalesce<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.gathering {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        if self.held.len() >= MOST {
            ready!(self.poll_empty(cx))?;
        }
        let taken = buf.len().min(MOST - self.held.len());
        self.held.extend_from_slice(&buf[..taken]);
        self.fresh = true;
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.gathering {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let mut taken = 0;
        for buf in bufs {
            match self.as_mut().poll_write(cx, buf) {
                Poll::Ready(Ok(more)) => taken += more,
                _ if taken > 0 => break,
                other => return other,
            }
            if self.held.len() >= MOST {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.gathering || self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.fresh) {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_empty(cx))?;
        self.held.shrink_to(KEPT);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(self.poll_empty(cx))?;
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            if self.gathering {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn pieces_go_out_together_with_the_second_flush() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Coalesce::new(near, true);
        let mut buffer = [0; 16];
        for piece in [b"head", b"body"] {
            near.write_all(piece).await.expect("held");
            near.flush().await.expect("waits for more");
            assert!(futures::poll!(Box::pin(far.read(&mut buffer))).is_pending(), "nothing has gone out");
        }
        near.flush().await.expect("goes out");
        assert_eq!(far.read(&mut buffer).await.expect("reads"), 8);
        assert_eq!(&buffer[..8], b"headbody");
    }

    #[tokio::test]
    async fn more_than_is_held_goes_out_in_order() {
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Coalesce::new(near, true);
        let write = async {
            near.write_all(&sent).await.expect("written");
            near.shutdown().await.expect("ends");
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut got));
        read.expect("reads");
        assert_eq!(got, sent);
    }
}
