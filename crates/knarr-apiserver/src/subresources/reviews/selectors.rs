//! The selectors of an access review: raw, or as requirements.

use knarr_api::field::{ErrorList, FieldError, Path};
use knarr_api::names;
use knarr_api::selector::{FieldSelector, LabelSelector, Operator, Requirement};
use serde_json::{Value, json};

/// Selectors as requests carry them, and what is to be said about those that could not be read.
#[derive(Default)]
pub(super) struct Selectors {
    pub field: String,
    pub label: String,
    pub faults: Vec<String>,
}

impl Selectors {
    /// What cannot be read is left out: it could only narrow what is asked.
    pub fn read(attributes: &Value) -> Self {
        let mut out = Selectors::default();
        for (name, of) in [("fieldSelector", field_term as fn(&Value) -> Option<String>), ("labelSelector", label_term)]
        {
            let selector = &attributes[name];
            let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
            let raw = selector["rawSelector"].as_str().unwrap_or_default();
            let terms: Vec<String> = requirements.iter().filter_map(of).collect();
            let readable = match name {
                "fieldSelector" => FieldSelector::parse(raw).is_ok(),
                _ => LabelSelector::parse(raw).is_ok(),
            };
            let whole = if requirements.is_empty() { readable } else { terms.len() == requirements.len() };
            if !whole {
                let how = if terms.is_empty() { "ignored" } else { "partially ignored" };
                out.faults.push(format!("spec.resourceAttributes.{name} {how} due to parse error"));
            }
            let text = match requirements.is_empty() {
                true if readable => raw.to_string(),
                _ => terms.join(","),
            };
            match name {
                "fieldSelector" => out.field = text,
                _ => out.label = text,
            }
        }
        out
    }
}

fn values(requirement: &Value) -> Vec<String> {
    let list = requirement["values"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

fn field_term(requirement: &Value) -> Option<String> {
    let values = values(requirement);
    let [value] = values.as_slice() else { return None };
    let operator = match requirement["operator"].as_str()? {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    let value = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
    Some(format!("{}{operator}{value}", requirement["key"].as_str()?))
}

fn label_term(requirement: &Value) -> Option<String> {
    let key = requirement["key"].as_str()?;
    let values = values(requirement);
    let list = values.join(",");
    let (operator, text) = match requirement["operator"].as_str()? {
        "In" => (Operator::In, format!("{key} in ({list})")),
        "NotIn" => (Operator::NotIn, format!("{key} notin ({list})")),
        "Exists" => (Operator::Exists, key.to_string()),
        "DoesNotExist" => (Operator::DoesNotExist, format!("!{key}")),
        _ => return None,
    };
    Requirement::new(key, operator, values).ok().map(|_| text)
}

/// What upstream demands of the selectors.
pub(super) fn check(attributes: &Value, errors: &mut ErrorList) {
    let spec = Path::ROOT.child("spec.resourceAttributes");
    for name in ["fieldSelector", "labelSelector"] {
        let selector = &attributes[name];
        if !selector.is_object() {
            continue;
        }
        let path = spec.child(name);
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !raw.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(&path.child("rawSelector"), &json!(raw), why));
        }
        let list = path.child("requirements");
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&list, why));
        }
        for (i, requirement) in requirements.iter().enumerate() {
            check_requirement(requirement, &list.index(i), name == "labelSelector", errors);
        }
    }
}

fn check_requirement(requirement: &Value, path: &Path<'_>, of_labels: bool, errors: &mut ErrorList) {
    let key = requirement["key"].as_str().unwrap_or_default();
    if !of_labels && key.is_empty() {
        errors.push(FieldError::required(&path.child("key"), "must be specified"));
    }
    let at = path.child("values");
    let values = &requirement["values"];
    let empty = values.as_array().is_none_or(Vec::is_empty);
    match requirement["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if empty => {
            errors.push(FieldError::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !empty => {
            errors
                .push(FieldError::forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        // What a newer client knows and this server does not is passed over.
        _ => {}
    }
    if of_labels {
        let wrong = names::qualified_name(key).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(&path.child("key"), &json!(key), why)));
        for (i, value) in values.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate() {
            let wrong = names::label_value(value).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(&at.index(i), &json!(value), why)));
        }
    }
}
