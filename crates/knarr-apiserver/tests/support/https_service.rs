//! A service of somebody else's: an issuer, a webhook.
#![allow(dead_code)] // Not every test binary uses all of it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use knarr_pki::{CertificateAuthority, CertificateRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a service answers to a path and a body.
type Answering = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

pub struct HttpsService {
    pub url: String,
    pub authority_pem: String,
    /// The bodies that it was sent.
    pub received: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

impl HttpsService {
    /// Serves on a port of its own until dropped.
    pub async fn start(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> HttpsService {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(listener, answer)
    }

    pub fn serve(
        listener: TcpListener,
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> HttpsService {
        knarr_pki::install_crypto_provider();
        let directory = tempfile::tempdir().expect("a directory");
        let authority =
            CertificateAuthority::load_or_create(directory.path(), "ca", "service-ca").expect("an authority");
        let request = CertificateRequest::server("service", vec!["localhost".into()], Vec::new());
        let certificate = authority.issue(&request).expect("a certificate");
        let mut tls = knarr_pki::server_config(&certificate, authority.certificate_pem()).expect("TLS");
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let (stop, received) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let accepting = accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::new(answer), received.clone());
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(accepting).await });
        HttpsService { url, authority_pem: authority.certificate_pem().into(), received, _stop: stop.drop_guard() }
    }

    pub fn calls(&self) -> usize {
        self.received.lock().len()
    }

    /// A kubeconfig by which the service is called at `path`.
    pub fn kubeconfig(&self, directory: &Path, path: &str) -> std::path::PathBuf {
        let authority = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.authority_pem);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "s", "cluster": {"server": format!("{}{path}", self.url), "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "s", "user": "u"}}]});
        let file = directory.join(format!("kubeconfig-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, config.to_string()).expect("a kubeconfig");
        file
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answer: Arc<Answering>,
    received: Arc<Mutex<Vec<Value>>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, answer, received) = (acceptor.clone(), answer.clone(), received.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (answer, received) = (answer.clone(), received.clone());
                async move {
                    let path = request.uri().path().to_string();
                    let body = request.into_body().collect().await?.to_bytes();
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let (code, reply) = answer(&path, &body);
                    received.lock().push(body);
                    let response = Response::builder().status(code).header("content-type", "application/json");
                    Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(reply.to_string()))).expect("a response"))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}
