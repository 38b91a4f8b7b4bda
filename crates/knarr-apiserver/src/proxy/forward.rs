//! Plain HTTP requests passed on, and their answers passed back.

use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use knarr_api::StatusError;
use knarr_api::status::{Details, Reason};
use knarr_streaming::upgrade::{self, Answer};

use super::dial::{Connection, Dialer};
use super::headers::{forwarded, onward, remove_hop_by_hop};
use super::links::{Proxied, led_back};
use super::target::{Location, Transport};
use super::{Connector, core, path};
use crate::chain::Lasting;
use crate::http::Body;

/// What is read of a kubelet's refusal.
const MAX_REFUSAL: usize = 64 << 10;

/// A container's log from its kubelet.
pub(super) async fn logs(
    dialer: &Dialer,
    location: Option<Location>,
    pod: &str,
) -> Result<Response<Body>, StatusError> {
    // A pod without a node has written nothing yet.
    let Some(location) = location else { return Ok(Response::new(Body::empty())) };
    let unreachable = |error: &dyn std::fmt::Display| {
        StatusError::internal(format!(
            "Get \"https://{}:{}{}\": {error}",
            location.host, location.port, location.target
        ))
    };
    let connection = dialer.dial(&location).await.map_err(|error| unreachable(&error))?;
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    address(&mut request, &location).map_err(|error| unreachable(&error))?;
    let response = send(connection, request).await.map_err(|error| unreachable(&error))?;
    if !response.status().is_success() {
        return Err(refusal(response, pod).await);
    }
    let mut answer = Response::new(Body::from(response.into_body()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// What upstream makes of a kubelet's failure.
async fn refusal(response: Response<Incoming>, pod: &str) -> StatusError {
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned()).unwrap_or_default();
    match code {
        StatusCode::BAD_REQUEST => StatusError::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( pods/log {pod})");
            let details = Details { name: pod.to_owned(), kind: "pods/log".to_owned(), ..Details::default() };
            StatusError { details: Some(Box::new(details)), ..StatusError::new(Reason::NotFound, message) }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StatusError::forbidden(&core("pods/log"), pod, text),
        _ => StatusError::internal(text),
    }
}

/// A proxied request of any kind, upgrades too.
pub(super) async fn any(
    connector: &Connector,
    mut parts: Parts,
    body: Body,
    location: Location,
) -> Result<Response<Body>, StatusError> {
    let unreachable = |error: &dyn std::fmt::Display| {
        StatusError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {error}"))
    };
    let connection = connector.dialer.dial(&location).await.map_err(|error| unreachable(&error))?;
    let client = parts.extensions.remove::<OnUpgrade>();
    if let (true, Some(client)) = (upgrade::is_upgrade(&parts.headers), client) {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = parts.method;
        *request.headers_mut() = onward(&parts.headers, true);
        address(&mut request, &location).map_err(|error| unreachable(&error))?;
        let lasting = parts.extensions.get().cloned();
        let upgraded = upgraded(connector, connection, request, client, lasting).await;
        return upgraded.map_err(|error| unreachable(&error));
    }
    let mut headers = onward(&parts.headers, false);
    forwarded(&mut headers, &parts);
    let own_host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let prefix = path::up_to_proxy(parts.uri.path()).to_owned();
    let proxied = Proxied { prefix, hosts: [host_of(&location), own_host] };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = headers;
    address(&mut request, &location).map_err(|error| unreachable(&error))?;
    let mut response = send(connection, request).await.map_err(|error| unreachable(&error))?;
    remove_hop_by_hop(response.headers_mut());
    proxied.lead_redirect_back(response.headers_mut());
    Ok(led_back(&parts.method, response, &proxied).await)
}

/// Sends a request for an upgrade and joins the two connections; a refusal is passed back as it is.
pub(super) async fn upgraded(
    connector: &Connector,
    connection: Box<dyn Connection>,
    request: Request<Empty<bytes::Bytes>>,
    client: OnUpgrade,
    lasting: Option<Lasting>,
) -> Result<Response<Body>, hyper::Error> {
    match upgrade::request(connection, request).await? {
        Answer::Switched(head, server) => {
            let session = upgrade::splice(client, head, server);
            connector.spawn(session.run, lasting);
            Ok(session.response.map(|()| Body::empty()))
        }
        Answer::Refused(response) => Ok(response.map(Body::from)),
    }
}

/// The location's name in a `Host` header.
fn host_of(location: &Location) -> String {
    let host = if location.host.contains(':') { format!("[{}]", location.host) } else { location.host.clone() };
    let default = matches!((location.transport, location.port), (Transport::Http, 80) | (Transport::Https, 443));
    if default { host } else { format!("{host}:{}", location.port) }
}

/// Sets the request's target and `Host`.
pub(super) fn address<B>(request: &mut Request<B>, location: &Location) -> Result<(), http::Error> {
    *request.uri_mut() = location.target.parse().map_err(http::Error::from)?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(&host_of(location))?);
    if request.method() == Method::CONNECT {
        *request.method_mut() = Method::GET;
    }
    Ok(())
}

async fn send<B>(connection: Box<dyn Connection>, request: Request<B>) -> Result<Response<Incoming>, hyper::Error>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    // The task ends with the last byte of the answer, or when the answer is dropped.
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "proxied connection ended");
        }
    });
    sender.send_request(request).await
}
