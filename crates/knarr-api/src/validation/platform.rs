//! Kinds of the platform: leases, classes, API services, access reviews.

use serde_json::Value;

use super::check::{Checker, has, int, is_empty, list, repeated_items, text};
use super::{labels, node_selector};
use crate::names;

pub fn lease(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.positive(spec, "leaseDurationSeconds");
        c.not_negative(spec, "leaseTransitions");
        if has(spec, "strategy") {
            // Upstream names the field twice.
            match text(spec, "strategy") {
                "OldestEmulationVersion" => {}
                strategy if strategy.contains('/') => c.rule("strategy.strategy", strategy, names::qualified_name),
                strategy => c.not_supported("strategy.strategy", &strategy.into(), &["OldestEmulationVersion"]),
            }
        }
        if !is_empty(spec, "preferredHolder") && is_empty(spec, "strategy") {
            c.forbidden("preferredHolder", "may only be specified if `strategy` is defined");
        }
    });
}

pub fn priority_class(c: &mut Checker, class: &Value) {
    let name = text(&class["metadata"], "name");
    let value = int(class, "value").unwrap_or(0);
    let system = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    if name.starts_with("system-") {
        if !system.contains(&(name, value)) {
            c.forbidden("metadata.name", "priority class names with 'system-' prefix are reserved for system use only. error: class is not a known system priority class");
        }
    } else if value > 1_000_000_000 {
        c.forbidden("value", "maximum allowed value of a user defined priority is 1000000000");
    }
    if has(class, "preemptionPolicy") {
        c.choice(class, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    }
}

pub fn priority_class_update(c: &mut Checker, class: &Value, old: &Value) {
    if int(class, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
        c.forbidden("value", "may not be changed in an update.");
    }
    c.immutable(class, old, "preemptionPolicy");
}

pub fn runtime_class(c: &mut Checker, class: &Value) {
    match text(class, "handler") {
        "" => c.required("handler", ""),
        handler => c.rule("handler", handler, names::dns_label),
    }
    super::resources::validate_overhead(c, &class["overhead"], "podFixed");
    c.if_set(class, "scheduling", |c, scheduling| {
        labels::validate(c, scheduling, "nodeSelector");
        let tolerations = list(scheduling, "tolerations");
        let repeated = repeated_items(tolerations);
        node_selector::validate_tolerations(c, scheduling);
        for (i, toleration) in tolerations.iter().enumerate().filter(|(i, _)| repeated[*i]) {
            c.duplicate_as("core.Toleration", &format!("tolerations[{i}]"), toleration, "");
        }
    });
}

pub fn runtime_class_update(c: &mut Checker, class: &Value, old: &Value) {
    runtime_class(c, class);
    c.immutable(class, old, "handler");
}

pub fn api_service(c: &mut Checker, object: &Value) {
    let spec = &object["spec"];
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    let name = text(&object["metadata"], "name");
    if !name.is_empty() && name != wanted {
        c.invalid_text("metadata.name", name, format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    c.within("spec", |c| {
        if group.is_empty() {
            if version != "v1" {
                c.required("group", "only v1 may have an empty group and it better be legacy kube");
            }
        } else {
            for message in names::dns_subdomain(group) {
                c.invalid_text("group", group, message);
            }
        }
        for message in names::dns_1035_label(version) {
            c.invalid_text("version", version, message);
        }
        let minimum = int(spec, "groupPriorityMinimum").unwrap_or(0);
        if minimum <= 0 || minimum > 20_000 {
            c.invalid("groupPriorityMinimum", &minimum.into(), "must be positive and less than 20000");
        }
        let priority = int(spec, "versionPriority").unwrap_or(0);
        if priority <= 0 || priority > 1000 {
            c.invalid("versionPriority", &priority.into(), "must be positive and less than 1000");
        }
        if !has(spec, "service") {
            if !is_empty(spec, "caBundle") {
                let size = text(spec, "caBundle").trim_end_matches('=').len() * 3 / 4;
                c.invalid_text("caBundle", &format!("{size} bytes"), "local APIServices may not have a caBundle");
            }
            if spec["insecureSkipTLSVerify"] == true {
                c.invalid(
                    "insecureSkipTLSVerify",
                    &true.into(),
                    "local APIServices may not have insecureSkipTLSVerify",
                );
            }
            return;
        }
        c.at(spec, "service", |c, service| {
            c.need(service, "namespace");
            c.need(service, "name");
            if int(service, "port").is_some_and(|p| !(1..=65535).contains(&p)) {
                c.invalid("port", &service["port"], "port is not valid: must be between 1 and 65535, inclusive");
            }
        });
        if spec["insecureSkipTLSVerify"] == true && !is_empty(spec, "caBundle") {
            c.invalid("insecureSkipTLSVerify", &true.into(), "may not be true if caBundle is present");
        }
    });
}

/// The status of an API service: conditions that hold, do not, or may.
pub fn api_service_status(c: &mut Checker, object: &Value, _old: &Value) {
    c.at(object, "status", |c, status| {
        c.each(status, "conditions", |c, condition| c.supported(condition, "status", &["True", "False", "Unknown"]));
    });
}

/// An access review asks about exactly one thing.
pub fn access_review(c: &mut Checker, object: &Value, of_self: bool) {
    c.at(object, "spec", |c, spec| {
        match (has(spec, "resourceAttributes"), has(spec, "nonResourceAttributes")) {
            (true, true) => {
                let why = "cannot be specified in combination with resourceAttributes";
                c.invalid("nonResourceAttributes", &spec["nonResourceAttributes"], why);
            }
            (false, false) => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                c.invalid("resourceAttributes", &spec["resourceAttributes"], why);
            }
            _ => {}
        }
        if !of_self && text(spec, "user").is_empty() && list(spec, "groups").is_empty() {
            c.invalid_text("user", text(spec, "user"), "at least one of user or group must be specified");
        }
    });
}
