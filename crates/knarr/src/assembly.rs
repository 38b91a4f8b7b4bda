//! The API server's configuration: who is asking, whether they may, and what becomes of what they write.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::Response;
use http::request::Parts;
use knarr_apiserver::Config;
use knarr_apiserver::access::{Access, AccessConfig, TokenSources, WebhookSource};
use knarr_apiserver::admission::Selection;
use knarr_apiserver::allocation::PortRange;
use knarr_apiserver::authentication::configuration::{JwtAuthenticator, OidcFlags};
use knarr_apiserver::authentication::token_file::TokenFile;
use knarr_apiserver::authorization::configuration::{AuthorizationConfiguration, ConnectionInfo, WebhookConfiguration};
use knarr_apiserver::bootstrap::Cluster;
use knarr_apiserver::chain::request_info::RequestInfo;
use knarr_apiserver::health::HealthCheck;
use knarr_apiserver::http::Body;
use knarr_apiserver::jose::Algorithm;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::outbound;
use knarr_apiserver::pages::Page;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::tokens::Discovery;

use crate::control_plane::{CONTROLLERS, SCHEDULER};
use crate::credentials::{FRONT_PROXY_CLIENT, Pki};
use crate::logging;
use crate::settings::{AccessSaid, Settings, duration, read_file};
use crate::start_stages::StartStages;
use crate::tasks::Tasks;
use crate::watch_file::WatchedFile;

/// Upstream's names, groups and limits for this cluster.
pub fn access(settings: &Settings, pki: &Pki, objects: Arc<dyn Objects>) -> Result<Access> {
    let front_proxy = Arc::new(knarr_pki::root_store(pki.front_proxy.certificate_pem())?);
    let config = AccessConfig {
        issuer: format!("https://kubernetes.default.svc.{}", settings.cluster_domain),
        base_url: format!("https://{}", settings.advertised()),
        audiences: settings.access.api_audiences.clone().unwrap_or_default(),
        token_keys: vec![pki.token_key()?],
        client_roots: Arc::new(knarr_pki::root_store(pki.authority.certificate_pem())?),
        front_proxy: Some((front_proxy, vec![FRONT_PROXY_CLIENT.into()])),
        anonymous: settings.access.anonymous_auth.unwrap_or(true),
        tokens: tokens(&settings.access)?,
        authorization: authorization(&settings.access)?,
        admission: admission(&settings.access)?,
        service_cidr: settings.service_cidr.into(),
        node_ports: PortRange::default(),
        cluster: cluster(settings, pki),
    };
    Ok(Access::new(config, objects)?)
}

/// Which admission plug-ins run, by the flags.
fn admission(said: &AccessSaid) -> Result<Selection> {
    let names = |said: &Option<Vec<String>>| said.clone().unwrap_or_default();
    let selection = Selection::new(&names(&said.enable_admission_plugins), &names(&said.disable_admission_plugins));
    selection.map_err(|why| anyhow!(why))
}

/// Whose tokens are believed, by the flags.
fn tokens(said: &AccessSaid) -> Result<TokenSources> {
    let read = |flag: &str, path: &Option<PathBuf>| path.as_ref().map(|path| read_file(flag, path)).transpose();
    let file = read("token-auth-file", &said.token_auth_file)?.map(|text| TokenFile::parse(&text)).transpose();
    let webhook = said.authentication_token_webhook_config_file.as_ref().map(|path| {
        let ttl = said.authentication_token_webhook_cache_ttl.as_deref();
        Ok::<_, anyhow::Error>(WebhookSource {
            client: outbound::from_kubeconfig(path)?,
            version: said.authentication_token_webhook_version.clone().unwrap_or_else(|| "v1beta1".into()),
            cache_ttl: duration("authentication-token-webhook-cache-ttl", ttl, Duration::from_secs(120))?,
        })
    });
    Ok(TokenSources {
        file: file.map_err(|e| anyhow!("--token-auth-file: {e}"))?,
        configuration: read("authentication-config", &said.authentication_config)?,
        oidc: oidc(said)?,
        webhook: webhook.transpose().context("--authentication-token-webhook-config-file")?,
    })
}

fn oidc(said: &AccessSaid) -> Result<Option<(JwtAuthenticator, Vec<Algorithm>)>> {
    let (Some(issuer_url), Some(client_id)) = (said.oidc_issuer_url.clone(), said.oidc_client_id.clone()) else {
        return Ok(None);
    };
    let names = said.oidc_signing_algs.clone().unwrap_or_else(|| vec!["RS256".into()]);
    let algorithm =
        |name: &String| Algorithm::of_name(name).with_context(|| format!("oidc: unsupported signing alg: {name:?}"));
    let required = said.oidc_required_claim.iter().flatten().map(|claim| {
        let pair = claim.split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
        pair.with_context(|| format!("--oidc-required-claim {claim:?} is not of the form claim=value"))
    });
    let flags = OidcFlags {
        issuer_url,
        client_id,
        authority: said.oidc_ca_file.as_ref().map_or(Ok(String::new()), |path| read_file("oidc-ca-file", path))?,
        username_claim: said.oidc_username_claim.clone().unwrap_or_default(),
        username_prefix: said.oidc_username_prefix.clone().unwrap_or_default(),
        groups_claim: said.oidc_groups_claim.clone().unwrap_or_default(),
        groups_prefix: said.oidc_groups_prefix.clone().unwrap_or_default(),
        required_claims: required.collect::<Result<_>>()?,
    };
    Ok(Some((flags.into_authenticator(), names.iter().map(algorithm).collect::<Result<_>>()?)))
}

