use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::ecdsa::signature::Verifier;
use ring::digest::{SHA256, digest};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;

use super::Algorithm;

/// What cannot be read as a key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Big-endian modulus and exponent.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points: 0x04, x, y.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
}

impl PublicKey {
    /// The key's name, which tokens carry as `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A JSON web key (RFC 7517); `None` for keys that make no signatures we know.
    pub fn from_jwk(jwk: &Value) -> Option<PublicKey> {
        let text = |field: &str| jwk.get(field).and_then(Value::as_str);
        let bytes = |field: &str| URL_SAFE_NO_PAD.decode(text(field)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let point = |size: usize| -> Option<Vec<u8>> {
            let (x, y) = (padded(bytes("x")?, size)?, padded(bytes("y")?, size)?);
            Some([&[4], x.as_slice(), &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("EC", Some("P-521")) => Material::P521(point(66)?),
            _ => return None,
        };
        Some(PublicKey { id: text("kid").unwrap_or_default().into(), material })
    }

    /// The keys of a JSON web key set; those we cannot use are left out.
    pub fn from_jwk_set(set: &Value) -> Option<Vec<PublicKey>> {
        let keys = set.get("keys")?.as_array()?;
        Some(keys.iter().filter_map(PublicKey::from_jwk).collect())
    }

    /// Every public key and certificate of a PEM text, named as upstream names its service-account keys: by the SHA-256 of the
    /// DER. An error if there is none, or one that cannot be read.
    pub fn from_pem(text: &str) -> Result<Vec<PublicKey>, KeyError> {
        let mut keys = Vec::new();
        for pem in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
            let pem = pem.map_err(|e| KeyError(e.to_string()))?;
            let unusable = || KeyError(format!("unusable {}", pem.label));
            match pem.label.as_str() {
                "PUBLIC KEY" => keys.push(Self::from_spki(&pem.contents).ok_or_else(unusable)?),
                "CERTIFICATE" => {
                    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|_| unusable())?;
                    keys.push(Self::from_spki(certificate.public_key().raw).ok_or_else(unusable)?);
                }
                _ => {}
            }
        }
        if keys.is_empty() { Err(KeyError("data does not contain any valid public keys".into())) } else { Ok(keys) }
    }

    fn from_spki(der: &[u8]) -> Option<PublicKey> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let material = match spki.parsed().ok()? {
            Parsed::RSA(rsa) => {
                let strip = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect();
                Material::Rsa { n: strip(rsa.modulus), e: strip(rsa.exponent) }
            }
            Parsed::EC(point) => match point.data().len() {
                65 => Material::P256(point.data().to_vec()),
                97 => Material::P384(point.data().to_vec()),
                133 => Material::P521(point.data().to_vec()),
                _ => return None,
            },
            _ => return None,
        };
        Some(PublicKey { id: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)), material })
    }

    /// Whether this key made this signature by this algorithm; never by an algorithm of another kind of key.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        use Algorithm::*;
        let rsa: &signature::RsaParameters = match (&self.material, algorithm) {
            (Material::P256(point), ES256) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                return key.verify(message, signature).is_ok();
            }
            (Material::P384(point), ES384) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                return key.verify(message, signature).is_ok();
            }
            (Material::P521(point), ES512) => return verify_p521(point, message, signature),
            (Material::Rsa { .. }, RS256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Material::Rsa { .. }, RS384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Material::Rsa { .. }, RS512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Material::Rsa { .. }, PS256) => &signature::RSA_PSS_2048_8192_SHA256,
            (Material::Rsa { .. }, PS384) => &signature::RSA_PSS_2048_8192_SHA384,
            (Material::Rsa { .. }, PS512) => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        let Material::Rsa { n, e } = &self.material else { return false };
        RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
    }
}

/// Coordinates are as long as the curve's field; some encoders leave leading zeros out.
fn padded(bytes: Vec<u8>, size: usize) -> Option<Vec<u8>> {
    let missing = size.checked_sub(bytes.len())?;
    Some([vec![0; missing], bytes].concat())
}

fn verify_p521(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}
