//! How objects, lists and events are shown: the version, form and encoding that the client asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode};
use knarr_api::object::ObjectExt;
use knarr_api::selector::FieldSelector;
use knarr_api::status::Reason;
use knarr_api::table::{IncludeObject, partial_metadata};
use knarr_api::{Object, StatusError, protobuf, schema, tree};
use serde_json::json;

use super::read::{ItemForm, Page, RUN, list_json, put_list_metadata};
use super::watch_converted::selects;
use super::{Served, commit};
use crate::cache::Entry;
use crate::cache::watchers::{EventType, Json, Render};
use crate::http::Body;
use crate::http::negotiate::{Encoding, Form, MetaVersion, Wanted};
use crate::http::respond;
pub use crate::http::respond::encode;

/// What a write left behind.
#[derive(Clone, Debug)]
pub enum Written {
    Stored(Arc<Entry>),
    /// What would have been stored, or was, in the stored version.
    Unstored(Object),
}

impl Written {
    /// The object as a tree, in the stored version.
    pub fn object(&self) -> Object {
        match self {
            Written::Stored(entry) => entry.object(),
            Written::Unstored(object) => object.clone(),
        }
    }
}

/// Shows the objects of one resource as one client wants them.
#[derive(Clone)]
pub struct Presenter {
    pub served: Arc<Served>,
    pub wanted: Wanted,
    /// Seconds since the epoch: a table shows ages.
    pub now: i64,
    include: IncludeObject,
    /// What tells renderers of events apart; made once there is one.
    id: String,
    /// Of the served version, where only conversion tells what an object's fields are.
    converted_fields: FieldSelector,
}

impl Presenter {
    pub fn new(served: &Arc<Served>, wanted: Wanted) -> Self {
        Presenter {
            served: served.clone(),
            wanted,
            now: jiff::Timestamp::now().as_second(),
            include: IncludeObject::Metadata,
            id: String::new(),
            converted_fields: FieldSelector::everything(),
        }
    }

    /// What a table's rows carry: `None`, `Metadata` (the default) or `Object`.
    pub fn include(mut self, what: &str) -> Result<Self, StatusError> {
        if let Form::Table(_) = self.wanted.form {
            self.include = IncludeObject::parse(what)?;
        }
        Ok(self)
    }

    /// Shows of a list only what these fields select once converted.
    pub fn select_converted(mut self, fields: FieldSelector) -> Self {
        self.converted_fields = fields;
        self
    }

    /// Whether stored JSON goes out untouched.
    fn plain(&self) -> bool {
        self.wanted == Wanted::JSON && self.served.stored_as_served()
    }

