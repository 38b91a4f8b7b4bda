//! JSON patch (RFC 6902) with the liberties that upstream's library takes, since clients depend on them: negative
//! indices, `replace` of a missing key adds it, and a path's first segment is never looked at.

use serde_json::{Map, Value};

use super::{go_kind, parse as parse_json, undecodable, unprocessable};
use crate::decode;
use crate::object::Object;
use crate::status::{Reason, StatusError};
use crate::tree;

/// Upstream's limit of operations in one patch.
const MAX_OPERATIONS: usize = 10_000;

/// Upstream's limit of the bytes of JSON that all copies of one patch may make: without it, small patches make objects of any size.
const MAX_COPIED: usize = 3 << 20;

/// The patch does not fit the object; upstream does not tell the client why.
struct Inapplicable;

type Applied<T> = Result<T, Inapplicable>;

/// Applies the operations in order; all or nothing.
pub fn apply(object: Object, patch: &[u8]) -> Result<Object, StatusError> {
    let operations = parse(patch)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(StatusError::new(
            Reason::RequestEntityTooLarge,
            format!(
                "Request entity is too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    let (mut document, mut room) = (object, MAX_COPIED);
    for operation in &operations {
        step(&mut document, operation, &mut room).map_err(|Inapplicable| unprocessable())?;
    }
    if document.is_object() { Ok(document) } else { Err(unprocessable()) }
}

/// The words of an operation.
const WORDS: [&str; 4] = ["op", "path", "from", "value"];

/// What a strict decoder of the operations does not accept: words that no operation has, and words said twice.
pub fn strict_errors(patch: &[u8]) -> Vec<String> {
    let Ok(Value::Array(operations)) = parse_json(patch) else { return Vec::new() };
    let repeated = decode::duplicate_fields(patch);
    let mut errors = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let words = operation.as_object().into_iter().flat_map(Map::keys);
        let unknown = words.filter(|word| !WORDS.contains(&word.as_str()));
        errors.extend(unknown.map(|word| format!("json patch unknown field \"[{index}].{word}\"")));
        let here = format!("duplicate field \"[{index}].");
        errors.extend(repeated.iter().filter(|e| e.starts_with(&here)).map(|e| format!("json patch {e}")));
    }
    errors
}

fn parse(patch: &[u8]) -> Result<Vec<Map<String, Value>>, StatusError> {
    let list = match parse_json(patch).map_err(undecodable)? {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => {
            return Err(undecodable(format!(
                "json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                go_kind(&other)
            )));
        }
    };
    list.into_iter().map(operation).collect()
}

fn operation(item: Value) -> Result<Map<String, Value>, StatusError> {
    let operation = match item {
        Value::Object(operation) => operation,
        Value::Null => Map::new(),
        other => {
            return Err(undecodable(format!(
                "json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
                go_kind(&other)
            )));
        }
    };
    for word in ["op", "path", "from"] {
        let text = operation.get(word).unwrap_or(&Value::Null);
        if !(text.is_string() || text.is_null()) {
            return Err(undecodable(format!(
                "json: cannot unmarshal {} into Go struct field jsonPatchOp.{word} of type string",
                go_kind(text)
            )));
        }
    }
    Ok(operation)
}

fn text<'a>(operation: &'a Map<String, Value>, word: &str) -> Applied<&'a str> {
    operation.get(word).and_then(Value::as_str).ok_or(Inapplicable)
}

/// `room`: how much may still be copied.
fn step(document: &mut Value, operation: &Map<String, Value>, room: &mut usize) -> Applied<()> {
    let value = || operation.get("value").cloned().unwrap_or_default();
    match text(operation, "op")? {
        "add" => add(document, text(operation, "path")?, value()),
        "remove" => take(document, text(operation, "path")?).map(drop),
        "replace" => replace(document, text(operation, "path")?, value()),
        "test" => test(document, text(operation, "path")?, operation.get("value")),
        "move" => {
            let moved = take(document, text(operation, "from")?)?;
            add(document, text(operation, "path")?, moved)
        }
        "copy" => {
            let copied = look(document, text(operation, "from")?)?.unwrap_or(&Value::Null);
            let size = serde_json::to_vec(copied).map_err(|_| Inapplicable)?.len();
            *room = room.checked_sub(size).ok_or(Inapplicable)?;
            let copied = copied.clone();
            add(document, text(operation, "path")?, copied)
        }
        _ => Err(Inapplicable),
    }
}

/// Refuses what would make the document deeper than any may be: copies of copies grow without end.
fn check_depth(path: &str, value: &Value) -> Applied<()> {
    let depth = path.matches('/').count() + tree::depth(value);
    if depth > tree::MAX_DEPTH { Err(Inapplicable) } else { Ok(()) }
}

/// The container that the path's last segment is looked up in, and that segment.
fn container<'a>(document: &'a mut Value, path: &str) -> Applied<(&'a mut Value, String)> {
    let mut segments = path.split('/').skip(1).map(unescape);
    let mut key = segments.next().ok_or(Inapplicable)?;
    let mut at = document;
    for next in segments {
        at = match at {
            Value::Object(map) => map.get_mut(&key),
            Value::Array(list) => existing_index(list, &key).ok().and_then(|i| list.get_mut(i)),
            _ => None,
        }
        .ok_or(Inapplicable)?;
        key = next;
    }
    Ok((at, key))
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// An index of an element that exists; negative ones count from the end.
fn existing_index(list: &[Value], key: &str) -> Applied<usize> {
    index_below(list.len(), key)
}

fn index_below(bound: usize, key: &str) -> Applied<usize> {
    let index: i64 = key.parse().map_err(|_| Inapplicable)?;
    let index = if index < 0 { index + bound as i64 } else { index };
    usize::try_from(index).ok().filter(|i| *i < bound).ok_or(Inapplicable)
}

fn add(document: &mut Value, path: &str, value: Value) -> Applied<()> {
    check_depth(path, &value)?;
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let index = index_below(list.len() + 1, &key)?;
            list.insert(index, value);
        }
        _ => return Err(Inapplicable),
    }
    Ok(())
}

