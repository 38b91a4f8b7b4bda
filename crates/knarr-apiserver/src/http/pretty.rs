//! JSON with line breaks, for those who read it themselves: `?pretty=true`, browsers, curl and Wget.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response};

use super::Body;
use super::negotiate;
use crate::registry::options::Query;

const INDENT: usize = 2;
/// Deep objects take more room for spaces than for themselves: beyond so many times their size, and this, they stay as they are.
const GROWTH: usize = 16;
const ALLOWANCE: usize = 64 * 1024;
/// What people ask with, by how its name begins.
const PEOPLE: [&[u8]; 3] = [b"curl", b"Wget", b"Mozilla/5.0"];

/// Whether a request with this query and these headers is to be answered so.
pub fn wanted(query: &str, headers: &HeaderMap) -> bool {
    if query.contains("pretty") {
        let asked = Query::parse(query);
        if !asked.get("pretty").is_empty() {
            return is_true(asked.get("pretty"));
        }
    }
    let of_people = |agent: &http::HeaderValue| PEOPLE.iter().any(|name| agent.as_bytes().starts_with(name));
    let in_type = |accept: &http::HeaderValue| accept.to_str().is_ok_and(|accept| accept.contains("pretty=1"));
    headers.get(USER_AGENT).is_some_and(of_people)
        || (headers.get(ACCEPT).is_some_and(in_type)
            && negotiate::clauses(headers).first().is_some_and(|clause| clause.parameter("pretty") == Some("1")))
}

/// As Go reads a truth.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

/// Indents an answer that is whole and JSON; any other goes out as it is.
pub fn indent(response: Response<Body>) -> Response<Body> {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = match body.into_chunks(1) {
        Ok(chunks) => match indented(&chunks) {
            Some(text) => Body::from(Bytes::from(text)),
            None => Body::chunks(chunks),
        },
        Err(body) => body,
    };
    Response::from_parts(parts, body)
}

/// The JSON in these runs of bytes, written anew; `None` if that would take too much room.
fn indented(chunks: &[Bytes]) -> Option<Vec<u8>> {
    let size: usize = chunks.iter().map(Bytes::len).sum();
    let mut writer = Writer { out: Vec::with_capacity(size * 2), ..Writer::default() };
    for byte in chunks.iter().flat_map(|chunk| chunk.iter()) {
        writer.take(*byte);
        if writer.out.len() > size * GROWTH + ALLOWANCE {
            return None;
        }
    }
    Some(writer.out)
}

#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// An object or a list has begun, and nothing of it has come yet.
    opened: bool,
}

impl Writer {
    fn take(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return self.out.push(byte);
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => return,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if !std::mem::take(&mut self.opened) {
                    self.break_line();
                }
                return self.out.push(byte);
            }
            _ if std::mem::take(&mut self.opened) => self.break_line(),
            _ => {}
        }
        self.out.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.opened = true;
            }
            b',' => self.break_line(),
            b':' => self.out.push(b' '),
            b'"' => self.in_string = true,
            _ => {}
        }
    }

    fn break_line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + self.depth * INDENT, b' ');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indent(text: &str) -> Option<String> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let middle = bytes.len() / 2;
        indented(&[bytes.slice(..middle), bytes.slice(middle..)]).map(|out| String::from_utf8(out).expect("UTF-8"))
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::vec((".*", inner), 0..5)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_written_as_serde_writes_it(value in value()) {
            prop_assert_eq!(indent(&value.to_string()), serde_json::to_string_pretty(&value).ok());
        }
    }

    #[test]
    fn what_is_indented_stays_so_and_what_would_burst_stays_small() {
        let once = indent(r#"{"a":[1,{}],"b":"x: \"{,\\"}"#).expect("a small one");
        assert_eq!(indent(&once).as_ref(), Some(&once));
        let deep = format!("{}{}{}", "[".repeat(5000), "1,".repeat(5000) + "1", "]".repeat(5000));
        assert_eq!(indent(&deep), None);
    }

    #[test]
    fn people_and_those_who_ask_get_it() {
        let ask = |query: &str, agent: &'static str, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, http::HeaderValue::from_static(agent));
            headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
            wanted(query, &headers)
        };
        for (query, agent, accept, expected) in [
            ("", "kubectl/v1.36", "*/*", false),
            ("", "curl/8.0", "*/*", true),
            ("", "Wget/1.21", "", true),
            ("", "Mozilla/5.0 (X11)", "text/html, */*", true),
            ("pretty=true", "kubectl/v1.36", "*/*", true),
            ("limit=1&pretty=T", "kubectl/v1.36", "*/*", true),
            ("pretty=false", "curl/8.0", "*/*", false),
            ("pretty=yes", "curl/8.0", "*/*", false),
            ("pretty=", "curl/8.0", "*/*", true),
            ("", "kubectl/v1.36", "application/json;pretty=1", true),
            ("", "kubectl/v1.36", "application/json;pretty=0", false),
        ] {
            assert_eq!(ask(query, agent, accept), expected, "{query} {agent} {accept}");
        }
    }
}
