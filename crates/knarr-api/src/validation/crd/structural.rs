//! Whether a schema is structural: every field's type is said outside of `allOf`, `anyOf`, `oneOf` and `not`, which may only
//! narrow values.

use serde_json::{Value, json};

use crate::custom_resource::structural::compile_pattern;
use crate::field::ErrorList;
use crate::validation::check::{Checker, entries, flag, has, list, text};

const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// What makes a schema impossible to read as a structural one; upstream's text.
pub fn unsupported(schema: &Value) -> Option<String> {
    let word = ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"]
        .into_iter()
        .find(|word| match &schema[*word] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty() || *word == "additionalItems",
            _ => true,
        });
    if let Some(word) = word {
        let shown = if word == "$schema" { "schema" } else { word };
        return Some(format!("OpenAPIV3Schema '{shown}' is not supported"));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        return Some("OpenAPIV3Schema 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_string());
    }
    if schema["items"].is_array() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_string());
    }
    let nested = ["items", "additionalProperties", "not"].into_iter().map(|f| &schema[f]).filter(|v| v.is_object());
    let listed = JUNCTORS.into_iter().flat_map(|f| list(schema, f));
    let fields = entries(schema, "properties").map(|(_, v)| v);
    nested.chain(listed).chain(fields).find_map(unsupported)
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that makes a schema not structural, sorted by text.
pub fn validate(c: &mut Checker, schema: &Value) -> ErrorList {
    let mut checker = c.fresh();
    invariants(&mut checker, schema, Level::Root);
    let path = checker.path().to_string();
    complete(&mut checker, schema, Some(schema), &path, &path, false);
    let mut errors = checker.into_errors();
    errors.sort_by_key(|error| error.to_string());
    errors
}

fn invariants(c: &mut Checker, schema: &Value, level: Level) {
    let kind = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    if kind == "array" && !schema["items"].is_object() {
        c.required("items", "must be specified");
    }
    if schema["items"].is_object() {
        c.at(schema, "items", |c, items| invariants(c, items, Level::Item));
    }
    c.each_key(schema, "properties", |c, _, field| invariants(c, field, Level::Field));
    if has(schema, "additionalProperties") {
        if level == Level::Root {
            c.forbidden("additionalProperties", "must not be used at the root");
        }
        if schema["additionalProperties"].is_object() {
            c.at(schema, "additionalProperties", |c, values| invariants(c, values, Level::Field));
        }
    }
    if int_or_string && preserves {
        let why = "must be false if x-kubernetes-int-or-string is true";
        c.invalid("x-kubernetes-preserve-unknown-fields", &Value::Bool(true), why);
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        c.invalid("x-kubernetes-embedded-resource", &Value::Bool(true), why);
    }
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = schema["anyOf"] == pattern;
    let first_any_of = list(schema, "allOf").first().is_some_and(|first| first["anyOf"] == pattern);
    demands(c, schema, any_of, first_any_of);
    types(c, schema, level);
    if embedded && has(schema, "additionalProperties") {
        c.forbidden("additionalProperties", "must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        c.invalid_text("type", kind, "must be object at the root");
    }
    object_fields(c, schema, level);
    if embedded && !preserves && entries(schema, "properties").next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        c.required("properties", why);
    }
}

fn types(c: &mut Checker, schema: &Value, level: Level) {
    const EMBEDDED: &str = "must be object if x-kubernetes-embedded-resource is true";
    let kind = text(schema, "type");
    let free = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    match (flag(schema, "x-kubernetes-embedded-resource"), kind) {
        (true, "object") => {}
        (true, "") => c.required("type", EMBEDDED),
        (true, other) => c.invalid_text("type", other, EMBEDDED),
        (false, "") if !free => c.required(
            "type",
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ),
        (false, _) => {}
    }
}

