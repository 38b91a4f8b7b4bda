//! The outermost filters: panics, time, and reading what the request asks for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use knarr_api::StatusError;
use knarr_api::status::Reason;

use super::Handler;
use super::request_info::RequestInfo;
use crate::http::{Body, respond};
use crate::metrics::Metrics;

/// Upstream's `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A panic is one request's 500, not the server's end.
pub struct PanicGuard<H>(pub H);

impl<H: Handler> Handler for PanicGuard<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let answered = AssertUnwindSafe(self.0.handle(request)).catch_unwind().await;
        answered.unwrap_or_else(|_| {
            tracing::error!("a request made the server panic");
            respond::from_error(&StatusError::new(
                Reason::InternalError,
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        })
    }
}

/// Reads the path into a [`RequestInfo`] extension and counts the request.
pub struct ReadRequest<H> {
    pub inner: H,
    pub metrics: Arc<Metrics>,
}

impl<H: Handler> Handler for ReadRequest<H> {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let uri = request.uri();
        let info = match RequestInfo::parse(request.method(), uri.path(), uri.query().unwrap_or_default()) {
            Ok(info) => Arc::new(info),
            Err(error) => return respond::from_error(&StatusError::bad_request(error.to_string())),
        };
        request.extensions_mut().insert(info.clone());
        let started = self.metrics.request_started(&info);
        let response = self.inner.handle(request).await;
        self.metrics.request_ended(&info, started, response.status().as_u16());
        response
    }
}

/// Ends requests that take too long, except those that are meant to last.
pub struct Timeout<H>(pub H);

impl<H: Handler> Handler for Timeout<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let lasts = request.extensions().get::<Arc<RequestInfo>>().is_some_and(|info| info.long_running);
        if lasts {
            return self.0.handle(request).await;
        }
        match tokio::time::timeout(REQUEST_TIMEOUT, self.0.handle(request)).await {
            Ok(response) => response,
            Err(_) => respond::from_error(&StatusError::new(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            )),
        }
    }
}
