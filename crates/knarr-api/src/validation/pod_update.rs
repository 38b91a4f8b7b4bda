//! What may change in a pod: images, the deadline, added tolerations, removed gates, and little else.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::check::{Checker, entries, equal, has, int, list, text};
use super::{annotations, node_selector, pod};
use crate::internal;

pub fn validate(c: &mut Checker, pod: &Value, old: &Value) {
    pod::validate_pod(c, pod);
    annotations::validate_update(c, pod, old);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    for field in ["containers", "initContainers"] {
        if list(spec, field).len() != list(before, field).len() {
            c.forbidden(&format!("spec.{field}"), "pod updates may not add or remove containers");
            return;
        }
        c.within("spec", |c| {
            c.each(spec, field, |c, container| {
                c.need(container, "image");
                pod::validate_image(c, container);
            });
        });
    }
    if !deadline(c, spec, before) {
        return;
    }
    c.within("spec", |c| {
        only_additional_tolerations(c, spec, before);
        only_removed_gates(c, spec, before);
        let masked = masked(c, spec, before);
        if !equal(&masked, before) {
            let difference = internal::difference("core.PodSpec", before, &masked);
            let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
            c.forbidden("", &format!("{why}{difference}"));
        }
    });
}

/// Whether the rest is still worth checking.
fn deadline(c: &mut Checker, spec: &Value, before: &Value) -> bool {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            c.invalid(FIELD, &new.into(), "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if new > old => {
            c.invalid(FIELD, &new.into(), "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            c.invalid(FIELD, &Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn only_additional_tolerations(c: &mut Checker, spec: &Value, before: &Value) {
    let timeless =
        |toleration: &Value| ["key", "operator", "value", "effect"].map(|field| text(toleration, field).to_string());
    let new: HashSet<[String; 4]> = list(spec, "tolerations").iter().map(timeless).collect();
    if list(before, "tolerations").iter().all(|old| new.contains(&timeless(old))) {
        node_selector::validate_tolerations(c, spec);
    } else {
        c.forbidden("tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn only_removed_gates(c: &mut Checker, spec: &Value, before: &Value) {
    let old: HashSet<&str> = list(before, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !old.contains(name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            c.forbidden(&format!("schedulingGates[{i}].name"), &why);
        }
    }
}

/// The new spec with everything that may change put back.
fn masked(c: &mut Checker, spec: &Value, before: &Value) -> Value {
    let mut masked = spec.clone();
    for list_name in ["containers", "initContainers"] {
        let old = list(before, list_name);
        for (container, old) in masked[list_name].as_array_mut().into_iter().flatten().zip(old) {
            container["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        masked[field] = before[field].clone();
    }
    let grace = (int(spec, "terminationGracePeriodSeconds"), int(before, "terminationGracePeriodSeconds"));
    if grace.0 == Some(1) && grace.1.is_some_and(|old| old < 0) {
        masked["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"].clone();
    }
    if !list(before, "schedulingGates").is_empty() {
        mask_placement(c, spec, before, &mut masked);
    }
    masked
}

/// While a gate holds a pod back, where it may run can be narrowed.
fn mask_placement(c: &mut Checker, spec: &Value, before: &Value, masked: &mut Value) {
    let kept = |(key, value): (&String, &Value)| spec["nodeSelector"].get(key) == Some(value);
    if !entries(before, "nodeSelector").all(kept) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        c.invalid("nodeSelector", &spec["nodeSelector"], why);
    }
    masked["nodeSelector"] = before["nodeSelector"].clone();
    let (new, old) = (&spec["affinity"]["nodeAffinity"], &before["affinity"]["nodeAffinity"]);
    if equal(new, old) {
        return;
    }
    narrowed_affinity(c, new, old);
    if has(spec, "affinity") || has(before, "affinity") {
        if !masked["affinity"].is_object() {
            masked["affinity"] = json!({});
        }
        masked["affinity"]["nodeAffinity"] = old.clone();
        // What says nothing more is as none.
        let says = |field: &str| has(&masked["affinity"], field);
        if !has(before, "affinity") && !says("podAffinity") && !says("podAntiAffinity") {
            masked["affinity"] = before["affinity"].clone();
        }
    }
}

fn narrowed_affinity(c: &mut Checker, new: &Value, old: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let field = format!("affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let (new, old) = (list(&new[REQUIRED], "nodeSelectorTerms"), list(&old[REQUIRED], "nodeSelectorTerms"));
    if !old.is_empty() && old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        c.invalid(&field, &new.into(), why);
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        if !only_adds(new, old) {
            let why = "only additions are allowed (no mutations or deletions)";
            c.invalid(&format!("{field}[{i}]"), new, why);
        }
    }
}

fn only_adds(new: &Value, old: &Value) -> bool {
    const FIELDS: [&str; 2] = ["matchExpressions", "matchFields"];
    let empty = |term: &Value| FIELDS.iter().all(|f| list(term, f).is_empty());
    let starts = |field: &str| {
        let (new, old) = (list(new, field), list(old, field));
        new.len() >= old.len() && new.iter().zip(old).all(|(a, b)| equal(a, b))
    };
    (!empty(old) || empty(new)) && FIELDS.into_iter().all(starts)
}
