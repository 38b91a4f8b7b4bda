//! The ciphers, each in upstream's layout of nonce, ciphertext and tag.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom, SystemRandom};

use crate::TransformError;

type Result<T> = std::result::Result<T, TransformError>;

const BLOCK: usize = 16;
const GCM_NONCE: usize = 12;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;
/// Length of the seed, of the information that a key is derived with, and of the derived key.
pub const SEED: usize = 32;

const TOO_SHORT: &str = "the stored data was shorter than the required size";
/// What Go's GCM says of a wrong key, changed data or another place.
const NOT_AUTHENTIC: &str = "cipher: message authentication failed";

/// Fills from the system's randomness.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "unable to read sufficient random bytes")?;
    Ok(bytes)
}

/// A keyed cipher.
pub enum Cipher {
    AesCbc(Vec<u8>),
    AesGcm(Gcm),
    Secretbox(Box<XSalsa20Poly1305>),
    /// AES-GCM with a key derived anew for every message.
    Derived([u8; SEED]),
}

/// AES-GCM by key size.
pub enum Gcm {
    Aes128(Box<AesGcm<Aes128, U12>>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<AesGcm<Aes256, U12>>),
}

impl Cipher {
    /// `None` for a key of another size than 16, 24 or 32.
    pub fn aes_cbc(key: &[u8]) -> Option<Cipher> {
        matches!(key.len(), 16 | 24 | 32).then(|| Cipher::AesCbc(key.to_vec()))
    }

    /// `None` for a key of another size than 16, 24 or 32.
    pub fn aes_gcm(key: &[u8]) -> Option<Cipher> {
        Gcm::new(key).map(Cipher::AesGcm)
    }

    /// `None` for a key of another size than 32.
    pub fn secretbox(key: &[u8]) -> Option<Cipher> {
        Some(Cipher::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)))
    }

    /// `context` is the key the value is stored under; the authenticated ciphers bind the value to it.
    pub fn encrypt(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        match self {
            Cipher::AesCbc(key) => cbc_encrypt(key, plain),
            Cipher::AesGcm(gcm) => gcm.encrypt(plain, context),
            Cipher::Secretbox(secretbox) => secretbox_encrypt(secretbox, plain),
            Cipher::Derived(seed) => {
                let info = random::<SEED>()?;
                let sealed = derive(seed, &info)?.encrypt(plain, context)?;
                Ok([info.as_slice(), &sealed].concat())
            }
        }
    }

    /// The way back from [`Cipher::encrypt`].
    pub fn decrypt(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        match self {
            Cipher::AesCbc(key) => cbc_decrypt(key, stored),
            Cipher::AesGcm(gcm) => gcm.decrypt(stored, context),
            Cipher::Secretbox(secretbox) => secretbox_decrypt(secretbox, stored),
            Cipher::Derived(seed) => {
                let (info, sealed) = stored.split_at_checked(SEED).ok_or(TOO_SHORT)?;
                derive(seed, info)?.decrypt(sealed, context)
            }
        }
    }
}

