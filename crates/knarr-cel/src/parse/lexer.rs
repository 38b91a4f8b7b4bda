//! Characters to tokens.

use crate::source::Issue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Int,
    Uint,
    Float,
    String,
    Bytes,
    Ident,
    /// `` `any name` ``
    EscapedIdent,
    True,
    False,
    Null,
    In,
    /// An operator or bracket; its text says which.
    Symbol,
    End,
}

#[derive(Clone, Copy, Debug)]
pub struct Lexeme<'s> {
    pub token: Token,
    /// In characters.
    pub position: u32,
    pub text: &'s str,
}

impl Lexeme<'_> {
    pub fn is(&self, symbol: &str) -> bool {
        self.token == Token::Symbol && self.text == symbol
    }

    /// As syntax errors name it.
    pub fn shown(&self) -> &str {
        if self.token == Token::End { "<EOF>" } else { self.text }
    }
}

const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];

/// Splits a text; what is no token at all is told and left out.
pub fn lex<'s>(source: &'s str, issues: &mut Vec<Issue>) -> Vec<Lexeme<'s>> {
    let mut out = Vec::new();
    let mut rest = source;
    let mut position = 0;
    while !rest.is_empty() {
        let (token, length) = next(rest);
        let text = &rest[..length];
        match token {
            Some(token) => out.push(Lexeme { token, position, text }),
            None if text.starts_with(is_space) || text.starts_with("//") => {}
            None => {
                issues.push(Issue { position: Some(position), message: unrecognised(text) });
            }
        }
        position += text.chars().count() as u32;
        rest = &rest[length..];
    }
    out.push(Lexeme { token: Token::End, position, text: "" });
    out
}

fn unrecognised(text: &str) -> String {
    let shown = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
    format!("Syntax error: token recognition error at: '{shown}'")
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0c')
}

/// The token that a text begins with (`None`: space, comment or rubbish) and its length in bytes.
fn next(rest: &str) -> (Option<Token>, usize) {
    let bytes = rest.as_bytes();
    match bytes[0] {
        c if is_space(char::from(c)) => (None, rest.len() - rest.trim_start_matches(is_space).len()),
        b'/' if rest.starts_with("//") => (None, rest.find('\n').unwrap_or(rest.len())),
        b'0'..=b'9' => number(rest),
        b'.' if bytes.get(1).is_some_and(u8::is_ascii_digit) => number(rest),
        b'"' | b'\'' => string(rest, 0, Token::String),
        b'r' | b'R' if quote_at(bytes, 1) => string(rest, 1, Token::String),
        b'b' | b'B' if quote_at(bytes, 1) => string(rest, 1, Token::Bytes),
        b'b' | b'B' if matches!(bytes.get(1), Some(b'r' | b'R')) && quote_at(bytes, 2) => string(rest, 2, Token::Bytes),
        b'`' => escaped_identifier(rest),
        c if c.is_ascii_alphabetic() || c == b'_' => identifier(rest),
        _ => match SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            Some(symbol) => (Some(Token::Symbol), symbol.len()),
            None => (None, rubbish(rest)),
        },
    }
}

/// The lexer of cel-go reads on after half an operator: `| ` is one error.
fn rubbish(rest: &str) -> usize {
    let mut chars = rest.chars();
    let first = chars.next().map_or(1, char::len_utf8);
    match rest.as_bytes()[0] {
        b'|' | b'&' | b'=' => first + chars.next().map_or(0, char::len_utf8),
        _ => first,
    }
}

fn quote_at(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b'"' | b'\''))
}

fn identifier(rest: &str) -> (Option<Token>, usize) {
    let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let token = match &rest[..length] {
        "true" => Token::True,
        "false" => Token::False,
        "null" => Token::Null,
        "in" => Token::In,
        _ => Token::Ident,
    };
    (Some(token), length)
}

fn escaped_identifier(rest: &str) -> (Option<Token>, usize) {
    let inside = |b: &u8| b.is_ascii_alphanumeric() || b"_.-/ ".contains(b);
    let length = rest.bytes().skip(1).take_while(inside).count();
    if length > 0 && rest.as_bytes().get(length + 1) == Some(&b'`') {
        return (Some(Token::EscapedIdent), length + 2);
    }
    (None, length + 1)
}

fn number(rest: &str) -> (Option<Token>, usize) {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let hex = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_hexdigit()).count();
    let unsigned = |end: usize| matches!(bytes.get(end), Some(b'u' | b'U'));
    if rest.starts_with("0x") && hex(2) > 0 {
        let end = 2 + hex(2);
        return if unsigned(end) { (Some(Token::Uint), end + 1) } else { (Some(Token::Int), end) };
    }
    let whole = digits(0);
    let mut end = whole;
    let mut float = false;
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
        float = true;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if digits(end + 1 + sign) > 0 {
            end += 1 + sign + digits(end + 1 + sign);
            float = true;
        }
    }
    match float {
        true => (Some(Token::Float), end),
        false if unsigned(end) => (Some(Token::Uint), end + 1),
        false => (Some(Token::Int), end),
    }
}

/// A literal whose quotes begin after `prefix` letters.
fn string(rest: &str, prefix: usize, token: Token) -> (Option<Token>, usize) {
    let raw = rest[..prefix].contains(['r', 'R']);
    let body = &rest[prefix..];
    for (quote, many_lines) in [("\"\"\"", true), ("'''", true), ("\"", false), ("'", false)] {
        if !body.starts_with(quote) {
            continue;
        }
        if let Some(end) = closing(&body[quote.len()..], quote, raw, many_lines) {
            return (Some(token), prefix + quote.len() + end + quote.len());
        }
    }
    (None, unterminated(rest, prefix))
}

/// Where the closing quote begins.
fn closing(body: &str, quote: &str, raw: bool, many_lines: bool) -> Option<usize> {
    let mut at = 0;
    let bytes = body.as_bytes();
    while at < bytes.len() {
        if body[at..].starts_with(quote) {
            return Some(at);
        }
        match bytes[at] {
            b'\n' | b'\r' if !many_lines => return None,
            b'\\' if !raw => {
                let escaped = body[at + 1..].chars().next()?;
                if !valid_escape(&body[at + 1..]) {
                    return None;
                }
                at += 1 + escaped.len_utf8();
            }
            _ => at += body[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    None
}

fn valid_escape(after: &str) -> bool {
    let bytes = after.as_bytes();
    let hex = |n: usize| bytes.len() > n && bytes[1..=n].iter().all(u8::is_ascii_hexdigit);
    match bytes.first() {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => true,
        Some(b'x' | b'X') => hex(2),
        Some(b'u') => hex(4),
        Some(b'U') => hex(8),
        Some(b'0'..=b'3') => bytes.len() > 2 && bytes[1..3].iter().all(|b| (b'0'..=b'7').contains(b)),
        _ => false,
    }
}

/// How much of a text that never closes is one error: up to the end of the line.
fn unterminated(rest: &str, prefix: usize) -> usize {
    rest[prefix..].find('\n').map_or(rest.len(), |end| prefix + end).max(1)
}
