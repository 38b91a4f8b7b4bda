//! The metadata of objects inside objects (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use super::structural::{Additional, Structural};
use crate::decode;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::resource::GroupVersion;
use crate::validation::check::Checker;
use crate::validation::metadata;

/// What to do about metadata that does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Refuse,
    /// Stored objects may be older than the check: a field that does not fit is dropped.
    Drop,
}

/// Brings `metadata` of the object itself and of every embedded one into the form of its type. Answers the paths of unknown
/// fields, or why something does not fit.
pub fn coerce(object: &mut Value, schema: &Structural, malformed: Malformed) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    coerce_at(&Path::ROOT, object, schema, malformed, &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn coerce_at(
    path: &Path<'_>,
    value: &mut Value,
    schema: &Structural,
    malformed: Malformed,
    unknown: &mut Vec<String>,
) -> Result<(), FieldError> {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                for word in ["apiVersion", "kind"] {
                    match map.get(word) {
                        None | Some(Value::String(_)) => {}
                        Some(_) if malformed == Malformed::Drop => drop(map.remove(word)),
                        Some(other) => return Err(FieldError::invalid(&path.child(word), other, "must be a string")),
                    }
                }
                if let Some(given) = map.get_mut("metadata") {
                    let at = path.child("metadata");
                    unknown.extend(
                        coerce_metadata(&at.to_string(), given, malformed)
                            .map_err(|why| FieldError::invalid(&at, given, why))?,
                    );
                }
            }
            for (key, value) in map.iter_mut() {
                match (schema.properties.get(key), &schema.additional) {
                    (Some(nested), _) => coerce_at(&path.child(key), value, nested, malformed, unknown)?,
                    (None, Additional::Schema(nested)) => coerce_at(&path.key(key), value, nested, malformed, unknown)?,
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(nested) = &schema.items else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                coerce_at(&path.index(index), item, nested, malformed, unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Brings one `metadata` into its type's form; answers the full paths of unknown fields.
pub fn coerce_metadata(path: &str, metadata: &mut Value, malformed: Malformed) -> Result<Vec<String>, String> {
    match decode::decode_metadata(metadata) {
        Ok((decoded, unknown)) => {
            *metadata = decoded;
            Ok(unknown.into_iter().map(|field| format!("{path}.{field}")).collect())
        }
        Err(why) if malformed == Malformed::Refuse => Err(why),
        Err(_) => {
            if let Some(map) = metadata.as_object_mut() {
                map.retain(|key, value| decode::decode_metadata(&serde_json::json!({key: value})).is_ok());
            }
            *metadata = decode::decode_metadata(metadata).map(|(decoded, _)| decoded).unwrap_or_default();
            Ok(Vec::new())
        }
    }
}

/// Everything wrong with embedded objects.
pub fn validate(object: &Value, schema: &Structural) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_at(&Path::ROOT, object, schema, &mut errors);
    errors
}

fn validate_at(path: &Path<'_>, value: &Value, schema: &Structural, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                validate_resource(path, value, errors);
            }
            for (key, value) in map {
                match (schema.properties.get(key), &schema.additional) {
                    (Some(nested), _) => validate_at(&path.child(key), value, nested, errors),
                    (None, Additional::Schema(nested)) => validate_at(&path.key(key), value, nested, errors),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(nested) = &schema.items else { return };
            items.iter().enumerate().for_each(|(i, item)| validate_at(&path.index(i), item, nested, errors));
        }
        _ => {}
    }
}

fn validate_resource(path: &Path<'_>, value: &Value, errors: &mut ErrorList) {
    let at = |field| path.child(field);
    match value.get("apiVersion") {
        None => errors.push(FieldError::required(&at("apiVersion"), "")),
        Some(Value::String(text)) if text.is_empty() => {
            errors.push(FieldError::invalid(&at("apiVersion"), &Value::from(""), "must not be empty"));
        }
        Some(Value::String(text)) if GroupVersion::parse(text).is_some() => {}
        Some(Value::String(text)) => {
            let why = format!("unexpected GroupVersion string: {text}");
            errors.push(FieldError::invalid(&at("apiVersion"), &text.as_str().into(), why));
        }
        Some(other) => errors.push(FieldError::invalid(&at("apiVersion"), other, "must be a string")),
    }
    match value.get("kind") {
        None => errors.push(FieldError::required(&at("kind"), "")),
        Some(Value::String(text)) if text.is_empty() => {
            errors.push(FieldError::invalid(&at("kind"), &Value::from(""), "must not be empty"));
        }
        Some(Value::String(text)) => {
            let wrong = names::dns_1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                errors.push(FieldError::invalid(&at("kind"), &text.as_str().into(), why));
            }
        }
        Some(other) => errors.push(FieldError::invalid(&at("kind"), other, "must be a string")),
    }
    let Some(given) = value.get("metadata").filter(|m| m.is_object()) else { return };
    let mut checked = given.clone();
    if checked.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() {
        // An embedded object needs no name.
        checked["name"] = "fakename".into();
    }
    let namespaced = checked.get("namespace").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    let mut checker = Checker::starting_at(&at("metadata").to_string());
    metadata::validate(&mut checker, &checked, namespaced, |name, _| names::path_segment(name));
    errors.extend(checker.into_errors());
}
