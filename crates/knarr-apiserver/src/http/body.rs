//! One body type for requests and answers, so that the chain is the same for connections and for memory.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use knarr_api::StatusError;
use knarr_api::status::Reason;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// The most bytes of a request's body that are read, as upstream's `--max-request-bytes` default.
pub const MAX_REQUEST_BYTES: usize = 3 * 1024 * 1024;

/// A request's or an answer's body.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    /// Runs of bytes sent one after the other; a stored object is one of them, never copied.
    Chunks {
        rest: VecDeque<Bytes>,
        length: u64,
    },
    Incoming(hyper::body::Incoming),
    Boxed(BoxBody),
    Stream(ByteStream),
    /// A body, and something that is dropped with it.
    Guarded {
        body: Box<Body>,
        _guard: Box<dyn Send>,
    },
}

impl Body {
    pub fn empty() -> Self {
        Body(Inner::Empty)
    }

    /// Sent as they are, in order, with a `Content-Length`.
    pub fn chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let rest: VecDeque<Bytes> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
        let length = rest.iter().map(|c| c.len() as u64).sum();
        Body(Inner::Chunks { rest, length })
    }

    /// The runs of a body that is whole and at least so long; any other body comes back as it was.
    pub fn into_chunks(self, at_least: u64) -> Result<Vec<Bytes>, Body> {
        match self.0 {
            Inner::Chunks { rest, length } if length >= at_least => Ok(rest.into()),
            other => Err(Body(other)),
        }
    }

    /// Of unknown length.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Body(Inner::Stream(Box::pin(stream)))
    }

    /// The same body; `guard` is dropped once it has been sent, or nobody wants it any more.
    pub fn guarded(self, guard: impl Send + 'static) -> Self {
        Body(Inner::Guarded { body: Box::new(self), _guard: Box::new(guard) })
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Body(Inner::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    /// Reads everything, up to [`MAX_REQUEST_BYTES`]; more is upstream's 413.
    pub async fn collect_limited(self) -> Result<Bytes, StatusError> {
        match Limited::new(self, MAX_REQUEST_BYTES).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(StatusError::new(
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: limit is {MAX_REQUEST_BYTES}"),
            )),
            Err(error) => Err(StatusError::bad_request(format!("reading the request's body: {error}"))),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::chunks([bytes])
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Body::from(Bytes::from(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Body::from(text.into_bytes())
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(incoming: hyper::body::Incoming) -> Self {
        Body(Inner::Incoming(incoming))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Chunks { rest, length } => Poll::Ready(rest.pop_front().map(|chunk| {
                *length -= chunk.len() as u64;
                Ok(Frame::data(chunk))
            })),
            Inner::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Inner::Boxed(body) => Pin::new(body).poll_frame(cx),
            Inner::Stream(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|r| r.map(Frame::data))),
            Inner::Guarded { body, .. } => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Chunks { rest, .. } => rest.is_empty(),
            Inner::Incoming(incoming) => incoming.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
            Inner::Stream(_) => false,
            Inner::Guarded { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Chunks { length, .. } => SizeHint::with_exact(*length),
            Inner::Incoming(incoming) => incoming.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
            Inner::Stream(_) => SizeHint::default(),
            Inner::Guarded { body, .. } => body.size_hint(),
        }
    }
}
