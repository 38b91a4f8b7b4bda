//! What changed between two objects of a type, as sets of paths.

use std::sync::LazyLock;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::field_set::{FieldPath, FieldSet};
use super::typed::{Atom, MAX_DEPTH, Typed};
use crate::schema::{Field, Presence, Schema, Shape, Special};

/// The paths that an update removed, modified and added.
#[derive(Debug, Default)]
pub struct Comparison {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
    /// Whether there is an item without the keys by which its list names its items: then nobody can be told apart.
    pub unnamed: bool,
}

/// Compares two objects.
pub fn compare<'s>(typed: Typed<'s>, atom: Atom<'s>, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk { typed, path: FieldPath::new(), out: Comparison::default() };
    walk.node(atom, Some(old), Some(new));
    walk.out
}

struct Walk<'s> {
    typed: Typed<'s>,
    path: FieldPath,
    out: Comparison,
}

impl<'s> Walk<'s> {
    fn node(&mut self, atom: Atom<'s>, old: Option<&Value>, new: Option<&Value>) {
        // Most of an update is unchanged: equal subtrees end the walk here.
        if old == new {
            return;
        }
        let granular = match atom {
            Atom::Struct(_) | Atom::Map(_) => self.maps(atom, old, new),
            Atom::Deduced if [old, new].into_iter().flatten().all(Value::is_object) => self.maps(atom, old, new),
            Atom::Set | Atom::Keyed(..) => self.lists(atom, old, new),
            Atom::Leaf(_) | Atom::Deduced => false,
        };
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            _ if !granular => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    /// Walks into the maps; false where both are empty, which makes the node a leaf.
    fn maps(&mut self, atom: Atom<'s>, old: Option<&Value>, new: Option<&Value>) -> bool {
        let (Some(old), Some(new)) = (map_of(old), map_of(new)) else { return false };
        let by_value = self.by_value_fields(atom, old, new);
        if (old.is_none_or_empty() && new.is_none_or_empty() && by_value.is_empty()) || self.path.len() >= MAX_DEPTH {
            return false;
        }
        for key in old.keys().chain(new.keys().filter(|key| old.get(key).is_none())) {
            let Some(entry) = self.typed.entry(atom, key) else { continue };
            let field = match atom {
                Atom::Struct(ty) => ty.field(key),
                _ => None,
            };
            let (left, right) = (old.get(key), new.get(key));
            let left = left.or_else(|| field.filter(|_| old.0.is_some()).and_then(|f| self.zero_value(f)));
            let right = right.or_else(|| field.filter(|_| new.0.is_some()).and_then(|f| self.zero_value(f)));
            self.child(format!("f:{key}").into(), entry, left, right);
        }
        for field in by_value {
            let empty = |side: &MapRef<'_>| side.0.is_some().then_some(&*EMPTY);
            self.child(format!("f:{}", field.name).into(), self.typed.field(field), empty(&old), empty(&new));
        }
        true
    }

    /// Structs held by value that neither side writes but only one side has, being a whole new or removed struct.
    fn by_value_fields(&self, atom: Atom<'s>, old: MapRef<'_>, new: MapRef<'_>) -> Vec<&'s Field> {
        match atom {
            Atom::Struct(ty) if old.0.is_some() != new.0.is_some() => {
                let unsaid = |f: &&Field| old.get(&f.name).or(new.get(&f.name)).is_none();
                ty.fields.iter().filter(unsaid).filter(|f| by_value(self.typed.schema, f)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What upstream's Go struct has in a field that JSON leaves out: its zero value, where that is always written.
    fn zero_value(&self, field: &Field) -> Option<&'static Value> {
        match field.go.presence {
            Presence::Always => {}
            Presence::Nullable => return Some(&NULL),
            Presence::Optional | Presence::WhenSet => return None,
        }
        Some(match &field.shape {
            Shape::String => &ZERO_TEXT,
            Shape::Boolean => &Value::Bool(false),
            Shape::Int32 | Shape::Int64 | Shape::Double => &ZERO_NUMBER,
            Shape::Bytes | Shape::List(_) | Shape::Map(_) => &NULL,
            Shape::Type(id) => match self.typed.schema.get(*id).special {
                Special::None => &EMPTY,
                Special::Quantity => &ZERO_QUANTITY,
                Special::IntOrString => &ZERO_NUMBER,
                _ => &NULL,
            },
        })
    }

    fn lists(&mut self, atom: Atom<'s>, old: Option<&Value>, new: Option<&Value>) -> bool {
        let (Some(old), Some(new)) = (list_of(old), list_of(new)) else { return false };
        if old.is_empty() && new.is_empty() {
            return false;
        }
        let (old, new) = (self.grouped(atom, old), self.grouped(atom, new));
        let item = self.typed.list_item(atom);
        let only_new = new.keys().filter(|element| !old.contains_key(*element));
        for element in old.keys().chain(only_new) {
            let (left, right) = (old.get(element), new.get(element));
            self.items(element.clone(), item, left.map_or(&[], Vec::as_slice), right.map_or(&[], Vec::as_slice));
        }
        true
    }

    /// Items of the same name; more than one is a duplicate, which is owned as a whole.
    fn items(&mut self, element: Box<str>, item: Atom<'s>, old: &[&Value], new: &[&Value]) {
        match (old, new) {
            ([] | [_], [] | [_]) => self.child(element, item, old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    self.at(element, |walk| walk.out.modified.insert(&walk.path));
                }
            }
            ([_, _, ..], _) => {
                self.child(element.clone(), item, None, new.first().copied());
                self.at(element, |walk| walk.out.removed.insert(&walk.path));
            }
            (_, _) => {
                self.child(element.clone(), item, old.first().copied(), None);
                self.at(element, |walk| walk.out.added.insert(&walk.path));
            }
        }
    }

    fn grouped<'v>(&mut self, atom: Atom<'s>, list: &'v [Value]) -> Groups<'v> {
        let mut out: Groups<'v> = Groups::with_capacity(list.len());
        for item in list {
            match self.typed.element(atom, item) {
                Ok(element) => out.entry(element).or_default().push(item),
                Err(_) => self.out.unnamed = true,
            }
        }
        out
    }

    fn child(&mut self, element: Box<str>, atom: Atom<'s>, old: Option<&Value>, new: Option<&Value>) {
        self.at(element, |walk| walk.node(atom, old, new));
    }

    fn at(&mut self, element: Box<str>, step: impl FnOnce(&mut Self)) {
        self.path.push(element);
        step(self);
        self.path.pop();
    }
}

/// The items of a list by their names; more than one under a name are duplicates.
type Groups<'v> = IndexMap<Box<str>, Vec<&'v Value>>;

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static ZERO_TEXT: Value = Value::String(String::new());
static ZERO_NUMBER: LazyLock<Value> = LazyLock::new(|| Value::from(0));
static ZERO_QUANTITY: LazyLock<Value> = LazyLock::new(|| Value::from("0"));
static NULL: Value = Value::Null;

/// Whether upstream's Go struct holds this struct by value: it is always there, empty where nothing is set.
fn by_value(schema: &Schema, field: &Field) -> bool {
    let Shape::Type(id) = field.shape else { return false };
    field.go.presence == Presence::Always && schema.get(id).special == Special::None
}

/// A side that is absent, null or a map.
#[derive(Clone, Copy)]
struct MapRef<'v>(Option<&'v Map<String, Value>>);

impl<'v> MapRef<'v> {
    fn get(self, key: &str) -> Option<&'v Value> {
        self.0.and_then(|map| map.get(key))
    }

    fn keys(self) -> impl Iterator<Item = &'v String> {
        self.0.into_iter().flat_map(Map::keys)
    }

    fn is_none_or_empty(self) -> bool {
        self.0.is_none_or(Map::is_empty)
    }
}

fn map_of(value: Option<&Value>) -> Option<MapRef<'_>> {
    match value {
        None | Some(Value::Null) => Some(MapRef(None)),
        Some(Value::Object(map)) => Some(MapRef(Some(map))),
        Some(_) => None,
    }
}

fn list_of(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(list)) => Some(list),
        Some(_) => None,
    }
}
