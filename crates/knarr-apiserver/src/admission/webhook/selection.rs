//! Whether a hook sees a request, and as which of its equivalents.

use std::sync::Arc;

use knarr_api::selector::LabelSelector;
use knarr_api::{GroupResource, GroupVersionKind, Resource, StatusError};
use serde_json::Value;

use super::super::{Operation, Request};
use super::configuration::Hook;
use super::namespace_of;
use super::rules::Coordinates;
use crate::registry::{Registry, Served};

/// A hook that is to be called, and what it is shown.
pub(super) struct Invocation {
    pub hook: Arc<Hook>,
    /// The resource whose rule matched: the request's, or an equivalent of it.
    pub resource: Arc<Resource>,
    pub kind: GroupVersionKind,
    /// The other version that the objects must be converted to.
    pub other: Option<Arc<Served>>,
}

/// The kind of the request's object.
pub(in crate::admission) fn kind_of(resource: &Resource, subresource: &str) -> GroupVersionKind {
    let Some(kind) = resource.subresource(subresource).map(|s| &s.kind) else { return resource.gvk() };
    if kind.version.is_empty() {
        return GroupVersionKind::new(resource.group.clone(), resource.version.clone(), kind.kind.clone());
    }
    GroupVersionKind::new(kind.group.clone(), kind.version.clone(), kind.kind.clone())
}

/// The invocation of `hook` for this request, if it is to be called.
pub(super) fn invocation(
    registry: &Registry,
    hook: &Arc<Hook>,
    request: &Request,
) -> Result<Option<Invocation>, StatusError> {
    // A hook whose rules do not match is none of this request's business, whatever is wrong with its selectors.
    let namespace = match namespace_matches(registry, hook, request) {
        Ok(false) => return Ok(None),
        other => other,
    };
    let object = match object_matches(hook, request) {
        Ok(false) => return Ok(None),
        other => other,
    };
    let Some(invocation) = by_rules(registry, hook, request) else { return Ok(None) };
    namespace?;
    object?;
    Ok(Some(invocation))
}

fn by_rules(registry: &Registry, hook: &Arc<Hook>, request: &Request) -> Option<Invocation> {
    let matching = |resource: &Arc<Resource>, other: Option<Arc<Served>>| Invocation {
        hook: hook.clone(),
        resource: resource.clone(),
        kind: kind_of(resource, &request.subresource),
        other,
    };
    let own = coordinates(&request.resource, request);
    if hook.rules.iter().any(|rule| rule.matches(&own)) {
        return Some(matching(&request.resource, None));
    }
    if !hook.equivalent {
        return None;
    }
    let equivalents = equivalents(registry, request);
    // Earlier rules first, then earlier equivalents.
    hook.rules.iter().find_map(|rule| {
        let served = equivalents.iter().find(|s| rule.matches(&coordinates(&s.resource, request)))?;
        Some(matching(&served.resource, Some(served.clone())))
    })
}

fn coordinates<'a>(resource: &'a Resource, request: &'a Request) -> Coordinates<'a> {
    Coordinates {
        operation: request.operation,
        group: &resource.group,
        version: &resource.version,
        resource: &resource.resource,
        subresource: &request.subresource,
        namespace: namespace_of(request),
    }
}

/// Other resources of the same stored objects.
pub(in crate::admission) fn equivalents(registry: &Registry, request: &Request) -> Vec<Arc<Served>> {
    let row = &request.resource;
    let Some(own) = registry.served(&row.group, &row.version, &row.resource) else { return Vec::new() };
    let table = registry.table();
    let same_objects = table.rows.iter().filter(|s| Arc::ptr_eq(&s.cache, &own.cache) && !Arc::ptr_eq(s, &own));
    let has_endpoint =
        |s: &&Arc<Served>| request.subresource.is_empty() || s.resource.subresource(&request.subresource).is_some();
    same_objects.filter(has_endpoint).cloned().collect()
}

fn selector(parsed: &Result<LabelSelector, String>) -> Result<&LabelSelector, StatusError> {
    parsed.as_ref().map_err(StatusError::internal)
}

fn namespace_matches(registry: &Registry, hook: &Hook, request: &Request) -> Result<bool, StatusError> {
    let namespace = namespace_of(request);
    let is_namespace = request.resource.resource == "namespaces";
    if namespace.is_empty() && !is_namespace {
        return Ok(true);
    }
    let selector = selector(&hook.namespaces)?;
    if selector.is_everything() {
        return Ok(true);
    }
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace && request.subresource.is_empty() && written {
        let object = request.object.as_ref();
        return Ok(selector.matches(&object.map(labels)));
    }
    let namespaces = GroupResource::new("", "namespaces");
    let cache = registry.cache(&namespaces);
    match cache.snapshot().get(namespace) {
        Some(entry) => Ok(selector.matches(&*entry.labels)),
        None => Err(StatusError::not_found(&namespaces, namespace)),
    }
}

fn object_matches(hook: &Hook, request: &Request) -> Result<bool, StatusError> {
    let selector = selector(&hook.objects)?;
    let matches = |object: &Value| object.get("metadata").is_some() && selector.matches(labels(object));
    Ok(selector.is_everything()
        || request.object.as_ref().is_some_and(matches)
        || request.old_object.as_deref().is_some_and(matches))
}

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}