    /// The version of metadata that is asked for as JSON, where what is stored is what is shown: it then goes out as it stands.
    fn bare_metadata(&self) -> Option<&'static str> {
        let as_stored = self.wanted.encoding == Encoding::Json && self.served.stored_as_served();
        match self.wanted.form {
            Form::PartialMetadataList(version) if as_stored && self.converted_fields.is_everything() => {
                Some(version.api_version())
            }
            _ => None,
        }
    }

    /// One object's answer.
    pub async fn single(&self, status: StatusCode, written: &Written) -> Result<Response<Body>, StatusError> {
        if self.plain()
            && let Written::Stored(entry) = written
        {
            return Ok(respond::json_bytes(status, entry.bytes()));
        }
        let object = match self.shows_what_is_stored() {
            true => written.object(),
            false => commit::from_stored(&self.served, written.object()).await?,
        };
        let shown = match self.wanted.form {
            Form::Object => object,
            Form::PartialMetadata(version) => partial_metadata(&object, version.api_version()),
            Form::PartialMetadataList(_) => return Err(self.wrong_form("PartialObjectMetadataList", "not a list", "")),
            Form::Table(version) => {
                let metadata = table_metadata(&object);
                self.table(vec![object], metadata, version)
            }
        };
        encode(status, self.wanted.encoding, &shown)
    }

    /// A list's answer.
    pub async fn list(&self, page: &Page) -> Result<Response<Body>, StatusError> {
        let served = &self.served;
        if self.plain() {
            let form = if served.custom.is_some() { ItemForm::Typed } else { ItemForm::Untyped };
            let runs = list_json(page, &served.list_kind(), &served.api_version, form, &served.cache.rendered);
            return Ok(respond::with_type(StatusCode::OK, respond::JSON, Body::chunks(runs)));
        }
        if let Some(version) = self.bare_metadata() {
            return Ok(respond::with_type(StatusCode::OK, respond::JSON, Body::chunks(metadata_list(page, version))));
        }
        let mut objects: Vec<Object> = page.entries.iter().map(|e| e.object()).collect();
        if !self.shows_what_is_stored() {
            objects = commit::all_from_stored(served, objects).await?;
        }
        objects.retain(|object| selects(&self.converted_fields, object));
        let mut metadata = list_metadata(page);
        let shown = match self.wanted.form {
            Form::Table(version) => self.table(objects, metadata, version),
            Form::PartialMetadata(_) => return Err(self.wrong_form("PartialObjectMetadata", "a list", "List")),
            Form::PartialMetadataList(version) => {
                let version = version.api_version();
                let items: Vec<Object> = objects.into_iter().map(|o| partial_metadata(&o, version)).collect();
                let items = if items.is_empty() { Object::Null } else { Object::from(items) };
                json!({"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": metadata, "items": items})
            }
            Form::Object => {
                match served.custom.is_none() {
                    true => objects.iter_mut().for_each(leave_kind_out),
                    false if page.continue_token.is_empty() => metadata["continue"] = "".into(),
                    false => {}
                }
                json!({"kind": served.list_kind(), "apiVersion": served.api_version, "metadata": metadata, "items": objects})
            }
        };
        encode(StatusCode::OK, self.wanted.encoding, &shown)
    }

    /// Of a built-in kind, cells and metadata are those of what is stored, whatever version is asked for.
    fn shows_what_is_stored(&self) -> bool {
        self.served.custom.is_none() && self.wanted.form != Form::Object
    }

    fn table(&self, objects: Vec<Object>, metadata: Object, version: MetaVersion) -> Object {
        let printer = &self.served.printer;
        let mut rows: Vec<Object> = objects.iter().map(|object| printer.row(object, self.include, self.now)).collect();
        if self.include == IncludeObject::Metadata {
            rows.iter_mut().for_each(|row| row["object"]["apiVersion"] = version.api_version().into());
        }
        let mut table = printer.table(rows, metadata);
        table["apiVersion"] = version.api_version().into();
        table
    }

    /// A table as an event holds it: only the first one of a watch says what its columns are ([`Presenter::columns_of_events`]).
    fn event_table(&self, objects: Vec<Object>, metadata: Object, version: MetaVersion) -> Object {
        let mut table = self.table(objects, metadata, version);
        table["columnDefinitions"] = Object::Null;
        table
    }

    /// What the first event of a watch says of columns, where events are tables.
    pub fn columns_of_events(&self) -> Option<FirstColumns> {
        let Form::Table(version) = self.wanted.form else { return None };
        let mut table = self.table(Vec::new(), Object::Null, version);
        Some(FirstColumns(Some(format!("{COLUMNS}{}", table["columnDefinitions"].take()).into())))
    }

    /// Upstream's 406 of a form that is for lists only, or for single objects only. It names the type in Go.
    fn wrong_form(&self, wanted: &str, is: &str, suffix: &str) -> StatusError {
        let kind = &self.served.kind;
        let group = kind.group.split('.').next().unwrap_or_default();
        let package = if matches!(group, "" | "events") { "core" } else { group };
        let go = match &self.served.custom {
            Some(_) => format!("*unstructured.Unstructured{suffix}"),
            None => format!("*{package}.{}{suffix}", kind.kind),
        };
        let message = format!("you requested {wanted}, but the requested object is {is} ({go})");
        StatusError::new(Reason::NotAcceptable, message)
    }

    /// One event of an object in the served version.
    pub fn event_of(&self, kind: EventType, object: Object) -> Bytes {
        let shown = match self.wanted.form {
            Form::Object => object,
            Form::PartialMetadata(version) | Form::PartialMetadataList(version) => {
                partial_metadata(&object, version.api_version())
            }
            Form::Table(version) => {
                let metadata = table_metadata(&object);
                self.event_table(vec![object], metadata, version)
            }
        };
        frame(self.wanted.encoding, kind.as_str(), &shown)
    }

    /// The renderer of watch events; equal wishes share their bytes.
    pub fn events(&self) -> Arc<dyn Render> {
        if self.plain() {
            return Arc::new(Json);
        }
        let (Served { api_version, kind, .. }, Wanted { form, encoding }) = (&*self.served, &self.wanted);
        let id = format!("{api_version}/{}/{form:?}/{encoding:?}/{:?}", kind.kind, self.include);
        Arc::new(Presenter { id, ..self.clone() })
    }

    /// A bookmark event.
    pub fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.wanted.form {
            Form::Object => {
                json!({"kind": self.served.kind.kind, "apiVersion": self.served.api_version, "metadata": metadata})
            }
            Form::PartialMetadata(version) | Form::PartialMetadataList(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
            }
            Form::Table(version) => {
                let object = json!({"metadata": metadata});
                let metadata = table_metadata(&object);
                self.event_table(vec![object], metadata, version)
            }
        };
        frame(self.wanted.encoding, "BOOKMARK", &object)
    }

    pub fn content_type(&self, watch: bool) -> HeaderValue {
        content_type(self.wanted.encoding, watch)
    }
}

