//! Requests passed on to aggregated servers, and their answers passed back.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use knarr_api::GroupVersion;
use knarr_streaming::upgrade;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Aggregator, ApiService, availability};
use crate::authentication::User;
use crate::http::{Body, respond};
use crate::proxy::headers::{forwarded, onward, remove_hop_by_hop};

/// What a header's name may hold besides letters and digits.
const IN_HEADER_NAMES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Says in whose name a request is made, to servers that believe it of this server's certificate.
pub(super) fn set_identity(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: HeaderName, value: &str| {
        // Go writes UTF-8 as it is.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        add(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    for group in &user.groups {
        add(HeaderName::from_static("x-remote-group"), group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, IN_HEADER_NAMES));
        if let Ok(name) = HeaderName::try_from(name.to_lowercase()) {
            values.iter().for_each(|value| add(name.clone(), value));
        }
    }
}

fn unavailable(text: impl std::fmt::Display) -> Response<Body> {
    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

impl Aggregator {
    /// The remote server's answer to an authenticated and authorized request.
    pub async fn forward(&self, service: &ApiService, user: &User, mut parts: Parts, body: Body) -> Response<Body> {
        let Some(remote) = service.remote.as_ref().filter(|_| service.available) else {
            return unavailable("service unavailable");
        };
        let client = match self.client(remote) {
            Ok(client) => client,
            Err(error) => return respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        if let Err(error) = self.outbound.resolve(&remote.service).await {
            tracing::warn!(%error, service = service.name, "error resolving an APIService's endpoint");
            return unavailable("service unavailable");
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_string();
        let joining = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade::is_upgrade(&parts.headers));
        let mut headers = onward(&parts.headers, joining.is_some());
        set_identity(&mut headers, user);
        forwarded(&mut headers, &parts);
        let mut request = Request::new(if joining.is_some() { Body::empty() } else { body });
        *request.method_mut() = parts.method;
        *request.headers_mut() = headers;
        match client.send(request, &target).await {
            Ok(response) => self.answer(response, joining),
            Err(error) => unavailable(format_args!("error trying to reach service: {}", error.cause())),
        }
    }

    /// The OpenAPI v3 document of a version that an aggregated server has.
    pub async fn openapi_v3(&self, group: &str, version: &str, parts: &Parts) -> Option<Response<Body>> {
        let version = GroupVersion::new(group.to_string(), version.to_string());
        let service = self.services().remote.get(&version).cloned()?;
        let mut request = Request::new(()).into_parts().0;
        request.uri = parts.uri.clone();
        request.headers = parts.headers.clone();
        Some(self.forward(&service, &availability::aggregator_user(), request, Body::empty()).await)
    }

    /// Adds where the documents of aggregated servers are: here too.
    pub fn add_openapi_v3_index(&self, index: &mut Value) {
        for (version, document) in &**self.documents.load() {
            if let Some(url) = &document.openapi_v3 {
                index["paths"][format!("apis/{version}")] = json!({"serverRelativeURL": url});
            }
        }
    }

    fn answer(&self, mut response: Response<hyper::body::Incoming>, joining: Option<OnUpgrade>) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(joining) = joining else { return unavailable("unexpected switch of protocols") };
            let server = hyper::upgrade::on(&mut response);
            let (parts, _) = response.into_parts();
            self.sessions.spawn(async move {
                if let (Ok(client), Ok(server)) = tokio::join!(joining, server) {
                    upgrade::copy_both_ways(TokioIo::new(client), TokioIo::new(server)).await;
                }
            });
            return Response::from_parts(parts, Body::empty());
        }
        remove_hop_by_hop(response.headers_mut());
        response.map(Body::from)
    }
}

/// Where a request that an aggregated server answers ends.
pub async fn serve(aggregator: &Aggregator, service: &Arc<ApiService>, parts: Parts, body: Body) -> Response<Body> {
    let user = parts.extensions.get::<Arc<User>>().cloned().unwrap_or_default();
    aggregator.forward(service, &user, parts, body).await
}
