//! A body read over a WebSocket, as browsers follow logs: a message a piece, `binary.k8s.io` or `base64.binary.k8s.io`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::Message;

use crate::upgrade::Session;
use crate::websocket::{self, HandshakeError};

const BASE64: &str = "base64.binary.k8s.io";
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];

/// Agrees to the handshake in `headers` and sends `body`. The session ends with the body, or when the client leaves.
pub fn serve<B>(client: OnUpgrade, headers: &HeaderMap, body: B) -> Result<Session, HandshakeError>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let protocol = websocket::choose_protocol(headers, &PROTOCOLS)?;
    let response = websocket::accept(headers, protocol)?;
    let run = send(client, body, protocol == Some(BASE64));
    Ok(Session { response, run: Box::pin(run) })
}

async fn send<B>(client: OnUpgrade, mut body: B, encoded: bool)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let Ok(socket) = websocket::open(client).await else { return };
    let (mut sink, mut from_client) = socket.split();
    loop {
        tokio::select! {
            message = from_client.next() => match message {
                // What the client says is of no interest, only whether it is there.
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(bytes) = frame.into_data() else { continue };
                let message = if encoded { Message::text(STANDARD.encode(&bytes)) } else { Message::Binary(bytes) };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
    websocket::finish(&mut sink).await;
}
