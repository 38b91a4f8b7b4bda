//! The TLS of a target.

use std::sync::{Arc, LazyLock};

use knarr_pki::KeyedCertificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

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
        let roots = knarr_pki::root_store(&options.authorities);
        builder.with_root_certificates(roots.map_err(|error| OpenError::Authorities(error.to_string()))?)
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

/// For targets that say so themselves: `insecureSkipTLSVerify`, `insecure-skip-tls-verify`, and the proxied servers of pods, whose
/// certificates are of whatever authority.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
