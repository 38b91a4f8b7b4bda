//! Priority and fairness, as clients meet it.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::authorization::{self, Attributes, Authorizer, Decision};
use knarr_apiserver::bootstrap;
use knarr_apiserver::http::Body;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::{Config, Limits};
use serde_json::{Value, json};
use support::Server;
use tower::ServiceExt;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// A server whose configuration follows its objects.
async fn server(limits: Limits) -> Server {
    let authorization = authorization::Chain::new(vec![Arc::new(AllowAll)]);
    let server = Server::start_with(|_| Config { limits, authorization, ..Config::default() }).await;
    let objects: Arc<dyn Objects> = server.registry.clone();
    bootstrap::ensure_flow_control(&objects).await.expect("the default objects");
    let api = server.api.clone();
    tokio::spawn(async move { api.follow_flow_control().await });
    server
}

/// A user who may do everything, but is none of the masters: those are exempt.
fn user(name: &str) -> TransportIdentity {
    TransportIdentity(Arc::new(User::new(name, &["system:authenticated"])))
}

struct AllowAll;

#[async_trait::async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow { reason: String::new() }
    }
}

async fn send<B>(server: &Server, name: &str, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut request = request;
    request.extensions_mut().insert(user(name));
    server.service().oneshot(request).await.expect("the chain never fails")
}

async fn get(server: &Server, name: &str, target: &str) -> Response<Body> {
    send(server, name, Request::builder().uri(target).body(Full::<Bytes>::default()).expect("a request")).await
}

