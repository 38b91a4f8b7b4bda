//! Bootstrap tokens: `id.secret`, kept as Secrets in kube-system, with which a new node first asks for a certificate.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use ring::digest::{SHA256, digest};

use super::User;
use super::token::{TokenAuthenticator, TokenIdentity};
use crate::objects::Objects;
use crate::tokens::now;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";

/// Authenticates bootstrap tokens.
pub struct BootstrapTokens {
    pub objects: Arc<dyn Objects>,
    pub audiences: Vec<String>,
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The id and the secret, if the token has their form.
fn split(token: &str) -> Option<(&str, &str)> {
    token.split_once('.').filter(|(id, secret)| is_word(id, 6) && is_word(secret, 16))
}

fn data(secret: &Object, key: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Comparing digests takes the same time wherever the first difference is.
fn same(a: &str, b: &str) -> bool {
    digest(&SHA256, a.as_bytes()).as_ref() == digest(&SHA256, b.as_bytes()).as_ref()
}

fn expired(secret: &Object) -> bool {
    match data(secret, "expiration") {
        None => false,
        // An expiration that cannot be read is over.
        Some(text) => text.parse::<jiff::Timestamp>().map_or(true, |t| t.as_second() <= now()),
    }
}

fn groups(secret: &Object) -> Option<Vec<String>> {
    let mut groups = vec![DEFAULT_GROUP.to_string()];
    for group in data(secret, "auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_string());
    }
    Some(groups)
}

impl BootstrapTokens {
    async fn user(&self, token: &str) -> Result<Option<Arc<User>>, StatusError> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let Some(stored) = self.objects.get(&GroupResource::new("", "secrets"), NAMESPACE, &name).await? else {
            return Ok(None);
        };
        let valid = stored.get("type").is_some_and(|t| t == SECRET_TYPE)
            && !stored.is_deleting()
            && data(&stored, "token-id").is_some_and(|stored| stored == id)
            && data(&stored, "token-secret").is_some_and(|stored| same(&stored, secret))
            && data(&stored, "usage-bootstrap-authentication").is_some_and(|usage| usage == "true")
            && !expired(&stored);
        let groups = groups(&stored).filter(|_| valid);
        Ok(groups.map(|groups| Arc::new(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })))
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let shared: Vec<String> = audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
        let user = if shared.is_empty() { None } else { self.user(token).await.map_err(|e| e.message)? };
        Ok(user.map(|user| TokenIdentity { user, audiences: shared }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Memory;

    #[tokio::test]
    async fn only_the_right_secret_before_its_end_gets_in() {
        let objects = Memory::new();
        let put = |usage: &str, expiration: &str| {
            let encode = |text: &str| STANDARD.encode(text);
            objects.put(
                "",
                "secrets",
                json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": NAMESPACE}, "type": SECRET_TYPE, "data": {
                    "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"), "expiration": encode(expiration),
                    "usage-bootstrap-authentication": encode(usage), "auth-extra-groups": encode("system:bootstrappers:x")}}),
            );
        };
        let tokens = BootstrapTokens { objects: objects.clone(), audiences: Vec::new() };
        put("true", "2999-01-01T00:00:00Z");
        let user = tokens.user("abcdef.0123456789abcdef").await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("system:bootstrap:abcdef", 2));
        assert_eq!(tokens.user("abcdef.0123456789abcdee").await.unwrap(), None);
        put("true", "2001-01-01T00:00:00Z");
        assert_eq!(tokens.user("abcdef.0123456789abcdef").await.unwrap(), None);
        put("false", "2999-01-01T00:00:00Z");
        assert_eq!(tokens.user("abcdef.0123456789abcdef").await.unwrap(), None);
    }
}
