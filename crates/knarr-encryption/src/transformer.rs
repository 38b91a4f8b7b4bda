//! A resource's providers: the first writes, all read.

use std::sync::Arc;

use crate::TransformError;
use crate::ciphers::Cipher;
use crate::kms::Kms;

type Result<T> = std::result::Result<T, TransformError>;

/// No provider may leave something behind it that begins so.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// A value as it is above the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    pub value: Vec<u8>,
    /// It is stored otherwise than it would be written now.
    pub stale: bool,
}

/// One provider of a rule.
pub(crate) enum Provider {
    Identity,
    /// Keys by name; the first writes.
    Keys {
        prefix: &'static str,
        unknown: &'static str,
        keys: Vec<(String, Cipher)>,
    },
    Kms(Arc<Kms>),
}

/// What is done with the values of one resource.
#[derive(Default)]
pub struct Transformer {
    pub(crate) providers: Vec<Arc<Provider>>,
}

impl Provider {
    fn strip<'a>(&self, stored: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Provider::Identity => Some(stored),
            Provider::Keys { prefix, .. } => stored.strip_prefix(prefix.as_bytes()),
            Provider::Kms(kms) => stored.strip_prefix(kms.prefix().as_bytes()),
        }
    }

    async fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>> {
        match self {
            Provider::Identity => Ok(plain.to_vec()),
            Provider::Keys { prefix, keys, .. } => {
                let (name, cipher) = keys.first().ok_or("no key to encrypt with")?;
                let sealed = cipher.encrypt(plain, context.as_bytes())?;
                Ok([prefix.as_bytes(), name.as_bytes(), b":", &sealed].concat())
            }
            Provider::Kms(kms) => Ok([kms.prefix().as_bytes(), &kms.encrypt(plain, context)?].concat()),
        }
    }

    /// `stored` comes without the provider's prefix.
    async fn decrypt(&self, stored: &[u8], context: &str) -> Result<Plain> {
        match self {
            Provider::Identity if stored.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data".into())
            }
            Provider::Identity => Ok(Plain { value: stored.to_vec(), stale: false }),
            Provider::Keys { unknown, keys, .. } => decrypt_by_key(keys, unknown, stored, context),
            Provider::Kms(kms) => kms.decrypt(stored, context).await,
        }
    }
}

/// Keys may share a name while one replaces the other, so that a failure does not end the search.
fn decrypt_by_key(keys: &[(String, Cipher)], unknown: &str, stored: &[u8], context: &str) -> Result<Plain> {
    let mut errors = Vec::new();
    for (i, (name, cipher)) in keys.iter().enumerate() {
        let Some(sealed) = stored.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else {
            continue;
        };
        match cipher.decrypt(sealed, context.as_bytes()) {
            Ok(value) => return Ok(Plain { value, stale: i != 0 }),
            Err(error) => errors.push(error),
        }
    }
    Err(reduced(errors).unwrap_or_else(|| unknown.into()))
}

/// Go's aggregate: one error as it is, more in brackets, each once.
fn reduced(errors: Vec<TransformError>) -> Option<TransformError> {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        if !texts.contains(&error.0) {
            texts.push(error.0);
        }
    }
    match texts.as_slice() {
        [] => None,
        [one] => Some(TransformError(one.clone())),
        more => Some(TransformError(format!("[{}]", more.join(", ")))),
    }
}

impl Transformer {
    /// What to store. `context` is the key it is stored under.
    pub async fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>> {
        let provider = self.providers.first().ok_or("no provider to encrypt with")?;
        provider.encrypt(plain, context).await
    }

    /// What was stored, by the first provider that knows its prefix and can read it.
    pub async fn decrypt(&self, stored: &[u8], context: &str) -> Result<Plain> {
        let mut errors = Vec::new();
        for (i, provider) in self.providers.iter().enumerate() {
            let Some(rest) = provider.strip(stored) else { continue };
            match provider.decrypt(rest, context).await {
                Ok(plain) => return Ok(Plain { stale: plain.stale || i != 0, ..plain }),
                Err(_) if matches!(**provider, Provider::Identity) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(reduced(errors).unwrap_or_else(|| "no matching prefix found".into()))
    }
}
