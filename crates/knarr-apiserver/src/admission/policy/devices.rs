//! The expressions of claims and device classes.

use knarr_api::Path;
use knarr_api::field::FieldError;
use knarr_cel::device;
use serde_json::Value;

use super::creation::push;
use super::definition::{list, text};

/// Checks every selector under `spec`; those that stand in `old` already stay.
pub fn check(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut known = Vec::new();
    if let Some(old) = old {
        visit(old, path, &mut |expression, _| known.push(expression.to_string()));
    }
    let environment = device::environment();
    visit(spec, path, &mut |expression, path| {
        // What is empty is the validation's to refuse.
        if expression.trim().is_empty() || known.iter().any(|known| known == expression) {
            return;
        }
        if let Err(why) = device::compile(&environment, expression) {
            push(errors, path, expression, why);
        }
    });
}

/// Every expression, at its path: of the selectors of requests (in all forms that versions have), of a template's, and of a class's.
fn visit(value: &Value, path: &Path<'_>, found: &mut dyn FnMut(&str, &Path<'_>)) {
    let selectors = path.child("selectors");
    for (i, selector) in list(value, "selectors").iter().enumerate() {
        let expression = text(&selector["cel"], "expression");
        found(expression, &selectors.index(i).child("cel").child("expression"));
    }
    for field in ["spec", "devices", "exactly"] {
        if value[field].is_object() {
            visit(&value[field], &path.child(field), found);
        }
    }
    for field in ["requests", "firstAvailable"] {
        let items = path.child(field);
        for (i, item) in list(value, field).iter().enumerate() {
            visit(item, &items.index(i), found);
        }
    }
}