/// A level with this answer to too much, and a schema that puts one user on it; returns once requests are classified so.
async fn put_on_level(server: &Server, name: &str, response: Value) {
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}}});
    let level = server.post(&format!("{GROUP}/prioritylevelconfigurations"), &level).await.ok();
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": format!("a-{name}")}, "spec": {
            "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 2, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": name}}], "resourceRules": [{"verbs": ["*"],
                "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    server.post(&format!("{GROUP}/flowschemas"), &schema).await.ok();
    let wanted = level["metadata"]["uid"].as_str().expect("a uid");
    until("the configuration is taken over", async || {
        let response = get(server, name, "/api/v1/namespaces/none").await;
        response.headers().get("x-kubernetes-pf-prioritylevel-uid").is_some_and(|uid| uid == wanted)
    })
    .await;
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

/// A create whose body is never sent whole: it holds its seat until it is dropped.
struct Held {
    _body: mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>,
    request: tokio::task::JoinHandle<()>,
}

impl Held {
    fn new(server: &Server, name: &str) -> Held {
        let (sender, receiver) = mpsc::unbounded();
        sender.unbounded_send(Ok(Frame::data(Bytes::from_static(b"{")))).expect("open");
        let mut request = Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(StreamBody::new(receiver))
            .expect("a request");
        request.extensions_mut().insert(user(name));
        let service = server.service();
        let request = tokio::spawn(async move { drop(service.oneshot(request).await) });
        Held { _body: sender, request }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.request.abort();
    }
}

/// The value of a meter with these labels.
async fn metric(server: &Server, name: &str, labels: &str) -> Option<f64> {
    let text = server.get("/metrics").await.body;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn tiny() -> Limits {
    // One seat a share of the level under test, and few for all others.
    Limits { max_requests: 100, max_mutating_requests: 0, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_rejects_answers_429_in_upstreams_words() {
    let server = server(tiny()).await;
    put_on_level(&server, "strict", json!({"type": "Reject"})).await;
    let held = Held::new(&server, "strict");
    until("the seat is taken", async || {
        metric(&server, "apiserver_flowcontrol_current_executing_requests", "flow_schema=\"a-strict\"").await
            == Some(1.0)
    })
    .await;
    let refused = get(&server, "strict", "/api/v1/namespaces").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(refused.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let body = refused.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "Too many requests, please try again later.\n");
    assert_eq!(server.get("/api/v1/namespaces").await.code, 200, "an administrator always gets in");
    let labels = "flow_schema=\"a-strict\",priority_level=\"strict\",reason=\"concurrency-limit\"";
    assert_eq!(metric(&server, "apiserver_flowcontrol_rejected_requests_total", labels).await, Some(1.0));
    drop(held);
    until("the seat is free again", async || get(&server, "strict", "/api/v1/namespaces").await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_queues_serves_those_who_wait() {
    let server = server(tiny()).await;
    let queuing = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}});
    put_on_level(&server, "patient", queuing).await;
    let held = Held::new(&server, "patient");
    let waiting = "flow_schema=\"a-patient\"";
    until("the seat is taken", async || {
        metric(&server, "apiserver_flowcontrol_current_executing_requests", waiting).await == Some(1.0)
    })
    .await;
    let second = async { get(&server, "patient", "/api/v1/namespaces").await.status() };
    let rest = async {
        until("the second waits", async || {
            metric(&server, "apiserver_flowcontrol_current_inqueue_requests", waiting).await == Some(1.0)
        })
        .await;
        assert_eq!(get(&server, "patient", "/api/v1/namespaces").await.status(), 429, "the queue is full");
        let dump = server.get("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await.body;
        let dump = String::from_utf8_lossy(&dump).into_owned();
        assert!(dump.starts_with("PriorityLevelName,"), "{dump}");
        let lines: Vec<&str> = dump.lines().filter(|line| line.starts_with("patient,")).collect();
        assert_eq!(lines.len(), 2, "one is served, one waits: {dump}");
        assert!(lines.iter().any(|line| line.contains("/api/v1/namespaces") && line.contains("list")), "{dump}");
        let levels = server.get("/debug/api_priority_and_fairness/dump_priority_levels").await.body;
        assert!(String::from_utf8_lossy(&levels).contains("patient"));
        assert_eq!(server.get("/debug/api_priority_and_fairness/dump_queues").await.code, 200);
        drop(held);
    };
    let (second, ()) = tokio::join!(second, rest);
    assert_eq!(second, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gives_its_seat_back_once_it_has_begun() {
    let server = server(tiny()).await;
    put_on_level(&server, "watcher", json!({"type": "Reject"})).await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let watch = get(&server, "watcher", "/api/v1/namespaces?watch=1").await;
        assert_eq!(watch.status(), 200);
        watches.push(watch);
    }
    assert_eq!(metric(&server, "apiserver_longrunning_requests", "verb=\"WATCH\"").await, Some(10.0));
    drop(watches);
    until("the watches are gone", async || {
        metric(&server, "apiserver_longrunning_requests", "verb=\"WATCH\"").await == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fairness_the_plain_limits_hold() {
    let limits =
        Limits { priority_and_fairness: false, max_requests: 1, max_mutating_requests: 1, ..Limits::default() };
    let server = Server::start_with(|_| Config { limits, ..Config::default() }).await;
    let response = server.get("/api/v1/namespaces").await;
    assert_eq!(response.code, 200);
    assert!(!response.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    assert_eq!(server.get("/debug/api_priority_and_fairness/dump_requests").await.code, 404);
}

/// The meaning of the two conformance tests of sig-api-machinery about flow control: both resources live through every verb,
/// their status included.
#[tokio::test(flavor = "multi_thread")]
async fn both_resources_live_through_every_verb() {
    let server = server(Limits::default()).await;
    let groups = server.get("/apis").await.ok();
    let group =
        groups["groups"].as_array().expect("groups").iter().find(|g| g["name"] == "flowcontrol.apiserver.k8s.io");
    assert!(group.expect("the group")["versions"].as_array().expect("versions").iter().any(|v| v["version"] == "v1"));
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "fs", "labels": {"test": "yes"}}, "spec": {"matchingPrecedence": 10000,
        "priorityLevelConfiguration": {"name": "global-default"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "pl", "labels": {"test": "yes"}}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}});
    let condition = json!({"type": "Tested", "status": "True", "reason": "Test", "message": "here",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    for (resource, name, object) in [("flowschemas", "fs", schema), ("prioritylevelconfigurations", "pl", level)] {
        let (all, one) = (format!("{GROUP}/{resource}"), format!("{GROUP}/{resource}/{name}"));
        let mut watch = server.watch(&format!("{all}?watch=1&labelSelector=test%3Dyes")).await;
        server.post(&all, &object).await.ok();
        assert_eq!(watch.line().await, format!("ADDED {name}"));
        let mut read = server.get(&one).await.ok();
        read["metadata"]["annotations"] = json!({"patched": "true"});
        server.merge(&one, &json!({"metadata": {"annotations": {"patched": "true"}}})).await.ok();
        let mut again = server.get(&one).await.ok();
        assert_eq!(again["metadata"]["annotations"]["patched"], "true");
        again["metadata"]["annotations"]["updated"] = "true".into();
        until("an update wins", async || {
            // The status of a schema is written meanwhile.
            again["metadata"]["resourceVersion"] = server.get(&one).await.ok()["metadata"]["resourceVersion"].clone();
            server.put(&one, &again).await.code == 200
        })
        .await;
        let status = server.merge(&format!("{one}/status"), &json!({"status": {"conditions": [condition]}})).await.ok();
        assert_eq!(status["status"]["conditions"][0]["type"], "Tested");
        let mut whole = server.get(&format!("{one}/status")).await.ok();
        until("a status update wins", async || {
            whole["metadata"]["resourceVersion"] = server.get(&one).await.ok()["metadata"]["resourceVersion"].clone();
            server.put(&format!("{one}/status"), &whole).await.code == 200
        })
        .await;
        let list = server.get(&format!("{all}?labelSelector=test%3Dyes")).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
        server.delete(&one).await.ok();
        assert_eq!(server.get(&one).await.code, 404);
        server.post(&all, &object).await.ok();
        server.delete(&format!("{all}?labelSelector=test%3Dyes")).await.ok();
        let list = server.get(&format!("{all}?labelSelector=test%3Dyes")).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
    }
}
