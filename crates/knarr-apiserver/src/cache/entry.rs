//! One stored object: its bytes as they are sent, beside the few facts that reads need.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use knarr_api::selector::{FieldSelector, LabelSelector};
use knarr_api::{Object, tree};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Reads the selectable fields of a kind beyond name and namespace.
pub type FieldsOf = Arc<dyn Fn(&Object) -> Vec<(Cow<'static, str>, String)> + Send + Sync>;

/// Brings a stored object into the form of its kind as it now is; true if that changed it.
pub type Shape = Arc<dyn Fn(&mut Object) -> bool + Send + Sync>;

/// How stored bytes become what readers see, where that is not simply the bytes.
#[derive(Clone, Default)]
pub struct Reader {
    pub shape: Option<Shape>,
    pub fields_of: Option<FieldsOf>,
}

/// An immutable stored object. Cloning an `Arc` of it is the whole cost of reading it.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or `name`.
    pub key: Arc<str>,
    pub revision: u64,
    pub uid: Box<str>,
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Selectable fields beyond name and namespace.
    pub fields: Box<[(Cow<'static, str>, String)]>,
    /// The object as JSON with its `resourceVersion` in place.
    bytes: Bytes,
    /// Where the digits of the `resourceVersion` stand in `bytes`.
    version_at: (u32, u32),
    /// Where the metadata, a JSON object, begins and ends in `bytes`.
    metadata_at: (u32, u32),
    /// Where `"metadata":` stands, if only the type stands before it.
    untyped_at: Option<u32>,
    /// What the store holds, where the reader changed it.
    stored: Option<Bytes>,
}

/// Stored bytes that are not an object.
#[derive(Debug, thiserror::Error)]
#[error("stored object {key}: {source}")]
pub struct BadEntry {
    key: String,
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct RawObject<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
}

const METADATA_FIELD: &[u8] = b"\"metadata\":";
const VERSION_FIELD: &[u8] = b"\"resourceVersion\":\"";

impl Entry {
    /// Reads what the store holds under `key`: JSON without a `resourceVersion`, which is `revision`.
    pub fn parse(key: Arc<str>, stored: &[u8], revision: u64, reader: &Reader) -> Result<Entry, BadEntry> {
        let read = match &reader.shape {
            Some(shape) => Self::read_shaped(key.clone(), stored, revision, shape, reader.fields_of.as_ref()),
            None => Self::read(key.clone(), stored, revision, reader.fields_of.as_ref()),
        };
        read.map_err(|source| BadEntry { key: key.to_string(), source })
    }

    /// The same object read in another way.
    pub fn read_again(&self, reader: &Reader) -> Result<Entry, BadEntry> {
        let stored = self.stored.clone().map_or_else(|| stored_json(&mut self.object()), Ok);
        let stored = stored.map_err(|source| BadEntry { key: self.key.to_string(), source })?;
        Self::parse(self.key.clone(), &stored, self.revision, reader)
    }

    fn read_shaped(
        key: Arc<str>,
        stored: &[u8],
        revision: u64,
        shape: &Shape,
        fields_of: Option<&FieldsOf>,
    ) -> Result<Entry, serde_json::Error> {
        let mut object = tree::parse(stored)?;
        if !shape(&mut object) {
            return Self::read(key, stored, revision, fields_of);
        }
        let entry = Self::read(key, &stored_json(&mut object)?, revision, fields_of)?;
        Ok(Entry { stored: Some(Bytes::copy_from_slice(stored)), ..entry })
    }

    fn read(
        key: Arc<str>,
        stored: &[u8],
        revision: u64,
        fields_of: Option<&FieldsOf>,
    ) -> Result<Entry, serde_json::Error> {
        let raw: RawObject = serde_json::from_slice(stored)?;
        let metadata: Metadata = serde_json::from_str(raw.metadata.get())?;
        let fields = match fields_of {
            Some(read) => read(&tree::parse(stored)?),
            None => Vec::new(),
        };
        let metadata_at = raw.metadata.get().as_ptr() as usize - stored.as_ptr() as usize;
        let (bytes, version_at) = splice_version(stored, metadata_at, revision);
        let metadata_end = metadata_at + raw.metadata.get().len() + (bytes.len() - stored.len());
        let untyped_at = metadata_at.checked_sub(METADATA_FIELD.len()).filter(|at| only_type_before(stored, *at));
        Ok(Entry {
            key,
            revision,
            uid: metadata.uid.into(),
            labels: metadata.labels.into_iter().flatten().collect(),
            fields: fields.into(),
            bytes,
            version_at,
            metadata_at: (metadata_at as u32, metadata_end as u32),
            untyped_at: untyped_at.map(|at| at as u32),
            stored: None,
        })
    }

    /// The object as JSON; the run of bytes is shared.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    pub fn json(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the `{` of an item of a typed list, where upstream leaves `kind` and `apiVersion` out.
    pub fn untyped_json(&self) -> &[u8] {
        &self.bytes[self.untyped_at.map_or(1, |at| at as usize)..]
    }

    /// The metadata as JSON.
    pub fn metadata_json(&self) -> &[u8] {
        &self.bytes[self.metadata_at.0 as usize..self.metadata_at.1 as usize]
    }

    /// The object as a tree, for a write or a selector that the facts cannot answer.
    pub fn object(&self) -> Object {
        tree::parse(&self.bytes).unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The same object as of another revision: what a deletion's event carries.
    pub fn at_revision(&self, revision: u64) -> Bytes {
        let (start, end) = (self.version_at.0 as usize, self.version_at.1 as usize);
        let mut digits = itoa::Buffer::new();
        [&self.bytes[..start], digits.format(revision).as_bytes(), &self.bytes[end..]].concat().into()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str()),
        }
    }

    pub fn matches(&self, labels: &LabelSelector, fields: &FieldSelector) -> bool {
        (labels.is_everything() || labels.matches(&*self.labels))
            && (fields.is_everything() || fields.matches(|name| self.field(name)))
    }
}

/// The bytes that the store gets of an object: without `resourceVersion`, and with type and metadata in front, so that
/// a list can leave the type out.
pub fn stored_json(object: &mut Object) -> Result<Bytes, serde_json::Error> {
    let Some(root) = object.as_object_mut() else { return Ok(Bytes::from_static(b"{}")) };
    if let Some(metadata) = root.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.remove("resourceVersion");
    }
    let mut out = Vec::with_capacity(2048);
    out.push(b'{');
    let first = ["kind", "apiVersion", "metadata"];
    let rest = root.iter().filter(|(name, _)| !first.contains(&name.as_str()));
    let front = first.iter().filter_map(|name| root.get_key_value(*name));
    for (name, value) in front.chain(rest) {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value)?;
    }
    out.push(b'}');
    Ok(out.into())
}

