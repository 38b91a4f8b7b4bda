//! The Pod Security Standards, enforced by the labels of a namespace.

mod baseline;
mod restricted;
mod spec;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use self::spec::PodSpec;
use super::refusal::{forbidden, items};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

const LABEL_PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a namespace's pods may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// A level and the version of the standard that is meant.
struct Policy {
    level: Level,
    version: String,
}

/// What one check has against a pod: `reason (detail)`.
struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    fn new(reason: &str, detail: impl Into<String>) -> Self {
        Violation { reason: reason.into(), detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { f.write_str(&self.reason) } else { write!(f, "{} ({})", self.reason, self.detail) }
    }
}

type Check = fn(&PodSpec<'_>) -> Option<Violation>;

/// Everything a level has against a pod. A restricted check that is stricter stands in for its baseline one.
fn violations(level: Level, pod: &PodSpec<'_>) -> Vec<Violation> {
    let baseline = baseline::CHECKS.iter().filter(|c| level == Level::Baseline || !c.overridden).map(|c| c.check);
    let restricted = restricted::CHECKS.iter().copied().filter(|_| level == Level::Restricted);
    if level == Level::Privileged {
        return Vec::new();
    }
    baseline.chain(restricted).filter_map(|check| check(pod)).collect()
}

/// Refuses, or warns of, pods that a namespace's level does not allow.
pub struct PodSecurity {
    pub objects: Arc<dyn Objects>,
}

/// Where a kind keeps the spec and the metadata of its pods.
fn pod_of<'a>(request: &Request, object: &'a Object) -> Option<PodSpec<'a>> {
    let at = match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "pods") => "",
        ("", "replicationcontrollers") | ("apps", _) | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        ("", "podtemplates") => "/template",
        _ => return None,
    };
    let pod = object.pointer(at)?;
    pod.get("spec").filter(|s| s.is_object()).map(|spec| PodSpec { spec, metadata: &pod["metadata"] })
}

impl PodSecurity {
    async fn policy(&self, namespace: &str, mode: &str) -> Result<Option<Policy>, StatusError> {
        let found = self.objects.get(&GroupResource::new("", "namespaces"), "", namespace).await?;
        let Some(namespace) = found else { return Ok(None) };
        let label =
            |key: String| namespace.pointer("/metadata/labels").and_then(|l| l.get(key)).and_then(Value::as_str);
        let Some(text) = label(format!("{LABEL_PREFIX}{mode}")) else { return Ok(None) };
        // A level that nobody knows is as strict as there is: it was meant to protect.
        let level = Level::parse(text).unwrap_or(Level::Restricted);
        let version = label(format!("{LABEL_PREFIX}{mode}-version")).unwrap_or("latest").to_string();
        Ok(Some(Policy { level, version }))
    }

    async fn evaluate(&self, request: &Request, pod: &PodSpec<'_>, mode: &str) -> Result<Option<String>, StatusError> {
        let Some(policy) = self.policy(&request.namespace, mode).await? else { return Ok(None) };
        let found: Vec<String> = violations(policy.level, pod).iter().map(Violation::to_string).collect();
        let name = format!("{}:{}", policy.level, policy.version);
        Ok((!found.is_empty()).then(|| format!("PodSecurity {name:?}: {}", found.join(", "))))
    }
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
        if is_namespace(request) {
            return check_labels(request);
        }
        if !matches!(request.subresource.as_str(), "" | "ephemeralcontainers" | "resize") {
            return Ok(());
        }
        let Some(object) = &request.object else { return Ok(()) };
        let Some(pod) = pod_of(request, object) else { return Ok(()) };
        if is_pod && request.old_object.as_deref().is_some_and(|old| !is_significant(object, old)) {
            return Ok(());
        }
        if is_pod && let Some(why) = self.evaluate(request, &pod, "enforce").await? {
            return Err(forbidden(request, format!("violates {why}")));
        }
        if let Some(why) = self.evaluate(request, &pod, "audit").await? {
            request.audit_annotations.push((format!("{LABEL_PREFIX}audit-violations"), format!("would violate {why}")));
        }
        let Some(pod) = request.object.as_ref().and_then(|o| pod_of(request, o)) else { return Ok(()) };
        if let Some(why) = self.evaluate(request, &pod, "warn").await? {
            request.warnings.push(format!("would violate {why}"));
        }
        Ok(())
    }
}

fn is_namespace(request: &Request) -> bool {
    request.resource.group.is_empty() && request.resource.resource == "namespaces" && request.subresource.is_empty()
}

/// The labels of a namespace must name levels and versions that exist.
fn check_labels(request: &Request) -> Result<(), StatusError> {
    use knarr_api::field::{FieldError, Path};
    let Some(namespace) = &request.object else { return Ok(()) };
    let root = Path::ROOT;
    let metadata = root.child("metadata");
    let labels = metadata.child("labels");
    let label = |o: &Object, key: &str| o.pointer("/metadata/labels").and_then(|l| l.get(key)).cloned();
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let level = format!("{LABEL_PREFIX}{mode}");
        let version = format!("{level}-version");
        if let Some(value) = label(namespace, &level)
            && value.as_str().and_then(Level::parse).is_none()
        {
            let why = "must be one of privileged, baseline, restricted";
            errors.push(FieldError::invalid(&labels.key(&level), &value, why));
        }
        if let Some(value) = label(namespace, &version)
            && !value.as_str().is_some_and(is_version)
        {
            errors.push(FieldError::invalid(&labels.key(&version), &value, "must be \"latest\" or \"v1.x\""));
        }
    }
    // Labels that were wrong before must not block other changes.
    let unchanged = request
        .old_object
        .as_ref()
        .is_some_and(|old| old.pointer("/metadata/labels") == namespace.pointer("/metadata/labels"));
    if errors.is_empty() || unchanged {
        return Ok(());
    }
    Err(StatusError::invalid(&request.resource.gvk(), namespace.name(), errors))
}

fn is_version(text: &str) -> bool {
    text == "latest" || text.strip_prefix("v1.").is_some_and(|minor| minor.parse::<u32>().is_ok())
}

/// Of a pod only images and ephemeral containers can change in a way that matters here.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let images = |o: &Object| -> Vec<(String, String)> {
        let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
        let all = lists.into_iter().flat_map(|l| items(o, l));
        all.map(|c| (super::refusal::text(c, "/name").to_string(), super::refusal::text(c, "/image").to_string()))
            .collect()
    };
    images(pod) != images(old)
}

#[cfg(test)]
mod tests;
