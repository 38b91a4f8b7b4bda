//! The kubelet's HTTPS API over a real containerd, private to the test. Skips without root, containerd, runc or a static busybox.

mod containerd;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use containerd::Containerd;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use knarr_cri::v1::{ContainerFilter, ContainerState};
use knarr_cri::{Runtime, RuntimeService};
use knarr_kubelet::server::Server;
use knarr_kubelet::server::access::{Access, AccessError, Credentials, User};
use knarr_kubelet::view::{ContainerView, NodeView};
use knarr_streaming::remote_command::{Options, Streams};
use knarr_streaming::spdy::{Connection, Headers, Side};
use knarr_streaming::upgrade::{self, Answer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A node with one pod, as its runtime has it.
struct OnePod {
    runtime: Arc<knarr_cri::RemoteRuntime>,
    pod: Arc<Pod>,
    sandbox: String,
    logs: PathBuf,
}

#[async_trait]
impl NodeView for OnePod {
    fn node_name(&self) -> &str {
        "this-node"
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.pod.clone()]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        (namespace == "ns" && name == "pod").then(|| self.pod.clone())
    }

    async fn containers(&self, _: &str, _: &str, container: &str) -> knarr_cri::Result<Vec<ContainerView>> {
        let mut views = Vec::new();
        for found in self.runtime.list_containers(None::<ContainerFilter>).await? {
            let metadata = found.metadata.clone().unwrap_or_default();
            if metadata.name == container {
                let status = self.runtime.container_status(&found.id).await?;
                views.push(ContainerView {
                    id: found.id,
                    name: metadata.name,
                    attempt: metadata.attempt,
                    state: ContainerState::try_from(status.state).unwrap(),
                    log_path: PathBuf::from(status.log_path),
                });
            }
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.attempt));
        Ok(views)
    }

    async fn sandbox(&self, _: &str, _: &str) -> knarr_cri::Result<Option<String>> {
        Ok(Some(self.sandbox.clone()))
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    fn pod_logs_dir(&self) -> &Path {
        &self.logs
    }

    fn configuration(&self) -> Value {
        json!({"maxPods": 110})
    }
}

/// Lets in whoever has the token "good", but not to statistics.
struct OneToken;

#[async_trait]
impl Access for OneToken {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, AccessError> {
        Ok((credentials.bearer_token.as_deref() == Some("good")).then(User::default))
    }

    async fn authorize(&self, _: &User, node: &str, _: &str, subresource: &str) -> Result<bool, AccessError> {
        Ok(node == "this-node" && subresource != "stats")
    }
}

/// The server, and what a client needs to talk to it.
struct Kubelet {
    _containerd: Containerd,
    address: std::net::SocketAddr,
    tls: tokio_rustls::TlsConnector,
    _shutdown: tokio_util::sync::DropGuard,
}

impl Kubelet {
    /// A kubelet whose pod has a container `main` that runs `script`.
    async fn start(test: &str, script: &str) -> Option<Kubelet> {
        let containerd = Containerd::start(test).await?;
        let (sandbox, logs) = containerd.run_pod("main", script).await;
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "pod", "namespace": "ns", "uid": "uid"},
            "spec": {"containers": [{"name": "main"}, {"name": "waiting"}]},
        }))
        .unwrap();
        let view = OnePod { runtime: containerd.runtime.clone(), pod: Arc::new(pod), sandbox, logs };
        knarr_pki::install_crypto_provider();
        let authority = knarr_pki::CertificateAuthority::load_or_create(&containerd.directory, "ca", "test").unwrap();
        let request =
            knarr_pki::CertificateRequest::server("system:node:this-node", vec![], vec!["127.0.0.1".parse().unwrap()]);
        let server_tls = knarr_pki::server_config(&authority.issue(&request).unwrap(), authority.certificate_pem());
        let client_tls = knarr_pki::client_config(authority.certificate_pem(), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = Server::new(Arc::new(view), Arc::new(OneToken));
        tokio::spawn(server.serve(listener, server_tls.unwrap(), shutdown.clone()));
        Some(Kubelet {
            _containerd: containerd,
            address,
            tls: tokio_rustls::TlsConnector::from(Arc::new(client_tls)),
            _shutdown: shutdown.drop_guard(),
        })
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.tls.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
    }

    fn request(method: Method, target: &str) -> Request<Empty<bytes::Bytes>> {
        let builder = Request::builder().method(method).uri(target).header("host", "kubelet");
        builder.header("authorization", "Bearer good").body(Empty::new()).unwrap()
    }

    async fn send(&self, request: Request<Empty<bytes::Bytes>>) -> hyper::Response<hyper::body::Incoming> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    async fn get(&self, target: &str) -> (StatusCode, String) {
        let response = self.send(Kubelet::request(Method::GET, target)).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// A SPDY connection, upgraded as kubectl's fallback does it.
    async fn spdy(&self, target: &str, protocol: &str) -> Result<Connection, (StatusCode, String)> {
        let mut request = Kubelet::request(Method::POST, target);
        for (name, value) in
            [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)]
        {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match upgrade::request(self.connect().await, request).await.unwrap() {
            Answer::Switched(_, io) => Ok(Connection::start(io, Side::Client).0),
            Answer::Refused(response) => {
                let status = response.status();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                Err((status, String::from_utf8(bytes.to_vec()).unwrap()))
            }
        }
    }
}

