//! PUT, and what PATCH has in common with it.

use std::sync::Arc;

use knarr_api::decode::empties;
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{FieldError, GroupResource, GroupVersionKind, Object, Path, StatusError};
use knarr_store::{Expect, Revision};
use serde_json::{Value, json};

use super::commit::{self, AFTER_ADMISSION, CommitError, MODIFIED, Target};
use super::delete::held_by_spec;
use super::render::Written;
use super::{Registry, Writer, managed};
use crate::admission::Operation;
use crate::authorization::{self, Attributes, Decision};
use crate::cache::Entry;

/// A write that names no version always wins in the end, patches as well. One that does is refused once it finds another.
const ATTEMPTS: usize = 100;

/// What a request wants of an existing object.
pub trait Change: Send {
    /// The object as it should be, made from the one that stands; both in the served version.
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError>;

    /// What applying had to say.
    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the object last made says of lists or maps that they are empty.
    fn says_empty(&self) -> bool {
        false
    }

    /// Whether the identity that the object names is a demand, rather than a change.
    fn demands_identity(&self) -> bool {
        false
    }

    /// The object to create where there is none; `None` is a 404.
    fn create(&mut self) -> Result<Option<Object>, StatusError> {
        Ok(None)
    }
}

/// A whole new object.
pub struct Replace {
    pub object: Object,
    pub says_empty: bool,
    pub may_create: bool,
}

impl Change for Replace {
    fn apply(&mut self, _current: &Object) -> Result<Object, StatusError> {
        Ok(self.object.clone())
    }

    fn says_empty(&self) -> bool {
        self.says_empty
    }

    fn demands_identity(&self) -> bool {
        true
    }

    fn create(&mut self) -> Result<Option<Object>, StatusError> {
        let creates = self.may_create && self.object.resource_version().is_empty();
        Ok(creates.then(|| self.object.clone()))
    }
}

/// How a changed object is stored.
#[derive(Clone, Copy, Default)]
struct Manner {
    dry_run: bool,
    applied: bool,
}

impl Manner {
    fn of(writer: &Writer) -> Self {
        Manner { dry_run: writer.options.dry_run, applied: writer.fields_managed }
    }
}

/// Whether the object had to be made.
pub struct Updated {
    pub written: Written,
    pub created: bool,
}

impl Registry {
    /// Changes an object until nobody else wrote in between.
    pub async fn update(
        &self,
        target: &Target,
        change: &mut dyn Change,
        writer: &mut Writer,
    ) -> Result<Updated, StatusError> {
        for _ in 0..ATTEMPTS {
            let Some((entry, old)) = self.current(target).await? else {
                let object = change.create()?.ok_or_else(|| target.not_found())?;
                self.authorize_creation(target, writer).await?;
                writer.warnings.extend(change.take_warnings());
                writer.says_empty = change.says_empty();
                let written = self.create(&target.served, &target.namespace, object, writer).await?;
                return Ok(Updated { written, created: true });
            };
            let warnings = writer.warnings.len();
            match self.update_once(target, &entry, old, change, writer).await {
                Ok(written) => return Ok(Updated { written, created: false }),
                Err(CommitError::Status(error)) => return Err(error),
                Err(CommitError::Raced(winner)) => {
                    writer.warnings.truncate(warnings);
                    self.after_race(winner).await?;
                }
            }
        }
        Err(commit::too_many_races(target))
    }

    /// Who was let through to change an object may not be let make it.
    async fn authorize_creation(&self, target: &Target, writer: &Writer) -> Result<(), StatusError> {
        let Some(creators) = self.hooks().creators.as_ref().filter(|_| !writer.unadmitted) else { return Ok(()) };
        let resource = &target.served.resource;
        let attributes = Attributes {
            user: &writer.user,
            verb: "create",
            is_resource: true,
            group: &resource.group,
            version: &resource.version,
            resource: &resource.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            ..Attributes::default()
        };
        match creators.authorize(&attributes).await {
            Decision::Allow { .. } => Ok(()),
            refused => Err(authorization::refusal(&attributes, refused)),
        }
    }

