//! Answers: objects as bytes, objects as trees, and every way to say no.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use knarr_api::resource::built_in;
use knarr_api::status::Reason;
use knarr_api::{StatusError, protobuf, schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Body;
use super::negotiate::{self, Encoding, Wanted};
use super::pretty;

/// What every handler gives back; an error becomes a `Status` in one place, [`from_error`].
pub type Answer = Result<Response<Body>, StatusError>;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");

/// JSON bytes that need no more work.
pub fn json_bytes(status: StatusCode, bytes: Bytes) -> Response<Body> {
    with_type(status, JSON, Body::from(bytes))
}

pub fn with_type(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A document of the server's own, which always can be written as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    json_bytes(status, text.into())
}

/// A document of the server's own in the encoding that was agreed upon, or why there was none.
pub fn document(wanted: Result<Wanted, StatusError>, value: &impl Serialize) -> Response<Body> {
    let encoding = match wanted {
        Ok(wanted) => wanted.encoding,
        Err(error) => return from_error(&error),
    };
    let tree = (encoding != Encoding::Json).then(|| serde_json::to_value(value).unwrap_or_default());
    let written = tree.and_then(|tree| encode(StatusCode::OK, encoding, &tree).ok());
    written.unwrap_or_else(|| json(StatusCode::OK, value))
}

pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = with_type(status, TEXT, Body::from(text.into()));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// What upstream's router says where no route matches.
pub fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What upstream's router says where a path exists, but not with this method.
pub fn method_not_allowed(allow: &str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed\n");
    if let Ok(value) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(http::header::ALLOW, value);
    }
    response
}

/// Whether upstream's router looks further for this path: then it answers with a `Status` where nothing is found.
fn is_routed(path: &str) -> bool {
    let mut words = path.split('/').skip(1);
    match (words.next(), words.next()) {
        (Some("api" | "version" | "openid" | ".well-known"), _) => true,
        (Some("apis"), Some(group)) => built_in().resources.iter().any(|r| r.group == group),
        _ => false,
    }
}

/// The answer where no route matches.
pub fn no_route(path: &str) -> Response<Body> {
    if !is_routed(path) {
        return page_not_found();
    }
    from_error(&StatusError::unrouted(Reason::NotFound, "the server could not find the requested resource"))
}

/// The answer where a route matches, but not with this method.
pub fn no_method(path: &str, allow: &str) -> Response<Body> {
    if !is_routed(path) {
        return method_not_allowed(allow);
    }
    let why = "the server does not allow this method on the requested resource";
    from_error(&StatusError::unrouted(Reason::MethodNotAllowed, why))
}

/// What Go's server says to a request that it does not even read; the connection ends.
pub fn refuse_connection(why: &str) -> Response<Body> {
    let mut response = text(StatusCode::BAD_REQUEST, format!("400 Bad Request: {why}"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Something that is held until a response has been sent.
#[derive(Clone)]
struct Held(Arc<dyn Send + Sync>);

/// An answer of so many bytes may take a while to send; a smaller one is its connection's at once.
const SLOW: u64 = 64 * 1024;

/// Holds `guard` until the answer has been sent, if that may take long; the chain sees to it.
pub fn hold(response: &mut Response<Body>, guard: impl Send + Sync + 'static) {
    if response.body().size_hint().exact().is_none_or(|size| size >= SLOW) {
        response.extensions_mut().insert(Held(Arc::new(guard)));
    }
}

/// Ties what is held to the body.
pub fn hold_until_sent(response: &mut Response<Body>) {
    if let Some(Held(guard)) = response.extensions_mut().remove() {
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = body.guarded(guard);
    }
}

/// A `Status` that a response carries, as long as nobody has asked for it in another encoding.
#[derive(Clone)]
struct Said(Arc<Value>);

/// The fields of a `Status` in upstream's order, and those of what it holds: there are clients that compare the text.
const STATUS_FIRST: [&str; 8] = ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
const DETAILS_FIRST: [&str; 8] = ["name", "group", "kind", "uid", "reason", "message", "field", "causes"];

/// A tree whose fields are written in an order of their own, the others after them.
struct InOrder<'a> {
    value: &'a Value,
    first: &'a [&'a str],
}

impl<'a> InOrder<'a> {
    fn status(value: &'a Value) -> Self {
        InOrder { value, first: &STATUS_FIRST }
    }
}

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let below = |value| InOrder { value, first: &DETAILS_FIRST };
        match self.value {
            Value::Object(map) => {
                let first = self.first.iter().filter_map(|field| map.get_key_value(*field));
                let others = map.iter().filter(|(field, _)| !self.first.contains(&field.as_str()));
                serializer.collect_map(first.chain(others).map(|(field, value)| (field, below(value))))
            }
            Value::Array(list) => serializer.collect_seq(list.iter().map(below)),
            scalar => scalar.serialize(serializer),
        }
    }
}

