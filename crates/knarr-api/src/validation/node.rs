//! Nodes.

use serde_json::{Value, json};

use super::check::{Checker, entries, is_empty, list, parse_cidr, repeated, repeated_items, same, text};
use super::resources;
use crate::names;

/// The older `podCIDR` is the first of `podCIDRs`; where both are given and differ, it alone counts.
pub fn sync_pod_cidrs(node: &mut Value) {
    let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let first = spec.get("podCIDR").and_then(Value::as_str).unwrap_or_default();
    let leading = spec.get("podCIDRs").and_then(|ranges| ranges[0].as_str());
    if !first.is_empty() && leading != Some(first) {
        spec.insert("podCIDRs".into(), json!([first]));
    } else if let Some(leading) = leading.filter(|range| !range.is_empty()) {
        spec.insert("podCIDR".into(), leading.into());
    } else {
        spec.remove("podCIDR");
    }
}

pub fn validate(c: &mut Checker, node: &Value) {
    validate_taints(c, node);
    validate_resources(c, &node["status"]);
    let ranges = list(&node["spec"], "podCIDRs");
    for (i, range) in ranges.iter().enumerate() {
        c.cidr(&format!("spec.podCIDRs[{i}]"), range.as_str().unwrap_or_default(), false);
    }
    if ranges.len() > 1 {
        let parsed: Option<Vec<bool>> =
            ranges.iter().map(|r| r.as_str().and_then(parse_cidr).map(|(address, _)| address.is_ipv6())).collect();
        if parsed.is_none() {
            let mut all = ranges.iter().map(|range| range.as_str().unwrap_or_default()).enumerate();
            let (i, unread) = all.find(|(_, range)| parse_cidr(range).is_none()).unwrap_or_default();
            let why = format!("invalid CIDR[{i}]: <nil> (invalid CIDR address: {unread})");
            let whole = "invalid PodCIDRs. failed to check with dual stack with error";
            c.internal("spec.podCIDRs", &format!("{whole}:{why}"));
        }
        let dual = parsed.is_some_and(|v6| v6.contains(&true) && v6.contains(&false));
        if ranges.len() > 2 || !dual {
            c.invalid(
                "spec.podCIDRs",
                &node["spec"]["podCIDRs"],
                "may specify no more than one CIDR for each IP family",
            );
        }
    }
}

/// Nobody need say what a node has; what is said must be so much of something.
fn validate_resources(c: &mut Checker, status: &Value) {
    for field in ["capacity", "allocatable"] {
        for (name, amount) in entries(status, field) {
            c.within(&format!("status.{field}.{name}"), |c| resources::validate_quantity(c, name, amount));
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
    // Upstream does what a new node needs and what an old one keeps, and what both say stands twice.
    validate(c, node);
    validate_change(c, node, old);
}

/// What a node keeps, whichever part of it is changed.
pub fn validate_change(c: &mut Checker, node: &Value, old: &Value) {
    let addresses = list(&node["status"], "addresses");
    let repeated = repeated_items(addresses);
    for (i, address) in addresses.iter().enumerate().filter(|(i, _)| repeated[*i]) {
        c.duplicate_as("core.NodeAddress", &format!("status.addresses[{i}]"), address, "");
    }
    let (spec, before) = (&node["spec"], &old["spec"]);
    let (ranges, old_ranges) = (list(spec, "podCIDRs"), list(before, "podCIDRs"));
    let changes = match ranges.len() == old_ranges.len() {
        true => ranges.iter().zip(old_ranges).filter(|(new, old)| new != old).count(),
        false => usize::from(!old_ranges.is_empty()),
    };
    for _ in 0..changes {
        c.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
    }
    if !is_empty(before, "providerID") && !same(spec, before, "providerID") {
        c.forbidden("spec.providerID", "node updates may not change providerID except from \"\" to valid");
    }
    validate_taints(c, node);
    if text(spec, "externalID") != text(before, "externalID") {
        c.forbidden("spec.externalID", "may not be updated");
    }
}
