//! Validation of `metadata`, the same for every kind.

use crate::field::ErrorList;
use crate::object::Object;
use crate::strategy::Strategy;

/// Everything wrong with the metadata of a new object.
pub fn validate_create(_object: &Object, _namespaced: bool, _strategy: &dyn Strategy) -> ErrorList {
    ErrorList::new()
}

/// Everything wrong with a change of metadata.
pub fn validate_update(_object: &Object, _old: &Object) -> ErrorList {
    ErrorList::new()
}
