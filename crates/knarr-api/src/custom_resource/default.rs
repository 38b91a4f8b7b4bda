//! Defaults of a structural schema.

use serde_json::Value;

use super::structural::{Additional, Structural};

/// Fills in what is missing, and replaces a null where none is allowed. Idempotent.
pub fn apply(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, nested) in &schema.properties {
                let Some(default) = &nested.default else { continue };
                if map.get(name).is_none_or(|present| present.is_null() && !nested.nullable) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                match (schema.properties.get(key), &schema.additional) {
                    (Some(nested), _) => apply(value, nested),
                    (None, Additional::Schema(nested)) => replace_null_and_apply(value, nested),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(nested) = &schema.items else { return };
            items.iter_mut().for_each(|item| replace_null_and_apply(item, nested));
        }
        _ => {}
    }
}

fn replace_null_and_apply(value: &mut Value, schema: &Structural) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = default.clone();
    }
    apply(value, schema);
}
