//! What others add to the API: a webhook by URL, and an aggregated API server behind a service, through the real binary.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use knarr_pki::{CertificateAuthority, CertificateRequest};
use knarr_tests::{Cluster, Options, Raw};
use kube::api::{Api, DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

const WARDLE: &str = "/apis/wardle.example.com/v1alpha1";

/// This machine's address towards others; services may not lead to loopback addresses.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// A webhook that refuses config maps named `refused`, and an API server with flunders.
async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let flunder = |name: &str| json!({"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": name, "namespace": "default"}});
    let user = request.headers().get("x-remote-user").and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    let path = request.uri().path().to_string();
    let value = match path.as_str() {
        "/webhook" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let review: Value = serde_json::from_slice(&body).unwrap_or_default();
            let asked = &review["request"];
            let allowed = asked["name"] != "refused";
            let status =
                json!({"message": format!("{} may not", asked["userInfo"]["username"].as_str().unwrap_or_default())});
            let response = json!({"uid": asked["uid"], "allowed": allowed, "status": status});
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        }
        WARDLE => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]},
            ],
        }),
        "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders" => json!({
            "apiVersion": "wardle.example.com/v1alpha1", "kind": "FlunderList", "metadata": {}, "items": [flunder(&user)],
        }),
        _ => json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}),
    };
    let mut response = Response::new(Full::new(value.to_string().into()));
    if value["kind"] == "Status" {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
    }
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// Serves [`answer`] on all addresses; the port, and the authority's certificate.
async fn serve(directory: &std::path::Path) -> Result<(u16, String)> {
    knarr_pki::install_crypto_provider();
    let authority = CertificateAuthority::load_or_create(directory, "ca", "test")?;
    let names = vec!["wardle.default.svc".to_string()];
    let request = CertificateRequest::server("wardle", names, vec![IpAddr::from([127, 0, 0, 1])]);
    let keyed = authority.issue(&request)?;
    // Whoever connects is believed: that the front proxy shows its certificate is another test's matter.
    let (chain, key) = knarr_pki::chain_and_key(&keyed)?;
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
    let port = listener.local_addr()?.port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok((port, base64::engine::general_purpose::STANDARD.encode(authority.certificate_pem())))
}

async fn create(client: &kube::Client, resource: &ApiResource, namespace: Option<&str>, object: Value) -> Result<()> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

// kubectl blocks a thread, and the server that it asks through the cluster is this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_and_an_aggregated_api_extend_the_server() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let directory = tempfile::tempdir()?;
    let (port, bundle) = serve(directory.path()).await?;
    let (client, raw) = (cluster.client().await?, Raw::new(&cluster)?);

    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let hook = json!({
        "name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule],
        "clientConfig": {"url": format!("https://127.0.0.1:{port}/webhook"), "caBundle": bundle},
    });
    let kind = "ValidatingWebhookConfiguration";
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "w"}, "webhooks": [hook],
    });
    create(&client, &resource("admissionregistration.k8s.io", "v1", kind), None, configuration).await?;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    create(&client, &resource("", "v1", "ConfigMap"), Some("default"), map("allowed")).await?;
    let refused = create(&client, &resource("", "v1", "ConfigMap"), Some("default"), map("refused")).await;
    let message = refused.err().context("it is refused")?.to_string();
    let expected = "admission webhook \"w.example.com\" denied the request: kubernetes-admin may not";
    ensure!(message.contains(expected), "{message}");

    let Some(address) = own_address() else {
        eprintln!("this machine has no address but loopback: the aggregated API is skipped");
        return Ok(());
    };
    aggregate(&client, address, port, &bundle).await?;
    let (code, flunders) = raw.get(&format!("{WARDLE}/namespaces/default/flunders")).await?;
    ensure!(code == 200 && flunders["items"][0]["metadata"]["name"] == "kubernetes-admin", "{code} {flunders}");
    if let Some(kubectl) = cluster.kubectl() {
        let shown = kubectl.run(&["get", "apiservices"])?;
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let line = |name: &str| lines.iter().find(|l| l[0] == name).map(|l| l[1..3].to_vec());
        ensure!(line("v1.apps") == Some(vec!["Local", "True"]), "{shown}");
        ensure!(line("v1alpha1.wardle.example.com") == Some(vec!["default/wardle", "True"]), "{shown}");
        let resources = kubectl.run(&["api-resources", "--api-group=wardle.example.com", "-o", "name"])?;
        ensure!(resources.trim() == "flunders.wardle.example.com", "{resources}");
        let flunders = kubectl.run(&["get", "flunders", "-o", "name"])?;
        ensure!(flunders.trim() == "flunder.wardle.example.com/kubernetes-admin", "{flunders}");
    }
    Ok(())
}

/// Registers the API with the server at this address, and waits until it is available.
async fn aggregate(client: &kube::Client, address: IpAddr, port: u16, bundle: &str) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "wardle"}, "spec": {"ports": [{"port": 443, "targetPort": port}]},
    });
    create(client, &resource("", "v1", "Service"), Some("default"), service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "wardle", "labels": {"kubernetes.io/service-name": "wardle"}},
        "endpoints": [{"addresses": [address.to_string()]}], "ports": [{"name": "", "port": port}],
    });
    create(client, &resource("discovery.k8s.io", "v1", "EndpointSlice"), Some("default"), slice).await?;
    let name = "v1alpha1.wardle.example.com";
    let spec = json!({
        "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "service": {"namespace": "default", "name": "wardle", "port": 443}, "caBundle": bundle,
    });
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec,
    });
    let kind = resource("apiregistration.k8s.io", "v1", "APIService");
    create(client, &kind, None, object).await?;
    let services: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(services.watch(&params, "0").await?);
    let available = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                && object.data["status"]["conditions"][0]["reason"] == "Passed"
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_secs(30), available).await.context("the APIService becomes available")?
}
