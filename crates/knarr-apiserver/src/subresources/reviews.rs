//! Questions answered and never stored: who am I, what may I, is this token good.

mod selectors;

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::field::{ErrorKind, ErrorList, FieldError, Path};
use knarr_api::internal;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde_json::{Map, Value, json};

use self::selectors::Selectors;
use super::{Answer, Call, Handler};
use crate::authentication::User;
use crate::authentication::token::TokenAuthenticator;
use crate::authorization::rbac::Rule;
use crate::authorization::{Attributes, Chain, Decision};

const AUTHORIZATION: &str = "authorization.k8s.io";

/// `SelfSubjectReview`: the user as authentication (and impersonation) made it.
pub struct SelfSubjectReviews;

#[async_trait]
impl Handler for SelfSubjectReviews {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let now = jiff::Timestamp::from_second(crate::tokens::now()).unwrap_or_default().to_string();
        let mut review = bare(&call.object);
        review["metadata"]["creationTimestamp"] = now.into();
        review["status"] = json!({ "userInfo": user_info(&call.user) });
        Ok(Answer::created(review))
    }
}

/// A review of the same kind that says nothing yet: some are answered with one.
fn bare(review: &Object) -> Object {
    json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "metadata": {}})
}

fn user_info(user: &User) -> Value {
    let mut out = Map::new();
    if !user.name.is_empty() {
        out.insert("username".into(), user.name.clone().into());
    }
    if !user.uid.is_empty() {
        out.insert("uid".into(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    out.into()
}

/// `TokenReview`: whom a bearer token speaks for.
pub struct TokenReviews {
    pub authenticator: Arc<dyn TokenAuthenticator>,
    /// Asked about where the review names no audiences.
    pub audiences: Vec<String>,
}

#[async_trait]
impl Handler for TokenReviews {
    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        if token(&call.object).is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        Ok(())
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        let token = token(&object).to_string();
        let named = strings(&object, "/spec/audiences");
        let asked = if named.is_empty() { &self.audiences } else { &named };
        object["status"] = self.status(&token, asked, !named.is_empty()).await;
        Ok(Answer::created(object))
    }
}

fn token(review: &Object) -> &str {
    review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default()
}

impl TokenReviews {
    async fn status(&self, token: &str, audiences: &[String], named: bool) -> Value {
        let error = match self.authenticator.authenticate_token(token, audiences).await {
            Ok(Some(identity)) => {
                let mut status = json!({"authenticated": true, "user": user_info(&with_everyone(&identity.user))});
                if named || !identity.audiences.is_empty() {
                    status["audiences"] = json!(identity.audiences);
                }
                return status;
            }
            Ok(None) => "invalid bearer token".to_string(),
            // More than one error comes in brackets already.
            Err(errors) => match errors.strip_prefix('[') {
                Some(more) => format!("[invalid bearer token, {more}"),
                None => format!("[invalid bearer token, {errors}]"),
            },
        };
        json!({"error": error, "user": {}})
    }
}

fn with_everyone(user: &User) -> User {
    let mut user = user.clone();
    if !user.in_group(crate::authentication::ALL_AUTHENTICATED) {
        user.groups.push(crate::authentication::ALL_AUTHENTICATED.into());
    }
    user
}

fn strings(object: &Value, pointer: &str) -> Vec<String> {
    let list = object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `SubjectAccessReview`, `LocalSubjectAccessReview` and `SelfSubjectAccessReview`: would this be allowed.
pub struct AccessReviews {
    pub authorizer: Chain,
}

#[async_trait]
impl Handler for AccessReviews {
    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        let kind = &call.resource.kind.kind;
        let errors = check_review(kind, &call.object, &call.namespace);
        if !errors.is_empty() {
            // Upstream names the group alone.
            return Err(StatusError::invalid(&GroupVersionKind::new(AUTHORIZATION, "v1", ""), "", errors));
        }
        Ok(())
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        let kind = &call.resource.kind.kind;
        let user =
            if kind == "SelfSubjectAccessReview" { User::clone(&call.user) } else { reviewed_user(&object["spec"]) };
        let selectors = Selectors::read(&object["spec"]["resourceAttributes"]);
        let decision = self.authorizer.authorize(&reviewed(&object["spec"], &user, &selectors)).await;
        object["status"] = decision_status(decision, selectors.faults);
        Ok(Answer::created(object))
    }
}

fn decision_status(decision: Decision, faults: Vec<String>) -> Value {
    let mut errors = Vec::new();
    let (mut status, reason) = match decision {
        Decision::Allow { reason } => (json!({"allowed": true}), reason),
        Decision::Deny { reason } => (json!({"allowed": false, "denied": true}), reason),
        Decision::NoOpinion { reason } => (json!({"allowed": false}), reason),
        Decision::Failed { denied, error } => {
            errors.push(error);
            (if denied { json!({"allowed": false, "denied": true}) } else { json!({"allowed": false}) }, String::new())
        }
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    errors.extend(faults);
    if !errors.is_empty() {
        status["evaluationError"] = errors.join("; ").into();
    }
    status
}

fn reviewed_user(spec: &Value) -> User {
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    let values = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
    User {
        name: text(spec, "user").into(),
        uid: text(spec, "uid").into(),
        groups: strings(spec, "/groups"),
        extra: extra.map(|(k, v)| (k.to_lowercase(), values(v))).collect(),
    }
}

fn reviewed<'a>(spec: &'a Value, user: &'a User, selectors: &'a Selectors) -> Attributes<'a> {
    match spec.get("resourceAttributes").filter(|r| r.is_object()) {
        Some(r) => Attributes {
            user,
            is_resource: true,
            verb: text(r, "verb"),
            group: text(r, "group"),
            version: if text(r, "version").is_empty() { "*" } else { text(r, "version") },
            resource: text(r, "resource"),
            subresource: text(r, "subresource"),
            namespace: text(r, "namespace"),
            name: text(r, "name"),
            field_selector: &selectors.field,
            label_selector: &selectors.label,
            ..Attributes::default()
        },
        None => {
            let n = &spec["nonResourceAttributes"];
            Attributes { user, verb: text(n, "verb"), path: text(n, "path"), ..Attributes::default() }
        }
    }
}

/// What upstream demands of a review.
fn check_review(kind: &str, object: &Object, namespace: &str) -> ErrorList {
    let root = Path::ROOT;
    let path = root.child("spec");
    let spec = &object["spec"];
    let mut errors = ErrorList::new();
    let has = |field: &str| spec.get(field).is_some_and(Value::is_object);
    match (has("resourceAttributes"), has("nonResourceAttributes")) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(non_resource(spec, why));
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let shown = spec.get("resourceAttributes").unwrap_or(&Value::Null);
            errors.push(FieldError::invalid(&path.child("resourceAttributes"), shown, why));
        }
        _ => {}
    }
    let unnamed = text(spec, "user").is_empty() && strings(spec, "/groups").is_empty();
    if kind != "SelfSubjectAccessReview" && unnamed {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&path.child("user"), &json!(text(spec, "user")), why));
    }
    selectors::check(&spec["resourceAttributes"], &mut errors);
    check_metadata(kind, object, &mut errors);
    if kind == "LocalSubjectAccessReview" {
        check_local(spec, namespace, &mut errors);
    }
    errors
}

