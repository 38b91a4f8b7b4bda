//! `AdmissionReview`: what a hook is asked, and its answer.

use base64::Engine;
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::Request;
use super::super::matching::kind_of;
use super::super::{namespace_of, operation_name};
use super::configuration::ReviewVersion;
use super::invocation::Invocation;

#[derive(Serialize)]
struct Review<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    request: Asked<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    uid: &'a str,
    kind: Value,
    resource: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Value,
    request_resource: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'static str,
    user_info: Value,
    object: Option<&'a Object>,
    old_object: Option<&'a Object>,
    dry_run: bool,
    options: &'a Object,
}

pub(in crate::admission) fn kind_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

pub(in crate::admission) fn resource_value(resource: &knarr_api::Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "resource": resource.resource})
}

pub(in crate::admission) fn user_value(request: &Request) -> Value {
    let user = &request.user;
    let mut value = Map::new();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            value.insert(field.into(), text.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        value.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        value.insert("extra".into(), json!(user.extra));
    }
    value.into()
}

/// The review of one call as JSON.
pub(super) fn write(
    version: ReviewVersion,
    uid: &str,
    invocation: &Invocation,
    request: &Request,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Vec<u8> {
    let review = Review {
        kind: "AdmissionReview",
        api_version: api_version(version),
        request: Asked {
            uid,
            kind: kind_value(&invocation.kind),
            resource: resource_value(invocation.resource()),
            sub_resource: &request.subresource,
            request_kind: kind_value(&kind_of(&request.resource, &request.subresource)),
            request_resource: resource_value(&request.resource),
            request_sub_resource: &request.subresource,
            name: &request.name,
            namespace: namespace_of(request),
            operation: operation_name(request.operation),
            user_info: user_value(request),
            object,
            old_object: old,
            dry_run: request.dry_run,
            options: &request.options,
        },
    };
    serde_json::to_vec(&review).unwrap_or_default()
}

fn api_version(version: ReviewVersion) -> &'static str {
    match version {
        ReviewVersion::V1 => "admission.k8s.io/v1",
        ReviewVersion::V1Beta1 => "admission.k8s.io/v1beta1",
    }
}

/// A hook's answer, checked.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub allowed: bool,
    pub patch: Option<Vec<u8>>,
    pub patch_type: String,
    /// A `Status`.
    pub result: Option<Value>,
    pub warnings: Vec<String>,
    pub audit_annotations: Vec<(String, String)>,
}

/// Reads an answer; `Err` says what is wrong with it, in upstream's words.
pub(super) fn read(version: ReviewVersion, uid: &str, mutating: bool, answer: &Value) -> Result<Response, String> {
    let Some(response) = answer.get("response").filter(|r| r.is_object()) else {
        return Err("webhook response was absent".into());
    };
    let patch = decode_patch(&response["patch"])?;
    let mut patch_type = response["patchType"].as_str().map(str::to_string);
    match version {
        ReviewVersion::V1 => {
            check_identity(uid, answer, response)?;
            check_patch(mutating, patch.is_some(), patch_type.as_deref())?;
        }
        // Nothing was checked in this version; a patch is of the one type there is.
        ReviewVersion::V1Beta1 => patch_type = patch.as_ref().map(|_| "JSONPatch".into()),
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Response {
        allowed: response["allowed"] == true,
        patch: patch.filter(|_| mutating),
        patch_type: patch_type.unwrap_or_default(),
        result: response.get("status").filter(|s| s.is_object()).cloned(),
        warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
        audit_annotations: annotations.map(|(key, value)| (key.clone(), text(value))).collect(),
    })
}

fn decode_patch(patch: &Value) -> Result<Option<Vec<u8>>, String> {
    let Some(text) = patch.as_str().filter(|t| !t.is_empty()) else { return Ok(None) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map(Some).map_err(|error| format!("response.patch: {error}"))
}

fn check_identity(uid: &str, answer: &Value, response: &Value) -> Result<(), String> {
    let got = response["uid"].as_str().unwrap_or_default();
    if got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            if text("apiVersion").is_empty() { "/" } else { text("apiVersion") },
            text("kind")
        ));
    }
    Ok(())
}

fn check_patch(mutating: bool, patch: bool, patch_type: Option<&str>) -> Result<(), String> {
    let wrong = match (mutating, patch, patch_type) {
        (true, true, None) => "webhook returned response.patch but not response.patchType",
        (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, true, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (false, true, _) => "validating webhook may not return response.patch",
        (false, false, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(wrong.into())
}

/// `admission webhook "x" denied the request: why`, with code, reason and details as the hook gave them.
pub(super) fn denied(hook: &str, result: Option<Value>) -> StatusError {
    let mut status = result.unwrap_or_else(|| json!({}));
    let by = format!("admission webhook \"{hook}\" denied the request");
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_string();
    let message = match (text("message"), text("reason")) {
        (message, _) if !message.is_empty() => format!("{by}: {message}"),
        (_, reason) if !reason.is_empty() => format!("{by}: {reason}"),
        _ => format!("{by} without explanation"),
    };
    // A refusal is never a success.
    let code = status["code"].as_i64().filter(|code| (400..1000).contains(code)).unwrap_or(400);
    let word = text("status");
    let word = if word.is_empty() || word == "Success" { "Failure".to_string() } else { word };
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    status["status"] = word.into();
    status["message"] = message.into();
    status["code"] = code.into();
    if !status["metadata"].is_object() {
        status["metadata"] = json!({});
    }
    StatusError::of_value(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_code_and_reason_and_are_never_successes() {
        let error = denied("x", Some(json!({"message": "no", "code": 403, "reason": "Forbidden"})));
        assert_eq!((error.code, error.message.as_str()), (403, "admission webhook \"x\" denied the request: no"));
        let error = denied("x", Some(json!({"reason": "Mine", "code": 200, "status": "Success"})));
        assert_eq!((error.code, error.message.as_str()), (400, "admission webhook \"x\" denied the request: Mine"));
        assert_eq!(error.to_value()["status"], "Failure");
        assert_eq!(error.to_value()["reason"], "Mine");
        let error = denied("x", None);
        assert_eq!(error.message, "admission webhook \"x\" denied the request without explanation");
    }

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let head = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let wrong = |mutating: bool, answer: Value| read(ReviewVersion::V1, "u", mutating, &answer).unwrap_err();
        assert_eq!(wrong(true, json!({})), "webhook response was absent");
        assert_eq!(wrong(true, head(json!({"uid": "x"}))), "expected response.uid=\"u\", got \"x\"");
        assert_eq!(
            wrong(true, json!({"response": {"uid": "u"}})),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="
        );
        let patch = head(json!({"uid": "u", "allowed": true, "patch": "W10="}));
        assert_eq!(wrong(true, patch.clone()), "webhook returned response.patch but not response.patchType");
        assert_eq!(wrong(false, patch.clone()), "validating webhook may not return response.patch");
        let old = read(ReviewVersion::V1Beta1, "u", true, &json!({"response": {"allowed": true, "patch": "W10="}}));
        assert_eq!(old.unwrap().patch_type, "JSONPatch");
    }
}
