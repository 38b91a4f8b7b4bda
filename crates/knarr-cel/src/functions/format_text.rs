//! `"%s and %d".format([a, b])`, and the check of such a text when it is compiled.

use super::Row;
use super::convert::text_of;
use super::strings::text;
use crate::error::EvalError;
use crate::types::Type;
use crate::value::{List, Map, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[("string::format(list(dyn)) -> string", format)];

/// Digits after the point where nothing is said.
const PRECISION: usize = 6;
/// More digits than any double has.
const PRECISION_LIMIT: usize = 1000;

/// One piece of a format text.
enum Piece<'t> {
    Text(&'t str),
    Verb { verb: char, precision: Option<usize> },
}

/// Takes a format text apart.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push(Piece::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push(Piece::Text("%"));
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let number = after[..digits]
                .parse()
                .map_err(|_| "error while parsing precision: could not convert precision to integer")?;
            if number > PRECISION_LIMIT {
                return Err("error while parsing precision: precision is too large".to_string());
            }
            precision = Some(number);
            rest = &after[digits..];
        }
        let verb = rest.chars().next().ok_or("unexpected end of format string")?;
        rest = &rest[verb.len_utf8()..];
        out.push(Piece::Verb { verb, precision });
    }
    out.push(Piece::Text(rest));
    Ok(out)
}

fn format<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Value::List(arguments) = &values[1] else { return Err(EvalError::overload()) };
    let mut out = String::new();
    let mut next = 0;
    for piece in pieces(text(values, 0)?).map_err(EvalError::failed)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Verb { verb, precision } => {
                let argument =
                    arguments.get(next).ok_or_else(|| EvalError::failed(format!("index {next} out of range")))??;
                next += 1;
                let text = render(verb, precision, &argument)
                    .map_err(|why| EvalError::failed(format_error_text(verb, &why)))?;
                out.push_str(&text);
            }
        }
    }
    Ok(Value::string(out))
}

/// The error of a verb whose argument does not fit.
fn format_error_text(verb: char, why: &str) -> String {
    if why.starts_with("unrecognized") {
        format!("could not parse formatting clause: {why}")
    } else {
        format!("error during formatting: {why}")
    }
    .replace("{verb}", &verb.to_string())
}

/// What a verb takes, as its error says it.
fn refusal(verb: char, given: &str) -> String {
    match verb {
        's' => format!(
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {given}"
        ),
        'd' => format!("decimal clause can only be used on integers, was given {given}"),
        'f' => format!("fixed-point clause can only be used on doubles, was given {given}"),
        'e' => format!("scientific clause can only be used on doubles, was given {given}"),
        'b' => format!("only integers and bools can be formatted as binary, was given {given}"),
        'x' | 'X' => format!("only integers, byte buffers, and strings can be formatted as hex, was given {given}"),
        'o' => format!("octal clause can only be used on integers, was given {given}"),
        other => format!("unrecognized formatting clause \"{other}\""),
    }
}

fn render(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, String> {
    let precision = precision.unwrap_or(PRECISION);
    Ok(match (verb, value) {
        ('s', value) => shown(value).map_err(|given| refusal('s', &given))?,
        ('d' | 'b' | 'o' | 'x' | 'X', Value::Int(number)) => {
            let sign = if *number < 0 { "-" } else { "" };
            format!("{sign}{}", radix(verb, number.unsigned_abs()))
        }
        ('d' | 'b' | 'o' | 'x' | 'X', Value::Uint(number)) => radix(verb, *number),
        ('b', Value::Bool(value)) => if *value { "1" } else { "0" }.to_string(),
        ('f', Value::Double(number)) => special(*number).unwrap_or_else(|| grouped(&format!("{number:.precision$}"))),
        ('e', Value::Double(number)) => special(*number).unwrap_or_else(|| scientific(*number, precision)),
        ('f' | 'e', Value::String(text)) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => text.to_string(),
        ('x' | 'X', Value::String(text)) => hex(text.as_bytes(), verb == 'X'),
        ('x' | 'X', Value::Bytes(bytes)) => hex(bytes, verb == 'X'),
        (verb, value) => return Err(refusal(verb, value.type_name())),
    })
}

fn radix(verb: char, number: u64) -> String {
    match verb {
        'b' => format!("{number:b}"),
        'o' => format!("{number:o}"),
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        _ => number.to_string(),
    }
}

fn special(number: f64) -> Option<String> {
    match number {
        n if n.is_nan() => Some("NaN".to_string()),
        n if n.is_infinite() => Some(if n > 0.0 { "∞" } else { "-∞" }.to_string()),
        _ => None,
    }
}

/// American grouping of the digits before the point.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let mut out = sign.to_string();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.234500 × 10⁰³`, as Go's message printer writes American English.
fn scientific(number: f64, precision: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').expect("the format has an exponent");
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("⁻", rest));
    let exponent = format!("{exponent:0>2}");
    let raised: String = exponent.chars().map(|c| DIGITS[c.to_digit(10).unwrap_or(0) as usize]).collect();
    format!("{digits}×10{sign}{raised}")
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
}

