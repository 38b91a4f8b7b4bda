//! What a server that ends says to those who still come (`--shutdown-send-retry-after`).

use http::header::{CONNECTION, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Handler;
use crate::http::{Body, respond};

/// Whoever looks at the server's end may look until the end.
const EXEMPT_PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
const OWN_CLIENTS: &[u8] = b"kube-apiserver/";

/// When new requests are sent away, and which are still being served.
#[derive(Clone)]
pub struct Leaving {
    pub stop: CancellationToken,
    pub in_flight: TaskTracker,
}

impl Leaving {
    pub fn new(stop: CancellationToken) -> Self {
        Leaving { stop, in_flight: TaskTracker::new() }
    }
}

/// Sends new requests away once told to stop; without `leaving` it does nothing.
pub struct Farewell<H> {
    pub inner: H,
    pub leaving: Option<Leaving>,
}

impl<H: Handler> Handler for Farewell<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let Some(leaving) = &self.leaving else {
            return self.inner.handle(request).await;
        };
        if is_exempt(&request) {
            return self.inner.handle(request).await;
        }
        if !leaving.stop.is_cancelled() {
            let _served = leaving.in_flight.token();
            return self.inner.handle(request).await;
        }
        let text = "The apiserver is shutting down, please try again later.\n";
        let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        // HTTP/2 has no such header: there the connection's GOAWAY says it.
        if request.version() < http::Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn is_exempt(request: &Request<Body>) -> bool {
    let own = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(OWN_CLIENTS));
    own || EXEMPT_PATHS.iter().any(|path| request.uri().path().starts_with(path))
}
