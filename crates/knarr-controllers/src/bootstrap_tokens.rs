//! Bootstrap tokens: `cluster-info` is signed with each, so that who knows one can tell the true cluster; and those whose time is over
//! are removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler, Selection};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use ring::hmac;

use crate::context::Context;
use crate::meta;

const SECRETS_NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const SECRET_PREFIX: &str = "bootstrap-token-";
const MAP_NAMESPACE: &str = "kube-public";
const MAP: &str = "cluster-info";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// A wait is never longer, so that a clock that was set is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(crate) async fn run(context: Arc<Context>) {
    let secrets = context.informers.selected::<Secret>(Selection {
        namespace: Some(SECRETS_NAMESPACE.into()),
        field_selector: Some(format!("type={SECRET_TYPE}")),
        ..Selection::default()
    });
    let maps = context.informers.selected::<ConfigMap>(Selection {
        namespace: Some(MAP_NAMESPACE.into()),
        field_selector: Some(format!("metadata.name={MAP}")),
        ..Selection::default()
    });
    let signer = Signer { secrets: secrets.clone(), maps: maps.clone(), client: context.client("bootstrap-signer") };
    let signing = Controller::new(signer)
        .watch(&secrets, |_: &Event<Secret>| vec![()])
        .watch(&maps, |_: &Event<ConfigMap>| vec![()])
        .run(context.shutdown.clone());
    let cleaner = Cleaner { secrets: secrets.clone(), client: context.client("token-cleaner") };
    let cleaning = Controller::new(cleaner)
        .watch(&secrets, |event: &Event<Secret>| match event {
            Event::Deleted(_) => Vec::new(),
            _ => vec![meta::name_of(&**event.object()).to_string()],
        })
        .run(context.shutdown.clone());
    tokio::join!(signing, cleaning);
}

fn data<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// When a token's time is over: at once, where it cannot be read; never, where none is given.
fn expiration(secret: &Secret) -> Option<Timestamp> {
    match data(secret, "expiration") {
        "" => None,
        text => Some(text.parse().unwrap_or(Timestamp::UNIX_EPOCH)),
    }
}

/// The id and secret of a token that may sign now.
fn signing_token(secret: &Secret) -> Option<(&str, &str)> {
    let id = meta::name_of(secret).strip_prefix(SECRET_PREFIX)?;
    let value = data(secret, "token-secret");
    let usable = data(secret, "token-id") == id
        && !value.is_empty()
        && data(secret, "usage-bootstrap-signing") == "true"
        && expiration(secret).is_none_or(|end| end > Timestamp::now());
    usable.then_some((id, value))
}

/// A JSON web signature (HS256) whose content is left out (RFC 7515, appendix F).
fn detached_signature(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Signer {
    secrets: Informer<Secret>,
    maps: Informer<ConfigMap>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for Signer {
    type Key = ();

    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    async fn reconcile(&self, (): &()) -> Result<Action, Error> {
        let Some(map) = self.maps.get(MAP_NAMESPACE, MAP) else { return Ok(Action::Done) };
        let known = map.data.clone().unwrap_or_default();
        let Some(content) = known.get("kubeconfig") else { return Ok(Action::Done) };
        let secrets = self.secrets.list();
        let signatures: BTreeMap<String, String> = secrets
            .iter()
            .filter_map(|secret| signing_token(secret))
            .map(|(id, secret)| (format!("{SIGNATURE_PREFIX}{id}"), detached_signature(content, id, secret)))
            .collect();
        let mut wanted: BTreeMap<String, String> = known
            .iter()
            .filter(|(k, _)| !k.starts_with(SIGNATURE_PREFIX))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        wanted.extend(signatures);
        if wanted != known {
            let changed = ConfigMap { data: Some(wanted), ..(*map).clone() };
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), MAP_NAMESPACE);
            api.replace(MAP, &PostParams::default(), &changed).await?;
        }
        Ok(Action::Done)
    }
}

struct Cleaner {
    secrets: Informer<Secret>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for Cleaner {
    type Key = String;

    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(secret) = self.secrets.get(SECRETS_NAMESPACE, name) else { return Ok(Action::Done) };
        let Some(end) = expiration(&secret) else { return Ok(Action::Done) };
        let left = end.as_second() - Timestamp::now().as_second();
        if left > 0 {
            return Ok(Action::RequeueAfter(Duration::from_secs(left as u64).min(LONGEST_WAIT)));
        }
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), ..Preconditions::default() };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), SECRETS_NAMESPACE);
        match api.delete(name, &options).await.map_err(Error::from) {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of upstream's design document of the bootstrap signer.
    #[test]
    fn a_signature_leaves_its_content_out() {
        let signature = detached_signature("payload", "abcdef", "0123456789abcdef");
        let (header, rest) = signature.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode("payload"));
        hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(rest).unwrap()).unwrap();
    }
}
