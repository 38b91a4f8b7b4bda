//! One target's client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use knarr_api::StatusError;
use serde::Serialize;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::connect::Connector;
use super::{CallError, OpenError, Route, Target, error, tls};
use crate::http::Body;
use crate::objects::Objects;

/// Idle connections to one target.
const IDLE_CONNECTIONS: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// What is read of a refusal.
const MAX_REFUSAL: usize = 64 << 10;

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From connecting to the last byte of the answer; also told to the server as `?timeout=`.
    pub timeout: Duration,
    /// Bytes of the answer.
    pub size: usize,
}

impl Default for Limits {
    /// Upstream's time for all webhooks that do not say their own.
    fn default() -> Self {
        Limits { timeout: Duration::from_secs(30), size: 16 << 20 }
    }
}

/// Calls one target over connections that are kept. Clones share them.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: legacy::Client<Connector, Body>,
    /// `https://host:port`, as errors show it and the `Host` header has it.
    origin: String,
    path: String,
    /// Of every request.
    headers: HeaderMap,
    token_file: Option<std::path::PathBuf>,
    /// Whose meter counts the calls.
    objects: Option<Arc<dyn Objects>>,
}

impl Client {
    /// A client for the target; `objects` is where its service is found.
    pub fn open(target: &Target, objects: Option<Arc<dyn Objects>>) -> Result<Self, OpenError> {
        Self::with_headers(target, objects, HeaderMap::new(), None)
    }

    pub(super) fn with_headers(
        target: &Target,
        objects: Option<Arc<dyn Objects>>,
        mut headers: HeaderMap,
        token_file: Option<std::path::PathBuf>,
    ) -> Result<Self, OpenError> {
        let (https, host, origin) = match &target.route {
            Route::Direct { https, host, port } => {
                let scheme = if *https { "https" } else { "http" };
                (*https, host.clone(), format!("{scheme}://{host}:{port}"))
            }
            Route::Service(service) => {
                let name = service.server_name();
                let origin = format!("https://{name}:{}", service.port);
                (true, name, origin)
            }
        };
        let tls = if https { Some(TlsConnector::from(Arc::new(tls::client_config(&target.tls)?))) } else { None };
        let server_name = target.tls.server_name.clone().unwrap_or(host);
        let connector = Connector::new(target.route.clone(), objects.clone(), tls, server_name);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("kube-apiserver-admission"));
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Client(Arc::new(Inner { http, origin, path: target.path.clone(), headers, token_file, objects })))
    }

    /// The URL that a call of this path and query goes to.
    pub fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.0.origin)
    }

    /// Sends a document to the target's own path and reads the document that it answers with. An answer that is no success is
    /// [`CallError::Status`].
    pub async fn post(&self, document: &impl Serialize, limits: Limits) -> Result<Value, CallError> {
        let body = serde_json::to_vec(document).map_err(|error| CallError::Json(error.to_string()))?;
        let answer = self.post_bytes(body.into(), limits).await?;
        knarr_api::tree::parse(&answer).map_err(|error| CallError::Json(error.to_string()))
    }

    /// [`Client::post`] of what is JSON already; the answer is not read.
    pub async fn post_bytes(&self, body: Bytes, limits: Limits) -> Result<Bytes, CallError> {
        let seconds = limits.timeout.as_millis().div_ceil(1000);
        let path = if self.0.path.is_empty() { "/" } else { &self.0.path };
        let url = self.url(&format!("{path}?timeout={seconds}s"));
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        let call = self.call(request, &url, limits.size);
        let timed_out = |_| CallError::Timeout { method: "Post", url: url.clone() };
        tokio::time::timeout(limits.timeout, call).await.map_err(timed_out)?
    }

    /// Reads a document of this type; whatever the code, the answer is the caller's to judge.
    pub async fn get(&self, path_and_query: &str, accept: &str, limits: Limits) -> Result<Response<Bytes>, CallError> {
        let mut headers = HeaderMap::new();
        if let Ok(accept) = HeaderValue::from_str(accept) {
            headers.insert(ACCEPT, accept);
        }
        self.get_with(path_and_query, headers, limits).await
    }

    /// As [`Client::get`], with these headers; whatever the code, the answer is the caller's to judge.
    pub async fn get_with(
        &self,
        path_and_query: &str,
        headers: HeaderMap,
        limits: Limits,
    ) -> Result<Response<Bytes>, CallError> {
        let url = self.url(path_and_query);
        let mut request = Request::new(Body::empty());
        *request.headers_mut() = headers;
        let call = async {
            let response = self.send_to(request, &url).await?;
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, read("Get", &url, body, limits.size).await?))
        };
        let timed_out = |_| CallError::Timeout { method: "Get", url: url.clone() };
        tokio::time::timeout(limits.timeout, call).await.map_err(timed_out)?
    }

    /// Sends a request as it is to a path of the target; the answer comes back as it is, with an upgraded connection if it agreed to
    /// one. There is no deadline.
    pub async fn send(&self, request: Request<Body>, path_and_query: &str) -> Result<Response<Incoming>, CallError> {
        self.send_to(request, &self.url(path_and_query)).await
    }

    async fn call(&self, request: Request<Body>, url: &str, size: usize) -> Result<Bytes, CallError> {
        let response = self.send_to(request, url).await?;
        if !response.status().is_success() {
            return Err(CallError::Status(refusal(response).await));
        }
        read("Post", url, response.into_body(), size).await
    }

    async fn send_to(&self, mut request: Request<Body>, url: &str) -> Result<Response<Incoming>, CallError> {
        let method = shown(request.method());
        *request.uri_mut() = url.parse().map_err(|error: http::uri::InvalidUri| CallError::Transport {
            method,
            url: url.into(),
            why: error.to_string(),
            transient: false,
        })?;
        for (name, value) in &self.0.headers {
            request.headers_mut().entry(name).or_insert(value.clone());
        }
        if let Some(token) = self.file_token().await {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let (verb, started) = (request.method().clone(), Instant::now());
        let answer = self.0.http.request(request).await;
        self.measure(&verb, started, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
        answer.map_err(|error| error::transport(method, url, &error))
    }

    fn measure(&self, verb: &Method, started: Instant, code: Option<u16>) {
        let registry = self.0.objects.clone().and_then(|objects| objects.registry());
        if let Some(metrics) = registry.as_ref().and_then(|registry| registry.meter()) {
            let host = self.0.origin.split_once("://").map_or("", |(_, host)| host);
            metrics.calls.called(host, verb.as_str(), started, code);
        }
    }

    /// A token that others renew is read for every call.
    async fn file_token(&self) -> Option<HeaderValue> {
        let text = tokio::fs::read_to_string(self.0.token_file.as_ref()?).await.ok()?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A method as Go's errors show it.
fn shown(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "Get",
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        "DELETE" => "Delete",
        _ => "Request",
    }
}

async fn read(method: &'static str, url: &str, body: Incoming, size: usize) -> Result<Bytes, CallError> {
    match Limited::new(body, size).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge(size)),
        Err(error) => Err(CallError::Transport { method, url: url.into(), why: error.to_string(), transient: true }),
    }
}

/// A refusal: the `Status` that the server sent, or what its code says.
async fn refusal(response: Response<Incoming>) -> StatusError {
    let code = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let status = serde_json::from_slice::<Value>(&body).ok().filter(|s| s["kind"] == "Status");
    match status {
        Some(status) => StatusError::of_value(&status),
        None => error::generic_status(code, String::from_utf8_lossy(&body).trim_end(), retry_after.unwrap_or(0)),
    }
}
