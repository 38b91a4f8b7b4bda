//! Defaults must be valid themselves.

use serde_json::{Value, json};

use crate::custom_resource::embedded::{self, Malformed};
use crate::custom_resource::structural::JsonType;
use crate::custom_resource::{Structural, lists, prune, validate};
use crate::field::{ErrorKind, ErrorList, FieldError};
use crate::validation::check::{Checker, has, text};

/// Checks every default of a schema.
pub fn validate(c: &mut Checker, schema: &Value) {
    validate_in(c, schema, Surroundings::Object);
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Surroundings {
    Object,
    /// In the metadata of an embedded object: what that does not know is dropped, whatever its schema says.
    EmbeddedMetadata,
}

fn validate_in(c: &mut Checker, schema: &Value, surroundings: Surroundings) {
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let surroundings = if embedded { Surroundings::Object } else { surroundings };
    if has(schema, "default") {
        c.within("default", |c| default_value(c, schema, surroundings));
    }
    if schema["items"].is_object() {
        c.at(schema, "items", |c, items| validate_in(c, items, surroundings));
    }
    c.each_key(schema, "properties", |c, name, field| {
        let metadata = embedded && matches!(name, "metadata" | "apiVersion" | "kind");
        validate_in(c, field, if metadata { Surroundings::EmbeddedMetadata } else { surroundings });
    });
}

fn default_value(c: &mut Checker, schema: &Value, surroundings: Surroundings) {
    let default = &schema["default"];
    let compiled = Structural::compile(schema);
    let mut pruned = default.clone();
    if surroundings == Surroundings::Object && prune::prune_value(&mut pruned, &compiled) {
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