fn authorization(said: &AccessSaid) -> Result<AuthorizationConfiguration> {
    if let Some(path) = &said.authorization_config {
        let text = read_file("authorization-config", path)?;
        return AuthorizationConfiguration::parse(&text).map_err(|e| anyhow!("--authorization-config: {e}"));
    }
    let webhook = said.authorization_webhook_config_file.as_ref().map(|path| WebhookConfiguration {
        authorized_ttl: said.authorization_webhook_cache_authorized_ttl.clone().unwrap_or_default(),
        unauthorized_ttl: said.authorization_webhook_cache_unauthorized_ttl.clone().unwrap_or_default(),
        timeout: "30s".into(),
        subject_access_review_version: said.authorization_webhook_version.clone().unwrap_or_else(|| "v1beta1".into()),
        failure_policy: "NoOpinion".into(),
        connection_info: ConnectionInfo {
            kind: "KubeConfigFile".into(),
            kube_config_file: Some(path.display().to_string()),
        },
        ..WebhookConfiguration::default()
    });
    let modes = said.authorization_mode.clone().unwrap_or_else(|| vec!["Node".into(), "RBAC".into()]);
    AuthorizationConfiguration::of_modes(&modes, webhook).map_err(|e| anyhow!(e))
}

/// Follows the configuration files that may change while the server runs.
pub fn follow_files(settings: &Settings, access: &Arc<Access>, tasks: &Tasks) -> Result<()> {
    let said = &settings.access;
    if let Some(path) = &said.authentication_config {
        let mut file = WatchedFile::new(path, read_file("authentication-config", path)?);
        let (access, stop) = (access.clone(), tasks.stop.clone());
        let following = async move {
            loop {
                match access.reload_authentication(&file.changed().await).await {
                    Ok(()) => tracing::info!("reloaded authentication config"),
                    Err(error) => tracing::error!(error, "the changed authentication config is not used"),
                }
            }
        };
        tasks.spawn(
            "authentication config",
            async move { stop.run_until_cancelled(following).await.unwrap_or_default() },
        );
    }
    if let Some(path) = &said.authorization_config {
        let mut file = WatchedFile::new(path, read_file("authorization-config", path)?);
        let (access, stop) = (access.clone(), tasks.stop.clone());
        let following = async move {
            loop {
                match access.reload_authorization(&file.changed().await) {
                    Ok(()) => tracing::info!("reloaded authz config"),
                    Err(error) => tracing::error!(error, "the changed authz config is not used"),
                }
            }
        };
        tasks.spawn(
            "authorization config",
            async move { stop.run_until_cancelled(following).await.unwrap_or_default() },
        );
    }
    Ok(())
}

fn cluster(settings: &Settings, pki: &Pki) -> Cluster {
    let endpoint = settings.endpoint();
    Cluster {
        advertise_address: endpoint.ip(),
        advertise_port: endpoint.port(),
        service_address: IpAddr::V4(settings.service_address(1)),
        service_cidr: settings.service_cidr.to_string(),
        client_ca: pki.authority.certificate_pem().to_string(),
        request_header_ca: pki.front_proxy.certificate_pem().to_string(),
        request_header_allowed_names: vec![FRONT_PROXY_CLIENT.into()],
        cluster_info_kubeconfig: pki.cluster_info(settings),
    }
}

/// The server that `access` decides for.
pub fn config(
    settings: &Settings,
    pki: &Pki,
    access: &Access,
    checks: Vec<HealthCheck>,
    stages: &StartStages,
    tasks: &Tasks,
) -> Result<Config> {
    let kubelet_client = knarr_pki::client_config(pki.authority.certificate_pem(), Some(&pki.kubelet_client))?;
    Ok(Config {
        authentication: access.authentication.clone(),
        authorization: access.authorization.clone(),
        hooks: Hooks { admission: access.admission.clone(), allocators: access.allocators.clone(), ..Hooks::default() },
        handlers: access.handlers.clone(),
        pages: vec![Arc::new(TokenKeys(access.discovery.clone()))],
        kubelet_client: Some(kubelet_client),
        front_proxy_client: Some(pki.front_proxy_client.clone()),
        server_address: settings.advertised().to_string(),
        checks: std::iter::once(logging::check()).chain(checks).chain(stages.checks()).collect(),
        components: components(settings, tasks),
        limits: settings.serving.limits.clone(),
        audit: settings.serving.audit()?,
        cors_origins: settings.serving.cors_origins.clone(),
        flags: settings.flags.clone(),
        meters: knarr_encryption::kms::metrics::collectors(),
        leaving: tasks.leaving.clone(),
        retry_after_stop: settings.serving.shutdown_send_retry_after.then(|| tasks.stop.clone()),
    })
}

/// The control loops of this server, under the names that `componentstatuses` gives them.
fn components(settings: &Settings, tasks: &Tasks) -> Vec<HealthCheck> {
    let scheduler = settings.controllers.has_scheduler().then_some(("scheduler", SCHEDULER));
    let part = |(name, task): (&str, &'static str)| {
        let tasks = tasks.clone();
        HealthCheck::new(name, false, move || match tasks.is_running(task) {
            true => Ok(()),
            false => Err("it does not run".into()),
        })
    };
    [("controller-manager", CONTROLLERS)].into_iter().chain(scheduler).map(part).collect()
}

/// The documents by which others check service-account tokens.
struct TokenKeys(Discovery);

#[async_trait::async_trait]
impl Page for TokenKeys {
    async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>> {
        self.0.serve(info, parts).await
    }
}
