use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::refusal::{annotation, forbidden, is_main, items, list_mut, text};
use super::{Operation, Plugin, Request};
use crate::objects::{Change, Objects};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and seven seconds by which this volume is told from one that a user wrote.
const TOKEN_SECONDS: i64 = 3607;
/// A namespace's default account is made by a controller moments after the namespace.
const WAIT_FOR_DEFAULT: Duration = Duration::from_secs(2);

/// Every pod runs as a service account that exists, with a token where it looks for one.
pub struct ServiceAccount {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        if annotation(pod, "kubernetes.io/config.mirror").is_some() {
            return check_mirror(request, pod);
        }
        let given = [text(pod, "/spec/serviceAccountName"), text(pod, "/spec/serviceAccount"), "default"];
        let name = given.into_iter().find(|n| !n.is_empty()).unwrap_or_default().to_string();
        let Some(account) = self.find(&request.namespace, &name).await? else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                request.namespace
            );
            return Err(forbidden(request, why));
        };
        let Some(pod) = &mut request.object else { return Ok(()) };
        pod["spec"]["serviceAccountName"] = name.clone().into();
        pod["spec"]["serviceAccount"] = name.into();
        if automounts(&account, pod) {
            mount_token(pod);
        }
        let pulls = items(pod, "/spec/imagePullSecrets").next().is_some();
        if let Some(secrets) = account.get("imagePullSecrets").filter(|_| !pulls) {
            pod["spec"]["imagePullSecrets"] = secrets.clone();
        }
        Ok(())
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        let name = text(pod, "/spec/serviceAccountName");
        if annotation(pod, "kubernetes.io/config.mirror").is_some() || name.is_empty() {
            return Ok(());
        }
        let accounts = GroupResource::new("", "serviceaccounts");
        let Some(account) = self.objects.get(&accounts, &request.namespace, name).await? else { return Ok(()) };
        if annotation(&account, "kubernetes.io/enforce-mountable-secrets") == Some("true") {
            limit_secrets(&account, pod).map_err(|why| forbidden(request, why))?;
        }
        Ok(())
    }
}

impl ServiceAccount {
    async fn find(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, StatusError> {
        let accounts = GroupResource::new("", "serviceaccounts");
        let found = self.objects.get(&accounts, namespace, name).await?;
        if found.is_some() || name != "default" {
            return Ok(found);
        }
        let mut changes = self.objects.watch(&accounts);
        let appears = async {
            while let Some(change) = changes.next().await {
                match change {
                    Change::Set { object, .. } if object.namespace() == namespace && object.name() == name => {
                        return Some(object);
                    }
                    _ => {}
                }
            }
            None
        };
        Ok(tokio::time::timeout(WAIT_FOR_DEFAULT, appears).await.unwrap_or_default())
    }
}

fn check_mirror(request: &Request, pod: &Object) -> Result<(), StatusError> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err(forbidden(request, "a mirror pod may not reference service accounts"));
    }
    if items(pod, "/spec/volumes").any(|v| v.get("secret").is_some()) {
        return Err(forbidden(request, "a mirror pod may not reference secrets"));
    }
    let projected = |v: &Value| items(v, "/projected/sources").any(|s| s.get("serviceAccountToken").is_some());
    if items(pod, "/spec/volumes").any(projected) {
        return Err(forbidden(request, "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

/// The pod decides, then the account, and otherwise yes.
fn automounts(account: &Object, pod: &Object) -> bool {
    let said = |v: Option<&Value>| v.and_then(Value::as_bool);
    let pod = said(pod.pointer("/spec/automountServiceAccountToken"));
    pod.or(said(account.get("automountServiceAccountToken"))).unwrap_or(true)
}

fn mount_token(pod: &mut Object) {
    let existing = items(pod, "/spec/volumes").find(|v| {
        text(v, "/name").starts_with(VOLUME_PREFIX)
            && items(v, "/projected/sources").any(|s| s.get("serviceAccountToken").is_some())
    });
    let existing = existing.map(|v| text(v, "/name").to_string());
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let Some(mounts) = list_mut(container, "volumeMounts") else { continue };
            if !mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                mounts.push(mount.clone());
                mounted = true;
            }
        }
    }
    if mounted
        && existing.is_none()
        && let Some(volumes) = list_mut(&mut pod["spec"], "volumes")
    {
        volumes.push(token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Five characters of those that generated names are made of: no vowels, so no words.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random.as_bytes().iter().take(5).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

fn limit_secrets(account: &Object, pod: &Object) -> Result<(), String> {
    let name = account.name();
    let listed = |field: &str| -> Vec<String> { items(account, field).map(|s| text(s, "/name").to_string()).collect() };
    let (mountable, pulls) = (listed("/secrets"), listed("/imagePullSecrets"));
    for volume in items(pod, "/spec/volumes").filter(|v| v.get("secret").is_some()) {
        let secret = text(volume, "/secret/secretName");
        if !mountable.iter().any(|m| m == secret) {
            return Err(format!(
                "volume with secret.secretName={secret:?} is not allowed because service account {name} does not reference that secret"
            ));
        }
    }
    for (list, kind) in [("/spec/initContainers", "init container"), ("/spec/containers", "container")] {
        for container in items(pod, list) {
            for env in items(container, "/env").filter(|e| e.pointer("/valueFrom/secretKeyRef").is_some()) {
                let secret = text(env, "/valueFrom/secretKeyRef/name");
                if !mountable.iter().any(|m| m == secret) {
                    return Err(format!(
                        "{kind} {} with envVar {} referencing secret.secretName={secret:?} is not allowed because service account {name} does not reference that secret",
                        text(container, "/name"),
                        text(env, "/name")
                    ));
                }
            }
        }
    }
    for (i, secret) in items(pod, "/spec/imagePullSecrets").enumerate() {
        let secret = text(secret, "/name");
        if !pulls.iter().any(|p| p == secret) {
            return Err(format!(
                "imagePullSecrets[{i}].name={secret:?} is not allowed because service account {name} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}