impl Gcm {
    fn new(key: &[u8]) -> Option<Gcm> {
        match key.len() {
            16 => Some(Gcm::Aes128(Box::new(AesGcm::new_from_slice(key).ok()?))),
            24 => Some(Gcm::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?))),
            32 => Some(Gcm::Aes256(Box::new(AesGcm::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    fn encrypt(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        let nonce = random::<GCM_NONCE>()?;
        let payload = Payload { msg: plain, aad: context };
        let at = Nonce::<U12>::from_slice(&nonce);
        let sealed = match self {
            Gcm::Aes128(gcm) => gcm.encrypt(at, payload),
            Gcm::Aes192(gcm) => gcm.encrypt(at, payload),
            Gcm::Aes256(gcm) => gcm.encrypt(at, payload),
        };
        let sealed = sealed.map_err(|_| "the value is too long to be encrypted")?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    fn decrypt(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        let (nonce, sealed) = stored.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
        let payload = Payload { msg: sealed, aad: context };
        let at = Nonce::<U12>::from_slice(nonce);
        let opened = match self {
            Gcm::Aes128(gcm) => gcm.decrypt(at, payload),
            Gcm::Aes192(gcm) => gcm.decrypt(at, payload),
            Gcm::Aes256(gcm) => gcm.decrypt(at, payload),
        };
        opened.map_err(|_| NOT_AUTHENTIC.into())
    }
}

/// The key of one message: HKDF-SHA256's expansion of the seed.
fn derive(seed: &[u8; SEED], info: &[u8]) -> Result<Gcm> {
    struct KeyLength;
    impl KeyType for KeyLength {
        fn len(&self) -> usize {
            SEED
        }
    }
    let failed = "failed to KDF expand seed with info";
    let mut key = [0; SEED];
    let prk = Prk::new_less_safe(HKDF_SHA256, seed);
    let expanded = prk.expand(&[info], KeyLength).and_then(|okm| okm.fill(&mut key));
    expanded.map_err(|_| failed)?;
    Gcm::new(&key).ok_or_else(|| failed.into())
}

fn cbc_encrypt(key: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let iv = random::<BLOCK>()?;
    fn padded<C: BlockEncryptMut + KeyIvInit>(key: &[u8], iv: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        Some(C::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(plain))
    }
    let sealed = match key.len() {
        16 => padded::<cbc::Encryptor<Aes128>>(key, &iv, plain),
        24 => padded::<cbc::Encryptor<Aes192>>(key, &iv, plain),
        _ => padded::<cbc::Encryptor<Aes256>>(key, &iv, plain),
    };
    Ok([iv.as_slice(), &sealed.ok_or("invalid key size")?].concat())
}

fn cbc_decrypt(key: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    let (iv, sealed) = stored.split_at_checked(BLOCK).ok_or(TOO_SHORT)?;
    if sealed.len() % BLOCK != 0 {
        return Err("the stored data is not a multiple of the block size".into());
    }
    fn raw<C: BlockDecryptMut + KeyIvInit>(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        C::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<NoPadding>(sealed).ok()
    }
    let opened = match key.len() {
        16 => raw::<cbc::Decryptor<Aes128>>(key, iv, sealed),
        24 => raw::<cbc::Decryptor<Aes192>>(key, iv, sealed),
        _ => raw::<cbc::Decryptor<Aes256>>(key, iv, sealed),
    };
    unpad(opened.ok_or("invalid key size")?)
}

/// Removes PKCS#7 padding, and tells a wrong key by its absence.
fn unpad(mut plain: Vec<u8>) -> Result<Vec<u8>> {
    let padding = usize::from(plain.last().copied().unwrap_or_default());
    let size = plain.len().checked_sub(padding).filter(|_| padding > 0);
    let size = size.ok_or("invalid PKCS7 data (empty or not padded)")?;
    if plain[size..].iter().any(|byte| usize::from(*byte) != padding) {
        return Err("invalid padding on input".into());
    }
    plain.truncate(size);
    Ok(plain)
}

fn secretbox_encrypt(secretbox: &XSalsa20Poly1305, plain: &[u8]) -> Result<Vec<u8>> {
    let nonce = random::<SECRETBOX_NONCE>()?;
    let sealed = secretbox.encrypt(crypto_secretbox::Nonce::from_slice(&nonce), plain);
    Ok([nonce.as_slice(), &sealed.map_err(|_| "the value is too long to be encrypted")?].concat())
}

fn secretbox_decrypt(secretbox: &XSalsa20Poly1305, stored: &[u8]) -> Result<Vec<u8>> {
    if stored.len() < SECRETBOX_NONCE + SECRETBOX_TAG {
        return Err(TOO_SHORT.into());
    }
    let (nonce, sealed) = stored.split_at(SECRETBOX_NONCE);
    let opened = secretbox.decrypt(crypto_secretbox::Nonce::from_slice(nonce), sealed);
    // Upstream's words, whatever they mean.
    opened.map_err(|_| "output array was not large enough for encryption".into())
}

#[cfg(test)]
mod tests;
