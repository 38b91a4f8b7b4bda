//! Horizontal pod autoscalers.

use serde_json::Value;

use super::check::{Checker, has, int, is_empty, list, quantity, text};
use crate::names;
use crate::resource::GroupVersion;

pub fn horizontal_pod_autoscaler(c: &mut Checker, object: &Value) {
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
            c.invalid("metrics[0].resource.target.averageUtilization", percent, "must be greater than 0");
        }
        c.at(spec, "scaleTargetRef", reference);
        if min == Some(0) && !list(spec, "metrics").iter().any(|m| matches!(text(m, "type"), "Object" | "External")) {
            c.forbidden(
                "metrics",
                "must specify at least one Object or External metric to support scaling to zero replicas",
            );
        }
        c.each(spec, "metrics", metric);
        c.if_set(spec, "behavior", |c, behavior| {
            c.if_set(behavior, "scaleUp", scaling_rules);
            c.if_set(behavior, "scaleDown", scaling_rules);
        });
    });
}

fn reference(c: &mut Checker, target: &Value) {
    c.name(target, "kind", names::path_segment);
    c.name(target, "name", names::path_segment);
    let version = text(target, "apiVersion");
    match GroupVersion::parse(version) {
        None => c.invalid_text("apiVersion", version, format!("unexpected GroupVersion string: {version}")),
        Some(parsed) if parsed.group.is_empty() && version != "v1" => {
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

fn metric(c: &mut Checker, metric: &Value) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        c.required("type", "must specify a metric source type");
    }
    let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
    if !names.contains(&kind) {
        let mut names = names;
        names.sort_unstable();
        c.not_supported("type", &kind.into(), &names);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| has(metric, field)).collect();
    if let Some(first) = present.first() {
        c.at(metric, first, |c, source| metric_source(c, source, first));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    if let Some(field) = expected.filter(|field| !present.contains(field)) {
        c.required(field, "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            c.forbidden(field, "must populate the given metric source only");
        }
    }
}

fn metric_source(c: &mut Checker, source: &Value, kind: &str) {
    if kind == "object" {
        c.at(source, "describedObject", reference);
    }
    match kind {
        "resource" | "containerResource" => {
            if is_empty(source, "name") {
                c.required("name", "must specify a resource name");
            }
            if kind == "containerResource" && is_empty(source, "container") {
                c.required("container", "must specify a container");
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
