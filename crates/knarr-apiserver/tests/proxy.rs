//! Requests that end at a node, a pod or a service, against a node's kubelet and servers made for the test.

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use knarr_apiserver::admission::{self, MutatingAdmissionWebhook};
use knarr_apiserver::audit::batch::Batching;
use knarr_apiserver::audit::log::{Log, Rotation};
use knarr_apiserver::audit::policy::Policy;
use knarr_apiserver::audit::{AuditConfig, BackendConfig, Mode};
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::objects::Objects;
use knarr_apiserver::outbound::Outbound;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::{ApiServer, Config, Registry, authorization};
use knarr_streaming::remote_command::{Options, Outcome, Streams};
use knarr_streaming::spdy::{Connection, Side};
use knarr_streaming::upgrade;
use serde_json::{Value, json};
use support::Server;
use support::remote::Remote;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower::ServiceExt;

/// A kubelet that knows one pod, behind TLS of the cluster's authority, for clients with its certificates alone.
async fn kubelet(tls: rustls::ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(known, request)) });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    });
    address
}

fn answer(known: bool, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let reply = |code: StatusCode, text: String| Response::builder().status(code).body(Full::new(text.into())).unwrap();
    if !known || request.headers().contains_key("authorization") {
        return reply(StatusCode::UNAUTHORIZED, "only the API server, and only by certificate".into());
    }
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    match request.uri().path() {
        "/containerLogs/ns/pod/main" | "/metrics" => reply(StatusCode::OK, target),
        "/method" => reply(StatusCode::OK, request.method().to_string()),
        "/page" => {
            let mut page = reply(StatusCode::OK, "<a href='/metrics'>all</a>".into());
            page.headers_mut().insert("content-type", "text/html; charset=utf-8".parse().unwrap());
            page
        }
        "/containerLogs/ns/pod/waiting" => reply(StatusCode::BAD_REQUEST, "container \"waiting\" is waiting".into()),
        "/exec/ns/pod/main" => {
            let client = hyper::upgrade::on(&mut request);
            tokio::spawn(async move { cat(TokioIo::new(client.await.unwrap())).await });
            upgrade::switching_protocols("SPDY/3.1").map(|()| Full::default())
        }
        "/portForward/ns/pod" => {
            let client = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(client.await.unwrap()));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            upgrade::switching_protocols("SPDY/3.1").map(|()| Full::default())
        }
        _ => reply(StatusCode::INTERNAL_SERVER_ERROR, "container not found (\"waiting\")".into()),
    }
}

async fn cat(io: TokioIo<hyper::upgrade::Upgraded>) {
    let (connection, mut incoming) = Connection::start(io, Side::Server);
    let options = Options { stdin: true, stdout: true, stderr: false, tty: false };
    let mut streams = Streams::accept(&mut incoming, options).await.unwrap();
    tokio::io::copy(&mut streams.stdin.take().unwrap(), &mut streams.stdout.take().unwrap()).await.unwrap();
    streams.error.write_all(&Outcome::Success.to_bytes()).await.unwrap();
    connection.close();
    connection.closed().await;
}

