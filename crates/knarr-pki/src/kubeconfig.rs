use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::KeyedCertificate;

/// How a kubeconfig's user proves who it is.
#[derive(Clone)]
pub enum Credentials {
    Certificate(KeyedCertificate),
    Token(String),
}

/// A kubeconfig with one cluster, one user and one context.
pub struct Kubeconfig<'a> {
    /// `https://address:port`
    pub server: &'a str,
    pub authority_pem: &'a str,
    pub cluster: &'a str,
    pub user: &'a str,
    pub credentials: Credentials,
}

impl Kubeconfig<'_> {
    /// The file's text. JSON is YAML, and every client reads it as such; no YAML writer is needed.
    pub fn render(&self) -> String {
        let user = match &self.credentials {
            Credentials::Certificate(keyed) => json!({
                "client-certificate-data": STANDARD.encode(&keyed.certificate_pem),
                "client-key-data": STANDARD.encode(&keyed.key_pem),
            }),
            Credentials::Token(token) => json!({ "token": token }),
        };
        let context = format!("{}@{}", self.user, self.cluster);
        let config: Value = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {},
            "clusters": [{"name": self.cluster, "cluster": {
                "server": self.server, "certificate-authority-data": STANDARD.encode(self.authority_pem)}}],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{"name": context, "context": {"cluster": self.cluster, "user": self.user}}],
            "current-context": context,
        });
        format!("{config:#}\n")
    }
}
