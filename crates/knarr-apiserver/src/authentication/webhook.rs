//! A service that knows tokens: it is sent a `TokenReview` and answers it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::User;
use super::token::{TokenAuthenticator, TokenIdentity};
use crate::outbound::{Client, Limits, with_backoff};

/// Answers remembered.
const REMEMBERED: usize = 4096;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

type Answer = Option<TokenIdentity>;

/// Asks a service about tokens that nobody else knows.
pub struct TokenWebhook {
    pub client: Client,
    /// `v1` or `v1beta1`, of `authentication.k8s.io`.
    pub version: String,
    /// How long an answer holds; errors never do.
    pub cache_ttl: Duration,
    /// Audiences of the API server itself, which a service that knows nothing of audiences is taken to mean.
    pub audiences: Vec<String>,
    remembered: Mutex<HashMap<Vec<u8>, (Instant, Answer)>>,
}

impl TokenWebhook {
    pub fn new(client: Client, version: &str, cache_ttl: Duration, audiences: Vec<String>) -> Self {
        TokenWebhook { client, version: version.into(), cache_ttl, audiences, remembered: Mutex::default() }
    }

    async fn ask(&self, token: &str, wanted: &[String]) -> Result<Answer, String> {
        let mut spec = json!({ "token": token });
        if !wanted.is_empty() {
            spec["audiences"] = json!(wanted);
        }
        let api_version = format!("authentication.k8s.io/{}", self.version);
        let review = json!({"apiVersion": api_version, "kind": "TokenReview",
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"user": {}}});
        let answer = with_backoff(FIRST_PAUSE, || self.client.post(&review, Limits::default())).await;
        let answer = answer.map_err(|e| e.to_string())?;
        let status = answer.get("status").unwrap_or(&Value::Null);
        let named = strings(status.get("audiences"));
        let theirs = if named.is_empty() { &self.audiences } else { &named };
        let shared: Vec<String> = wanted.iter().filter(|a| theirs.contains(a)).cloned().collect();
        if !wanted.is_empty() && shared.is_empty() {
            return Ok(None);
        }
        if status["authenticated"] != true {
            return match status["error"].as_str().unwrap_or_default() {
                "" => Ok(None),
                error => Err(error.to_string()),
            };
        }
        Ok(Some(TokenIdentity { user: Arc::new(user(&status["user"])), audiences: shared }))
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

fn user(info: &Value) -> User {
    let text = |field: &str| info[field].as_str().unwrap_or_default().to_string();
    let extra = info["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(k, v)| (k.clone(), strings(Some(v)))).collect();
    User { name: text("username"), uid: text("uid"), groups: strings(info.get("groups")), extra }
}

/// Tokens are secrets: what is kept of them is a digest.
fn cache_key(token: &str, audiences: &[String]) -> Vec<u8> {
    let text = format!("{token}\n{}", audiences.join("\n"));
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

#[async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Answer, String> {
        let key = cache_key(token, audiences);
        if let Some((until, answer)) = self.remembered.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(answer.clone());
        }
        let answer = self.ask(token, audiences).await.inspect_err(|error| {
            tracing::error!(error, "the token webhook gave no answer");
        })?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now() + self.cache_ttl, answer.clone()));
        Ok(answer)
    }
}
