//! What every write has in common: metadata that the server owns, admission, validation, and the write itself.

use std::sync::Arc;
use std::time::Instant;

use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{GroupVersionKind, Object, StatusError, convert, tree};
use knarr_store::{Expect, LeaseId, Revision, StoreError};
use serde_json::Value;

use super::render::Written;
use super::{Registry, Served, Writer};
use crate::admission::{self, Operation};
use crate::allocation::Reservation;
use crate::cache::entry::stored_json;
use crate::cache::follow::store_key;
use crate::cache::{Entry, Reader};

/// The object that a write concerns.
#[derive(Clone)]
pub struct Target {
    pub served: Arc<Served>,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Target {
    pub fn new(served: &Arc<Served>, namespace: &str, name: &str) -> Self {
        let namespace = if served.namespaced() { namespace.to_string() } else { String::new() };
        Target { served: served.clone(), namespace, name: name.to_string(), subresource: String::new() }
    }

    pub fn key(&self) -> String {
        self.served.key(&self.namespace, &self.name)
    }

    pub fn not_found(&self) -> StatusError {
        StatusError::not_found(&self.served.group_resource, &self.name)
    }

    pub fn conflict(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::conflict(&self.served.group_resource, &self.name, why)
    }
}

/// Upstream's 409 of a write that was based on an older state.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The most bytes of a stored object: etcd's limit, which the embedded store keeps too.
const MAX_STORED: usize = 3 << 19;

/// Why a write did not happen.
pub enum CommitError {
    /// Somebody else wrote this object in between; it now stands at this revision (`None`: it is gone).
    Raced(Option<Revision>),
    Status(StatusError),
}

impl From<StatusError> for CommitError {
    fn from(error: StatusError) -> Self {
        CommitError::Status(error)
    }
}

/// The served version of what is stored.
pub async fn from_stored(served: &Served, object: Object) -> Result<Object, StatusError> {
    if served.stored_as_served() {
        return Ok(object);
    }
    convert_one(served, object, &served.kind).await
}

/// As [`from_stored`], of many objects at once: a webhook is asked only once.
pub async fn all_from_stored(served: &Served, objects: Vec<Object>) -> Result<Vec<Object>, StatusError> {
    if served.stored_as_served() {
        return Ok(objects);
    }
    match &served.custom {
        Some(custom) => custom.convert(objects, &served.kind).await,
        None => Ok(objects.into_iter().map(|object| convert::convert(object, &served.kind)).collect()),
    }
}

/// The stored version of what is served.
pub async fn to_stored(served: &Served, object: Object) -> Result<Object, StatusError> {
    if served.stored_as_served() {
        return Ok(object);
    }
    convert_one(served, object, &served.stored_kind).await
}

async fn convert_one(served: &Served, object: Object, to: &GroupVersionKind) -> Result<Object, StatusError> {
    let Some(custom) = &served.custom else { return Ok(convert::convert(object, to)) };
    let mut converted = custom.convert(vec![object], to).await?;
    converted.pop().ok_or_else(|| unexpected("a conversion lost its object"))
}

/// The served version of what is stored, for kinds whose conversion asks nobody.
pub fn from_stored_at_once(served: &Served, object: Object) -> Object {
    match &served.custom {
        _ if served.stored_as_served() => object,
        Some(custom) => custom.convert_plainly(object, &served.kind),
        None => convert::convert(object, &served.kind),
    }
}

/// One write's way through admission: first the plug-ins may change the object, and once it is otherwise ready they may refuse it.
/// What they are shown beside the object is made once.
pub(super) struct Admission<'a> {
    chain: &'a admission::Chain,
    request: Option<admission::Request>,
}

impl Admission<'_> {
    /// Lets the plug-ins change a new or changed object.
    pub(super) async fn mutate(&mut self, object: &mut Object, writer: &mut Writer) -> Result<(), StatusError> {
        let Some(request) = &mut self.request else { return Ok(()) };
        request.object = Some(object.take());
        let admitted = self.chain.mutate(request).await;
        writer.warnings.append(&mut request.warnings);
        *object = request.object.take().unwrap_or_default();
        admitted
    }

    /// Lets the plug-ins refuse an object that is otherwise ready to be stored, under its name.
    pub(super) async fn validate(
        &mut self,
        target: &Target,
        object: &mut Object,
        writer: &mut Writer,
    ) -> Result<(), StatusError> {
        let Some(request) = &mut self.request else { return Ok(()) };
        if request.name != target.name {
            request.name.clone_from(&target.name);
        }
        request.object = Some(object.take());
        let admitted = self.chain.validate(request).await;
        writer.warnings.append(&mut request.warnings);
        *object = request.object.take().unwrap_or_default();
        admitted
    }
}

