//! Optional values.

use std::sync::Arc;

use super::Row;
use super::lists::list;
use crate::error::EvalError;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("optional.of(V) -> optional(V)", |v| Ok(Value::some(v[0].clone()))),
    ("optional.ofNonZeroValue(V) -> optional(V)", |v| {
        Ok(if v[0].is_zero() { Value::Optional(None) } else { Value::some(v[0].clone()) })
    }),
    ("optional.none() -> optional(V)", |_| Ok(Value::Optional(None))),
    ("optional(V)::value() -> V", |v| {
        held(v, 0)?.map(|value| value.as_ref().clone()).ok_or(EvalError::failed("optional.none() dereference"))
    }),
    ("optional(V)::hasValue() -> bool", |v| Ok(Value::Bool(held(v, 0)?.is_some()))),
    ("optional(V)::or(optional(V)) -> optional(V)", |v| {
        Ok(if held(v, 0)?.is_some() { v[0].clone() } else { v[1].clone() })
    }),
    ("optional(V)::orValue(V) -> V", |v| Ok(held(v, 0)?.map_or_else(|| v[1].clone(), |value| value.as_ref().clone()))),
    ("_?._(dyn, string) -> optional(V)", |_| Err(EvalError::overload())),
    ("list(V)::first() -> optional(V)", |v| Ok(Value::Optional(list(v, 0)?.get(0).transpose()?.map(Arc::new)))),
    ("list(V)::last() -> optional(V)", |v| {
        let items = list(v, 0)?;
        let last = items.len().checked_sub(1).and_then(|at| items.get(at));
        Ok(Value::Optional(last.transpose()?.map(Arc::new)))
    }),
    ("optional.unwrap(list(optional(V))) -> list(V)", unwrap),
    ("list(optional(V))::unwrapOpt() -> list(V)", unwrap),
];

fn held<'v, 'a>(values: &'v [Value<'a>], at: usize) -> Result<Option<&'v Arc<Value<'a>>>, EvalError> {
    match values.get(at) {
        Some(Value::Optional(held)) => Ok(held.as_ref()),
        _ => Err(EvalError::overload()),
    }
}

fn unwrap<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let mut out = Vec::new();
    for item in list(values, 0)?.iter() {
        match item? {
            Value::Optional(Some(value)) => out.push(value.as_ref().clone()),
            Value::Optional(None) => {}
            other => return Err(EvalError::failed(format!("value {other:?} is not optional"))),
        }
    }
    Ok(Value::list(out))
}
