//! The TLS of a target.

use std::sync::{Arc, LazyLock};

use knarr_pki::{AnyCertificate, KeyedCertificate, TrustedServers};
use rustls::{ClientConfig, RootCertStore};

use super::{OpenError, TlsOptions};

/// The authorities that this machine trusts, read once.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read the system's certificates");
    }
    store.add_parsable_certificates(found.certs);
    store
});

/// The configuration of a client that offers HTTP/1.1 alone: over one HTTP/2 connection everything would go to one endpoint.
pub(super) fn client_config(options: &TlsOptions) -> Result<ClientConfig, OpenError> {
    let builder = ClientConfig::builder();
    let builder = if options.insecure {
        let provider = builder.crypto_provider().clone();
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else if options.authorities.trim().is_empty() {
        builder.with_root_certificates(SYSTEM.clone())
    } else {
        let servers = TrustedServers::new(&options.authorities);
        let servers = servers.map_err(|error| OpenError::Authorities(error.to_string()))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(servers))
    };
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let keyed = KeyedCertificate { certificate_pem: certificate.clone(), key_pem: key.clone() };
            let identity = |error: &dyn std::fmt::Display| OpenError::Identity(error.to_string());
            let (chain, key) = knarr_pki::chain_and_key(&keyed).map_err(|error| identity(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| identity(&error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
