//! How deep an object may be nested, and what it takes to walk one.
//!
//! Trees are read, compared, merged, written and dropped by recursion. What comes from outside is refused where it is deeper than
//! [`MAX_DEPTH`], as by upstream's decoders; every thread that handles objects has a stack of [`STACK_SIZE`], of which
//! it touches only what it needs.

use serde::Deserialize;
use serde_json::Value;

/// The most levels of an object or a patch.
pub const MAX_DEPTH: usize = 10_000;

/// The most levels of what says who owns which field of an object: as many as the object's, in a place of its own.
pub(crate) const MAX_FIELDS_DEPTH: usize = MAX_DEPTH + 16;

/// The stack of a thread that handles objects: what the deepest one takes in a build without optimization, twice.
pub const STACK_SIZE: usize = 256 << 20;

/// Reads what this server has written itself, which may be a few levels deeper than what it lets in.
pub fn parse(json: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// How many levels of objects and lists a value has; 0 for a scalar.
pub fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Object(map) => map.values().map(depth).max(),
        Value::Array(list) => list.iter().map(depth).max(),
        _ => return 0,
    };
    below.unwrap_or_default() + 1
}
