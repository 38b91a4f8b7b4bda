//! Puts requests into the audit log.

use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::FutureExt;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use knarr_api::status::Reason;
use knarr_api::{Object, StatusError, protobuf, schema, yaml};
use parking_lot::Mutex;
use serde_json::json;

use super::request_info::RequestInfo;
use super::{Handler, Lasting};
use crate::audit::policy::Stage;
use crate::audit::{Auditor, Record};
use crate::authentication::{PeerCertificates, User};
use crate::http::body::BoxError;
use crate::http::{Body, negotiate, respond};

/// An answer's body larger than this is not recorded.
const MOST_RECORDED: usize = 16 << 20;

/// Records what the policy wants recorded. Without an auditor it does nothing.
pub struct Audit<H> {
    pub inner: H,
    pub auditor: Option<Arc<Auditor>>,
}

impl<H: Handler> Handler for Audit<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let Some(auditor) = &self.auditor else {
            return self.inner.handle(request).await;
        };
        let (parts, body) = request.into_parts();
        let record = parts.extensions.get::<Arc<RequestInfo>>().and_then(|info| {
            let user = parts.extensions.get::<Arc<User>>().map(|user| &**user);
            auditor.begin(&parts, info, user)
        });
        let request = Request::from_parts(parts, body);
        let Some(record) = record else {
            return self.inner.handle(request).await;
        };
        if !record.stage(Stage::RequestReceived).await {
            auditor.rejected();
            return respond::from_error(&StatusError::internal("failed to store audit event"));
        }
        // In a box: whoever records nothing need not carry the room for it.
        Box::pin(self.recorded(request, record)).await
    }
}

impl<H: Handler> Audit<H> {
    async fn recorded(&self, request: Request<Body>, record: Arc<Record>) -> Response<Body> {
        let mut ending = Ending(Some(record.clone()));
        let lasting = request.extensions().get::<Lasting>().filter(|_| record.long_running).cloned();
        let (request, heard) = overhear(request, &record);
        let serving = Box::pin(record.clone().scope(self.inner.handle(request)));
        let outcome = AssertUnwindSafe(serving).catch_unwind().await;
        if let Some(heard) = heard {
            heard.tell(&record);
        }
        let response = match outcome {
            Ok(response) => answered(response, &record),
            Err(panic) => {
                ending.0 = None;
                record.response_status(&panic_status());
                record.stage(Stage::Panic).await;
                std::panic::resume_unwind(panic)
            }
        };
        if let Some(lasting) = lasting {
            record.stage(Stage::ResponseStarted).await;
            lasting.hold(ending);
            return response;
        }
        ending.0 = None;
        record.stage(Stage::ResponseComplete).await;
        response
    }
}

fn panic_status() -> Object {
    json!({"code": 500, "status": "Failure", "reason": Reason::InternalError.as_str(),
        "message": "APIServer panic'd: see the log"})
}

/// Records the end of a request whose client may go at any time.
struct Ending(Option<Arc<Record>>);

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(record) = self.0.take() else { return };
        if !record.is_answered() {
            record.response_status(&json!({"code": 200, "status": "Success", "message": "Connection closed early"}));
        }
        record.leave_stage(Stage::ResponseComplete);
    }
}

/// Notes what is wanted of the answer.
fn answered(response: Response<Body>, record: &Record) -> Response<Body> {
    let status = response.status();
    record.response_code(status.as_u16());
    let failed = status.is_client_error() || status.is_server_error();
    if !failed && !record.wants_response() {
        return response;
    }
    let (parts, body) = response.into_parts();
    match body.into_chunks(0) {
        Ok(chunks) => {
            if let Some(object) = object_of(&chunks, &parts.headers) {
                if object["kind"] == "Status" {
                    record.response_status(&object);
                }
                if record.wants_response() {
                    record.response_object(object);
                }
            }
            Response::from_parts(parts, Body::chunks(chunks))
        }
        Err(body) => Response::from_parts(parts, body),
    }
}

/// The object of a whole body.
fn object_of(chunks: &[Bytes], headers: &HeaderMap) -> Option<Object> {
    let size: usize = chunks.iter().map(Bytes::len).sum();
    if size > MOST_RECORDED {
        return None;
    }
    let mut whole = BytesMut::with_capacity(size);
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(&whole[..]).take(MOST_RECORDED as u64).read_to_end(&mut plain).ok()?;
        return decode(&plain, headers);
    }
    decode(&whole, headers)
}

fn decode(body: &[u8], headers: &HeaderMap) -> Option<Object> {
    if body.is_empty() {
        return None;
    }
    match negotiate::content_type(headers) {
        "application/yaml" | "application/apply-patch+yaml" => yaml::from_str(std::str::from_utf8(body).ok()?).ok(),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(schema::schema(), body, None).ok(),
        _ => knarr_api::tree::parse(body).ok(),
    }
}

/// The request, whose body is copied while it is read, where it is wanted.
fn overhear(request: Request<Body>, record: &Record) -> (Request<Body>, Option<Heard>) {
    let reads = request.method() == http::Method::GET || request.method() == http::Method::HEAD;
    if reads || record.long_running || !record.wants_request() {
        return (request, None);
    }
    let heard = Heard { body: Arc::default(), headers: request.headers().clone() };
    let copy = heard.body.clone();
    (request.map(|body| Body::boxed(Overheard { body, copy })), Some(heard))
}

/// The copy of a request's body. Whoever reads the body limits its size.
struct Heard {
    body: Arc<Mutex<BytesMut>>,
    headers: HeaderMap,
}

impl Heard {
    fn tell(self, record: &Record) {
        let body = self.body.lock();
        if let Some(object) = decode(&body, &self.headers) {
            record.request_object(object);
        }
    }
}

/// A body that leaves a copy of what is read from it.
struct Overheard {
    body: Body,
    copy: Arc<Mutex<BytesMut>>,
}

impl http_body::Body for Overheard {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.copy.lock().extend_from_slice(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Records a request whose credentials nobody accepted.
pub async fn authentication_failed(auditor: &Option<Arc<Auditor>>, parts: &Parts) {
    let Some((auditor, info)) = auditor.as_ref().zip(parts.extensions.get::<Arc<RequestInfo>>()) else { return };
    let Some(record) = auditor.begin(parts, info, None) else { return };
    record.response_status(&json!({"message": attempted(parts), "code": 401}));
    record.stage(Stage::ResponseStarted).await;
}

fn attempted(parts: &Parts) -> String {
    let scheme = parts.headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let scheme = scheme.trim().split_once(' ').map_or("", |(scheme, _)| scheme);
    let mut ways = Vec::new();
    if scheme.eq_ignore_ascii_case("basic") {
        ways.push("basic");
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        ways.push("bearer");
    }
    if parts.extensions.get::<PeerCertificates>().is_some() {
        ways.push("x509");
    }
    match ways.is_empty() {
        true => "Authentication failed, no credentials provided".into(),
        false => format!("Authentication failed, attempted: {}", ways.join(", ")),
    }
}
