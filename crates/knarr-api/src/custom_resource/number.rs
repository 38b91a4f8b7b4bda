//! Numbers as Go shows and checks them.

use serde_json::{Number, Value};

/// As `%v` shows a float.
pub fn shown(number: f64) -> String {
    if number != 0.0 && !(1e-5..1e21).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    number.to_string()
}

pub fn is_integral(number: f64) -> bool {
    number.is_finite() && number.fract() == 0.0
}

/// Whether a number is in the range of its declared type and format; the error is upstream's.
pub fn in_range(number: f64, json_type: &str, format: &str, what: &str, path: &str) -> Result<(), String> {
    let fits = match (json_type, format) {
        ("integer", "int32") => is_integral(number) && number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX),
        ("integer", _) => is_integral(number) && number.abs() <= 9_223_372_036_854_775_807.0,
        (_, "float") => !number.is_finite() || number.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    match (fits, format) {
        (true, _) => Ok(()),
        (false, "") => Err(format!("{what} value must be of type {json_type} (default format) in {path}")),
        (false, format) => Err(format!("{what} value must be of type {json_type} with format {format} in {path}")),
    }
}

/// Whether `number` is a multiple of a positive `factor`.
pub fn is_multiple(number: &Number, factor: f64) -> bool {
    if let (Some(integer), true) = (number.as_i64(), is_integral(factor) && factor.abs() < 9e15) {
        return integer % (factor as i64) == 0;
    }
    let number = number.as_f64().unwrap_or_default();
    let quotient = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    let nearest = quotient.round();
    (quotient - nearest).abs() <= 1e-9 * nearest.abs().max(1.0)
}

/// Turns every float without a fraction into the integer that Go writes it as.
pub fn normalize(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if is_integral(float) && float.abs() <= EXACT {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(map) => map.values_mut().for_each(normalize),
        _ => {}
    }
}

/// Equality as an enumeration sees it: 1 and 1.0 are the same.
pub fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(x), Value::Number(y)) if x.as_f64() == y.as_f64())
}