/// Whether `{"kind":…,"apiVersion":…,` is all that stands before `at`, as [`stored_json`] writes it.
fn only_type_before(stored: &[u8], at: usize) -> bool {
    stored.starts_with(b"{\"kind\":") && stored[at..].starts_with(METADATA_FIELD) && {
        let head = &stored[..at];
        memchr::memchr_iter(b':', head).count() == 2 && memchr::memmem::find(head, b"\"apiVersion\":").is_some()
    }
}

/// Puts the `resourceVersion` first into the metadata, whose `{` stands at `at`. What was never stored, at revision 0, has none.
fn splice_version(stored: &[u8], at: usize, revision: u64) -> (Bytes, (u32, u32)) {
    if revision == 0 {
        let at = at as u32 + 1;
        return (Bytes::copy_from_slice(stored), (at, at));
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(revision).as_bytes();
    let rest = &stored[at + 1..];
    let empty = rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
    let mut out = Vec::with_capacity(stored.len() + VERSION_FIELD.len() + digits.len() + 2);
    out.extend_from_slice(&stored[..=at]);
    out.extend_from_slice(VERSION_FIELD);
    let start = out.len() as u32;
    out.extend_from_slice(digits);
    let end = out.len() as u32;
    out.extend_from_slice(if empty { b"\"" } else { b"\"," });
    out.extend_from_slice(rest);
    (out.into(), (start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_spliced_in_and_replaced() {
        let stored = br#"{"data":{"metadata":"{"},"metadata":{"labels":{"a":"b"},"name":"n","uid":"u"}}"#;
        let entry = Entry::parse("ns/n".into(), stored, 42, &Reader::default()).expect("parses");
        assert_eq!(entry.object()["metadata"]["resourceVersion"], "42");
        assert_eq!((entry.namespace(), entry.name(), &*entry.uid), ("ns", "n", "u"));
        assert!(entry.matches(&LabelSelector::parse("a=b").expect("valid"), &FieldSelector::everything()));
        let metadata: Object = serde_json::from_slice(entry.metadata_json()).expect("JSON");
        assert_eq!(
            metadata,
            serde_json::json!({"labels": {"a": "b"}, "name": "n", "resourceVersion": "42", "uid": "u"})
        );
        let gone: Object = serde_json::from_slice(&entry.at_revision(1000)).expect("still JSON");
        assert_eq!(gone["metadata"]["resourceVersion"], "1000");
        assert_eq!(gone["data"]["metadata"], "{");
    }

    #[test]
    fn a_list_leaves_the_type_out() {
        let mut object: Object = serde_json::json!({"apiVersion": "v1", "data": {}, "kind": "K", "metadata": {"name": "n", "resourceVersion": "9"}});
        let stored = stored_json(&mut object).expect("writes");
        assert_eq!(stored, r#"{"kind":"K","apiVersion":"v1","metadata":{"name":"n"},"data":{}}"#);
        let entry = Entry::parse("n".into(), &stored, 1, &Reader::default()).expect("parses");
        assert_eq!(entry.untyped_json(), br#""metadata":{"resourceVersion":"1","name":"n"},"data":{}}"#);
    }

    #[test]
    fn empty_metadata_and_nonsense_are_survived() {
        let entry = Entry::parse("n".into(), br#"{"metadata":{ }}"#, 7, &Reader::default()).expect("parses");
        assert_eq!(entry.object()["metadata"]["resourceVersion"], "7");
        assert_eq!(entry.metadata_json(), br#"{"resourceVersion":"7" }"#);
        assert!(Entry::parse("n".into(), b"[]", 7, &Reader::default()).is_err());
    }
}
