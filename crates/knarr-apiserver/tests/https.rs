//! The server over TLS, as clients reach it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use knarr_apiserver::authentication::x509::{CertificateVerifier, ClientCertificates};
use knarr_apiserver::authentication::{self, Anonymous, Authenticator};
use knarr_apiserver::{ApiServer, Config, Registry, ServerTls};
use knarr_pki::{CertificateAuthority, CertificateRequest, KeyedCertificate};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

struct Served {
    address: std::net::SocketAddr,
    authority: CertificateAuthority,
    admin: KeyedCertificate,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

async fn serve() -> Served {
    knarr_pki::install_crypto_provider();
    let directory = tempfile::tempdir().expect("a directory");
    let authority = CertificateAuthority::load_or_create(directory.path(), "ca", "test-ca").expect("an authority");
    let server = CertificateRequest::server("apiserver", vec!["localhost".into()], Vec::new());
    let server = authority.issue(&server).expect("a serving certificate");
    let admin = CertificateRequest::client("admin", &["system:masters"]);
    let admin = authority.issue(&admin).expect("a client certificate");
    let shutdown = CancellationToken::new();
    let store = Arc::new(knarr_store::Embedded::open(&directory.path().join("store")).expect("an empty store"));
    let registry = Registry::open(store, false, shutdown.clone()).await.expect("a registry");
    let roots = Arc::new(knarr_pki::root_store(authority.certificate_pem()).expect("roots"));
    let verifier = CertificateVerifier::new(roots).expect("a verifier");
    let authenticators: Vec<Arc<dyn Authenticator>> = vec![Arc::new(ClientCertificates { verifier })];
    let anyone = Arc::new(arc_swap::ArcSwap::from_pointee(Anonymous::Everywhere));
    let config = Config { authentication: authentication::Chain::new(authenticators, anyone), ..Config::default() };
    let api = ApiServer::new(config, registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = knarr_pki::server_config(&server, authority.certificate_pem()).expect("TLS");
    let tls = Arc::new(ServerTls::from_pointee(tls));
    let stop = shutdown.clone();
    let serving = tokio::spawn(async move { api.serve(listener, tls, stop).await });
    Served { address, authority, admin, shutdown, serving, _directory: directory }
}

type Tls = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

impl Served {
    async fn connect(&self, version: Version, certificate: Option<&KeyedCertificate>) -> Tls {
        let mut config = knarr_pki::client_config(self.authority.certificate_pem(), certificate).expect("TLS");
        config.alpn_protocols = match version {
            Version::HTTP_2 => vec![b"h2".to_vec()],
            _ => vec![b"http/1.1".to_vec()],
        };
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let name = "localhost".try_into().expect("a name");
        TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake"))
    }

    async fn send(
        &self,
        version: Version,
        certificate: Option<&KeyedCertificate>,
        request: Request<Full<Bytes>>,
    ) -> (u16, Version, Value) {
        let tls = self.connect(version, certificate).await;
        let response = if version == Version::HTTP_2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), tls).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(tls).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let response = response.expect("an answer");
        let (code, spoken) = (response.status().as_u16(), response.version());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, spoken, serde_json::from_slice(&body).unwrap_or_default())
    }
}

