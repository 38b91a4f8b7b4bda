//! Signed JSON web tokens of others: compact serialization (RFC 7515) and the asymmetric signatures of RFC 7518.
//!
//! A token says by which algorithm it is signed; a key says which algorithms it may be used with. A signature is believed only where
//! both agree, so that a public key can never be taken for a shared secret, and `none` is no algorithm at all.

mod key;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use key::{KeyError, PublicKey};

/// A signature's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
}

impl Algorithm {
    pub const ALL: [Algorithm; 9] = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::ES512,
    ];

    /// The algorithm of that name in RFC 7518.
    pub fn of_name(name: &str) -> Option<Algorithm> {
        Self::ALL.into_iter().find(|a| format!("{a:?}") == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("malformed jwt")]
    Malformed,
    #[error("signed with unsupported algorithm {0:?}")]
    Algorithm(String),
    #[error("failed to verify signature")]
    Signature,
}

/// A token taken apart. Nothing in it is true before [`Jws::verify`] says so.
pub struct Jws<'a> {
    pub algorithm: String,
    pub key_id: String,
    /// The claims, as yet unproven.
    pub claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood: none is.
    crit: Option<Value>,
}

impl<'a> Jws<'a> {
    /// Takes a compact token apart; its claims must be a JSON object.
    pub fn parse(token: &'a str) -> Result<Jws<'a>, TokenFault> {
        let malformed = |_| TokenFault::Malformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenFault::Malformed)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(malformed)?;
        let claims = serde_json::from_slice(&claims).map_err(|_| TokenFault::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(malformed)?;
        if header.crit.is_some() {
            return Err(TokenFault::Malformed);
        }
        Ok(Jws { algorithm: header.alg, key_id: header.kid, claims, signed, signature })
    }

    /// Whether one of these keys made the signature, by one of these algorithms. A token without a key's name may be any key's.
    pub fn verify<'k>(
        &self,
        mut keys: impl Iterator<Item = &'k PublicKey>,
        allowed: &[Algorithm],
    ) -> Result<(), TokenFault> {
        let algorithm = Algorithm::of_name(&self.algorithm).filter(|a| allowed.contains(a));
        let algorithm = algorithm.ok_or_else(|| TokenFault::Algorithm(self.algorithm.clone()))?;
        let made_by = |key: &PublicKey| {
            (self.key_id.is_empty() || key.id() == self.key_id)
                && key.verify(algorithm, self.signed.as_bytes(), &self.signature)
        };
        if keys.any(made_by) { Ok(()) } else { Err(TokenFault::Signature) }
    }
}

/// `iss` of a token, unproven; `None` where it is no token or has none.
pub fn unproven_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    let mut parts = token.split('.');
    let claims = parts.nth(1).filter(|_| parts.count() == 1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    Some(serde_json::from_slice::<Issued>(&claims).ok()?.iss)
}

#[cfg(test)]
mod tests;
