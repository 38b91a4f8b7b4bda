//! Requests to endpoints with a handler of their own: all of them are creates of something that is answered and not stored.

use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::{GroupVersionKind, StatusError, default};

use super::{Registry, Served, commit, managed, typed};
use crate::admission::Operation;
use crate::http::negotiate;
use crate::resources::Request;
use crate::subresources::{Answer, Call, Handler};

/// The kind of the bodies that an endpoint takes.
fn body_kind(served: &Served, subresource: &str) -> GroupVersionKind {
    let kind = served.resource.subresource(subresource).map_or(&served.resource.kind, |s| &s.kind);
    let mut gvk = GroupVersionKind::new(kind.group.clone(), kind.version.clone(), kind.kind.clone());
    // Discovery leaves group and version out where they are the resource's own.
    if gvk.version.is_empty() {
        gvk.group = served.kind.group.clone();
        gvk.version = served.kind.version.clone();
    }
    gvk
}

/// Serves one, with admission around what the handler checks: mutating plug-ins see the body before it, validating ones what it
/// has made of it.
pub async fn serve(registry: &Arc<Registry>, handler: &dyn Handler, request: Request) -> Result<Answer, StatusError> {
    let mut writer = request.writer("CreateOptions")?;
    let kind = body_kind(&request.served, &request.info.subresource);
    let encoding = negotiate::body_encoding(&request.parts.headers)?;
    let mut target = request.target();
    let body = request.body.collect_limited().await?;
    let decoded = typed::decode_any(&body, encoding, &kind, writer.options.field_validation)?;
    writer.warnings = decoded.warnings;
    let mut object = decoded.object;
    default::apply_defaults(&kind, &mut object);
    if !handler.preconditions() {
        wipe_system_fields(&mut object);
    }
    commit::ensure_namespace(&target, &mut object)?;
    if target.name.is_empty() {
        // Of the endpoints without a name in their path, bindings alone have one in their body.
        target.name = object.name().to_string();
    }
    managed::record_special(&kind, &mut object, &target.subresource, &writer);
    let mut call = Call {
        resource: request.served.resource.clone(),
        namespace: request.info.namespace.clone(),
        name: target.name.clone(),
        user: request.user.clone(),
        object,
        dry_run: writer.options.dry_run,
    };
    let mut admission = registry.admission(Operation::Create, &target, &writer, None);
    admission.mutate(&mut call.object, &mut writer).await?;
    handler.check(&mut call).await?;
    admission.validate(&target, &mut call.object, &mut writer).await?;
    let mut answer = handler.handle(call).await?;
    answer.warnings = writer.warnings;
    Ok(answer)
}

/// What no client may say of a new object.
fn wipe_system_fields(object: &mut knarr_api::Object) {
    let metadata = object.metadata_mut();
    for field in ["creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "selfLink", "uid"] {
        metadata.remove(field);
    }
}
