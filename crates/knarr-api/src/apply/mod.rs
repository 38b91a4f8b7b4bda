//! Server-side apply and field ownership (KEP-555).
//!
//! Two ways in: [`update_managed_fields`] runs on every create, update and patch and records who set what; [`apply`] merges
//! a configuration into the live object, refuses what others own, and removes what the manager no longer applies.
//!
//! Ownership is compared in the version of the request. Entries of other versions of the same kind are kept and compared by
//! the same paths, which differ only where a kind's versions name a field differently.

mod compare;
mod conflict;
mod field_set;
mod managed;
mod merge;
mod typed;

use serde_json::{Map, Value};

use compare::{Comparison, compare};
use conflict::Conflicts;
use field_set::FieldSet;
use managed::{Manager, Managers, Operation};
use typed::{Atom, Typed};

use crate::object::{Object, ObjectExt};
use crate::schema::{Schema, TypeId};
use crate::status::{Reason, StatusError};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that the server keeps and nobody owns, as elements of a [`FieldSet`].
const UNOWNED: [&[&str]; 12] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// What ownership is recorded for: a kind in the version of the request, through the main resource or a subresource.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub schema: &'a Schema,
    pub ty: TypeId,
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Paths that this endpoint leaves as they are whatever is written: nobody comes to own them here.
    pub reset: &'a [&'a [&'a str]],
}

/// What an endpoint resets where the kind has a status subresource: the main resource leaves the status alone, `status`
/// leaves the spec alone (and, for some kinds, metadata).
pub fn reset_fields(kind: &str, has_status: bool, subresource: &str) -> &'static [&'static [&'static str]] {
    match (kind, subresource) {
        ("CertificateSigningRequest", "") => &[&["spec"], &["status"]],
        ("CertificateSigningRequest", "status") => &[&["spec"], &["status", "conditions"]],
        ("CertificateSigningRequest", "approval") => &[&["spec"], &["status", "certificate"]],
        ("Deployment", "status") => &[&["spec"], &["metadata", "labels"]],
        ("Pod", "status") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        (
            "APIService"
            | "FlowSchema"
            | "PriorityLevelConfiguration"
            | "ResourceClaim"
            | "ServiceCIDR"
            | "StorageVersionMigration"
            | "ValidatingAdmissionPolicy"
            | "VolumeAttachment",
            "status",
        ) => &[&["spec"], &["metadata"]],
        (_, "") if has_status => &[&["status"]],
        (_, "finalize") => &[&["status"]],
        (_, "status") => &[&["spec"]],
        _ => &[],
    }
}

impl<'a> Scope<'a> {
    fn typed(&self) -> (Typed<'a>, Atom<'a>) {
        let typed = Typed { schema: self.schema };
        (typed, typed.root(self.ty))
    }

    fn manager(&self, name: &str, operation: Operation, now: i64) -> Manager {
        Manager {
            name: name.to_string(),
            operation,
            api_version: self.api_version.to_string(),
            subresource: self.subresource.to_string(),
            time: timestamp(now),
            fields: FieldSet::default(),
        }
    }

    fn without_reset(&self, mut set: FieldSet) -> FieldSet {
        self.reset.iter().for_each(|path| set.remove_tree(path));
        set
    }

    fn compare(&self, old: &Object, new: &Object) -> Comparison {
        let (typed, root) = self.typed();
        let found = compare(typed, root, old, new);
        Comparison {
            removed: self.without_reset(found.removed),
            modified: self.without_reset(found.modified),
            added: self.without_reset(found.added),
            unnamed: found.unnamed,
        }
    }
}

fn timestamp(now: i64) -> String {
    jiff::Timestamp::from_second(now).map(|t| t.to_string()).unwrap_or_default()
}

fn without_unowned(mut set: FieldSet) -> FieldSet {
    UNOWNED.iter().for_each(|path| set.remove(path));
    set
}

