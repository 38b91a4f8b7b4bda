//! The keys that an issuer publishes: discovery (`/.well-known/openid-configuration`), then its key set.
//!
//! Both are fetched when they are first needed. A signature that no known key made is checked once more against the issuer's present
//! keys, so that an issuer may take a new key at any time; how often strangers' tokens can make us ask is limited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::configuration::Issuer;
use crate::jose::{Algorithm, Jws, PublicKey, TokenFault};
use crate::outbound::{Client, Limits, Target, TlsOptions};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), size: 1 << 20 };
/// The issuer is asked at most so often.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of an issuer.
pub(super) struct Known {
    key_set_url: String,
    keys: Vec<PublicKey>,
}

pub(super) struct KeySet {
    issuer: String,
    discovery_url: String,
    authorities: String,
    known: ArcSwapOption<Known>,
    /// One asks at a time; when it was last done, and why it failed if it did.
    asking: Mutex<Option<(Instant, Option<String>)>>,
}

impl KeySet {
    pub fn new(issuer: &Issuer) -> Self {
        let discovery_url = match issuer.discovery_url.as_str() {
            "" => format!("{}{WELL_KNOWN}", issuer.url.trim_end_matches('/')),
            given => given.to_string(),
        };
        KeySet {
            issuer: issuer.url.clone(),
            discovery_url,
            authorities: issuer.certificate_authority.clone(),
            known: ArcSwapOption::empty(),
            asking: Mutex::new(None),
        }
    }

    /// Whether one of the issuer's keys, as they are now, signed this.
    pub async fn verify(&self, jws: &Jws<'_>, allowed: &[Algorithm]) -> Result<(), String> {
        let known = self.known().await.map_err(|_| "oidc: authenticator not initialized".to_string())?;
        match jws.verify(known.keys.iter(), allowed) {
            Err(TokenFault::Signature) => {}
            decided => return decided.map_err(|e| format!("oidc: {e}")),
        }
        let newer = self.newer_than(&known).await.map_err(|e| format!("failed to verify signature: {e}"))?;
        jws.verify(newer.keys.iter(), allowed)
            .map_err(|_| "failed to verify signature: failed to verify id token signature".into())
    }

    /// The issuer's keys, fetched if they never were.
    pub async fn known(&self) -> Result<Arc<Known>, String> {
        match self.known.load_full() {
            Some(known) => Ok(known),
            None => self.ask(None).await,
        }
    }

    async fn newer_than(&self, seen: &Arc<Known>) -> Result<Arc<Known>, String> {
        self.ask(Some(seen)).await
    }

    /// Fetches, unless somebody else did while we waited or it was done just now.
    async fn ask(&self, seen: Option<&Arc<Known>>) -> Result<Arc<Known>, String> {
        let mut last = self.asking.lock().await;
        let known = self.known.load_full();
        if let Some(known) = &known
            && seen.is_none_or(|seen| !Arc::ptr_eq(seen, known))
        {
            return Ok(known.clone());
        }
        if let Some((at, failure)) = &*last
            && at.elapsed() < PAUSE
        {
            return match (failure, known) {
                (None, Some(known)) => Ok(known),
                (failure, _) => Err(failure.clone().unwrap_or_default()),
            };
        }
        let fetched = self.fetch(known.as_deref()).await;
        *last = Some((Instant::now(), fetched.as_ref().err().cloned()));
        let fetched = Arc::new(fetched.inspect_err(|error| {
            tracing::error!(issuer = self.issuer, error, "cannot get the issuer's keys");
        })?);
        self.known.store(Some(fetched.clone()));
        Ok(fetched)
    }

    async fn fetch(&self, known: Option<&Known>) -> Result<Known, String> {
        let key_set_url = match known {
            Some(known) => known.key_set_url.clone(),
            None => self.discover().await?,
        };
        let set = self.document(&key_set_url).await?;
        let keys = PublicKey::from_jwk_set(&set).ok_or("oidc: failed to decode keys")?;
        Ok(Known { key_set_url, keys })
    }

    async fn discover(&self) -> Result<String, String> {
        let configuration = self.document(&self.discovery_url).await?;
        let text = |field: &str| configuration.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.issuer,
                text("issuer")
            ));
        }
        match text("jwks_uri") {
            "" => Err("provider did not return JWKS URL".into()),
            url => Ok(url.to_string()),
        }
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let tls = TlsOptions { authorities: self.authorities.clone(), ..TlsOptions::default() };
        let target = Target::of_url(url, tls).map_err(|e| e.to_string())?;
        let path = if target.path.is_empty() { "/".to_string() } else { target.path.clone() };
        let client = Client::open(&target, None).map_err(|e| e.to_string())?;
        let answer = client.get(&path, "application/json", LIMITS).await.map_err(|e| e.to_string())?;
        if answer.status() != 200 {
            return Err(format!("{}: {}", answer.status(), String::from_utf8_lossy(answer.body())));
        }
        serde_json::from_slice(answer.body()).map_err(|e| format!("oidc: failed to decode provider's answer: {e}"))
    }
}
