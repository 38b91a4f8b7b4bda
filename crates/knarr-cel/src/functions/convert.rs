//! Conversions: `int(x)`, `string(x)`, `type(x)`, `dyn(x)`...

use std::sync::Arc;

use super::Row;
use super::time::{duration_text, parse_duration, parse_timestamp};
use crate::error::EvalError;
use crate::value::{Duration, Text, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("type(A) -> type(A)", |values| Ok(Value::Type(values[0].type_name().into()))),
    ("dyn(A) -> dyn", same),
    ("bool(bool) -> bool", same),
    ("bool(string) -> bool", to_bool),
    ("bytes(bytes) -> bytes", same),
    ("bytes(string) -> bytes", to_bytes),
    ("double(double) -> double", same),
    ("double(int) -> double", to_double),
    ("double(string) -> double", to_double),
    ("double(uint) -> double", to_double),
    ("duration(duration) -> duration", same),
    ("duration(int) -> duration", to_duration),
    ("duration(string) -> duration", to_duration),
    ("int(int) -> int", same),
    ("int(double) -> int", to_int),
    ("int(duration) -> int", to_int),
    ("int(string) -> int", to_int),
    ("int(timestamp) -> int", to_int),
    ("int(uint) -> int", to_int),
    ("string(string) -> string", same),
    ("string(bool) -> string", to_string),
    ("string(bytes) -> string", to_string),
    ("string(double) -> string", to_string),
    ("string(duration) -> string", to_string),
    ("string(int) -> string", to_string),
    ("string(timestamp) -> string", to_string),
    ("string(uint) -> string", to_string),
    ("string(net.IP) -> string", to_string),
    ("string(net.CIDR) -> string", to_string),
    ("timestamp(timestamp) -> timestamp", same),
    ("timestamp(int) -> timestamp", to_timestamp),
    ("timestamp(string) -> timestamp", to_timestamp),
    ("uint(uint) -> uint", same),
    ("uint(double) -> uint", to_uint),
    ("uint(int) -> uint", to_uint),
    ("uint(string) -> uint", to_uint),
];

fn same<'a>(values: &[Value<'a>]) -> Answer<'a> {
    Ok(values[0].clone())
}

fn impossible(value: &Value<'_>, wanted: &str) -> EvalError {
    EvalError::failed(format!("type conversion error from '{}' to '{wanted}'", value.type_name()))
}

fn to_bool<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match values[0].as_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Value::Bool(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Value::Bool(false)),
        _ => Err(impossible(&values[0], "bool")),
    }
}

fn to_bytes<'a>(values: &[Value<'a>]) -> Answer<'a> {
    values[0].as_str().map(|text| Value::Bytes(Arc::from(text.as_bytes()))).ok_or_else(EvalError::overload)
}

fn to_double<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match &values[0] {
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        value => {
            let text = value.as_str().unwrap_or_default();
            let number = text.parse().ok().filter(|_| !text.is_empty());
            number.map(Value::Double).ok_or_else(|| impossible(value, "double"))
        }
    }
}

fn to_duration<'a>(values: &[Value<'a>]) -> Answer<'a> {
    match &values[0] {
        Value::Int(nanos) => Ok(Value::Duration(Duration(*nanos))),
        value => {
            let duration = value.as_str().and_then(parse_duration);
            duration.map(Value::Duration).ok_or_else(|| impossible(value, "google.protobuf.Duration"))
        }
    }
}

fn to_int<'a>(values: &[Value<'a>]) -> Answer<'a> {
    const OVERFLOW: EvalError = EvalError::Failed(std::borrow::Cow::Borrowed("integer overflow"));
    match &values[0] {
        Value::Double(value) if value.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*value as i64)),
        Value::Double(_) => Err(OVERFLOW),
        Value::Duration(value) => Ok(Value::Int(value.0)),
        Value::Timestamp(value) => Ok(Value::Int(value.as_second())),
        Value::Uint(value) => i64::try_from(*value).map(Value::Int).map_err(|_| OVERFLOW),
        value => {
            let number = value.as_str().and_then(|text| text.parse().ok());
            number.map(Value::Int).ok_or_else(|| impossible(value, "int"))
        }
    }
}

fn to_uint<'a>(values: &[Value<'a>]) -> Answer<'a> {
    const OVERFLOW: EvalError = EvalError::Failed(std::borrow::Cow::Borrowed("unsigned integer overflow"));
    match &values[0] {
        Value::Double(value) if *value >= 0.0 && *value < 18_446_744_073_709_551_615.0 => {
            Ok(Value::Uint(*value as u64))
        }
        Value::Double(_) => Err(OVERFLOW),
        Value::Int(value) => u64::try_from(*value).map(Value::Uint).map_err(|_| OVERFLOW),
        value => {
            let number = value.as_str().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
            number.map(Value::Uint).ok_or_else(|| impossible(value, "uint"))
        }
    }
}

fn to_timestamp<'a>(values: &[Value<'a>]) -> Answer<'a> {
    const NAME: &str = "google.protobuf.Timestamp";
    let at = match &values[0] {
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds).ok(),
        value => value.as_str().and_then(parse_timestamp),
    };
    at.map(Value::Timestamp).ok_or_else(|| impossible(&values[0], NAME))
}

fn to_string<'a>(values: &[Value<'a>]) -> Answer<'a> {
    text_of(&values[0]).map(Value::String)
}

/// `string(x)`
pub fn text_of<'a>(value: &Value<'a>) -> Result<Text<'a>, EvalError> {
    let text = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Bool(value) => value.to_string(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            Err(_) => return Err(EvalError::failed("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Double(value) => go_float(*value),
        Value::Duration(value) => duration_text(*value),
        Value::Int(value) => value.to_string(),
        Value::Timestamp(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Ip(value) => value.to_string(),
        Value::Cidr(value) => value.0.to_string(),
        Value::Type(name) => name.to_string(),
        _ => return Err(impossible(value, "string")),
    };
    Ok(Text::Shared(text.into()))
}

/// A number as Go's `%g` writes it: the shortest digits, an exponent from a million on.
fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_string();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format's exponent is a number");
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
