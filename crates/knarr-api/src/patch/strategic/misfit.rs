//! Why a patched tree is none of its type, in the words of upstream's converter from trees to objects, which reads what a
//! strategic merge patch makes. JSON's decoder, which reads everything else, has others.

use serde_json::Value;

use crate::schema::{Schema, Shape, Special, TypeId};

/// The first value that is not of its field's type. `None` where all are: then a value's own parser refused it, in its own words.
pub fn misfit(schema: &Schema, ty: TypeId, object: &Value) -> Option<String> {
    of_type(schema, ty, object)
}

fn of_type(schema: &Schema, ty: TypeId, value: &Value) -> Option<String> {
    let ty = schema.get(ty);
    if ty.special != Special::None || value.is_null() {
        return None;
    }
    let Some(map) = value.as_object() else { return Some(format!("cannot restore struct from: {}", go_kind(value))) };
    ty.fields.iter().find_map(|field| {
        let value = map.get(&field.name)?;
        of_shape(schema, &field.shape, &field.go.type_name, value)
    })
}

fn of_shape(schema: &Schema, shape: &Shape, go_type: &str, value: &Value) -> Option<String> {
    let inner = |shape: &Shape| schema.go_type_name(shape);
    match (shape, value) {
        (_, Value::Null) => None,
        (Shape::Type(id), _) => of_type(schema, *id, value),
        (Shape::Map(item), Value::Object(map)) => {
            map.values().find_map(|value| of_shape(schema, item, &inner(item), value))
        }
        (Shape::Map(_), _) => Some(format!("cannot restore map from {}", go_kind(value))),
        (Shape::List(item), Value::Array(list)) => {
            list.iter().find_map(|value| of_shape(schema, item, &inner(item), value))
        }
        (Shape::Bytes, Value::String(_)) => None,
        (Shape::List(_) | Shape::Bytes, _) => Some(format!("cannot restore slice from {}", go_kind(value))),
        (scalar, _) => of_scalar(scalar, go_type, value),
    }
}

fn of_scalar(shape: &Shape, go_type: &str, value: &Value) -> Option<String> {
    let kind = match shape {
        Shape::String => "string",
        Shape::Boolean => "bool",
        Shape::Int32 => "int32",
        Shape::Int64 => "int64",
        _ => "float64",
    };
    let fits = match (shape, value) {
        (Shape::String, Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => true,
        (Shape::Int32 | Shape::Int64, Value::Number(number)) => number.as_f64().is_some_and(|n| n.fract() == 0.0),
        (Shape::Double, Value::Number(_)) => true,
        _ => false,
    };
    let convertible = matches!((shape, value), (Shape::String, Value::Number(n)) if !n.is_f64())
        || matches!((shape, value), (Shape::Int32 | Shape::Int64, Value::Number(_)));
    match (fits, convertible) {
        (true, _) => None,
        (false, true) => Some(format!("cannot convert {} to {}", go_kind(value), go_type.trim_start_matches('*'))),
        (false, false) => Some(format!("unrecognized type: {kind}")),
    }
}

/// Go's word for what a decoded JSON value is.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}