/// A server in memory whose node `node` has that kubelet, with pods `pod` (on it) and `unbound`.
struct Cluster {
    server: Server,
    api: ApiServer,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        Self::start_with(|_| Config::default()).await
    }

    async fn start_with(config: impl FnOnce(&Arc<Registry>) -> Config) -> Cluster {
        knarr_pki::install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = knarr_pki::CertificateAuthority::load_or_create(directory.path(), "ca", "test").unwrap();
        let pem = authority.certificate_pem();
        let serving = knarr_pki::CertificateRequest::server("node", vec![], vec!["127.0.0.1".parse().unwrap()]);
        let serving = authority.issue(&serving).unwrap();
        let client = authority.issue(&knarr_pki::CertificateRequest::client("apiserver", &["system:masters"])).unwrap();
        let kubelet = kubelet(knarr_pki::server_config(&serving, pem).unwrap()).await;
        let server = Server::start().await;
        let kubelet_client = Some(knarr_pki::client_config(pem, Some(&client)).unwrap());
        let config = Config { kubelet_client, ..config(&server.registry) };
        let api = ApiServer::new(config, server.registry.clone());
        let cluster = Cluster { server, api, _directory: directory };
        cluster.fill(kubelet).await;
        cluster
    }

    async fn fill(&self, kubelet: SocketAddr) {
        let server = &self.server;
        server.post("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.ok();
        server.post("/api/v1/nodes", &json!({"metadata": {"name": "node"}})).await.ok();
        let status = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "nowhere"}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}}}});
        server.merge("/api/v1/nodes/node/status", &status).await.ok();
        for (name, node) in [("pod", "node"), ("unbound", "")] {
            let containers = json!([{"name": "main", "image": "i"}, {"name": "waiting", "image": "i"}]);
            let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": containers}});
            if !node.is_empty() {
                pod["spec"]["nodeName"] = node.into();
            }
            server.post("/api/v1/namespaces/ns/pods", &pod).await.ok();
        }
    }

    async fn get(&self, target: &str) -> (u16, String) {
        self.ask("GET", target).await
    }

    async fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(target).header("authorization", "Bearer x");
        let mut request = request.body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(TransportIdentity(Arc::new(User::new("admin", &["system:masters"]))));
        let response = self.api.service().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn refusal(&self, target: &str) -> (u16, String) {
        let (code, body) = self.get(target).await;
        let status: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{code} {body}"));
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    }

    /// A connection to the server over HTTP/1.1, as an administrator's.
    async fn connect(&self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.api.service();
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
        TcpStream::connect(address).await.unwrap()
    }

    async fn websocket(&self, target: &str, protocol: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
        let mut request = format!("ws://localhost{target}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let (socket, response) = tokio_tungstenite::client_async(request, self.connect().await).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol.split(',').next().unwrap());
        socket
    }
}

const POD: &str = "/api/v1/namespaces/ns/pods/pod";

#[tokio::test]
async fn logs_come_from_the_nodes_kubelet() {
    let cluster = Cluster::start().await;
    let (code, target) = cluster.get(&format!("{POD}/log?container=main&follow=true&tailLines=3")).await;
    assert_eq!((code, target.as_str()), (200, "/containerLogs/ns/pod/main?follow=true&tailLines=3"));
    assert_eq!(cluster.get("/api/v1/namespaces/ns/pods/unbound/log?container=main").await, (200, String::new()));
    for (target, code, message) in [
        ("pod/log", 400, "a container name must be specified for pod pod, choose one of: [main waiting]"),
        ("pod/log?container=x", 400, "container x is not valid for pod pod"),
        ("pod/log?container=waiting", 400, "container \"waiting\" is waiting"),
        ("none/log", 404, "pods \"none\" not found"),
        (
            "pod/log?container=main&tailLines=-1",
            422,
            "PodLogOptions \"\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        let refusal = cluster.refusal(&format!("/api/v1/namespaces/ns/pods/{target}")).await;
        assert_eq!(refusal, (code, message.to_owned()), "{target}");
    }
}

#[tokio::test]
async fn websocket_clients_read_logs() {
    let cluster = Cluster::start().await;
    let (target, told) = (format!("{POD}/log?container=main"), "/containerLogs/ns/pod/main");
    let mut socket = cluster.websocket(&target, "binary.k8s.io").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(told));
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    let mut socket = cluster.websocket(&target, "base64.binary.k8s.io").await;
    let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(message.as_str(), "L2NvbnRhaW5lckxvZ3MvbnMvcG9kL21haW4=");
}

#[tokio::test]
async fn websocket_clients_run_commands() {
    let cluster = Cluster::start().await;
    let target = format!("{POD}/exec?container=main&stdin=true&stdout=true&command=cat");
    let mut socket = cluster.websocket(&target, "v5.channel.k8s.io,v4.channel.k8s.io").await;
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let (mut stdout, mut status) = (Vec::new(), Vec::new());
    while let Some(Ok(Message::Binary(message))) = socket.next().await {
        match message[0] {
            1 => stdout.extend_from_slice(&message[1..]),
            3 => status.extend_from_slice(&message[1..]),
            other => panic!("channel {other}"),
        }
    }
    assert_eq!(stdout, b"hello");
    assert_eq!(serde_json::from_slice::<Value>(&status).unwrap()["status"], "Success");

    let target = format!("{POD}/exec?container=waiting&stdout=true&command=cat");
    let mut socket = cluster.websocket(&target, "v5.channel.k8s.io").await;
    let mut last = Bytes::new();
    while let Some(Ok(Message::Binary(message))) = socket.next().await {
        last = message;
    }
    let status: Value = serde_json::from_slice(&last[1..]).unwrap();
    let message = "Internal error occurred: unable to upgrade connection: container not found (\"waiting\")";
    assert_eq!(status["message"], message);
}

