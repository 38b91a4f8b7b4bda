//! `serviceaccounts/token`: a TokenRequest is answered with a signed token.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::field::{FieldError, Path};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};
use serde_json::{Value, json};

use super::claims::{Audiences, BoundObject, Claims, KubernetesClaims};
use super::{Issuer, now};
use crate::objects::Objects;
use crate::subresources::{Answer, Call, Handler};

const DEFAULT_EXPIRATION: i64 = 3600;
const MIN_EXPIRATION: i64 = 600;
const MAX_EXPIRATION: i64 = 1 << 32;
/// What the service-account admission asks for: a token of this life and a pod's lives longer, as upstream.
const EXTENDED: i64 = 3607;
const EXTENSION: i64 = 365 * 24 * 3600;

pub struct TokenRequestHandler {
    pub issuer: Arc<Issuer>,
    pub objects: Arc<dyn Objects>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[async_trait]
impl Handler for TokenRequestHandler {
    /// The account must be this very one, where the request says which.
    fn preconditions(&self) -> bool {
        true
    }

    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        check_name(&call.object, &call.namespace, &call.name)?;
        let account = self.fetch("serviceaccounts", &call.namespace, &call.name).await?;
        check_uid(&call.object, &account)?;
        let audiences = self.audiences(&call.object);
        complete(&mut call.object, &account);
        call.object["spec"]["audiences"] = json!(audiences);
        expiration_seconds(&call.object).map(|_| ())
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let account = self.fetch("serviceaccounts", &call.namespace, &call.name).await?;
        let mut request = call.object;
        check_uid(&request, &account)?;
        let expiration = expiration_seconds(&request)?;
        let mut kubernetes = KubernetesClaims {
            namespace: call.namespace.clone(),
            serviceaccount: bound(&account),
            ..KubernetesClaims::default()
        };
        if request.pointer("/spec/boundObjectRef").is_some_and(Value::is_object) {
            self.bind(&request["spec"]["boundObjectRef"], &call.name, &mut kubernetes).await?;
        }
        let audiences = self.audiences(&request);
        request["spec"]["expirationSeconds"] = expiration.into();
        if request["spec"].get("boundObjectRef").is_none() {
            request["spec"]["boundObjectRef"] = Value::Null;
        }
        let issued = now();
        let mut expires = issued + expiration;
        let own = audiences.iter().all(|a| self.issuer.audiences().contains(a));
        if kubernetes.pod.is_some() && expiration == EXTENDED && own {
            // Clients that never read their token again go on working, and are told of in the audit log.
            kubernetes.warn_after = Some(expires);
            expires = issued + EXTENSION;
        }
        let claims = Claims {
            audiences: Audiences::Many(audiences),
            expires,
            issued_at: issued,
            issuer: self.issuer.url().to_string(),
            id: uuid::Uuid::new_v4().to_string(),
            kubernetes,
            not_before: issued,
            subject: format!("system:serviceaccount:{}:{}", call.namespace, call.name),
        };
        let token =
            self.issuer.sign(&claims).map_err(|e| StatusError::internal(format!("failed to generate token: {e}")))?;
        request["status"] = json!({"token": token, "expirationTimestamp": timestamp(issued + expiration)});
        Ok(Answer::created(request))
    }
}

/// RFC 3339 with whole seconds, as `metav1.Time` is written.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default()
}

fn invalid(field: &str, value: &Value, why: &str, name: &str) -> StatusError {
    let error = FieldError::invalid(&Path::ROOT.child(field), value, why);
    let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    StatusError::invalid(&kind, name, vec![error])
}

fn check_name(request: &Object, namespace: &str, name: &str) -> Result<(), StatusError> {
    let (given, given_namespace) = (request.name(), request.namespace());
    if !given.is_empty() && given != name {
        let why = "must match the service account name if specified";
        return Err(invalid("metadata.name", &json!(given), why, name));
    }
    if !given_namespace.is_empty() && given_namespace != namespace {
        let why = "must match the service account namespace if specified";
        return Err(invalid("metadata.namespace", &json!(given_namespace), why, name));
    }
    Ok(())
}