impl Registry {
    /// What admission is shown.
    pub(super) fn admission_request(
        &self,
        operation: Operation,
        target: &Target,
        writer: &Writer,
        object: Option<Object>,
        old: Option<Arc<Object>>,
    ) -> admission::Request {
        let options_kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => "ConnectOptions",
        };
        admission::Request {
            operation,
            resource: target.served.resource.clone(),
            subresource: target.subresource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            user: writer.user.clone(),
            object,
            says_empty: writer.says_empty,
            old_object: old,
            options: writer.options.to_object(options_kind),
            dry_run: writer.options.dry_run,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
            reinvocation: Default::default(),
        }
    }

    /// A write's way through admission; the server's own writes take none.
    pub(super) fn admission(
        &self,
        operation: Operation,
        target: &Target,
        writer: &Writer,
        old: Option<&Arc<Object>>,
    ) -> Admission<'_> {
        let request =
            (!writer.unadmitted).then(|| self.admission_request(operation, target, writer, None, old.cloned()));
        Admission { chain: &self.hooks().admission, request }
    }

    /// The object in another version of its kind, as it is served there.
    pub(crate) async fn convert(
        &self,
        served: &Served,
        object: Object,
        to: &GroupVersionKind,
    ) -> Result<Object, StatusError> {
        convert_one(served, object, to).await
    }

    /// Reserves numbers (cluster IPs, node ports) for the kinds that have them.
    pub(super) async fn allocate(
        &self,
        target: &Target,
        writer: &Writer,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<Box<dyn Reservation>>, StatusError> {
        let mut reservations = Vec::new();
        for allocator in &self.hooks().allocators {
            if allocator.handles(&target.served.group_resource) {
                reservations.extend(allocator.begin(object, old, writer.options.dry_run).await?);
            }
        }
        Ok(reservations)
    }

    /// Stores a ready object and waits until the caches have it. One that only its ownership makes too large is stored without it,
    /// unless the ownership is what the writer is after (`applied`).
    pub(super) async fn put(
        &self,
        target: &Target,
        object: Object,
        expect: Expect,
        applied: bool,
    ) -> Result<Arc<Entry>, CommitError> {
        let mut object = to_stored(&target.served, object).await?;
        let mut bytes = stored_json(&mut object).map_err(StatusError::internal)?;
        if bytes.len() > MAX_STORED && !applied {
            object.metadata_mut().remove("managedFields");
            bytes = stored_json(&mut object).map_err(StatusError::internal)?;
        }
        if bytes.len() > MAX_STORED {
            return Err(StatusError::new(Reason::Unknown, "etcdserver: request is too large").into());
        }
        let key = target.key();
        let cache = &target.served.cache;
        let lease = self.lease_for(target).await?;
        let (started, operation) = (Instant::now(), if expect == Expect::Absent { "create" } else { "update" });
        let revision = self.store.put(&store_key(&cache.resource, &key), bytes.clone(), expect, lease).await;
        self.note_store(operation, &cache.resource, started, &revision);
        let revision = revision.map_err(raced)?;
        self.caches.reached(revision.0).await;
        let current = cache.snapshot().get(&key).filter(|e| e.revision == revision.0).cloned();
        match current {
            Some(entry) => Ok(entry),
            // Somebody has already written again: answer with what this write made of it.
            None => {
                let entry = Entry::parse(key.into(), &bytes, revision.0, &Reader::default());
                Ok(Arc::new(entry.map_err(StatusError::internal)?))
            }
        }
    }

    /// Deletes for good and waits until the caches know; returns the revision of the deletion.
    pub(super) async fn remove(&self, target: &Target, expect: Revision) -> Result<Revision, CommitError> {
        let cache = &target.served.cache;
        let key = store_key(&cache.resource, &target.key());
        let started = Instant::now();
        let deleted = self.store.delete(&key, Expect::Revision(expect)).await;
        self.note_store("delete", &cache.resource, started, &deleted);
        let (revision, gone) = deleted.map_err(raced)?;
        self.caches.reached(revision.0).await;
        self.release(target, &gone.value).await;
        Ok(revision)
    }

    /// Gives back the numbers that an object had, for the kinds that have them.
    async fn release(&self, target: &Target, gone: &[u8]) {
        for allocator in &self.hooks().allocators {
            if allocator.handles(&target.served.group_resource)
                && let Ok(object) = tree::parse(gone)
            {
                allocator.released(&object).await;
            }
        }
    }

    /// What stands now, in the served version, with its entry.
    pub(super) async fn current(&self, target: &Target) -> Result<Option<(Arc<Entry>, Object)>, StatusError> {
        self.wait_until_fresh().await?;
        let key = target.key();
        let entry = target.served.cache.snapshot().get(&key).cloned();
        let Some(entry) = entry else {
            self.check_absent(&target.served, &key)?;
            return Ok(None);
        };
        let object = from_stored(&target.served, entry.object()).await?;
        Ok(Some((entry, object)))
    }

    /// Whether writing the object anew, as it is, is worth while.
    pub(super) async fn is_stale(&self, target: &Target) -> bool {
        self.store.is_stale(&store_key(&target.served.cache.resource, &target.key())).await
    }

    /// After a race: waits until the caches know the winner.
    pub(super) async fn after_race(&self, winner: Option<Revision>) -> Result<(), StatusError> {
        let revision = match winner {
            Some(revision) => revision,
            None => self.store.revision().await.map_err(super::store_error)?,
        };
        self.caches.reached(revision.0).await;
        Ok(())
    }
}

