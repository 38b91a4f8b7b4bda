//! Service account tokens of pods: asked of the API, bound to the pod, renewed well before they end.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::pod::DesiredPod;

/// A token and when to replace it.
#[derive(Clone)]
pub struct Token {
    pub token: String,
    pub refresh_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: Option<String>,
    expiration: i64,
}

/// The tokens of this node's pods.
pub struct Tokens {
    client: Client,
    held: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub fn new(client: Client) -> Tokens {
        Tokens { client, held: Mutex::default() }
    }

    /// A token of the pod's service account that is good for a while.
    pub async fn token(
        &self,
        pod: &DesiredPod,
        audience: Option<String>,
        expiration: Option<i64>,
    ) -> Result<Token, String> {
        let key = Key { pod_uid: pod.uid.clone(), audience, expiration: expiration.unwrap_or(3600) };
        let held = self.held.lock().get(&key).cloned();
        if let Some(held) = held.filter(|held| held.refresh_at > Timestamp::now()) {
            return Ok(held);
        }
        let token = self.request(pod, &key).await?;
        self.held.lock().insert(key, token.clone());
        Ok(token)
    }

    pub fn forget_pod(&self, uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != uid);
    }

    async fn request(&self, pod: &DesiredPod, key: &Key) -> Result<Token, String> {
        let account = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(key.audience.iter().cloned().collect()),
                expiration_seconds: Some(key.expiration),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name.clone()),
                    uid: Some(pod.uid.clone()),
                }),
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &pod.namespace);
        let failed = |error: kube::Error| format!("failed to fetch token: {error}");
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.map_err(failed)?;
        let status = answer.status.ok_or("failed to fetch token: the answer has no status")?;
        let (token, end) =
            status.token.zip(status.expiration_timestamp).ok_or("failed to fetch token: the answer has none")?;
        Ok(Token { token, refresh_at: refresh_at(Timestamp::now(), end.0) })
    }
}

/// After four fifths of a token's life, and at least daily.
fn refresh_at(now: Timestamp, end: Timestamp) -> Timestamp {
    let life = end.duration_since(now).max(SignedDuration::ZERO);
    let wait = (life / 5 * 4).min(SignedDuration::from_hours(24));
    now.checked_add(wait).unwrap_or(end)
}
