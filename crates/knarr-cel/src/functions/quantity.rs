//! Resource quantities.

use std::cmp::Ordering;

use knarr_api::quantity::Quantity;

use super::Row;
use super::strings::text;
use crate::error::EvalError;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("quantity(string) -> kubernetes.Quantity", |v| {
        let parsed = text(v, 0)?.parse::<Quantity>();
        parsed.map(Value::Quantity).map_err(|error| EvalError::failed(error.to_string()))
    }),
    ("isQuantity(string) -> bool", |v| Ok(Value::Bool(text(v, 0)?.parse::<Quantity>().is_ok()))),
    ("sign(kubernetes.Quantity) -> int", sign),
    ("kubernetes.Quantity::sign() -> int", sign),
    ("kubernetes.Quantity::isGreaterThan(kubernetes.Quantity) -> bool", |v| Ok(Value::Bool(order(v)?.is_gt()))),
    ("kubernetes.Quantity::isLessThan(kubernetes.Quantity) -> bool", |v| Ok(Value::Bool(order(v)?.is_lt()))),
    ("kubernetes.Quantity::compareTo(kubernetes.Quantity) -> int", |v| Ok(Value::Int(order(v)? as i64))),
    ("kubernetes.Quantity::asApproximateFloat() -> double", |v| {
        Ok(Value::Double(quantity(v, 0)?.to_string().parse::<Quantity>().map_or(f64::NAN, approximate)))
    }),
    ("kubernetes.Quantity::asInteger() -> int", |v| {
        let value = quantity(v, 0)?;
        let whole = value.is_integer().then(|| Value::Int(value.to_i64()));
        whole.ok_or(EvalError::failed("cannot convert value to integer"))
    }),
    ("kubernetes.Quantity::isInteger() -> bool", |v| Ok(Value::Bool(quantity(v, 0)?.is_integer()))),
    ("kubernetes.Quantity::add(kubernetes.Quantity) -> kubernetes.Quantity", add),
    ("kubernetes.Quantity::add(int) -> kubernetes.Quantity", add),
    ("kubernetes.Quantity::sub(kubernetes.Quantity) -> kubernetes.Quantity", sub),
    ("kubernetes.Quantity::sub(int) -> kubernetes.Quantity", sub),
];

/// A quantity, or a whole number as one.
fn quantity(values: &[Value<'_>], at: usize) -> Result<Quantity, EvalError> {
    match values.get(at) {
        Some(Value::Quantity(value)) => Ok(*value),
        Some(Value::Int(value)) => Ok(Quantity::from_i64(*value)),
        _ => Err(EvalError::overload()),
    }
}

fn order(values: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(quantity(values, 0)?.cmp(&quantity(values, 1)?))
}

fn sign<'a>(values: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Int(quantity(values, 0)?.cmp(&Quantity::ZERO) as i64))
}

fn approximate(value: Quantity) -> f64 {
    match value.is_integer() {
        true => value.to_i64() as f64,
        // Rounded up in thousandths, the exact billionths below that are in the text.
        false => decimal(&value.to_string()),
    }
}

/// The number that a canonical decimal quantity (`1500m`, `10n`) says.
fn decimal(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &text[digits.len()..] {
        "n" => 1e9,
        "u" => 1e6,
        "m" => 1e3,
        _ => 1.0,
    };
    digits.parse::<f64>().unwrap_or(f64::NAN) / power
}

fn add<'a>(values: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Quantity(quantity(values, 0)? + quantity(values, 1)?))
}

fn sub<'a>(values: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Quantity(quantity(values, 0)? - quantity(values, 1)?))
}
