//! Node selectors, affinity, tolerations and topology spread.

use std::collections::HashMap;

use serde_json::Value;

use super::check::{Checker, has, int, list, text};
use super::labels;
use crate::names;

/// A `NodeSelector`: terms that are alternatives.
pub fn validate(c: &mut Checker, selector: &Value) {
    if list(selector, "nodeSelectorTerms").is_empty() {
        c.required("nodeSelectorTerms", "must have at least one node selector term");
        return;
    }
    c.each(selector, "nodeSelectorTerms", validate_term);
}

/// One term: expressions over labels and over fields.
pub fn validate_term(c: &mut Checker, term: &Value) {
    c.each(term, "matchExpressions", |c, r| {
        requirement_form(c, r);
        c.rule("key", text(r, "key"), names::qualified_name);
        for (i, value) in list(r, "values").iter().enumerate() {
            c.rule(&format!("values[{i}]"), value.as_str().unwrap_or_default(), names::label_value);
        }
    });
    c.each(term, "matchFields", field_requirement);
}

fn requirement_form(c: &mut Checker, requirement: &Value) {
    let count = list(requirement, "values").len();
    match text(requirement, "operator") {
        "In" | "NotIn" if count == 0 => {
            c.required("values", "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            c.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if count != 1 => {
            c.required("values", "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => c.invalid_text("operator", other, "not a valid selector operator"),
    }
}

fn field_requirement(c: &mut Checker, requirement: &Value) {
    let values = list(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => {
            c.required("values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
        }
        "In" | "NotIn" => {}
        other => c.invalid_text("operator", other, "not a valid selector operator"),
    }
    match text(requirement, "key") {
        "metadata.name" => {
            for (i, value) in values.iter().enumerate() {
                c.rule(&format!("values[{i}]"), value.as_str().unwrap_or_default(), names::dns_subdomain);
            }
        }
        other => c.invalid_text("key", other, "not a valid field selector key"),
    }
}

/// `spec.affinity` of a pod.
pub fn validate_affinity(c: &mut Checker, affinity: &Value) {
    c.if_set(affinity, "nodeAffinity", |c, node| {
        c.if_set(node, "requiredDuringSchedulingIgnoredDuringExecution", validate);
        c.each(node, "preferredDuringSchedulingIgnoredDuringExecution", |c, term| {
            c.in_weight(term);
            c.at(term, "preference", validate_term);
        });
    });
    for kind in ["podAffinity", "podAntiAffinity"] {
        c.if_set(affinity, kind, |c, pods| {
            c.each(pods, "requiredDuringSchedulingIgnoredDuringExecution", pod_affinity_term);
            c.each(pods, "preferredDuringSchedulingIgnoredDuringExecution", |c, term| {
                c.in_weight(term);
                c.at(term, "podAffinityTerm", pod_affinity_term);
            });
        });
    }
}

impl Checker {
    fn in_weight(&mut self, term: &Value) {
        let weight = int(term, "weight").unwrap_or(0);
        if !(1..=100).contains(&weight) {
            self.invalid("weight", &weight.into(), "must be in the range 1-100");
        }
    }
}

fn pod_affinity_term(c: &mut Checker, term: &Value) {
    c.if_set(term, "labelSelector", labels::validate_selector);
    c.if_set(term, "namespaceSelector", labels::validate_selector);
    for namespace in list(term, "namespaces") {
        c.rule("namespace", namespace.as_str().unwrap_or_default(), names::dns_label);
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        c.required("topologyKey", "can not be empty");
    }
    c.rule("topologyKey", key, names::qualified_name);
    label_keys(c, term, "matchLabelKeys");
    label_keys(c, term, "mismatchLabelKeys");
    for key in list(term, "matchLabelKeys") {
        if list(term, "mismatchLabelKeys").contains(key) {
            c.invalid("matchLabelKeys", key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

fn label_keys(c: &mut Checker, term: &Value, field: &str) {
    if list(term, field).is_empty() {
        return;
    }
    if !has(term, "labelSelector") {
        c.forbidden(field, "must not be specified when labelSelector is not set");
    }
    for (i, key) in list(term, field).iter().enumerate() {
        c.rule(&format!("{field}[{i}]"), key.as_str().unwrap_or_default(), names::qualified_name);
    }
}

/// A pod's tolerations.
pub fn validate_tolerations(c: &mut Checker, spec: &Value) {
    c.each(spec, "tolerations", |c, toleration| {
        let (key, operator, effect) =
            (text(toleration, "key"), text(toleration, "operator"), text(toleration, "effect"));
        if !key.is_empty() {
            c.rule("key", key, names::qualified_name);
        }
        if key.is_empty() && operator != "Exists" {
            c.invalid_text(
                "operator",
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            c.invalid_text("effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "Equal" | "" => {
                let value = text(toleration, "value");
                if !names::label_value(value).is_empty() {
                    let message = names::label_value(value).join(";");
                    c.invalid_text("operator", value, message);
                }
            }
            "Exists" => {
                if !text(toleration, "value").is_empty() {
                    c.invalid("operator", toleration, "value must be empty when `operator` is 'Exists'");
                }
            }
            other => c.not_supported("operator", &other.into(), &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            c.supported(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    });
}

/// A pod's topology spread constraints.
pub fn validate_spread(c: &mut Checker, spec: &Value) {
    let all = list(spec, "topologySpreadConstraints");
    let key = |v: &Value| (text(v, "topologyKey").to_string(), text(v, "whenUnsatisfiable").to_string());
    let mut left = HashMap::new();
    all.iter().for_each(|constraint| *left.entry(key(constraint)).or_insert(0) += 1);
    c.each(spec, "topologySpreadConstraints", |c, constraint| {
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            c.invalid("maxSkew", &skew.into(), "must be greater than zero");
        }
        if text(constraint, "topologyKey").is_empty() {
            c.required("topologyKey", "can not be empty");
        }
        c.supported(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]);
        let same = left.entry(key(constraint)).or_insert(1);
        *same -= 1;
        if *same > 0 {
            let pair = format!("{{{}, {}}}", key(constraint).0, key(constraint).1);
            c.duplicate("{topologyKey, whenUnsatisfiable}", &pair.into());
        }
        if let Some(domains) = int(constraint, "minDomains") {
            if domains <= 0 {
                c.invalid("minDomains", &domains.into(), "must be greater than zero");
            }
            if text(constraint, "whenUnsatisfiable") != "DoNotSchedule" {
                c.invalid(
                    "minDomains",
                    &domains.into(),
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            c.optional_choice(constraint, policy, &["Honor", "Ignore"]);
        }
        label_keys(c, constraint, "matchLabelKeys");
        c.if_set(constraint, "labelSelector", labels::validate_selector);
    });
}
