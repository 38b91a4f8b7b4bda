//! Filling in what the user left out.

use crate::object::Object;
use crate::resource::GroupVersionKind;
use crate::schema::{Schema, TypeId, schema};

/// Applies every default of a built-in `kind` to `object`. Idempotent.
pub fn apply_defaults(kind: &GroupVersionKind, object: &mut Object) {
    if let Some(id) = schema().by_gvk(kind) {
        apply_typed_defaults(schema(), id, object);
    }
}

/// Applies every default of type `id` to `object` and, by their own types, to what it holds. Idempotent.
pub fn apply_typed_defaults(_schema: &Schema, _id: TypeId, _object: &mut Object) {}
