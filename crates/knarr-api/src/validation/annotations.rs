//! Annotations of pods that the server reads: mirror pods, deletion costs, and what seccomp and AppArmor were once said by.

use serde_json::{Value, json};

use super::check::{Checker, entries, has, is_empty, list, text};
use super::volume::descending_path;
use super::windows::CONTAINERS;
use crate::object::Object;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// What any pod's annotations must be.
pub fn validate(c: &mut Checker, pod: &Value) {
    let spec = &pod["spec"];
    c.within("metadata.annotations", |c| {
        for (key, value) in entries(&pod["metadata"], "annotations") {
            let value = value.as_str().unwrap_or_default();
            let at = format!("[{key}]");
            match key.as_str() {
                MIRROR if is_empty(spec, "nodeName") => {
                    c.invalid_text(&at, value, "must set spec.nodeName if mirror pod annotation is set");
                }
                DELETION_COST if !is_deletion_cost(value) => c.invalid_text(&at, value, "must be a 32bit integer"),
                SECCOMP_POD => seccomp(c, key, value),
                _ if key.starts_with(SECCOMP_CONTAINER) => seccomp(c, key, value),
                _ => app_armor(c, key, value, spec),
            }
        }
    });
}

/// A 32-bit number in its plainest writing.
fn is_deletion_cost(text: &str) -> bool {
    let plain = text.starts_with('-') || text.starts_with(|c: char| c.is_ascii_digit());
    let zeros = text.len() > 1 && text.starts_with('0');
    plain && !zeros && text.parse::<i32>().is_ok()
}

fn seccomp(c: &mut Checker, key: &str, value: &str) {
    match value.strip_prefix(LOCALHOST) {
        Some(path) => descending_path(c, key, path),
        None if matches!(value, "runtime/default" | "docker/default" | "unconfined") => {}
        None => c.invalid_text(key, value, "must be a valid seccomp profile"),
    }
}

fn app_armor(c: &mut Checker, key: &str, value: &str, spec: &Value) {
    let Some(container) = key.strip_prefix(APP_ARMOR) else { return };
    let known = CONTAINERS.iter().any(|f| list(spec, f).iter().any(|v| text(v, "name") == container));
    if !known {
        c.invalid_text(&format!("[{key}]"), container, "container not found");
    }
    if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with(LOCALHOST) {
        c.invalid_text(&format!("[{key}]"), value, format!("invalid AppArmor profile name: {value:?}"));
    }
}

/// What a new pod's annotations say of AppArmor becomes its containers' profiles, where these say nothing themselves.
pub fn sync_app_armor(pod: &mut Object) {
    let annotations = pod["metadata"]["annotations"].clone();
    let spec = &mut pod["spec"];
    if !annotations.is_object() || text(&spec["os"], "name") == "windows" {
        return;
    }
    let of_pod = spec["securityContext"]["appArmorProfile"].clone();
    for field in CONTAINERS {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let said = annotations.get(format!("{APP_ARMOR}{}", text(container, "name"))).and_then(Value::as_str);
            let profile = said.and_then(app_armor_profile).filter(|profile| *profile != of_pod);
            if let (Some(profile), false) = (profile, has(&container["securityContext"], "appArmorProfile")) {
                container["securityContext"]["appArmorProfile"] = profile;
            }
        }
    }
}

/// The profile that an annotation stands for; none where it stands for none that would be valid.
pub fn app_armor_profile(annotation: &str) -> Option<Value> {
    match (annotation, annotation.strip_prefix(LOCALHOST)) {
        ("unconfined", _) => Some(json!({"type": "Unconfined"})),
        ("runtime/default", _) => Some(json!({"type": "RuntimeDefault"})),
        (_, Some(path)) if !path.is_empty() && path == path.trim() && path.len() < 4096 => {
            Some(json!({"type": "Localhost", "localhostProfile": path}))
        }
        _ => None,
    }
}

/// What may not change in a pod's annotations.
pub fn validate_update(c: &mut Checker, pod: &Value, old: &Value) {
    let (new, before) = (&pod["metadata"]["annotations"], &old["metadata"]["annotations"]);
    c.within("metadata.annotations", |c| {
        let mut refuse = |key: &str, verb: &str| {
            if key.starts_with(APP_ARMOR) {
                c.forbidden(&format!("[{key}]"), &format!("may not {verb} AppArmor annotations"));
            }
            if key == MIRROR {
                c.forbidden(&format!("[{key}]"), &format!("may not {verb} mirror pod annotation"));
            }
        };
        for (key, value) in before.as_object().into_iter().flatten() {
            if new.get(key) != Some(value) {
                refuse(key, "remove or update");
            }
        }
        for (key, _) in new.as_object().into_iter().flatten() {
            if before.get(key).is_none() {
                refuse(key, "add");
            }
        }
    });
}

/// Where a new pod says one thing in an annotation and in a field, it must be the same.
pub fn must_match_fields(c: &mut Checker, pod: &Value) {
    let annotations = &pod["metadata"]["annotations"];
    let spec = &pod["spec"];
    c.within("spec", |c| {
        let of_pod = &spec["securityContext"];
        seccomp_matches(c, &of_pod["seccompProfile"], annotations.get(SECCOMP_POD));
        for field in CONTAINERS {
            c.each(spec, field, |c, container| {
                let (name, context) = (text(container, "name"), &container["securityContext"]);
                seccomp_matches(c, &context["seccompProfile"], annotations.get(format!("{SECCOMP_CONTAINER}{name}")));
                let profile = if is_empty(context, "appArmorProfile") { of_pod } else { context };
                let annotation = annotations.get(format!("{APP_ARMOR}{name}"));
                if text(&spec["os"], "name") != "windows" {
                    app_armor_matches(c, &profile["appArmorProfile"], annotation);
                }
            });
        }
    });
}

fn seccomp_matches(c: &mut Checker, profile: &Value, annotation: Option<&Value>) {
    let Some(said) = annotation.and_then(Value::as_str) else { return };
    c.within("securityContext.seccompProfile", |c| {
        const TYPE: &str = "seccomp type in annotation and field must match";
        match (text(profile, "type"), said.strip_prefix(LOCALHOST)) {
            ("Unconfined", _) if said != "unconfined" => c.forbidden("type", TYPE),
            ("RuntimeDefault", _) if !matches!(said, "runtime/default" | "docker/default") => c.forbidden("type", TYPE),
            ("Localhost", None) => c.forbidden("type", TYPE),
            ("Localhost", Some(path)) if path != text(profile, "localhostProfile") => {
                c.forbidden("localhostProfile", "seccomp profile in annotation and field must match");
            }
            _ => {}
        }
    });
}

fn app_armor_matches(c: &mut Checker, profile: &Value, annotation: Option<&Value>) {
    let Some(said) = annotation.and_then(Value::as_str) else { return };
    c.within("securityContext.appArmorProfile", |c| {
        const TYPE: &str = "apparmor type in annotation and field must match";
        match (text(profile, "type"), said.strip_prefix(LOCALHOST)) {
            ("Unconfined", _) if said != "unconfined" => c.forbidden("type", TYPE),
            ("RuntimeDefault", _) if said != "runtime/default" => c.forbidden("type", TYPE),
            ("Localhost", None) => c.forbidden("type", TYPE),
            ("Localhost", Some(path)) if path != text(profile, "localhostProfile") => {
                c.forbidden("localhostProfile", "apparmor profile in annotation and field must match");
            }
            _ => {}
        }
    });
}
