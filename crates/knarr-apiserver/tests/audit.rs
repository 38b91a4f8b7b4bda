//! The audit log, as it is written for requests.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use knarr_apiserver::Config;
use knarr_apiserver::admission;
use knarr_apiserver::audit::batch::Batching;
use knarr_apiserver::audit::log::{Log, Rotation};
use knarr_apiserver::audit::policy::Policy;
use knarr_apiserver::audit::webhook::Webhook;
use knarr_apiserver::audit::{AuditConfig, BackendConfig, Mode};
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::http::Body;
use knarr_apiserver::registry::Hooks;
use serde_json::{Value, json};
use support::Server;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct Audited {
    server: Server,
    log: tempfile::TempDir,
}

async fn audited(rules: &str, mode: Mode) -> Audited {
    audited_with(rules, mode, Config::default()).await
}

async fn audited_with(rules: &str, mode: Mode, config: Config) -> Audited {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).expect("a policy");
    let log = Log::open(&directory.path().join("audit.log"), Rotation::default()).expect("a log");
    let backends = vec![BackendConfig::Log { log, mode, batching: Batching::LOG }];
    let config = Config { audit: Some(AuditConfig { policy, backends }), ..config };
    Audited { server: Server::start_with(|_| config).await, log: directory }
}

impl Audited {
    fn path(&self) -> std::path::PathBuf {
        self.log.path().join("audit.log")
    }

    /// The events so far.
    fn events(&self) -> Vec<Value> {
        events(&self.path())
    }

