//! APIServices and the servers behind them, against an HTTPS server of the test.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use knarr_apiserver::Config;
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::health::StartStage;
use knarr_streaming::upgrade;
use serde_json::{Value, json};
use support::Server;
use support::remote::Remote;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "/apis/wardle.example.com/v1alpha1";

/// Upstream's sample API server, as far as a test needs it: it shows who it believes is asking.
fn sample(mut request: Request<Incoming>, known: bool) -> Response<Full<Bytes>> {
    let reply = |code: u16, value: Value| {
        let mut response = Response::new(Full::new(value.to_string().into()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        response
    };
    let texts = |name: &str| -> Vec<String> {
        request.headers().get_all(name).iter().map(|v| v.to_str().unwrap().to_string()).collect()
    };
    if !known {
        return reply(401, json!({}));
    }
    let list = json!({
        "kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]},
        ],
    });
    match request.uri().path() {
        WARDLE => reply(200, list),
        "/apis/wardle.example.com/v1alpha1/namespaces/ns/flunders" => reply(
            200,
            json!({
                "user": texts("x-remote-user"), "groups": texts("x-remote-group"), "uid": texts("x-remote-uid"),
                "extra": texts("x-remote-extra-example.com%2fkey"), "authorization": texts("authorization"),
                "query": request.uri().query(),
            }),
        ),
        "/apis/wardle.example.com/v1alpha1/namespaces/ns/flunders/f/connect" => {
            let client = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(client.await.unwrap()));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            upgrade::switching_protocols("echo").map(|()| Full::default())
        }
        "/openapi/v2" => reply(
            200,
            json!({
                "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": {"x": {"$ref": "#/definitions/Flunder"}}}},
                "definitions": {"Flunder": {"type": "object"}, "Unused": {}},
            }),
        ),
        "/openapi/v3" => {
            let url = "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB";
            reply(200, json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": url}}}))
        }
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            reply(200, json!({"openapi": "3.0.0", "user": texts("x-remote-user")}))
        }
        _ => reply(404, json!({"kind": "Status"})),
    }
}

struct Cluster {
    server: Server,
    remote: Remote,
    _stop: DropGuard,
}

impl Cluster {
    async fn start() -> Cluster {
        let remote =
            Remote::serve(Arc::new(|request, known| Box::pin(async move { sample(request, known) })), Arc::default())
                .await;
        let server =
            Server::start_with(|_| Config { front_proxy_client: Some(remote.client()), ..Config::default() }).await;
        let stop = CancellationToken::new();
        tokio::spawn(server.api.aggregator().clone().run(StartStage::new(&[]), stop.clone()));
        Cluster { server, remote, _stop: stop.drop_guard() }
    }

    /// Registers the sample's API.
    async fn register(&self) {
        let spec = json!({
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "ns", "name": "server", "port": 443}, "caBundle": self.remote.ca_bundle(),
        });
        let object = json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": spec});
        self.server.post(API_SERVICES, &object).await.ok();
    }

    /// Waits until the APIService's condition has this reason; its message.
    async fn reason(&self, name: &str, reason: &str) -> String {
        let mut watch =
            self.server.watch(&format!("{API_SERVICES}?watch=true&fieldSelector=metadata.name={name}")).await;
        loop {
            let event = watch.next().await.expect("an event");
            let condition = event["object"]["status"]["conditions"][0].clone();
            if condition["reason"] == reason {
                let expected = if matches!(reason, "Passed" | "Local") { "True" } else { "False" };
                assert_eq!(condition["status"], expected);
                return condition["message"].as_str().unwrap_or_default().to_string();
            }
        }
    }

    async fn available(&self) {
        self.server.post("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.ok();
        self.remote.as_service(&self.server, 443).await;
        self.register().await;
        self.reason("v1alpha1.wardle.example.com", "Passed").await;
    }
}

#[tokio::test]
async fn what_is_served_here_is_registered_with_upstreams_priorities() {
    let cluster = Cluster::start().await;
    let message = cluster.reason("v1.apps", "Local").await;
    assert_eq!(message, "Local APIServices are always available");
    let apps = cluster.server.get(&format!("{API_SERVICES}/v1.apps")).await.ok();
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    cluster.reason("v1.", "Local").await;
    let registration = cluster.server.get(&format!("{API_SERVICES}/v1.apiregistration.k8s.io")).await;
    assert_eq!(registration.code, 404, "the registration itself is not registered");
}

