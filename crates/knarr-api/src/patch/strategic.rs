//! Strategic merge patch: a merge patch that knows, field by field, which lists are merged and by which key.
//!
//! Directives: `$patch: replace|delete` in a map or list item, `$deleteFromPrimitiveList/FIELD`,
//! `$setElementOrder/FIELD` and `$retainKeys`. The errors' texts are upstream's, Go value formatting included.

mod misfit;
mod order;

use serde_json::{Map, Value};

use super::{parse_object, unprocessable};
use crate::object::Object;
use crate::schema::{Field, PatchStrategy, Schema, Shape, TypeId};
use crate::status::{Reason, StatusError};

use order::{Elements, elements, in_order};

pub use misfit::misfit;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// Merges the patch into the object, guided by its type.
pub fn apply(schema: &Schema, ty: TypeId, object: Object, patch: &[u8]) -> Result<Object, StatusError> {
    let patch = parse_object(patch).map_err(StatusError::bad_request)?.unwrap_or_default();
    let original = match object {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let merger = Merger { schema };
    Ok(Value::Object(merger.map(original, patch, Node::Type(ty))?))
}

/// Why a patch cannot be merged.
#[derive(Debug, PartialEq)]
enum Failure {
    /// The patch breaks the format: 400.
    Format(&'static str),
    /// 422
    ListOfLists,
    /// Upstream has no status for these and answers 500 with this text.
    Other(String),
}

impl From<Failure> for StatusError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Format(text) => StatusError::bad_request(text),
            Failure::ListOfLists => unprocessable(),
            Failure::Other(text) => StatusError::new(Reason::Unknown, text),
        }
    }
}

const BAD_RETAIN_KEYS: Failure = Failure::Format("invalid patch format of retainKeys");
const BAD_DELETE_LIST: Failure = Failure::Format("invalid patch format of primitive list");
const BAD_ORDER_LIST: Failure = Failure::Format("invalid patch format of setElementOrder list");

/// What takes any object, and is a struct to upstream all the same.
const RAW_EXTENSION: &str = "RawExtension";

type Merged<T> = Result<T, Failure>;

/// What is known of the map being merged.
#[derive(Clone, Copy)]
enum Node<'s> {
    Type(TypeId),
    /// A free map: its values' shape.
    MapOf(&'s Shape),
    Unknown,
}

fn node(shape: &Shape) -> Node<'_> {
    match shape {
        Shape::Type(id) => Node::Type(*id),
        Shape::Map(value) => Node::MapOf(value),
        Shape::List(item) => node(item),
        _ => Node::Unknown,
    }
}

/// A list or map field's place in the schema.
struct Place<'s> {
    node: Node<'s>,
    merge: bool,
    replace: bool,
    merge_key: &'s str,
}

impl<'s> Place<'s> {
    fn of(node: Node<'s>, patch: &'s PatchStrategy) -> Self {
        let merge_key = patch.merge_key.as_deref().unwrap_or_default();
        Place { node, merge: patch.merge, replace: patch.replace, merge_key }
    }

    fn plain(node: Node<'s>) -> Self {
        Place { node, merge: false, replace: false, merge_key: "" }
    }
}

struct Merger<'s> {
    schema: &'s Schema,
}

impl<'s> Merger<'s> {
    fn place(&self, parent: Node<'s>, field: &str) -> Merged<Place<'s>> {
        match parent {
            Node::Unknown => Ok(Place::plain(Node::Unknown)),
            Node::MapOf(value) => Ok(Place::plain(node(value))),
            Node::Type(id) => {
                let ty = self.schema.get(id);
                if ty.fields.is_empty() && ty.short_name() != RAW_EXTENSION {
                    return Ok(Place::plain(Node::Unknown));
                }
                let found: &Field = ty.field(field).ok_or_else(|| {
                    let (name, field) = (ty.short_name(), Value::from(field));
                    Failure::Other(format!("unable to find api field in struct {name} for the json field {field}"))
                })?;
                Ok(Place::of(node(&found.shape), &found.patch))
            }
        }
    }

    fn map(
        &self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
        at: Node<'s>,
    ) -> Merged<Map<String, Value>> {
        match patch.get(DIRECTIVE) {
            Some(Value::String(word)) if word == "replace" => {
                patch.remove(DIRECTIVE);
                return Ok(patch);
            }
            Some(Value::String(word)) if word == "delete" => return Ok(Map::new()),
            Some(other) => return Err(bad_directive(other, &patch)),
            None => {}
        }
        retain_keys(&mut original, &mut patch)?;
        self.set_element_orders(&mut original, &mut patch, at)?;
        for (key, value) in patch {
            match key.strip_prefix(DELETE_FROM_LIST) {
                None => self.field(&mut original, key, value, at)?,
                Some(rest) => {
                    let field = rest.strip_prefix('/').ok_or(BAD_DELETE_LIST)?;
                    self.delete_from_list(&mut original, field, value, at)?;
                }
            }
        }
        Ok(original)
    }

    fn field(&self, original: &mut Map<String, Value>, key: String, value: Value, at: Node<'s>) -> Merged<()> {
        let merged = match (original.get_mut(&key).map(Value::take), value) {
            (_, Value::Null) => None,
            (Some(Value::Object(old)), Value::Object(patch)) => {
                let place = self.place(at, &key)?;
                let merged = if place.replace { patch } else { self.map(old, patch, place.node)? };
                Some(Value::Object(merged))
            }
            (Some(Value::Array(old)), Value::Array(patch)) => {
                let place = self.place(at, &key)?;
                let merged = if place.merge { self.list(old, patch, &place, false)? } else { patch };
                Some(Value::Array(merged))
            }
            (_, value) => without_directives(without_nulls(value)),
        };
        match merged {
            Some(value) => original.insert(key, value),
            None => original.remove(&key),
        };
        Ok(())
    }

    fn delete_from_list(
        &self,
        original: &mut Map<String, Value>,
        field: &str,
        value: Value,
        at: Node<'s>,
    ) -> Merged<()> {
        if value.is_null() {
            original.remove(field);
            return Ok(());
        }
        if let (Some(Value::Array(old)), Value::Array(patch)) = (original.get_mut(field), value) {
            let place = self.place(at, field)?;
            *old = self.list(std::mem::take(old), patch, &place, true)?;
        }
        Ok(())
    }

    /// Merges the lists that the patch gives an order for, and takes them and their directives out of the patch.
    fn set_element_orders(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        at: Node<'s>,
    ) -> Merged<()> {
        let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
        for directive in directives {
            let order = list_of(patch.remove(&directive).unwrap_or_default())?;
            let field = directive[SET_ORDER.len()..].strip_prefix('/').ok_or(BAD_ORDER_LIST)?;
            let old = original.get(field).cloned().map(list_of).transpose()?;
            let new = patch.get(field).cloned().map(list_of).transpose()?;
            let place = self.place(at, field)?;
            order::check(new.as_deref().unwrap_or_default(), &order, place.merge_key)?;
            let merged = match (old.clone(), new.clone()) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
                (Some(old), Some(new)) if place.merge => self.list(old, new, &place, false)?,
                (Some(_), Some(new)) => new,
            };
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            elements(&[&old, &new])?;
            original.insert(field.to_string(), Value::Array(in_order(merged, &order, &old, place.merge_key)?));
            patch.remove(field);
        }
        Ok(())
    }

