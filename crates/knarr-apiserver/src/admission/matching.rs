//! Which requests a webhook, a policy or a binding is about, and as which of their equivalents.

use std::sync::Arc;

use knarr_api::selector::LabelSelector;
use knarr_api::{GroupResource, GroupVersionKind, Resource, StatusError};
use serde_json::Value;

use super::rules::{Coordinates, Rule};
use super::{Operation, Request, namespace_of};
use crate::registry::{Registry, Served};

/// `MatchResources`, and what a webhook has of it.
pub struct Matching {
    rules: Vec<NamedRule>,
    /// Without rules it is about everything, rather than about nothing.
    open: bool,
    excluded: Vec<NamedRule>,
    /// `matchPolicy: Equivalent`
    equivalent: bool,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

struct NamedRule {
    rule: Rule,
    /// Empty: any name.
    names: Vec<String>,
}

/// Why it cannot be told whether a request matches.
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    #[error("{0}")]
    Selector(String),
    #[error("namespaces \"{0}\" not found")]
    NoNamespace(String),
}

impl From<MatchError> for StatusError {
    fn from(error: MatchError) -> Self {
        match error {
            MatchError::Selector(why) => StatusError::internal(why),
            MatchError::NoNamespace(name) => StatusError::not_found(&GroupResource::new("", "namespaces"), &name),
        }
    }
}

/// The resource as which a request matches.
#[derive(Clone)]
pub struct Matched {
    pub resource: Arc<Resource>,
    /// The other version that the objects must be converted to.
    pub other: Option<Arc<Served>>,
}

impl NamedRule {
    fn of(value: &Value) -> NamedRule {
        let names = list(value, "resourceNames").filter_map(Value::as_str).map(str::to_string).collect();
        NamedRule { rule: Rule::of(value), names }
    }

    fn matches(&self, at: &Coordinates<'_>, name: &str) -> bool {
        self.rule.matches(at) && (self.names.is_empty() || self.names.iter().any(|n| n == name))
    }
}

impl Matching {
    /// Of a policy's `matchConstraints` or a binding's `matchResources`.
    pub fn of_policy(value: &Value) -> Matching {
        Self::of(value, "resourceRules", true)
    }

    pub fn of_webhook(value: &Value) -> Matching {
        Self::of(value, "rules", false)
    }

    fn of(value: &Value, rules_field: &str, open: bool) -> Matching {
        let selector = |field: &str| match value.get(field).filter(|s| s.is_object()) {
            None => Ok(LabelSelector::everything()),
            some => LabelSelector::of_object(some).map_err(|error| error.to_string()),
        };
        let rules = |field: &str| list(value, field).map(NamedRule::of).collect();
        Matching {
            rules: rules(rules_field),
            open,
            excluded: rules("excludeResourceRules"),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// As what the request matches, if it does. An error is of the selectors, and only matters where everything else matches.
    pub fn matches(&self, registry: &Registry, request: &Request) -> Result<Option<Matched>, MatchError> {
        let namespace = match self.namespace_matches(registry, request) {
            Ok(false) => return Ok(None),
            other => other,
        };
        let object = match self.object_matches(request) {
            Ok(false) => return Ok(None),
            other => other,
        };
        let Some(matched) = self.by_rules(registry, request) else { return Ok(None) };
        namespace?;
        object?;
        Ok(Some(matched))
    }

    fn by_rules(&self, registry: &Registry, request: &Request) -> Option<Matched> {
        if find(&self.excluded, self.equivalent, registry, request).is_some() {
            return None;
        }
        if self.rules.is_empty() && self.open {
            return Some(Matched { resource: request.resource.clone(), other: None });
        }
        find(&self.rules, self.equivalent, registry, request)
    }

    fn namespace_matches(&self, registry: &Registry, request: &Request) -> Result<bool, MatchError> {
        let namespace = namespace_of(request);
        let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
        if namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = of_selector(&self.namespaces)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if is_namespace && request.subresource.is_empty() && written {
            return Ok(selector.matches(&request.object.as_ref().map(labels)));
        }
        let cache = registry.cache(&GroupResource::new("", "namespaces"));
        match cache.snapshot().get(namespace) {
            Some(entry) => Ok(selector.matches(&*entry.labels)),
            None => Err(MatchError::NoNamespace(namespace.to_string())),
        }
    }

    fn object_matches(&self, request: &Request) -> Result<bool, MatchError> {
        let selector = of_selector(&self.objects)?;
        let matches = |object: &Value| object.get("metadata").is_some() && selector.matches(labels(object));
        Ok(selector.is_everything()
            || request.object.as_ref().is_some_and(matches)
            || request.old_object.as_deref().is_some_and(matches))
    }
}

fn of_selector(parsed: &Result<LabelSelector, String>) -> Result<&LabelSelector, MatchError> {
    parsed.as_ref().map_err(|why| MatchError::Selector(why.clone()))
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Earlier rules first, then earlier equivalents.
fn find(rules: &[NamedRule], equivalent: bool, registry: &Registry, request: &Request) -> Option<Matched> {
    let own = coordinates(&request.resource, request);
    if rules.iter().any(|rule| rule.matches(&own, &request.name)) {
        return Some(Matched { resource: request.resource.clone(), other: None });
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let others = equivalents(registry, request);
    rules.iter().find_map(|rule| {
        let served = others.iter().find(|s| rule.matches(&coordinates(&s.resource, request), &request.name))?;
        Some(Matched { resource: served.resource.clone(), other: Some(served.clone()) })
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

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// The kind of the request's object.
pub fn kind_of(resource: &Resource, subresource: &str) -> GroupVersionKind {
    let Some(kind) = resource.subresource(subresource).map(|s| &s.kind) else { return resource.gvk() };
    if kind.version.is_empty() {
        return GroupVersionKind::new(resource.group.clone(), resource.version.clone(), kind.kind.clone());
    }
    GroupVersionKind::new(kind.group.clone(), kind.version.clone(), kind.kind.clone())
}

/// Other resources of the same stored objects.
fn equivalents(registry: &Registry, request: &Request) -> Vec<Arc<Served>> {
    let row = &request.resource;
    let Some(own) = registry.served(&row.group, &row.version, &row.resource) else { return Vec::new() };
    let table = registry.table();
    let same_objects = table.rows.iter().filter(|s| Arc::ptr_eq(&s.cache, &own.cache) && !Arc::ptr_eq(s, &own));
    let has_endpoint =
        |s: &&Arc<Served>| request.subresource.is_empty() || s.resource.subresource(&request.subresource).is_some();
    same_objects.filter(has_endpoint).cloned().collect()
}