/// What may be said of the fields that every object has.
fn object_fields(c: &mut Checker, schema: &Value, level: Level) {
    let object = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    let properties = &schema["properties"];
    for field in ["kind", "apiVersion"] {
        if object && has(properties, field) && text(&properties[field], "type") != "string" {
            c.invalid(&format!("properties[{field}].type"), &text(&properties[field], "type").into(), "must be string");
        }
    }
    let metadata = &properties["metadata"];
    if metadata.is_null() {
        return;
    }
    c.within("properties[metadata]", |c| {
        if object && text(metadata, "type") != "object" {
            c.invalid_text("type", text(metadata, "type"), "must be object");
        }
        if level == Level::Root && says_more_than_names(metadata) {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            c.forbidden("", why);
        }
    });
}

fn says_more_than_names(metadata: &Value) -> bool {
    let Some(map) = metadata.as_object() else { return false };
    let names = |(field, _): (&String, &Value)| matches!(field.as_str(), "name" | "generateName");
    map.iter().any(|(field, value)| match field.as_str() {
        "type" | "default" => false,
        "properties" => !value.as_object().is_some_and(|p| p.iter().all(names)),
        _ => !matches!(value, Value::Null | Value::Bool(false)),
    })
}

/// Checks the nested schemas that narrow values.
fn demands(c: &mut Checker, schema: &Value, skip_any_of: bool, skip_first_any_of: bool) {
    if !skip_any_of {
        c.each(schema, "anyOf", |c, nested| nested_schema(c, nested, false));
    }
    c.each_indexed(schema, "allOf", |c, i, nested| nested_schema(c, nested, skip_first_any_of && i == 0));
    c.each(schema, "oneOf", |c, nested| nested_schema(c, nested, false));
    if schema["not"].is_object() {
        c.at(schema, "not", |c, nested| nested_schema(c, nested, false));
    }
    let pattern = text(schema, "pattern");
    if let Err(why) = compile_pattern(pattern) {
        c.invalid_text("pattern", pattern, format!("must be a valid regular expression, but isn't: {why}"));
    }
}

fn nested_schema(c: &mut Checker, schema: &Value, skip_any_of: bool) {
    demands(c, schema, skip_any_of, false);
    if schema["items"].is_object() {
        c.at(schema, "items", |c, nested| nested_schema(c, nested, false));
    }
    c.each_key(schema, "properties", |c, _, nested| nested_schema(c, nested, false));
    let empty = [
        ("type", text(schema, "type")),
        ("title", text(schema, "title")),
        ("description", text(schema, "description")),
    ];
    for (field, said) in empty {
        if !said.is_empty() {
            c.forbidden(field, "must be empty to be structural");
        }
    }
    for field in ["additionalProperties", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if has(schema, field) {
            c.forbidden(field, "must be undefined to be structural");
        }
    }
    for field in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if flag(schema, field) {
            c.forbidden(field, "must be false to be structural");
        }
    }
    for field in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if !list(schema, field).is_empty() {
            c.forbidden(field, "must be empty to be structural");
        }
    }
    if has(&schema["properties"], "metadata") {
        c.forbidden("properties[metadata]", "must not be specified in a nested context");
    }
}

/// Every field that a nested schema of the root speaks of must be there outside of it too.
fn complete(c: &mut Checker, nested: &Value, node: Option<&Value>, path: &str, nested_path: &str, fields: bool) {
    let Some(node) = node else {
        return c.required_at(path, &format!("because it is defined in {nested_path}"));
    };
    if nested["not"].is_object() {
        complete(c, &nested["not"], Some(node), path, &format!("{nested_path}.not"), true);
    }
    for junctor in JUNCTORS {
        for (i, one) in list(nested, junctor).iter().enumerate() {
            complete(c, one, Some(node), path, &format!("{nested_path}.{junctor}[{i}]"), true);
        }
    }
    if !fields {
        return;
    }
    if nested["items"].is_object() {
        let items = Some(&node["items"]).filter(|v| v.is_object());
        complete(c, &nested["items"], items, &format!("{path}.items"), &format!("{nested_path}.items"), true);
    }
    for (name, one) in entries(nested, "properties") {
        let field = node["properties"].get(name);
        let (at, from) = (format!("{path}.properties[{name}]"), format!("{nested_path}.properties[{name}]"));
        complete(c, one, field, &at, &from, true);
    }
}