    fn list(&self, original: Vec<Value>, patch: Vec<Value>, place: &Place<'s>, delete: bool) -> Merged<Vec<Value>> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        if elements(&[&original, &patch])? == Elements::Scalars {
            if delete {
                return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
            }
            let mut both = original.clone();
            both.extend(patch.iter().filter(|item| !original.contains(item)).cloned());
            dedup(&mut both);
            return in_order(both, &patch, &original, "");
        }
        if place.merge_key.is_empty() {
            let name = match place.node {
                Node::Type(id) => self.schema.get(id).short_name(),
                _ => "",
            };
            return Err(Failure::Other(format!("cannot merge lists without merge key for {name}")));
        }
        let (original, patch) = obey_item_directives(original, patch, place.merge_key)?;
        let merged = self.items(original.clone(), &patch, place)?;
        in_order(merged, &patch, &original, place.merge_key)
    }

    fn items(&self, mut merged: Vec<Value>, patch: &[Value], place: &Place<'s>) -> Merged<Vec<Value>> {
        for item in patch {
            let key = merge_key_of(item, place.merge_key)?;
            match find(&merged, place.merge_key, key)? {
                Some(index) => {
                    let (Value::Object(old), Value::Object(new)) = (merged[index].take(), item.clone()) else {
                        continue; // `find` and `merge_key_of` answer for maps only
                    };
                    merged[index] = Value::Object(self.map(old, new, place.node)?);
                }
                None => merged.push(item.clone()),
            }
        }
        Ok(merged)
    }
}

/// Drops every field that `$retainKeys` does not name; all that the patch sets must be named.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Merged<()> {
    let Some(keep) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keep) = keep else {
        return Err(BAD_RETAIN_KEYS);
    };
    let named = |key: &str| keep.iter().any(|k| k == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !named(key)) {
        return Err(BAD_RETAIN_KEYS);
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// Carries out the list items that only say `$patch: delete` or `replace`, and answers (what is left, what is to merge).
fn obey_item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Merged<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => plain.push(item),
            Some(Value::String(word)) if word == "delete" => {
                let key = merge_key_of(&item, merge_key)?;
                while let Some(index) = find(&original, merge_key, key)? {
                    original.remove(index);
                }
            }
            Some(Value::String(word)) if word == "replace" => replace = true,
            Some(Value::String(word)) if word == "merge" => {
                return Err(Failure::Other("merging lists cannot yet be specified in the patch".into()));
            }
            Some(other) => return Err(bad_directive(other, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn list_of(value: Value) -> Merged<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(Failure::Other(format!("expected a []interface {{}}, but received a {}", go_type(&other)))),
    }
}

fn merge_key_of<'v>(item: &'v Value, merge_key: &str) -> Merged<&'v Value> {
    item.get(merge_key).ok_or_else(|| {
        Failure::Other(format!("map: {} does not contain declared merge key: {merge_key}", go_text(item)))
    })
}

fn find(list: &[Value], merge_key: &str, value: &Value) -> Merged<Option<usize>> {
    for (index, item) in list.iter().enumerate() {
        if !item.is_object() {
            return Err(Failure::Other(format!("value for key {index} is not a map")));
        }
        if item.get(merge_key) == Some(value) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn bad_directive(directive: &Value, patch: &Map<String, Value>) -> Failure {
    let patch = go_text(&Value::Object(patch.clone()));
    Failure::Other(format!("unknown patch type: {} in map: {patch}", go_text(directive)))
}

fn dedup(list: &mut Vec<Value>) {
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// `None` where the value is itself a directive.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            Some(map.into_iter().filter_map(|(k, v)| without_directives(v).map(|v| (k, v))).collect())
        }
        Value::Array(list) => Some(list.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

/// As Go's `%v` shows a decoded JSON value.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            entries.sort_unstable();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// The Go type that a JSON value is decoded into.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests;
