//! A server with everything that decides who may, and clients that prove who they are by tokens.
#![allow(dead_code)] // Not every test binary uses all of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use knarr_apiserver::access::{Access, AccessConfig, TokenSources};
use knarr_apiserver::allocation::PortRange;
use knarr_apiserver::authentication::{TransportIdentity, User};
use knarr_apiserver::authorization::configuration::AuthorizationConfiguration;
use knarr_apiserver::bootstrap::Cluster;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::{ApiServer, Config, Registry};
use knarr_pki::{CertificateAuthority, TokenKey};
use knarr_store::Store;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

pub struct Guarded {
    pub api: ApiServer,
    pub access: Arc<Access>,
    pub directory: tempfile::TempDir,
    _stop: DropGuard,
}

/// An answer's code, headers and body.
pub type Answer = (u16, http::HeaderMap, Value);

/// Node and RBAC, as by default.
pub fn default_modes() -> AuthorizationConfiguration {
    AuthorizationConfiguration::of_modes(&["Node".into(), "RBAC".into()], None).expect("modes")
}

impl Guarded {
    pub async fn start(tokens: TokenSources, authorization: AuthorizationConfiguration) -> Guarded {
        let directory = tempfile::tempdir().expect("a directory");
        let store = knarr_store::Embedded::open(&directory.path().join("store")).expect("an empty store");
        Self::over(Arc::new(store), directory, tokens, authorization).await
    }

    pub async fn over(
        store: Arc<dyn Store>,
        directory: tempfile::TempDir,
        tokens: TokenSources,
        authorization: AuthorizationConfiguration,
    ) -> Guarded {
        Self::assemble(store, None, directory, tokens, authorization).await
    }

    /// One of several servers over the same store, that is reached at this address.
    pub async fn sharing(store: Arc<dyn Store>, address: &str) -> Guarded {
        let directory = tempfile::tempdir().expect("a directory");
        Self::assemble(store, Some(address), directory, TokenSources::default(), default_modes()).await
    }

    async fn assemble(
        store: Arc<dyn Store>,
        shared_at: Option<&str>,
        directory: tempfile::TempDir,
        tokens: TokenSources,
        authorization: AuthorizationConfiguration,
    ) -> Guarded {
        knarr_pki::install_crypto_provider();
        let stop = CancellationToken::new();
        let authority = CertificateAuthority::load_or_create(directory.path(), "ca", "ca").expect("an authority");
        let registry = Registry::open(store, shared_at.is_some(), stop.clone()).await.expect("a registry");
        let config = AccessConfig {
            issuer: "https://kubernetes.default.svc".into(),
            base_url: "https://192.0.2.1:6443".into(),
            audiences: Vec::new(),
            token_keys: vec![TokenKey::load_or_create(&directory.path().join("sa.key")).expect("a key")],
            client_roots: Arc::new(knarr_pki::root_store(authority.certificate_pem()).expect("roots")),
            front_proxy: None,
            anonymous: true,
            tokens,
            authorization,
            admission: Default::default(),
            service_cidr: "10.96.0.0/16".parse().expect("a network"),
            node_ports: PortRange::default(),
            cluster: Cluster {
                advertise_address: shared_at.unwrap_or("192.0.2.1").parse().expect("an address"),
                advertise_port: 6443,
                service_address: "10.96.0.1".parse().expect("an address"),
                service_cidr: "10.96.0.0/16".into(),
                client_ca: String::new(),
                request_header_ca: String::new(),
                request_header_allowed_names: Vec::new(),
                cluster_info_kubeconfig: String::new(),
            },
        };
        let access = Arc::new(Access::new(config, registry.clone()).expect("access"));
        let config = Config {
            authentication: access.authentication.clone(),
            authorization: access.authorization.clone(),
            hooks: Hooks {
                admission: access.admission.clone(),
                allocators: access.allocators.clone(),
                ..Hooks::default()
            },
            handlers: access.handlers.clone(),
            ..Config::default()
        };
        let api = ApiServer::new(config, registry);
        access.prepare().await.expect("the default objects");
        let (following, stopped) = (access.clone().run(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(following).await });
        access.synced().await;
        Guarded { api, access, directory, _stop: stop.drop_guard() }
    }

    /// Sends with these headers and no other proof.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send_as(None, method, target, headers, body).await
    }

    /// Sends as this user.
    pub async fn call(&self, user: User, method: &str, target: &str, body: &Value) -> Answer {
        self.send_as(Some(user), method, target, &[], body).await
    }

    pub async fn send_as(
        &self,
        user: Option<User>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut request = Request::builder().method(method.parse::<Method>().expect("a method")).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = request.header("content-type", "application/json").body(Full::new(body)).expect("a request");
        if let Some(user) = user {
            request.extensions_mut().insert(TransportIdentity(Arc::new(user)));
        }
        let response = self.api.service().oneshot(request).await.expect("the chain never fails");
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let value = serde_json::from_slice(&body);
        (code, headers, value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())))
    }

    /// Whom the server takes the bearer of a token for; the code of its refusal otherwise.
    pub async fn whoami(&self, token: &str) -> Result<Value, u16> {
        let review = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let bearer = format!("Bearer {token}");
        let target = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let (code, _, answer) = self.send("POST", target, &[("authorization", &bearer)], &review).await;
        if code == 201 { Ok(answer["status"]["userInfo"].clone()) } else { Err(code) }
    }
}

pub fn admin() -> User {
    User::new("admin", &["system:masters", "system:authenticated"])
}
