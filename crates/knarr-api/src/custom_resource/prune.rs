//! Dropping what a schema does not name.

use serde_json::{Map, Value};

use super::structural::{Additional, Structural};

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes an object of a kind; answers the paths of what was dropped, sorted.
pub fn prune_object(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut walk = Walk::default();
    let Some(root) = object.as_object_mut() else { return Vec::new() };
    if schema.preserve_unknown_fields {
        walk.keep_map(root, schema, true);
    } else {
        walk.map(root, schema, true);
    }
    walk.dropped.sort();
    walk.dropped
}

/// Prunes any value of a schema, such as a default; true where something was dropped.
pub fn prune_value(value: &mut Value, schema: &Structural) -> bool {
    let mut walk = Walk::default();
    walk.value(value, Some(schema));
    !walk.dropped.is_empty()
}

/// Drops nulls where none is allowed and no default would replace it.
pub fn prune_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                let nested = schema.and_then(|s| s.entry(key));
                !(value.is_null() && nested.is_some_and(|s| !s.nullable && s.default.is_none()))
            });
            map.iter_mut().for_each(|(key, value)| prune_nulls(value, schema.and_then(|s| s.entry(key))));
        }
        Value::Array(items) => {
            let nested = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| prune_nulls(item, nested));
        }
        _ => {}
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    dropped: Vec<String>,
}

impl Walk {
    /// A value whose schema is `None` loses everything that it holds.
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>) {
        match (value, schema) {
            (value, Some(schema)) if schema.preserve_unknown_fields => self.keep(value, schema),
            (Value::Object(map), Some(schema)) => self.map(map, schema, schema.embedded_resource),
            (Value::Object(map), None) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                keys.iter().for_each(|key| self.record(key));
                map.clear();
            }
            (Value::Array(items), schema) => {
                let nested = schema.and_then(|s| s.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    self.at_index(index, |walk| walk.value(item, nested));
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>, schema: &Structural, is_object: bool) {
        let at_root = self.path.is_empty();
        let mut unknown = Vec::new();
        for (key, value) in map.iter_mut() {
            let meta = META_FIELDS.contains(&key.as_str());
            if is_object && meta {
                continue;
            }
            match (schema.properties.get(key), &schema.additional) {
                (Some(nested), _) => self.at(key, |walk| walk.value(value, Some(nested))),
                (None, Additional::Schema(nested)) => self.at(key, |walk| walk.value(value, Some(nested))),
                (None, Additional::Any(_)) => self.at(key, |walk| walk.value(value, None)),
                (None, Additional::Unset) => {
                    if !meta || !at_root {
                        self.record(key);
                    }
                    unknown.push(key.clone());
                }
            }
        }
        unknown.iter().for_each(|key| drop(map.remove(key)));
    }

    /// What is not named is kept here; what is named is pruned by its own schema.
    fn keep(&mut self, value: &mut Value, schema: &Structural) {
        match value {
            Value::Object(map) => self.keep_map(map, schema, schema.embedded_resource),
            Value::Array(items) => {
                let Some(nested) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.at_index(index, |walk| walk.keep(item, nested));
                }
            }
            _ => {}
        }
    }

    fn keep_map(&mut self, map: &mut Map<String, Value>, schema: &Structural, is_object: bool) {
        for (key, value) in map.iter_mut() {
            if is_object && META_FIELDS.contains(&key.as_str()) {
                continue;
            }
            if let Some(nested) = schema.entry(key) {
                self.at(key, |walk| walk.value(value, Some(nested)));
            }
        }
    }

    fn record(&mut self, key: &str) {
        let separator = if self.path.is_empty() { "" } else { "." };
        self.dropped.push(format!("{}{separator}{key}", self.path));
    }

    fn at(&mut self, key: &str, step: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        step(self);
        self.path.truncate(length);
    }

    fn at_index(&mut self, index: usize, step: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        step(self);
        self.path.truncate(length);
    }
}
