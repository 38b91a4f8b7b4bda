//! Everything that decides who may do what, put together: authenticators, authorizers, admission, allocators and the special
//! endpoints, all over one view of the stored objects.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::IpNet;
use knarr_api::StatusError;
use knarr_pki::TokenKey;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::VerifierBuilderError;

use crate::admission::{self, Plugin};
use crate::allocation::{AddressRange, Allocator, PortRange, ServiceAllocator};
use crate::authentication::bearer::Bearer;
use crate::authentication::bootstrap_token::BootstrapTokens;
use crate::authentication::configuration::JwtAuthenticator;
use crate::authentication::configured::Configured;
use crate::authentication::front_proxy::FrontProxy;
use crate::authentication::legacy_token::LegacyTokens;
use crate::authentication::service_account::ServiceAccounts;
use crate::authentication::token::TokenAuthenticator;
use crate::authentication::token_file::TokenFile;
use crate::authentication::webhook::TokenWebhook;
use crate::authentication::x509::{CertificateVerifier, ClientCertificates};
use crate::authentication::{self, Authenticator};
use crate::authorization;
use crate::authorization::configuration::{AuthorizationConfiguration, Standing};
use crate::authorization::node::NodeAuthorizer;
use crate::authorization::rbac::{Rbac, Rule};
use crate::bootstrap;
use crate::jose::Algorithm;
use crate::objects::Objects;
use crate::outbound::{Client, Outbound};
use crate::subresources::{
    AccessReviews, Bindings, Evictions, Handler, Handlers, RulesReviews, SelfSubjectReviews, TokenReviews,
};
use crate::tokens::{Discovery, Issuer, TokenRequestHandler};

/// What differs from cluster to cluster.
pub struct AccessConfig {
    /// `iss` of service-account tokens, and their audience unless `audiences` says otherwise.
    pub issuer: String,
    /// Where clients reach the API server, for the discovery documents: `https://host:port`.
    pub base_url: String,
    pub audiences: Vec<String>,
    /// The first signs; all are accepted. Must not be empty.
    pub token_keys: Vec<TokenKey>,
    /// What client certificates are checked against. Must not be empty.
    pub client_roots: Arc<RootCertStore>,
    /// What front proxies' certificates are checked against, and the names they may have.
    pub front_proxy: Option<(Arc<RootCertStore>, Vec<String>)>,
    /// Whether requests without credentials are `system:anonymous`, where the authentication configuration says nothing of it.
    pub anonymous: bool,
    pub tokens: TokenSources,
    /// The authorizers in their order.
    pub authorization: AuthorizationConfiguration,
    /// Which admission plug-ins run.
    pub admission: admission::Selection,
    pub service_cidr: IpNet,
    pub node_ports: PortRange,
    /// The default objects' contents.
    pub cluster: bootstrap::Cluster,
}

/// Whose bearer tokens are believed, beside the cluster's own.
#[derive(Default)]
pub struct TokenSources {
    /// Of `--token-auth-file`.
    pub file: Option<TokenFile>,
    /// The text of an `AuthenticationConfiguration`.
    pub configuration: Option<String>,
    /// Of the `--oidc-*` flags.
    pub oidc: Option<(JwtAuthenticator, Vec<Algorithm>)>,
    /// A service that is asked about tokens that nobody else knows.
    pub webhook: Option<WebhookSource>,
}

/// Of the `--authentication-token-webhook-*` flags.
pub struct WebhookSource {
    pub client: Client,
    /// `v1` or `v1beta1`.
    pub version: String,
    pub cache_ttl: Duration,
}

/// Why a server cannot decide who may.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("client certificate authorities: {0}")]
    Authorities(#[from] VerifierBuilderError),
    #[error("authentication configuration: {0}")]
    Authentication(String),
    #[error("authorization configuration: {0}")]
    Authorization(String),
}

/// The parts, ready to be given to the server.
pub struct Access {
    pub authentication: authentication::Chain,
    pub authorization: authorization::Chain,
    pub admission: admission::Chain,
    pub handlers: Handlers,
    pub allocators: Vec<Arc<dyn Allocator>>,
    pub discovery: Discovery,
    /// Its authorities may be replaced while the server serves.
    pub client_certificates: Arc<ClientCertificates>,
    objects: Arc<dyn Objects>,
    configured: Arc<Configured>,
    /// What the authorizers were last made from.
    authorizers: Mutex<AuthorizationConfiguration>,
    rbac: Arc<Rbac>,
    node: Arc<NodeAuthorizer>,
    services: ServiceAllocator,
    cluster: bootstrap::Cluster,
}

