use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use knarr_pki::TokenKey;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::claims::Claims;
use super::discovery::json_web_key;
use crate::jose::PublicKey;

/// Verified tokens remembered, so that a signature is checked once and not on every request.
const REMEMBERED: usize = 4096;

/// Why a token is no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not one of this issuer's; another authenticator may know it.
    #[error("not a token of this issuer")]
    Foreign,
    #[error("invalid bearer token")]
    Forged,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("service account token is issued in the future")]
    Future,
}

/// Signs tokens with its first key and accepts those of all its keys.
pub struct Issuer {
    url: String,
    keys: Vec<TokenKey>,
    audiences: Vec<String>,
    verified: Mutex<HashMap<String, Arc<Claims>>>,
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default)]
    kid: &'a str,
}

impl Issuer {
    /// `keys` must not be empty: the first signs. Without `audiences` the issuer itself is the one audience.
    pub fn new(url: &str, keys: Vec<TokenKey>, audiences: Vec<String>) -> Self {
        let audiences = if audiences.is_empty() { vec![url.to_string()] } else { audiences };
        Issuer { url: url.into(), keys, audiences, verified: Mutex::default() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn keys(&self) -> &[TokenKey] {
        &self.keys
    }

    /// The keys as others know them.
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.iter().filter_map(|key| PublicKey::from_jwk(&json_web_key(key))).collect()
    }

    /// The audiences of the API server itself.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The compact JWS of these claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, String> {
        let key = self.keys.first().ok_or("no token signing key")?;
        let header = json!({"alg": "ES256", "kid": key.id()}).to_string();
        let body = serde_json::to_vec(claims).map_err(|e| e.to_string())?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
        let signature = key.sign(token.as_bytes()).map_err(|e| e.to_string())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of a token that one of the keys signed and that is valid at `now`.
    pub fn verify(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        let known = self.verified.lock().get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => self.remember(token, Arc::new(self.check_signature(token)?)),
        };
        if now >= claims.expires {
            self.verified.lock().remove(token);
            return Err(TokenError::Expired);
        }
        // Clocks of several servers differ a little.
        if now + 60 < claims.not_before {
            return Err(TokenError::NotYet);
        }
        if now + 60 < claims.issued_at {
            return Err(TokenError::Future);
        }
        Ok(claims)
    }

    fn remember(&self, token: &str, claims: Arc<Claims>) -> Arc<Claims> {
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(token.to_string(), claims.clone());
        claims
    }

    fn check_signature(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, body) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Foreign)?;
        self.is_issuer_of(&body)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Forged)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| TokenError::Forged)?;
        if header.alg != "ES256" {
            return Err(TokenError::Forged);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Forged)?;
        let mut keys = self.keys.iter().filter(|k| header.kid.is_empty() || k.id() == header.kid);
        if !keys.any(|k| k.verify(signed.as_bytes(), &signature)) {
            return Err(TokenError::Forged);
        }
        serde_json::from_slice(&body).map_err(|_| TokenError::Forged)
    }

    fn is_issuer_of(&self, body: &[u8]) -> Result<(), TokenError> {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        let issued: Issued = serde_json::from_slice(body).map_err(|_| TokenError::Foreign)?;
        if issued.iss == self.url { Ok(()) } else { Err(TokenError::Foreign) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tokens::claims::{Audiences, BoundObject, KubernetesClaims};

    pub fn issuer() -> Issuer {
        let directory = std::env::temp_dir().join(format!("knarr-issuer-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&directory).unwrap();
        let key = TokenKey::load_or_create(&directory.join("sa.key")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        Issuer::new("https://kubernetes.default.svc", vec![key], Vec::new())
    }

    fn claims() -> Claims {
        Claims {
            audiences: Audiences::Many(vec!["x".into()]),
            expires: 200,
            issued_at: 100,
            issuer: "https://kubernetes.default.svc".into(),
            id: "1".into(),
            kubernetes: KubernetesClaims {
                namespace: "a".into(),
                serviceaccount: BoundObject { name: "s".into(), uid: "u".into() },
                ..KubernetesClaims::default()
            },
            not_before: 100,
            subject: "system:serviceaccount:a:s".into(),
        }
    }

    #[test]
    fn a_token_holds_from_issue_to_expiry() {
        let issuer = issuer();
        let token = issuer.sign(&claims()).unwrap();
        assert_eq!(*issuer.verify(&token, 150).unwrap(), claims());
        assert_eq!(issuer.verify(&token, 200), Err(TokenError::Expired));
        assert_eq!(issuer.verify(&token, 10), Err(TokenError::NotYet));
    }

    #[test]
    fn forgeries_are_refused() {
        let issuer = issuer();
        let token = issuer.sign(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = Claims { subject: "system:serviceaccount:kube-system:admin".into(), ..claims() };
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
        assert_eq!(issuer.verify(&format!("{header}.{body}.{signature}"), 150), Err(TokenError::Forged));
        for alg in ["none", "HS256"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
            assert_eq!(issuer.verify(&format!("{header}.{body}."), 150), Err(TokenError::Forged));
        }
        assert_eq!(issuer.verify(&self::issuer().sign(&claims()).unwrap(), 150), Err(TokenError::Forged));
        assert_eq!(issuer.verify("abcdef.0123456789abcdef", 150), Err(TokenError::Foreign));
    }
}
