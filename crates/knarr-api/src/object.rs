//! Reading and writing the metadata that every object has.

use serde_json::{Map, Value};

/// An object as a tree. Its root is always a JSON map; [`crate`]'s functions may rely on that.
pub type Object = Value;

/// Metadata access over an [`Object`]; every getter treats a missing field and a field of the wrong type as absent.
pub trait ObjectExt {
    /// `metadata`, if it is a map.
    fn metadata(&self) -> Option<&Map<String, Value>>;
    /// `metadata`, made if missing.
    fn metadata_mut(&mut self) -> &mut Map<String, Value>;

    fn meta_str(&self, field: &str) -> &str {
        self.metadata().and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
    }
    fn name(&self) -> &str {
        self.meta_str("name")
    }
    fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }
    fn uid(&self) -> &str {
        self.meta_str("uid")
    }
    fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }
    fn generation(&self) -> i64 {
        self.metadata().and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or_default()
    }
    fn is_deleting(&self) -> bool {
        self.metadata().is_some_and(|m| m.get("deletionTimestamp").is_some_and(|v| !v.is_null()))
    }
    fn finalizers(&self) -> Vec<&str> {
        let list = self.metadata().and_then(|m| m.get("finalizers")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }
    /// Sets `metadata.field`; an empty string removes it.
    fn set_meta_str(&mut self, field: &str, value: &str) {
        let metadata = self.metadata_mut();
        if value.is_empty() {
            metadata.remove(field);
        } else {
            metadata.insert(field.into(), value.into());
        }
    }
}

impl ObjectExt for Object {
    fn metadata(&self) -> Option<&Map<String, Value>> {
        self.get("metadata").and_then(Value::as_object)
    }

    fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        let slot = &mut self["metadata"];
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        slot.as_object_mut().expect("made a map just above")
    }
}