impl Access {
    pub fn new(config: AccessConfig, objects: Arc<dyn Objects>) -> Result<Self, AccessError> {
        let issuer = Arc::new(Issuer::new(&config.issuer, config.token_keys, config.audiences));
        let discovery = Discovery::new(&issuer, &config.base_url);
        let configured = Arc::new(Configured::new(vec![config.issuer], config.anonymous));
        let bearer = Arc::new(bearer(config.tokens, &issuer, &configured, &objects)?);

        let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
        if let Some((roots, allowed_names)) = config.front_proxy {
            authenticators.push(Arc::new(FrontProxy { verifier: CertificateVerifier::new(roots)?, allowed_names }));
        }
        let client_certificates =
            Arc::new(ClientCertificates { verifier: CertificateVerifier::new(config.client_roots)? });
        authenticators.push(client_certificates.clone());
        authenticators.push(bearer.clone());

        let rbac = Rbac::new();
        let node = NodeAuthorizer::new(node_rules());
        let standing = Standing { node: node.clone(), rbac: rbac.clone() };
        let authorizers = config.authorization.build(&standing).map_err(AccessError::Authorization)?;
        let authorization = authorization::Chain::new(authorizers);
        let mut plugins = plugins(&objects, &authorization, &rbac);
        plugins.retain(|plugin| config.admission.runs(&**plugin));
        let admission = admission::Chain::new(plugins);
        let range = AddressRange::new(config.service_cidr);
        let services = ServiceAllocator::new(range, config.node_ports, objects.clone());
        let endpoints = Endpoints { objects: &objects, authorization: &authorization };
        Ok(Access {
            authentication: authentication::Chain::new(authenticators, configured.anonymous()),
            handlers: endpoints.handlers(&issuer, bearer),
            allocators: vec![Arc::new(services.clone())],
            client_certificates,
            authorization,
            admission,
            discovery,
            objects,
            configured,
            authorizers: Mutex::new(config.authorization),
            rbac,
            node,
            services,
            cluster: config.cluster,
        })
    }

    /// Takes a changed `AuthenticationConfiguration` once its issuers answer; the old one holds until then, and where it fails.
    pub fn reload_authentication<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.configured.reload(text))
    }

    /// Takes a changed `AuthorizationConfiguration`; the old one holds where it fails.
    pub fn reload_authorization(&self, text: &str) -> Result<(), String> {
        let config = AuthorizationConfiguration::parse(text)?;
        let mut current = self.authorizers.lock();
        let missing = current.missing_in(&config);
        if !missing.is_empty() {
            return Err(format!("missing required types: {}", missing.join(", ")));
        }
        let standing = Standing { node: self.node.clone(), rbac: self.rbac.clone() };
        self.authorization.replace(config.build(&standing)?);
        *current = config;
        Ok(())
    }

    /// Makes the default objects and learns which numbers are taken. Before the first request is served, and after the registry
    /// has been given its hooks.
    pub fn prepare(&self) -> BoxFuture<'_, Result<(), StatusError>> {
        Box::pin(async move {
            self.services.load().await?;
            bootstrap::run(&self.objects, &self.cluster).await
        })
    }

    /// Follows what the authorizers decide by, the addresses of services and the servers that live, until the registry shuts down.
    pub fn run(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::join!(
                self.rbac.clone().run(self.objects.clone()),
                self.node.clone().run(self.objects.clone()),
                self.services.run(),
                bootstrap::follow_servers(&self.objects, &self.cluster),
            );
        })
    }

    /// Says that this server serves no more. After [`Access::run`] has ended.
    pub fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = bootstrap::leave(&self.objects, &self.cluster).await {
                tracing::warn!(%error, "cannot say that this server ends");
            }
        })
    }

    /// Returns once [`Access::run`] has caught up with what was stored.
    pub fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::join!(self.rbac.synced(), self.node.synced());
        })
    }
}

/// Everybody's tokens, in upstream's order.
fn bearer(
    sources: TokenSources,
    issuer: &Arc<Issuer>,
    configured: &Arc<Configured>,
    objects: &Arc<dyn Objects>,
) -> Result<Bearer, AccessError> {
    let audiences = issuer.audiences().to_vec();
    let mut authenticators: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(file) = sources.file {
        authenticators.push(Arc::new(file));
    }
    authenticators.push(Arc::new(ServiceAccounts::new(issuer.clone(), objects.clone())));
    let keys = issuer.public_keys();
    authenticators.push(Arc::new(LegacyTokens { keys, objects: objects.clone(), audiences: audiences.clone() }));
    authenticators.push(Arc::new(BootstrapTokens { objects: objects.clone(), audiences: audiences.clone() }));
    if let Some((oidc, algorithms)) = sources.oidc {
        configured.set_oidc(&oidc, &algorithms).map_err(AccessError::Authentication)?;
    }
    if let Some(text) = sources.configuration {
        configured.load(&text).map_err(AccessError::Authentication)?;
    }
    authenticators.push(configured.clone());
    if let Some(webhook) = sources.webhook {
        let WebhookSource { client, version, cache_ttl } = webhook;
        authenticators.push(Arc::new(TokenWebhook::new(client, &version, cache_ttl, audiences.clone())));
    }
    Ok(Bearer { authenticators, audiences })
}