fn check_uid(request: &Object, account: &Object) -> Result<(), StatusError> {
    let (given, own) = (request.uid(), account.uid());
    if given.is_empty() || given == own {
        return Ok(());
    }
    let why = format!("the UID in the token request ({given}) does not match the UID of the service account ({own})");
    Err(StatusError::conflict(&GroupResource::new("authentication.k8s.io", "TokenRequest"), account.name(), why))
}

fn complete(request: &mut Object, account: &Object) {
    request.set_meta_str("name", account.name());
    request.set_meta_str("namespace", account.namespace());
    request.set_meta_str("uid", account.uid());
    request.set_meta_str("creationTimestamp", &timestamp(now()));
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    if let Some(request) = request.as_object_mut() {
        request.remove("status");
    }
}

fn expiration_seconds(request: &Object) -> Result<i64, StatusError> {
    let Some(value) = request.pointer("/spec/expirationSeconds").filter(|v| !v.is_null()) else {
        return Ok(DEFAULT_EXPIRATION);
    };
    let seconds = value.as_i64().unwrap_or_default();
    let why = match seconds {
        ..MIN_EXPIRATION => "may not specify a duration less than 10 minutes",
        _ if seconds > MAX_EXPIRATION => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(seconds),
    };
    Err(invalid("spec.expirationSeconds", value, why, ""))
}

fn bound(object: &Object) -> BoundObject {
    BoundObject { name: object.name().into(), uid: object.uid().into() }
}

impl TokenRequestHandler {
    fn audiences(&self, request: &Object) -> Vec<String> {
        let asked = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
        let asked: Vec<String> = asked.filter_map(Value::as_str).map(str::to_string).collect();
        if asked.is_empty() { self.issuer.audiences().to_vec() } else { asked }
    }

    async fn fetch(&self, resource: &'static str, namespace: &str, name: &str) -> Result<Arc<Object>, StatusError> {
        let resource = GroupResource::new("", resource);
        let found = self.objects.get(&resource, namespace, name).await?;
        found.ok_or_else(|| StatusError::not_found(&resource, name))
    }

    /// Adds what the token dies with; the object must exist and, for a pod, run as this account.
    async fn bind(&self, reference: &Value, account: &str, claims: &mut KubernetesClaims) -> Result<(), StatusError> {
        let kind = text(reference, "/kind");
        let name = text(reference, "/name");
        let api_version = text(reference, "/apiVersion");
        let object = match (api_version, kind) {
            ("v1", "Pod") => {
                let pod = self.fetch("pods", &claims.namespace, name).await?;
                claims.node = self.check_pod(&pod, account).await?;
                claims.pod.insert(bound(&pod)).clone()
            }
            ("v1", "Secret") => {
                let secret = self.fetch("secrets", &claims.namespace, name).await?;
                claims.secret.insert(bound(&secret)).clone()
            }
            ("v1", "Node") => {
                let node = self.fetch("nodes", "", name).await?;
                claims.node.insert(bound(&node)).clone()
            }
            _ => {
                return Err(StatusError::bad_request(format!(
                    "cannot bind token to object of type {}",
                    shown_kind(api_version, kind)
                )));
            }
        };
        let wanted = text(reference, "/uid");
        if !wanted.is_empty() && wanted != object.uid {
            return Err(StatusError::conflict(
                &GroupResource::new("", kind.to_string()),
                name,
                format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            ));
        }
        Ok(())
    }

    /// The pod's node, where it has one.
    async fn check_pod(&self, pod: &Object, account: &str) -> Result<Option<BoundObject>, StatusError> {
        let runs_as = text(pod, "/spec/serviceAccountName");
        if runs_as != account {
            return Err(StatusError::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let node = text(pod, "/spec/nodeName");
        if node.is_empty() {
            return Ok(None);
        }
        let found = self.objects.get(&GroupResource::new("", "nodes"), "", node).await?;
        let uid = found.map(|n| n.uid().to_string()).unwrap_or_default();
        Ok(Some(BoundObject { name: node.into(), uid }))
    }
}

/// Go's `GroupVersionKind.String()`.
fn shown_kind(api_version: &str, kind: &str) -> String {
    let group_version = knarr_api::GroupVersion::parse(api_version).unwrap_or_default();
    format!("{}/{}, Kind={kind}", group_version.group, group_version.version)
}
