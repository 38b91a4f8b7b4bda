//! `a[b]`, `a in b`, `size` and what loops over maps are built with.

use std::sync::Arc;

use super::Row;
use crate::error::EvalError;
use crate::value::{Map, Owned, Value, equal};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("_[_](list(A), int) -> A", |values| index(&values[0], &values[1])),
    ("_[_](map(A, B), A) -> B", |values| index(&values[0], &values[1])),
    ("_[_](optional(list(A)), int) -> optional(A)", |values| index(&values[0], &values[1])),
    ("_[_](optional(map(A, B)), A) -> optional(B)", |values| index(&values[0], &values[1])),
    ("_[?_](list(A), int) -> optional(A)", |values| optional_index(&values[0], &values[1])),
    ("_[?_](optional(list(A)), int) -> optional(A)", |values| optional_index(&values[0], &values[1])),
    ("_[?_](map(A, B), A) -> optional(B)", |values| optional_index(&values[0], &values[1])),
    ("_[?_](optional(map(A, B)), A) -> optional(B)", |values| optional_index(&values[0], &values[1])),
    ("@in(A, list(A)) -> bool", contained),
    ("@in(A, map(A, B)) -> bool", contained),
    ("size(bytes) -> int", size),
    ("bytes::size() -> int", size),
    ("size(list(A)) -> int", size),
    ("list(A)::size() -> int", size),
    ("size(map(A, B)) -> int", size),
    ("map(A, B)::size() -> int", size),
    ("size(string) -> int", size),
    ("string::size() -> int", size),
    ("cel.@mapInsert(map(A, B), A, B) -> map(A, B)", insert),
    ("cel.@mapInsert(map(A, B), map(A, B)) -> map(A, B)", insert_all),
];

fn size<'a>(values: &[Value<'a>]) -> Answer<'a> {
    values[0].size().map(|size| Value::Int(size as i64)).ok_or_else(EvalError::overload)
}

/// `a[b]`
pub fn index<'a>(value: &Value<'a>, key: &Value<'a>) -> Answer<'a> {
    if let Value::Optional(held) = value {
        return match held {
            Some(value) => optional_index(value, key),
            None => Ok(Value::Optional(None)),
        };
    }
    match (value, find(value, key)?) {
        (_, Some(found)) => Ok(found),
        (Value::List(_), None) => Err(EvalError::failed(format!("index out of bounds: {}", plain(key)))),
        (_, None) => Err(no_such_key(key)),
    }
}

/// `a[?b]`
pub fn optional_index<'a>(value: &Value<'a>, key: &Value<'a>) -> Answer<'a> {
    if let Value::Optional(held) = value {
        return held.as_ref().map_or(Ok(Value::Optional(None)), |value| optional_index(value, key));
    }
    Ok(Value::Optional(find(value, key)?.map(Arc::new)))
}

pub fn no_such_key(key: &Value<'_>) -> EvalError {
    EvalError::failed(format!("no such key: {}", plain(key)))
}

/// A key as errors show it: texts without quotes.
fn plain(key: &Value<'_>) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), str::to_string)
}

/// The element at an index or key, if it is there.
fn find<'a>(value: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::List(list) => {
            let at = match key {
                Value::Int(at) => *at,
                Value::Uint(at) => i64::try_from(*at).unwrap_or(i64::MAX),
                Value::Double(at) if at.fract() == 0.0 => *at as i64,
                _ => return Err(EvalError::failed(format!("unsupported index value: {}", plain(key)))),
            };
            usize::try_from(at).ok().and_then(|at| list.get(at)).transpose()
        }
        Value::Map(map) => map.get(key).transpose(),
        Value::Message(message) => {
            let named = |name: &str| message.fields.iter().find(|(n, _)| **n == *name).map(|(_, v)| v.clone());
            Ok(key.as_str().and_then(named))
        }
        _ => Err(EvalError::overload()),
    }
}

fn contained<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match &values[1] {
        Value::List(list) => {
            for item in list.iter() {
                if equal(&item?, &values[0]) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Map(map) => Ok(Value::Bool(map.get(&values[0]).transpose()?.is_some())),
        _ => Err(EvalError::overload()),
    }
}

fn map_of<'a>(value: &Value<'a>) -> Result<Map<'a>, EvalError> {
    match value {
        Value::Map(map) => Ok(map.clone()),
        _ => Err(EvalError::overload()),
    }
}

fn insert<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let mut map = map_of(&values[0])?.into_owned()?;
    insert_into(&mut map, values[1].clone(), values[2].clone())?;
    Ok(Value::Map(Map::Owned(Arc::new(map))))
}

pub(crate) fn insert_into<'a>(map: &mut Owned<'a>, key: Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
    let shown = plain(&key);
    if map.insert(key, value) {
        Ok(())
    } else {
        Err(EvalError::failed(format!("insert failed: key {shown} already exists")))
    }
}

fn insert_all<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let mut map = map_of(&values[0])?.into_owned()?;
    for (key, value) in map_of(&values[1])?.entries()? {
        insert_into(&mut map, key, value)?;
    }
    Ok(Value::Map(Map::Owned(Arc::new(map))))
}
