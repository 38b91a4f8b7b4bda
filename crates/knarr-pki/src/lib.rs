//! Keys and certificates of a cluster: the certificate authorities, what they issue, the key that signs service-account
//! tokens, and the kubeconfig files that carry credentials to clients.
//!
//! All keys are ECDSA P-256: a cluster has its complete set in a few milliseconds. Files are written so that a reader never sees
//! half of one, and private keys are readable by their owner only.

mod any_certificate;
mod authority;
mod der;
mod error;
mod files;
mod kubeconfig;
mod signer;
mod tls;
mod token;
mod trusted;

pub use any_certificate::AnyCertificate;
pub use authority::{CertificateAuthority, CertificateRequest, KeyedCertificate, Usage};
pub use error::Error;
pub use files::write_private;
pub use kubeconfig::{Credentials, Kubeconfig};
pub use signer::{SigningRequest, expiry};
pub use tls::{chain_and_key, client_config, install_crypto_provider, root_store, server_config};
pub use token::TokenKey;
pub use trusted::TrustedServers;
