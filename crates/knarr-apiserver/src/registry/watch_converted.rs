//! WATCH of a version that a webhook converts to.
//!
//! The cache must not wait for anybody, so it sends what is stored; the answer's stream converts it, selects by the fields of the
//! version that was asked for, and shows it as the client wants it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::StatusCode;
use knarr_api::custom_resource::strategy::selectable_value;
use knarr_api::object::ObjectExt;
use knarr_api::selector::FieldSelector;
use knarr_api::{Object, StatusError, tree};
use serde_json::Value;

use super::options::ListOptions;
use super::render::{self, Presenter};
use super::watch::body_of;
use super::{Registry, Served, commit};
use crate::cache::EventType;
use crate::cache::watchers::Json;
use crate::http::Body;
use crate::http::body::BoxError;
use crate::http::negotiate::Wanted;
use crate::http::respond::{self, Answer};

/// Whether an object is selected by its fields, in the version that it is in.
pub fn selects(fields: &FieldSelector, object: &Object) -> bool {
    let value = |name: &str| match name {
        "metadata.name" => object.name().to_string(),
        "metadata.namespace" => object.namespace().to_string(),
        path => selectable_value(object, path),
    };
    fields.terms().iter().all(|term| (value(&term.field) == term.value) != term.negated)
}

impl Registry {
    /// As [`Registry::watch`], for a kind whose versions a webhook converts.
    pub(super) async fn watch_converted(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        options: &ListOptions,
        presenter: Presenter,
    ) -> Answer {
        let plain = ListOptions { fields: FieldSelector::everything(), ..options.clone() };
        let began = self.begin_converted(served, namespace, &plain, &options.fields).await;
        let content_type = presenter.content_type(true);
        let body = match began {
            Ok((stored, seen)) => {
                let view = View { presenter: presenter.clone(), fields: options.fields.clone(), seen };
                body_of(converted(stored.boxed(), view), &presenter)
            }
            Err(error) => Body::from(render::frame(presenter.wanted.encoding, "ERROR", &error.to_value())),
        };
        Ok(respond::with_type(StatusCode::OK, content_type, body))
    }

    /// The stream of what is stored, and which objects a selector by fields sees where it does not begin with all of them.
    async fn begin_converted(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        plain: &ListOptions,
        fields: &FieldSelector,
    ) -> Result<(impl Stream<Item = Result<Bytes, BoxError>> + Send + use<>, HashSet<String>), StatusError> {
        let mut seen = HashSet::new();
        let resumes = plain.resource_version.is_some_and(|r| r > 0) && plain.send_initial_events != Some(true);
        if resumes && !fields.is_everything() {
            let snapshot = match served.cache.snapshot_at(plain.resource_version.unwrap_or_default()) {
                Ok(snapshot) => snapshot,
                Err(error) => return Err(error.into()),
            };
            let objects = snapshot.range("", None).map(|entry| entry.object()).collect();
            let objects = commit::all_from_stored(served, objects).await?;
            seen.extend(objects.iter().filter(|o| selects(fields, o)).map(key_of));
        }
        let stored = Presenter::new(served, Wanted::JSON);
        let stream = self.start_watch(served, namespace, plain, &stored, Arc::new(Json)).await?;
        Ok((stream, seen))
    }
}

fn key_of(object: &Object) -> String {
    format!("{}/{}", object.namespace(), object.name())
}

/// How one client sees the stored events.
struct View {
    presenter: Presenter,
    fields: FieldSelector,
    /// The objects that the client knows of.
    seen: HashSet<String>,
}

type Stored = futures::stream::BoxStream<'static, Result<Bytes, BoxError>>;

fn converted(stored: Stored, view: View) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    futures::stream::unfold(Some((stored, view)), |state| async move {
        let (mut stored, mut view) = state?;
        loop {
            let chunk = match stored.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), None)),
            };
            match view.convert(&chunk).await {
                Ok(run) if run.is_empty() => {}
                Ok(run) => return Some((Ok(run), Some((stored, view)))),
                // The client begins anew, and sees the error if it lasts.
                Err(error) => {
                    let frame = render::frame(view.presenter.wanted.encoding, "ERROR", &error.to_value());
                    return Some((Ok(frame), None));
                }
            }
        }
    })
}

impl View {
    /// A run of stored events as the client sees them.
    async fn convert(&mut self, chunk: &[u8]) -> Result<Bytes, StatusError> {
        let lines = chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> = lines.filter_map(|line| tree::parse(line).ok()).collect();
        let objects = events.iter().filter(|e| e["type"] != "BOOKMARK").map(|e| e["object"].clone()).collect();
        let mut objects = commit::all_from_stored(&self.presenter.served, objects).await?.into_iter();
        let mut out = BytesMut::new();
        for event in &events {
            let kind = match event["type"].as_str().unwrap_or_default() {
                "BOOKMARK" => {
                    out.extend_from_slice(&self.bookmark(&event["object"]));
                    continue;
                }
                "ADDED" => EventType::Added,
                "DELETED" => EventType::Deleted,
                _ => EventType::Modified,
            };
            let Some(object) = objects.next() else { break };
            if let Some(kind) = self.seen_as(kind, &object) {
                out.extend_from_slice(&self.presenter.event_of(kind, object));
            }
        }
        Ok(out.freeze())
    }

    /// What an event is to a client that selects by fields: an object that stops matching is deleted to it.
    fn seen_as(&mut self, kind: EventType, object: &Object) -> Option<EventType> {
        if self.fields.is_everything() {
            return Some(kind);
        }
        let key = key_of(object);
        let is_selected = kind != EventType::Deleted && selects(&self.fields, object);
        let was_selected = if is_selected { !self.seen.insert(key) } else { self.seen.remove(&key) };
        match (was_selected, is_selected) {
            (false, false) => None,
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
        }
    }

    fn bookmark(&self, object: &Object) -> Bytes {
        let revision = object.resource_version().parse().unwrap_or_default();
        let ends = object.pointer("/metadata/annotations").is_some();
        self.presenter.bookmark(revision, ends)
    }
}
