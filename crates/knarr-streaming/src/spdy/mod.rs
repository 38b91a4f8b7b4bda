//! SPDY/3.1 as Kubernetes uses it, with the habits of its peers (Go's spdystream): no flow-control windows, one priority,
//! headers compressed with the SPDY dictionary, a stream usable in both directions after its SYN_REPLY.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod stream;

pub use connection::{Connection, Incoming, Side};
pub use frame::{Frame, FrameError, StreamId};
pub use headers::Headers;
pub use stream::{Stream, StreamReader, StreamWriter};

/// The `Upgrade` token that Kubernetes uses.
pub const PROTOCOL: &str = "SPDY/3.1";

/// Why a connection or a stream is of no use any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the connection is closed")]
    Closed,
    #[error("the stream was reset by the peer (status {0})")]
    Reset(u32),
    #[error("the peer did not answer in time")]
    Timeout,
    #[error("no more streams: identifiers are used up or the peer is going away")]
    NoMoreStreams,
}

#[cfg(test)]
mod tests;
