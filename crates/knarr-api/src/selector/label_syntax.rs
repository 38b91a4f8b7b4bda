//! The grammar of label selectors in query parameters.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::SelectorError;
use super::label::{Operator, Requirement};

/// A token with its text. `in` and `notin` are words like any other; only where an operator is due do they mean more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(&self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

/// Longer ones first: the first that fits is the token.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ">", "<", "(", ")", ","];

fn is_symbol(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if is_space(bytes[at]) {
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let token = match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => Token::Symbol(symbol),
            None => word(rest),
        };
        at += token.text().len();
        out.push(token);
    }
    out.push(Token::End);
    out
}

fn word(rest: &str) -> Token<'_> {
    let end = rest.bytes().position(|b| is_symbol(b) || is_space(b)).unwrap_or(rest.len());
    Token::Word(&rest[..end])
}

struct Parser<'a> {
    tokens: Peekable<IntoIter<Token<'a>>>,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Token<'a> {
        self.tokens.peek().copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        self.tokens.next().unwrap_or(Token::End)
    }
}

fn found(token: Token<'_>, expected: &str) -> SelectorError {
    SelectorError::new(format!("found '{}', expected: {expected}", token.text()))
}

/// Parses all requirements, in the order written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Symbol("!") => {}
            Token::End => return Ok(requirements),
            other => return Err(found(other, "!, identifier, or 'end of string'")),
        }
        let parsed = requirement(&mut parser)
            .map_err(|error| SelectorError::new(format!("unable to parse requirement: {error}")))?;
        requirements.push(parsed);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(found(other, "identifier after ','")),
            },
            other => return Err(found(other, "',' or 'end of string'")),
        }
    }
}

fn requirement(parser: &mut Parser<'_>) -> Result<Requirement, SelectorError> {
    let negated = parser.peek() == Token::Symbol("!");
    if negated {
        parser.next();
    }
    let key = match parser.next() {
        Token::Word(key) => key,
        other => return Err(found(other, "identifier")),
    };
    // Upstream checks the key here under a path that does not exist, which its messages show.
    if let Some(error) = check_key(key, "<nil>") {
        return Err(SelectorError::new(error));
    }
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(parser.peek(), Token::End | Token::Symbol(",")) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let operator = operator(parser)?;
    let values = match operator {
        Operator::In | Operator::NotIn => value_set(parser)?,
        _ => vec![exact_value(parser)?],
    };
    Requirement::new(key, operator, values)
}

fn operator(parser: &mut Parser<'_>) -> Result<Operator, SelectorError> {
    Ok(match parser.next() {
        Token::Word("in") => Operator::In,
        Token::Word("notin") => Operator::NotIn,
        Token::Symbol("=") => Operator::Equals,
        Token::Symbol("==") => Operator::DoubleEquals,
        Token::Symbol("!=") => Operator::NotEquals,
        Token::Symbol(">") => Operator::GreaterThan,
        Token::Symbol("<") => Operator::LessThan,
        other => return Err(found(other, "in, notin, =, ==, !=, gt, lt")),
    })
}

fn exact_value(parser: &mut Parser<'_>) -> Result<String, SelectorError> {
    if matches!(parser.peek(), Token::End | Token::Symbol(",")) {
        return Ok(String::new());
    }
    match parser.next() {
        Token::Word(value) => Ok(value.to_string()),
        other => Err(found(other, "identifier")),
    }
}

/// `(a, b)`. An empty place between commas is the empty value.
fn value_set(parser: &mut Parser<'_>) -> Result<Vec<String>, SelectorError> {
    match parser.next() {
        Token::Symbol("(") => {}
        other => return Err(SelectorError::new(format!("found '{}' expected: '('", other.text()))),
    }
    let mut values = Vec::new();
    let mut value = "";
    loop {
        match parser.next() {
            Token::Word(word) if value.is_empty() => value = word,
            Token::Symbol(",") => values.push(std::mem::take(&mut value).to_string()),
            Token::Symbol(")") => {
                values.push(value.to_string());
                values.sort_unstable();
                values.dedup();
                return Ok(values);
            }
            other if !value.is_empty() => return Err(found(other, "',' or ')'")),
            other if values.is_empty() => return Err(found(other, "',', ')' or identifier")),
            other => return Err(found(other, "',', or identifier")),
        }
    }
}

const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
     an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SLASHES_RULE: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start \
     and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
     'example.com/MyName')";
const PREFIX_RULE: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// The error of a label key, if it has one.
pub(super) fn check_key(key: &str, path: &str) -> Option<String> {
    let faults = key_faults(key);
    (!faults.is_empty()).then(|| format!("{path}: Invalid value: {}: {}", Value::from(key), faults.join("; ")))
}

fn key_faults(key: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((_, name)) if name.contains('/') => return vec![SLASHES_RULE],
        Some((prefix, name)) => (Some(prefix), name),
    };
    match prefix {
        Some("") => faults.push("prefix part must be non-empty"),
        Some(prefix) => {
            if prefix.len() > 253 {
                faults.push("prefix part must be no more than 253 bytes");
            }
            if !is_subdomain(prefix) {
                faults.push(PREFIX_RULE);
            }
        }
        None => {}
    }
    if name.is_empty() {
        faults.push("name part must be non-empty");
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 bytes");
    }
    if name.is_empty() || !is_label_word(name) {
        faults.push(KEY_RULE);
    }
    faults
}

/// The error of the label value at `index`, if it has one.
pub(super) fn check_value(key: &str, value: &str, index: usize) -> Option<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push("must be no more than 63 bytes");
    }
    if !value.is_empty() && !is_label_word(value) {
        faults.push(VALUE_RULE);
    }
    (!faults.is_empty())
        .then(|| format!("values[{index}][{key}]: Invalid value: {}: {}", Value::from(value), faults.join("; ")))
}

fn is_label_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_subdomain(name: &str) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.split('.').map(str::as_bytes).all(|part| {
        part.first().is_some_and(lower) && part.last().is_some_and(lower) && part.iter().all(|b| lower(b) || *b == b'-')
    })
}
