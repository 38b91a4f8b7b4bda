//! Who is who in a cluster: its authorities and the certificates its parts show each other.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use knarr_pki::{
    CertificateAuthority, CertificateRequest, Credentials, KeyedCertificate, Kubeconfig, TokenKey, write_private,
};

use crate::layout::Layout;
use crate::settings::Settings;

/// The name of the cluster in kubeconfigs.
const CLUSTER: &str = "knarr";

/// The name by which the API server, as an authenticating proxy, is known to aggregated servers.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// The name by which the kubelets know the API server; what it may do is upstream's role `system:kubelet-api-admin`.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Every key of the cluster.
pub struct Pki {
    /// Issues and verifies the cluster's own certificates.
    pub authority: Arc<CertificateAuthority>,
    /// Issues the certificates of authenticating proxies.
    pub front_proxy: CertificateAuthority,
    /// What the API server shows its clients.
    pub serving: KeyedCertificate,
    /// What the API server shows aggregated servers.
    pub front_proxy_client: KeyedCertificate,
    /// What the API server shows the kubelets.
    pub kubelet_client: KeyedCertificate,
    /// What this machine's kubelet shows its clients.
    pub kubelet_serving: KeyedCertificate,
    administrator: KeyedCertificate,
    directory: std::path::PathBuf,
}

/// Files that may be replaced while the server serves.
#[derive(PartialEq, Eq)]
pub struct Reread {
    pub serving: KeyedCertificate,
    /// PEM of what client certificates are checked against; may hold several.
    pub authority_pem: String,
    pub front_proxy_pem: String,
}

impl Pki {
    /// What the data directory has, completed and renewed.
    pub fn load_or_create(settings: &Settings, layout: &Layout) -> Result<Pki> {
        let directory = layout.pki();
        let authority = CertificateAuthority::load_or_create(&directory, "ca", "kubernetes")?;
        let front_proxy = CertificateAuthority::load_or_create(&directory, "front-proxy-ca", "front-proxy-ca")?;
        let of = |name: &str, request| authority.load_or_issue(&directory, name, &request);
        let serving = of("apiserver", api_server(settings))?;
        let administrator = of("admin", CertificateRequest::client("kubernetes-admin", &["system:masters"]))?;
        let kubelet_client = of("apiserver-kubelet-client", CertificateRequest::client(KUBELET_CLIENT, &[]))?;
        let node = format!("system:node:{}", settings.node_name);
        let addresses = vec![IpAddr::V4(settings.node_ip)];
        let mut kubelet = CertificateRequest::server(&node, vec![settings.node_name.clone()], addresses);
        kubelet.organizations = vec!["system:nodes".into()];
        let kubelet_serving = of("kubelet", kubelet)?;
        let front_proxy_client = front_proxy.load_or_issue(
            &directory,
            FRONT_PROXY_CLIENT,
            &CertificateRequest::client(FRONT_PROXY_CLIENT, &[]),
        )?;
        let authority = Arc::new(authority);
        Ok(Pki {
            serving,
            front_proxy_client,
            kubelet_client,
            kubelet_serving,
            administrator,
            authority,
            front_proxy,
            directory,
        })
    }

    /// The authorities whose client certificates the handshake accepts; which of them vouches for whom is told apart later.
    pub fn client_authorities(&self) -> String {
        format!("{}{}", self.authority.certificate_pem(), self.front_proxy.certificate_pem())
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the API server is reached and vouched by, as the files have it now.
    pub fn reread(directory: &Path) -> Result<Reread> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let serving = KeyedCertificate { certificate_pem: read("apiserver.crt")?, key_pem: read("apiserver.key")? };
        Ok(Reread { serving, authority_pem: read("ca.crt")?, front_proxy_pem: read("front-proxy-ca.crt")? })
    }

    /// The key that signs service-account tokens.
    pub fn token_key(&self) -> Result<TokenKey> {
        Ok(TokenKey::load_or_create(&self.directory.join("sa.key"))?)
    }

    /// Written last, once the API answers: who waits for the file may use it.
    pub fn write_admin_kubeconfig(&self, settings: &Settings) -> Result<()> {
        let text = Kubeconfig {
            server: &format!("https://{}", settings.advertised()),
            authority_pem: self.authority.certificate_pem(),
            cluster: CLUSTER,
            user: "kubernetes-admin",
            credentials: Credentials::Certificate(self.administrator.clone()),
        }
        .render();
        write_private(&settings.kubeconfig, &text).with_context(|| settings.kubeconfig.display().to_string())
    }

    /// A kubeconfig without a user, for the public `cluster-info` ConfigMap.
    pub fn cluster_info(&self, settings: &Settings) -> String {
        let server = format!("https://{}", settings.advertised());
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "contexts": [], "users": [], "current-context": "", "preferences": {},
            "clusters": [{"name": "", "cluster": {"server": server,
                "certificate-authority-data": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.authority.certificate_pem())}}],
        })
        .to_string()
    }
}

/// The names and addresses under which clients reach the API server.
fn api_server(settings: &Settings) -> CertificateRequest {
    let domain = &settings.cluster_domain;
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_string).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(settings.node_name.clone());
    let mut addresses = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::V4(settings.service_address(1)),
        IpAddr::V4(settings.node_ip),
        settings.advertised().ip(),
    ];
    addresses.dedup();
    CertificateRequest::server("kube-apiserver", names, addresses)
}
