//! Horizontal pod autoscalers.

use serde_json::Value;

use super::check::{Checker, has, int, is_empty, list, quantity, text};
use super::resources;
use crate::names;
use crate::resource::GroupVersion;

pub fn horizontal_pod_autoscaler(c: &mut Checker, object: &Value) {
    validate(c, object, &Value::Null);
}

/// References that were wrong already may stay so.
pub fn horizontal_pod_autoscaler_update(c: &mut Checker, object: &Value, old: &Value) {
    validate(c, object, old);
}

fn validate(c: &mut Checker, object: &Value, old: &Value) {
    c.at(object, "spec", |c, spec| {
        let (min, max) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or(0));
        if min.is_some_and(|min| min < 1) {
            c.invalid("minReplicas", &spec["minReplicas"], "must be greater than or equal to 1");
        }
        if max == 0 {
            c.required("maxReplicas", "must be set and greater than 0");
        } else if max < 0 {
            c.invalid("maxReplicas", &max.into(), "must be greater than or equal to 1");
        }
        if min.is_some_and(|min| max < min) {
            c.invalid("maxReplicas", &max.into(), "must be greater than or equal to `minReplicas`");
        }
        if int(spec, "targetCPUUtilizationPercentage").is_some_and(|n| n < 1) {
            let percent = &spec["targetCPUUtilizationPercentage"];
            // What v1 asks of the CPU follows what its annotation asks.
            let at = annotated_metrics(object);
            let field = format!("metrics[{at}].resource.target.averageUtilization");
            c.invalid(&field, percent, "must be greater than 0");
        }
        let (target, before) = (&spec["scaleTargetRef"], &old["spec"]["scaleTargetRef"]);
        let version = match text(target, "kind") {
            _ if !before.is_null() && ["kind", "apiVersion"].iter().all(|f| text(target, f) == text(before, f)) => {
                Version::Any
            }
            "ReplicationController" => Version::Valid,
            _ => Version::OfGroup,
        };
        c.at(spec, "scaleTargetRef", |c, target| reference(c, target, version));
        if min == Some(0) && !list(spec, "metrics").iter().any(|m| matches!(text(m, "type"), "Object" | "External")) {
            c.forbidden(
                "metrics",
                "must specify at least one Object or External metric to support scaling to zero replicas",
            );
        }
        let described =
            list(&old["spec"], "metrics").iter().map(|metric| text(&metric["object"]["describedObject"], "apiVersion"));
        let wrong = described.into_iter().any(|version| GroupVersion::parse(version).is_none() && !version.is_empty());
        let version = if wrong { Version::Any } else { Version::Valid };
        c.each(spec, "metrics", |c, value| metric(c, value, version));
        c.if_set(spec, "behavior", |c, behavior| {
            c.if_set(behavior, "scaleUp", scaling_rules);
            c.if_set(behavior, "scaleDown", scaling_rules);
        });
    });
}

/// How many metrics the annotation of v1 holds, which come before the one of its field.
fn annotated_metrics(object: &Value) -> usize {
    let text = object["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str();
    let metrics = text.and_then(|text| serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).ok());
    metrics.map_or(0, |metrics| metrics.len())
}

/// What the version in a reference must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Any,
    Valid,
    /// Of a group with a name.
    OfGroup,
}

fn reference(c: &mut Checker, target: &Value, wanted: Version) {
    c.name(target, "kind", names::path_segment);
    c.name(target, "name", names::path_segment);
    let version = text(target, "apiVersion");
    if wanted == Version::Any {
        return;
    }
    // No version at all is that of no group.
    let parsed = if version.is_empty() {
        Some(String::new())
    } else {
        GroupVersion::parse(version).map(|v| v.group.to_string())
    };
    match parsed {
        None => c.invalid_text("apiVersion", version, format!("unexpected GroupVersion string: {version}")),
        Some(group) if group.is_empty() && wanted == Version::OfGroup => {
            c.invalid_text("apiVersion", version, "apiVersion must specify API group");
        }
        Some(_) => {}
    }
}

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metric(c: &mut Checker, metric: &Value, version: Version) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        c.required("type", "must specify a metric source type");
    }
    if !SOURCES.iter().any(|(name, _)| *name == kind) {
        unknown_source(c, kind);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| has(metric, field)).collect();
    if let Some(first) = present.first() {
        c.at(metric, first, |c, source| metric_source(c, source, first, version));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    match expected {
        // Who looks for its source does not know it either.
        None => unknown_source(c, kind),
        Some(field) if !present.contains(&field) => {
            c.required(field, "must populate information for the given metric source");
        }
        Some(_) => {}
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            c.forbidden(field, "must populate the given metric source only");
        }
    }
}

