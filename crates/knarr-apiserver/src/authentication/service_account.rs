//! Service-account tokens: signature, time, audience, and that everything they are bound to still exists.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object};
use parking_lot::Mutex;

use super::{User, token::TokenAuthenticator, token::TokenIdentity};
use crate::objects::Objects;
use crate::tokens::{BoundObject, Claims, Issuer, TokenError, now};

/// For so many seconds a token's bound objects are believed to be still there.
const TRUST_SECONDS: i64 = 2;
/// Tokens whose users are remembered.
const REMEMBERED: usize = 4096;
/// A deleted object still counts for so long: a pod being terminated may yet use its token.
const DELETED_LEEWAY_SECONDS: i64 = 60;

/// Authenticates the tokens of one issuer.
pub struct ServiceAccounts {
    issuer: Arc<Issuer>,
    objects: Arc<dyn Objects>,
    recent: Mutex<HashMap<String, (i64, TokenIdentity)>>,
}

impl ServiceAccounts {
    pub fn new(issuer: Arc<Issuer>, objects: Arc<dyn Objects>) -> Self {
        ServiceAccounts { issuer, objects, recent: Mutex::default() }
    }

    async fn check_bound(&self, claims: &Claims) -> Result<(), String> {
        let k = &claims.kubernetes;
        let account = self.find("serviceaccounts", &k.namespace, &k.serviceaccount).await?;
        let account = account.ok_or_else(|| format!("serviceaccounts {:?} not found", k.serviceaccount.name))?;
        if account.uid() != k.serviceaccount.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                account.uid(),
                k.serviceaccount.uid
            ));
        }
        if long_deleted(&account) {
            return Err(format!("service account {}/{} has been deleted", k.namespace, k.serviceaccount.name));
        }
        for (resource, namespace, reference) in [
            ("pods", k.namespace.as_str(), &k.pod),
            ("secrets", k.namespace.as_str(), &k.secret),
            // A pod's token names its node for information only; a node's own token is bound to it.
            ("nodes", "", if k.pod.is_some() { &None } else { &k.node }),
        ] {
            let Some(reference) = reference else { continue };
            let found = self.find(resource, namespace, reference).await?;
            if !found.is_some_and(|o| o.uid() == reference.uid && !long_deleted(&o)) {
                return Err("service account token has been invalidated".into());
            }
        }
        Ok(())
    }

    async fn find(
        &self,
        resource: &'static str,
        namespace: &str,
        reference: &BoundObject,
    ) -> Result<Option<Arc<Object>>, String> {
        let resource = GroupResource::new("", resource);
        self.objects.get(&resource, namespace, &reference.name).await.map_err(|e| e.message)
    }
}

fn long_deleted(object: &Object) -> bool {
    let at = object.meta_str("deletionTimestamp");
    at.parse::<jiff::Timestamp>().is_ok_and(|at| at.as_second() + DELETED_LEEWAY_SECONDS < now())
}

fn user_of(claims: &Claims) -> User {
    let k = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
        }
    };
    if !claims.id.is_empty() {
        add("credential-id", &format!("JTI={}", claims.id));
    }
    for (kind, object) in [("pod", &k.pod), ("node", &k.node)] {
        if let Some(object) = object {
            add(&format!("{kind}-name"), &object.name);
            add(&format!("{kind}-uid"), &object.uid);
        }
    }
    User {
        name: format!("system:serviceaccount:{}:{}", k.namespace, k.serviceaccount.name),
        uid: k.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", k.namespace),
            super::ALL_AUTHENTICATED.into(),
        ],
        extra,
    }
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let claims = match self.issuer.verify(token, now()) {
            Ok(claims) => claims,
            Err(TokenError::Foreign) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let theirs = claims.audiences.as_slice();
        let shared: Vec<String> = audiences.iter().filter(|a| theirs.contains(a)).cloned().collect();
        if shared.is_empty() {
            return Err(format!("token audiences {theirs:?} is invalid for the target audiences {audiences:?}"));
        }
        if claims.subject
            != format!(
                "system:serviceaccount:{}:{}",
                claims.kubernetes.namespace, claims.kubernetes.serviceaccount.name
            )
        {
            return Err(TokenError::Forged.to_string());
        }
        self.check_bound(&claims).await?;
        Ok(Some(TokenIdentity { user: Arc::new(user_of(&claims)), audiences: shared }))
    }

    async fn authenticate_request(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let time = now();
        if let Some((until, identity)) = self.recent.lock().get(token)
            && time < *until
        {
            return Ok(Some(identity.clone()));
        }
        let Some(identity) = self.authenticate_token(token, audiences).await? else { return Ok(None) };
        let mut recent = self.recent.lock();
        if recent.len() >= REMEMBERED {
            recent.clear();
        }
        recent.insert(token.to_string(), (time + TRUST_SECONDS, identity.clone()));
        Ok(Some(identity))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::subresources::{Answer, Call, Handler};
    use crate::testing::Memory;
    use crate::tokens::TokenRequestHandler;

    fn call(spec: serde_json::Value) -> Call {
        let accounts = knarr_api::GroupVersionResource::new("", "v1", "serviceaccounts");
        Call {
            resource: knarr_api::resource::built_in().by_gvr(&accounts).unwrap().clone(),
            namespace: "a".into(),
            name: "robot".into(),
            user: Arc::default(),
            object: json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}),
            dry_run: false,
        }
    }

    async fn answer(handler: &dyn Handler, mut call: Call) -> Result<Answer, knarr_api::StatusError> {
        handler.check(&mut call).await?;
        handler.handle(call).await
    }

    #[tokio::test]
    async fn a_token_dies_with_its_pod() {
        let objects = Memory::new();
        objects.put("", "serviceaccounts", json!({"metadata": {"name": "robot", "namespace": "a", "uid": "s1"}}));
        objects.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "p1"}, "spec": {"serviceAccountName": "robot"}}),
        );
        let issuer = Arc::new(crate::tokens::test_issuer());
        let handler = TokenRequestHandler { issuer: issuer.clone(), objects: objects.clone() };
        let spec = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p1"}});
        let answer = answer(&handler, call(spec)).await.unwrap();
        let token = answer.object["status"]["token"].as_str().unwrap().to_string();
        let accounts = ServiceAccounts::new(issuer.clone(), objects.clone());
        let identity = accounts.authenticate_token(&token, issuer.audiences()).await.unwrap().unwrap();
        assert_eq!(identity.user.name, "system:serviceaccount:a:robot");
        assert_eq!(identity.user.extra["authentication.kubernetes.io/pod-uid"], ["p1"]);
        assert!(accounts.authenticate_token(&token, &["other".into()]).await.is_err());
        objects.delete(&GroupResource::new("", "pods"), "a", "p", json!({})).await.unwrap();
        assert_eq!(
            accounts.authenticate_token(&token, issuer.audiences()).await.unwrap_err(),
            "service account token has been invalidated"
        );
    }

    #[tokio::test]
    async fn a_short_life_is_refused() {
        let objects = Memory::new();
        objects.put("", "serviceaccounts", json!({"metadata": {"name": "robot", "namespace": "a", "uid": "s1"}}));
        let handler = TokenRequestHandler { issuer: Arc::new(crate::tokens::test_issuer()), objects };
        let error = answer(&handler, call(json!({"expirationSeconds": 599}))).await.err().unwrap();
        assert_eq!((error.code, error.details.unwrap().causes[0].field.as_str()), (422, "spec.expirationSeconds"));
    }
}