/// A `Status` in JSON; [`status_as`] says it as the client would read it.
pub fn status(code: StatusCode, status: Value) -> Response<Body> {
    let mut response = json(code, &InOrder::status(&status));
    response.extensions_mut().insert(Said(Arc::new(status)));
    response
}

/// Writes the `Status` that a response may carry in what the client accepts; in JSON where it accepts nothing there is, with lines
/// and indentation if `indented`.
pub fn status_as(accept: Option<&HeaderValue>, indented: bool, response: &mut Response<Body>) {
    let Some(Said(status)) = response.extensions_mut().remove() else { return };
    let mut headers = HeaderMap::new();
    headers.extend(accept.map(|accept| (ACCEPT, accept.clone())));
    let encoding = negotiate::accept(&headers, false).map_or(Encoding::Json, |wanted| wanted.encoding);
    let written = match encoding {
        Encoding::Json if !indented => return,
        Encoding::Json => Ok(indented_json(response.status(), &InOrder::status(&status))),
        encoding => encode(response.status(), encoding, &status),
    };
    if let Ok(written) = written {
        let (parts, body) = written.into_parts();
        *response.body_mut() = body;
        response.headers_mut().extend(parts.headers);
    }
}

/// A tree as JSON for people.
pub fn indented_json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    pretty::indent(json(status, value))
}

/// A tree in the encoding that was asked for.
pub fn encode(status: StatusCode, encoding: Encoding, object: &Value) -> Result<Response<Body>, StatusError> {
    let bytes: Bytes = match encoding {
        Encoding::Yaml => knarr_api::yaml::to_string(object).map_err(StatusError::internal)?.into(),
        Encoding::Protobuf => protobuf::encode(schema::schema(), object).map_err(StatusError::internal)?.into(),
        Encoding::Json => {
            let mut text = object.to_string();
            text.push('\n');
            text.into()
        }
    };
    Ok(with_type(status, HeaderValue::from_static(encoding.media_type()), Body::from(bytes)))
}

/// The one place where an error becomes an answer.
pub fn from_error(error: &StatusError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = status(code, error.to_value());
    let retry = error.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// Adds a warning before all others: what is asked for is told of before what is wrong with it.
pub fn warn_first(response: &mut Response<Body>, warning: &str) {
    let others: Vec<HeaderValue> = response.headers().get_all(WARNING).iter().cloned().collect();
    response.headers_mut().remove(WARNING);
    add_warnings(response, &[warning.to_string()]);
    for other in others {
        response.headers_mut().append(WARNING, other);
    }
}

/// The most characters of all warnings together; where there are more, of one of them.
const ALL_WARNINGS: usize = 4 * 1024;
const LONG_WARNING: usize = 256;

/// Each warning once, and as much of them as upstream tells.
fn told(warnings: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    let mut told: Vec<&str> =
        warnings.iter().map(String::as_str).filter(|text| !text.is_empty() && seen.insert(*text)).collect();
    if told.iter().map(|text| text.chars().count()).sum::<usize>() <= ALL_WARNINGS {
        return told;
    }
    let mut written = 0;
    told.retain_mut(|text| {
        let room = written < ALL_WARNINGS;
        let end = text.char_indices().nth(LONG_WARNING).map_or(text.len(), |(end, _)| end);
        *text = &text[..end];
        written += text.chars().count();
        room
    });
    told
}

/// Adds `Warning: 299 - "text"` headers, as upstream writes them.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in told(warnings) {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
