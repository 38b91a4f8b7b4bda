//! The schema of a version.

use serde_json::Value;

use super::{defaults, structural};
use crate::validation::check::{Checker, entries, flag, has, list, text};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const META_FIELDS: [&str; 3] = ["metadata", "kind", "apiVersion"];
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What may stand at the root where `status` has an endpoint of its own: upstream's name, and the field.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// Runs `see` on every node.
pub fn each(schema: &Value, see: &mut dyn FnMut(&Value)) {
    if !schema.is_object() {
        return;
    }
    see(schema);
    for field in ["items", "additionalProperties", "not", "additionalItems"] {
        each(&schema[field], see);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        list(schema, field).iter().for_each(|nested| each(nested, see));
    }
    for field in ["properties", "patternProperties", "definitions"] {
        entries(schema, field).for_each(|(_, nested)| each(nested, see));
    }
}

/// Checks a whole schema.
pub fn validate(c: &mut Checker, root: &Value, with_status: bool) {
    let before = c.error_count();
    if with_status {
        check_root_fields(c, root);
    }
    if flag(root, "nullable") {
        c.forbidden("nullable", "nullable cannot be true at the root");
    }
    let unsupported = structural::unsupported(root);
    if unsupported.is_none() {
        let errors = structural::validate(c, root);
        match errors.is_empty() {
            true => defaults::validate(c, root),
            false => c.extend_errors(errors),
        }
    }
    node(c, root, Place { root: true, ..Place::default() });
    if let (Some(why), true) = (unsupported, c.error_count() == before) {
        c.invalid_text("", "", why);
    }
}

fn check_root_fields(c: &mut Checker, root: &Value) {
    let kind = text(root, "type");
    if has(root, "type") && kind != "object" && !kind.is_empty() {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return c.invalid_text("type", kind, why);
    }
    let known = |field: &String| ROOT_FIELDS.iter().any(|(_, name)| name == field);
    let set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    if root.as_object().into_iter().flatten().any(|(field, value)| set(value) && !known(field)) {
        let names: Vec<&str> = ROOT_FIELDS.iter().map(|(name, _)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        c.invalid("", root, why);
    }
}

/// What the nodes above say of a node.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// In the metadata of an object, its own or an embedded one's.
    in_metadata: bool,
    /// Why a default may not stand here.
    no_defaults: Option<String>,
}

