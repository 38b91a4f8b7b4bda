use rcgen::{CertificateParams, DnType, SanType};

use super::*;
use crate::{CertificateRequest, root_store};

fn authority() -> CertificateAuthority {
    let directory = tempfile::tempdir().unwrap();
    CertificateAuthority::load_or_create(directory.path(), "ca", "kubernetes").unwrap()
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:n1");
    change(&mut params);
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn signed(authority: &CertificateAuthority, pem: &str, usages: &[&str], lifetime: Duration) -> Result<Vec<u8>, Error> {
    let request = SigningRequest::parse(pem.as_bytes())?;
    let usages: Vec<String> = usages.iter().map(|u| u.to_string()).collect();
    let pem = authority.sign_for(&request, &usages, lifetime)?;
    Ok(x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents)
}

#[test]
fn a_certificate_says_what_was_asked_and_what_the_signer_decides() {
    let authority = authority();
    let pem = request(|params| {
        params.subject_alt_names =
            vec![SanType::DnsName("n1.test".try_into().unwrap()), SanType::IpAddress("10.0.0.1".parse().unwrap())];
        // A requester who wants to be an authority does not become one.
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let usages = ["digital signature", "key encipherment", "server auth"];
    let der = signed(&authority, &pem, &usages, Duration::days(365)).unwrap();
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let subject = certificate.subject().to_string();
    let mut names: Vec<&str> = subject.split(", ").collect();
    names.sort_unstable();
    assert_eq!(names, ["CN=system:node:n1", "O=system:nodes"]);
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth);
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 2);
    let (_, root) = x509_parser::pem::parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&root.contents).unwrap();
    certificate.verify_signature(Some(root.public_key())).unwrap();
    let lifetime = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
    assert_eq!(lifetime, 365 * 86400);
}

#[test]
fn rustls_accepts_it_as_the_authoritys() {
    use rustls::pki_types::{CertificateDer, UnixTime};
    let authority = authority();
    let der = signed(&authority, &request(|_| {}), &["client auth"], Duration::hours(1)).unwrap();
    let roots = std::sync::Arc::new(root_store(authority.certificate_pem()).unwrap());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
    verifier.verify_client_cert(&CertificateDer::from(der), &[], UnixTime::now()).unwrap();
}

#[test]
fn a_life_does_not_outlast_the_authority() {
    let authority = authority();
    let der = signed(&authority, &request(|_| {}), &["client auth"], Duration::days(36_500)).unwrap();
    let (_, root) = x509_parser::pem::parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&root.contents).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.validity().not_after, root.validity().not_after);
}

#[test]
fn what_is_no_request_or_no_usage_is_refused() {
    let authority = authority();
    let certificate = authority.issue(&CertificateRequest::client("x", &[])).unwrap().certificate_pem;
    assert!(SigningRequest::parse(certificate.as_bytes()).unwrap_err().to_string().contains("CERTIFICATE REQUEST"));
    assert!(SigningRequest::parse(b"nonsense").is_err());
    // Another's signature: the requester need not have the key.
    let pem = request(|_| {});
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let mut der = parsed.contents;
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(SigningRequest::parse(super::pem("CERTIFICATE REQUEST", &der).as_bytes()).is_err());
    assert!(signed(&authority, &pem, &["world domination"], Duration::hours(1)).is_err());
}
