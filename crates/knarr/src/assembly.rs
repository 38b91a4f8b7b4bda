//! The API server's configuration: who is asking, whether they may, and what becomes of what they write.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use http::Response;
use http::request::Parts;
use knarr_apiserver::Config;
use knarr_apiserver::access::{Access, AccessConfig};
use knarr_apiserver::allocation::PortRange;
use knarr_apiserver::bootstrap::Cluster;
use knarr_apiserver::chain::request_info::RequestInfo;
use knarr_apiserver::http::Body;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::pages::Page;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::tokens::Discovery;

use crate::credentials::{FRONT_PROXY_CLIENT, Pki};
use crate::settings::Settings;

/// Upstream's names, groups and limits for this cluster.
pub fn access(settings: &Settings, pki: &Pki, objects: Arc<dyn Objects>) -> Result<Access> {
    let front_proxy = Arc::new(knarr_pki::root_store(pki.front_proxy.certificate_pem())?);
    let config = AccessConfig {
        issuer: format!("https://kubernetes.default.svc.{}", settings.cluster_domain),
        base_url: format!("https://{}", settings.advertised()),
        audiences: Vec::new(),
        token_keys: vec![pki.token_key()?],
        client_roots: Arc::new(knarr_pki::root_store(pki.authority.certificate_pem())?),
        front_proxy: Some((front_proxy, vec![FRONT_PROXY_CLIENT.into()])),
        anonymous: true,
        service_cidr: settings.service_cidr.into(),
        node_ports: PortRange::default(),
        cluster: cluster(settings, pki),
    };
    Ok(Access::new(config, objects)?)
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
pub fn config(settings: &Settings, pki: &Pki, access: &Access) -> Result<Config> {
    let kubelet_client = knarr_pki::client_config(pki.authority.certificate_pem(), Some(&pki.kubelet_client))?;
    Ok(Config {
        authentication: access.authentication.clone(),
        authorization: access.authorization.clone(),
        hooks: Hooks { admission: access.admission.clone(), allocators: access.allocators.clone() },
        handlers: access.handlers.clone(),
        pages: vec![Arc::new(TokenKeys(access.discovery.clone()))],
        kubelet_client: Some(kubelet_client),
        front_proxy_client: Some(pki.front_proxy_client.clone()),
        server_address: settings.advertised().to_string(),
        ..Config::default()
    })
}

/// The documents by which others check service-account tokens.
struct TokenKeys(Discovery);

#[async_trait::async_trait]
impl Page for TokenKeys {
    async fn serve(&self, info: &RequestInfo, _: &Parts) -> Option<Response<Body>> {
        let (document, content_type) = self.0.document(&info.path)?;
        Response::builder().header("content-type", content_type).body(Body::from(document)).ok()
    }
}
