//! `== != < <= > >=` and `!`. Equality is of every type with every other; `&&`, `||` and `?:` are the evaluator's own.

use std::cmp::Ordering;

use super::Row;
use crate::error::EvalError;
use crate::value::{Value, compare, equal};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("_==_(A, A) -> bool", |values| Ok(Value::Bool(equal(&values[0], &values[1])))),
    ("_!=_(A, A) -> bool", |values| Ok(Value::Bool(!equal(&values[0], &values[1])))),
    ("!_(bool) -> bool", not),
    ("_&&_(bool, bool) -> bool", never),
    ("_||_(bool, bool) -> bool", never),
    ("_?_:_(bool, A, A) -> A", never),
    ("@not_strictly_false(bool) -> bool", never),
    ("_<_(bool, bool) -> bool", less),
    ("_<_(int, int) -> bool", less),
    ("_<_(int, double) -> bool", less),
    ("_<_(int, uint) -> bool", less),
    ("_<_(uint, uint) -> bool", less),
    ("_<_(uint, double) -> bool", less),
    ("_<_(uint, int) -> bool", less),
    ("_<_(double, double) -> bool", less),
    ("_<_(double, int) -> bool", less),
    ("_<_(double, uint) -> bool", less),
    ("_<_(string, string) -> bool", less),
    ("_<_(bytes, bytes) -> bool", less),
    ("_<_(timestamp, timestamp) -> bool", less),
    ("_<_(duration, duration) -> bool", less),
    ("_<=_(bool, bool) -> bool", less_or_equal),
    ("_<=_(int, int) -> bool", less_or_equal),
    ("_<=_(int, double) -> bool", less_or_equal),
    ("_<=_(int, uint) -> bool", less_or_equal),
    ("_<=_(uint, uint) -> bool", less_or_equal),
    ("_<=_(uint, double) -> bool", less_or_equal),
    ("_<=_(uint, int) -> bool", less_or_equal),
    ("_<=_(double, double) -> bool", less_or_equal),
    ("_<=_(double, int) -> bool", less_or_equal),
    ("_<=_(double, uint) -> bool", less_or_equal),
    ("_<=_(string, string) -> bool", less_or_equal),
    ("_<=_(bytes, bytes) -> bool", less_or_equal),
    ("_<=_(timestamp, timestamp) -> bool", less_or_equal),
    ("_<=_(duration, duration) -> bool", less_or_equal),
    ("_>_(bool, bool) -> bool", greater),
    ("_>_(int, int) -> bool", greater),
    ("_>_(int, double) -> bool", greater),
    ("_>_(int, uint) -> bool", greater),
    ("_>_(uint, uint) -> bool", greater),
    ("_>_(uint, double) -> bool", greater),
    ("_>_(uint, int) -> bool", greater),
    ("_>_(double, double) -> bool", greater),
    ("_>_(double, int) -> bool", greater),
    ("_>_(double, uint) -> bool", greater),
    ("_>_(string, string) -> bool", greater),
    ("_>_(bytes, bytes) -> bool", greater),
    ("_>_(timestamp, timestamp) -> bool", greater),
    ("_>_(duration, duration) -> bool", greater),
    ("_>=_(bool, bool) -> bool", greater_or_equal),
    ("_>=_(int, int) -> bool", greater_or_equal),
    ("_>=_(int, double) -> bool", greater_or_equal),
    ("_>=_(int, uint) -> bool", greater_or_equal),
    ("_>=_(uint, uint) -> bool", greater_or_equal),
    ("_>=_(uint, double) -> bool", greater_or_equal),
    ("_>=_(uint, int) -> bool", greater_or_equal),
    ("_>=_(double, double) -> bool", greater_or_equal),
    ("_>=_(double, int) -> bool", greater_or_equal),
    ("_>=_(double, uint) -> bool", greater_or_equal),
    ("_>=_(string, string) -> bool", greater_or_equal),
    ("_>=_(bytes, bytes) -> bool", greater_or_equal),
    ("_>=_(timestamp, timestamp) -> bool", greater_or_equal),
    ("_>=_(duration, duration) -> bool", greater_or_equal),
];

/// For what the evaluator does itself, since it does not look at all its operands.
fn never<'a>(_: &[Value<'a>]) -> Answer<'a> {
    Err(EvalError::overload())
}

fn not<'a>(values: &[Value<'a>]) -> Answer<'a> {
    values[0].as_bool().map(|value| Value::Bool(!value)).ok_or_else(EvalError::overload)
}

fn ordered<'a>(values: &[Value<'a>], wanted: fn(Ordering) -> bool) -> Answer<'a> {
    match compare(&values[0], &values[1]) {
        Some(order) => Ok(Value::Bool(wanted(order))),
        None if matches!((&values[0], &values[1]), (Value::Double(_), _) | (_, Value::Double(_))) => {
            Err(EvalError::failed("NaN values cannot be ordered"))
        }
        None => Err(EvalError::overload()),
    }
}

fn less<'a>(values: &[Value<'a>]) -> Answer<'a> {
    ordered(values, Ordering::is_lt)
}

fn less_or_equal<'a>(values: &[Value<'a>]) -> Answer<'a> {
    ordered(values, Ordering::is_le)
}

fn greater<'a>(values: &[Value<'a>]) -> Answer<'a> {
    ordered(values, Ordering::is_gt)
}

fn greater_or_equal<'a>(values: &[Value<'a>]) -> Answer<'a> {
    ordered(values, Ordering::is_ge)
}
