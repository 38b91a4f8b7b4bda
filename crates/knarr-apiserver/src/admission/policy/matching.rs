//! Which requests a policy or binding is about (`MatchResources`).

use std::sync::Arc;

use knarr_api::selector::LabelSelector;
use knarr_api::{GroupResource, Resource};
use serde_json::Value;

use super::super::webhook::{Coordinates, Rule, equivalents, namespace_of};
use super::super::{Operation, Request};
use super::definition::{list, text};
use crate::registry::{Registry, Served};

/// `MatchResources`
pub struct Matching {
    rules: Vec<NamedRule>,
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

/// The resource as which a request matches.
#[derive(Clone)]
pub struct Matched {
    pub resource: Arc<Resource>,
    /// The other version that the objects must be converted to.
    pub other: Option<Arc<Served>>,
}

impl NamedRule {
    fn of(value: &Value) -> NamedRule {
        let names = list(value, "resourceNames").iter().filter_map(Value::as_str).map(str::to_string).collect();
        NamedRule { rule: Rule::of(value), names }
    }

    fn matches(&self, at: &Coordinates<'_>, name: &str) -> bool {
        self.rule.matches(at) && (self.names.is_empty() || self.names.iter().any(|n| n == name))
    }
}

impl Matching {
    pub fn of(value: &Value) -> Matching {
        let selector = |field: &str| match value.get(field).filter(|s| s.is_object()) {
            None => Ok(LabelSelector::everything()),
            some => LabelSelector::of_object(some).map_err(|error| error.to_string()),
        };
        let rules = |field: &str| list(value, field).iter().map(NamedRule::of).collect();
        Matching {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: text(value, "matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// As what the request matches, if it does. An error is of the selectors, and only matters where everything else matches.
    pub fn matches(&self, registry: &Registry, request: &Request) -> Result<Option<Matched>, String> {
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
        if self.rules.is_empty() {
            return Some(Matched { resource: request.resource.clone(), other: None });
        }
        find(&self.rules, self.equivalent, registry, request)
    }

    fn namespace_matches(&self, registry: &Registry, request: &Request) -> Result<bool, String> {
        let namespace = namespace_of(request);
        let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
        if namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(String::clone)?;
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
            None => Err(format!("namespaces \"{namespace}\" not found")),
        }
    }

    fn object_matches(&self, request: &Request) -> Result<bool, String> {
        let selector = self.objects.as_ref().map_err(String::clone)?;
        let matches = |object: &Value| object.get("metadata").is_some() && selector.matches(labels(object));
        Ok(selector.is_everything()
            || request.object.as_ref().is_some_and(matches)
            || request.old_object.as_deref().is_some_and(matches))
    }
}

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
