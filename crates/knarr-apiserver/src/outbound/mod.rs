//! Calls that the API server makes to others: webhooks of admission, conversion, authentication, authorization and audit, and
//! aggregated API servers.
//!
//! The way of a call: a [`Target`] (a URL, or a service whose endpoints [`resolve`] finds at the moment of connecting, with what TLS
//! must prove) becomes a [`Client`] with connections that are used again; [`Client::post`] sends one JSON document and reads one.
//! What fails is a [`CallError`] whose text is upstream's.
//!
//! Invariants: a call has a deadline and a limit to what it reads; TLS is always verified unless its target says otherwise; nothing
//! of a client's request is passed on that the caller did not put there.

mod client;
mod connect;
mod error;
mod kubeconfig;
pub mod resolve;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use foldhash::fast::RandomState;
use knarr_pki::KeyedCertificate;
use parking_lot::Mutex;
use serde_json::Value;

pub use client::{Client, Limits};
pub use error::{CallError, CallingWebhook, OpenError, Unreachable};
pub use kubeconfig::from_kubeconfig;

use crate::objects::Objects;

/// Clients kept for targets that are called again, as upstream.
const CACHED_CLIENTS: usize = 200;

/// A service as webhook configurations and APIServices name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl ServiceReference {
    /// The name that the server's certificate must be for.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// How to get to the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// By name or address. Without TLS only where a kubeconfig says `http://`.
    Direct { https: bool, host: String, port: u16 },
    /// To a ready endpoint of a service, found anew for every connection.
    Service(ServiceReference),
}

/// What TLS must prove, and with what this server proves itself.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// PEM; the system's own where empty.
    pub authorities: String,
    /// Any certificate will do.
    pub insecure: bool,
    /// The name to verify, where it is not the route's own.
    pub server_name: Option<String>,
    /// This server's client certificate and key, PEM.
    pub identity: Option<(String, String)>,
}

impl TlsOptions {
    pub fn with_identity(mut self, identity: &KeyedCertificate) -> Self {
        self.identity = Some((identity.certificate_pem.clone(), identity.key_pem.clone()));
        self
    }
}

/// A server and the path at which it is called.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub route: Route,
    /// Empty, or with its leading slash.
    pub path: String,
    pub tls: TlsOptions,
}

impl Target {
    /// Reads the `clientConfig` of a webhook configuration or of a custom resource's conversion: `url` or `service`, and `caBundle`.
    pub fn of_client_config(config: &Value) -> Result<Target, OpenError> {
        let authorities = authorities(&config["caBundle"])?;
        let tls = TlsOptions { authorities, ..TlsOptions::default() };
        if let Some(service) = config.get("service").filter(|s| s.is_object()) {
            let path = service["path"].as_str().unwrap_or_default();
            return Ok(Target { route: Route::Service(service_reference(service)), path: path.into(), tls });
        }
        match config["url"].as_str().filter(|url| !url.is_empty()) {
            Some(url) => Target::of_url(url, tls),
            None => Err(OpenError::Nowhere),
        }
    }

    /// A target by URL.
    pub fn of_url(url: &str, tls: TlsOptions) -> Result<Target, OpenError> {
        let parsed = url::Url::parse(url).map_err(|error| OpenError::Url(error.to_string()))?;
        let https = match parsed.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(OpenError::Url(format!("unsupported protocol scheme \"{other}\""))),
        };
        let host = parsed.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| OpenError::Url("no Host in request URL".into()))?.to_string();
        let port = parsed.port().unwrap_or(if https { 443 } else { 80 });
        let path = if parsed.path() == "/" && !url.ends_with('/') { "" } else { parsed.path() };
        Ok(Target { route: Route::Direct { https, host, port }, path: path.to_string(), tls })
    }

    /// A service at the root of its paths, as an APIService names it.
    pub fn of_service(service: ServiceReference, tls: TlsOptions) -> Target {
        Target { route: Route::Service(service), path: String::new(), tls }
    }
}

/// The `service` of a client configuration; port 443 where it names none.
pub fn service_reference(service: &Value) -> ServiceReference {
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_string();
    let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(443);
    ServiceReference { namespace: text("namespace"), name: text("name"), port }
}

/// A `caBundle`, base64 of PEM, as PEM.
pub fn authorities(bundle: &Value) -> Result<String, OpenError> {
    let Some(text) = bundle.as_str().filter(|t| !t.is_empty()) else { return Ok(String::new()) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let pem = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pem.ok_or_else(|| OpenError::Authorities("the bundle is no PEM".into()))
}

/// The maker and keeper of clients. Clones share everything.
#[derive(Clone)]
pub struct Outbound {
    objects: Arc<dyn Objects>,
    clients: Arc<Mutex<HashMap<Target, Client, RandomState>>>,
}

impl Outbound {
    /// Finds services and their endpoints in `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Outbound { objects, clients: Arc::default() }
    }

    /// The client for a target; one with open connections if the target was called before. Fails where a certificate cannot be
    /// read.
    pub fn client(&self, target: &Target) -> Result<Client, OpenError> {
        if let Some(client) = self.clients.lock().get(target) {
            return Ok(client.clone());
        }
        let client = Client::open(target, Some(self.objects.clone()))?;
        let mut clients = self.clients.lock();
        if clients.len() >= CACHED_CLIENTS {
            // Old configurations leave no trace; those in use are back with their next call.
            clients.clear();
        }
        Ok(clients.entry(target.clone()).or_insert(client).clone())
    }

    /// Where a service's next connection would go.
    pub async fn resolve(&self, service: &ServiceReference) -> Result<(String, u16), knarr_api::StatusError> {
        resolve::endpoint(&*self.objects, service).await
    }
}

/// How often and after what pause a failed call is tried again, as upstream's webhooks of authentication and authorization: five
/// times, each pause half as long again as the one before.
pub async fn with_backoff<T, F>(initial: Duration, mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    const STEPS: usize = 5;
    let mut pause = initial;
    for _ in 1..STEPS {
        match call().await {
            Err(error) if error.is_transient() => tracing::debug!(%error, "calling again"),
            done => return done,
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.5);
    }
    call().await
}
