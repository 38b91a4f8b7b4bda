//! Custom resource definitions, as far as their names and versions go.

use serde_json::Value;

use super::check::{Checker, flag, has, list, text};
use crate::names;

pub fn custom_resource_definition(c: &mut Checker, object: &Value) {
    let spec = &object["spec"];
    let (plural, group) = (text(&spec["names"], "plural"), text(spec, "group"));
    let wanted = format!("{plural}.{group}");
    let name = text(&object["metadata"], "name");
    if !name.is_empty() && name != wanted {
        c.invalid_text("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    c.within("spec", |c| {
        match group {
            "" => c.required("group", ""),
            group => {
                c.rule("group", group, names::dns_subdomain);
                if names::dns_subdomain(group).is_empty() && !group.contains('.') {
                    c.invalid_text("group", group, "should be a domain with at least one dot");
                }
            }
        }
        c.choice(spec, "scope", &["Cluster", "Namespaced"]);
        validate_versions(c, spec);
        validate_names(c, &spec["names"]);
        validate_schemas(c, spec);
    });
    validate_status(c, object);
}

fn validate_versions(c: &mut Checker, spec: &Value) {
    let versions = list(spec, "versions");
    let stored = versions.iter().filter(|v| flag(v, "storage")).count();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        unique &= !versions[..i].iter().any(|other| text(other, "name") == text(version, "name"));
        for message in names::dns_1035_label(text(version, "name")) {
            c.invalid_text(&format!("versions[{i}].name"), text(version, "name"), message);
        }
        if !has(&version["schema"], "openAPIV3Schema") {
            c.required(&format!("versions[{i}].schema.openAPIV3Schema"), "schemas are required");
        }
    }
    if !unique {
        c.invalid("versions", &spec["versions"], "must contain unique version names");
    }
    if stored != 1 {
        c.invalid("versions", &spec["versions"], "must have exactly one version marked as storage version");
    }
}

fn validate_names(c: &mut Checker, given: &Value) {
    c.within("names", |c| {
        for (field, fold) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
            let name = text(given, field);
            if name.is_empty() {
                c.required(field, "");
            } else {
                let checked = if fold { name.to_lowercase() } else { name.to_string() };
                for message in names::dns_1035_label(&checked) {
                    c.invalid_text(field, name, message);
                }
            }
        }
        for list_name in ["shortNames", "categories"] {
            for (i, name) in list(given, list_name).iter().enumerate() {
                c.rule(&format!("{list_name}[{i}]"), name.as_str().unwrap_or_default(), names::dns_1035_label);
            }
        }
        if !text(given, "kind").is_empty() && text(given, "kind") == text(given, "listKind") {
            c.invalid("listKind", &given["listKind"], "kind and listKind may not be the same");
        }
    });
}

fn validate_status(c: &mut Checker, object: &Value) {
    let stored = list(&object["status"], "storedVersions");
    if stored.is_empty() {
        c.invalid("status.storedVersions", &Value::Array(Vec::new()), "must have at least one stored version");
    }
}

/// The storage version is the first that objects are stored in.
pub fn remember_stored_version(object: &mut Value) {
    let stored = list(&object["spec"], "versions").iter().find(|v| flag(v, "storage")).map(|v| v["name"].clone());
    if let Some(name) = stored {
        object["status"]["storedVersions"] = Value::Array(vec![name]);
    }
}

/// Where all versions share one schema, upstream reports it at its older place.
fn validate_schemas(c: &mut Checker, spec: &Value) {
    let versions = list(spec, "versions");
    let schema = |v: &Value| v["schema"]["openAPIV3Schema"].clone();
    let shared = versions.iter().all(|v| schema(v) == schema(&versions[0]));
    for (i, version) in versions.iter().enumerate() {
        let root = &version["schema"]["openAPIV3Schema"];
        if root.is_null() || (shared && i > 0) {
            continue;
        }
        let place = match shared {
            true => "validation.openAPIV3Schema".to_string(),
            false => format!("versions[{i}].schema.openAPIV3Schema"),
        };
        c.within(&place, |c| {
            match text(root, "type") {
                "object" | "" => {}
                other => c.invalid_text("type", other, "must be object at the root"),
            }
            structural(c, root);
        });
    }
}

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// A structural schema says the type of everything, except where it says that it may be anything.
fn structural(c: &mut Checker, schema: &Value) {
    let kind = text(schema, "type");
    let untyped = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if kind.is_empty() && !untyped {
        c.required("type", "must not be empty for specified object fields");
    } else if !kind.is_empty() && !TYPES.contains(&kind) {
        c.not_supported("type", &schema["type"], TYPES);
    }
    if has(schema, "default") {
        default_value(c, schema, kind);
    }
    c.each(schema, "x-kubernetes-validations", |c, rule| {
        if text(rule, "rule").trim().is_empty() {
            c.required("rule", "rule is not specified");
        }
    });
    c.each_key(schema, "properties", |c, _, property| structural(c, property));
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            c.at(schema, field, structural);
        }
    }
}

fn default_value(c: &mut Checker, schema: &Value, kind: &str) {
    let value = &schema["default"];
    let fits = match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        _ => kind.is_empty(),
    };
    if !fits {
        let given = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        c.type_invalid("default", &given.into(), format!("must be of type {kind}: \"{given}\""));
    }
    let number = value.as_f64();
    if number.is_some_and(|n| schema["minimum"].as_f64().is_some_and(|min| n < min)) {
        let why = format!("should be greater than or equal to {}", schema["minimum"]);
        c.invalid("default", value, why);
    }
    if number.is_some_and(|n| schema["maximum"].as_f64().is_some_and(|max| n > max)) {
        c.invalid("default", value, format!("should be less than or equal to {}", schema["maximum"]));
    }
}
