//! `metadata.managedFields`: who set what, kept on every write.

pub(super) use knarr_api::apply::keep_time_stamps;
use knarr_api::apply::{self, Scope};
use knarr_api::decode::empties;
use knarr_api::object::ObjectExt;
use knarr_api::schema::schema;
use knarr_api::{GroupVersionKind, Object, StatusError};

use super::{Served, Writer};

/// What ownership is recorded for; `None` for kinds without a type.
fn scope<'a>(served: &'a Served, subresource: &'a str) -> Option<Scope<'a>> {
    Some(Scope {
        schema: &served.schema,
        ty: served.type_id?,
        api_version: &served.api_version,
        kind: &served.kind.kind,
        subresource,
        reset: match (&served.custom, subresource) {
            (Some(_), "status") => &[&["metadata"], &["spec"]],
            (Some(_), "") if served.has_status() => &[&["status"]],
            (Some(_), _) => &[],
            (None, _) => apply::reset_fields(&served.kind.kind, served.has_status(), subresource),
        },
    })
}

/// A writer manages what it set or changed.
pub(super) fn record(served: &Served, live: Option<&Object>, object: &mut Object, subresource: &str, writer: &Writer) {
    let Some(scope) = scope(served, subresource) else { return };
    let now = jiff::Timestamp::now().as_second();
    let manager = &writer.options.field_manager;
    if !writer.says_empty {
        return apply::update_managed_fields(&scope, live, object, manager, now);
    }
    // Nobody owns what is not shown.
    let mut shown = object.clone();
    empties::hide(scope.schema, scope.ty, &mut shown);
    apply::update_managed_fields(&scope, live, &mut shown, manager, now);
    let metadata = object.metadata_mut();
    match shown.metadata_mut().remove("managedFields") {
        Some(managers) => drop(metadata.insert("managedFields".into(), managers)),
        None => drop(metadata.remove("managedFields")),
    }
}

/// As [`record`], of the body of an endpoint with a handler of its own, whose kind need not be the resource's.
pub(super) fn record_special(kind: &GroupVersionKind, object: &mut Object, subresource: &str, writer: &Writer) {
    let schema = schema();
    let Some(ty) = schema.by_gvk(kind) else { return };
    let api_version = kind.api_version();
    let scope = Scope { schema, ty, api_version: &api_version, kind: &kind.kind, subresource, reset: &[] };
    let now = jiff::Timestamp::now().as_second();
    apply::update_managed_fields(&scope, None, object, &writer.options.field_manager, now);
}

/// Server-side apply of a configuration to what stands, or to nothing.
pub(super) fn apply(
    served: &Served,
    live: Option<&Object>,
    config: &Object,
    subresource: &str,
    writer: &Writer,
) -> Result<Object, StatusError> {
    let scope = scope(served, subresource).ok_or_else(|| StatusError::internal("this kind has no type to apply by"))?;
    let force = writer.options.force.unwrap_or_default();
    let now = jiff::Timestamp::now().as_second();
    apply::apply(&scope, live, config, &writer.options.field_manager, force, now)
}