fn node(c: &mut Checker, schema: &Value, place: Place) {
    unsupported_fields(c, schema, &place);
    let below = Place { root: false, ..place.clone() };
    if has(schema, "additionalProperties") {
        let values = &schema["additionalProperties"];
        if entries(schema, "properties").next().is_some() && *values != true {
            c.forbidden("additionalProperties", "additionalProperties and properties are mutual exclusive");
        }
        if values.is_object() {
            let mut below = below.clone();
            if place.in_metadata {
                below.no_defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            c.at(schema, "additionalProperties", |c, values| node(c, values, below));
        }
    }
    c.each_key(schema, "properties", |c, name, field| {
        let mut below = below.clone();
        if (place.root || flag(schema, "x-kubernetes-embedded-resource")) && META_FIELDS.contains(&name) {
            below.in_metadata = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        node(c, field, below);
    });
    if schema["not"].is_object() {
        c.at(schema, "not", |c, nested| node(c, nested, below.clone()));
    }
    for junctor in ["allOf", "oneOf", "anyOf"] {
        c.each(schema, junctor, |c, nested| node(c, nested, below.clone()));
    }
    if schema["items"].is_object() {
        c.at(schema, "items", |c, items| node(c, items, below.clone()));
    }
    extensions(c, schema);
    c.each(schema, "x-kubernetes-validations", rule);
}

fn unsupported_fields(c: &mut Checker, schema: &Value, place: &Place) {
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        c.not_supported("type", &schema["type"], TYPES);
    }
    if let (true, Some(why)) = (has(schema, "default"), &place.no_defaults) {
        c.forbidden("default", &format!("must not be set {why}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let set = match &schema[field] {
            Value::Null => false,
            Value::String(text) => !text.is_empty() || field == "$ref",
            Value::Object(map) => !map.is_empty() || field == "additionalItems",
            _ => true,
        };
        if set {
            c.forbidden(field, &format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        c.forbidden("type", "type cannot be set to null, use nullable as an alternative");
    }
    if schema["items"].is_array() {
        c.forbidden("items", "items must be a schema object and not an array");
    }
    if place.in_metadata && flag(schema, "x-kubernetes-embedded-resource") {
        c.forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        c.forbidden("uniqueItems", why);
    }
}

fn extensions(c: &mut Checker, schema: &Value) {
    let kind = text(schema, "type");
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        c.invalid("x-kubernetes-preserve-unknown-fields", &Value::Bool(false), "must be true or undefined");
    }
    for (field, wanted) in [("x-kubernetes-map-type", "object"), ("x-kubernetes-list-type", "array")] {
        if has(schema, field) && kind != wanted {
            let why = format!("must be {wanted} if {field} is specified");
            match kind {
                "" => c.required("type", &why),
                other => c.invalid_text("type", other, why),
            }
        }
    }
    c.optional_choice(schema, "x-kubernetes-map-type", &["atomic", "granular"]);
    let list_type = text(schema, "x-kubernetes-list-type");
    let items = &schema["items"];
    if list_type == "set" && kind == "array" {
        set_items(c, items);
    }
    c.optional_choice(schema, "x-kubernetes-list-type", &["atomic", "set", "map"]);
    let keys = list(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            "" => c.required("x-kubernetes-list-type", why),
            other => c.invalid_text("x-kubernetes-list-type", other, why),
        }
    }
    if list_type == "map" {
        map_items(c, schema, items, keys);
    }
    if matches!(list_type, "map" | "set") && flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        c.forbidden("items.nullable", &why);
    }
    if list_type == "map" {
        key_defaults(c, items, keys);
    }
}

/// Items of a set are compared whole.
fn set_items(c: &mut Checker, items: &Value) {
    const WHY: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (list_type, map_type) = (&items["x-kubernetes-list-type"], &items["x-kubernetes-map-type"]);
    match text(items, "type") {
        "array" if !list_type.is_null() && list_type != "atomic" => {
            c.invalid("items.x-kubernetes-list-type", list_type, WHY);
        }
        "object" if map_type != "atomic" => c.invalid("items.x-kubernetes-map-type", list_type, WHY),
        _ => {}
    }
}

fn map_items(c: &mut Checker, schema: &Value, items: &Value, keys: &[Value]) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    if keys.is_empty() {
        c.required(KEYS, "must not be empty if x-kubernetes-list-type is map");
    }
    if items.is_null() {
        return c.required("items", "must have a schema if x-kubernetes-list-type is map");
    }
    if !items.is_object() {
        return c.invalid("items", items, "must only have a single schema if x-kubernetes-list-type is map");
    }
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return c.invalid_text("items.type", text(items, "type"), why);
    }
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match items["properties"].get(name) {
            None => c.invalid(KEYS, &schema[KEYS], "entries must all be names of item properties"),
            Some(field) if matches!(text(field, "type"), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                c.invalid_text(&format!("items.properties[{name}].type"), "object", why);
            }
            Some(_) => {}
        }
        if keys[..i].contains(key) {
            c.invalid(KEYS, &schema[KEYS], "must not contain duplicate entries");
        }
    }
}

/// A key must be there, or be filled in.
fn key_defaults(c: &mut Checker, items: &Value, keys: &[Value]) {
    for key in keys.iter().filter_map(Value::as_str) {
        let Some(field) = items["properties"].get(key) else { continue };
        if !list(items, "required").iter().any(|r| r == key) && !has(field, "default") {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            c.required(&format!("items.properties[{key}].default"), why);
        }
        if flag(field, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            c.forbidden(&format!("items.properties[{key}].nullable"), why);
        }
    }
}

/// A rule's texts; whether it compiles is for whoever runs it to say.
fn rule(c: &mut Checker, rule: &Value) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
    match () {
        () if expression.is_empty() => c.required("rule", "rule is not specified"),
        () if !message.is_empty() && message.trim().is_empty() => {
            c.invalid_text("message", message, "must be non-empty if specified");
        }
        () if breaks(message.trim()) => c.invalid_text("message", message, "must not contain line breaks"),
        () if breaks(expression) && message.trim().is_empty() => {
            c.required("message", "message must be specified if rule contains line breaks");
        }
        () => {}
    }
    let message_expression = text(rule, "messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        c.required("messageExpression", "messageExpression must be non-empty if specified");
    }
    c.optional_choice(rule, "reason", REASONS);
    let field_path = text(rule, "fieldPath");
    if !field_path.is_empty() && field_path.trim().is_empty() {
        c.invalid_text("fieldPath", field_path, "must be non-empty if specified");
    }
    if breaks(field_path) {
        c.invalid_text("fieldPath", field_path, "must not contain line breaks");
    }
}