const COLUMNS: &str = "\"columnDefinitions\":";
const NO_COLUMNS: &[u8] = b"\"columnDefinitions\":null";

/// Puts the columns into the first table of a watch. Events are rendered once for all who watch, wherever they began.
pub struct FirstColumns(Option<Bytes>);

impl FirstColumns {
    /// A run of events as it goes out.
    pub fn put_into(&mut self, run: Bytes) -> Bytes {
        // They stand before the rows, so nothing that a user wrote can come first.
        let Some(at) = self.0.as_ref().and_then(|_| memchr::memmem::find(&run, NO_COLUMNS)) else { return run };
        let columns = self.0.take().unwrap_or_default();
        [&run[..at], &columns, &run[at + NO_COLUMNS.len()..]].concat().into()
    }
}

impl Render for Presenter {
    fn id(&self) -> &str {
        &self.id
    }

    fn event(&self, kind: EventType, entry: &Entry, revision: u64, out: &mut BytesMut) {
        let metadata = match self.wanted.form {
            Form::PartialMetadata(version) | Form::PartialMetadataList(version) => Some(version.api_version()),
            Form::Object | Form::Table(_) => None,
        };
        if let Some(version) = metadata
            && self.wanted.encoding == Encoding::Json
            && self.served.stored_as_served()
            && revision == entry.revision
        {
            out.put_slice(b"{\"type\":\"");
            out.put_slice(kind.as_str().as_bytes());
            out.put_slice(b"\",\"object\":");
            put_metadata_object(entry, version, out);
            out.put_slice(b"}\n");
            return;
        }
        let mut object = match self.shows_what_is_stored() {
            true => entry.object(),
            false => commit::from_stored_at_once(&self.served, entry.object()),
        };
        object.set_meta_str("resourceVersion", &revision.to_string());
        out.put_slice(&self.event_of(kind, object));
    }
}

/// An entry's metadata as an object of its own, as it stands.
fn put_metadata_object(entry: &Entry, version: &str, out: &mut BytesMut) {
    out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.put_slice(version.as_bytes());
    out.put_slice(b"\",\"metadata\":");
    out.put_slice(entry.metadata_json());
    out.put_u8(b'}');
}

/// The metadata of a list's objects, in runs of bytes.
fn metadata_list(page: &Page, version: &str) -> Vec<Bytes> {
    let mut out = BytesMut::with_capacity(RUN);
    let mut runs = Vec::new();
    out.put_slice(
        format!("{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"{version}\",\"metadata\":").as_bytes(),
    );
    put_list_metadata(page, &mut out);
    if page.entries.is_empty() {
        out.put_slice(b",\"items\":null}\n");
        return vec![out.freeze()];
    }
    out.put_slice(b",\"items\":[");
    for (i, entry) in page.entries.iter().enumerate() {
        if out.len() >= RUN {
            runs.push(out.split().freeze());
        }
        if i > 0 {
            out.put_u8(b',');
        }
        put_metadata_object(entry, version, &mut out);
    }
    out.put_slice(b"]}\n");
    runs.push(out.freeze());
    runs
}

/// A table of one object has its version, where it has one.
fn table_metadata(object: &Object) -> Object {
    match object.resource_version() {
        "" => json!({}),
        version => json!({"resourceVersion": version}),
    }
}

/// As upstream writes the items of its own kinds.
fn leave_kind_out(item: &mut Object) {
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
}

fn list_metadata(page: &Page) -> Object {
    let mut out = BytesMut::new();
    put_list_metadata(page, &mut out);
    tree::parse(&out).unwrap_or_default()
}

/// Length, then a `WatchEvent` around the object.
fn protobuf_frame(kind: &str, object: &Object) -> Bytes {
    match protobuf::encode(schema::schema(), object) {
        Ok(object) => {
            let event = protobuf::watch_event(kind, &object);
            let mut out = BytesMut::with_capacity(event.len() + 4);
            out.put_u32(event.len() as u32);
            out.put_slice(&event);
            out.freeze()
        }
        Err(error) => {
            tracing::error!(%error, "an event cannot be written in protobuf");
            Bytes::new()
        }
    }
}

/// One watch event for the wire.
pub fn frame(encoding: Encoding, kind: &str, object: &Object) -> Bytes {
    if encoding == Encoding::Protobuf {
        return protobuf_frame(kind, object);
    }
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    text.into()
}

fn content_type(encoding: Encoding, watch: bool) -> HeaderValue {
    match (encoding, watch) {
        (Encoding::Json | Encoding::Yaml, true) | (Encoding::Json, _) => respond::JSON,
        (Encoding::Yaml, false) => HeaderValue::from_static("application/yaml"),
        (Encoding::Protobuf, true) => HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch"),
        (Encoding::Protobuf, false) => HeaderValue::from_static("application/vnd.kubernetes.protobuf"),
    }
}
