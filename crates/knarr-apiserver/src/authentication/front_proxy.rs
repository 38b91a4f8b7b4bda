//! Headers of an authenticating proxy, believed only if its client certificate is of the front proxy's own authority.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use http::request::Parts;
use knarr_api::StatusError;
use percent_encoding::percent_decode_str;

use super::x509::CertificateVerifier;
use super::{Authenticator, PeerCertificates, User};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA_PREFIX: &str = "x-remote-extra-";

/// Authenticates by the headers of a trusted proxy.
pub struct FrontProxy {
    pub verifier: CertificateVerifier,
    /// Common names a proxy may have; empty for any.
    pub allowed_names: Vec<String>,
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_string).collect()
}

fn extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
        out.entry(key).or_default().extend(values(headers, name.as_str()));
    }
    out
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Arc<User>>, StatusError> {
        let headers = &request.headers;
        let Some(name) = values(headers, USER).into_iter().find(|n| !n.is_empty()) else { return Ok(None) };
        let Some(PeerCertificates(chain)) = request.extensions.get::<PeerCertificates>() else { return Ok(None) };
        // The certificate may be an ordinary client's, whose headers mean nothing.
        let Some(proxy) = self.verifier.verify(chain) else { return Ok(None) };
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&proxy.name) {
            return Ok(None);
        }
        let uid = values(headers, UID).into_iter().next().unwrap_or_default();
        Ok(Some(Arc::new(User { name, uid, groups: values(headers, GROUP), extra: extra(headers) })))
    }
}