#[tokio::test]
async fn spdy_clients_are_joined_with_the_kubelet() {
    let cluster = Cluster::start().await;
    let mut request = Request::builder().method("POST").header("host", "x").body(http_body_util::Empty::new()).unwrap();
    *request.uri_mut() = format!("{POD}/exec?container=main&stdin=true&stdout=true&command=cat").parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "SPDY/3.1".parse().unwrap());
    *request.headers_mut() = headers;
    let answer = upgrade::request(cluster.connect().await, request).await.unwrap();
    let upgrade::Answer::Switched(_, io) = answer else { panic!("refused") };
    let (connection, _) = Connection::start(io, Side::Client);
    let options = Options { stdin: true, stdout: true, stderr: false, tty: false };
    let streams = Streams::open(&connection, options).await.unwrap();
    let mut stdin = streams.stdin.unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut stdout = [0; 5];
    streams.stdout.unwrap().read_exact(&mut stdout).await.unwrap();
    assert_eq!(&stdout, b"hello");
}

#[tokio::test]
async fn ports_are_forwarded_through_the_tunnel() {
    let cluster = Cluster::start().await;
    let mut socket = cluster.websocket(&format!("{POD}/portforward"), "SPDY/3.1+portforward.k8s.io").await;
    socket.send(Message::binary(b"echo".to_vec())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(b"echo".to_vec()));
}

