//! What upstream demands of an `AuthorizationConfiguration`, in its words.

use std::path::Path as FilePath;

use knarr_api::field::{FieldError, Path};
use knarr_api::go_duration::parse as duration;
use serde_json::json;

use super::super::conditions::MatchConditions;
use super::{AuthorizationConfiguration, ConnectionInfo, MatchCondition, TYPES, WebhookConfiguration};

const MAX_CONDITIONS: usize = 64;

/// Every fault of a configuration; none if it may be used.
pub fn validate(config: &AuthorizationConfiguration) -> Vec<FieldError> {
    let root = Path::ROOT.child("authorizers");
    let mut errors = Vec::new();
    if config.authorizers.is_empty() {
        errors.push(FieldError::required(&root, "at least one authorization mode must be defined"));
    }
    for (i, authorizer) in config.authorizers.iter().enumerate() {
        let path = root.index(i);
        let earlier = &config.authorizers[..i];
        let kind = path.child("type");
        if authorizer.kind.is_empty() {
            errors.push(FieldError::required(&kind, ""));
            continue;
        }
        if !TYPES.contains(&authorizer.kind.as_str()) {
            errors.push(FieldError::not_supported(&kind, &json!(authorizer.kind), &TYPES));
            continue;
        }
        if authorizer.kind != "Webhook" && earlier.iter().any(|e| e.kind == authorizer.kind) {
            errors.push(FieldError::duplicate(&kind, &json!(authorizer.kind)));
            continue;
        }
        let name = path.child("name");
        if authorizer.name.is_empty() {
            errors.push(FieldError::required(&name, ""));
        } else if earlier.iter().any(|e| e.name == authorizer.name) {
            errors.push(FieldError::duplicate(&name, &json!(authorizer.name)));
        }
        match (&authorizer.webhook, authorizer.kind == "Webhook") {
            (Some(webhook), true) => check_webhook(webhook, &path, &mut errors),
            (None, true) => errors.push(FieldError::required(&path.child("webhook"), "required when type=Webhook")),
            (Some(_), false) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(&path.child("webhook"), &json!("non-null"), why));
            }
            (None, false) => {}
        }
    }
    errors
}

/// Upstream names a webhook's fields as if they were the authorizer's own.
fn check_webhook(config: &WebhookConfiguration, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let timeout = path.child("timeout");
    match duration(&config.timeout).map(|d| d.as_secs_f64()) {
        None | Some(0.0) => errors.push(FieldError::required(&timeout, "")),
        Some(seconds) if seconds > 30.0 => {
            errors.push(FieldError::invalid(&timeout, &json!(config.timeout), "must be > 0s and <= 30s"));
        }
        Some(_) => {}
    }
    for (name, text) in [("authorizedTTL", &config.authorized_ttl), ("unauthorizedTTL", &config.unauthorized_ttl)] {
        if !text.is_empty() && duration(text).is_none() {
            errors.push(FieldError::invalid(&path.child(name), &json!(text), "must be > 0s"));
        }
    }
    let mut one_of = |name: &str, value: &str, allowed: &[&str]| {
        let at = path.child(name);
        match value {
            "" => errors.push(FieldError::required(&at, "")),
            value if !allowed.contains(&value) => errors.push(FieldError::not_supported(&at, &json!(value), allowed)),
            _ => {}
        }
    };
    one_of("subjectAccessReviewVersion", &config.subject_access_review_version, &["v1", "v1beta1"]);
    one_of("failurePolicy", &config.failure_policy, &["NoOpinion", "Deny"]);
    check_condition_version(config, path, errors);
    check_connection(&config.connection_info, &path.child("connectionInfo"), errors);
    check_conditions(&config.match_conditions, &path.child("matchConditions"), errors);
}

fn check_condition_version(config: &WebhookConfiguration, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = path.child("matchConditionSubjectAccessReviewVersion");
    match config.match_condition_subject_access_review_version.as_str() {
        "v1" => {}
        "" if config.match_conditions.is_empty() => {}
        "" => errors.push(FieldError::required(&at, "required if match conditions are specified")),
        other => errors.push(FieldError::not_supported(&at, &json!(other), &["v1"])),
    }
}

fn check_connection(connection: &ConnectionInfo, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let file_path = path.child("kubeConfigFile");
    let file = connection.kube_config_file.as_deref().unwrap_or_default();
    match connection.kind.as_str() {
        "" => errors.push(FieldError::required(&path.child("type"), "")),
        "KubeConfigFile" if file.is_empty() => errors.push(FieldError::required(&file_path, "")),
        "KubeConfigFile" => {
            let why = match std::fs::metadata(file) {
                _ if !FilePath::new(file).is_absolute() => "must be an absolute path".to_string(),
                Err(error) => format!("error loading file: {error}"),
                Ok(metadata) if !metadata.is_file() => "must be a regular file".to_string(),
                Ok(_) => return,
            };
            errors.push(FieldError::invalid(&file_path, &json!(file), why));
        }
        other => errors.push(FieldError::not_supported(&path.child("type"), &json!(other), &["KubeConfigFile"])),
    }
}

fn check_conditions(conditions: &[MatchCondition], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS));
        return;
    }
    for (i, condition) in conditions.iter().enumerate() {
        let condition_path = path.index(i);
        let at = condition_path.child("expression");
        let text = &condition.expression;
        if text.trim().is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if conditions[..i].contains(condition) {
            errors.push(FieldError::duplicate(&at, &json!(text)));
        } else if let Err(why) = MatchConditions::compile(std::slice::from_ref(text)) {
            errors.push(FieldError::invalid(&at, &json!(text), why));
        }
    }
}
