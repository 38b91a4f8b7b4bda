//! Nodes.

use serde_json::Value;

use super::check::{Checker, is_empty, list, repeated, same, text};
use crate::names;

/// The older `podCIDR` is the first of `podCIDRs`.
pub fn sync_pod_cidrs(node: &mut Value) {
    let first = text(&node["spec"], "podCIDR").to_string();
    if !first.is_empty() && is_empty(&node["spec"], "podCIDRs") {
        node["spec"]["podCIDRs"] = Value::Array(vec![first.into()]);
    } else if first.is_empty() && !is_empty(&node["spec"], "podCIDRs") {
        node["spec"]["podCIDR"] = node["spec"]["podCIDRs"][0].clone();
    }
}

pub fn validate(c: &mut Checker, node: &Value) {
    validate_taints(c, node);
    let ranges = list(&node["spec"], "podCIDRs");
    for (i, range) in ranges.iter().enumerate() {
        c.cidr(&format!("spec.podCIDRs[{i}]"), range.as_str().unwrap_or_default(), false);
    }
    if ranges.len() > 1 {
        let v6 = |r: &Value| r.as_str().is_some_and(|t| t.contains(':'));
        if ranges.len() > 2 || v6(&ranges[0]) == v6(&ranges[1]) {
            c.invalid(
                "spec.podCIDRs",
                &node["spec"]["podCIDRs"],
                "may specify no more than one CIDR for each IP family",
            );
        }
    }
}

/// Upstream reports taints under `metadata`.
fn validate_taints(c: &mut Checker, node: &Value) {
    let taints = list(&node["spec"], "taints");
    let repeated = repeated(taints, |t| (text(t, "key").to_string(), text(t, "effect").to_string()));
    for (i, taint) in taints.iter().enumerate() {
        c.within(&format!("metadata.taints[{i}]"), |c| {
            c.rule("key", text(taint, "key"), names::qualified_name);
            let value = names::label_value(text(taint, "value")).join(";");
            if !value.is_empty() {
                c.invalid("value", &taint["value"], value);
            }
            c.choice(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            if repeated[i] {
                c.duplicate_as("core.Taint", "", taint, "taints must be unique by key and effect pair");
            }
        });
    }
}

pub fn validate_update(c: &mut Checker, node: &Value, old: &Value) {
    validate_taints(c, node);
    let (spec, before) = (&node["spec"], &old["spec"]);
    if !is_empty(before, "podCIDRs") && !same(spec, before, "podCIDRs") {
        c.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
    }
    if !is_empty(before, "providerID") && !same(spec, before, "providerID") {
        c.forbidden("spec.providerID", "node updates may not change providerID except from \"\" to valid");
    }
}
