//! What expressions see of a request.

use std::borrow::Cow;
use std::sync::Arc;

use knarr_api::{GroupResource, Object, StatusError};
use knarr_cel::admission::Input;
use knarr_cel::authorizer::{Authorizer, Question};
use serde_json::{Map, Value, json};

use super::super::Request;
use super::super::matching::{Matched, kind_of};
use super::super::operation_name;
use super::super::webhook::{kind_value, resource_value, user_value};
use crate::registry::Registry;

/// A request in the version in which a policy matches it.
pub struct Shown<'a> {
    object: Cow<'a, Value>,
    old_object: Cow<'a, Value>,
    request: Value,
    question: Question,
}

static NULL: Value = Value::Null;

impl<'a> Shown<'a> {
    pub async fn new(registry: &Registry, request: &'a Request, matched: &Matched) -> Result<Shown<'a>, StatusError> {
        let mut objects = [
            request.object.as_ref().map_or(Cow::Borrowed(&NULL), Cow::Borrowed),
            request.old_object.as_deref().map_or(Cow::Borrowed(&NULL), Cow::Borrowed),
        ];
        if let Some(other) = &matched.other {
            let own = &request.resource;
            let own = registry.served(&own.group, &own.version, &own.resource);
            for object in objects.iter_mut().filter(|object| !object.is_null()) {
                if let Some(own) = &own {
                    *object = Cow::Owned(registry.convert(own, object.as_ref().clone(), &other.kind).await?);
                }
            }
        }
        let [object, old_object] = objects;
        Ok(Shown { object, old_object, request: request_value(request, matched), question: question(request) })
    }

    /// The variables for one evaluation.
    pub fn input<'i>(
        &'i self,
        params: Option<&'i Object>,
        namespace: Option<&'i Value>,
        authorizer: Arc<dyn Authorizer + 'i>,
    ) -> Input<'i> {
        Input {
            object: &self.object,
            old_object: &self.old_object,
            request: &self.request,
            params,
            namespace,
            authorizer: Some(authorizer),
            request_resource: self.question.clone(),
        }
    }

    pub fn object(&self) -> &Value {
        &self.object
    }
}

fn request_value(request: &Request, matched: &Matched) -> Value {
    let requested = kind_of(&request.resource, &request.subresource);
    json!({
        "kind": kind_value(&kind_of(&matched.resource, &request.subresource)),
        "resource": resource_value(&matched.resource),
        "subResource": request.subresource,
        "requestKind": kind_value(&requested),
        "requestResource": resource_value(&request.resource),
        "requestSubResource": request.subresource,
        "name": request.name,
        "namespace": request.namespace,
        "operation": operation_name(request.operation),
        "userInfo": user_value(request),
        "dryRun": request.dry_run,
        "options": request.options,
    })
}

/// What `authorizer.requestResource` asks about.
fn question(request: &Request) -> Question {
    Question {
        group: request.resource.group.clone(),
        resource: request.resource.resource.clone(),
        subresource: request.subresource.clone(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        ..Question::default()
    }
}

/// What of the request's namespace expressions see; `None` for cluster-scoped objects and namespaces themselves.
pub fn namespace_object(registry: &Registry, request: &Request) -> Result<Option<Value>, StatusError> {
    let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    if request.namespace.is_empty() || is_namespace {
        return Ok(None);
    }
    let namespaces = GroupResource::new("", "namespaces");
    let cache = registry.cache(&namespaces);
    let Some(entry) = cache.snapshot().get(&request.namespace).cloned() else {
        return Err(StatusError::not_found(&namespaces, &request.namespace));
    };
    let mut object = entry.object();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for hidden in ["managedFields", "ownerReferences", "selfLink"] {
            metadata.remove(hidden);
        }
    }
    let mut out = Map::new();
    for field in ["metadata", "spec", "status"] {
        out.insert(field.to_string(), object[field].take());
    }
    Ok(Some(Value::Object(out)))
}
