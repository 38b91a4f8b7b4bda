//! Lists as sets.

use super::Row;
use super::lists::list;
use crate::error::EvalError;
use crate::value::{Value, equal};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("sets.contains(list(T), list(T)) -> bool", |v| Ok(Value::Bool(contains(v, 0, 1)?))),
    ("sets.equivalent(list(T), list(T)) -> bool", |v| Ok(Value::Bool(contains(v, 0, 1)? && contains(v, 1, 0)?))),
    ("sets.intersects(list(T), list(T)) -> bool", intersects),
];

fn within_limit(values: &[Value<'_>]) -> Result<(), EvalError> {
    let pairs = list(values, 0)?.len().saturating_mul(list(values, 1)?.len());
    if pairs as u64 > crate::cost::PER_CALL_LIMIT { Err(EvalError::CostLimit) } else { Ok(()) }
}

/// Whether the one list holds everything of the other.
fn contains(values: &[Value<'_>], whole: usize, part: usize) -> Result<bool, EvalError> {
    within_limit(values)?;
    let whole = list(values, whole)?.to_vec()?;
    for item in list(values, part)?.iter() {
        let item = item?;
        if !whole.iter().any(|known| equal(known, &item)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(values: &[Value<'a>]) -> Answer<'a> {
    within_limit(values)?;
    let others = list(values, 1)?.to_vec()?;
    for item in list(values, 0)?.iter() {
        let item = item?;
        if others.iter().any(|known| equal(known, &item)) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
