//! What a body says is empty (`[]`, `{}`). Until an object is stored, Go keeps it apart from what was not said: defaulting, validation
//! and ownership see the difference, and messages show it. What is stored knows none.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::schema::{Presence, Schema, Shape, Special, Type, TypeId};

/// Whether a field of this shape, with nothing in it, differs from one that is not there.
pub(super) fn is_said(shape: &Shape, value: &Value) -> bool {
    matches!(shape, Shape::List(_) | Shape::Map(_)) && is_hollow(value)
}

/// Brings an object of type `id` into the form that is stored: there is nothing empty, and lists that are always shown are null.
pub fn settle(schema: &Schema, id: TypeId, object: &mut Value) {
    Walk { schema, stored: true }.value(&Shape::Type(id), object);
}

/// Brings an object of type `id` into the form that Go shows it in: lists that are always shown may be empty.
pub fn hide(schema: &Schema, id: TypeId, object: &mut Value) {
    Walk { schema, stored: false }.value(&Shape::Type(id), object);
}

struct Walk<'s> {
    schema: &'s Schema,
    stored: bool,
}

impl Walk<'_> {
    fn value(&self, shape: &Shape, value: &mut Value) {
        match (shape, value) {
            (Shape::Type(id), Value::Object(fields)) => {
                let ty = self.schema.get(*id);
                if ty.special == Special::None {
                    self.fields(ty, fields);
                }
            }
            (Shape::List(item), Value::Array(items)) => items.iter_mut().for_each(|value| self.value(item, value)),
            (Shape::Map(item), Value::Object(entries)) => {
                entries.values_mut().for_each(|value| self.value(item, value));
            }
            _ => {}
        }
    }

    fn fields(&self, ty: &Type, fields: &mut Map<String, Value>) {
        for field in &ty.fields {
            let Some(value) = fields.get_mut(&field.name) else { continue };
            self.value(&field.shape, value);
            match field.go.presence {
                Presence::Always if self.stored && value.as_array().is_some_and(Vec::is_empty) => *value = Value::Null,
                Presence::WhenSet if is_hollow(value) && field.name != super::MANAGERS => {
                    drop(fields.remove(&field.name))
                }
                _ => {}
            }
        }
    }
}

/// Takes out of a changed object of type `id` what it says is empty where `old` has nothing either: semantically nothing changed there,
/// and whoever compares them need not know better.
pub fn settle_unchanged(schema: &Schema, id: TypeId, object: &mut Value, old: &Value) {
    unchanged(schema, &Shape::Type(id), object, old);
}

fn unchanged(schema: &Schema, shape: &Shape, value: &mut Value, old: &Value) {
    match (shape, value, old) {
        (Shape::Type(id), Value::Object(fields), Value::Object(before)) => {
            let ty = schema.get(*id);
            if ty.special == Special::None {
                unchanged_fields(schema, ty, fields, before);
            }
        }
        (Shape::List(item), Value::Array(items), Value::Array(before)) => {
            let named: HashMap<&str, &Value> = before.iter().filter_map(|old| Some((name_of(old)?, old))).collect();
            for (index, value) in items.iter_mut().enumerate() {
                let same = name_of(value).and_then(|name| named.get(name).copied()).or_else(|| before.get(index));
                unchanged(schema, item, value, same.unwrap_or(&Value::Null));
            }
        }
        (Shape::Map(item), Value::Object(entries), Value::Object(before)) => {
            for (key, value) in entries.iter_mut() {
                unchanged(schema, item, value, before.get(key).unwrap_or(&Value::Null));
            }
        }
        _ => {}
    }
}

fn unchanged_fields(schema: &Schema, ty: &Type, fields: &mut Map<String, Value>, before: &Map<String, Value>) {
    for field in &ty.fields {
        let Some(value) = fields.get_mut(&field.name) else { continue };
        let old = before.get(&field.name).unwrap_or(&Value::Null);
        if !old.is_null() || !is_said(&field.shape, value) {
            unchanged(schema, &field.shape, value, old);
        } else if field.go.presence == Presence::Always {
            *value = Value::Null;
        } else {
            fields.remove(&field.name);
        }
    }
}

/// What an item of a list goes by, wherever it stands.
fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// Whether it is nothing, or a list or map with nothing in it.
pub(crate) fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::GroupVersionKind;
    use crate::schema::schema;

    fn pod() -> TypeId {
        schema().by_gvk(&GroupVersionKind::new("", "v1", "Pod")).expect("a type")
    }

    #[test]
    fn what_is_stored_holds_nothing_empty_but_what_says_something() {
        let said = json!({"metadata": {"labels": {}}, "spec": {"nodeSelector": {}, "containers": [],
            "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"supplementalGroups": []}}});
        let mut stored = said.clone();
        settle(schema(), pod(), &mut stored);
        let wanted = json!({"metadata": {}, "spec": {"containers": null, "volumes": [{"name": "v", "emptyDir": {}}],
            "securityContext": {}}});
        assert_eq!(stored, wanted);
        let mut shown = said;
        hide(schema(), pod(), &mut shown);
        assert_eq!(shown["spec"]["containers"], json!([]), "shown even if there are none");
        assert!(shown["spec"].get("nodeSelector").is_none());
    }

    #[test]
    fn nothing_instead_of_nothing_is_no_change() {
        let old = json!({"spec": {"tolerations": [{"key": "k"}], "volumes": [{"name": "a"}, {"name": "b", "secret": {"items": [{"key": "k"}]}}]}});
        let mut new = json!({"spec": {"nodeSelector": {}, "tolerations": [], "securityContext": {},
            "volumes": [{"name": "b", "secret": {"items": []}}, {"name": "a", "emptyDir": {}}]}});
        settle_unchanged(schema(), pod(), &mut new, &old);
        let wanted = json!({"spec": {"tolerations": [], "securityContext": {},
            "volumes": [{"name": "b", "secret": {"items": []}}, {"name": "a", "emptyDir": {}}]}});
        assert_eq!(new, wanted);
    }
}
