//! Labels and label selectors.

use serde_json::Value;

use super::check::{Checker, entries, list, text};
use crate::names;

/// A map of labels in a field; errors stand at the field itself.
pub fn validate(c: &mut Checker, value: &Value, field: &str) {
    for (key, label) in entries(value, field) {
        c.rule(field, key, names::qualified_name);
        c.rule(field, label.as_str().unwrap_or_default(), names::label_value);
    }
}

/// A `metav1.LabelSelector`.
pub fn validate_selector(c: &mut Checker, selector: &Value) {
    validate(c, selector, "matchLabels");
    c.each(selector, "matchExpressions", validate_requirement);
}

fn validate_requirement(c: &mut Checker, requirement: &Value) {
    let values = list(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            c.required("values", "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            c.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        other => c.invalid_text("operator", other, "not a valid selector operator"),
    }
    c.rule("key", text(requirement, "key"), names::qualified_name);
    for (i, value) in values.iter().enumerate() {
        c.rule(&format!("values[{i}]"), value.as_str().unwrap_or_default(), names::label_value);
    }
}

/// Whether a selector selects everything.
pub fn is_empty_selector(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none() && list(selector, "matchExpressions").is_empty()
}

/// Whether a selector matches labels. An invalid requirement matches nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    entries(selector, "matchLabels").all(|(key, value)| labels.get(key) == Some(value))
        && list(selector, "matchExpressions").iter().all(|r| requirement_matches(r, labels))
}

fn requirement_matches(requirement: &Value, labels: &Value) -> bool {
    let found = labels.get(text(requirement, "key"));
    let among = |value: &Value| list(requirement, "values").contains(value);
    match text(requirement, "operator") {
        "In" => found.is_some_and(among),
        "NotIn" => !found.is_some_and(among),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}