/// Records what `manager` changed from `live` (`None` on create) to `new`. What `new` itself brings in `managedFields` is
/// taken where it is well-formed, as upstream does, so that a client may give ownership up; `[{}]` resets it. Never fails:
/// ownership that cannot be read starts anew.
pub fn update_managed_fields(scope: &Scope<'_>, live: Option<&Object>, new: &mut Object, manager: &str, now: i64) {
    let mut managers = decode_live_or_new(scope, live, new);
    new.metadata_mut().remove("managedFields");
    // An object written before ownership was tracked stays untracked until it is first applied.
    if !managers.0.is_empty() || live.is_none() {
        let empty = Value::Object(Map::new());
        match record_update(scope, live.unwrap_or(&empty), new, &mut managers, manager, now) {
            Ok(()) => managers.cap(),
            // As upstream: better nobody than a wrong owner.
            Err(Unnamed) => managers = Managers::default(),
        }
    }
    store(new, managers);
}

fn store(object: &mut Object, managers: Managers) {
    match managers.into_value() {
        Some(entries) => object.metadata_mut().insert("managedFields".into(), entries),
        None => object.metadata_mut().remove("managedFields"),
    };
}

fn decode_live_or_new(scope: &Scope<'_>, live: Option<&Object>, new: &Object) -> Managers {
    let of = |object: Option<&Object>| {
        Managers::parse(object.and_then(Object::metadata).and_then(|m| m.get("managedFields")))
    };
    if !scope.subresource.is_empty() {
        return of(live).unwrap_or_default();
    }
    let brought = new.metadata().and_then(|m| m.get("managedFields")).and_then(Value::as_array);
    let reset = brought.is_some_and(|entries| match entries.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    });
    if reset {
        return Managers::default();
    }
    match of(Some(new)) {
        Ok(managers) if !managers.0.is_empty() => managers,
        _ => of(live).unwrap_or_default(),
    }
}

/// The items of some list have no names to be owned by.
struct Unnamed;

fn record_update(
    scope: &Scope<'_>,
    live: &Object,
    new: &Object,
    managers: &mut Managers,
    name: &str,
    now: i64,
) -> Result<(), Unnamed> {
    let changes = scope.compare(live, new);
    if changes.unnamed {
        return Err(Unnamed);
    }
    let changed = changes.modified.union(&changes.added);
    for manager in &mut managers.0 {
        manager.fields = manager.fields.difference(&changed).difference(&changes.removed);
    }
    managers.drop_empty();
    let owned = without_unowned(changed);
    if owned.is_empty() {
        return Ok(());
    }
    let mut own = scope.manager(name, Operation::Update, now);
    let before = managers.take(&own).map(|m| m.fields).unwrap_or_default();
    own.fields = owned.union(&before);
    managers.0.push(own);
    Ok(())
}

/// Applies a configuration. Answers the merged object with its `managedFields`, which the caller decodes, defaults and
/// validates like any update; it is the live object again where nothing changes.
///
/// `live` is `None` where the apply creates. Conflicts are a 409 unless `force`.
pub fn apply(
    scope: &Scope<'_>,
    live: Option<&Object>,
    config: &Object,
    manager: &str,
    force: bool,
    now: i64,
) -> Result<Object, StatusError> {
    check_configuration(scope, config)?;
    let empty = Value::Object(Map::new());
    let current = live.unwrap_or(&empty);
    let mut managers = Managers::parse(current.metadata().and_then(|m| m.get("managedFields")))
        .map_err(|error| StatusError::new(Reason::Unknown, format!("failed to decode managed fields: {error}")))?;
    let mut current = current.clone();
    if let Some(metadata) = current.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if managers.0.is_empty()
        && let Err(Unnamed) = record_update(scope, &empty, &current, &mut managers, BEFORE_FIRST_APPLY, now)
    {
        managers = Managers::default();
    }
    let merge = Merge { scope, live: &current, config, manager, now };
    let (mut object, managers) = match merge.run(managers.clone(), force) {
        Ok(done) => done,
        Err(conflicts) => merge.adopt_client_side(managers, conflicts)?,
    };
    if manager == "kubectl" {
        refresh_last_applied(&mut object, config);
    }
    store(&mut object, managers);
    Ok(object)
}

