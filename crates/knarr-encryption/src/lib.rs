//! Encryption of what is stored: a [`Store`](knarr_store::Store) around a store, so that the caches above hold plain objects and the
//! disk below holds none.
//!
//! The file is upstream's `EncryptionConfiguration` ([`config`]); what is written has upstream's prefixes and formats
//! (`k8s:enc:aescbc:v1:KEY:`, …), so that data can move between upstream's etcd and Knarr. [`EncryptedStore`] asks [`Rules`] for the
//! [`Transformer`] of a key's resource; a transformer is a list of providers, of which the first writes and all read.
//!
//! Invariants:
//!
//! * A resource that no rule names is passed through untouched, at the price of one lookup by its name.
//! * Nothing is written in the clear where a rule names the resource: a provider that cannot encrypt fails the write.
//! * What cannot be decrypted is an error of that object ([`knarr_store::Store::unreadable`]), never an absent object.

mod ciphers;
pub mod config;
pub mod kms;
mod rules;
mod store;
mod transformer;

pub use config::EncryptionConfiguration;
pub use rules::Rules;
pub use store::{EncryptedStore, Locate};
pub use transformer::{Plain, Transformer};

/// Why bytes could not be encrypted or decrypted; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

impl From<&str> for TransformError {
    fn from(text: &str) -> Self {
        TransformError(text.into())
    }
}
