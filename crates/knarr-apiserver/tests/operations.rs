//! Health, metrics, timeouts, origins, warnings and odd requests.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use knarr_apiserver::health::{HealthCheck, StartStage};
use knarr_apiserver::{Config, Limits};
use serde_json::json;
use support::Server;
use tokio_util::sync::CancellationToken;

fn text(answer: &support::Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn health_pages_answer_as_upstream() {
    let stage = StartStage::new(&["poststarthook/rbac/bootstrap-roles", "autoregister-completion"]);
    let leaving = CancellationToken::new();
    let checks = stage.checks().chain([HealthCheck::new("log", true, || Ok(()))]).collect();
    let server = Server::start_with(|_| Config { checks, leaving: leaving.clone(), ..Config::default() }).await;
    let failed = server.get("/livez").await;
    assert_eq!(failed.code, 500);
    assert!(text(&failed).contains("[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n"));
    assert!(text(&failed).ends_with("livez check failed\n"));
    let excluded = server
        .get("/livez?exclude=poststarthook%2Frbac%2Fbootstrap-roles&exclude=autoregister-completion&verbose")
        .await;
    assert_eq!(excluded.code, 200);
    assert!(text(&excluded).contains("[+]poststarthook/rbac/bootstrap-roles excluded: ok\n"));
    assert!(text(&failed).contains("[-]autoregister-completion failed: reason withheld\n"));
    stage.done();
    assert_eq!(text(&server.get("/livez").await), "ok");
    let verbose = text(&server.get("/readyz?verbose").await);
    for check in ["ping", "etcd", "etcd-readiness", "informer-sync", "shutdown", "log"] {
        assert!(verbose.contains(&format!("[+]{check} ok\n")), "{verbose}");
    }
    assert!(verbose.ends_with("readyz check passed\n"));
    let odd = text(&server.get("/livez?exclude=b&exclude=a&verbose").await);
    assert!(odd.contains("warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\n"), "{odd}");
    assert_eq!(text(&server.get("/livez/etcd").await), "ok");
    assert_eq!(text(&server.get("/readyz/poststarthook/rbac/bootstrap-roles").await), "ok");
    assert_eq!(server.get("/livez/shutdown").await.code, 404, "only readiness ends with the server");
    leaving.cancel();
    assert_eq!(server.get("/readyz").await.code, 500);
    assert_eq!(text(&server.get("/readyz/shutdown").await), "internal server error: process is shutting down\n");
    assert_eq!(server.get("/livez").await.code, 200);
}

#[tokio::test]
async fn metrics_have_upstreams_names_and_form() {
    let server = Server::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let mut watch = server.watch("/api/v1/configmaps?watch=1").await;
    server.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    assert_eq!(watch.line().await, "ADDED a");
    server.get("/api/v1/namespaces/default/configmaps").await.ok();
    server.get("/api/v1/namespaces/default/strangers/thing").await;
    server.get("/livez").await;
    let page = server.get("/metrics").await;
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    let page = text(&page);
    let lines = [
        r#"apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1"#,
        r#"apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="WATCH",version="v1"} 1"#,
        r#"apiserver_watch_events_total{group="",resource="configmaps",version="v1"} 1"#,
        r#"apiserver_storage_objects{resource="configmaps"} 1"#,
        r#"etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"} 1"#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
        "# TYPE apiserver_request_total counter",
        "# TYPE apiserver_watch_events_total counter",
        "# TYPE process_resident_memory_bytes gauge",
        "# TYPE apiserver_flowcontrol_nominal_limit_seats gauge",
    ];
    for line in lines {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
    assert!(!page.contains("strangers"), "what clients make up is no label");
    assert!(page.contains("kubernetes_build_info{") && page.contains("process_cpu_seconds_total"));
    let slis = text(&server.get("/metrics/slis").await);
    assert!(slis.contains(r#"kubernetes_healthcheck{name="ping",type="livez"} 1"#), "{slis}");
    assert!(slis.contains(r#"kubernetes_healthchecks_total{name="etcd",status="success",type="livez"} 2"#), "{slis}");
    assert!(slis.contains(r#"kubernetes_healthcheck{name="shutdown",type="readyz"} 1"#), "measuring checks: {slis}");
}

#[tokio::test(start_paused = true)]
async fn a_request_may_say_how_long_it_may_take() {
    let limits = Limits { request_timeout: Duration::from_secs(30), ..Limits::default() };
    let server = Server::start_with(|_| Config { limits, ..Config::default() }).await;
    let bad = server.get("/api/v1/namespaces?timeout=soon").await;
    assert_eq!(bad.code, 400);
    let why = r#"invalid timeout specified in the request URL - time: invalid duration "soon""#;
    assert_eq!(bad.json()["message"], why);
    for (target, seconds) in [("?timeout=5s", 5), ("?timeout=2m", 30), ("?timeout=0s", 30)] {
        let request = Request::post(format!("/api/v1/namespaces{target}"))
            .header("content-type", "application/json")
            .body(http_body_util::StreamBody::new(futures::stream::pending()))
            .expect("a request");
        let began = tokio::time::Instant::now();
        let response = send(&server, request).await;
        assert_eq!(response.status(), 504);
        assert_eq!(began.elapsed().as_secs(), seconds, "{target}");
    }
}

type Never = futures::stream::Pending<Result<http_body::Frame<Bytes>, std::convert::Infallible>>;

async fn send(
    server: &Server,
    mut request: Request<http_body_util::StreamBody<Never>>,
) -> http::Response<knarr_apiserver::http::Body> {
    use knarr_apiserver::authentication::{TransportIdentity, User};
    use tower::ServiceExt;
    request.extensions_mut().insert(TransportIdentity(Arc::new(User::new("admin", &["system:masters"]))));
    server.service().oneshot(request).await.expect("the chain never fails")
}

#[tokio::test]
async fn browsers_of_allowed_origins_may_read() {
    let origins = vec![regex::Regex::new(r"//ui\.example$").expect("a pattern")];
    let server = Server::start_with(|_| Config { cors_origins: origins, ..Config::default() }).await;
    let ask = async |method: Method, origin: &'static str| {
        let request = Request::builder().method(method).uri("/version").header("origin", origin);
        server.send(request.body(Full::<Bytes>::default()).expect("a request")).await
    };
    let allowed = ask(Method::GET, "https://ui.example").await;
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://ui.example");
    assert_eq!(allowed.headers()["access-control-allow-credentials"], "true");
    assert_eq!(ask(Method::OPTIONS, "https://ui.example").await.status(), 204);
    assert!(!ask(Method::GET, "https://evil.example").await.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn deprecated_apis_and_patched_unknown_fields_are_warned_of() {
    let server = Server::start().await;
    let list = server.get("/api/v1/namespaces/default/endpoints").await;
    let warning = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
    assert_eq!(list.headers["warning"], warning);
    let page = text(&server.get("/metrics").await);
    let line = r#"apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1"#;
    assert!(page.contains(line), "{page}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    server.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    let patched = server.merge("/api/v1/namespaces/default/configmaps/a", &json!({"dada": {"x": "y"}})).await;
    assert_eq!(patched.headers["warning"], r#"299 - "unknown field \"dada\"""#);
}

#[test]
fn deep_patches_are_read_and_bottomless_ones_refused() {
    support::on_object_stack(patch_deeply);
}

async fn patch_deeply() {
    let server = Server::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    server.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    let patch = async |depth: usize| {
        let body = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        server.call("PATCH", "/api/v1/namespaces/default/configmaps/a", "application/merge-patch+json", body).await
    };
    assert_eq!(patch(9_000).await.code, 200, "an unknown field, however deep, is dropped");
    let refused = patch(20_000).await;
    assert_eq!(refused.code, 400);
    assert!(refused.json()["message"].as_str().expect("text").contains("exceeded max depth"), "{}", refused.json());
}

/// Paths are read as they stand: nothing is normalised, so that what is authorized is what is served.
#[tokio::test]
async fn path_tricks_lead_nowhere() {
    let server = Server::start().await;
    for (target, code) in [
        ("/api//v1/namespaces", 404),
        ("/api/v1/../v1/namespaces", 404),
        ("/api/v1/namespaces/default/../../namespaces", 404),
        ("/api/v1/namespaces/default%2fconfigmaps", 200),
        ("/api/v1/namespaces/%2e%2e/configmaps", 200),
        ("http://evil.example/api/v1/namespaces/default/configmaps", 200),
        ("/apis//v1/namespaces", 404),
        ("//api/v1/namespaces", 404),
        ("/api/v1/namespaces/", 200),
        ("/API/v1/namespaces", 404),
    ] {
        assert_eq!(server.get(target).await.code, code, "{target}");
    }
    let head = server.call("HEAD", "/api/v1/namespaces", "", "").await;
    assert_eq!(head.code, 405);
    assert_eq!(server.call("OPTIONS", "/api/v1/namespaces", "", "").await.code, 405);
}

/// The meaning of the conformance tests of sig-instrumentation: events live through every verb, in both groups.
#[tokio::test]
async fn events_live_through_every_verb_in_both_groups() {
    let server = Server::start().await;
    let core = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "labels": {"testevent-set": "true"}},
            "message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1,
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}})
    };
    let new = |name: &str| {
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "labels": {"testevent-set": "true"}},
            "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "note": "This is a test event",
            "eventTime": "2026-01-01T00:00:00.123456Z", "action": "Do", "reason": "Test", "type": "Normal",
            "reportingController": "test-controller", "reportingInstance": "test-node"})
    };
    for (all, make, note) in [
        ("/api/v1/namespaces/default/events", &core as &dyn Fn(&str) -> serde_json::Value, "message"),
        ("/apis/events.k8s.io/v1/namespaces/default/events", &new, "note"),
    ] {
        server.post(all, &make("one")).await.ok();
        let selected = format!("{all}?fieldSelector=metadata.name%3Done");
        assert_eq!(server.get(&selected).await.ok()["items"].as_array().map(Vec::len), Some(1), "{all}");
        let names: &[(&str, u16)] = match note {
            "message" => &[("involvedObject.name=p,source=", 200), ("regarding.name=p", 400)],
            _ => &[("regarding.name=p,reportingController=test-controller", 200), ("involvedObject.name=p", 400)],
        };
        for (fields, code) in names {
            let answer = server.get(&format!("{all}?fieldSelector={}", fields.replace('=', "%3D"))).await;
            assert_eq!(answer.code, *code, "{all} {fields}");
            assert!(*code != 200 || answer.ok()["items"].as_array().is_some_and(|items| items.len() == 1), "{fields}");
        }
        if note == "note" {
            let of = "/api/v1/namespaces/default/events?fieldSelector=source%3Dtest-controller";
            assert_eq!(server.get(of).await.ok()["items"].as_array().map(Vec::len), Some(1));
        }
        let one = format!("{all}/one");
        // What the newer group has told stays told.
        let patched = server.merge(&one, &json!({note: "patched"})).await;
        assert_eq!(patched.code, if note == "message" { 200 } else { 422 });
        let mut event = server.get(&one).await.ok();
        event["series"] = json!({"count": 100, "lastObservedTime": "2026-01-02T03:04:05.000007Z"});
        let updated = server.put(&one, &event).await.ok();
        assert_eq!(updated["series"]["count"], 100);
        server.delete(&one).await.ok();
        for name in ["a", "b", "c"] {
            server.post(all, &make(name)).await.ok();
        }
        let labelled = format!("{all}?labelSelector=testevent-set%3Dtrue");
        assert_eq!(server.get(&labelled).await.ok()["items"].as_array().map(Vec::len), Some(3));
        server.delete(&labelled).await.ok();
        assert_eq!(server.get(&labelled).await.ok()["items"].as_array().map(Vec::len), Some(0));
    }
}