fn unknown_source(c: &mut Checker, kind: &str) {
    let mut names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    c.not_supported("type", &kind.into(), &names);
}

fn metric_source(c: &mut Checker, source: &Value, kind: &str, version: Version) {
    if kind == "object" {
        c.at(source, "describedObject", |c, target| reference(c, target, version));
    }
    match kind {
        "resource" | "containerResource" => {
            let of_container = kind == "containerResource";
            match text(source, "name") {
                "" => c.required("name", "must specify a resource name"),
                name if of_container => c.within("name", |c| resources::validate_container_resource_name(c, name)),
                _ => {}
            }
            match text(source, "container") {
                _ if !of_container => {}
                "" => c.required("container", "must specify a container"),
                name => c.rule("container", name, names::dns_label),
            }
        }
        _ => c.at(source, "metric", |c, metric| match is_empty(metric, "name") {
            true => c.required("name", "must specify a metric name"),
            false => c.name(metric, "name", names::path_segment),
        }),
    }
    c.at(source, "target", |c, target| {
        metric_target(c, target);
        let (value, average) = (has(target, "value"), has(target, "averageValue"));
        let utilization = has(target, "averageUtilization");
        match kind {
            "external" if !value && !average => {
                c.required("averageValue", "must set either a target value for metric or a per-pod target");
            }
            "object" if !value && !average => {
                c.required("averageValue", "must set either a target value or averageValue");
            }
            "external" if value && average => {
                c.forbidden("value", "may not set both a target value for metric and a per-pod target");
            }
            "pods" if !average => c.required("averageValue", "must specify a positive target averageValue"),
            "resource" | "containerResource" => {
                if !utilization && !average {
                    c.required("averageUtilization", "must set either a target raw value or a target utilization");
                }
                if utilization && average {
                    c.forbidden("averageValue", "may not set both a target raw value and a target utilization");
                }
            }
            _ => {}
        }
    });
}

fn metric_target(c: &mut Checker, target: &Value) {
    match text(target, "type") {
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            if other.is_empty() {
                c.required("type", "must specify a metric target type");
            }
            c.invalid_text("type", other, "must be either Utilization, Value, or AverageValue");
        }
    }
    for field in ["value", "averageValue"] {
        if has(target, field) && (quantity(&target[field]).is_zero() || quantity(&target[field]).is_negative()) {
            c.invalid(field, &target[field], "must be positive");
        }
    }
    if int(target, "averageUtilization").is_some_and(|n| n < 1) {
        c.invalid("averageUtilization", &target["averageUtilization"], "must be greater than 0");
    }
}

fn scaling_rules(c: &mut Checker, rules: &Value) {
    if let Some(window) = int(rules, "stabilizationWindowSeconds") {
        if window < 0 {
            c.invalid("stabilizationWindowSeconds", &window.into(), "must be greater than or equal to zero");
        }
        if window > 3600 {
            c.invalid("stabilizationWindowSeconds", &window.into(), "must be less than or equal to 3600");
        }
    }
    if has(rules, "tolerance") && quantity(&rules["tolerance"]).is_negative() {
        c.invalid("tolerance", &rules["tolerance"], "must be greater than or equal to 0");
    }
    c.optional_choice(rules, "selectPolicy", &["Disabled", "Max", "Min"]);
    if list(rules, "policies").is_empty() {
        c.required("policies", "must specify at least one Policy");
    }
    c.each(rules, "policies", |c, policy| {
        c.supported(policy, "type", &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = int(policy, field).unwrap_or(0);
            if number <= 0 {
                c.invalid(field, &number.into(), "must be greater than zero");
            }
        }
        if int(policy, "periodSeconds").is_some_and(|n| n > 1800) {
            c.invalid("periodSeconds", &policy["periodSeconds"], "must be less than or equal to 1800");
        }
    });
}
