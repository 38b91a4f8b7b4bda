//! Texts: cel-go's strings extension (version 2) and the standard's own. Positions count characters.

use super::Row;
use crate::error::EvalError;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("string::contains(string) -> bool", |v| Ok(Value::Bool(text(v, 0)?.contains(text(v, 1)?)))),
    ("string::endsWith(string) -> bool", |v| Ok(Value::Bool(text(v, 0)?.ends_with(text(v, 1)?)))),
    ("string::startsWith(string) -> bool", |v| Ok(Value::Bool(text(v, 0)?.starts_with(text(v, 1)?)))),
    ("string::charAt(int) -> string", char_at),
    ("string::indexOf(string) -> int", index_of),
    ("string::indexOf(string, int) -> int", index_of),
    ("string::lastIndexOf(string) -> int", last_index_of),
    ("string::lastIndexOf(string, int) -> int", last_index_of),
    ("string::lowerAscii() -> string", |v| Ok(Value::string(text(v, 0)?.to_ascii_lowercase()))),
    ("string::upperAscii() -> string", |v| Ok(Value::string(text(v, 0)?.to_ascii_uppercase()))),
    ("string::replace(string, string) -> string", replace),
    ("string::replace(string, string, int) -> string", replace),
    ("string::split(string) -> list(string)", split),
    ("string::split(string, int) -> list(string)", split),
    ("string::substring(int) -> string", substring),
    ("string::substring(int, int) -> string", substring),
    ("string::trim() -> string", |v| Ok(Value::string(text(v, 0)?.trim_matches(is_space)))),
    ("list(string)::join() -> string", join),
    ("list(string)::join(string) -> string", join),
    ("strings.quote(string) -> string", |v| Ok(Value::string(quote(text(v, 0)?)))),
    ("jsonpatch.escapeKey(string) -> string", |v| Ok(Value::string(text(v, 0)?.replace('~', "~0").replace('/', "~1")))),
];

pub(super) fn text<'v>(values: &'v [Value<'_>], at: usize) -> Result<&'v str, EvalError> {
    values.get(at).and_then(Value::as_str).ok_or_else(EvalError::overload)
}

pub(super) fn int(values: &[Value<'_>], at: usize) -> Result<i64, EvalError> {
    match values.get(at) {
        Some(Value::Int(value)) => Ok(*value),
        _ => Err(EvalError::overload()),
    }
}

/// Go's idea of white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() && !matches!(c, '\u{1c}'..='\u{1f}')
}

fn out_of_range(at: i64) -> EvalError {
    EvalError::failed(format!("index out of range: {at}"))
}

/// A position within (or right after) `length` characters.
fn within(at: i64, length: usize) -> Result<usize, EvalError> {
    usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(at))
}

fn char_at<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let text = text(values, 0)?;
    let at = within(int(values, 1)?, text.chars().count())?;
    Ok(Value::string(text.chars().nth(at).map(String::from).unwrap_or_default()))
}

fn index_of<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (text, wanted) = (text(values, 0)?, text(values, 1)?);
    let offset = if values.len() > 2 { int(values, 2)? } else { 0 };
    if wanted.is_empty() {
        return Ok(Value::Int(offset));
    }
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    let Some((start, _)) = text.char_indices().nth(from) else { return Ok(Value::Int(-1)) };
    let found = text[start..].find(wanted).map(|at| from + text[start..start + at].chars().count());
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn last_index_of<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (text, wanted) = (text(values, 0)?, text(values, 1)?);
    let length = text.chars().count();
    if values.len() == 2 {
        if wanted.is_empty() {
            return Ok(Value::Int(length as i64));
        }
        return Ok(Value::Int(text.rfind(wanted).map_or(-1, |at| text[..at].chars().count() as i64)));
    }
    let offset = int(values, 2)?;
    if wanted.is_empty() {
        return Ok(Value::Int(offset));
    }
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    if from >= length {
        return Ok(Value::Int(-1));
    }
    // The match may begin at `from` and reach beyond it.
    let end = from + wanted.chars().count();
    let end = text.char_indices().nth(end).map_or(text.len(), |(at, _)| at);
    Ok(Value::Int(text[..end].rfind(wanted).map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (text, old, new) = (text(values, 0)?, text(values, 1)?, text(values, 2)?);
    let limit = if values.len() > 3 { int(values, 3)? } else { -1 };
    Ok(Value::string(match usize::try_from(limit) {
        Ok(limit) => text.replacen(old, new, limit),
        Err(_) => text.replace(old, new),
    }))
}

fn split<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (text, separator) = (text(values, 0)?, text(values, 1)?);
    let limit = if values.len() > 2 { int(values, 2)? } else { -1 };
    let Ok(limit) = usize::try_from(limit).or(if limit < 0 { Ok(usize::MAX) } else { Err(()) }) else {
        return Err(out_of_range(limit));
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    Ok(Value::strings(match separator {
        "" => split_characters(text, limit),
        separator => text.splitn(limit, separator).map(str::to_string).collect(),
    }))
}

/// Every character by itself, the last one with all that is beyond the limit.
fn split_characters(text: &str, limit: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for c in text.chars() {
        let full = out.len() == limit;
        match out.last_mut() {
            Some(last) if full => last.push(c),
            _ => out.push(c.to_string()),
        }
    }
    out
}

fn substring<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let text = text(values, 0)?;
    let length = text.chars().count();
    let start = int(values, 1)?;
    let end = if values.len() > 2 { int(values, 2)? } else { length as i64 };
    if values.len() > 2 && start > end {
        return Err(EvalError::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let (start, end) = (within(start, length)?, within(end, length)?);
    Ok(Value::string(text.chars().skip(start).take(end - start).collect::<String>()))
}

fn join<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Value::List(list) = &values[0] else { return Err(EvalError::overload()) };
    let separator = if values.len() > 1 { text(values, 1)? } else { "" };
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        let item = item?;
        let Some(text) = item.as_str() else {
            return Err(EvalError::failed(format!("join: invalid input: {item:?}")));
        };
        out.push_str(text);
    }
    Ok(Value::string(out))
}

/// The text as a literal would say it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