#[tokio::test]
async fn the_condition_says_what_is_missing() {
    let cluster = Cluster::start().await;
    let name = "v1alpha1.wardle.example.com";
    cluster.server.post("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.ok();
    cluster.register().await;
    assert_eq!(cluster.reason(name, "ServiceNotFound").await, "service/server in \"ns\" is not present");
    let unavailable = cluster.server.get(&format!("{WARDLE}/namespaces/ns/flunders")).await;
    assert_eq!((unavailable.code, &unavailable.body[..]), (503, &b"service unavailable\n"[..]));

    let services = "/api/v1/namespaces/ns/services";
    let service = json!({"metadata": {"name": "server"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    cluster.server.post(services, &service).await.ok();
    assert_eq!(cluster.reason(name, "ServicePortError").await, "service/server in \"ns\" is not listening on port 443");
    let ports = json!({"spec": {"ports": [{"port": 443}]}});
    cluster.server.merge(&format!("{services}/server"), &ports).await.ok();
    let message = cluster.reason(name, "EndpointsNotFound").await;
    assert_eq!(message, "cannot find endpointslices for service/server in \"ns\"");
    let slice = json!({
        "metadata": {"name": "empty", "labels": {"kubernetes.io/service-name": "server"}}, "addressType": "IPv4",
        "endpoints": [], "ports": [],
    });
    cluster.server.post("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", &slice).await.ok();
    let message = cluster.reason(name, "MissingEndpoints").await;
    assert_eq!(message, "endpointslices for service/server in \"ns\" have no addresses with port name \"\"");
    cluster.server.delete(&format!("{services}/server")).await.ok();
    cluster.remote.as_service(&cluster.server, 443).await;
    cluster.reason(name, "Passed").await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_the_discovery_check() {
    let cluster = Cluster::start().await;
    cluster.available().await;
    let mut slices = json!({"ports": [{"name": "", "port": 1}]});
    slices["endpoints"] = json!([{"addresses": ["127.0.0.1"]}]);
    let resource = knarr_api::GroupResource::new("discovery.k8s.io", "endpointslices");
    let mut closed = |object: &mut Value| {
        object["ports"][0]["port"] = 1.into();
        Ok(())
    };
    use knarr_apiserver::objects::Objects;
    cluster.server.registry.modify(&resource, "ns", "server", &mut closed).await.unwrap();
    let message = cluster.reason("v1alpha1.wardle.example.com", "FailedDiscoveryCheck").await;
    let url = format!("https://127.0.0.1:1{WARDLE}");
    let why = format!("Get \"{url}\": dial tcp 127.0.0.1:1: connect: connection refused");
    assert_eq!(message, format!("failing or missing response from {url}: {why}"));
    // Discovery still shows the version, marked as old.
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::builder().uri("/apis").header("accept", accept).body(Full::default()).unwrap();
    let body = cluster.server.send(request).await.into_body().collect().await.unwrap().to_bytes();
    let list: Value = serde_json::from_slice(&body).unwrap();
    let groups = list["items"].as_array().unwrap();
    let wardle = groups.iter().find(|g| g["metadata"]["name"] == "wardle.example.com").unwrap();
    assert_eq!(wardle["versions"][0]["resources"][0]["resource"], "flunders");
}

#[tokio::test]
async fn requests_are_passed_on_in_the_users_name() {
    let cluster = Cluster::start().await;
    cluster.available().await;
    let mut user = User::new("jane", &["dev", "ops", "system:masters"]);
    user.uid = "42".into();
    user.extra.insert("example.com/key".into(), vec!["a".into(), "b".into()]);
    let uri = format!("{WARDLE}/namespaces/ns/flunders?limit=5&labelSelector=a%3Db");
    let mut request = Request::builder().uri(uri).header("authorization", "Bearer secret");
    request = request.header("x-remote-user", "forged").header("x-remote-group", "forged");
    let mut request = request.body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(TransportIdentity(Arc::new(user)));
    let response = cluster.server.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let seen: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(seen["user"], json!(["jane"]));
    assert!(seen["groups"].as_array().unwrap().starts_with(&[json!("dev"), json!("ops")]), "{seen}");
    assert!(!seen["groups"].as_array().unwrap().contains(&json!("forged")));
    assert_eq!((&seen["uid"], &seen["extra"]), (&json!(["42"]), &json!(["a", "b"])));
    assert_eq!((&seen["authorization"], &seen["query"]), (&json!([]), &json!("limit=5&labelSelector=a%3Db")));
}

#[tokio::test]
async fn discovery_and_openapi_show_the_remote_api() {
    let cluster = Cluster::start().await;
    cluster.available().await;
    let server = &cluster.server;
    // The documents are fetched right after the condition was written.
    let index = loop {
        let index = server.get("/openapi/v3").await.ok();
        if index["paths"].get("apis/wardle.example.com/v1alpha1").is_some() {
            break index;
        }
        tokio::task::yield_now().await;
    };
    let groups = server.get("/apis").await.ok();
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
    assert_eq!(names.last(), Some(&"wardle.example.com"), "its priority is the lowest");
    let group = server.get("/apis/wardle.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    assert_eq!(server.get(WARDLE).await.ok()["resources"][0]["name"], "flunders");

    let url = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().unwrap().to_string();
    assert_eq!(url, "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB");
    assert_eq!(server.get(&url).await.ok()["user"], json!(["system:kube-aggregator"]));
    loop {
        let v2 = server.get("/openapi/v2").await.ok();
        if v2["paths"].get("/apis/wardle.example.com/v1alpha1/flunders").is_some() {
            assert_eq!(v2["definitions"]["Flunder"]["type"], "object");
            assert_eq!(v2["definitions"].get("Unused"), None);
            break;
        }
        tokio::task::yield_now().await;
    }
    server.delete(&format!("{API_SERVICES}/v1alpha1.wardle.example.com")).await.ok();
    assert_eq!(server.get(WARDLE).await.code, 404);
}

#[tokio::test]
async fn connections_are_upgraded_through() {
    let cluster = Cluster::start().await;
    cluster.available().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = cluster.server.service();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let service = service.clone();
            request.extensions_mut().insert(TransportIdentity(Arc::new(User::new("admin", &["system:masters"]))));
            service.oneshot(request)
        });
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    });
    let request = Request::builder().uri(format!("{WARDLE}/namespaces/ns/flunders/f/connect")).header("host", "x");
    let request = request.header("connection", "Upgrade").header("upgrade", "echo");
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let answer = upgrade::request(TcpStream::connect(address).await.unwrap(), request).await.unwrap();
    let upgrade::Answer::Switched(_, mut io) = answer else { panic!("refused") };
    io.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
}
