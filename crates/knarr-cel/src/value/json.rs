//! JSON as values, read as a schema says, and values as JSON.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::{List, ListKind, Map, Text, Value};
use crate::error::EvalError;
use crate::functions::time;
use crate::schema::{Declaration, Kind};

impl<'a> Value<'a> {
    /// JSON without a schema: what it is decides its type.
    pub fn from_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Int(whole),
                None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(items) => Value::List(List::Json { items, element: None, kind: ListKind::Atomic }),
            Json::Object(map) => Value::Map(Map::Json(map)),
        }
    }

    /// JSON as its schema declares it. Fails where it is something else.
    pub fn read(json: &'a Json, declared: Option<&'a Declaration>) -> Result<Self, EvalError> {
        let Some(declared) = declared else { return Ok(Value::from_json(json)) };
        if json.is_null() {
            return match declared.nullable || matches!(declared.kind, Kind::Preserved) {
                true => Ok(Value::Null),
                false => Err(EvalError::failed("invalid data, got null for schema with nullable=false")),
            };
        }
        match (&declared.kind, json) {
            (Kind::Preserved, json) => Ok(Value::Preserved(json)),
            (Kind::IntOrString, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
            (Kind::IntOrString, Json::Number(number)) if number.is_i64() => Ok(Value::from_json(json)),
            (Kind::Bool, Json::Bool(value)) => Ok(Value::Bool(*value)),
            (Kind::Double, Json::Number(number)) => Ok(Value::Double(number.as_f64().unwrap_or(f64::NAN))),
            (Kind::Int, Json::Number(number)) => match number.as_i64() {
                Some(whole) => Ok(Value::Int(whole)),
                None => Err(unexpected("int", json)),
            },
            (kind, Json::String(text)) => read_text(kind, text).unwrap_or_else(|| Err(wrong_kind(kind, json))),
            (Kind::List { element, list, .. }, Json::Array(items)) => {
                Ok(Value::List(List::Json { items, element: Some(element), kind: list.as_kind() }))
            }
            (Kind::Map(value), Json::Object(map)) => Ok(Value::Map(Map::Typed(map, value))),
            (Kind::Object(object), Json::Object(map)) => Ok(Value::Map(Map::Object(map, object))),
            (kind, json) => Err(wrong_kind(kind, json)),
        }
    }

    /// The value as JSON; fails for what JSON cannot say.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            Value::Uint(value) => json!(value),
            Value::Double(value) => json!(value),
            Value::String(text) => json!(&**text),
            Value::Bytes(bytes) => json!(STANDARD.encode(bytes)),
            Value::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
            Value::List(list) => list.iter().map(|item| item?.to_json()).collect::<Result<Vec<_>, _>>()?.into(),
            Value::Map(Map::Json(map) | Map::Typed(map, _) | Map::Object(map, _)) => Json::Object((*map).clone()),
            Value::Map(map) => {
                let mut out = serde_json::Map::new();
                for (key, value) in map.entries()? {
                    let key = key.as_str().ok_or_else(|| EvalError::failed("map keys must be strings"))?.to_string();
                    out.insert(key, value.to_json()?);
                }
                Json::Object(out)
            }
            Value::Message(message) => {
                let field = |(name, value): &(Arc<str>, Value<'_>)| Ok((name.to_string(), value.to_json()?));
                Json::Object(message.fields.iter().map(field).collect::<Result<_, EvalError>>()?)
            }
            Value::Duration(value) => json!(time::duration_text(*value)),
            Value::Timestamp(value) => json!(value.to_string()),
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Quantity(value) => json!(value.to_string()),
            Value::Preserved(json) => (*json).clone(),
            other => return Err(EvalError::failed(format!("unsupported type {}", other.type_name()))),
        })
    }
}

fn read_text<'a>(kind: &Kind, text: &'a str) -> Option<Result<Value<'a>, EvalError>> {
    Some(match kind {
        Kind::String => Ok(Value::String(Text::Borrowed(text))),
        Kind::Duration => match time::parse_duration(text) {
            Some(duration) => Ok(Value::Duration(duration)),
            None => Err(EvalError::failed(format!("Invalid duration {text}: unable to parse {text} as duration"))),
        },
        Kind::Date => {
            match text.parse::<jiff::civil::Date>().ok().and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
                Some(date) => Ok(Value::Timestamp(date.timestamp())),
                None => Err(EvalError::failed(format!("Invalid date formatted string {text}"))),
            }
        }
        Kind::DateTime => match time::parse_timestamp(text) {
            Some(timestamp) => Ok(Value::Timestamp(timestamp)),
            None => Err(EvalError::failed(format!("Invalid date-time formatted string {text}"))),
        },
        Kind::Bytes => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => Err(EvalError::failed(format!("Invalid byte formatted string {text}: {error}"))),
        },
        _ => return None,
    })
}

fn unexpected(wanted: &str, json: &Json) -> EvalError {
    EvalError::failed(format!("invalid data, expected {wanted}, got {}", go_type(json)))
}

fn wrong_kind(kind: &Kind, json: &Json) -> EvalError {
    match kind {
        Kind::IntOrString => {
            EvalError::failed("invalid data, expected XIntOrString value to be either a string or integer")
        }
        Kind::Map(_) | Kind::Object(_) => {
            EvalError::failed("invalid data, expected a map for the provided schema with type=object")
        }
        Kind::List { .. } => {
            EvalError::failed("invalid data, expected an array for the provided schema with type=array")
        }
        Kind::Bool => unexpected("bool", json),
        Kind::Int => unexpected("int", json),
        Kind::Double => unexpected("float", json),
        _ => unexpected("string", json),
    }
}

/// What Go calls the type of some JSON.
fn go_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}