/// Lays a configuration over an object without recording who owns what, as a MutatingAdmissionPolicy does. Fails with what is
/// wrong with the configuration's types; `ty` is `None` where the schema does not know the kind.
pub fn merge_unowned(schema: &Schema, ty: Option<TypeId>, live: &Object, config: &Object) -> Result<Object, String> {
    let typed = Typed { schema };
    let root = ty.map_or(Atom::Deduced, |ty| typed.root(ty));
    match typed.check(root, config).as_slice() {
        [] => Ok(typed.merge(root, live, config)),
        errors => Err(errors.join(", ")),
    }
}

/// Refuses a configuration that is of another kind, brings ownership of its own or does not fit its type.
fn check_configuration(scope: &Scope<'_>, config: &Object) -> Result<(), StatusError> {
    let word = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    if word("apiVersion") != scope.api_version || word("kind") != scope.kind {
        let shown = format!("{}, Kind={}", word("apiVersion"), word("kind"));
        let shown = if word("apiVersion").contains('/') { shown } else { format!("/{shown}") };
        return Err(StatusError::bad_request(format!("invalid object type: {shown}")));
    }
    if config.metadata().is_some_and(|m| m.get("managedFields").is_some_and(|v| !v.is_null())) {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let (typed, root) = scope.typed();
    let errors = typed.check(root, config);
    let shown = match errors.as_slice() {
        [] => return Ok(()),
        [only] => only.clone(),
        many => format!("errors:\n{}", many.iter().map(|e| format!("  {e}")).collect::<Vec<_>>().join("\n")),
    };
    let (group, version) = scope.api_version.split_once('/').unwrap_or(("", scope.api_version));
    let object = format!("{}/{}; {group}/{version}, Kind={}", config.namespace(), config.name(), scope.kind);
    Err(StatusError::new(Reason::Unknown, format!("failed to create typed patch object ({object}): {shown}")))
}

/// One apply; may be run twice, the second time by force.
struct Merge<'a> {
    scope: &'a Scope<'a>,
    /// Without its `managedFields`.
    live: &'a Object,
    config: &'a Object,
    manager: &'a str,
    now: i64,
}

