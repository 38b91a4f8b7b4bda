//! DELETE: preconditions, grace, finalizers and the three propagation policies.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use knarr_api::field::ErrorList;
use knarr_api::object::ObjectExt;
use knarr_api::{FieldError, GroupResource, GroupVersionKind, Object, Path, StatusError, protobuf, schema, yaml};
use knarr_store::{Expect, Revision};
use serde::Deserialize;
use serde_json::{Value, json};

use super::commit::{self, CommitError, Target};
use super::options::{Query, read_dry_run};
use super::render::{self, Presenter, Written};
use super::{Registry, Served, Writer};
use crate::admission::Operation;
use crate::cache::Entry;
use crate::custom_resources;
use crate::http::Body;
use crate::http::negotiate::{self, Encoding};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 100;

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `metav1.Preconditions`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// `metav1.DeleteOptions`
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub preconditions: Preconditions,
    pub propagation: Option<Propagation>,
    pub orphan_dependents: Option<bool>,
    pub dry_run: bool,
    /// As admission sees them.
    pub object: Object,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

impl DeleteOptions {
    /// From a request: the body, or the query where there is none.
    pub fn read(headers: &HeaderMap, body: &[u8], query: &Query) -> Result<Self, StatusError> {
        if body.is_empty() {
            return Self::of_query(query);
        }
        let unreadable =
            |why: String| StatusError::bad_request(format!("couldn't get version/kind; json parse error: {why}"));
        let object: Object = match negotiate::body_encoding(headers)? {
            Encoding::Json => serde_json::from_slice(body).map_err(|e| unreadable(e.to_string()))?,
            Encoding::Yaml => {
                std::str::from_utf8(body).map_err(|e| e.to_string()).and_then(yaml::from_str).map_err(unreadable)?
            }
            Encoding::Protobuf => protobuf::decode(schema::schema(), body, None)?,
        };
        Self::of_object(object)
    }

    /// From an object of kind `DeleteOptions`.
    pub fn of_object(object: Object) -> Result<Self, StatusError> {
        if !matches!(object["kind"].as_str(), None | Some("DeleteOptions")) {
            return Err(StatusError::bad_request(format!(
                "the object provided is unrecognized (must be of type DeleteOptions): got {}",
                object["kind"]
            )));
        }
        let raw = RawOptions::deserialize(&object).map_err(|e| StatusError::bad_request(e.to_string()))?;
        Self::check(raw, object)
    }

    fn of_query(query: &Query) -> Result<Self, StatusError> {
        let text = |name| Some(query.get(name)).filter(|t| !t.is_empty()).map(str::to_string);
        let raw = RawOptions {
            grace_period_seconds: query.number("gracePeriodSeconds")?,
            propagation_policy: text("propagationPolicy"),
            orphan_dependents: query.flag("orphanDependents"),
            dry_run: Some(query.all("dryRun").map(str::to_string).collect()),
            preconditions: None,
        };
        Self::check(raw, json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}))
    }

    fn check(raw: RawOptions, object: Object) -> Result<Self, StatusError> {
        let root = Path::ROOT;
        let mut errors = ErrorList::new();
        if let (Some(_), Some(orphan)) = (&raw.propagation_policy, raw.orphan_dependents) {
            let path = root.child("orphanDependents");
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, &json!(orphan), why));
        }
        let propagation = match raw.propagation_policy.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let path = root.child("propagationPolicy");
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, &json!(other), &supported));
                None
            }
        };
        let dry_run = read_dry_run(raw.dry_run.iter().flatten().map(String::as_str), &mut errors);
        if !errors.is_empty() {
            return Err(StatusError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions"), "", errors));
        }
        Ok(DeleteOptions {
            grace_seconds: raw.grace_period_seconds,
            preconditions: raw.preconditions.unwrap_or_default(),
            propagation,
            orphan_dependents: raw.orphan_dependents,
            dry_run,
            object,
        })
    }
}