fn request(method: &str, target: &str, body: &str) -> Request<Full<Bytes>> {
    let request =
        Request::builder().method(method).uri(format!("https://localhost{target}")).header("host", "localhost");
    let request = request.header("content-type", "application/json");
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

#[tokio::test]
async fn certificates_let_in_over_both_protocols() {
    let served = serve().await;
    for (version, name) in [(Version::HTTP_11, "a"), (Version::HTTP_2, "b")] {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        let create = request("POST", "/api/v1/namespaces", &body);
        let (code, spoken, object) = served.send(version, Some(&served.admin), create).await;
        assert_eq!((code, spoken), (201, version), "{object}");
        let target = format!("/api/v1/namespaces/{name}");
        let (code, _, object) = served.send(version, Some(&served.admin), request("GET", &target, "")).await;
        assert_eq!((code, object["metadata"]["name"].as_str()), (200, Some(name)));
        let (code, _, refusal) = served.send(version, None, request("GET", &target, "")).await;
        assert_eq!((code, refusal["reason"].as_str()), (403, Some("Forbidden")));
    }
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_returns() {
    let served = serve().await;
    let tls = served.connect(Version::HTTP_11, Some(&served.admin)).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(tls).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let watch = request("GET", "/api/v1/namespaces?watch=1", "");
    let response = sender.send_request(watch).await.expect("an answer");
    assert_eq!(response.status(), 200);
    served.shutdown.cancel();
    let rest = response.into_body().collect().await.expect("a polite end");
    assert!(rest.to_bytes().is_empty());
    served.serving.await.expect("the server returns");
}

/// Requests as bytes, and the first line of what the server says to them.
fn raw_requests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let get = |headers: &str| format!("GET /version HTTP/1.1\r\n{headers}\r\n").into_bytes();
    let post = |headers: &str| format!("POST /version HTTP/1.1\r\nHost: x\r\n{headers}\r\n0\r\n\r\n").into_bytes();
    let long = |size: usize| get(&format!("Host: x\r\nConnection: close\r\nX-Long: {}\r\n", "a".repeat(size)));
    let many =
        |count: usize| get(&format!("Host: x\r\nConnection: close\r\n{}", "X-Remote-Group: g\r\n".repeat(count)));
    // Nobody without a certificate may see anything here.
    const READ: &str = "HTTP/1.1 403 Forbidden";
    const TOO_LARGE: &str = "HTTP/1.1 431 Request Header Fields Too Large";
    const BAD: &str = "HTTP/1.1 400 Bad Request";
    vec![
        ("a header of 120 KB", long(120 << 10), READ),
        ("a header of 900 KB", long(900 << 10), READ),
        ("a header of 1100 KB", long(1100 << 10), TOO_LARGE),
        ("headers of 3 MB", long(3 << 20), TOO_LARGE),
        ("150 headers", many(150), READ),
        ("5000 headers", many(5000), TOO_LARGE),
        ("no host", get("Connection: close\r\n"), BAD),
        ("two hosts", get("Host: a\r\nHost: b\r\n"), BAD),
        ("a space before the colon", get("Host : a\r\n"), BAD),
        ("a folded header", get("Host: a\r\nX-A: a\r\n b\r\n"), BAD),
        ("two lengths", post("Content-Length: 4\r\nContent-Length: 5\r\n"), BAD),
        ("a length with a sign", post("Content-Length: +5\r\n"), BAD),
        ("encoded twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BAD),
        ("an unknown encoding", post("Transfer-Encoding: xchunked\r\n"), BAD),
        ("chunks that are not the last encoding", post("Transfer-Encoding: chunked, identity\r\n"), BAD),
        ("a zero byte", get("Host: x\r\nX-A: a\0b\r\n"), BAD),
    ]
}

#[tokio::test]
async fn what_cannot_be_read_is_answered() {
    let served = serve().await;
    for (what, request, first_line) in raw_requests() {
        let mut stream = served.connect(Version::HTTP_11, None).await.into_inner();
        // The server may have answered, and read no further, before everything is sent.
        let _ = stream.write_all(&request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.lines().next(), Some(first_line), "{what}");
    }
}

#[tokio::test]
async fn too_long_headers_are_answered_over_http2() {
    let served = serve().await;
    for (size, expected) in [(900 << 10, 403), (1200 << 10, 431)] {
        let mut request = request("GET", "/api/v1/namespaces", "");
        let pieces = size / 4096;
        for i in 0..pieces {
            let name: http::HeaderName = format!("x-long-{i}").parse().expect("a name");
            request.headers_mut().insert(name, "a".repeat(4000).parse().expect("a value"));
        }
        let tls = served.connect(Version::HTTP_2, None).await;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(16 << 20);
        let (mut sender, connection) = builder.handshake(tls).await.expect("HTTP/2");
        tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), expected, "{size}");
    }
}
