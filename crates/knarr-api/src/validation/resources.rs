//! Resource names, quantities, requests and limits.

use serde_json::Value;

use super::check::{Checker, entries, has, list, quantity, text};
use crate::names;

const NATIVE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Whether a name without a domain, or of the native domain.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_standard_container(name: &str) -> bool {
    NATIVE.contains(&name) || is_hugepages(name)
}

/// A resource that a container may ask for; errors stand at the current path.
pub fn validate_container_resource_name(c: &mut Checker, name: &str) {
    c.rule("", name, names::qualified_name);
    if !name.contains('/') {
        if !is_standard_container(name) {
            c.invalid_text("", name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        c.invalid_text("", name, "doesn't follow extended resource name standard");
    }
}

/// A quantity of a resource: not negative, whole where the resource is counted.
pub fn validate_quantity(c: &mut Checker, name: &str, value: &Value) {
    let amount = quantity(value);
    if amount.is_negative() {
        c.invalid("", value, "must be greater than or equal to 0");
    }
    let counted = is_extended(name)
        || matches!(
            name,
            "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        )
        || name.starts_with("count/");
    if counted && !amount.is_integer() {
        c.invalid("", value, "must be an integer");
    }
}

/// `ResourceRequirements` of a container.
pub fn validate_requirements(c: &mut Checker, requirements: &Value, claims: &[&str]) {
    let native = |c: &mut Checker, field: &str| {
        c.each_key(requirements, field, |c, name, value| {
            validate_container_resource_name(c, name);
            validate_quantity(c, name, value);
        });
    };
    native(c, "limits");
    native(c, "requests");
    for (name, request) in entries(requirements, "requests") {
        let limit = &requirements["limits"][name.as_str()];
        if !limit.is_null() && quantity(request) > quantity(limit) {
            c.invalid(
                "requests",
                request,
                format!("must be less than or equal to {name} limit of {}", limit.as_str().unwrap_or_default()),
            );
        } else if !limit.is_null() && quantity(request) != quantity(limit) && fixed(name) {
            let limit = limit.as_str().unwrap_or_default();
            c.invalid("requests", request, format!("must be equal to {name} limit of {limit}"));
        } else if limit.is_null() && fixed(name) {
            c.required("limits", "Limit must be set for non overcommitable resources");
        }
    }
    validate_claims(c, requirements, claims);
}

/// Resources of which none is given that is not limited.
fn fixed(name: &str) -> bool {
    is_hugepages(name) || is_extended(name)
}

fn validate_claims(c: &mut Checker, requirements: &Value, claims: &[&str]) {
    let items = list(requirements, "claims");
    c.each_indexed(requirements, "claims", |c, i, claim| {
        let name = text(claim, "name");
        if name.is_empty() {
            c.required("", "");
            return;
        }
        let key = |v: &Value| (text(v, "name").to_string(), text(v, "request").to_string());
        if items[..i].iter().any(|v| key(v) == key(claim)) {
            c.duplicate("", &name.into());
        } else if !claims.contains(&name) {
            c.not_found("", &name.into());
        }
        if has(claim, "request") {
            c.rule("request", text(claim, "request"), names::dns_label);
        }
    });
}