    /// `STAGE verb resource/name` of every event of this verb.
    fn stages(&self, verb: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let events = self.events();
        let of_verb = events.iter().filter(|e| e["verb"] == verb);
        of_verb
            .map(|e| {
                format!("{} {}/{}", text(&e["stage"]), text(&e["objectRef"]["resource"]), text(&e["objectRef"]["name"]))
            })
            .collect()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.server.send(request).await
    }
}

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_event_says_who_asked_for_what_and_what_came_of_it() {
    let audited = audited("rules: [{level: RequestResponse, omitManagedFields: true}]", Mode::Blocking).await;
    let create = Request::post(format!("{CONFIG_MAPS}?fieldManager=me"))
        .header("content-type", "application/json")
        .header("user-agent", "test/1.0")
        .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
        .header("x-real-ip", "192.0.2.4")
        .header("audit-id", "mine")
        .header("impersonate-user", "alice")
        .header("impersonate-group", "system:masters")
        .body(Full::new(Bytes::from(config_map("c").to_string())))
        .expect("a request");
    let response = audited.send(create).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["audit-id"], "mine");
    let events = audited.events();
    assert_eq!(events.len(), 2, "received and complete");
    let (received, complete) = (&events[0], &events[1]);
    assert_eq!(received["stage"], "RequestReceived");
    assert_eq!(received["responseStatus"], Value::Null);
    assert_eq!(received["stageTimestamp"], received["requestReceivedTimestamp"]);
    assert_eq!(complete["stage"], "ResponseComplete");
    assert_eq!((&complete["kind"], &complete["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!(complete["auditID"], "mine");
    assert_eq!(complete["level"], "RequestResponse");
    assert_eq!(complete["verb"], "create");
    assert_eq!(complete["requestURI"], format!("{CONFIG_MAPS}?fieldManager=me"));
    assert_eq!(complete["user"]["username"], "admin");
    assert_eq!(complete["impersonatedUser"]["username"], "alice");
    assert_eq!(complete["impersonatedUser"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(complete["sourceIPs"], json!(["198.51.100.7", "203.0.113.9", "192.0.2.4"]));
    assert_eq!(complete["userAgent"], "test/1.0");
    let reference = json!({"resource": "configmaps", "namespace": "default", "name": "c", "apiVersion": "v1"});
    assert_eq!(complete["objectRef"], reference);
    assert_eq!(complete["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(complete["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(complete["responseObject"]["metadata"]["name"], "c");
    assert_eq!(complete["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(complete["annotations"]["authorization.k8s.io/decision"], "allow");
    let stamp = complete["stageTimestamp"].as_str().expect("a time");
    assert_eq!(stamp.len(), "2006-01-02T15:04:05.000000Z".len(), "{stamp}");
}

#[tokio::test]
async fn levels_decide_how_much_is_recorded() {
    let rules = r#"
omitStages: [RequestReceived]
rules:
- {level: None, resources: [{group: "", resources: ["pods"]}]}
- {level: Metadata, resources: [{group: "", resources: ["secrets"]}]}
- {level: Request, verbs: ["patch"]}
- {level: RequestResponse, verbs: ["get"]}
"#;
    let audited = audited(rules, Mode::Blocking).await;
    let server = &audited.server;
    server.get("/api/v1/namespaces/default/pods").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    server.post("/api/v1/namespaces/default/secrets", &secret).await.ok();
    server.post(CONFIG_MAPS, &config_map("c")).await.ok();
    server.merge(&format!("{CONFIG_MAPS}/c"), &json!({"data": {"x": "y"}})).await.ok();
    server.get(&format!("{CONFIG_MAPS}/c")).await.ok();
    server.get(&format!("{CONFIG_MAPS}/missing")).await;
    let events = audited.events();
    let verbs: Vec<&str> = events.iter().filter_map(|e| e["verb"].as_str()).collect();
    assert_eq!(verbs, ["create", "patch", "get", "get"], "no rule is no event");
    assert!(events[0]["requestObject"].is_null() && events[0]["responseObject"].is_null());
    assert_eq!(events[1]["requestObject"], json!({"data": {"x": "y"}}), "a patch is recorded as it is");
    assert!(events[1]["responseObject"].is_null());
    assert_eq!(events[2]["responseObject"]["data"]["x"], "y");
    let missing = &events[3]["responseStatus"];
    assert_eq!((&missing["code"], &missing["reason"]), (&json!(404), &json!("NotFound")));
    assert_eq!(missing["details"]["name"], "missing");
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let audited = audited("rules: [{level: Metadata}]", Mode::Blocking).await;
    let watch = audited.server.watch("/api/v1/namespaces?watch=1").await;
    assert_eq!(audited.stages("watch"), ["RequestReceived namespaces/", "ResponseStarted namespaces/"]);
    drop(watch);
    assert_eq!(audited.stages("watch")[2..], ["ResponseComplete namespaces/"]);
}

#[tokio::test]
async fn refusals_are_recorded_with_their_reasons() {
    let audited = audited("omitStages: [RequestReceived]\nrules: [{level: Metadata}]", Mode::Blocking).await;
    let mut request = Request::get("/api/v1/namespaces").body(Full::<Bytes>::default()).expect("a request");
    request.extensions_mut().insert(TransportIdentity(Arc::new(User::new("nobody", &["system:authenticated"]))));
    let response = audited.server.service().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 403);
    let request = Request::get("/api/v1/namespaces")
        .header("authorization", "Bearer wrong")
        .body(Full::<Bytes>::default())
        .expect("a request");
    assert_eq!(audited.server.service().oneshot(request).await.expect("an answer").status(), 401);
    let events = audited.events();
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[0]["responseStatus"]["reason"], "Forbidden");
    assert_eq!((&events[1]["stage"], &events[1]["responseStatus"]["code"]), (&json!("ResponseStarted"), &json!(401)));
    assert_eq!(events[1]["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(events[1]["user"], json!({}));
}

/// Annotates everything, and panics where it is told to.
struct Talkative;

#[async_trait::async_trait]
impl admission::Plugin for Talkative {
    fn name(&self) -> &'static str {
        "Talkative"
    }

    fn handles(&self, _: admission::Operation) -> bool {
        true
    }

    async fn validate(&self, request: &mut admission::Request) -> Result<(), knarr_api::StatusError> {
        request.audit_annotations.push(("talkative.example/said".into(), "something".into()));
        assert_ne!(request.name, "panic", "told to");
        Ok(())
    }
}

#[tokio::test]
async fn plugins_annotate_and_a_panic_is_a_stage() {
    let hooks = Hooks { admission: admission::Chain::new(vec![Arc::new(Talkative)]), ..Hooks::default() };
    let config = Config { hooks, ..Config::default() };
    let audited = audited_with("rules: [{level: Metadata}]", Mode::Blocking, config).await;
    audited.server.post(CONFIG_MAPS, &config_map("c")).await.ok();
    assert_eq!(audited.events()[1]["annotations"]["talkative.example/said"], "something");
    let panicked = audited.server.post(CONFIG_MAPS, &config_map("panic")).await;
    assert_eq!(panicked.code, 500);
    let last = audited.events().pop().expect("an event");
    assert_eq!((&last["stage"], &last["responseStatus"]["code"]), (&json!("Panic"), &json!(500)));
}

#[tokio::test]
async fn a_log_that_batches_is_written_until_the_end() {
    let audited = audited("rules: [{level: Metadata}]", Mode::Batch).await;
    audited.server.get("/api/v1/namespaces").await.ok();
    assert_eq!(audited.events().len(), 0, "nobody writes yet");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let written = audited.server.api.write_audit(shutdown);
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("it ends");
    assert_eq!(audited.events().len(), 2);
}

/// Takes what is posted to it; the first request is answered with 503.
async fn collector() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Value>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, received) = tokio::sync::mpsc::unbounded_channel();
    let refused = Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, refused) = (sender.clone(), refused.clone());
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let (sender, refused) = (sender.clone(), refused.clone());
                async move {
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let first = !refused.swap(true, std::sync::atomic::Ordering::Relaxed);
                    if !first {
                        let _ = sender.send(serde_json::from_slice(&body).expect("JSON"));
                    }
                    let answer = Response::builder().status(if first { 503 } else { 200 });
                    Ok::<_, std::convert::Infallible>(answer.body(Full::<Bytes>::default()).expect("an answer"))
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    (address, received)
}

#[tokio::test]
async fn a_webhook_gets_batches_again_until_it_takes_them() {
    let (address, mut received) = collector().await;
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}/audit")}}]});
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).expect("written");
    let sink = Box::new(Webhook::open(&file, Duration::from_millis(1)).expect("a webhook"));
    let batching = Batching { longest_wait: Duration::from_millis(200), ..Batching::WEBHOOK };
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]";
    let policy = Policy::parse(text).expect("a policy");
    let backends = vec![BackendConfig::Sink { sink, mode: Mode::Batch, batching }];
    let config = Config { audit: Some(AuditConfig { policy, backends }), ..Config::default() };
    let server = Server::start_with(|_| config).await;
    let (api, shutdown) = (server.api.clone(), CancellationToken::new());
    let stop = shutdown.clone();
    let writing = tokio::spawn(async move { api.write_audit(stop).await });
    server.get("/api/v1/namespaces").await.ok();
    let batch =
        tokio::time::timeout(Duration::from_secs(20), received.recv()).await.expect("in time").expect("a batch");
    assert_eq!((&batch["kind"], &batch["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    let stages: Vec<&str> =
        batch["items"].as_array().expect("events").iter().filter_map(|e| e["stage"].as_str()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    shutdown.cancel();
    writing.await.expect("it ends");
}

#[tokio::test]
async fn without_a_policy_every_answer_still_has_its_name() {
    let server = Server::start().await;
    let answers = [server.get("/version").await, server.get("/api/v1/namespaces/none").await];
    let ids: Vec<&str> = answers.iter().map(|a| a.headers["audit-id"].to_str().expect("text")).collect();
    assert!(ids[0].len() == 36 && ids[0] != ids[1], "{ids:?}");
    let long = Request::get("/version").header("audit-id", "x".repeat(100)).body(Full::<Bytes>::default());
    let response = server.send(long.expect("a request")).await;
    assert_eq!(response.headers()["audit-id"].len(), 64);
    assert!(response.into_body().collect().await.is_ok());
}
