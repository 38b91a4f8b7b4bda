//! Lists whose items must differ: sets, and lists with keys.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::structural::Structural;
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::ListKind;

/// Every item that repeats another where the schema says that none may.
pub fn validate(object: &Value, schema: &Structural) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(&Path::ROOT, object, schema, &mut errors);
    errors
}

fn walk(path: &Path<'_>, value: &Value, schema: &Structural, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (schema.properties.get(key), schema.entry(key)) {
                    (Some(nested), _) => walk(&path.child(key), value, nested, errors),
                    (None, Some(nested)) => walk(&path.key(key), value, nested, errors),
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                ListKind::Set => {
                    errors.extend(repeated(items).map(|i| FieldError::duplicate(&path.index(i), &items[i])))
                }
                ListKind::Map(keys) => keyed(path, items, keys, errors),
                ListKind::Unset | ListKind::Atomic => {}
            }
            let Some(nested) = &schema.items else { return };
            items.iter().enumerate().for_each(|(i, item)| walk(&path.index(i), item, nested, errors));
        }
        _ => {}
    }
}

/// The first repetition of every value that occurs more than once.
fn repeated(items: &[Value]) -> impl Iterator<Item = usize> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    let mut found = Vec::new();
    if items.len() > 1 {
        for (index, item) in items.iter().enumerate() {
            let times = seen.entry(item.to_string()).or_default();
            *times += 1;
            if *times == 2 {
                found.push(index);
            }
        }
    }
    found.into_iter()
}

fn keyed(path: &Path<'_>, items: &[Value], keys: &[String], errors: &mut ErrorList) {
    if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&path.index(index), &items[index], why));
        return;
    }
    let key_of = |item: &Value| -> Value {
        let named = keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone())));
        Value::Object(named.collect::<Map<_, _>>())
    };
    let named: Vec<Value> = items.iter().map(key_of).collect();
    errors.extend(repeated(&named).map(|i| FieldError::duplicate(&path.index(i), &json!(named[i]))));
}
