//! One stream of a connection: bytes both ways, each way closed on its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::connection::Shared;
use super::frame::{Frame, StreamId};
use super::{Error, Headers};

/// The largest piece written as one frame; what Go's `io.Copy` makes of a stream.
const WRITE_CHUNK: usize = 32 << 10;

/// A stream, opened by either end. Reading ends when the peer closes its direction.
pub struct Stream {
    headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
}

/// The receiving half.
pub struct StreamReader {
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
    ended: bool,
}

/// The sending half. `shutdown` closes it and leaves the receiving half open.
pub struct StreamWriter {
    id: StreamId,
    frames: PollSender<Frame>,
    finished: bool,
    shared: Arc<Shared>,
}

impl Stream {
    pub(super) fn new(
        id: StreamId,
        headers: Headers,
        pieces: mpsc::Receiver<Result<Bytes, Error>>,
        shared: Arc<Shared>,
    ) -> Self {
        let frames = PollSender::new(shared.frames.clone());
        Stream {
            headers,
            reader: StreamReader { pieces, current: Bytes::new(), ended: false },
            writer: StreamWriter { id, frames, finished: false, shared },
        }
    }

    /// The headers the stream was opened with.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl StreamReader {
    /// The next piece as it came; `None` when the peer closed its direction.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if !self.current.is_empty() {
            return Some(Ok(std::mem::take(&mut self.current)));
        }
        if self.ended {
            return None;
        }
        let piece = self.pieces.recv().await;
        self.ended = !matches!(piece, Some(Ok(_)));
        piece
    }
}

impl StreamWriter {
    /// Sends `bytes` whole, without copying them.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(WRITE_CHUNK));
            self.put(Frame::Data { id: self.id, bytes: piece, fin: false }).await?;
        }
        Ok(())
    }

    /// Closes this direction.
    pub async fn finish(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.put(Frame::Data { id: self.id, bytes: Bytes::new(), fin: true }).await
    }

    /// Ends both directions at once.
    pub async fn reset(&mut self, status: u32) -> Result<(), Error> {
        self.finished = true;
        self.shared.forget(self.id);
        self.put(Frame::RstStream { id: self.id, status }).await
    }

    async fn put(&mut self, frame: Frame) -> Result<(), Error> {
        std::future::poll_fn(|context| self.frames.poll_reserve(context)).await.map_err(|_| Error::Closed)?;
        self.frames.send_item(frame).map_err(|_| Error::Closed)
    }
}

fn broken(error: Error) -> io::Error {
    let kind = match error {
        Error::Reset(_) => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.pieces.poll_recv(context)) {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(broken(error)));
                }
                None => self.ended = true,
            }
        }
        let take = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..take]);
        self.current.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.frames.poll_reserve(context)).map_err(|_| broken(Error::Closed))?;
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(WRITE_CHUNK)]);
        let written = piece.len();
        let frame = Frame::Data { id: self.id, bytes: piece, fin: false };
        self.frames.send_item(frame).map_err(|_| broken(Error::Closed))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        ready!(self.frames.poll_reserve(context)).map_err(|_| broken(Error::Closed))?;
        self.finished = true;
        let frame = Frame::Data { id: self.id, bytes: Bytes::new(), fin: true };
        Poll::Ready(self.frames.send_item(frame).map_err(|_| broken(Error::Closed)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}
