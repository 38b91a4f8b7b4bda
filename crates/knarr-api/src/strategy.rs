//! What a kind does beyond the schema table. One row a kind; the registry knows only this trait.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::field::ErrorList;
use crate::object::Object;
use crate::resource::{GroupResource, GroupVersionKind};
use crate::validation::metadata::Again;

/// What the registry knows about the request that a strategy may need.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The user's name, for kinds that record it (certificate signing requests).
    pub username: String,
    pub user_uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
    /// Seconds since the epoch, from the caller's clock.
    pub now: i64,
}

/// What a kind does beyond the table. Every method has upstream's generic behaviour as its default, so a plain kind is a
/// row with nothing in it. Objects arrive decoded, in the served version, with `apiVersion` and `kind` set.
///
/// The order of calls on create: [`Strategy::default`], admission, [`Strategy::early_warnings`], [`Strategy::prepare_create`], [`Strategy::validate_create`],
/// [`Strategy::warnings`], [`Strategy::canonicalize`]; on update the same with the old object, which is never changed.
pub trait Strategy: Send + Sync {
    /// What is wrong with a name of this kind; `prefix` says that more will be appended (`generateName`).
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        let _ = (name, prefix);
        Vec::new()
    }

    /// Fills in what the user left out, beyond the table's defaults. Must be idempotent.
    fn default(&self, _object: &mut Object) {}

    /// Clears what a creator may not set (status), sets what the server sets.
    fn prepare_create(&self, _ctx: &Context, _object: &mut Object) {}

    /// Everything wrong with a new object, metadata aside (the generic validation checks that).
    fn validate_create(&self, _ctx: &Context, _object: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// Carries over from `old` what this update may not change (status on a spec update).
    fn prepare_update(&self, _ctx: &Context, _object: &mut Object, _old: &Object) {}

    /// Everything wrong with this change.
    fn validate_update(&self, _ctx: &Context, _object: &Object, _old: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// As [`Strategy::prepare_update`] for the `status` subresource (or another: `name` says which).
    fn prepare_subresource_update(&self, _ctx: &Context, _name: &str, _object: &mut Object, _old: &Object) {}

    /// As [`Strategy::validate_update`] for a subresource.
    fn validate_subresource_update(&self, _ctx: &Context, _name: &str, _object: &Object, _old: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// Normalises a valid object just before it is stored.
    fn canonicalize(&self, _object: &mut Object) {}

    /// `metadata.generation` counts changes of these root fields; empty means that the kind has no generation.
    fn generation_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the kind has a generation.
    fn has_generation(&self) -> bool {
        !self.generation_fields().is_empty()
    }

    /// Whether this change counts in `metadata.generation`; `None` where the kind has none.
    fn counts(&self, object: &Object, old: &Object) -> Option<bool> {
        let fields = self.generation_fields();
        (!fields.is_empty()).then(|| fields.iter().any(|field| object[*field] != old[*field]))
    }

    /// Fields beyond `metadata.name` and `metadata.namespace` that a field selector may name, with their current values.
    fn selectable_fields(&self, _object: &Object) -> Vec<(Cow<'static, str>, String)> {
        Vec::new()
    }

    /// Whether a field selector may name this field.
    fn selects_by(&self, _field: &str) -> bool {
        false
    }

    /// The name that a field has in the kind that is stored, where it differs.
    fn stored_field(&self, _field: &str) -> Option<&'static str> {
        None
    }

    /// Whether there are any [`Strategy::selectable_fields`].
    fn has_selectable_fields(&self) -> bool {
        false
    }

    /// Seconds of grace a delete gives that asks for so many, or does not say; `None`: the kind knows no grace.
    fn grace_seconds(&self, _object: &Object, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether PUT on a name that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether a new object's finalizers that have no domain must be the project's own.
    fn checks_finalizers(&self) -> bool {
        false
    }

    /// What the kind's own validation of a change looks at again in the metadata.
    fn metadata_again(&self, _subresource: &str) -> Again {
        Again::CHANGE
    }

    /// What preparing a new object has to say, whatever becomes of it.
    fn early_warnings(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Whether an update may leave `resourceVersion` out.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
}

/// A kind with nothing beyond the table.
pub struct Plain;
impl Strategy for Plain {}

/// The strategy of a built-in kind; a plain one where it needs none.
pub fn strategy(_resource: &GroupResource, kind: &GroupVersionKind) -> &'static dyn Strategy {
    crate::strategies::find(kind)
}
