//! Upgraded connections: asking a server for one, answering with one, copying between two.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// After one direction ended, the other may still deliver what is on its way for this long.
const LINGER: Duration = Duration::from_secs(10);

/// The names of the protocols in remote command and port-forward requests over SPDY.
pub const STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// An accepted upgrade: the response to send, and the work that begins when it is sent. The session ends by itself when either
/// end closes; whoever answers the request spawns it.
pub struct Session {
    pub response: Response<()>,
    pub run: BoxFuture<'static, ()>,
}

/// What a server said to a request for an upgrade.
pub enum Answer {
    /// 101: the response's head and the connection.
    Switched(Response<()>, TokioIo<Upgraded>),
    /// Anything else, to be passed on or reported.
    Refused(Response<Incoming>),
}

/// Whether the request asks for an upgrade.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether the request asks for an upgrade to WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers)
        && headers
            .get(UPGRADE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("websocket")))
}

/// Sends a request for an upgrade over a new connection.
pub async fn request<T>(io: T, request: Request<Empty<Bytes>>) -> hyper::Result<Answer>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    // The task ends with the connection: after the upgrade, or with the last byte of the refusal.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection for an upgrade ended");
        }
    });
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Refused(response));
    }
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    *head.headers_mut() = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(Answer::Switched(head, TokioIo::new(upgraded)))
}

/// Answers a client with the upgrade that the next server agreed to, and copies both ways.
pub fn splice(client: OnUpgrade, head: Response<()>, server: TokioIo<Upgraded>) -> Session {
    let run = Box::pin(async move {
        match client.await {
            Ok(client) => copy_both_ways(TokioIo::new(client), server).await,
            Err(error) => tracing::debug!(%error, "client left before the upgrade"),
        }
    });
    Session { response: head, run }
}

/// Copies until both directions ended, or [`LINGER`] after the first did.
pub async fn copy_both_ways<A, B>(a: A, b: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let mut there = std::pin::pin!(copy_and_close(&mut a_read, &mut b_write));
    let mut back = std::pin::pin!(copy_and_close(&mut b_read, &mut a_write));
    tokio::select! {
        () = &mut there => drop(tokio::time::timeout(LINGER, back).await),
        () = &mut back => drop(tokio::time::timeout(LINGER, there).await),
    }
}

async fn copy_and_close<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut R, to: &mut W) {
    // Either end may vanish at any time; that is how these sessions end.
    let _ = tokio::io::copy(from, to).await;
    let _ = to.shutdown().await;
}

/// The head of a 101 to `protocol`.
pub fn switching_protocols(protocol: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static(protocol));
    response
}

/// The values that a client offers in a header that may repeat or hold a list, in order.
pub fn offered<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect()
}
