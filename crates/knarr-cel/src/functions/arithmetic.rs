//! `+ - * / % -x`, with overflow as an error.

use std::sync::Arc;

use jiff::SignedDuration;

use super::Row;
use super::time::{duration_between, shift};
use crate::error::EvalError;
use crate::value::{Duration, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("_+_(bytes, bytes) -> bytes", add),
    ("_+_(double, double) -> double", add),
    ("_+_(duration, duration) -> duration", add),
    ("_+_(duration, timestamp) -> timestamp", add),
    ("_+_(timestamp, duration) -> timestamp", add),
    ("_+_(int, int) -> int", add),
    ("_+_(list(A), list(A)) -> list(A)", add),
    ("_+_(string, string) -> string", add),
    ("_+_(uint, uint) -> uint", add),
    ("_-_(double, double) -> double", subtract),
    ("_-_(duration, duration) -> duration", subtract),
    ("_-_(int, int) -> int", subtract),
    ("_-_(timestamp, duration) -> timestamp", subtract),
    ("_-_(timestamp, timestamp) -> duration", subtract),
    ("_-_(uint, uint) -> uint", subtract),
    ("_*_(double, double) -> double", multiply),
    ("_*_(int, int) -> int", multiply),
    ("_*_(uint, uint) -> uint", multiply),
    ("_/_(double, double) -> double", divide),
    ("_/_(int, int) -> int", divide),
    ("_/_(uint, uint) -> uint", divide),
    ("_%_(int, int) -> int", modulo),
    ("_%_(uint, uint) -> uint", modulo),
    ("-_(double) -> double", negate),
    ("-_(int) -> int", negate),
];

fn int<'a>(value: Option<i64>) -> Answer<'a> {
    value.map(Value::Int).ok_or(EvalError::failed("integer overflow"))
}

fn uint<'a>(value: Option<u64>) -> Answer<'a> {
    value.map(Value::Uint).ok_or(EvalError::failed("unsigned integer overflow"))
}

fn duration<'a>(value: Option<i64>) -> Answer<'a> {
    value.map(|nanos| Value::Duration(Duration(nanos))).ok_or(EvalError::failed("integer overflow"))
}

fn add<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(a), Value::Int(b)] => int(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => Ok(Value::string(format!("{}{}", &**a, &**b))),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes(Arc::from([&**a, &**b].concat()))),
        [Value::List(a), Value::List(b)] => Ok(Value::List(a.concat(b)?)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.0.checked_add(b.0)),
        [Value::Duration(by), Value::Timestamp(at)] | [Value::Timestamp(at), Value::Duration(by)] => {
            shift(*at, SignedDuration::from_nanos(by.0))
        }
        _ => Err(EvalError::overload()),
    }
}

fn subtract<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.0.checked_sub(b.0)),
        [Value::Timestamp(at), Value::Duration(by)] => shift(*at, -SignedDuration::from_nanos(by.0)),
        [Value::Timestamp(a), Value::Timestamp(b)] => duration_between(*a, *b),
        _ => Err(EvalError::overload()),
    }
}

fn multiply<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::overload()),
    }
}

fn divide<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::failed("division by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::overload()),
    }
}

fn modulo<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::failed("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => Err(EvalError::overload()),
    }
}

fn negate<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values {
        [Value::Int(value)] => int(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => Err(EvalError::overload()),
    }
}