impl Merge<'_> {
    fn run(&self, mut managers: Managers, force: bool) -> Result<(Object, Managers), Conflicts> {
        let (typed, root) = self.scope.typed();
        let mut own = self.scope.manager(self.manager, Operation::Apply, self.now);
        let last = managers.take(&own);
        own.fields = self.scope.without_reset(typed.field_set(root, self.config));
        let merged = typed.merge(root, self.live, self.config);
        let mut object = match &last {
            Some(last) if !last.fields.is_empty() => self.prune(merged, &last.fields, &own.fields, &managers),
            _ => merged,
        };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        self.take_over(&object, &mut managers, force)?;
        let unchanged = object == *self.live;
        if let (true, Some(last)) = (unchanged, &last) {
            own.time.clone_from(&last.time);
        } else if unchanged {
            own.time.clear();
        }
        own.fields = without_unowned(own.fields);
        managers.0.push(own);
        managers.drop_empty();
        Ok((object, managers))
    }

    /// Removes what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Object, last: &FieldSet, own: &FieldSet, others: &Managers) -> Object {
        let (typed, root) = self.scope.typed();
        let named = |set: &FieldSet| typed.with_named_fields(root, set);
        let set_of = |object: &Object| named(&typed.field_set(root, object));
        let mut owned = own.clone();
        others.0.iter().for_each(|m| owned = std::mem::take(&mut owned).union(&m.fields));

        let mut pruned = merged.clone();
        typed.remove(root, &mut pruned, &named(last));
        let merged_set = set_of(&merged);
        // What went with a removed parent but is owned comes back.
        let kept = set_of(&pruned).union(&named(&owned));
        pruned = merged.clone();
        typed.remove(root, &mut pruned, &merged_set.difference(&kept));
        // What was never this manager's to remove comes back too.
        let gone = merged_set.difference(&set_of(&pruned)).intersection(&named(last));
        let mut out = merged;
        typed.remove(root, &mut out, &gone);
        out
    }

    /// Takes what the apply changes from the others, who must agree unless forced.
    fn take_over(&self, object: &Object, managers: &mut Managers, force: bool) -> Result<(), Conflicts> {
        let changes = self.scope.compare(self.live, object);
        let changed = changes.modified.union(&changes.added);
        let mut conflicts = Conflicts::default();
        for manager in &mut managers.0 {
            let lost = manager.fields.intersection(&changed);
            if !force && !lost.is_empty() {
                conflicts.add(manager, &lost);
            }
            manager.fields = manager.fields.difference(&lost).difference(&changes.removed);
        }
        if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
    }

    /// kubectl may overrule the owner of what it applied client-side before, as the annotation tells.
    fn adopt_client_side(&self, managers: Managers, conflicts: Conflicts) -> Result<(Object, Managers), Conflicts> {
        let Some(allowed) = self.applied_client_side().filter(|_| self.manager == "kubectl") else {
            return Err(conflicts);
        };
        let left = conflicts.without(&allowed);
        if left.is_empty() { self.run(managers, true) } else { Err(left) }
    }

    /// What the last client-side apply set and the live object still has.
    fn applied_client_side(&self) -> Option<FieldSet> {
        let text = annotations(self.live)?.get(LAST_APPLIED)?.as_str().filter(|t| !t.is_empty())?;
        let last: Object = serde_json::from_str(text).ok()?;
        if last.get("apiVersion")?.as_str()? != self.scope.api_version {
            return None;
        }
        let (typed, root) = self.scope.typed();
        let changes = compare(typed, root, &last, self.live);
        let set = typed.field_set(root, &last);
        Some(set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
    }
}

fn annotations(object: &Object) -> Option<&Map<String, Value>> {
    object.metadata()?.get("annotations")?.as_object()
}

/// Keeps the client-side apply annotation true, so that a user may go back to client-side apply.
fn refresh_last_applied(object: &mut Object, config: &Object) {
    let has = annotations(object).and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    if has.is_none_or(str::is_empty) {
        return;
    }
    let mut applied = config.clone();
    if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
        if metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
            metadata.remove("annotations");
        }
    }
    let text = format!("{applied}\n");
    if let Some(Value::Object(annotations)) = object.metadata_mut().get_mut("annotations") {
        annotations.insert(LAST_APPLIED.into(), text.into());
    }
}

/// Puts the old time stamps of ownership back where an update changes nothing else, so that it stays a no-op.
pub fn keep_time_stamps(new: &mut Object, old: &Object) {
    let (Some(ours), Some(theirs)) = (ownership(new), ownership(old)) else { return };
    let same =
        ours != theirs && ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| timeless_equal(a, b));
    if same && equal_but_managed(new, old) {
        let theirs = theirs.clone();
        new.metadata_mut().insert("managedFields".into(), Value::Array(theirs));
    }
}

fn ownership(object: &Object) -> Option<&Vec<Value>> {
    object.metadata()?.get("managedFields")?.as_array()
}

/// Whether two entries differ in nothing but their time.
fn timeless_equal(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    let timeless = |entry: &Map<String, Value>| entry.len() - usize::from(entry.contains_key("time"));
    timeless(a) == timeless(b) && a.iter().all(|(key, value)| key == "time" || b.get(key) == Some(value))
}

fn equal_but_managed(new: &Object, old: &Object) -> bool {
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
    let metadata_equal = match (new.metadata(), old.metadata()) {
        (Some(a), Some(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| key == "managedFields" || b.get(key) == Some(value))
        }
        _ => false,
    };
    metadata_equal && a.len() == b.len() && a.iter().all(|(key, value)| key == "metadata" || b.get(key) == Some(value))
}

#[cfg(test)]
mod tests;
