//! Walking values with their types as structured merge does: which nodes are leaves, which are merged, and what names an
//! item of a list.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::field_set::{FieldPath, FieldSet, shown};
use crate::schema::{Field, ListKind, MapKind, Schema, Shape, Special, Type, TypeId};
use crate::tree;

/// How a node is merged.
#[derive(Clone, Copy)]
pub enum Atom<'s> {
    /// Owned as a whole: scalars, atomic lists and maps.
    Leaf(&'s Shape),
    Struct(&'s Type),
    /// A map with free keys, each owned alone.
    Map(&'s Shape),
    /// A list of distinct scalars.
    Set,
    /// A list of structs that the keys tell apart.
    Keyed(&'s [String], &'s Shape),
    /// No type known: maps are merged, all else is a leaf.
    Deduced,
}

/// The most levels of an object that have owners of their own; what lies deeper has the owner of what it lies in. Every level compares all
/// below it: without a bound, a deep object could keep the server at it for long.
pub const MAX_DEPTH: usize = 256;

#[derive(Clone, Copy)]
pub struct Typed<'s> {
    pub schema: &'s Schema,
}

impl<'s> Typed<'s> {
    pub fn root(self, ty: TypeId) -> Atom<'s> {
        match self.schema.get(ty) {
            ty @ Type { special: Special::None, .. } if ty.map != MapKind::Atomic => Atom::Struct(ty),
            _ => Atom::Deduced,
        }
    }

    pub fn field(self, field: &'s Field) -> Atom<'s> {
        self.atom(&field.shape, &field.list, field.map)
    }

    /// The atom of a list's item or a map's value.
    pub fn item(self, shape: &'s Shape) -> Atom<'s> {
        self.atom(shape, &ListKind::Unset, MapKind::Unset)
    }

    fn atom(self, shape: &'s Shape, list: &'s ListKind, map: MapKind) -> Atom<'s> {
        match shape {
            Shape::List(item) => match list {
                ListKind::Set => Atom::Set,
                ListKind::Map(keys) => Atom::Keyed(keys, item),
                ListKind::Unset | ListKind::Atomic => Atom::Leaf(shape),
            },
            Shape::Map(value) if map != MapKind::Atomic => Atom::Map(value),
            Shape::Type(id) => {
                let ty = self.schema.get(*id);
                let map = if map == MapKind::Unset { ty.map } else { map };
                match ty.special {
                    _ if map == MapKind::Atomic => Atom::Leaf(shape),
                    Special::None => Atom::Struct(ty),
                    // Of a custom resource; what a built-in kind takes as it is has one owner.
                    Special::AnyObject if ty.open => Atom::Deduced,
                    _ => Atom::Leaf(shape),
                }
            }
            _ => Atom::Leaf(shape),
        }
    }

    /// The atom of a map's or struct's entry. `None` where a struct has no such field.
    pub fn entry(self, atom: Atom<'s>, key: &str) -> Option<Atom<'s>> {
        match atom {
            Atom::Struct(ty) => ty.field(key).map(|f| self.field(f)).or(ty.open.then_some(Atom::Deduced)),
            Atom::Map(value) => Some(self.item(value)),
            _ => Some(Atom::Deduced),
        }
    }

    /// The atom of an item of a set or keyed list.
    pub fn list_item(self, atom: Atom<'s>) -> Atom<'s> {
        match atom {
            Atom::Keyed(_, item) => self.item(item),
            _ => Atom::Deduced,
        }
    }

    /// What names an item of this list, or why nothing does.
    pub fn element(self, atom: Atom<'s>, item: &Value) -> Result<Box<str>, String> {
        match atom {
            Atom::Keyed(keys, shape) => self.keyed_element(keys, shape, item),
            _ => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(format!("v:{scalar}").into()),
            },
        }
    }

    fn keyed_element(self, keys: &'s [String], shape: &Shape, item: &Value) -> Result<Box<str>, String> {
        let item = match item {
            Value::Object(item) => item,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let mut named: Vec<(&str, &Value)> = Vec::with_capacity(keys.len());
        for key in keys {
            let value = item.get(key).filter(|v| !v.is_null()).or_else(|| self.key_default(shape, key));
            named.extend(value.map(|v| (key.as_str(), v)));
        }
        if named.is_empty() {
            let keys = keys.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(" ");
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{keys}] (and doesn't have default values for any key fields)"
            ));
        }
        named.sort_unstable_by_key(|(key, _)| *key);
        let mut out = String::from("k:{");
        for (i, (key, value)) in named.iter().enumerate() {
            out.push_str(if i > 0 { ",\"" } else { "\"" });
            out.push_str(key);
            out.push_str("\":");
            out.push_str(&value.to_string());
        }
        out.push('}');
        Ok(out.into())
    }

    fn key_default(self, shape: &Shape, key: &str) -> Option<&'s Value> {
        let Shape::Type(id) = shape else { return None };
        let ty = self.schema.get(*id);
        ty.field(key)?.default.as_ref().or_else(|| upstream_key_default(ty.short_name(), key))
    }

    /// Every path that a configuration sets, for the manager that applies it.
    pub fn field_set(self, atom: Atom<'s>, value: &Value) -> FieldSet {
        let mut set = FieldSet::default();
        self.collect(atom, value, MAX_DEPTH, &mut set);
        set
    }

    /// Collects what a value sets below itself; whether it is to be in the set itself.
    fn collect(self, atom: Atom<'s>, value: &Value, depth: usize, set: &mut FieldSet) -> bool {
        match (atom, value) {
            (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(map)) if depth > 0 => {
                for (key, value) in map {
                    let Some(entry) = self.entry(atom, key) else { continue };
                    let free = !matches!(atom, Atom::Struct(ty) if ty.field(key).is_some());
                    let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    set.fill(format!("f:{key}").into(), |below| {
                        self.collect(entry, value, depth - 1, below) || free || empty
                    });
                }
                false
            }
            (Atom::Set | Atom::Keyed(..), Value::Array(list)) if depth > 0 => {
                for item in list {
                    let Ok(element) = self.element(atom, item) else { continue };
                    set.fill(element, |below| {
                        self.collect(self.list_item(atom), item, depth - 1, below);
                        true
                    });
                }
                false
            }
            (Atom::Struct(_) | Atom::Map(_) | Atom::Set | Atom::Keyed(..), _) => depth == 0,
            _ => true,
        }
    }

    /// Everything in a configuration that does not fit its type, as upstream's typed parser says it.
    pub fn check(self, atom: Atom<'s>, value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.check_at(atom, value, &mut FieldPath::new(), &mut errors);
        errors
    }

    fn check_at(self, atom: Atom<'s>, value: &Value, path: &mut FieldPath, errors: &mut Vec<String>) {
        match (atom, value) {
            (_, Value::Null) => {}
            (Atom::Leaf(shape), value) => errors.extend(self.scalar_error(shape, value).map(|e| located(path, &e))),
            (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(map)) => {
                if path.len() >= tree::MAX_FIELDS_DEPTH {
                    errors.push(located(path, "nested too deeply"));
                    return;
                }
                for (key, value) in map {
                    path.push(format!("f:{key}").into());
                    match self.entry(atom, key) {
                        Some(entry) => self.check_at(entry, value, path, errors),
                        None => errors.push(located(path, "field not declared in schema")),
                    }
                    path.pop();
                }
            }
            (Atom::Set | Atom::Keyed(..), Value::Array(list)) => self.check_items(atom, list, path, errors),
            (Atom::Deduced, _) => {}
            (Atom::Set | Atom::Keyed(..), other) => {
                errors.push(located(path, &format!("expected list, got {}", shown_value(other))));
            }
            (_, other) => errors.push(located(path, &format!("expected map, got {}", shown_value(other)))),
        }
    }

    fn check_items(self, atom: Atom<'s>, list: &[Value], path: &mut FieldPath, errors: &mut Vec<String>) {
        let mut seen: HashSet<Box<str>> = HashSet::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let element = match self.element(atom, item) {
                Ok(element) => element,
                Err(error) => {
                    errors.push(located(path, &format!("element {index}: {error}")));
                    continue;
                }
            };
            if !seen.insert(element.clone()) {
                let key = shown(std::slice::from_ref(&element));
                errors.push(located(path, &format!("duplicate entries for key {key}")));
            }
            path.push(element);
            self.check_at(self.list_item(atom), item, path, errors);
            path.pop();
        }
    }

    /// Checks the kind of a leaf. Atomic lists and maps are checked for their own kind only; decoding checks the rest.
    fn scalar_error(self, shape: &Shape, value: &Value) -> Option<String> {
        let expected = match shape {
            Shape::String | Shape::Bytes if !value.is_string() => "string",
            Shape::Boolean if !value.is_boolean() => "boolean",
            Shape::Int32 | Shape::Int64 | Shape::Double if !value.is_number() => "numeric (int or float)",
            Shape::List(_) if !value.is_array() => return Some(format!("expected list, got {}", shown_value(value))),
            Shape::Map(_) if !value.is_object() => return Some(format!("expected map, got {}", shown_value(value))),
            _ => return None,
        };
        Some(format!("expected {expected}, got {}", shown_value(value)))
    }
}

/// Defaults of list keys that upstream's schema declares on the key itself.
fn upstream_key_default(ty: &str, key: &str) -> Option<&'static Value> {
    static TCP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from("TCP"));
    match (ty, key) {
        ("ContainerPort" | "ServicePort", "protocol") => Some(&TCP),
        _ => None,
    }
}

fn located(path: &[Box<str>], error: &str) -> String {
    if path.is_empty() { error.to_string() } else { format!("{}: {error}", shown(path)) }
}

/// As Go's `%#v` shows an unstructured value in these messages.
fn shown_value(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value))
}

fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let mut entries: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            entries.sort_unstable();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        scalar => scalar.to_string(),
    }
}