/// What upstream's default role for nodes allows.
fn node_rules() -> Vec<Rule> {
    use knarr_api::object::ObjectExt;
    let mut roles =
        bootstrap::default_objects().filter(|(r, o)| r.resource == "clusterroles" && o.name() == "system:node");
    roles.next().map(|(_, role)| Rule::of_role(&role)).unwrap_or_default()
}

/// Upstream's default plug-ins in upstream's order.
fn plugins(objects: &Arc<dyn Objects>, authorizer: &authorization::Chain, rbac: &Arc<Rbac>) -> Vec<Arc<dyn Plugin>> {
    let outbound = Outbound::new(objects.clone());
    let stored = objects;
    let objects = || stored.clone();
    let authorizer = || authorizer.clone();
    vec![
        Arc::new(admission::NamespaceLifecycle { objects: objects() }),
        Arc::new(admission::LimitRanger { objects: objects() }),
        Arc::new(admission::ServiceAccount { objects: objects() }),
        Arc::new(admission::NodeRestriction { objects: objects(), authorizer: authorizer() }),
        Arc::new(admission::TaintNodesByCondition),
        Arc::new(admission::PodSecurity { objects: objects() }),
        Arc::new(admission::Priority { objects: objects() }),
        Arc::new(admission::DefaultTolerationSeconds),
        Arc::new(admission::DefaultStorageClass { objects: objects() }),
        Arc::new(admission::StorageObjectInUseProtection),
        Arc::new(admission::PersistentVolumeClaimResize { objects: objects() }),
        Arc::new(admission::RuntimeClass { objects: objects() }),
        Arc::new(admission::CertificateApproval { authorizer: authorizer() }),
        Arc::new(admission::CertificateSigning { authorizer: authorizer() }),
        Arc::new(admission::ClusterTrustBundleAttest { authorizer: authorizer() }),
        Arc::new(admission::CertificateSubjectRestriction),
        Arc::new(admission::DefaultIngressClass { objects: objects() }),
        Arc::new(admission::PodTopologyLabels { objects: objects() }),
        Arc::new(admission::NodeDeclaredFeatureValidator { objects: objects() }),
        Arc::new(admission::PodResizeValidator { objects: objects() }),
        Arc::new(admission::RbacEscalation { rbac: rbac.clone(), authorizer: authorizer() }),
        Arc::new(admission::MutatingAdmissionPolicy::new(stored, authorizer())),
        Arc::new(admission::MutatingAdmissionWebhook::new(stored, &outbound, authorizer())),
        Arc::new(admission::ValidatingAdmissionPolicy::new(stored, authorizer())),
        Arc::new(admission::ValidatingAdmissionWebhook::new(stored, &outbound, authorizer())),
        Arc::new(admission::ResourceQuota { objects: objects() }),
    ]
}

/// What the special endpoints are made of.
struct Endpoints<'a> {
    objects: &'a Arc<dyn Objects>,
    authorization: &'a authorization::Chain,
}

impl Endpoints<'_> {
    fn handlers(&self, issuer: &Arc<Issuer>, bearer: Arc<Bearer>) -> Handlers {
        let objects = || self.objects.clone();
        let bindings: Arc<dyn Handler> = Arc::new(Bindings { objects: objects() });
        let access: Arc<dyn Handler> = Arc::new(AccessReviews { authorizer: self.authorization.clone() });
        let audiences = issuer.audiences().to_vec();
        let token = TokenRequestHandler { issuer: issuer.clone(), objects: objects() };
        let mut handlers = Handlers::default();
        handlers.add("", "bindings", "", bindings.clone());
        handlers.add("", "pods", "binding", bindings);
        handlers.add("", "pods", "eviction", Arc::new(Evictions { objects: objects() }));
        handlers.add("", "serviceaccounts", "token", Arc::new(token));
        handlers.add("authentication.k8s.io", "selfsubjectreviews", "", Arc::new(SelfSubjectReviews));
        let reviews = TokenReviews { authenticator: bearer, audiences };
        handlers.add("authentication.k8s.io", "tokenreviews", "", Arc::new(reviews));
        for resource in ["subjectaccessreviews", "selfsubjectaccessreviews", "localsubjectaccessreviews"] {
            handlers.add("authorization.k8s.io", resource, "", access.clone());
        }
        let rules = RulesReviews { authorizer: self.authorization.clone() };
        handlers.add("authorization.k8s.io", "selfsubjectrulesreviews", "", Arc::new(rules));
        handlers
    }
}

#[cfg(test)]
mod tests;
