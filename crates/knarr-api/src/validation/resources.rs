//! Resource names, quantities, requests and limits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{Checker, entries, has, list, quantity, text};
use crate::names;
use crate::quantity::Quantity;

const NATIVE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Everything that is counted or measured under a name without a domain.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
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
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether a name without a domain, or of the native domain.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_hugepages(name) || name.starts_with("requests.hugepages-")
}

/// Whether a quota can limit it under a name without a domain.
pub fn is_quotable(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A name of any resource; errors stand at the current path. Says whether it is one.
pub fn validate_resource_name(c: &mut Checker, name: &str) -> bool {
    let before = c.error_count();
    c.rule("", name, names::qualified_name);
    if c.error_count() == before && !name.contains('/') && !is_standard(name) {
        c.invalid_text("", name, "must be a standard resource type or fully qualified");
    }
    c.error_count() == before
}

/// A resource that a container may ask for; errors stand at the current path.
pub fn validate_container_resource_name(c: &mut Checker, name: &str) {
    validate_resource_name(c, name);
    if !name.contains('/') {
        if !NATIVE.contains(&name) && !is_hugepages(name) {
            c.invalid_text("", name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        c.invalid_text("", name, "doesn't follow extended resource name standard");
    }
}

/// A resource that a whole pod may ask for.
fn validate_pod_resource_name(c: &mut Checker, name: &str) {
    let supported = matches!(name, "cpu" | "memory") || is_hugepages(name);
    if validate_resource_name(c, name) && !supported {
        c.not_supported("", &name.into(), &["cpu", "hugepages-", "memory"]);
    }
}

/// What a pod costs beyond its containers: upstream checks it as limits at the holder's `overhead`.
pub fn validate_overhead(c: &mut Checker, holder: &Value, field: &str) {
    for (name, value) in entries(holder, field) {
        c.within(&format!("overhead.limits[{name}]"), |c| {
            validate_container_resource_name(c, name);
            validate_quantity(c, name, value);
        });
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
    requirements_with(c, requirements, validate_container_resource_name);
    validate_claims(c, requirements, claims);
}

fn requirements_with(c: &mut Checker, requirements: &Value, name_rule: fn(&mut Checker, &str)) {
    for field in ["limits", "requests"] {
        for (name, value) in entries(requirements, field) {
            c.within(&format!("{field}[{name}]"), |c| {
                name_rule(c, name);
                validate_quantity(c, name, value);
                whole_pages(c, name, value);
            });
            if field == "requests" {
                within_limit(c, name, value, &requirements["limits"][name.as_str()]);
            }
        }
    }
    let names =
        ["limits", "requests"].into_iter().flat_map(|f| entries(requirements, f).map(|(name, _)| name.as_str()));
    let names: Vec<&str> = names.collect();
    if names.iter().any(|n| is_hugepages(n)) && !names.iter().any(|n| matches!(*n, "cpu" | "memory")) {
        c.forbidden("", "HugePages require cpu or memory");
    }
}

fn within_limit(c: &mut Checker, name: &str, request: &Value, limit: &Value) {
    let exact = is_never_overcommitted(name);
    if limit.is_null() {
        if exact {
            c.required("limits", "Limit must be set for non overcommitable resources");
        }
        return;
    }
    let shown = limit.as_str().unwrap_or_default();
    if quantity(request) != quantity(limit) && exact {
        c.invalid("requests", request, format!("must be equal to {name} limit of {shown}"));
    } else if quantity(request) > quantity(limit) {
        c.invalid("requests", request, format!("must be less than or equal to {name} limit of {shown}"));
    }
}

/// Huge pages come whole.
fn whole_pages(c: &mut Checker, name: &str, value: &Value) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let size: Option<Quantity> = size.parse().ok();
    let whole =
        |size: Quantity| size > Quantity::ZERO && size.is_integer() && quantity(value).to_i64() % size.to_i64() == 0;
    if !size.is_some_and(whole) {
        let why = format!("{} is not positive integer multiple of {name}", value.as_str().unwrap_or_default());
        c.invalid("", value, why);
    }
}

/// Resources of which none is given that is not limited.
pub fn is_never_overcommitted(name: &str) -> bool {
    is_hugepages(name) || !is_native(name)
}

fn validate_claims(c: &mut Checker, requirements: &Value, claims: &[&str]) {
    // A claim may be named whole, or request by request, but not both.
    let mut seen: BTreeSet<String> = BTreeSet::new();
    c.each(requirements, "claims", |c, claim| {
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            c.required("", "");
            return;
        }
        if seen.contains(name) {
            c.duplicate("", &name.into());
        } else {
            let mut key = name.to_string();
            if !request.is_empty() {
                c.rule("request", request, names::dns_label);
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                c.duplicate("", &key.as_str().into());
            } else if request.is_empty() {
                let part = format!("{name}/");
                let parts = seen.range(part.clone()..).take_while(|s| s.starts_with(&part));
                parts.for_each(|_| c.duplicate("", &name.into()));
            }
            seen.insert(key);
        }
        if !claims.contains(&name) {
            c.not_found_because("", &name.into(), &known_claims(claims));
        }
    });
}

fn known_claims(claims: &[&str]) -> String {
    let mut names: Vec<&str> = claims.to_vec();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => "must be one of the names in pod.spec.resourceClaims which is empty".to_string(),
        false => format!("must be one of the names in pod.spec.resourceClaims: {}", names.join(", ")),
    }
}

/// `resources` of a whole pod: they hold what its containers ask for.
pub fn validate_pod_requirements(c: &mut Checker, spec: &Value) {
    if text(&spec["os"], "name") == "windows" {
        c.forbidden("resources", "may not be set for a windows pod");
        return;
    }
    c.at(spec, "resources", |c, resources| {
        if has(resources, "claims") {
            c.forbidden("claims", "claims may not be set for Resources at pod-level");
        }
        requirements_with(c, resources, validate_pod_resource_name);
        validate_claims(c, resources, &[]);
        for (name, sum) in aggregate(spec, "requests") {
            let whole = &resources["requests"][name.as_str()];
            if !whole.is_null() && sum > quantity(whole) {
                let why = format!("must be greater than or equal to aggregate container requests of {sum}");
                c.invalid(&format!("requests[{name}]"), whole, why);
            }
        }
        for (name, sum) in aggregate(spec, "limits").into_iter().filter(|(name, _)| is_hugepages(name)) {
            let whole = &resources["limits"][name.as_str()];
            if !whole.is_null() && sum > quantity(whole) {
                let why = format!("must be greater than or equal to aggregate container limits of {sum}");
                c.invalid(&format!("limits[{name}]"), whole, why);
            }
        }
        for (i, container) in list(spec, "containers").iter().enumerate() {
            for (name, limit) in entries(&container["resources"], "limits") {
                let whole = &resources["limits"][name.as_str()];
                if !whole.is_null() && quantity(limit) > quantity(whole) {
                    let why =
                        format!("must be less than or equal to pod limits of {}", whole.as_str().unwrap_or_default());
                    c.invalid(&format!("containers[{i}][{name}].limits"), limit, why);
                }
            }
        }
    });
}

/// What containers need together: those that run at once are summed, the hungriest initialisation counts where it is more.
pub fn aggregate(spec: &Value, field: &str) -> BTreeMap<String, Quantity> {
    let mut running: BTreeMap<String, Quantity> = BTreeMap::new();
    let add = |sums: &mut BTreeMap<String, Quantity>, container: &Value| {
        for (name, amount) in entries(&container["resources"], field) {
            let sum = sums.entry(name.clone()).or_insert(Quantity::ZERO);
            *sum = *sum + quantity(amount);
        }
    };
    list(spec, "containers").iter().for_each(|container| add(&mut running, container));
    let mut sidecars: BTreeMap<String, Quantity> = BTreeMap::new();
    let mut peak: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in list(spec, "initContainers") {
        let during = if text(container, "restartPolicy") == "Always" {
            add(&mut running, container);
            add(&mut sidecars, container);
            sidecars.clone()
        } else {
            let mut during = sidecars.clone();
            add(&mut during, container);
            during
        };
        for (name, amount) in during {
            let most = peak.entry(name).or_insert(Quantity::ZERO);
            *most = (*most).max(amount);
        }
    }
    for (name, amount) in peak {
        let sum = running.entry(name).or_insert(Quantity::ZERO);
        *sum = (*sum).max(amount);
    }
    running
}
