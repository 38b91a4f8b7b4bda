//! Maps and objects: of JSON, read as the schema says, or built by an expression.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde_json::Value as Json;

use super::{Text, Value};
use crate::error::EvalError;
use crate::schema::{Declaration, ObjectDeclaration, escape};

type JsonMap = serde_json::Map<String, Json>;

#[derive(Clone)]
pub enum Map<'a> {
    /// JSON without a schema.
    Json(&'a JsonMap),
    /// JSON whose values are all of one kind.
    Typed(&'a JsonMap, &'a Declaration),
    /// JSON with declared fields, under their escaped names.
    Object(&'a JsonMap, &'a ObjectDeclaration),
    Owned(Arc<Owned<'a>>),
}

/// A map that an expression built; it remembers the order in which its entries came.
#[derive(Clone, Default)]
pub struct Owned<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    /// Where in `entries` a key is.
    index: HashMap<Key, usize, RandomState>,
}

/// A key as maps compare them: numbers of all types are alike.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

impl Key {
    fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Number(i128::from(*value)),
            Value::Uint(value) => Key::Number(i128::from(*value)),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Key::Number(*value as i128),
            Value::String(Text::Shared(text)) => Key::Text(text.clone()),
            Value::String(text) => Key::Text(Arc::from(&**text)),
            _ => return None,
        })
    }
}

impl<'a> Owned<'a> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry; false where the key is there already or cannot be one.
    pub fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> bool {
        let Some(known) = Key::of(&key) else { return false };
        if self.index.contains_key(&known) {
            return false;
        }
        self.index.insert(known, self.entries.len());
        self.entries.push((key, value));
        true
    }

    fn get(&self, key: &Value<'_>) -> Option<&Value<'a>> {
        self.index.get(&Key::of(key)?).map(|at| &self.entries[*at].1)
    }
}

/// Whether a value can be a key of a map literal.
pub fn is_key(value: &Value<'_>) -> bool {
    matches!(value, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::String(_))
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map) | Map::Typed(map, _) | Map::Object(map, _) => map.len(),
            Map::Owned(map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a key; an error where the JSON is not what its schema says.
    pub fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Map::Owned(map), key) => map.get(key).cloned().map(Ok),
            (map, Value::String(name)) => map.field(name),
            _ => None,
        }
    }

    /// The value at a text key; of an object, the field of that escaped name.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(map) => map.get(name).map(|json| Value::read(json, None)),
            Map::Typed(map, value) => map.get(name).map(|json| Value::read(json, Some(value))),
            Map::Object(map, object) => {
                let field = object.fields.get(name)?;
                let json = map.get(&*field.name).filter(|json| !json.is_null())?;
                Some(Value::read(json, Some(&field.declaration)))
            }
            Map::Owned(map) => map.get(&Value::String(Text::Borrowed(name))).cloned().map(Ok),
        }
    }

    /// The keys, of objects the escaped names of declared fields that are there.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json(map) | Map::Typed(map, _) => map.keys().map(|k| Value::String(Text::Borrowed(k))).collect(),
            Map::Object(map, object) => {
                let declared = map.keys().filter_map(|k| escape(k)).filter(|k| object.fields.contains_key(k));
                declared.map(Value::string).collect()
            }
            Map::Owned(map) => map.entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    pub fn entries(&self) -> Result<Vec<(Value<'a>, Value<'a>)>, EvalError> {
        if let Map::Owned(map) = self {
            return Ok(map.entries.clone());
        }
        let pair = |key: Value<'a>| Some(self.get(&key)?.map(|value| (key, value)));
        self.keys().into_iter().filter_map(pair).collect()
    }

    /// An owned copy to add to, without copying where nobody else holds it.
    pub fn into_owned(self) -> Result<Owned<'a>, EvalError> {
        match self {
            Map::Owned(map) => Ok(Arc::unwrap_or_clone(map)),
            map => {
                let mut out = Owned::default();
                for (key, value) in map.entries()? {
                    out.insert(key, value);
                }
                Ok(out)
            }
        }
    }
}
