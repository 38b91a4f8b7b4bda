//! From a request's bytes to a custom object.

use serde_json::Value;

use super::embedded::{self, Malformed};
use super::number;
use super::prune;
use super::structural::Structural;
use crate::decode::{self, Decoded, Encoding, FieldValidation, Strict};
use crate::field::{FieldError, Path};
use crate::object::Object;
use crate::resource::{GroupVersion, GroupVersionKind};
use crate::status::StatusError;

/// Decodes a body that should be a `kind`: only what the schema names is left, unless `keep_unknown`.
pub fn decode(
    bytes: &[u8],
    encoding: Encoding,
    kind: &GroupVersionKind,
    schema: &Structural,
    keep_unknown: bool,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let (mut object, mut strict) = read(bytes, encoding, kind)?;
    let unknown = shape(&mut object, schema, keep_unknown, Malformed::Refuse);
    let unknown = unknown.map_err(|why| decode::not_handled(kind, &why))?;
    strict.fields.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    Ok(Decoded { object, warnings: strict.settle(kind, validation)?, says_empty: false })
}

/// Decodes a configuration to apply: nothing is dropped, since the apply itself refuses what the schema does not name.
pub fn decode_configuration(bytes: &[u8], kind: &GroupVersionKind) -> Result<(Object, Strict), StatusError> {
    let (mut object, strict) = read(bytes, Encoding::Yaml, kind)?;
    if let Some(metadata) = object.get_mut("metadata") {
        let coerced = embedded::coerce_metadata("metadata", metadata, Malformed::Refuse);
        coerced.map_err(|why| decode::not_handled(kind, &why))?;
    }
    Ok((object, strict))
}

/// The object and the duplicate fields in its text; its version and kind are the expected ones.
fn read(bytes: &[u8], encoding: Encoding, kind: &GroupVersionKind) -> Result<(Object, Strict), StatusError> {
    let (mut object, duplicates) = decode::read_untyped(bytes, encoding, kind)?;
    number::normalize(&mut object);
    let word = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    if word("kind").is_empty() {
        let shown = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(bytes));
        return Err(decode::unrecognized(kind, &shown, bytes));
    }
    let api_version = word("apiVersion");
    if GroupVersion::parse(api_version).is_none() || api_version != kind.api_version() {
        return Err(StatusError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    if word("kind") != kind.kind {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let said = GroupVersionKind::new(kind.group.clone(), kind.version.clone(), word("kind").to_string());
        let why = format!("must be {}", kind.kind);
        let error = FieldError::invalid(&Path::ROOT.child("kind"), &word("kind").into(), why);
        return Err(StatusError::invalid(&said, name, vec![error]));
    }
    Ok((object, duplicates))
}

/// Brings an object into the form of its kind: prunes it, and its metadata. Answers the paths of what was dropped.
pub fn shape(
    object: &mut Object,
    schema: &Structural,
    keep_unknown: bool,
    malformed: Malformed,
) -> Result<Vec<String>, String> {
    let mut unknown = match object.get_mut("metadata") {
        Some(metadata) => embedded::coerce_metadata("metadata", metadata, malformed)?,
        None => Vec::new(),
    };
    if !keep_unknown {
        unknown.extend(prune::prune_object(object, schema));
        prune::prune_nulls(object, Some(schema));
    }
    unknown.extend(embedded::coerce(object, schema, malformed).map_err(|error| error.to_string())?);
    Ok(unknown)
}
