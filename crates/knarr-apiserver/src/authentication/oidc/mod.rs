//! Tokens of OpenID Connect providers: whoever an issuer of the configuration vouches for.
//!
//! A token is checked as go-oidc checks it, on which upstream is built: issuer, audience, times, then the signature by the keys that
//! the issuer publishes ([`keys`]). What it claims becomes a user by the configuration's mappings ([`claims`]).

mod claims;
mod expression;
mod keys;
pub mod validation;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::configuration::JwtAuthenticator;
use super::token::{TokenAuthenticator, TokenIdentity};
use crate::jose::{Algorithm, Jws, unproven_issuer};
use crate::tokens::now;
use claims::Mapper;
use keys::KeySet;

/// How far an issuer's clock may be ahead of ours.
const NOT_BEFORE_LEEWAY: i64 = 300;

/// Authenticates the tokens of one issuer.
pub struct Oidc {
    url: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: KeySet,
    mapper: Mapper,
}

impl Oidc {
    /// The authenticator of a valid configuration; an error where a certificate authority cannot be used. It asks the issuer for its
    /// keys when the first token comes.
    pub fn new(config: &JwtAuthenticator, algorithms: Vec<Algorithm>) -> Result<Self, String> {
        Ok(Oidc {
            url: config.issuer.url.clone(),
            audiences: config.issuer.audiences.clone(),
            algorithms,
            keys: KeySet::new(&config.issuer),
            mapper: Mapper::new(config)?,
        })
    }

    /// Fetches the issuer's keys, if there are none yet; the error says why there are none.
    pub async fn ready(&self) -> Result<(), String> {
        self.keys.known().await.map(drop)
    }

    async fn claims(&self, token: &str) -> Result<Map<String, Value>, String> {
        let jws = Jws::parse(token).map_err(|e| format!("oidc: verify token: oidc: {e}"))?;
        self.check_claims(&jws.claims).map_err(|e| format!("oidc: verify token: oidc: {e}"))?;
        self.keys.verify(&jws, &self.algorithms).await.map_err(|e| format!("oidc: verify token: {e}"))?;
        Ok(jws.claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), String> {
        let theirs = audiences(claims.get("aud"));
        if !theirs.iter().any(|a| self.audiences.contains(a)) {
            return Err(format!("expected audience in {:?} got {theirs:?}", self.audiences));
        }
        let seconds = |name: &str| claims.get(name).and_then(Value::as_f64).map(|s| s as i64);
        if seconds("exp").unwrap_or_default() <= now() {
            return Err(format!("token is expired (Token Expiry: {})", shown_time(seconds("exp").unwrap_or_default())));
        }
        match seconds("nbf") {
            Some(start) if now() + NOT_BEFORE_LEEWAY < start => {
                Err(format!("current time before the nbf (not before) time: {}", shown_time(start)))
            }
            _ => Ok(()),
        }
    }
}

/// One string, or a list of them.
fn audiences(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => Vec::new(),
    }
}

fn shown_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default()
}

#[async_trait]
impl TokenAuthenticator for Oidc {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        // Google once issued under a name without a scheme.
        let issuer = unproven_issuer(token).map(|i| match i.as_str() {
            "accounts.google.com" => "https://accounts.google.com".to_string(),
            _ => i,
        });
        if issuer.as_deref() != Some(&self.url) {
            return Ok(None);
        }
        let claims = self.claims(token).await?;
        let user = self.mapper.user(claims)?;
        Ok(Some(TokenIdentity { user: Arc::new(user), audiences: audiences.to_vec() }))
    }
}
