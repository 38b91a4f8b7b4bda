//! KMS v2: a service behind a unix socket holds the key that encrypts our keys.
//!
//! Every value is encrypted with a key derived from a seed; the seed, encrypted by the service, stands beside the value. One seed is
//! used until the service names another key. The service is asked for its state every minute; if it fails, the last seed may be used
//! for three minutes more, and then writes fail.

mod messages;
pub mod metrics;
mod service;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use crate::TransformError;
use crate::ciphers::{Cipher, SEED, random};
use crate::config::KmsConfiguration;
use crate::transformer::Plain;
pub use messages::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, StatusRequest, StatusResponse,
};
use messages::{KEY, SEEDED};
use metrics::{KmsMeter, Transformation};
use service::Service;

const POLL_HEALTHY: Duration = Duration::from_secs(60);
const POLL_FAILING: Duration = Duration::from_secs(10);
/// How long a seed may be written with after the service last confirmed it.
const SEED_LIFE: Duration = Duration::from_secs(180);
/// Seeds of values read lately.
const REMEMBERED: usize = 4096;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// What values are written with now.
struct Current {
    cipher: Arc<Cipher>,
    /// An encrypted object but for its data.
    envelope: EncryptedObject,
    key_hash: String,
    expires: Instant,
}

/// One key service.
pub struct Kms {
    name: String,
    prefix: String,
    service: Service,
    meter: Arc<KmsMeter>,
    current: Mutex<Option<Arc<Current>>>,
    seeds: Mutex<HashMap<Vec<u8>, Arc<Cipher>>>,
    /// How it was when last asked; `None` before that.
    health: watch::Sender<Option<Result<(), String>>>,
}

