use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};

use crate::{Error, KeyedCertificate};

/// Makes ring the process's cryptography. Call it first in `main`; later calls do nothing.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The authorities of these PEM certificates.
pub fn root_store(authorities_pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(authorities_pem)? {
        store.add(certificate)?;
    }
    Ok(store)
}

/// A server that presents this certificate and accepts, but does not demand, client certificates of these authorities. Offers
/// HTTP/2 and HTTP/1.1. As upstream's, it takes AES with the shorter key where the client knows it: a third faster, and enough.
pub fn server_config(keyed: &KeyedCertificate, client_authorities_pem: &str) -> Result<ServerConfig, Error> {
    let roots = root_store(client_authorities_pem)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let (chain, key) = chain_and_key(keyed)?;
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts these authorities and presents this certificate, if one is given.
pub fn client_config(authorities_pem: &str, keyed: Option<&KeyedCertificate>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder().with_root_certificates(root_store(authorities_pem)?);
    Ok(match keyed {
        None => builder.with_no_client_auth(),
        Some(keyed) => {
            let (chain, key) = chain_and_key(keyed)?;
            builder.with_client_auth_cert(chain, key)?
        }
    })
}

/// A certificate with those that vouch for it, and its key, as TLS wants them.
pub fn chain_and_key(
    keyed: &KeyedCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let key = PrivateKeyDer::from_pem_slice(keyed.key_pem.as_bytes()).map_err(|_| Error::unusable("private key"))?;
    Ok((certificates(&keyed.certificate_pem)?, key))
}

pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::unusable("certificate"))
}
