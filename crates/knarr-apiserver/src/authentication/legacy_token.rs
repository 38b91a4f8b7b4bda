//! Service-account tokens that stand in Secrets and never expire: they live as long as their Secret and their account.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object};
use serde_json::Value;

use super::User;
use super::token::{TokenAuthenticator, TokenIdentity};
use crate::jose::{Algorithm, Jws, PublicKey, unproven_issuer};
use crate::objects::Objects;

const ISSUER: &str = "kubernetes/serviceaccount";
const INVALIDATED: &str = "service account token has been invalidated";

/// Authenticates them.
pub struct LegacyTokens {
    pub keys: Vec<PublicKey>,
    pub objects: Arc<dyn Objects>,
    /// Of the API server itself: what such tokens, which name none, are meant for.
    pub audiences: Vec<String>,
}

impl LegacyTokens {
    async fn find(&self, resource: &'static str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, String> {
        self.objects.get(&GroupResource::new("", resource), namespace, name).await.map_err(|e| e.message)
    }

    async fn user(&self, token: &str) -> Result<User, String> {
        let jws = Jws::parse(token).map_err(|e| e.to_string())?;
        jws.verify(self.keys.iter(), &Algorithm::ALL).map_err(|_| "invalid bearer token")?;
        let claim =
            |name: &str| jws.claims.get(&format!("{ISSUER_CLAIMS}{name}")).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (claim("namespace"), claim("service-account.name"));
        let (uid, secret) = (claim("service-account.uid"), claim("secret.name"));
        for (value, what) in
            [(namespace, "namespace"), (secret, "secretName"), (name, "serviceAccountName"), (uid, "serviceAccountUID")]
        {
            if value.is_empty() {
                return Err(format!("{what} claim is missing"));
            }
        }
        let user = format!("system:serviceaccount:{namespace}:{name}");
        if jws.claims.get("sub").and_then(Value::as_str) != Some(&user) {
            return Err("sub claim is invalid".into());
        }
        let stored = self.find("secrets", namespace, secret).await?.filter(|s| !s.is_deleting());
        let stored = stored.as_ref().and_then(|s| s.pointer("/data/token")).and_then(Value::as_str);
        if stored.and_then(|text| STANDARD.decode(text).ok()).as_deref() != Some(token.as_bytes()) {
            return Err(INVALIDATED.into());
        }
        let account = self.find("serviceaccounts", namespace, name).await?.filter(|a| !a.is_deleting());
        let account = account.ok_or_else(|| format!("service account {namespace}/{name} has been deleted"))?;
        if account.uid() != uid {
            return Err(format!("service account UID ({}) does not match claim ({uid})", account.uid()));
        }
        let groups = vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
        Ok(User { name: user, uid: uid.into(), groups, ..User::default() })
    }
}

const ISSUER_CLAIMS: &str = "kubernetes.io/serviceaccount/";

#[async_trait]
impl TokenAuthenticator for LegacyTokens {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        if unproven_issuer(token).as_deref() != Some(ISSUER) {
            return Ok(None);
        }
        let user = Arc::new(self.user(token).await?);
        let shared: Vec<String> = audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
        if shared.is_empty() {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {audiences:?}",
                self.audiences
            ));
        }
        Ok(Some(TokenIdentity { user, audiences: shared }))
    }
}
