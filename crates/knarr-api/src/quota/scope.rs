//! Which objects a quota's scopes select. Only pods and claims have any; nothing else is selected by a quota with a scope.

use serde_json::Value;

use super::{items, text, usage};
use crate::{GroupResource, Object};

/// One demand of a quota: a scope, or a requirement of its scope selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// What an object shows to scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Facts {
    Pod { terminating: bool, best_effort: bool, priority_class: String, crosses_namespaces: bool },
    Claim { attributes_classes: Vec<String> },
    Other,
}

pub(super) fn of(quota: &Object) -> Vec<Scope> {
    let plain = items(quota, "/spec/scopes").filter_map(Value::as_str);
    let plain = plain.map(|name| Scope { name: name.into(), operator: "Exists".into(), values: Vec::new() });
    let selected = items(quota, "/spec/scopeSelector/matchExpressions").map(|requirement| Scope {
        name: text(requirement, "/scopeName").into(),
        operator: text(requirement, "/operator").into(),
        values: items(requirement, "/values").filter_map(Value::as_str).map(String::from).collect(),
    });
    plain.chain(selected).collect()
}

impl Facts {
    pub fn of(resource: &GroupResource, object: &Object) -> Facts {
        match (&*resource.group, &*resource.resource) {
            ("", "pods") => Facts::Pod {
                terminating: object.pointer("/spec/activeDeadlineSeconds").is_some_and(|v| v.as_i64().is_some()),
                best_effort: is_best_effort(object),
                priority_class: text(object, "/spec/priorityClassName").into(),
                crosses_namespaces: crosses_namespaces(object),
            },
            ("", "persistentvolumeclaims") => {
                const CLASSES: [&str; 3] = [
                    "/spec/volumeAttributesClassName",
                    "/status/currentVolumeAttributesClassName",
                    "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
                ];
                let named = CLASSES.map(|pointer| text(object, pointer)).into_iter().filter(|name| !name.is_empty());
                Facts::Claim { attributes_classes: named.map(String::from).collect() }
            }
            _ => Facts::Other,
        }
    }
}

impl Scope {
    pub fn selects(&self, facts: &Facts) -> bool {
        match facts {
            Facts::Pod { terminating, best_effort, priority_class, crosses_namespaces } => match self.name.as_str() {
                "Terminating" => *terminating,
                "NotTerminating" => !terminating,
                "BestEffort" => *best_effort,
                "NotBestEffort" => !best_effort,
                "CrossNamespacePodAffinity" => *crosses_namespaces,
                "PriorityClass" => self.accepts(std::slice::from_ref(priority_class)),
                _ => false,
            },
            Facts::Claim { attributes_classes } => {
                self.name == "VolumeAttributesClass" && self.accepts(attributes_classes)
            }
            Facts::Other => false,
        }
    }

    /// Whether the operator holds for the names that an object has, of which an empty one is none.
    fn accepts(&self, names: &[String]) -> bool {
        let among = |name: &String| self.values.contains(name);
        match self.operator.as_str() {
            "In" => names.iter().any(among),
            "NotIn" => !names.iter().any(among),
            "DoesNotExist" => names.iter().all(String::is_empty),
            _ => names.iter().any(|name| !name.is_empty()),
        }
    }
}

fn is_best_effort(pod: &Object) -> bool {
    usage::pod_total(pod, "requests").is_empty() && usage::pod_total(pod, "limits").is_empty()
}

fn crosses_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        items(term, "/namespaces").next().is_some() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let at = |field: &str| format!("/spec/affinity/{kind}/{field}DuringSchedulingIgnoredDuringExecution");
        items(pod, &at("required")).any(crosses)
            || items(pod, &at("preferred")).any(|p| p.get("podAffinityTerm").is_some_and(crosses))
    })
}