    async fn update_once(
        &self,
        target: &Target,
        entry: &Arc<Entry>,
        old: Object,
        change: &mut dyn Change,
        writer: &mut Writer,
    ) -> Result<Written, CommitError> {
        let served = &target.served;
        let mut object = change.apply(&old)?;
        writer.warnings.extend(change.take_warnings());
        writer.says_empty = change.says_empty();
        commit::ensure_name(target, &mut object)?;
        commit::ensure_namespace(target, &mut object)?;
        check_preconditions(target, &object, entry, change.demands_identity(), writer)?;
        served.apply_defaults(&mut object);
        let old = Arc::new(old);
        // Of a patch, upstream looks at what admission leaves only.
        if change.demands_identity() {
            commit::unique_owners(&mut object, "", &mut writer.warnings);
        }
        if !writer.fields_managed {
            managed::record(served, Some(&old), &mut object, &target.subresource, writer);
        }
        if let (true, Some(id)) = (writer.says_empty, served.type_id) {
            empties::settle_unchanged(&served.schema, id, &mut object, &old);
        }
        let mut admission = self.admission(Operation::Update, target, writer, Some(&old));
        admission.mutate(&mut object, writer).await?;
        served.shape_admitted(&mut object)?;
        commit::unique_owners(&mut object, AFTER_ADMISSION, &mut writer.warnings);
        self.prepare_update(target, &mut object, &old, writer);
        let reservations = match target.subresource.as_str() {
            "" => self.allocate(target, writer, &mut object, Some(&old)).await?,
            _ => Vec::new(),
        };
        managed::keep_time_stamps(&mut object, &old);
        self.validate_changed(target, &object, &old, writer)?;
        served.strategy.canonicalize(&mut object);
        admission.validate(target, &mut object, writer).await?;
        if writer.says_empty {
            served.settle(&mut object);
        }
        let written = self.put_or_remove(target, entry, object, &old, Manner::of(writer)).await?;
        if matches!(written, Written::Stored(_)) {
            commit::commit_all(reservations).await;
        }
        Ok(written)
    }

    /// A change of any field by the server itself: neither admitted, nor prepared, nor validated.
    pub(super) async fn overwrite(&self, target: &Target, change: &mut dyn Change) -> Result<Object, StatusError> {
        for _ in 0..ATTEMPTS {
            let (entry, old) = self.current(target).await?.ok_or_else(|| target.not_found())?;
            let object = change.apply(&old)?;
            match self.put_or_remove(target, &entry, object, &old, Manner::default()).await {
                Ok(written) => return Ok(written.object()),
                Err(CommitError::Status(error)) => return Err(error),
                Err(CommitError::Raced(winner)) => self.after_race(winner).await?,
            }
        }
        Err(commit::too_many_races(target))
    }

    fn prepare_update(&self, target: &Target, object: &mut Object, old: &Object, writer: &Writer) {
        let served = &target.served;
        let context = writer.strategy_context();
        keep_system_fields(object, old);
        if !writer.options.dry_run {
            // The store takes it away.
            object.metadata_mut().remove("selfLink");
        }
        served.reset_for_update(&target.subresource, object, old);
        match target.subresource.as_str() {
            // A scale is a change of the spec, made through another view.
            "" | "scale" => served.strategy.prepare_update(&context, object, old),
            name => served.strategy.prepare_subresource_update(&context, name, object, old),
        }
        if let Some(changed) = served.strategy.counts(object, old) {
            let changed = changed && target.subresource != "status";
            let generation = old.generation() + i64::from(changed);
            object.metadata_mut().insert("generation".into(), generation.into());
        }
    }

