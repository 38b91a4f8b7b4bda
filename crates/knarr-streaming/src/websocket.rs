//! The server's end of a WebSocket: the handshake with a choice of subprotocol, and the channel framing of Kubernetes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::remote_command::Protocol;
use crate::upgrade;

/// A client's message larger than this is refused; clients send 32 KiB at a time.
const MAX_MESSAGE: usize = 16 << 20;

/// The signal of v5 that closes a channel: this number, then the channel's.
const CLOSE_SIGNAL: u8 = 255;

/// A WebSocket over a connection that came in by HTTP.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a handshake was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error("the request is not a WebSocket handshake of version 13")]
    NotAHandshake,
    #[error("unable to negotiate protocol: client supports {0:?}, server accepts {1:?}")]
    NoCommonProtocol(Vec<String>, Vec<String>),
}

/// Chooses the first of `accepted` (best first) that the client offers; `None` when it offers none at all.
pub fn choose_protocol(headers: &HeaderMap, accepted: &[&'static str]) -> Result<Option<&'static str>, HandshakeError> {
    // A bearer token may travel among the offers; it is no protocol and must not be echoed.
    let offers: Vec<&str> = upgrade::offered(headers, &SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter(|offer| !offer.starts_with("base64url.bearer.authorization.k8s.io."))
        .collect();
    if offers.is_empty() {
        return Ok(None);
    }
    match accepted.iter().find(|name| offers.contains(name)) {
        Some(name) => Ok(Some(name)),
        None => Err(HandshakeError::NoCommonProtocol(
            offers.into_iter().map(str::to_owned).collect(),
            accepted.iter().map(|name| name.to_string()).collect(),
        )),
    }
}

/// The 101 that agrees to the handshake in `headers`.
pub fn accept(headers: &HeaderMap, protocol: Option<&'static str>) -> Result<Response<()>, HandshakeError> {
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::NotAHandshake)?;
    if version != Some(b"13") || !upgrade::is_websocket(headers) {
        return Err(HandshakeError::NotAHandshake);
    }
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| HandshakeError::NotAHandshake)?;
    let mut response = upgrade::switching_protocols("websocket");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(response)
}

/// Ends the connection as one that has run its course (close code 1000): clients of Kubernetes take any other end, even a close
/// without a code, for a failure of the command.
pub async fn finish(sink: &mut (impl futures::Sink<Message> + Unpin)) {
    use futures::SinkExt;
    let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let _ = sink.close().await;
}

/// The socket, once the 101 was sent.
pub async fn open(client: OnUpgrade) -> hyper::Result<Socket> {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(client.await?), Role::Server, Some(config)).await)
}

/// How channels are marked in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A byte with the channel's number, then the bytes.
    Binary,
    /// The channel's number as a digit, then the bytes in base64.
    Base64,
}

/// A subprotocol of remote commands over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelProtocol {
    pub version: Protocol,
    pub encoding: Encoding,
}

/// What a client's message says.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelMessage {
    Bytes(u8, Bytes),
    Close(u8),
}

impl ChannelProtocol {
    /// The names accepted, best first. The empty offer means `channel.k8s.io`.
    pub const NAMES: [&'static str; 5] = [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
    ];

    /// The protocol of one of [`ChannelProtocol::NAMES`]; of a client that named none, the first version.
    pub fn of(name: Option<&str>) -> ChannelProtocol {
        let (version, encoding) = match name {
            Some("v5.channel.k8s.io") => (Protocol::V5, Encoding::Binary),
            Some("v4.channel.k8s.io") => (Protocol::V4, Encoding::Binary),
            Some("v4.base64.channel.k8s.io") => (Protocol::V4, Encoding::Base64),
            Some("base64.channel.k8s.io") => (Protocol::V1, Encoding::Base64),
            _ => (Protocol::V1, Encoding::Binary),
        };
        ChannelProtocol { version, encoding }
    }

    /// The message that carries `bytes` on `channel`.
    pub fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        match self.encoding {
            Encoding::Binary => {
                let mut message = BytesMut::with_capacity(bytes.len() + 1);
                message.put_u8(channel);
                message.put_slice(bytes);
                Message::Binary(message.freeze())
            }
            Encoding::Base64 => {
                let mut text = String::with_capacity(bytes.len() * 4 / 3 + 5);
                text.push(char::from(b'0' + channel));
                STANDARD.encode_string(bytes, &mut text);
                Message::text(text)
            }
        }
    }

    /// What a client's message says; `None` for one that says nothing (pings, an empty message, broken base64).
    pub fn decode(self, message: Message) -> Option<ChannelMessage> {
        let (Message::Binary(_) | Message::Text(_)) = message else { return None };
        let bytes = message.into_data();
        let (channel, rest) = (*bytes.first()?, bytes.slice(1..));
        match self.encoding {
            Encoding::Binary if channel == CLOSE_SIGNAL && self.version == Protocol::V5 => {
                Some(ChannelMessage::Close(*rest.first()?))
            }
            Encoding::Binary => Some(ChannelMessage::Bytes(channel, rest)),
            Encoding::Base64 => {
                let channel = channel.checked_sub(b'0')?;
                Some(ChannelMessage::Bytes(channel, STANDARD.decode(&rest).ok()?.into()))
            }
        }
    }
}

/// Whether this error is merely the other end having left.
pub(crate) fn is_departure(error: &tungstenite::Error) -> bool {
    matches!(
        error,
        tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Io(_)
            | tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
    )
}