/// A review is about nothing but its spec.
fn check_metadata(kind: &str, object: &Object, errors: &mut ErrorList) {
    let local = kind == "LocalSubjectAccessReview";
    let says = |(name, value): (&String, &Value)| {
        let ignored = name == "managedFields" || (local && name == "namespace");
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        !ignored && !empty
    };
    if object.metadata().is_some_and(|metadata| metadata.iter().any(says)) {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid(&Path::ROOT.child("metadata"), &object["metadata"], why));
    }
}

fn non_resource(spec: &Value, why: &str) -> FieldError {
    let shown = internal::show("*authorization.NonResourceAttributes", &spec["nonResourceAttributes"]);
    let path = "spec.nonResourceAttributes".into();
    FieldError { kind: ErrorKind::Invalid, path, value: Some(shown), detail: why.into() }
}

fn check_local(spec: &Value, namespace: &str, errors: &mut ErrorList) {
    let root = Path::ROOT;
    let path = root.child("spec");
    if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        errors.push(non_resource(spec, "disallowed on this kind of request"));
    }
    if !spec.get("resourceAttributes").is_some_and(Value::is_object) {
        return;
    }
    let asked = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
    if asked != namespace {
        let why = "must match metadata.namespace";
        errors.push(FieldError::invalid(&path.child("resourceAttributes.namespace"), &json!(asked), why));
    }
}

/// `SelfSubjectRulesReview`: everything I may in a namespace, as far as the authorizers can tell.
pub struct RulesReviews {
    pub authorizer: Chain,
}

#[async_trait]
impl Handler for RulesReviews {
    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        match call.object.pointer("/spec/namespace").and_then(Value::as_str) {
            None | Some("") => Err(StatusError::bad_request("no namespace on request")),
            Some(_) => Ok(()),
        }
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let object = call.object;
        let namespace = object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default().to_string();
        let known = self.authorizer.rules_for(&call.user, &namespace);
        let resources = known.rules.iter().filter(|r| !r.resources.is_empty());
        let urls = known.rules.iter().filter(|r| !r.non_resource_urls.is_empty());
        let urls = urls.map(|r| json!({"verbs": r.verbs, "nonResourceURLs": r.non_resource_urls}));
        let mut status = json!({"incomplete": known.incomplete, "resourceRules": resources.map(resource_rule).collect::<Value>(),
            "nonResourceRules": urls.collect::<Value>()});
        if !known.errors.is_empty() {
            status["evaluationError"] = known.errors.join(", ").into();
        }
        let mut review = bare(&object);
        review["spec"] = json!({});
        review["status"] = status;
        Ok(Answer::created(review))
    }
}

fn resource_rule(rule: &Rule) -> Value {
    let mut out = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if !rule.resource_names.is_empty() {
        out["resourceNames"] = json!(rule.resource_names);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_exactly_one_thing_of_somebody() {
        let fields = |kind: &str, spec: Value| -> Vec<String> {
            check_review(kind, &json!({ "spec": spec }), "a").into_iter().map(|e| e.path).collect()
        };
        let pods = json!({"resource": "pods", "verb": "get", "namespace": "a"});
        assert!(fields("SelfSubjectAccessReview", json!({"resourceAttributes": pods})).is_empty());
        assert_eq!(fields("SubjectAccessReview", json!({"resourceAttributes": pods})), ["spec.user"]);
        assert_eq!(fields("SelfSubjectAccessReview", json!({})), ["spec.resourceAttributes"]);
        let elsewhere = json!({"user": "x", "resourceAttributes": {"resource": "pods", "namespace": "b"}});
        assert_eq!(fields("LocalSubjectAccessReview", elsewhere), ["spec.resourceAttributes.namespace"]);
    }
}