/// A value for `%s`; the error is the type that cannot be shown.
fn shown(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::List(list) => shown_list(list),
        Value::Map(map) => shown_map(map),
        Value::Null => Ok("null".to_string()),
        Value::Optional(_) => Err(value.type_name().to_string()),
        value => text_of(value).map(|text| text.to_string()).map_err(|_| value.type_name().to_string()),
    }
}

/// A value within a list or map: texts in quotes, doubles with their six digits.
fn shown_inside(value: &Value<'_>) -> Result<String, String> {
    let quoted = |text: &str| format!("{text:?}");
    Ok(match value {
        Value::String(text) => quoted(text),
        Value::Bytes(_) => format!("b{}", quoted(&shown(value)?)),
        Value::Double(number) if !number.is_finite() => quoted(&special(*number).unwrap_or_default()),
        Value::Double(number) => format!("{number:.PRECISION$}"),
        Value::Timestamp(_) => format!("timestamp({})", quoted(&shown(value)?)),
        Value::Duration(_) => format!("duration({})", quoted(&shown(value)?)),
        value => shown(value)?,
    })
}

fn shown_list(list: &List<'_>) -> Result<String, String> {
    let items: Result<Vec<String>, String> =
        list.iter().map(|item| shown_inside(&item.map_err(|e| e.to_string())?)).collect();
    Ok(format!("[{}]", items?.join(", ")))
}

fn shown_map(map: &Map<'_>) -> Result<String, String> {
    let mut entries = Vec::new();
    for (key, value) in map.entries().map_err(|e| e.to_string())? {
        entries.push((shown_inside(&key)?, shown_inside(&value)?));
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}

/// Checks a literal format text against the types of its literal arguments; the error names the argument to blame, if one is.
pub(crate) fn check_format(text: &str, arguments: &[Type]) -> Result<(), (Option<usize>, String)> {
    let mut next = 0;
    for piece in pieces(text).map_err(|why| (None, why))? {
        let Piece::Verb { verb, .. } = piece else { continue };
        let Some(given) = arguments.get(next) else {
            return Err((None, format!("index {next} out of range")));
        };
        if !takes(verb, given) {
            return Err((Some(next), format_error_text(verb, &refusal(verb, given.runtime_name()))));
        }
        next += 1;
    }
    if arguments.len() > next {
        let why = format!("too many arguments supplied to string.format (expected {next}, got {})", arguments.len());
        return Err((None, why));
    }
    Ok(())
}

fn takes(verb: char, given: &Type) -> bool {
    if matches!(given, Type::Dyn | Type::Error | Type::Variable(_)) {
        return !refusal(verb, "").starts_with("unrecognized");
    }
    match verb {
        's' => !matches!(given, Type::Opaque(..) | Type::Struct(_)),
        'd' | 'o' => matches!(given, Type::Int | Type::Uint),
        'f' | 'e' => matches!(given, Type::Double | Type::String),
        'b' => matches!(given, Type::Int | Type::Uint | Type::Bool),
        'x' | 'X' => matches!(given, Type::Int | Type::Uint | Type::String | Type::Bytes),
        _ => false,
    }
}