const OUTPUT: Options = Options { stdin: false, stdout: true, stderr: true, tty: false };

async fn read(stream: Option<knarr_streaming::spdy::Stream>) -> String {
    let (mut reader, _) = stream.unwrap().split();
    let mut all = Vec::new();
    while let Some(Ok(piece)) = reader.next().await {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn commands_run_with_their_streams_and_tell_their_end() {
    let Some(kubelet) = Kubelet::start("exec", "sleep 1000").await else { return };

    let target =
        "/exec/ns/pod/main?output=1&error=1&command=sh&command=-c&command=echo%20out;echo%20err%20%3E%262;exit%207";
    let connection = kubelet.spdy(target, "v4.channel.k8s.io").await.unwrap();
    let streams = Streams::open(&connection, OUTPUT).await.unwrap();
    let (stdout, stderr, status) = tokio::join!(read(streams.stdout), read(streams.stderr), read(Some(streams.error)));
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));

    let connection =
        kubelet.spdy("/exec/ns/pod/main?input=1&output=1&error=1&command=cat", "v4.channel.k8s.io").await.unwrap();
    let streams = Streams::open(&connection, Options { stdin: true, ..OUTPUT }).await.unwrap();
    let sent = "x".repeat(300_000);
    let write = async {
        let (_, mut stdin) = streams.stdin.unwrap().split();
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.finish().await.unwrap();
    };
    let ((), stdout, status) = tokio::join!(write, read(streams.stdout), read(Some(streams.error)));
    assert!(stdout == sent);
    assert!(status.contains("\"Success\""), "{status}");

    let refused = kubelet.spdy("/exec/ns/pod/waiting?output=1&command=id", "v4.channel.k8s.io").await;
    let message = "container not found (\"waiting\")".to_owned();
    assert_eq!(refused.err(), Some((StatusCode::INTERNAL_SERVER_ERROR, message)));
    let refused = kubelet.spdy("/exec/ns/none/main?output=1&command=id", "v4.channel.k8s.io").await;
    assert_eq!(refused.err(), Some((StatusCode::NOT_FOUND, "pod does not exist".to_owned())));
    let (status, _) = kubelet.get("/exec/ns/pod/main?output=1&command=id").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let response = kubelet.send(Kubelet::request(Method::POST, "/run/ns/pod/main?cmd=echo%20hello")).await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello\n");
}

#[tokio::test]
async fn ports_are_forwarded_into_the_pod() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let script = format!(
        "mkdir -p /tmp/www; echo page > /tmp/www/index.html; exec busybox httpd -f -p 127.0.0.1:{port} -h /tmp/www"
    );
    let Some(kubelet) = Kubelet::start("forward", &script).await else { return };
    // Ready once something listens.
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::task::yield_now().await;
    }
    let connection = kubelet.spdy("/portForward/ns/pod", "portforward.k8s.io").await.unwrap();
    for request in 0..3 {
        let headers = |kind| {
            Headers::new(&[("streamType", kind), ("port", &port.to_string()), ("requestID", &request.to_string())])
        };
        let error = connection.open(headers("error")).await.unwrap();
        let mut data = connection.open(headers("data")).await.unwrap();
        data.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        data.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with("page\n"), "{answer}");
        drop(error);
    }
}

#[tokio::test]
async fn logs_are_followed_until_the_container_ends() {
    let script = "echo first; echo second; cat /dev/zero | head -c 20000 | tr '\\0' y; echo; echo last";
    let Some(kubelet) = Kubelet::start("logs", script).await else { return };
    let expected = format!("first\nsecond\n{}\nlast\n", "y".repeat(20_000));
    let (status, text) = kubelet.get("/containerLogs/ns/pod/main?follow=true").await;
    assert_eq!((status, text.len()), (StatusCode::OK, expected.len()));
    assert_eq!(kubelet.get("/containerLogs/ns/pod/main?tailLines=1").await.1, "last\n");
    assert_eq!(kubelet.get("/containerLogs/ns/pod/main?limitBytes=3").await.1, "fir");
    let (status, text) = kubelet.get("/containerLogs/ns/pod/main?previous=true").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(text, "previous terminated container \"main\" in pod \"pod\" not found");
    let (status, _) = kubelet.get("/containerLogs/ns/pod/unknown").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn only_who_may_is_served() {
    let Some(kubelet) = Kubelet::start("access", "sleep 1000").await else { return };
    let mut anonymous = Kubelet::request(Method::GET, "/healthz");
    anonymous.headers_mut().remove("authorization");
    assert_eq!(kubelet.send(anonymous).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(kubelet.get("/healthz").await, (StatusCode::OK, "ok".to_owned()));
    assert_eq!(kubelet.get("/stats/summary").await.0, StatusCode::FORBIDDEN);
    let pods: Value = serde_json::from_str(&kubelet.get("/pods").await.1).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("pod")));
    let metrics = kubelet.get("/metrics/resource").await.1;
    assert!(
        metrics.contains("container_memory_working_set_bytes{container=\"main\",namespace=\"ns\",pod=\"pod\"}"),
        "{metrics}"
    );
    let running: Value = serde_json::from_str(&kubelet.get("/runningpods/").await.1).unwrap();
    assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "main");
}
