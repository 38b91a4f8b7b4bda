//! Who is asking.

pub mod bearer;
pub mod bootstrap_token;
mod chain;
pub mod configuration;
pub mod configured;
pub mod front_proxy;
pub mod impersonation;
pub mod legacy_token;
pub mod oidc;
pub mod service_account;
pub mod token;
pub mod token_file;
pub mod webhook;
pub mod x509;

pub use bearer::bearer_token;
pub use chain::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Anonymous, Chain, unauthorized};

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use knarr_api::StatusError;

/// An authenticated user, as authorization, admission and audit see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        User { name: name.into(), groups: groups.iter().map(|g| g.to_string()).collect(), ..User::default() }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Identity proven by the transport rather than by a header: a verified client certificate, or the in-memory transport.
/// The TLS acceptor and the in-memory client put it into the request's extensions; nothing that comes over the wire can.
#[derive(Clone, Debug)]
pub struct TransportIdentity(pub Arc<User>);

/// DER of the client certificates that the TLS handshake presented, leaf first; put into the request's extensions by the acceptor.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<Vec<Vec<u8>>>);

/// One way of authenticating. `Ok(None)`: no credentials of mine; the next may try. `Err`: bad credentials, 401.
#[async_trait::async_trait]
pub trait Authenticator: Send + Sync {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Arc<User>>, StatusError>;
}
