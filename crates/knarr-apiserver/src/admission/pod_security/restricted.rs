//! Hardening that a pod must ask for.

use serde_json::Value;

use super::spec::{PodSpec, containers, distinct, plural, quoted, security};
use super::{Check, Violation};
use crate::admission::refusal::{items, text};

/// In the order of upstream's identifiers, which is that of its messages.
pub const CHECKS: [Check; 6] =
    [allow_privilege_escalation, capabilities, volumes, run_as_non_root, run_as_user, seccomp];

const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

fn allow_privilege_escalation(pod: &PodSpec<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let names = containers(&pod.named(|c| security(c, "allowPrivilegeEscalation") != &Value::Bool(false)))?;
    let detail = format!("{names} must set securityContext.allowPrivilegeEscalation=false");
    Some(Violation::new("allowPrivilegeEscalation != false", detail))
}

fn capabilities(pod: &PodSpec<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let words = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let drops_all = |c: &Value| words(security(c, "capabilities/drop")).iter().any(|w| w == "ALL");
    let added = |c: &Value| -> Vec<String> {
        words(security(c, "capabilities/add")).into_iter().filter(|w| w != "NET_BIND_SERVICE").collect()
    };
    let mut said = Vec::new();
    if let Some(names) = containers(&pod.named(|c| !drops_all(c))) {
        said.push(format!("{names} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if let Some(names) = containers(&pod.named(|c| !added(c).is_empty())) {
        let all = distinct(pod.containers().flat_map(added));
        said.push(format!("{names} must not include {} in securityContext.capabilities.add", quoted(&all)));
    }
    (!said.is_empty()).then(|| Violation::new("unrestricted capabilities", said.join("; ")))
}

/// The kind of volume, unless it is one of those allowed.
fn restricted_type(volume: &Value) -> Option<&str> {
    let fields = volume.as_object()?;
    let kind = fields.iter().find(|(k, v)| *k != "name" && !v.is_null()).map_or("unknown", |(k, _)| k.as_str());
    (!VOLUMES.contains(&kind)).then_some(kind)
}

fn volumes(pod: &PodSpec<'_>) -> Option<Violation> {
    let bad: Vec<&Value> = items(pod.spec, "/volumes").filter(|v| restricted_type(v).is_some()).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|v| text(v, "/name")).collect();
    let kinds = distinct(bad.iter().filter_map(|v| restricted_type(v)).map(str::to_string));
    let detail = format!(
        "{} {} {} restricted volume {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("type", "types", kinds.len()),
        quoted(&kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

fn run_as_non_root(pod: &PodSpec<'_>) -> Option<Violation> {
    let own = pod.security("runAsNonRoot");
    let mut bad = Vec::new();
    if own == &Value::Bool(false) {
        bad.push("pod".to_string());
    }
    bad.extend(containers(&pod.named(|c| security(c, "runAsNonRoot") == &Value::Bool(false))));
    if !bad.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", bad.join(" and "));
        return Some(Violation::new("runAsNonRoot != true", detail));
    }
    if own == &Value::Bool(true) {
        return None;
    }
    let names = containers(&pod.named(|c| security(c, "runAsNonRoot") != &Value::Bool(true)))?;
    let detail = format!("pod or {names} must set securityContext.runAsNonRoot=true");
    Some(Violation::new("runAsNonRoot != true", detail))
}

fn run_as_user(pod: &PodSpec<'_>) -> Option<Violation> {
    let is_root = |v: &Value| v.as_i64() == Some(0);
    let mut bad = Vec::new();
    if is_root(pod.security("runAsUser")) {
        bad.push("pod".to_string());
    }
    bad.extend(containers(&pod.named(|c| is_root(security(c, "runAsUser")))));
    (!bad.is_empty()).then(|| Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", bad.join(" and "))))
}

fn seccomp(pod: &PodSpec<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let kind = |v: &Value| text(v, "/type").to_string();
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let own = kind(pod.security("seccompProfile"));
    let mut said = Vec::new();
    let mut bad = Vec::new();
    let wrong = |k: &String| !k.is_empty() && !allowed(k);
    if wrong(&own) {
        bad.push("pod".to_string());
    }
    bad.extend(containers(&pod.named(|c| wrong(&kind(security(c, "seccompProfile"))))));
    if !bad.is_empty() {
        let set = pod.containers().map(|c| kind(security(c, "seccompProfile")));
        let all = distinct(std::iter::once(own.clone()).chain(set).filter(wrong));
        said.push(format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            bad.join(" and "),
            quoted(&all)
        ));
    }
    let unset = pod.named(|c| kind(security(c, "seccompProfile")).is_empty());
    if !allowed(&own)
        && let Some(names) = containers(&unset)
    {
        said.push(format!(
            "pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ));
    }
    (!said.is_empty()).then(|| Violation::new("seccompProfile", said.join("; ")))
}
