//! Limit ranges and resource quotas.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Checker, entries, equal, list, quantity, seen_before, text};
use super::resources;
use crate::names;

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn resource_name(c: &mut Checker, name: &str) {
    c.rule("", name, names::qualified_name);
    let standard = STANDARD.contains(&name)
        || name == "storage"
        || resources::is_hugepages(name)
        || name.starts_with("requests.hugepages-");
    if names::qualified_name(name).is_empty() && !name.contains('/') && !standard {
        c.invalid_text("", name, "must be a standard resource type or fully qualified");
    }
}

pub fn limit_range(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let limits = list(spec, "limits");
        c.each_indexed(spec, "limits", |c, i, limit| {
            let kind = text(limit, "type");
            c.rule("type", kind, names::qualified_name);
            let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
            if names::qualified_name(kind).is_empty() && !kind.contains('/') && !standard {
                c.invalid_text("type", kind, "must be a standard limit type or fully qualified");
            }
            if seen_before(limits, i, |v| text(v, "type").to_string()) {
                c.duplicate("type", &kind.into());
            }
            limit_item(c, limit, kind);
        });
    });
}

fn limit_item(c: &mut Checker, limit: &Value, kind: &str) {
    let mut names_met = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "Pod" && field.starts_with("default") {
            if entries(limit, field).next().is_some() {
                c.forbidden(field, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        c.each_key(limit, field, |c, name, _| match kind {
            "Pod" | "Container" => resources::validate_container_resource_name(c, name),
            _ => resource_name(c, name),
        });
        names_met.extend(entries(limit, field).map(|(name, _)| name.clone()));
    }
    let storage = |field: &str| limit[field].get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        c.required("limits", "either minimum or maximum storage value is required, but neither was provided");
    }
    for name in names_met {
        limit_order(c, limit, &name);
    }
}

fn limit_order(c: &mut Checker, limit: &Value, name: &str) {
    const ORDER: [(&str, &str, &str); 6] = [
        ("min", "max", "min"),
        ("min", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "max", "defaultRequest"),
        ("defaultRequest", "default", "defaultRequest"),
        ("min", "default", "default"),
        ("default", "max", "default"),
    ];
    let shown = |field: &str| match field {
        "default" => "default value",
        "defaultRequest" => "default request value",
        "min" => "min value",
        _ => "max value",
    };
    for (low, high, at) in ORDER {
        let (a, b) = (&limit[low][name], &limit[high][name]);
        if !a.is_null() && !b.is_null() && quantity(a) > quantity(b) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
            let why = format!("{} {} is greater than {} {}", shown(low), text(a), shown(high), text(b));
            c.invalid(&format!("{at}[{name}]"), &limit[at][name], why);
        }
    }
    let ratio = &limit["maxLimitRequestRatio"][name];
    if !ratio.is_null() && quantity(ratio) < crate::quantity::Quantity::from_i64(1) {
        let why = format!("ratio {} is less than 1", ratio.as_str().unwrap_or_default());
        c.invalid(&format!("maxLimitRequestRatio[{name}]"), ratio, why);
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

pub fn resource_quota(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.each_key(spec, "hard", |c, name, value| {
            quota_name(c, name);
            resources::validate_quantity(c, name, value);
        });
        quota_scopes(c, spec);
    });
}

fn quota_name(c: &mut Checker, name: &str) {
    resource_name(c, name);
    let quotable = STANDARD.contains(&name) || resources::is_hugepages(name) || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !quotable && names::qualified_name(name).is_empty() {
        c.invalid_text("", name, "must be a standard resource for quota");
    }
}

fn quota_scopes(c: &mut Checker, spec: &Value) {
    let scopes = list(spec, "scopes");
    for scope in scopes {
        let scope = scope.as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            c.invalid("scopes", &spec["scopes"], "unsupported scope");
        }
        for (name, _) in entries(spec, "hard") {
            if STANDARD.contains(&name.as_str()) && !scope_applies(scope, name) {
                c.invalid("scopes", &spec["scopes"], "unsupported scope applied to resource");
            }
        }
    }
    let holds = |name: &str| scopes.iter().any(|s| s == name);
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if holds(a) && holds(b) {
            c.invalid("scopes", &spec["scopes"], "conflicting scopes");
        }
    }
}

fn scope_applies(scope: &str, resource: &str) -> bool {
    let pod_resource = ["cpu", "memory", "ephemeral-storage", "pods"].contains(&resource)
        || ["requests.cpu", "requests.memory", "requests.ephemeral-storage"].contains(&resource)
        || resource.starts_with("limits.");
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            pod_resource
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

pub fn resource_quota_update(c: &mut Checker, object: &Value, old: &Value) {
    resource_quota(c, object);
    let sorted = |v: &Value| list(&v["spec"], "scopes").iter().map(Value::to_string).collect::<BTreeSet<_>>();
    if !equal(&object["spec"]["scopes"], &old["spec"]["scopes"]) && sorted(object) != sorted(old) {
        c.invalid("spec.scopes", &object["spec"]["scopes"], "field is immutable");
    }
}
