//! URLs, as Go's `net/url` takes them apart. (The `url` crate follows the WHATWG's rules, which rewrite what they read.)

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::Row;
use super::strings::text;
use crate::error::EvalError;
use crate::value::{Map, Owned, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("url(string) -> kubernetes.URL", |v| {
        let parsed = parse(text(v, 0)?);
        let why = |why| EvalError::failed(format!("URL parse error during conversion from string: {why}"));
        parsed.map(|url| Value::Url(Arc::new(url))).map_err(why)
    }),
    ("isURL(string) -> bool", |v| Ok(Value::Bool(parse(text(v, 0)?).is_ok()))),
    ("kubernetes.URL::getScheme() -> string", |v| part(v, |url| &url.scheme)),
    ("kubernetes.URL::getHost() -> string", |v| part(v, |url| &url.host)),
    ("kubernetes.URL::getHostname() -> string", |v| part(v, |url| url.hostname())),
    ("kubernetes.URL::getPort() -> string", |v| part(v, |url| url.port())),
    ("kubernetes.URL::getEscapedPath() -> string", |v| part(v, |url| &url.path)),
    ("kubernetes.URL::getQuery() -> map(string, list(string))", query),
];

/// A URL in its parts.
#[derive(Debug)]
pub struct Url {
    source: String,
    scheme: String,
    /// With its port.
    host: String,
    path: String,
    query: String,
}

impl Url {
    pub fn text(&self) -> &str {
        &self.source
    }

    fn split_host(&self) -> (&str, &str) {
        let after_address = self.host.rfind(']').map_or(0, |end| end + 1);
        match self.host[after_address..].rfind(':') {
            Some(colon) => (&self.host[..after_address + colon], &self.host[after_address + colon + 1..]),
            None => (&self.host, ""),
        }
    }

    /// Without the port and without the brackets of an IPv6 address.
    fn hostname(&self) -> &str {
        let host = self.split_host().0;
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        self.split_host().1
    }
}

fn part<'a>(values: &[Value<'a>], of: fn(&Url) -> &str) -> Answer<'a> {
    match &values[0] {
        Value::Url(url) => Ok(Value::string(of(url))),
        _ => Err(EvalError::overload()),
    }
}

/// An absolute URL or an absolute path. The error is Go's.
pub fn parse(text: &str) -> Result<Url, String> {
    let refuse = |why: &str| Err(format!("parse {text:?}: {why}"));
    if text.is_empty() {
        return refuse("empty url");
    }
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return refuse("net/url: invalid control character in URL");
    }
    let (scheme, rest) = match split_scheme(text) {
        Ok(split) => split,
        Err(why) => return refuse(why),
    };
    if !rest.starts_with('/') && scheme.is_empty() {
        return refuse("invalid URI for request");
    }
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Err(why) = check_host(host) {
        return refuse(&why);
    }
    if let Err(why) = check_escapes(path) {
        return refuse(&why);
    }
    Ok(Url {
        source: text.to_string(),
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_string(),
        path: escape_path(path),
        query: query.to_string(),
    })
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let after_address = match host.strip_prefix('[') {
        Some(_) => host.rfind(']').ok_or("missing ']' in host")? + 1,
        None => 0,
    };
    let port = host[after_address..].find(':').map(|at| &host[after_address + at + 1..]);
    if let Some(port) = port.filter(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port \":{port}\" after host"));
    }
    let allowed = |c: char| c.is_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    match host.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => check_escapes(host),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let hex = rest.as_bytes().get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        if !hex {
            let shown: String = rest[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

/// Escapes what a path may not hold as it is; what is escaped already stays.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            byte if b"-_.~$&+,/:;=@!'()*[]%".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn query<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Value::Url(url) = &values[0] else { return Err(EvalError::overload()) };
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name), decode(value));
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => names.push((name, vec![value])),
        }
    }
    let mut map = Owned::default();
    for (name, values) in names {
        map.insert(Value::string(name), Value::strings(values));
    }
    Ok(Value::Map(Map::Owned(Arc::new(map))))
}
