//! The outermost filters: panics, and reading what the request asks for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Request, Response};
use knarr_api::StatusError;
use knarr_api::status::Reason;

use super::request_info::RequestInfo;
use super::{Handler, Lasting};
use crate::audit::AUDIT_ID;
use crate::http::{Body, pretty, respond};
use crate::metrics::{self, Metrics, Series};
use crate::registry::Registry;

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

/// Reads the path into a [`RequestInfo`] extension and measures the request.
pub struct ReadRequest<H> {
    pub inner: H,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
}

impl<H: Handler> Handler for ReadRequest<H> {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let info = match RequestInfo::parse(request.method(), uri.path(), query) {
            Ok(info) => Arc::new(RequestInfo { indented: pretty::wanted(query, request.headers()), ..info }),
            Err(error) => return respond::from_error(&StatusError::bad_request(error.to_string())),
        };
        let known = info.is_resource && self.registry.table().get(&info.group, &info.version, &info.resource).is_some();
        let series = Series::of(&info, request.method(), request.headers(), known);
        let dry_run = metrics::dry_run(query);
        request.extensions_mut().insert(info.clone());
        let audit_id = name_request(request.headers_mut());
        let accept = request.headers().get(ACCEPT).filter(|accept| *accept != respond::JSON).cloned();
        let written = Written { accept, indented: info.indented };
        let started = Instant::now();
        if info.long_running {
            let lasting = Lasting::default();
            lasting.hold(self.metrics.long_running(&series));
            request.extensions_mut().insert(lasting.clone());
            let mut response = self.inner.handle(request).await;
            finish(&mut response, audit_id, &written);
            self.metrics.answered(&series, dry_run, started, &response);
            return response.map(|body| body.guarded(lasting));
        }
        let _at_work = self.metrics.at_work(&info);
        let mut response = self.inner.handle(request).await;
        finish(&mut response, audit_id, &written);
        self.metrics.answered(&series, dry_run, started, &response);
        response
    }
}

/// How the client would have a `Status` written.
struct Written {
    /// Where it says anything but JSON.
    accept: Option<HeaderValue>,
    indented: bool,
}

fn finish(response: &mut Response<Body>, audit_id: HeaderValue, written: &Written) {
    response.headers_mut().insert(AUDIT_ID, audit_id);
    if written.accept.is_some() || written.indented {
        respond::status_as(written.accept.as_ref(), written.indented, response);
    }
    respond::hold_until_sent(response);
}

/// A client's own name for its request is echoed so far.
const LONGEST_AUDIT_ID: usize = 64;

/// Gives the request a name, if its client did not, and returns what to answer with.
fn name_request(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(AUDIT_ID).filter(|id| !id.is_empty()) {
        let shown = &id.as_bytes()[..id.len().min(LONGEST_AUDIT_ID)];
        return HeaderValue::from_bytes(shown).unwrap_or_else(|_| id.clone());
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    let mut id = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    // No two are alike: HTTP/2 need not remember it for the next answer.
    id.set_sensitive(true);
    headers.insert(AUDIT_ID, id.clone());
    id
}
