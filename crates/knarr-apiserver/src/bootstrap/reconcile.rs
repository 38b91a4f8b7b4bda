//! How a default object that exists is brought up to date without undoing what an administrator added.

use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object};
use serde_json::Value;

use crate::authorization::rbac::{self, Rule, covers};

const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";

/// Whether the server may change this object at start.
pub fn is_owned(resource: &GroupResource, current: &Object) -> bool {
    let annotation =
        |key: &str| current.pointer("/metadata/annotations").and_then(|a| a.get(key)).and_then(Value::as_str);
    match resource.group.as_ref() {
        rbac::GROUP => annotation("rbac.authorization.kubernetes.io/autoupdate") == Some("true"),
        FLOW_CONTROL => annotation("apf.kubernetes.io/autoupdate-spec") == Some("true"),
        "" | "discovery.k8s.io" => matches!(
            (resource.resource.as_ref(), current.name()),
            ("configmaps", _) | ("services" | "endpoints" | "endpointslices", "kubernetes")
        ),
        _ => false,
    }
}

/// Changes `current` to hold what is wanted.
pub fn mend(resource: &GroupResource, current: &mut Object, wanted: &Object) {
    for field in ["labels", "annotations"] {
        merge_map(current, wanted, field);
    }
    match resource.resource.as_ref() {
        "roles" | "clusterroles" => add_rules(current, wanted),
        "rolebindings" | "clusterrolebindings" => add_subjects(current, wanted),
        "configmaps" => merge_data(current, wanted),
        "endpoints" => replace(current, wanted, "subsets"),
        "endpointslices" => {
            replace(current, wanted, "endpoints");
            replace(current, wanted, "ports");
        }
        // The address must not change under running pods; the port may.
        "services" => current["spec"]["ports"] = wanted["spec"]["ports"].clone(),
        _ => replace(current, wanted, "spec"),
    }
}

fn replace(current: &mut Object, wanted: &Object, field: &str) {
    current[field] = wanted[field].clone();
}

fn merge_map(current: &mut Object, wanted: &Object, field: &str) {
    let Some(wanted) = wanted.metadata().and_then(|m| m.get(field)).and_then(Value::as_object) else { return };
    let metadata = current.metadata_mut();
    let map = metadata.entry(field).or_insert_with(|| Value::Object(serde_json::Map::new()));
    let Some(map) = map.as_object_mut() else { return };
    for (key, value) in wanted {
        map.entry(key).or_insert_with(|| value.clone());
    }
}

fn merge_data(current: &mut Object, wanted: &Object) {
    let Some(wanted) = wanted.get("data").and_then(Value::as_object) else { return };
    for (key, value) in wanted {
        current["data"][key] = value.clone();
    }
}

/// Rules that are covered already are not added again; an aggregated role's rules are its controller's.
fn add_rules(current: &mut Object, wanted: &Object) {
    if wanted.get("aggregationRule").is_some() {
        return replace(current, wanted, "aggregationRule");
    }
    let held = Rule::of_role(current);
    let rules = wanted.get("rules").and_then(Value::as_array).into_iter().flatten();
    let missing = rules.filter(|rule| !covers(&held, &[Rule::from_value(rule)]).is_empty());
    append(current, "rules", missing);
}

fn add_subjects(current: &mut Object, wanted: &Object) {
    let held = current.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let subjects = wanted.get("subjects").and_then(Value::as_array).into_iter().flatten();
    append(current, "subjects", subjects.filter(|s| !held.contains(s)));
}

fn append<'a>(object: &mut Object, field: &str, items: impl Iterator<Item = &'a Value>) {
    let mut items = items.cloned().peekable();
    if items.peek().is_none() {
        return;
    }
    if !object[field].is_array() {
        object[field] = Value::Array(Vec::new());
    }
    if let Some(list) = object[field].as_array_mut() {
        list.extend(items);
    }
}
