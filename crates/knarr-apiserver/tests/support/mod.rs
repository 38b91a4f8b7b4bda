//! A server in memory over a store of its own.
#![allow(dead_code)] // Not every test binary uses all of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::http::Body;
use knarr_apiserver::{ApiServer, ApiService, Config, Registry};
use serde_json::Value;
use store::TestStore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

pub mod definitions;
pub mod remote;
mod store;

pub struct Server {
    pub api: ApiServer,
    pub registry: Arc<Registry>,
    _stop: DropGuard,
    _store: TestStore,
}

/// Runs a test on a thread that may handle objects of any depth, as those of the binary may.
pub fn on_object_stack<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    };
    let thread = std::thread::Builder::new().stack_size(knarr_api::tree::STACK_SIZE).spawn(run);
    thread.expect("a thread").join().expect("the test passes");
}

/// A parsed answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into()))
    }

    /// The causes of a refusal: `field: message`.
    pub fn causes(&self) -> Vec<String> {
        let body = self.json();
        let list = body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_string();
        list.iter().map(|c| format!("{}: {}", text(c, "field"), text(c, "message"))).collect()
    }

    /// The body, if the request succeeded.
    pub fn ok(&self) -> Value {
        assert!(self.code < 300, "{} {}", self.code, String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Server {
    pub async fn start() -> Server {
        Self::start_with(|_| Config::default()).await
    }

    /// A server that is made of what the registry is given to.
    pub async fn start_with(config: impl FnOnce(&Arc<Registry>) -> Config) -> Server {
        let stop = CancellationToken::new();
        let store = TestStore::start().await;
        let registry = Registry::open(store.store.clone(), store.shared, stop.clone()).await;
        let registry = registry.expect("an empty store opens");
        let api = ApiServer::new(config(&registry), registry.clone());
        Server { api, registry, _stop: stop.drop_guard(), _store: store }
    }

    pub fn service(&self) -> ApiService {
        self.api.service()
    }

    /// Sends as an administrator; the body is not read.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let mut request = request;
        let admin = User::new("admin", &["system:masters"]);
        request.extensions_mut().insert(TransportIdentity(Arc::new(admin)));
        self.service().oneshot(request).await.expect("the chain never fails")
    }

    pub async fn call(&self, method: &str, target: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method.parse::<Method>().expect("a method")).uri(target);
        let request = request.header("content-type", content_type).body(Full::new(body.into())).expect("a request");
        let response = self.send(request).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { code, headers, body }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target, "", "").await
    }

    pub async fn post(&self, target: &str, object: &Value) -> Answer {
        self.call("POST", target, "application/json", object.to_string()).await
    }

    pub async fn put(&self, target: &str, object: &Value) -> Answer {
        self.call("PUT", target, "application/json", object.to_string()).await
    }

    pub async fn merge(&self, target: &str, patch: &Value) -> Answer {
        self.call("PATCH", target, "application/merge-patch+json", patch.to_string()).await
    }

    pub async fn delete(&self, target: &str) -> Answer {
        self.call("DELETE", target, "", "").await
    }

    /// Starts a watch.
    pub async fn watch(&self, target: &str) -> Watch {
        let request = Request::builder().uri(target).body(Full::default()).expect("a request");
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

/// An open watch.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` once the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("an event in time")?.expect("an open watch");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// `TYPE name` of the next event.
    pub async fn line(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!(
            "{} {}",
            event["type"].as_str().unwrap_or_default(),
            event["object"]["metadata"]["name"].as_str().unwrap_or_default()
        )
    }
}