fn take(document: &mut Value, path: &str) -> Applied<Value> {
    match container(document, path)? {
        (Value::Object(map), key) => map.remove(&key).ok_or(Inapplicable),
        (Value::Array(list), key) => {
            let index = existing_index(list, &key)?;
            Ok(list.remove(index))
        }
        _ => Err(Inapplicable),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Applied<()> {
    if path.is_empty() {
        if !(value.is_object() || value.is_array()) {
            return Err(Inapplicable);
        }
        *document = value;
        return Ok(());
    }
    check_depth(path, &value)?;
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) => {
            let index = existing_index(list, &key)?;
            list[index] = value;
        }
        _ => return Err(Inapplicable),
    }
    Ok(())
}

/// The value at a path; `None` for a key that its map does not have.
fn look<'a>(document: &'a mut Value, path: &str) -> Applied<Option<&'a Value>> {
    match container(document, path)? {
        (Value::Object(map), key) => Ok(map.get(&key)),
        (Value::Array(list), key) => existing_index(list, &key).map(|i| list.get(i)),
        _ => Err(Inapplicable),
    }
}

fn test(document: &mut Value, path: &str, expected: Option<&Value>) -> Applied<()> {
    let found = if path.is_empty() { Some(&*document) } else { look(document, path)? };
    // A missing key, a null and a missing value are all the same to upstream.
    if found.unwrap_or(&Value::Null) == expected.unwrap_or(&Value::Null) { Ok(()) } else { Err(Inapplicable) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(object: Value, patch: Value) -> Result<Value, u16> {
        apply(object, patch.to_string().as_bytes()).map_err(|e| e.code)
    }

    #[test]
    fn operations_do_what_rfc_6902_says() {
        let object = json!({"a": {"b": [1, 2, 3]}, "c/d": 1, "e~f": 2});
        for (patch, expected) in [
            (
                json!([{"op": "add", "path": "/a/x", "value": 1}]),
                json!({"a": {"b": [1, 2, 3], "x": 1}, "c/d": 1, "e~f": 2}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 4}]),
                json!({"a": {"b": [1, 2, 3, 4]}, "c/d": 1, "e~f": 2}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/1", "value": 9}]),
                json!({"a": {"b": [1, 9, 2, 3]}, "c/d": 1, "e~f": 2}),
            ),
            (json!([{"op": "remove", "path": "/a/b/-1"}]), json!({"a": {"b": [1, 2]}, "c/d": 1, "e~f": 2})),
            (
                json!([{"op": "replace", "path": "/c~1d", "value": 5}]),
                json!({"a": {"b": [1, 2, 3]}, "c/d": 5, "e~f": 2}),
            ),
            (json!([{"op": "move", "from": "/e~0f", "path": "/g"}]), json!({"a": {"b": [1, 2, 3]}, "c/d": 1, "g": 2})),
            (
                json!([{"op": "copy", "from": "/a/b/0", "path": "/a/b/3"}]),
                json!({"a": {"b": [1, 2, 3, 1]}, "c/d": 1, "e~f": 2}),
            ),
            (json!([{"op": "test", "path": "/a/b", "value": [1, 2, 3]}]), object.clone()),
            (json!([{"op": "test", "path": "/missing", "value": null}]), object.clone()),
        ] {
            assert_eq!(patched(object.clone(), patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn copies_have_a_limit_together() {
        let object = json!({"a": "x".repeat(1 << 20)});
        let copies = |count: usize| {
            let copy = |i| json!({"op": "copy", "from": "/a", "path": format!("/b{i}")});
            patched(object.clone(), (0..count).map(copy).collect())
        };
        assert!(copies(2).is_ok());
        assert_eq!(copies(4), Err(422));
    }

    #[test]
    fn what_does_not_fit_is_a_422() {
        let object = json!({"a": {"b": [1]}});
        for patch in [
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "remove", "path": ""}]),
            json!([{"op": "add", "path": "/a/b/3", "value": 1}]),
            json!([{"op": "add", "path": "/a/b/x", "value": 1}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "replace", "path": "/a/b/1", "value": 1}]),
            json!([{"op": "replace", "path": "", "value": 1}]),
            json!([{"op": "test", "path": "/a/b/0", "value": 2}]),
            json!([{"op": "move", "from": "/x", "path": "/y"}]),
            json!([{"op": "fly", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([{"op": "replace", "path": "", "value": []}]),
        ] {
            assert_eq!(patched(object.clone(), patch.clone()), Err(422), "{patch}");
        }
    }

    #[test]
    fn what_is_no_patch_is_a_400() {
        for patch in [json!({}), json!([1]), json!([{"op": 1}]), json!("x")] {
            assert_eq!(patched(json!({}), patch.clone()), Err(400), "{patch}");
        }
        assert_eq!(apply(json!({}), b"[").map_err(|e| e.code), Err(400));
    }

    #[test]
    fn too_many_operations_are_a_413() {
        let patch = Value::Array(vec![json!({"op": "test", "path": "/x", "value": null}); MAX_OPERATIONS + 1]);
        assert_eq!(patched(json!({}), patch), Err(413));
    }
}
