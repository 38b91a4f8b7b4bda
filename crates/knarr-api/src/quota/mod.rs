//! What objects count for against a `ResourceQuota`: one reading for admission, which charges, and for the controller, which recounts.
//!
//! A [`Quota`] is the limits and scopes of one quota object; [`Counted`] is what one object uses and by which scopes it can be selected.

mod scope;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Quantity;
use crate::{GroupResource, Object};
use scope::{Facts, Scope};
pub use usage::unspecified;

/// Amounts by the names that quotas use (`pods`, `requests.cpu`, `count/deployments.apps`).
pub type Usage = BTreeMap<String, Quantity>;

/// Reads a map of quantities; what is none is left out.
pub fn amounts(value: Option<&Value>) -> Usage {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, q)| Some((name.clone(), q.as_str()?.parse().ok()?))).collect()
}

/// The limits of a quota and which objects they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    pub hard: Usage,
    scopes: Vec<Scope>,
}

impl Quota {
    pub fn of(quota: &Object) -> Quota {
        Quota { hard: amounts(quota.pointer("/spec/hard")), scopes: scope::of(quota) }
    }

    /// Whether the object is one of those that the quota counts.
    pub fn selects(&self, counted: &Counted) -> bool {
        self.scopes.iter().all(|scope| scope.selects(&counted.facts))
    }

    /// The resources whose objects use something that is limited.
    pub fn resources(&self) -> BTreeSet<GroupResource> {
        self.hard.keys().filter_map(|name| counts(name)).collect()
    }
}

/// What an object uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub usage: Usage,
    /// When a pod that does not come to its end stops counting for more than its existence.
    pub lapses: Option<Timestamp>,
    facts: Facts,
}

impl Counted {
    pub fn of(resource: &GroupResource, object: &Object) -> Counted {
        let lapses = usage::lapses(resource, object);
        Counted { usage: usage::of(resource, object), lapses, facts: Facts::of(resource, object) }
    }

    /// What the object uses of this at that time.
    pub fn amount(&self, name: &str, now: Timestamp) -> Option<Quantity> {
        let lapsed = self.lapses.is_some_and(|at| now > at);
        self.usage.get(name).copied().filter(|_| !lapsed || name.starts_with("count/"))
    }
}

/// The resource whose objects are counted under a quota's name; `None` for a name that nothing uses.
pub fn counts(name: &str) -> Option<GroupResource> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(GroupResource::new(group.to_string(), resource.to_string()));
    }
    let core = |resource: &'static str| Some(GroupResource::new("", resource));
    match name {
        "pods" | "cpu" | "memory" | "ephemeral-storage" => core("pods"),
        "services" | "services.nodeports" | "services.loadbalancers" => core("services"),
        "persistentvolumeclaims" | "requests.storage" => core("persistentvolumeclaims"),
        "configmaps" => core("configmaps"),
        "secrets" => core("secrets"),
        "replicationcontrollers" => core("replicationcontrollers"),
        "resourcequotas" => core("resourcequotas"),
        _ if name.contains(".storageclass.storage.k8s.io/") => core("persistentvolumeclaims"),
        _ if name.ends_with(".deviceclass.resource.k8s.io/devices") => {
            Some(GroupResource::new("resource.k8s.io", "resourceclaims"))
        }
        _ if ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix)) => core("pods"),
        _ => None,
    }
}

/// A string at a JSON pointer; empty if there is none.
/// What a pod asks for, by resource.
pub fn pod_requests(pod: &Object) -> Usage {
    usage::pod_total(pod, "requests")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list at a JSON pointer.
fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
