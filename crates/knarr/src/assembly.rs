//! What the API server decides by, in upstream's order: who is asking, whether they may, and what becomes of what they write.

use std::sync::Arc;

use anyhow::{Context, Result};
use http::request::Parts;
use knarr_api::StatusError;
use knarr_api::object::ObjectExt;
use knarr_apiserver::allocation::{AddressRange, Allocator, PortRange, ServiceAllocator};
use knarr_apiserver::authentication::bootstrap_token::BootstrapTokens;
use knarr_apiserver::authentication::front_proxy::FrontProxy;
use knarr_apiserver::authentication::service_account::ServiceAccounts;
use knarr_apiserver::authentication::x509::{CertificateVerifier, ClientCertificates};
use knarr_apiserver::authentication::{self, Authenticator, User};
use knarr_apiserver::authorization::node::NodeAuthorizer;
use knarr_apiserver::authorization::rbac::{Rbac, Rule};
use knarr_apiserver::authorization::{self, Authorizer};
use knarr_apiserver::chain::access::Impersonator;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::tokens::{Discovery, Issuer};
use knarr_apiserver::{Config, bootstrap};
use tokio_util::task::TaskTracker;

use crate::credentials::{FRONT_PROXY_CLIENT, Pki};
use crate::settings::Settings;

/// The server's configuration. The watches that keep the authorizers current run among `tasks`, until the registry stops.
pub async fn config(settings: &Settings, pki: &Pki, objects: &Arc<dyn Objects>, tasks: &TaskTracker) -> Result<Config> {
    let issuer = Arc::new(issuer(settings, pki)?);
    let authorization = authorizers(objects, tasks);
    let services = Arc::new(ServiceAllocator::new(AddressRange::new(settings.service_cidr.into()), PortRange::default()));
    services.load(&**objects).await.context("reading the services' addresses")?;
    let allocators: Vec<Arc<dyn Allocator>> = vec![services];
    Ok(Config {
        authentication: authenticators(pki, objects, &issuer)?,
        hooks: Hooks { allocators, ..Hooks::default() },
        impersonator: Some(Arc::new(Impersonation(authorization.clone()))),
        authorization,
        server_address: settings.advertised().to_string(),
        ..Config::default()
    })
}

fn issuer(settings: &Settings, pki: &Pki) -> Result<Issuer> {
    let url = format!("https://kubernetes.default.svc.{}", settings.cluster_domain);
    Ok(Issuer::new(&url, vec![pki.token_key()?], Vec::new()))
}

fn authenticators(pki: &Pki, objects: &Arc<dyn Objects>, issuer: &Arc<Issuer>) -> Result<authentication::Chain> {
    let verifier = |pem: &str| -> Result<CertificateVerifier> {
        Ok(CertificateVerifier::new(Arc::new(knarr_pki::root_store(pem)?))?)
    };
    let front_proxy = FrontProxy {
        verifier: verifier(pki.front_proxy.certificate_pem())?,
        allowed_names: vec![FRONT_PROXY_CLIENT.into()],
    };
    let all: Vec<Arc<dyn Authenticator>> = vec![
        Arc::new(front_proxy),
        Arc::new(ClientCertificates { verifier: verifier(pki.authority.certificate_pem())? }),
        Arc::new(ServiceAccounts::new(issuer.clone(), objects.clone())),
        Arc::new(BootstrapTokens { objects: objects.clone(), audiences: issuer.audiences().to_vec() }),
    ];
    Ok(authentication::Chain::new(all, true))
}

fn authorizers(objects: &Arc<dyn Objects>, tasks: &TaskTracker) -> authorization::Chain {
    let rbac = Rbac::new();
    let nodes = NodeAuthorizer::new(node_rules());
    tasks.spawn(rbac.clone().run(objects.clone()));
    tasks.spawn(nodes.clone().run(objects.clone()));
    let all: Vec<Arc<dyn Authorizer>> = vec![nodes, rbac];
    authorization::Chain::new(all)
}

/// What every node may do: the default ClusterRole `system:node`.
fn node_rules() -> Vec<Rule> {
    let role = bootstrap::default_objects().find(|(resource, object)| &*resource.resource == "clusterroles" && object.name() == "system:node");
    role.map(|(_, role)| Rule::of_role(&role)).unwrap_or_default()
}

struct Impersonation(authorization::Chain);

#[async_trait::async_trait]
impl Impersonator for Impersonation {
    async fn impersonate(&self, request: &Parts, user: &Arc<User>) -> Result<Option<Arc<User>>, StatusError> {
        let acting = authentication::impersonation::impersonate(&request.headers, user, &self.0).await?;
        Ok((!Arc::ptr_eq(&acting, user)).then_some(acting))
    }
}
