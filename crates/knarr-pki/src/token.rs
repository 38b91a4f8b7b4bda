use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};

use crate::Error;
use crate::files::{read_if_present, write_private};

/// The ES256 key that signs service-account tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl TokenKey {
    /// The key in this PEM file (PKCS#8); made there if it does not exist.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        let what = || path.display().to_string();
        let pem = match read_if_present(path)? {
            Some(pem) => pem,
            None => {
                let pem = rcgen::KeyPair::generate().map_err(Error::certificate(what()))?.serialize_pem();
                write_private(path, &pem)?;
                pem
            }
        };
        Self::from_pem(&pem).map_err(|_| Error::unusable(what()))
    }

    /// The key of this PKCS#8 PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let pair = rcgen::KeyPair::from_pem(pem).map_err(Error::certificate("token signing key"))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .map_err(|_| Error::unusable("token signing key"))?;
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, key.public_key().as_ref()));
        Ok(TokenKey { key, id, random })
    }

    /// The `kid` of tokens signed with this key: the SHA-256 of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The uncompressed public point: 0x04, then x and y, 32 bytes each.
    pub fn public_point(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// A JWS signature (RFC 7518, ES256: r and s, 32 bytes each).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.key.sign(&self.random, message).map_err(|_| Error::unusable("token signature"))?;
        Ok(signature.as_ref().to_vec())
    }

    /// Whether this key made this signature.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, self.public_point())
            .verify(message, signature)
            .is_ok()
    }
}
