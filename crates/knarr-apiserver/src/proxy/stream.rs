//! Exec, attach and port-forward: the client's streams joined with the kubelet's.
//!
//! A SPDY client is joined byte by byte. A WebSocket client of exec and attach is translated to SPDY here, so that it needs no more of
//! a kubelet and its runtime than SPDY; one of port-forward is unwrapped from its tunnel.

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use knarr_api::StatusError;
use knarr_streaming::remote_command::Protocol;
use knarr_streaming::upgrade::{self, Answer, STREAM_PROTOCOL_VERSION, Session};
use knarr_streaming::{reader, spdy, translate, tunnel};

use super::headers::onward;
use super::target::{Command, Location};
use super::{Connector, forward};
use crate::chain::Lasting;
use crate::http::Body;

const MAX_REFUSAL: usize = 64 << 10;

pub(super) async fn command(
    connector: &Connector,
    mut parts: Parts,
    command: Command,
) -> Result<Response<Body>, StatusError> {
    let client = client_of(&mut parts)?;
    let lasting = parts.extensions.get::<Lasting>().cloned();
    if !upgrade::is_websocket(&parts.headers) {
        return splice(connector, parts, command.location, client).await;
    }
    let connection = connector.dialer.dial(&command.location).await;
    let request = spdy_request(&command.location, Protocol::V4.name());
    let connect = async move {
        let connection = connection.map_err(|error| format!("error dialing backend: {error}"))?;
        upgrade_to_spdy(connection, request?).await
    };
    let session = translate::serve(client, &parts.headers, command.options, connect)
        .map_err(|error| StatusError::bad_request(error.to_string()))?;
    Ok(begin(connector, session, lasting))
}

/// Logs as they are, or as the messages of a WebSocket where the client asks for one.
pub(super) fn logs(
    connector: &Connector,
    mut parts: Parts,
    logs: Response<Body>,
) -> Result<Response<Body>, StatusError> {
    if !upgrade::is_websocket(&parts.headers) {
        return Ok(logs);
    }
    let lasting = parts.extensions.get::<Lasting>().cloned();
    let session = reader::serve(client_of(&mut parts)?, &parts.headers, logs.into_body())
        .map_err(|error| StatusError::bad_request(error.to_string()))?;
    Ok(begin(connector, session, lasting))
}

pub(super) async fn port_forward(
    connector: &Connector,
    mut parts: Parts,
    location: Location,
) -> Result<Response<Body>, StatusError> {
    let client = client_of(&mut parts)?;
    let lasting = parts.extensions.get::<Lasting>().cloned();
    if !upgrade::is_websocket(&parts.headers) || !tunnel::is_offered(&parts.headers) {
        return splice(connector, parts, location, client).await;
    }
    let connection = connector.dialer.dial(&location).await.map_err(dialing)?;
    let request = spdy_request(&location, tunnel::INNER_PROTOCOL).map_err(StatusError::internal)?;
    match upgrade::request(connection, request).await.map_err(dialing)? {
        Answer::Switched(_, kubelet) => {
            let session = tunnel::serve(client, &parts.headers, kubelet)
                .map_err(|error| StatusError::bad_request(error.to_string()))?;
            Ok(begin(connector, session, lasting))
        }
        Answer::Refused(response) => Ok(response.map(Body::from)),
    }
}

fn client_of(parts: &mut Parts) -> Result<OnUpgrade, StatusError> {
    let client = parts.extensions.remove::<OnUpgrade>();
    match client {
        Some(client) if upgrade::is_upgrade(&parts.headers) => Ok(client),
        _ => Err(StatusError::bad_request("Upgrade request required")),
    }
}

fn begin(connector: &Connector, session: Session, lasting: Option<Lasting>) -> Response<Body> {
    connector.spawn(session.run, lasting);
    session.response.map(|()| Body::empty())
}

fn dialing(error: impl std::fmt::Display) -> StatusError {
    StatusError::internal(format!("error dialing backend: {error}"))
}

/// Passes the client's own upgrade on.
async fn splice(
    connector: &Connector,
    parts: Parts,
    location: Location,
    client: OnUpgrade,
) -> Result<Response<Body>, StatusError> {
    let connection = connector.dialer.dial(&location).await.map_err(dialing)?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = parts.method;
    *request.headers_mut() = onward(&parts.headers, true);
    forward::address(&mut request, &location).map_err(StatusError::internal)?;
    forward::upgraded(connector, connection, request, client, parts.extensions.get().cloned()).await.map_err(dialing)
}

fn spdy_request(location: &Location, protocol: &'static str) -> Result<Request<Empty<bytes::Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::POST;
    forward::address(&mut request, location).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
    headers.insert(STREAM_PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    Ok(request)
}

/// The connection, or what to tell the client on its error channel.
async fn upgrade_to_spdy<T>(connection: T, request: Request<Empty<bytes::Bytes>>) -> Result<TokioIo<Upgraded>, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    match upgrade::request(connection, request).await.map_err(|error| error.to_string())? {
        Answer::Switched(_, kubelet) => Ok(kubelet),
        Answer::Refused(response) => {
            let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
            let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
            Err(format!("unable to upgrade connection: {}", text.trim_end()))
        }
    }
}
