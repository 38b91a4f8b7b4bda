//! Limit ranges and resource quotas.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Checker, entries, equal, list, quantity, repeated_text, text};
use super::resources;
use crate::names;

pub fn limit_range(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let limits = list(spec, "limits");
        let repeated_type = repeated_text(limits, "type");
        c.each_indexed(spec, "limits", |c, i, limit| {
            let kind = text(limit, "type");
            c.rule("type", kind, names::qualified_name);
            let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
            if names::qualified_name(kind).is_empty() && !kind.contains('/') && !standard {
                c.invalid_text("type", kind, "must be a standard limit type or fully qualified");
            }
            if repeated_type[i] {
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
            _ => {
                resources::validate_resource_name(c, name);
            }
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
    /// The lesser and the greater, where a fault stands, and the value it shows.
    const ORDER: [(&str, &str, &str, &str); 6] = [
        ("min", "max", "min", "min"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
        ("min", "default", "default", "min"),
        ("default", "max", "default", "max"),
    ];
    let titled = |field: &str, beside_request: bool| match field {
        "default" if beside_request => "default limit value",
        "default" => "default value",
        "defaultRequest" => "default request value",
        "min" => "min value",
        _ => "max value",
    };
    let shown = |v: &Value| v.as_str().unwrap_or_default().to_string();
    for (low, high, at, value) in ORDER {
        let (a, b) = (&limit[low][name], &limit[high][name]);
        if !a.is_null() && !b.is_null() && quantity(a) > quantity(b) {
            let high_title = titled(high, low == "defaultRequest");
            let why = format!("{} {} is greater than {high_title} {}", titled(low, false), shown(a), shown(b));
            c.invalid(&format!("{at}[{name}]"), &limit[value][name], why);
        }
    }
    limit_ratio(c, limit, name);
    let (default, request) = (&limit["default"][name], &limit["defaultRequest"][name]);
    if resources::is_never_overcommitted(name)
        && !default.is_null()
        && !request.is_null()
        && quantity(default) != quantity(request)
    {
        let why =
            format!("default value {} must equal to defaultRequest value {} in {name}", shown(default), shown(request));
        c.invalid(&format!("defaultRequest[{name}]"), request, why);
    }
}

fn limit_ratio(c: &mut Checker, limit: &Value, name: &str) {
    let ratio = &limit["maxLimitRequestRatio"][name];
    if ratio.is_null() {
        return;
    }
    let field = format!("maxLimitRequestRatio[{name}]");
    let shown = ratio.as_str().unwrap_or_default();
    if quantity(ratio) < crate::quantity::Quantity::from_i64(1) {
        c.invalid(&field, ratio, format!("ratio {shown} is less than 1"));
    }
    let (min, max) = (&limit["min"][name], &limit["max"][name]);
    if min.is_null() || max.is_null() {
        return;
    }
    let most = quantity(max).to_millis() as f64 / quantity(min).to_millis() as f64;
    if quantity(ratio).to_millis() as f64 / 1000.0 > most {
        c.invalid(&field, ratio, format!("ratio {shown} is greater than max/min = {most:.6}"));
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
    resources::validate_resource_name(c, name);
    if !name.contains('/') && !resources::is_quotable(name) {
        c.invalid_text("", name, "must be a standard resource for quota");
    }
}

/// The status of a quota counts what the spec limits.
pub fn resource_quota_status(c: &mut Checker, object: &Value, _old: &Value) {
    c.within("status", |c| {
        for field in ["hard", "used"] {
            c.each_key(&object["status"], field, |c, name, value| {
                quota_name(c, name);
                resources::validate_quantity(c, name, value);
            });
        }
    });
}

fn quota_scopes(c: &mut Checker, spec: &Value) {
    let scopes: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            c.invalid("scopes", &spec["scopes"], "unsupported scope");
        }
        if !fits_resources(spec, scope) {
            c.invalid("scopes", &spec["scopes"], "unsupported scope applied to resource");
        }
    }
    contradictions(c, "scopes", spec, &scopes);
    c.if_set(spec, "scopeSelector", |c, selector| {
        // Upstream leaves the index of an expression out of the path.
        c.within("matchExpressions", |c| {
            for requirement in list(selector, "matchExpressions") {
                scope_requirement(c, requirement);
                if !fits_resources(spec, text(requirement, "scopeName")) {
                    c.invalid("", selector, "unsupported scope applied to resource");
                }
            }
        });
    });
    let selected = list(&spec["scopeSelector"], "matchExpressions").iter().map(|r| text(r, "scopeName"));
    contradictions(c, "scopeSelector.matchExpressions", spec, &selected.collect::<Vec<_>>());
}

fn contradictions(c: &mut Checker, field: &str, spec: &Value, scopes: &[&str]) {
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&a) && scopes.contains(&b) {
            c.invalid(field, &spec["scopes"], "conflicting scopes");
        }
    }
}

fn fits_resources(spec: &Value, scope: &str) -> bool {
    entries(spec, "hard").all(|(name, _)| !resources::is_quotable(name) || scope_applies(scope, name))
}

fn scope_requirement(c: &mut Checker, requirement: &Value) {
    let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
    if !SCOPES.contains(&scope) {
        c.invalid_text("scopeName", scope, "unsupported scope");
    }
    let alone = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    if alone.contains(&scope) && operator != "Exists" {
        c.invalid_text("operator", operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
    }
    let values = list(requirement, "values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            c.required("values", why);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            c.invalid("values", &requirement["values"], why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => c.invalid_text("operator", other, "not a valid selector operator"),
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