/// What a delete came to.
pub struct Deleted {
    /// The object as it last was, or as it now waits to be deleted.
    pub object: Written,
    pub uid: String,
    /// It is gone.
    pub gone: bool,
}

/// The next step of a deletion.
enum Step {
    /// It is on its way already; nothing to write.
    Pending,
    /// Write that it is being deleted.
    Mark(Object),
    Remove,
}

impl Registry {
    pub async fn delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
        writer: &mut Writer,
    ) -> Result<Deleted, StatusError> {
        for _ in 0..ATTEMPTS {
            let (entry, object) = self.current(target).await?.ok_or_else(|| target.not_found())?;
            check_preconditions(target, &options.preconditions, &entry)?;
            let object = Arc::new(object);
            self.admit_delete(target, options, writer, &object).await?;
            match self.delete_once(target, options, &entry, &object).await {
                Ok(deleted) => return Ok(deleted),
                Err(CommitError::Status(error)) => return Err(error),
                Err(CommitError::Raced(winner)) => self.after_race(winner).await?,
            }
        }
        Err(commit::too_many_races(target))
    }

    async fn admit_delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
        writer: &mut Writer,
        object: &Arc<Object>,
    ) -> Result<(), StatusError> {
        if writer.unadmitted {
            return Ok(());
        }
        let mut request = self.admission_request(Operation::Delete, target, writer, None, Some(object.clone()));
        request.options = options.object.clone();
        request.dry_run = options.dry_run;
        let admitted = self.hooks().admission.admit(&mut request).await;
        writer.warnings.append(&mut request.warnings);
        admitted
    }

    async fn delete_once(
        &self,
        target: &Target,
        options: &DeleteOptions,
        entry: &Arc<Entry>,
        object: &Object,
    ) -> Result<Deleted, CommitError> {
        let uid = entry.uid.to_string();
        let step = next_step(&target.served, object, options);
        if options.dry_run {
            return Ok(Deleted { object: Written::Stored(entry.clone()), uid, gone: matches!(step, Step::Remove) });
        }
        match step {
            Step::Pending => Ok(Deleted { object: Written::Stored(entry.clone()), uid, gone: false }),
            Step::Mark(marked) => {
                let entry = self.put(target, marked, Expect::Revision(Revision(entry.revision)), false).await?;
                Ok(Deleted { object: Written::Stored(entry), uid, gone: false })
            }
            Step::Remove => {
                self.remove(target, Revision(entry.revision)).await?;
                Ok(Deleted { object: Written::Stored(entry.clone()), uid, gone: true })
            }
        }
    }
}

fn check_preconditions(target: &Target, wanted: &Preconditions, entry: &Entry) -> Result<(), StatusError> {
    wanted.check(&target.served.kind, &target.name, &entry.uid, &entry.revision.to_string())
}

impl Preconditions {
    /// Refuses to delete an object that is not, or no longer, the one that was meant.
    pub fn check(&self, kind: &GroupVersionKind, name: &str, uid: &str, version: &str) -> Result<(), StatusError> {
        let conflict = |why: String| {
            let kind = GroupResource::new(kind.group.clone(), kind.kind.clone());
            Err(StatusError::conflict(&kind, name, why))
        };
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            return conflict(format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            ));
        }
        if let Some(wanted) = self.resource_version.as_deref().filter(|wanted| *wanted != version) {
            return conflict(format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            ));
        }
        Ok(())
    }
}

fn next_step(served: &Served, object: &Object, options: &DeleteOptions) -> Step {
    let grace = remaining_grace(served, object, options);
    let finalizers = finalizers_for(served, object, options);
    // A definition goes after its objects, which it is to be told of once.
    let has_objects = served.group_resource == custom_resources::definitions() && !object.is_deleting();
    let held = !finalizers.is_empty() || held_by_spec(object) || has_objects;
    if grace == 0 && !held {
        return Step::Remove;
    }
    let mut marked = object.clone();
    set_finalizers(&mut marked, &finalizers);
    mark_deleting(served, &mut marked, grace);
    if has_objects {
        custom_resources::mark_terminating(&mut marked);
    }
    if marked == *object { Step::Pending } else { Step::Mark(marked) }
}

