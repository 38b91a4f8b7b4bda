//! Regular expressions: RE2's syntax, read by the `regex` crate after what differs is translated.

use regex::{Regex, RegexBuilder};

use super::Row;
use super::strings::{int, text};
use crate::error::EvalError;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("matches(string, string) -> bool", |v| apply("matches", &compile(text(v, 1)?)?, v)),
    ("string::matches(string) -> bool", |v| apply("matches", &compile(text(v, 1)?)?, v)),
    ("string::find(string) -> string", |v| apply("find", &compile(text(v, 1)?)?, v)),
    ("string::findAll(string) -> list(string)", |v| apply("findAll", &compile(text(v, 1)?)?, v)),
    ("string::findAll(string, int) -> list(string)", |v| apply("findAll", &compile(text(v, 1)?)?, v)),
];

/// The most memory that a compiled pattern may take.
const SIZE_LIMIT: usize = 2 * 1024 * 1024;

/// Whether the second argument of this function is a pattern.
pub fn takes_pattern(function: &str) -> bool {
    matches!(function, "matches" | "find" | "findAll")
}

/// Compiles a pattern of RE2.
pub fn compile(pattern: &str) -> Result<Regex, EvalError> {
    let built = RegexBuilder::new(&translate(pattern)).size_limit(SIZE_LIMIT).build();
    built.map_err(|_| EvalError::failed(format!("error parsing regexp: `{pattern}`")))
}

/// Calls one of the functions with its pattern already compiled; the first value is the text.
pub fn apply<'a>(function: &str, regex: &Regex, values: &[Value<'a>]) -> Answer<'a> {
    let text = text(values, 0)?;
    Ok(match function {
        "matches" => Value::Bool(regex.is_match(text)),
        "find" => Value::string(regex.find(text).map_or("", |found| found.as_str())),
        _ => {
            let limit = if values.len() > 2 { int(values, 2)? } else { -1 };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Value::strings(regex.find_iter(text).take(limit).map(|found| found.as_str()))
        }
    })
}

/// RE2 as the `regex` crate reads it: `\d`, `\w`, `\s` and `\b` mean ASCII, and `[`, `&&`, `--` and `~~` within a class and a
/// lone `{` mean themselves.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut class = false;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => escape(rest, class, &mut out),
            '[' if class && !rest.starts_with("[:") => literal('[', &mut out),
            '[' if class => posix(rest, &mut out),
            '[' => {
                class = true;
                open_class(rest, &mut out)
            }
            ']' if class => {
                class = false;
                plain(c, &mut out)
            }
            '&' | '~' if class => literal(c, &mut out),
            '-' if class && rest[1..].starts_with('-') => literal(c, &mut out),
            '{' if !class && !is_repetition(rest) => literal(c, &mut out),
            c => plain(c, &mut out),
        };
        rest = &rest[taken..];
    }
    out
}

fn plain(c: char, out: &mut String) -> usize {
    out.push(c);
    c.len_utf8()
}

fn literal(c: char, out: &mut String) -> usize {
    out.push('\\');
    plain(c, out)
}

fn posix(rest: &str, out: &mut String) -> usize {
    let length = rest.find(":]").map_or(1, |end| end + 2);
    out.push_str(&rest[..length]);
    length
}

/// `[`, `[^`, and a `]` right after them, which is a character.
fn open_class(rest: &str, out: &mut String) -> usize {
    out.push('[');
    let mut taken = 1;
    if rest[taken..].starts_with('^') {
        out.push('^');
        taken += 1;
    }
    if rest[taken..].starts_with(']') {
        out.push_str("\\]");
        taken += 1;
    }
    taken
}

fn escape(rest: &str, class: bool, out: &mut String) -> usize {
    let Some(c) = rest[1..].chars().next() else { return plain('\\', out) };
    let ascii = match (c, class) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('D', false) => "[^0-9]",
        ('w', true) => "0-9A-Za-z_",
        ('w', false) => "[0-9A-Za-z_]",
        ('W', false) => "[^0-9A-Za-z_]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('S', false) => "[^\\t\\n\\f\\r ]",
        ('D', true) => "[^0-9]",
        ('W', true) => "[^0-9A-Za-z_]",
        ('S', true) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('Q', false) => return quoted(rest, out),
        ('_' | '"' | '\'' | '`' | '/' | ' ' | '@' | '!' | '%' | ',' | ':' | ';' | '=' | '<' | '>', _) => {
            out.push(c);
            return 1 + c.len_utf8();
        }
        _ => {
            out.push('\\');
            out.push(c);
            return 1 + c.len_utf8();
        }
    };
    out.push_str(ascii);
    2
}

/// `\Q...\E`: everything between means itself.
fn quoted(rest: &str, out: &mut String) -> usize {
    let end = rest.find("\\E");
    out.push_str(&regex::escape(&rest[2..end.unwrap_or(rest.len())]));
    end.map_or(rest.len(), |end| end + 2)
}

/// `{2}`, `{2,}` or `{2,3}`
fn is_repetition(rest: &str) -> bool {
    let Some(end) = rest.find('}') else { return false };
    let (from, to) = rest[1..end].split_once(',').unwrap_or((&rest[1..end], ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}
