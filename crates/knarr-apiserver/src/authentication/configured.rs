//! What an [`AuthenticationConfiguration`] (or the `--oidc-*` flags) asks for, and how it changes while the server runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::configuration::{AuthenticationConfiguration, JwtAuthenticator};
use super::oidc::Oidc;
use super::token::{TokenAuthenticator, TokenIdentity};
use super::{Anonymous, User};
use crate::jose::Algorithm;

/// How long a token's user is remembered, as upstream.
const TRUST: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 4096;
/// How long a new configuration may take until all its issuers answer.
const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_secs(1);

/// The issuers in use.
struct Issuers {
    authenticators: Vec<Oidc>,
    /// By the token's digest. It goes with its issuers: a new configuration believes nothing of what the old one said.
    remembered: Mutex<Remembered>,
}

type Remembered = HashMap<Vec<u8>, (Instant, Arc<User>)>;

impl Issuers {
    fn new(config: &[JwtAuthenticator], algorithms: &[Algorithm]) -> Result<Issuers, String> {
        let authenticators = config.iter().map(|c| Oidc::new(c, algorithms.to_vec()));
        Ok(Issuers { authenticators: authenticators.collect::<Result<_, _>>()?, remembered: Mutex::default() })
    }

    async fn ready(&self) -> Result<(), String> {
        for authenticator in &self.authenticators {
            authenticator.ready().await?;
        }
        Ok(())
    }
}

/// The configured authenticators.
pub struct Configured {
    /// Issuers of the cluster itself, which no configuration may name.
    own: Vec<String>,
    /// What `--anonymous-auth` says; holds where the configuration says nothing.
    anonymous_flag: bool,
    issuers: ArcSwap<Issuers>,
    anonymous: Arc<ArcSwap<Anonymous>>,
}

impl Configured {
    /// Nobody's tokens as yet.
    pub fn new(own: Vec<String>, anonymous: bool) -> Self {
        let none = Issuers { authenticators: Vec::new(), remembered: Mutex::default() };
        let configured = Configured {
            own,
            anonymous_flag: anonymous,
            issuers: ArcSwap::from_pointee(none),
            anonymous: Arc::new(ArcSwap::from_pointee(Anonymous::Nowhere)),
        };
        configured.set_anonymous(None);
        configured
    }

    /// Where anonymous requests may go; changes with the configuration.
    pub fn anonymous(&self) -> Arc<ArcSwap<Anonymous>> {
        self.anonymous.clone()
    }

    /// Takes the one issuer of the `--oidc-*` flags.
    pub fn set_oidc(&self, config: &JwtAuthenticator, algorithms: &[Algorithm]) -> Result<(), String> {
        self.issuers.store(Arc::new(Issuers::new(std::slice::from_ref(config), algorithms)?));
        Ok(())
    }

    /// Takes a configuration file's text at once; its issuers are asked for their keys when the first tokens come.
    pub fn load(&self, text: &str) -> Result<(), String> {
        let config = AuthenticationConfiguration::parse(text, &self.own)?;
        let issuers = Issuers::new(&config.jwt, &Algorithm::ALL)?;
        self.take(&config, issuers);
        Ok(())
    }

    /// Takes a changed configuration once all its issuers answer; until then, and where they do not, the old one holds.
    pub async fn reload(&self, text: &str) -> Result<(), String> {
        let config = AuthenticationConfiguration::parse(text, &self.own)?;
        let issuers = Issuers::new(&config.jwt, &Algorithm::ALL)?;
        let started = Instant::now();
        while let Err(error) = issuers.ready().await {
            if started.elapsed() > READY_LIMIT {
                return Err(error);
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        self.take(&config, issuers);
        Ok(())
    }

    fn take(&self, config: &AuthenticationConfiguration, issuers: Issuers) {
        self.issuers.store(Arc::new(issuers));
        self.set_anonymous(Some(config));
    }

    fn set_anonymous(&self, config: Option<&AuthenticationConfiguration>) {
        let anonymous = match config.and_then(|c| c.anonymous.as_ref()) {
            None if self.anonymous_flag => Anonymous::Everywhere,
            Some(c) if c.enabled && c.conditions.is_empty() => Anonymous::Everywhere,
            Some(c) if c.enabled => Anonymous::Paths(c.conditions.iter().map(|c| c.path.clone()).collect()),
            _ => Anonymous::Nowhere,
        };
        self.anonymous.store(Arc::new(anonymous));
    }
}

#[async_trait]
impl TokenAuthenticator for Configured {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let issuers = self.issuers.load_full();
        if issuers.authenticators.is_empty() {
            return Ok(None);
        }
        let key = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        let identity = |user| TokenIdentity { user, audiences: audiences.to_vec() };
        if let Some((until, user)) = issuers.remembered.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(Some(identity(user.clone())));
        }
        for authenticator in &issuers.authenticators {
            let Some(found) = authenticator.authenticate_token(token, audiences).await? else { continue };
            let mut remembered = issuers.remembered.lock();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(key, (Instant::now() + TRUST, found.user.clone()));
            return Ok(Some(found));
        }
        Ok(None)
    }
}
