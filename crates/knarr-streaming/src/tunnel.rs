//! Port-forward's tunnel: a WebSocket whose messages, joined, are the bytes of a SPDY connection.

use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::upgrade::Session;
use crate::websocket::{self, HandshakeError, Socket};

/// The subprotocol of the tunnel.
pub const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The protocol inside the tunnel, which the server is asked for over plain SPDY.
pub const INNER_PROTOCOL: &str = "portforward.k8s.io";

/// Whether the client asks for the tunnel.
pub fn is_offered(headers: &HeaderMap) -> bool {
    matches!(websocket::choose_protocol(headers, &[PROTOCOL]), Ok(Some(_)))
}

/// Agrees to the client's handshake and joins it with the upgraded connection of the server.
pub fn serve<T>(client: OnUpgrade, headers: &HeaderMap, server: T) -> Result<Session, HandshakeError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let response = websocket::accept(headers, Some(PROTOCOL))?;
    let run = Box::pin(async move {
        match websocket::open(client).await {
            Ok(socket) => join(socket, server).await,
            Err(error) => tracing::debug!(%error, "client left before the upgrade"),
        }
    });
    Ok(Session { response, run })
}

/// Either end leaving ends both: inside is SPDY, whose streams half-close on their own. A server that takes nothing any more has left
/// once what it said before was delivered.
async fn join<T: AsyncRead + AsyncWrite>(socket: Socket, server: T) {
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(server);
    let there = async {
        let mut taken = true;
        while let Some(Ok(message)) = source.next().await {
            let (Message::Binary(_) | Message::Text(_)) = message else { continue };
            taken = taken && write.write_all(&message.into_data()).await.is_ok();
        }
    };
    let back = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if sink.send(Message::binary(buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
    websocket::finish(&mut sink).await;
    let _ = write.shutdown().await;
}
