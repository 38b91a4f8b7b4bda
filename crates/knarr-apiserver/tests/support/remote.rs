//! HTTPS servers in the test's own process, such as webhooks and aggregated API servers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use knarr_apiserver::objects::Objects;
use knarr_pki::{CertificateAuthority, CertificateRequest, KeyedCertificate};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Server;

type Answering = Arc<dyn Fn(Request<Incoming>, bool) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

/// A server on a port of its own, whose certificate is for `127.0.0.1` and `server.ns.svc`.
pub struct Remote {
    pub address: SocketAddr,
    pub authority_pem: String,
    /// Reviews as they came.
    pub asked: Arc<Mutex<Vec<Value>>>,
    client: KeyedCertificate,
}

impl Remote {
    /// Answers whole requests; the flag says whether the client showed a certificate of this server's authority.
    pub async fn serve(answer: Answering, asked: Arc<Mutex<Vec<Value>>>) -> Remote {
        knarr_pki::install_crypto_provider();
        let directory = tempfile::tempdir().expect("a directory");
        let authority = CertificateAuthority::load_or_create(directory.path(), "ca", "test").expect("an authority");
        let names = vec!["server.ns.svc".to_string()];
        let request = CertificateRequest::server("server", names, vec!["127.0.0.1".parse().expect("an address")]);
        let keyed = authority.issue(&request).expect("a certificate");
        let client = authority.issue(&CertificateRequest::client("front-proxy-client", &[])).expect("a certificate");
        let tls = knarr_pki::server_config(&keyed, authority.certificate_pem()).expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let known = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(move |request| {
                        let answer = answer.clone();
                        async move { Ok::<_, Infallible>(answer(request, known).await) }
                    });
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Remote { address, authority_pem: authority.certificate_pem().to_string(), asked, client }
    }

    /// A webhook: `review` makes an answer's `response` of a review's `request`, to which path it came included. The response's uid is
    /// filled in; `null` never answers.
    pub async fn webhook(review: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Remote {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (review, seen) = (Arc::new(review), asked.clone());
        let answer: Answering = Arc::new(move |request: Request<Incoming>, _| {
            let (review, seen) = (review.clone(), seen.clone());
            Box::pin(async move {
                let path = request.uri().path().to_string();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let asked: Value = serde_json::from_slice(&body).expect("a review");
                seen.lock().push(asked.clone());
                let mut response = review(&path, &asked["request"]);
                if response.is_null() {
                    std::future::pending::<()>().await;
                }
                response["uid"] = asked["request"]["uid"].clone();
                let review = json!({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response});
                Response::new(Full::new(review.to_string().into()))
            })
        });
        Remote::serve(answer, asked).await
    }

    /// The certificate of a client that this server knows.
    pub fn client(&self) -> KeyedCertificate {
        self.client.clone()
    }

    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.authority_pem)
    }

    /// A `clientConfig` by URL.
    pub fn at(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.ca_bundle()})
    }

    /// The service `server` in the namespace `ns` with this server behind its port.
    pub async fn as_service(&self, server: &Server, port: u16) {
        let service = json!({"metadata": {"name": "server"}, "spec": {"clusterIP": "None", "ports": [{"port": port}]}});
        server.post("/api/v1/namespaces/ns/services", &service).await.ok();
        let slice = json!({
            "metadata": {"name": "server", "labels": {"kubernetes.io/service-name": "server"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"name": "", "port": self.address.port()}],
        });
        server.post("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", &slice).await.ok();
        // No client may point a service at this machine; the test may.
        let slices = knarr_api::GroupResource::new("discovery.k8s.io", "endpointslices");
        let mut here = |object: &mut Value| {
            object["endpoints"][0]["addresses"] = json!(["127.0.0.1"]);
            Ok(())
        };
        server.registry.modify(&slices, "ns", "server", &mut here).await.expect("a slice");
    }
}