    fn validate_changed(
        &self,
        target: &Target,
        object: &Object,
        old: &Object,
        writer: &mut Writer,
    ) -> Result<(), StatusError> {
        let served = &target.served;
        let context = writer.strategy_context();
        let mut errors = served.validate_metadata_update(object, old, &target.subresource);
        errors.extend(match target.subresource.as_str() {
            "" | "scale" => served.strategy.validate_update(&context, object, old),
            name => served.strategy.validate_subresource_update(&context, name, object, old),
        });
        if let ("", Some(check)) = (target.subresource.as_str(), served.check) {
            check(object, Some(old), &mut errors);
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid(&served.kind, &target.name, errors));
        }
        if target.subresource.is_empty() || served.custom.is_some() {
            writer.warnings.extend(served.strategy.warnings(object, Some(old)));
        }
        Ok(())
    }

    /// Stores the change; not at all where nothing changed, and for good where it was the last that held a deletion up.
    async fn put_or_remove(
        &self,
        target: &Target,
        entry: &Arc<Entry>,
        object: Object,
        old: &Object,
        manner: Manner,
    ) -> Result<Written, CommitError> {
        let dry_run = manner.dry_run;
        if object == *old && (dry_run || !self.is_stale(target).await) {
            return Ok(Written::Stored(entry.clone()));
        }
        if dry_run {
            return Ok(commit::unstored(commit::to_stored(&target.served, object).await?));
        }
        let revision = Revision(entry.revision);
        if object.is_deleting() && object.finalizers().is_empty() && !held_by_spec(&object) && grace_is_over(&object) {
            self.remove(target, revision).await?;
            return Ok(commit::unstored(commit::to_stored(&target.served, object).await?));
        }
        Ok(Written::Stored(self.put(target, object, Expect::Revision(revision), manner.applied).await?))
    }
}

fn grace_is_over(object: &Object) -> bool {
    object.metadata().and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64).unwrap_or_default() == 0
}

/// The version and the identity that the new object names must be the current ones.
fn check_preconditions(
    target: &Target,
    object: &Object,
    entry: &Entry,
    identity: bool,
    writer: &Writer,
) -> Result<(), StatusError> {
    let uid = object.uid();
    if identity && !uid.is_empty() && uid != &*entry.uid {
        // Upstream's store says so, by its key; that of a dry run has no root.
        let root = if writer.options.dry_run { "" } else { "/registry" };
        let key = format!("{root}/{}/{}", stored_under(target), target.key());
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", entry.uid);
        return Err(target.conflict(format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}"
        )));
    }
    let version = object.resource_version();
    if version.is_empty() || version == "0" {
        if !target.served.strategy.allow_unconditional_update() {
            let root = Path::ROOT;
            let metadata = root.child("metadata");
            let path = metadata.child("resourceVersion");
            let error = FieldError::invalid(&path, &json!(0), "must be specified for an update");
            // Upstream names the resource where its kind belongs.
            let GroupResource { group, resource } = &target.served.group_resource;
            let named = GroupVersionKind::new(group.clone(), "", resource.clone());
            return Err(StatusError::invalid(&named, &target.name, vec![error]));
        }
    } else if version.parse() != Ok(entry.revision) {
        if version.parse::<u64>().is_err() {
            // Upstream's store says so, which makes it the server's failure.
            let why = format!("strconv.ParseUint: parsing {}: invalid syntax", json!(version));
            return Err(StatusError::new(Reason::Unknown, why));
        }
        return Err(target.conflict(MODIFIED));
    }
    Ok(())
}

/// Where upstream keeps the objects of a resource: some under older names, those that others define under their group.
fn stored_under(target: &Target) -> String {
    let GroupResource { group, resource } = &target.served.group_resource;
    match (&**group, &**resource) {
        ("", "services") => "services/specs".into(),
        ("", "endpoints") => "services/endpoints".into(),
        ("", "nodes") => "minions".into(),
        ("", "replicationcontrollers") => "controllers".into(),
        ("networking.k8s.io", "ingresses") => "ingress".into(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", resource) => format!("{group}/{resource}"),
        (group, resource) if target.served.custom.is_some() => format!("{group}/{resource}"),
        (_, resource) => resource.to_string(),
    }
}

/// Metadata that no update changes. What a client may say nothing of, but nothing else either, is for validation to refuse.
fn keep_system_fields(object: &mut Object, old: &Object) {
    let old = old.metadata();
    let metadata = object.metadata_mut();
    for field in ["creationTimestamp", "generation", "resourceVersion"] {
        match old.and_then(|m| m.get(field)) {
            Some(value) => drop(metadata.insert(field.into(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
    let said = |metadata: &serde_json::Map<String, Value>, field: &str| {
        metadata.get(field).is_some_and(|value| !value.is_null() && value != "")
    };
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let decided = field == "deletionTimestamp" && old.is_some_and(|m| said(m, field));
        if decided || !said(metadata, field) {
            match old.and_then(|m| m.get(field)) {
                Some(value) => drop(metadata.insert(field.into(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
    }
}
