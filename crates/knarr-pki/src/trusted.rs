//! Servers that are trusted for their certificate's authority, or for the certificate itself.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::error::Error;
use crate::tls::{certificates, root_store};

/// As Go's clients trust: a certificate that is in the bundle needs no authority above it, though it may be one itself. What
/// `openssl req -x509` makes is such a certificate, and many a webhook presents one.
#[derive(Debug)]
pub struct TrustedServers {
    authorities: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl TrustedServers {
    /// Of PEM certificates. Fails where there are none, or one cannot be read.
    pub fn new(bundle_pem: &str) -> Result<Self, Error> {
        let authorities = WebPkiServerVerifier::builder(Arc::new(root_store(bundle_pem)?)).build()?;
        Ok(TrustedServers { authorities, known: certificates(bundle_pem)? })
    }

    fn knows(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.known.iter().any(|known| known == certificate) && serves_now(certificate, now) && is_of(certificate, name)
    }
}

fn is_of(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

/// Whether it is valid today, and for servers.
fn serves_now(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let validity = parsed.validity();
    let Ok(now) = i64::try_from(now.as_secs()) else { return false };
    let in_time = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
    let uses = parsed.extended_key_usage().ok().flatten();
    in_time && uses.is_none_or(|uses| uses.value.any || uses.value.server_auth)
}

impl ServerCertVerifier for TrustedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(_) if self.knows(end_entity, server_name, now) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn self_signed(name: &str) -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_string()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("a certificate")
    }

    #[test]
    fn an_authority_that_serves_is_trusted_by_name_and_time() {
        crate::install_crypto_provider();
        let certificate = self_signed("webhook.test");
        let trusts = |bundle: &rcgen::Certificate, name: &str, now: UnixTime| {
            let servers = TrustedServers::new(&bundle.pem()).expect("a bundle");
            let name = ServerName::try_from(name.to_string()).expect("a name");
            servers.verify_server_cert(certificate.der(), &[], &name, &[], now).is_ok()
        };
        assert!(trusts(&certificate, "webhook.test", UnixTime::now()));
        assert!(!trusts(&certificate, "other.test", UnixTime::now()));
        assert!(!trusts(&certificate, "webhook.test", UnixTime::since_unix_epoch(Duration::ZERO)));
        assert!(!trusts(&self_signed("webhook.test"), "webhook.test", UnixTime::now()));
    }
}
