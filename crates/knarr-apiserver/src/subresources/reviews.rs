//! Questions answered and never stored: who am I, what may I, is this token good.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::field::{ErrorList, FieldError, Path};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde_json::{Map, Value, json};

use super::{Answer, Call, Handler};
use crate::authentication::User;
use crate::authentication::token::TokenAuthenticator;
use crate::authorization::node::node_of;
use crate::authorization::rbac::{Rbac, Rule};
use crate::authorization::{Attributes, Chain, Decision};

const AUTHORIZATION: &str = "authorization.k8s.io";

/// `SelfSubjectReview`: the user as authentication (and impersonation) made it.
pub struct SelfSubjectReviews;

#[async_trait]
impl Handler for SelfSubjectReviews {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        object.set_meta_str(
            "creationTimestamp",
            &jiff::Timestamp::from_second(crate::tokens::now()).unwrap_or_default().to_string(),
        );
        object["status"] = json!({ "userInfo": user_info(&call.user) });
        Ok(Answer::created(object))
    }
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
    pub authenticators: Vec<Arc<dyn TokenAuthenticator>>,
    /// Asked about where the review names no audiences.
    pub audiences: Vec<String>,
}

#[async_trait]
impl Handler for TokenReviews {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default().to_string();
        if token.is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        let named = strings(&object, "/spec/audiences");
        let asked = if named.is_empty() { &self.audiences } else { &named };
        object["status"] = self.status(&token, asked, !named.is_empty()).await;
        Ok(Answer::created(object))
    }
}

impl TokenReviews {
    async fn status(&self, token: &str, audiences: &[String], named: bool) -> Value {
        let mut errors = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(identity)) => {
                    let mut status = json!({"authenticated": true, "user": user_info(&with_everyone(&identity.user))});
                    if named || !identity.audiences.is_empty() {
                        status["audiences"] = json!(identity.audiences);
                    }
                    return status;
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        let error = match errors.as_slice() {
            [] => "invalid bearer token".to_string(),
            some => format!("[invalid bearer token, {}]", some.join(", ")),
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
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        let kind = &call.resource.kind.kind;
        let errors = check_review(kind, &object, &call.namespace);
        if !errors.is_empty() {
            return Err(StatusError::invalid(&GroupVersionKind::new(AUTHORIZATION, "v1", kind.clone()), "", errors));
        }
        let user =
            if kind == "SelfSubjectAccessReview" { User::clone(&call.user) } else { reviewed_user(&object["spec"]) };
        let decision = self.authorizer.authorize(&reviewed(&object["spec"], &user)).await;
        object["status"] = decision_status(decision);
        if kind == "LocalSubjectAccessReview" {
            object.set_meta_str("namespace", &call.namespace);
        }
        Ok(Answer::created(object))
    }
}

fn decision_status(decision: Decision) -> Value {
    let (mut status, reason) = match decision {
        Decision::Allow { reason } => (json!({"allowed": true}), reason),
        Decision::Deny { reason } => (json!({"allowed": false, "denied": true}), reason),
        Decision::NoOpinion { reason } => (json!({"allowed": false}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
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

fn reviewed<'a>(spec: &'a Value, user: &'a User) -> Attributes<'a> {
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
            field_selector: r.pointer("/fieldSelector/rawSelector").and_then(Value::as_str).unwrap_or_default(),
            label_selector: r.pointer("/labelSelector/rawSelector").and_then(Value::as_str).unwrap_or_default(),
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
            errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), &spec["nonResourceAttributes"], why));
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
    if kind == "LocalSubjectAccessReview" {
        check_local(spec, namespace, &mut errors);
    }
    errors
}

fn check_local(spec: &Value, namespace: &str, errors: &mut ErrorList) {
    let root = Path::ROOT;
    let path = root.child("spec");
    if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        let why = "disallowed on this kind of request";
        errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), &spec["nonResourceAttributes"], why));
    }
    let asked = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
    if asked != namespace {
        let why = "must match metadata.namespace";
        errors.push(FieldError::invalid(&path.child("resourceAttributes.namespace"), &json!(asked), why));
    }
}

/// `SelfSubjectRulesReview`: everything I may in a namespace.
pub struct RulesReviews {
    pub rbac: Arc<Rbac>,
}

#[async_trait]
impl Handler for RulesReviews {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let mut object = call.object;
        let namespace = object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default().to_string();
        if namespace.is_empty() {
            return Err(StatusError::bad_request("no namespace on request"));
        }
        object["status"] = self.status(&call.user, &namespace);
        Ok(Answer::created(object))
    }
}

impl RulesReviews {
    fn status(&self, user: &User, namespace: &str) -> Value {
        let (mut rules, mut errors) = self.rbac.rules_for(user, namespace);
        if user.in_group("system:masters") {
            rules.insert(0, everything());
        }
        if node_of(user).is_some() {
            errors.insert(0, "node authorizer does not support user rule resolution".into());
        }
        let mut status = json!({"incomplete": !errors.is_empty(), "resourceRules": [], "nonResourceRules": []});
        let resources = rules.iter().filter(|r| !r.resources.is_empty());
        status["resourceRules"] = resources.map(resource_rule).collect();
        let urls = rules.iter().filter(|r| !r.non_resource_urls.is_empty());
        status["nonResourceRules"] =
            urls.map(|r| json!({"verbs": r.verbs, "nonResourceURLs": r.non_resource_urls})).collect();
        if !errors.is_empty() {
            status["evaluationError"] = errors.join(", ").into();
        }
        status
    }
}

fn resource_rule(rule: &Rule) -> Value {
    let mut out = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if !rule.resource_names.is_empty() {
        out["resourceNames"] = json!(rule.resource_names);
    }
    out
}

fn everything() -> Rule {
    let all = || vec!["*".to_string()];
    Rule { verbs: all(), api_groups: all(), resources: all(), resource_names: Vec::new(), non_resource_urls: all() }
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
