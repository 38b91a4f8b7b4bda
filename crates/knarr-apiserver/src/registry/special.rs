//! Requests to endpoints with a handler of their own.

use std::sync::Arc;

use knarr_api::{GroupVersionKind, Object, StatusError, default};

use super::patch::{self, PatchType};
use super::{Registry, Served, typed};
use crate::http::negotiate;
use crate::resources::Request;
use crate::subresources::{Call, Handler};

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

/// Reads the body and the options for the handler.
pub async fn call(_registry: &Arc<Registry>, handler: &dyn Handler, request: Request) -> Result<Call, StatusError> {
    let options_kind = match request.info.verb.as_str() {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let writer = request.writer(options_kind)?;
    let kind = body_kind(&request.served, &request.info.subresource);
    let call = |object: Object, verb: &str| Call {
        resource: request.served.resource.clone(),
        subresource: request.info.subresource.clone(),
        verb: verb.to_string(),
        namespace: request.info.namespace.clone(),
        name: request.info.name.clone(),
        user: request.user.clone(),
        object,
        options: writer.options.to_object(options_kind),
        dry_run: writer.options.dry_run,
    };
    match request.info.verb.as_str() {
        "get" => Ok(call(Object::Null, "get")),
        "patch" => {
            let patch_type = PatchType::parse(negotiate::content_type(&request.parts.headers), &request.served)?;
            let current = handler.handle(call(Object::Null, "get")).await?.object;
            let body = request.body.collect_limited().await?;
            let patched = patch::apply(patch_type, &request.served, &body, Object::clone(&current))?;
            Ok(call(patched, "patch"))
        }
        verb => {
            let encoding = negotiate::body_encoding(&request.parts.headers)?;
            let body = request.body.collect_limited().await?;
            let decoded = typed::decode_any(&body, encoding, &kind, writer.options.field_validation)?;
            let mut object = decoded.object;
            default::apply_defaults(&kind, &mut object);
            Ok(call(object, verb))
        }
    }
}
