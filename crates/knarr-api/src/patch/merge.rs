//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use super::{parse_object, undecodable};
use crate::object::Object;
use crate::status::StatusError;

/// Merges the patch into the object: maps are merged, `null` removes, all else replaces.
pub fn apply(mut object: Object, patch: &[u8]) -> Result<Object, StatusError> {
    let patch = parse_object(patch).map_err(undecodable)?;
    let patch = patch.ok_or_else(|| StatusError::bad_request("Invalid JSON Patch"))?;
    match object.as_object_mut() {
        Some(map) => merge(map, patch),
        None => object = Value::Object(without_nulls(patch)),
    }
    Ok(object)
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match (target.get_mut(&key), value) {
            (_, Value::Null) => {
                target.remove(&key);
            }
            (Some(Value::Object(target)), Value::Object(patch)) => merge(target, patch),
            // Over a map, upstream takes a list as it is; over anything else it prunes nulls from maps inside the list.
            (Some(slot @ Value::Object(_)), value) => *slot = value,
            (Some(slot), value) => *slot = pruned(value),
            (None, value) => {
                target.insert(key, pruned(value));
            }
        }
    }
}

fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_nulls(map)),
        Value::Array(list) => Value::Array(list.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn without_nulls(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, pruned(v))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_rfc_7386_says() {
        for (object, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ] {
            assert_eq!(apply(object, patch.to_string().as_bytes()).expect("fits"), expected);
        }
    }

    #[test]
    fn what_is_no_patch_is_a_400() {
        for patch in ["[]", "1", "null", "{"] {
            assert_eq!(apply(json!({}), patch.as_bytes()).map_err(|e| e.code), Err(400), "{patch}");
        }
    }
}
