//! Roles and their bindings.

use serde_json::Value;

use super::check::{Checker, is_empty, list, text};
use super::labels;
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role(c: &mut Checker, object: &Value) {
    c.each(object, "rules", |c, rule| policy_rule(c, rule, true));
}

pub fn cluster_role(c: &mut Checker, object: &Value) {
    c.each(object, "rules", |c, rule| policy_rule(c, rule, false));
    c.if_set(object, "aggregationRule", |c, rule| {
        if list(rule, "clusterRoleSelectors").is_empty() {
            c.required(
                "clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        c.each(rule, "clusterRoleSelectors", |c, selector| {
            let before = c.error_count();
            labels::validate_selector(c, selector);
            if c.error_count() > before {
                c.invalid("", &Value::Null, "invalid label selector.");
            }
        });
    });
}

fn policy_rule(c: &mut Checker, rule: &Value, namespaced: bool) {
    if list(rule, "verbs").is_empty() {
        c.required("verbs", "verbs must contain at least one value");
    }
    if !is_empty(rule, "nonResourceURLs") {
        if namespaced {
            c.invalid(
                "nonResourceURLs",
                &rule["nonResourceURLs"],
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|f| !is_empty(rule, f)) {
            c.invalid(
                "nonResourceURLs",
                &rule["nonResourceURLs"],
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if is_empty(rule, "apiGroups") {
        c.required("apiGroups", "resource rules must supply at least one api group");
    }
    if is_empty(rule, "resources") {
        c.required("resources", "resource rules must supply at least one resource");
    }
}

pub fn role_binding(c: &mut Checker, object: &Value) {
    binding(c, object, &["Role", "ClusterRole"], true);
}

pub fn cluster_role_binding(c: &mut Checker, object: &Value) {
    binding(c, object, &["ClusterRole"], false);
}

fn binding(c: &mut Checker, object: &Value, kinds: &[&str], namespaced: bool) {
    c.at(object, "roleRef", |c, role| {
        c.supported(role, "apiGroup", &[GROUP]);
        c.supported(role, "kind", kinds);
        match text(role, "name") {
            "" => c.required("name", ""),
            name => c.rule("name", name, names::path_segment),
        }
    });
    c.each(object, "subjects", |c, subject| binding_subject(c, subject, namespaced));
}

fn binding_subject(c: &mut Checker, subject: &Value, namespaced: bool) {
    if text(subject, "name").is_empty() {
        c.required("name", "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !text(subject, "name").is_empty() {
                c.rule("name", text(subject, "name"), names::dns_subdomain);
            }
            if !is_empty(subject, "apiGroup") {
                c.not_supported("apiGroup", &subject["apiGroup"], &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                c.required("namespace", "");
            }
        }
        "User" | "Group" => c.supported(subject, "apiGroup", &[GROUP]),
        _ => c.not_supported("kind", &Value::from(text(subject, "kind")), &["ServiceAccount", "User", "Group"]),
    }
}

/// The role that a binding gives may not change.
pub fn binding_update(c: &mut Checker, object: &Value, old: &Value) {
    if object["roleRef"] != old["roleRef"] {
        let role = |field: &str| text(&object["roleRef"], field).to_string();
        let shown = serde_json::json!({"APIGroup": role("apiGroup"), "Kind": role("kind"), "Name": role("name")});
        c.invalid("roleRef", &shown, "cannot change roleRef");
    }
}
