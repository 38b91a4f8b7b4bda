//! Certificates are reused while they serve and issued anew when they do not.

use std::sync::Arc;

use knarr_pki::{
    CertificateAuthority, CertificateRequest, TokenKey, client_config, install_crypto_provider, server_config,
};
use rustls::pki_types::ServerName;

fn request(names: &[&str]) -> CertificateRequest {
    CertificateRequest::server(
        "knarr",
        names.iter().map(|n| n.to_string()).collect(),
        vec!["10.96.0.1".parse().unwrap()],
    )
}

#[test]
fn a_certificate_is_reused_until_the_request_changes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
    let first = authority.load_or_issue(dir.path(), "apiserver", &request(&["a"])).unwrap();
    let again = CertificateAuthority::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
    let second = again.load_or_issue(dir.path(), "apiserver", &request(&["a"])).unwrap();
    assert_eq!(first.certificate_pem, second.certificate_pem, "same authority, same request, same certificate");
    let third = again.load_or_issue(dir.path(), "apiserver", &request(&["a", "b"])).unwrap();
    assert_ne!(first.certificate_pem, third.certificate_pem, "a new name needs a new certificate");
    let stranger = CertificateAuthority::load_or_create(dir.path(), "other", "other").unwrap();
    let fourth = stranger.load_or_issue(dir.path(), "apiserver", &request(&["a", "b"])).unwrap();
    assert_ne!(third.certificate_pem, fourth.certificate_pem, "another authority's certificate does not serve");
}

#[test]
fn client_and_server_shake_hands() {
    install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
    let serving = authority.issue(&request(&["knarr.test"])).unwrap();
    let user = authority.issue(&CertificateRequest::client("jane", &["dev"])).unwrap();
    let mut server =
        rustls::ServerConnection::new(Arc::new(server_config(&serving, authority.certificate_pem()).unwrap())).unwrap();
    let client = Arc::new(client_config(authority.certificate_pem(), Some(&user)).unwrap());
    let mut client = rustls::ClientConnection::new(client, ServerName::try_from("knarr.test").unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(server.peer_certificates().unwrap().len(), 1);
}

#[test]
fn tokens_verify_with_the_key_that_signed_them_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = TokenKey::load_or_create(&dir.path().join("sa.key")).unwrap();
    let reloaded = TokenKey::load_or_create(&dir.path().join("sa.key")).unwrap();
    let other = TokenKey::load_or_create(&dir.path().join("other.key")).unwrap();
    let signature = key.sign(b"header.claims").unwrap();
    assert_eq!(key.id(), reloaded.id());
    assert!(reloaded.verify(b"header.claims", &signature));
    assert!(!reloaded.verify(b"header.claimz", &signature));
    assert!(!other.verify(b"header.claims", &signature));
}