#[tokio::test]
async fn nodes_pods_and_services_are_proxied() {
    let cluster = Cluster::start().await;
    let (code, target) = cluster.get("/api/v1/nodes/node/proxy/metrics?a=b%20c").await;
    assert_eq!((code, target.as_str()), (200, "/metrics?a=b%20c"));
    assert_eq!(cluster.get("/api/v1/nodes/node/proxy").await.0, 301);
    for (target, code, message) in [
        ("/api/v1/nodes/none/proxy/", 404, "nodes \"none\" not found"),
        ("/api/v1/namespaces/ns/services/none/proxy/", 404, "services \"none\" not found"),
        ("/api/v1/namespaces/ns/pods/pod/exec?container=main", 400, "Upgrade request required"),
        ("/api/v1/namespaces/ns/pods/unbound/exec?container=main", 400, "pod unbound does not have a host assigned"),
    ] {
        assert_eq!(cluster.refusal(target).await, (code, message.to_owned()), "{target}");
    }
    let service = json!({"metadata": {"name": "empty"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    cluster.server.post("/api/v1/namespaces/ns/services", &service).await.ok();
    let refusal = cluster.refusal("/api/v1/namespaces/ns/services/empty/proxy/").await;
    assert_eq!(refusal, (503, "no endpoints available for service \"empty\"".to_owned()));
}

#[tokio::test]
async fn proxies_pass_every_method_on_and_lead_the_links_of_pages_back() {
    let cluster = Cluster::start().await;
    for method in ["GET", "OPTIONS", "PATCH", "POST", "PUT", "DELETE"] {
        let answer = cluster.ask(method, "/api/v1/nodes/node/proxy/method").await;
        assert_eq!(answer, (200, method.to_owned()));
    }
    assert_eq!(cluster.ask("OPTIONS", "/api/v1/nodes/node").await.0, 405);
    let (_, page) = cluster.get("/api/v1/nodes/node/proxy/page").await;
    assert_eq!(page, "<a href='/api/v1/nodes/node/proxy/metrics'>all</a>");
}

impl Cluster {
    /// How many commands run, as the server counts requests that last.
    async fn running(&self) -> String {
        let (_, page) = self.get("/metrics").await;
        let line =
            page.lines().find(|line| line.starts_with("apiserver_longrunning_requests") && line.contains("\"exec\""));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned()
    }
}

#[tokio::test]
async fn a_command_is_a_request_until_it_ends() {
    let cluster = Cluster::start().await;
    let target = format!("{POD}/exec?container=main&stdin=true&stdout=true&command=cat");
    let mut socket = cluster.websocket(&target, "v5.channel.k8s.io").await;
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    assert!(socket.next().await.is_some(), "it runs");
    assert_eq!(cluster.running().await, "1");
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    let ended = async {
        while cluster.running().await != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("it ends with its session");
}

/// Webhooks, and an audit log at this path of everything that is done to pods.
fn watched(registry: &Arc<Registry>, log: &std::path::Path) -> Config {
    let objects: Arc<dyn Objects> = registry.clone();
    let outbound = Outbound::new(objects.clone());
    let webhooks = MutatingAdmissionWebhook::new(&objects, &outbound, authorization::Chain::default());
    let admission = admission::Chain::new(vec![Arc::new(webhooks)]);
    let rules = "rules: [{level: Metadata, resources: [{group: '', resources: ['pods/*']}]}, {level: None}]";
    let policy = Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).unwrap();
    let log = Log::open(log, Rotation::default()).unwrap();
    let backends = vec![BackendConfig::Log { log, mode: Mode::Blocking, batching: Batching::LOG }];
    Config {
        hooks: Hooks { admission, ..Hooks::default() },
        audit: Some(AuditConfig { policy, backends }),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_webhook_changes_what_is_run_and_the_audit_log_tells_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.log");
    let cluster = Cluster::start_with(|registry| watched(registry, &log)).await;
    let remote = Remote::webhook(|_, request| {
        assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("exec")));
        assert_eq!((&request["name"], &request["namespace"]), (&json!("pod"), &json!("ns")));
        assert_eq!(request["object"]["kind"], "PodExecOptions");
        assert_eq!(request["object"]["command"], json!(["cat"]));
        let patch = json!([{"op": "replace", "path": "/container", "value": "main"}]).to_string();
        let patch = base64::engine::general_purpose::STANDARD.encode(patch);
        json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
    })
    .await;
    let hook = json!({
        "name": "hook.example.com", "clientConfig": remote.at("/"), "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}],
    });
    let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    cluster.server.post(configurations, &json!({"metadata": {"name": "w"}, "webhooks": [hook]})).await.ok();

    // The kubelet knows no running container `waiting`.
    let target = format!("{POD}/exec?container=waiting&stdin=true&stdout=true&command=cat");
    let mut socket = cluster.websocket(&target, "v5.channel.k8s.io").await;
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    // Each channel begins with an empty message.
    let mut said = socket.next().await.unwrap().unwrap();
    while said.len() < 2 {
        said = socket.next().await.unwrap().unwrap();
    }
    assert_eq!(said, Message::binary(b"\x01hello".to_vec()));
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    let mut socket = cluster.websocket(&format!("{POD}/portforward"), "SPDY/3.1+portforward.k8s.io").await;
    socket.send(Message::binary(b"echo".to_vec())).await.unwrap();
    assert!(socket.next().await.is_some());
    drop(socket);

    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let ended = async {
        while events().iter().filter(|event| event["stage"] == "ResponseComplete").count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("both end in the log");
    let told: Vec<String> = events()
        .iter()
        .map(|event| {
            let reference = &event["objectRef"];
            let place =
                [&reference["namespace"], &reference["resource"], &reference["name"], &reference["subresource"]];
            let place = place.map(|part| part.as_str().unwrap_or_default()).join("/");
            let of = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {place} {} {}",
                of("stage"),
                of("verb"),
                event["user"]["username"],
                event["responseStatus"]["code"]
            )
        })
        .collect();
    for subresource in ["exec", "portforward"] {
        for (stage, code) in [("RequestReceived", "null"), ("ResponseStarted", "101"), ("ResponseComplete", "101")] {
            let line = format!("{stage} get ns/pods/pod/{subresource} \"admin\" {code}");
            assert_eq!(told.iter().filter(|told| **told == line).count(), 1, "{line} in {told:#?}");
        }
    }
    let complete = events().into_iter().find(|event| event["stage"] == "ResponseComplete").unwrap();
    assert_eq!(complete["requestURI"], target, "what was asked for");
    let mutation = complete["annotations"]["mutation.webhook.admission.k8s.io/round_0_index_0"].as_str().unwrap();
    let mutation: Value = serde_json::from_str(mutation).unwrap();
    assert_eq!(mutation, json!({"configuration": "w", "webhook": "hook.example.com", "mutated": true}));
}
