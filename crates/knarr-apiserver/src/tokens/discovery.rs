use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use knarr_pki::TokenKey;
use serde_json::{Value, json};

use super::Issuer;

/// What others need to check this cluster's service-account tokens: two documents that never change while the server runs.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// `/.well-known/openid-configuration`, `application/json`.
    pub configuration: Bytes,
    /// `/openid/v1/jwks`, `application/jwk-set+json`.
    pub keys: Bytes,
}

impl Discovery {
    pub const CONFIGURATION_PATH: &'static str = "/.well-known/openid-configuration";
    pub const KEYS_PATH: &'static str = "/openid/v1/jwks";

    /// `base` is where clients reach the API server, such as `https://10.0.0.1:6443`.
    pub fn new(issuer: &Issuer, base: &str) -> Self {
        let configuration = json!({
            "issuer": issuer.url(),
            "jwks_uri": format!("{}{}", base.trim_end_matches('/'), Self::KEYS_PATH),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let keys: Vec<Value> = issuer.keys().iter().map(json_web_key).collect();
        Discovery { configuration: configuration.to_string().into(), keys: json!({ "keys": keys }).to_string().into() }
    }

    /// The document at a path and its content type.
    pub fn document(&self, path: &str) -> Option<(Bytes, &'static str)> {
        match path {
            Self::CONFIGURATION_PATH => Some((self.configuration.clone(), "application/json")),
            Self::KEYS_PATH => Some((self.keys.clone(), "application/jwk-set+json")),
            _ => None,
        }
    }
}

pub(super) fn json_web_key(key: &TokenKey) -> Value {
    // 0x04, x, y, with 32 bytes each.
    let point = key.public_point();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
    json!({"use": "sig", "kty": "EC", "kid": key.id(), "crv": "P-256", "alg": "ES256", "x": coordinate(1..33), "y": coordinate(33..65)})
}
