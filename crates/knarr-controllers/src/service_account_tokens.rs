//! Secrets of type `kubernetes.io/service-account-token` get a token of the account that they name, and go with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use knarr_client::{Action, Controller, Error, Informer, ObjectKey, Reconciler, Selection};
use knarr_pki::TokenKey;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "service-account-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

pub(crate) async fn run(context: Arc<Context>) {
    let Some(key) = context.config.token_key.clone() else { return };
    let secrets = context.informers.selected::<Secret>(Selection::fields(&format!("type={TYPE}")));
    let accounts = context.informers.all::<ServiceAccount>();
    let loop_ = Tokens {
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        // As upstream's, which runs with the controller manager's own rights: no controller's role may read all Secrets.
        client: context.informers.client(),
        key,
        root_ca: context.config.root_ca.clone(),
    };
    let named = secrets.clone();
    named.add_index(NAME, |secret: &Secret| {
        let account = meta::annotation(secret, NAME).unwrap_or_default();
        vec![format!("{}/{account}", meta::namespace_of(secret))]
    });
    Controller::new(loop_)
        .watch(&secrets, |event| vec![key_of(event.object())])
        .watch(&accounts, move |event| {
            let account = event.object();
            let name = format!("{}/{}", meta::namespace_of(&**account), meta::name_of(&**account));
            named.indexed(NAME, &name).iter().map(|secret| key_of(secret)).collect()
        })
        .run(context.shutdown.clone())
        .await;
}

fn key_of(secret: &Secret) -> ObjectKey {
    ObjectKey::new(meta::namespace_of(secret), meta::name_of(secret))
}

struct Tokens {
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    client: Client,
    key: Arc<TokenKey>,
    root_ca: String,
}

#[async_trait::async_trait]
impl Reconciler for Tokens {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        if meta::is_deleted(&*secret) {
            return Ok(Action::Done);
        }
        let Some(name) = meta::annotation(&*secret, NAME).filter(|name| !name.is_empty()) else {
            return Ok(Action::Done);
        };
        let known = self.accounts.get(&key.namespace, name);
        let of_this = |account: &ServiceAccount| {
            meta::annotation(&*secret, UID).is_none_or(|uid| uid.is_empty() || uid == meta::uid_of(account))
        };
        match known.filter(|account| of_this(account)) {
            Some(account) => self.fill(&secret, &account).await,
            None => self.remove(&secret, name).await,
        }
    }
}

impl Tokens {
    async fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Result<Action, Error> {
        let namespace = meta::namespace_of(secret);
        let mut filled = secret.clone();
        let data = filled.data.get_or_insert_default();
        let wanted = [("ca.crt", self.root_ca.as_str()), ("namespace", namespace)];
        for (name, value) in wanted.into_iter().filter(|(_, value)| !value.is_empty()) {
            data.insert(name.into(), ByteString(value.as_bytes().to_vec()));
        }
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let token = self.token(namespace, meta::name_of(secret), account)?;
            data.insert("token".into(), ByteString(token.into_bytes()));
        }
        let annotations: &mut BTreeMap<String, String> = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(UID.into(), meta::uid_of(account).into());
        if filled == *secret {
            return Ok(Action::Done);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match api.replace(meta::name_of(secret), &PostParams::default(), &filled).await.map_err(Error::from) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Action::Done),
        }
    }

    /// The account is gone, or another one of its name is there. The cache may be behind, so the API is asked.
    async fn remove(&self, secret: &Secret, name: &str) -> Result<Action, Error> {
        let namespace = meta::namespace_of(secret);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let uid = meta::annotation(secret, UID).unwrap_or_default();
        if let Some(account) = accounts.get_opt(name).await?
            && (uid.is_empty() || uid == meta::uid_of(&account))
        {
            return self.fill(secret, &account).await;
        }
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), ..Preconditions::default() };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match api.delete(meta::name_of(secret), &options).await.map_err(Error::from) {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }

    fn token(&self, namespace: &str, secret: &str, account: &ServiceAccount) -> Result<String, Error> {
        let name = meta::name_of(account);
        let header = json!({"alg": "ES256", "kid": self.key.id()});
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": meta::uid_of(account),
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).map_err(|e| Error::other(e.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