impl Kms {
    /// Does not connect yet.
    pub fn new(config: &KmsConfiguration) -> Self {
        let meter = Arc::new(KmsMeter::new(&config.name));
        Kms {
            name: config.name.clone(),
            prefix: format!("k8s:enc:kms:v2:{}:", config.name),
            service: Service::new(&config.endpoint, timeout_of(config).unwrap_or(DEFAULT_TIMEOUT), meter.clone()),
            meter,
            current: Mutex::new(None),
            seeds: Mutex::default(),
            health: watch::Sender::new(None),
        }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The error of the last look at the service, in upstream's words.
    pub fn health(&self) -> Result<(), String> {
        self.health.borrow().clone().unwrap_or_else(|| Err(format!("KMS Provider {} was not asked yet", self.name)))
    }

    /// Changes of [`Kms::health`].
    pub fn watch_health(&self) -> watch::Receiver<Option<Result<(), String>>> {
        self.health.subscribe()
    }

    /// Asks the service for its state for ever.
    pub async fn follow(&self) {
        loop {
            let healthy = self.probe().await.is_ok();
            tokio::time::sleep(if healthy { POLL_HEALTHY } else { POLL_FAILING }).await;
        }
    }

    /// Asks once, and takes a new seed if the service has a new key.
    pub fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let result = self.look().await;
            if let Err(error) = &result {
                tracing::error!(provider = self.name, error, "key service is not healthy");
            }
            self.health.send_replace(Some(result.clone()));
            result
        })
    }

    async fn look(&self) -> Result<(), String> {
        let status = self.service.status().await.map_err(|e| {
            format!("failed to perform status section of the healthz check for KMS Provider {}, error: {e}", self.name)
        })?;
        let mut errors = Vec::new();
        if status.healthz != "ok" {
            errors.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            errors.push(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        match check_key_id(&status.key_id) {
            Ok(()) => {
                self.meter.told(&metrics::hash(&status.key_id));
                errors.extend(self.rotate(&status.key_id).await.err());
            }
            Err(error) => {
                self.meter.told_nonsense(&status.key_id);
                errors.push(format!("got invalid KMSv2 KeyID: {error}"));
            }
        }
        let shown = match errors.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            more => format!("[{}]", more.join(", ")),
        };
        Err(format!("kmsv2 Provider {} is not healthy, error: {shown}", self.name))
    }

    /// Confirms the seed in use, or takes a new one.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        let expires = Instant::now() + SEED_LIFE;
        let current = self.current.lock().clone();
        if let Some(current) = current.filter(|c| c.envelope.key_id == key_id) {
            let (cipher, envelope) = (current.cipher.clone(), current.envelope.clone());
            let key_hash = current.key_hash.clone();
            *self.current.lock() = Some(Arc::new(Current { cipher, envelope, key_hash, expires }));
            return Ok(());
        }
        let seed = random::<SEED>().map_err(|e| e.to_string())?;
        let sealed = self.service.encrypt(&seed).await.map_err(|e| format!("failed to encrypt DEK, error: {e}"))?;
        if sealed.key_id != key_id {
            return Err("failed to rotate DEK: the service encrypts with another key than its status says".into());
        }
        let envelope = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: sealed.key_id,
            encrypted_dek_source: sealed.ciphertext,
            annotations: sealed.annotations.into_iter().collect(),
            encrypted_dek_source_type: SEEDED,
        };
        check_envelope(&envelope)?;
        let cipher = Arc::new(Cipher::Derived(seed));
        self.remember(cache_key(&envelope), cipher.clone());
        let key_hash = metrics::hash(key_id);
        *self.current.lock() = Some(Arc::new(Current { cipher, envelope, key_hash, expires }));
        tracing::info!(provider = self.name, "encrypting with a new seed");
        Ok(())
    }

    /// An encoded [`EncryptedObject`], without the provider's prefix.
    pub fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>, TransformError> {
        let current = self.current.lock().clone().ok_or("got unexpected nil transformer")?;
        if Instant::now() > current.expires {
            return Err("encryptedDEKSource expired: the key service has not confirmed its key for too long".into());
        }
        let encrypted_data = current.cipher.encrypt(plain, context.as_bytes())?;
        self.meter.used(Transformation::ToStorage, &current.key_hash);
        Ok(EncryptedObject { encrypted_data, ..current.envelope.clone() }.encode_to_vec())
    }

    /// The way back from [`Kms::encrypt`]; asks the service for a seed that it has not seen lately.
    pub async fn decrypt(&self, stored: &[u8], context: &str) -> Result<Plain, TransformError> {
        let mut object = EncryptedObject::decode(stored).map_err(|e| TransformError(e.to_string()))?;
        if object.encrypted_data.is_empty() {
            return Err("encrypted data is empty".into());
        }
        check_envelope(&object).map_err(TransformError)?;
        let sealed = std::mem::take(&mut object.encrypted_data);
        let cipher = self.cipher_of(&object).await?;
        let value = cipher.decrypt(&sealed, context.as_bytes())?;
        let current = self.current.lock().clone().filter(|current| current.envelope.key_id == object.key_id);
        match &current {
            Some(current) => self.meter.used(Transformation::FromStorage, &current.key_hash),
            None => self.meter.used(Transformation::FromStorage, &metrics::hash(&object.key_id)),
        }
        let fresh = current.is_some() && object.encrypted_dek_source_type == SEEDED;
        Ok(Plain { value, stale: !fresh })
    }

    async fn cipher_of(&self, object: &EncryptedObject) -> Result<Arc<Cipher>, TransformError> {
        let key = cache_key(object);
        if let Some(cipher) = self.seeds.lock().get(&key) {
            return Ok(cipher.clone());
        }
        // A service that is down would otherwise cost its time limit once for every object of a start.
        if let Some(Err(error)) = &*self.health.borrow() {
            return Err(TransformError(format!("failed to decrypt DEK, error: {error}")));
        }
        let opened = self.service.decrypt(object).await;
        let opened = opened.map_err(|e| TransformError(format!("failed to decrypt DEK, error: {e}")))?;
        let cipher = match object.encrypted_dek_source_type {
            KEY => Cipher::aes_gcm(&opened).ok_or("invalid key size")?,
            _ => {
                let seed = opened.as_slice().try_into();
                let why = |_| TransformError(format!("invalid seed length {} used for key generation", opened.len()));
                Cipher::Derived(seed.map_err(why)?)
            }
        };
        let cipher = Arc::new(cipher);
        self.remember(key, cipher.clone());
        Ok(cipher)
    }

    fn remember(&self, key: Vec<u8>, cipher: Arc<Cipher>) {
        let mut seeds = self.seeds.lock();
        if seeds.len() >= REMEMBERED {
            seeds.clear();
        }
        seeds.insert(key, cipher);
        self.meter.remembers(seeds.len());
    }
}

/// All of an envelope but its data: the map is ordered, so that equal envelopes have equal bytes.
fn cache_key(object: &EncryptedObject) -> Vec<u8> {
    EncryptedObject { encrypted_data: Vec::new(), ..object.clone() }.encode_to_vec()
}

fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("keyID is empty".into()),
        1..=1024 => Ok(()),
        long => Err(format!("keyID is {long} bytes, which exceeds the max size of 1024")),
    }
}

/// Upstream's limits on what stands beside a value.
fn check_envelope(object: &EncryptedObject) -> Result<(), String> {
    if !matches!(object.encrypted_dek_source_type, KEY | SEEDED) {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.encrypted_dek_source_type));
    }
    match object.encrypted_dek_source.len() {
        0 => return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".into()),
        1..=1024 => {}
        long => {
            return Err(format!(
                "failed to validate encrypted DEK source: encrypted DEK source is {long} bytes, which exceeds the max size of 1024"
            ));
        }
    }
    check_key_id(&object.key_id).map_err(|e| format!("failed to validate key id: {e}"))?;
    let size: usize = object.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > 32 << 10 {
        return Err(format!(
            "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of 32768"
        ));
    }
    Ok(())
}

/// The time a call may take; `None` if the text is no duration.
pub(crate) fn timeout_of(config: &KmsConfiguration) -> Option<Duration> {
    config.timeout.as_deref().map_or(Some(DEFAULT_TIMEOUT), knarr_api::go_duration::parse)
}