fn raced(error: StoreError) -> CommitError {
    match error {
        StoreError::Conflict { current, .. } => CommitError::Raced(current.map(|kv| kv.mod_revision)),
        other => CommitError::Status(super::store_error(other)),
    }
}

/// A new object's metadata: what the server sets and what a creator may not. A version that it claims stays until the store is asked.
pub(super) fn fill_system_fields(object: &mut Object) {
    let metadata = object.metadata_mut();
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now_text().into());
}

/// The present as `metav1.Time` writes it.
pub fn now_text() -> String {
    time_text(jiff::Timestamp::now())
}

pub fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sets the namespace of the request, and refuses another one in the object.
pub(crate) fn ensure_namespace(target: &Target, object: &mut Object) -> Result<(), StatusError> {
    let given = object.namespace();
    // What belongs to no namespace may name one, to no effect.
    if !given.is_empty() && !target.namespace.is_empty() && given != target.namespace {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object.set_meta_str("namespace", &target.namespace);
    Ok(())
}

/// Refuses a whole new object that does not name itself as the URL does.
pub(crate) fn require_name(target: &Target, object: &Object) -> Result<(), StatusError> {
    let (given, wanted) = (object.name(), &target.name);
    if given.is_empty() {
        let why = "was undeterminable: name must be provided";
        return Err(StatusError::bad_request(format!("the name of the object ({wanted} based on URL) {why}")));
    }
    if given != wanted {
        let why = format!("the name of the object ({given}) does not match the name on the URL ({wanted})");
        return Err(StatusError::bad_request(why));
    }
    Ok(())
}

/// Told where admission made owners stand twice.
pub(super) const AFTER_ADMISSION: &str = " after mutating admission happens";

/// An owner that stands twice counts once; the client is told, and when that was.
pub(super) fn unique_owners(object: &mut Object, when: &str, warnings: &mut Vec<String>) {
    let Some(owners) = object.metadata_mut().get_mut("ownerReferences").and_then(Value::as_array_mut) else { return };
    let mut seen = std::collections::HashSet::new();
    let mut repeated: Vec<String> = Vec::new();
    owners.retain(|owner| {
        let first = seen.insert(owner.to_string());
        if !first {
            repeated.push(owner["uid"].as_str().unwrap_or_default().to_string());
        }
        first
    });
    if !repeated.is_empty() {
        let uids = repeated.join(", ");
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        ));
    }
}

/// Refuses an object that is not the one the URL names.
pub(super) fn ensure_name(target: &Target, object: &mut Object) -> Result<(), StatusError> {
    let given = object.name();
    if given.is_empty() {
        object.set_meta_str("name", &target.name);
    } else if given != target.name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}

/// The write that reserved all this is in the store.
pub(super) async fn commit_all(reservations: Vec<Box<dyn Reservation>>) {
    for reservation in reservations {
        reservation.commit().await;
    }
}

/// Upstream's answer to too many lost races.
pub(super) fn too_many_races(target: &Target) -> StatusError {
    target.conflict(MODIFIED)
}

/// What is answered with although it is not stored: that of a dry run, which has the version before, or one that is gone.
pub(super) fn unstored(object: Object) -> Written {
    Written::Unstored(object)
}

/// An event lives an hour, as upstream's `--event-ttl`.
const EVENT_TTL_SECONDS: u32 = 3600;
/// Events of this long share a lease.
const LEASE_SHARED: std::time::Duration = std::time::Duration::from_secs(60);

impl Registry {
    async fn lease_for(&self, target: &Target) -> Result<Option<LeaseId>, StatusError> {
        let resource = &target.served.cache.resource;
        if !(resource.group.is_empty() && resource.resource == "events") {
            return Ok(None);
        }
        let now = tokio::time::Instant::now();
        let shared = *self.event_lease.lock();
        if let Some((since, lease)) = shared
            && now < since + LEASE_SHARED
        {
            return Ok(Some(lease));
        }
        let lease = self.store.grant_lease(EVENT_TTL_SECONDS).await.map_err(super::store_error)?;
        *self.event_lease.lock() = Some((now, lease));
        Ok(Some(lease))
    }
}

/// An internal failure that names what it concerns.
pub(super) fn unexpected(what: &str) -> StatusError {
    StatusError::new(Reason::InternalError, format!("Internal error occurred: {what}"))
}
