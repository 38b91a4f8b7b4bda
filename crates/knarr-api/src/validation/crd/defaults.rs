//! Defaults must be valid themselves.

use serde_json::{Value, json};

use crate::custom_resource::embedded::{self, Malformed};
use crate::custom_resource::structural::JsonType;
use crate::custom_resource::{Structural, lists, prune, validate};
use crate::field::{ErrorKind, ErrorList, FieldError};
use crate::validation::check::{Checker, has, text};

/// Checks every default of a schema.
pub fn validate(c: &mut Checker, schema: &Value) {
    if has(schema, "default") {
        c.within("default", |c| default_value(c, schema));
    }
    if schema["items"].is_object() {
        c.at(schema, "items", validate);
    }
    c.each_key(schema, "properties", |c, _, field| validate(c, field));
}

fn default_value(c: &mut Checker, schema: &Value) {
    let default = &schema["default"];
    let compiled = Structural::compile(schema);
    let mut pruned = default.clone();
    if prune::prune_value(&mut pruned, &compiled) {
        c.invalid("", default, "must not have unknown fields");
    }
    let mut errors = match embedded::coerce(&mut pruned, &compiled, Malformed::Refuse) {
        Err(error) => vec![error],
        Ok(_) => embedded::validate(default, &compiled),
    };
    if errors.is_empty() {
        errors = validate::validate(default, None, &compiled);
        errors.extend(unknown_type(default, schema));
        errors.extend(lists::validate(default, &compiled));
    }
    c.extend_below(errors);
}

/// No value is of a type that there is not.
fn unknown_type(default: &Value, schema: &Value) -> ErrorList {
    let kind = text(schema, "type");
    if kind.is_empty() || JsonType::parse(kind).is_some() {
        return ErrorList::new();
    }
    let given = match default {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    vec![FieldError {
        kind: ErrorKind::TypeInvalid,
        path: String::new(),
        value: Some(json!(given).to_string()),
        detail: format!(" in body must be of type {kind}: {given:?}"),
    }]
}