/// The seconds of grace that this object will have after this request; 0 where none is left or its kind knows none.
fn remaining_grace(served: &Served, object: &Object, options: &DeleteOptions) -> i64 {
    let asked = options.grace_seconds.map(|s| if s < 0 { 1 } else { s });
    if object.is_deleting() {
        let current = object.metadata().and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64);
        let current = current.unwrap_or_default();
        return asked.map_or(current, |asked| asked.min(current));
    }
    match served.strategy.default_grace_seconds(object) {
        None | Some(0) => 0,
        Some(default) => asked.unwrap_or(default),
    }
}

/// A namespace is held by what its spec lists, until its `finalize` subresource empties it.
pub(super) fn held_by_spec(object: &Object) -> bool {
    object["kind"] == "Namespace" && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn mark_deleting(served: &Served, object: &mut Object, grace: i64) {
    let now = jiff::Timestamp::now();
    let was_deleting = object.is_deleting();
    let metadata = object.metadata_mut();
    let previous = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    if !was_deleting {
        let ends = now.saturating_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".into(), commit::time_text(ends).into());
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
            metadata.insert("generation".into(), (generation + 1).into());
        }
    } else if let Some(previous) = previous.filter(|p| *p > grace) {
        let text = metadata.get("deletionTimestamp").and_then(Value::as_str);
        if let Some(ends) = text.and_then(|t| t.parse::<jiff::Timestamp>().ok()) {
            let sooner = ends.saturating_sub(jiff::SignedDuration::from_secs(previous - grace)).unwrap_or(now);
            metadata.insert("deletionTimestamp".into(), commit::time_text(sooner).into());
        }
    }
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if served.kind.group.is_empty() && served.kind.kind == "Namespace" {
        metadata.remove("deletionGracePeriodSeconds");
        object["status"]["phase"] = "Terminating".into();
    }
}

fn set_finalizers(object: &mut Object, finalizers: &[String]) {
    if finalizers.is_empty() {
        object.metadata_mut().remove("finalizers");
    } else {
        object.metadata_mut().insert("finalizers".into(), json!(finalizers));
    }
}

/// The object's finalizers with those of the garbage collector as this request wants them.
fn finalizers_for(served: &Served, object: &Object, options: &DeleteOptions) -> Vec<String> {
    let present = object.finalizers();
    let policy = match (options.propagation, options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => Propagation::Orphan,
        (None, Some(false)) => Propagation::Background,
        (None, None) if present.contains(&ORPHAN) => Propagation::Orphan,
        (None, None) if present.contains(&FOREGROUND) => Propagation::Foreground,
        (None, None) => default_propagation(served),
    };
    let kept = present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND);
    let mut finalizers: Vec<String> = kept.map(|f| f.to_string()).collect();
    match policy {
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    finalizers
}

/// Kinds that leave their dependents alone unless told otherwise, for the sake of old clients.
fn default_propagation(served: &Served) -> Propagation {
    match (&*served.group_resource.group, &*served.group_resource.resource) {
        ("", "replicationcontrollers") | ("batch", "jobs") => Propagation::Orphan,
        _ => Propagation::Background,
    }
}

/// Kinds whose delete answers with the object rather than a `Status`.
const RETURNS_OBJECT: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "podtemplates"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// The answer to a DELETE.
pub async fn answer(
    target: &Target,
    options: &DeleteOptions,
    deleted: &Deleted,
    presenter: &Presenter,
) -> Result<Response<Body>, StatusError> {
    let resource = &target.served.group_resource;
    let status = match (deleted.gone, options.orphan_dependents) {
        (false, Some(false)) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    if !deleted.gone || RETURNS_OBJECT.contains(&(&resource.group, &resource.resource)) {
        return presenter.single(status, &deleted.object).await;
    }
    let mut details = json!({"name": target.name, "kind": resource.resource, "uid": deleted.uid});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    let success =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    render::encode(status, presenter.wanted.encoding, &success)
}
