//! Kubernetes protobuf, both ways, for every kind of the schema table.
//!
//! An object travels as the magic `k8s\0` and a `runtime.Unknown` message that names its kind around the message itself.
//! Nothing on the wire can make this panic, recurse without bound or allocate more than what it was sent.

mod decode;
mod encode;
pub(crate) mod wire;

use serde_json::Value;

use crate::object::Object;
use crate::resource::{GroupVersion, GroupVersionKind};
use crate::schema::{Schema, TypeId};
use crate::status::StatusError;

use wire::{Payload, Reader, Writer};

/// What every protobuf object begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages nested deeper are refused. The deepest type is a schema inside schemas.
const MAX_DEPTH: usize = 256;

/// Why bytes are no object, or an object no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("empty data")]
    Empty,
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("unexpected EOF")]
    UnexpectedEnd,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: wrong wireType for a field")]
    WrongWireType,
    #[error("proto: messages are nested too deeply")]
    TooDeep,
    #[error("proto: a raw field holds no JSON")]
    RawJson,
    #[error("proto: a time is out of range")]
    Time,
    #[error("a field of bytes holds no base64")]
    Base64,
    #[error("no kind {0:?} is registered for version {1:?}")]
    UnknownKind(String, String),
    #[error("a type is missing from the schema")]
    UnknownType,
}

impl From<ProtobufError> for StatusError {
    fn from(error: ProtobufError) -> Self {
        StatusError::bad_request(error.to_string())
    }
}

/// The type of an object, by its `apiVersion` and `kind`. The meta kinds (`DeleteOptions`, `Status`) are known in every
/// group version, as clients send them in the one they talk to.
fn type_of(schema: &Schema, api_version: &str, kind: &str) -> Result<TypeId, ProtobufError> {
    let gvk = GroupVersion::parse(api_version).map(|GroupVersion { group, version }| GroupVersionKind {
        group,
        version,
        kind: kind.to_string().into(),
    });
    gvk.and_then(|gvk| schema.by_gvk(&gvk))
        .or_else(|| schema.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
        .ok_or_else(|| ProtobufError::UnknownKind(kind.to_string(), api_version.to_string()))
}

/// The object in protobuf, envelope and all. It must name its kind.
pub fn encode(schema: &Schema, object: &Object) -> Result<Vec<u8>, ProtobufError> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    let message = encode::object(schema, type_of(schema, api_version, kind)?, object)?;

    let mut type_meta = Writer::default();
    type_meta.bytes(1, api_version.as_bytes());
    type_meta.bytes(2, kind.as_bytes());
    let mut out = Writer(MAGIC.to_vec());
    out.bytes(1, &type_meta.0);
    out.bytes(2, &message);
    // Content encoding and type: always there, always empty.
    out.bytes(3, &[]);
    out.bytes(4, &[]);
    Ok(out.0)
}

/// Reads an object. One that does not name its kind is taken for one of `default`.
pub fn decode(schema: &Schema, bytes: &[u8], default: Option<&GroupVersionKind>) -> Result<Object, ProtobufError> {
    if bytes.is_empty() {
        return Err(ProtobufError::Empty);
    }
    let envelope = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(envelope);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Bytes(bytes)) => (api_version, kind) = type_meta(bytes)?,
            (2, Payload::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if let Some(default) = default {
        if api_version.is_empty() {
            api_version = default.api_version();
        }
        if kind.is_empty() {
            kind = default.kind.to_string();
        }
    }
    let mut object = decode::object(schema, type_of(schema, &api_version, &kind)?, raw)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let mut words = [String::new(), String::new()];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (1 | 2, Payload::Bytes(bytes)) = (number, payload) {
            words[number as usize - 1] = String::from_utf8_lossy(bytes).into_owned();
        }
    }
    let [api_version, kind] = words;
    Ok((api_version, kind))
}

/// A `metav1.WatchEvent` around an encoded object, as it stands in a frame of a watch: without the magic of its own.
pub fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Writer::default();
    raw.bytes(1, object);
    let mut out = Writer::default();
    out.bytes(1, event_type.as_bytes());
    out.bytes(2, &raw.0);
    out.0
}
