//! Client certificates: the common name is the user, the organizations are the groups.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use knarr_api::StatusError;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Authenticator, PeerCertificates, User, unauthorized};
use crate::tokens::now;

/// Certificates remembered as verified, so that a connection's requests do not each verify a chain.
const REMEMBERED: usize = 4096;

/// Checks certificates against one certificate authority. The handshake has proven that the peer holds the key; this proves
/// that the authority vouches for it.
pub struct CertificateVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// By leaf: when its validity ends, and whom it names.
    verified: Mutex<HashMap<Vec<u8>, Verified>>,
}

type Verified = (i64, Arc<User>);

impl CertificateVerifier {
    /// An error if the roots are empty.
    pub fn new(roots: Arc<RootCertStore>) -> Result<Self, rustls::server::VerifierBuilderError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        Ok(CertificateVerifier { verifier, verified: Mutex::default() })
    }

    /// The subject of the leaf, if the authority vouches for it now.
    pub fn verify(&self, chain: &[Vec<u8>]) -> Option<Arc<User>> {
        let (leaf, rest) = chain.split_first()?;
        if let Some((until, user)) = self.verified.lock().get(leaf)
            && now() < *until
        {
            return Some(user.clone());
        }
        let intermediates: Vec<CertificateDer<'_>> = rest.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        let end_entity = CertificateDer::from(leaf.as_slice());
        if let Err(error) = self.verifier.verify_client_cert(&end_entity, &intermediates, UnixTime::now()) {
            tracing::debug!(%error, "client certificate rejected");
            return None;
        }
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let user = Arc::new(subject(&certificate, leaf)?);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(leaf.clone(), (certificate.validity().not_after.timestamp(), user.clone()));
        Some(user)
    }
}

/// The attribute that upstream takes a user's UID from.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The one UID that a subject has, or none; `None` where it has several, or one that is no text.
fn uid(name: &X509Name<'_>) -> Option<String> {
    let mut values = name.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID);
    let Some(value) = values.next() else { return Some(String::new()) };
    let text = value.as_str().ok().filter(|text| !text.is_empty() && values.next().is_none())?;
    Some(text.to_string())
}

/// Whom a certificate names; `None` where its UID is none.
fn subject(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<User> {
    let name = certificate.subject();
    let common_name = name.iter_common_name().filter_map(|a| a.as_str().ok()).last().unwrap_or_default();
    let mut groups: Vec<String> =
        name.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_string).collect();
    // Here, where it is remembered, so that no request has to copy the user to add it.
    if common_name != ANONYMOUS && !groups.iter().any(|g| g == ALL_AUTHENTICATED || g == ALL_UNAUTHENTICATED) {
        groups.push(ALL_AUTHENTICATED.into());
    }
    let fingerprint: String = digest(&SHA256, der).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let mut extra = BTreeMap::new();
    extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={fingerprint}")]);
    Some(User { name: common_name.into(), uid: uid(name)?, groups, extra })
}

/// Authenticates by client certificate.
pub struct ClientCertificates {
    pub verifier: CertificateVerifier,
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Arc<User>>, StatusError> {
        let Some(PeerCertificates(chain)) = request.extensions.get::<PeerCertificates>() else { return Ok(None) };
        if chain.is_empty() {
            return Ok(None);
        }
        match self.verifier.verify(chain) {
            Some(user) if user.name.is_empty() => Ok(None),
            Some(user) => Ok(Some(user)),
            None => Err(unauthorized()),
        }
    }
}
