//! The three patches of the API besides apply: JSON patch, JSON merge patch and strategic merge patch.
//!
//! Each takes the current object and the bytes of the patch and answers the patched tree, which the caller decodes,
//! defaults and validates like any update. What fails is a `Status` as upstream sends it.

pub mod json;
pub mod merge;
mod shown;
pub mod strategic;

pub use shown::result_text;

use serde_json::{Map, Value};

use crate::decode::syntax;
use crate::field::{FieldError, Path};
use crate::resource::GroupVersionKind;
use crate::status::{Details, Reason, StatusError};
use crate::tree;

/// The answer to a well-formed patch that does not fit the object. Upstream keeps its reasons to itself.
fn unprocessable() -> StatusError {
    let mut error = StatusError::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    error.details = Some(Box::new(Details::default()));
    error
}

/// What is wrong with an object, without the words about what it should have been.
pub fn why_unreadable(error: &StatusError) -> &str {
    let why = error.message.split_once(" cannot be handled as a ").and_then(|(_, rest)| rest.split_once(": "));
    why.map_or(&error.message, |(_, why)| why)
}

/// The answer to a patch that leaves something that cannot be read; `shown` is what the message tells of it.
pub fn undecodable_result(shown: String, why: &str) -> StatusError {
    let invalid = FieldError::invalid(&Path::ROOT.child("patch"), &shown.into(), why);
    let mut error = StatusError::invalid(&GroupVersionKind::default(), "", vec![invalid]);
    if let Some(details) = &mut error.details {
        details.kind = String::new();
    }
    error
}

fn undecodable(why: impl std::fmt::Display) -> StatusError {
    StatusError::bad_request(format!("error decoding patch: {why}"))
}

/// Parses a patch, refusing what is no JSON in Go's words.
fn parse(patch: &[u8]) -> Result<Value, String> {
    syntax::check(patch)?;
    tree::parse(patch).map_err(|error| error.to_string())
}

/// Parses a patch that must be a JSON object. `null` is `None`.
fn parse_object(patch: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    match parse(patch)? {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        other => {
            Err(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go_kind(&other)))
        }
    }
}

/// The word Go's JSON decoder has for a value.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
