//! Frames on the wire: reading, writing.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Compressor, Decompressor, Headers};

/// Streams of the client are odd, of the server even.
pub type StreamId = u32;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;
/// Control frames carry headers at most; a larger one is an attack.
const MAX_CONTROL: usize = 1 << 20;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    SynStream {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    SynReply {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    RstStream {
        id: StreamId,
        status: u32,
    },
    Data {
        id: StreamId,
        bytes: Bytes,
        fin: bool,
    },
    Headers {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: StreamId,
        status: u32,
    },
    /// SETTINGS, WINDOW_UPDATE and what later versions invent: read and passed over.
    Other,
}

/// What is wrong with a frame; the connection ends with it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("SPDY version {0} is not spoken here")]
    Version(u16),
    #[error("a SPDY control frame of {0} bytes")]
    TooLarge(usize),
    #[error("a SPDY control frame is too short")]
    TooShort,
    #[error("a SPDY header block is broken")]
    Headers,
}

/// Reads frames from a connection.
pub(super) struct FrameReader<R> {
    source: R,
    headers: Decompressor,
    /// A data frame larger than one chunk is handed out in pieces: (stream, bytes still to come, FIN at the end).
    unfinished: Option<(StreamId, usize, bool)>,
}

/// Data is handed on in pieces of at most this size, so that a peer's 16 MiB frame is never held whole.
const CHUNK: usize = 32 << 10;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        FrameReader { source, headers: Decompressor::new(), unfinished: None }
    }

    /// The next frame; `None` at a clean end.
    pub(super) async fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some((id, left, fin)) = self.unfinished.take() {
            return self.read_data(id, left, fin).await.map(Some);
        }
        let mut head = [0u8; 8];
        if self.source.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.source.read_exact(&mut head[1..]).await?;
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if word >> 31 == 0 {
            return self.read_data(word, length, flags & FLAG_FIN != 0).await.map(Some);
        }
        self.read_control(word, flags, length).await.map(Some)
    }

    async fn read_data(&mut self, id: StreamId, left: usize, fin: bool) -> Result<Frame, FrameError> {
        let take = left.min(CHUNK);
        let mut bytes = vec![0; take];
        self.source.read_exact(&mut bytes).await?;
        if left > take {
            self.unfinished = Some((id, left - take, fin));
        }
        Ok(Frame::Data { id, bytes: bytes.into(), fin: fin && left == take })
    }

    async fn read_control(&mut self, word: u32, flags: u8, length: usize) -> Result<Frame, FrameError> {
        let version = (word >> 16) as u16 & 0x7fff;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLarge(length));
        }
        let mut body = vec![0; length];
        self.source.read_exact(&mut body).await?;
        self.parse_control(word as u16, flags & FLAG_FIN != 0, &body)
    }

    fn parse_control(&mut self, kind: u16, fin: bool, body: &[u8]) -> Result<Frame, FrameError> {
        let number = |at: usize| -> Result<u32, FrameError> {
            let bytes = body.get(at..at + 4).ok_or(FrameError::TooShort)?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let id = |at: usize| number(at).map(|n| n & 0x7fff_ffff);
        Ok(match kind {
            // After the stream: the associated stream, priority and slot, none of which Kubernetes uses.
            SYN_STREAM => Frame::SynStream { id: id(0)?, headers: self.headers_at(body, 10)?, fin },
            SYN_REPLY => Frame::SynReply { id: id(0)?, headers: self.headers_at(body, 4)?, fin },
            HEADERS => Frame::Headers { id: id(0)?, headers: self.headers_at(body, 4)?, fin },
            RST_STREAM => Frame::RstStream { id: id(0)?, status: number(4)? },
            PING => Frame::Ping { id: number(0)? },
            GOAWAY => Frame::GoAway { last: id(0)?, status: number(4)? },
            SETTINGS | WINDOW_UPDATE => Frame::Other,
            _ => Frame::Other,
        })
    }

    fn headers_at(&mut self, body: &[u8], at: usize) -> Result<Headers, FrameError> {
        self.headers.decompress(body.get(at..).ok_or(FrameError::TooShort)?)
    }
}

/// Renders frames. Header compression has memory, so frames must reach the wire in the order they are rendered.
pub(super) struct FrameEncoder(Compressor);

impl FrameEncoder {
    pub(super) fn new() -> Self {
        FrameEncoder(Compressor::new())
    }

    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { id, bytes, fin } => {
                out.put_u32(*id);
                put_flags_and_length(out, *fin, bytes.len());
                out.put_slice(bytes);
            }
            Frame::SynStream { id, headers, fin } => {
                let block = self.0.compress(headers);
                put_control(out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, headers, fin } => self.put_headers(out, SYN_REPLY, *id, headers, *fin),
            Frame::Headers { id, headers, fin } => self.put_headers(out, HEADERS, *id, headers, *fin),
            Frame::RstStream { id, status } => put_numbers(out, RST_STREAM, &[*id, *status]),
            Frame::Ping { id } => put_numbers(out, PING, &[*id]),
            Frame::GoAway { last, status } => put_numbers(out, GOAWAY, &[*last, *status]),
            Frame::Other => {}
        }
    }

    fn put_headers(&mut self, out: &mut BytesMut, kind: u16, id: StreamId, headers: &Headers, fin: bool) {
        let block = self.0.compress(headers);
        put_control(out, kind, fin, 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
    }
}

fn put_control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_flags_and_length(out, fin, length);
}

fn put_flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    let flags = if fin { FLAG_FIN } else { 0 };
    out.put_u32(u32::from(flags) << 24 | length as u32 & 0x00ff_ffff);
}

fn put_numbers(out: &mut BytesMut, kind: u16, numbers: &[u32]) {
    put_control(out, kind, false, numbers.len() * 4);
    for number in numbers {
        out.put_u32(*number);
    }
}
