//! Subresources that change one part of their object and nothing else: what each may change, and what it must not.

use serde_json::{Map, Value, json};

use super::row::carry;
use crate::field::{ErrorList, FieldError, Path};
use crate::object::{Object, ObjectExt};
use crate::strategy::Context;
use crate::validation::check::Checker;
use crate::validation::{core, pod_resize, signing_request};

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(|c| c.get("name").and_then(Value::as_str))
}

/// The item of this name.
fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|c| c.get("name").and_then(Value::as_str) == Some(name))
}

fn part<'a>(object: &'a Object, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// Makes `object` the old one with only the part of this subresource changed.
pub fn prepare(ctx: &Context, name: &str, object: &mut Object, old: &Object) {
    if name == "finalize" {
        // Who empties a namespace may change what any update may.
        return carry(object, old, "status");
    }
    let mut kept = old.clone();
    // Optimistic concurrency and field ownership are the writer's.
    for field in ["resourceVersion", "managedFields"] {
        match object.metadata().and_then(|m| m.get(field)).cloned() {
            Some(value) => drop(kept.metadata_mut().insert(field.into(), value)),
            None => drop(kept.metadata_mut().remove(field)),
        }
    }
    match name {
        "ephemeralcontainers" => {
            set(&mut kept["spec"], "ephemeralContainers", part(object, "/spec/ephemeralContainers"))
        }
        "resize" => resize(&mut kept, object),
        "approval" => {
            // Whoever approves may label and annotate, too.
            kept["metadata"] = object["metadata"].clone();
            set(&mut kept["status"], "conditions", part(object, "/status/conditions"));
            stamp_conditions(ctx, &mut kept, old);
        }
        _ => {}
    }
    *object = kept;
}

/// A list that is absent or empty leaves no field behind.
fn set(parent: &mut Value, field: &str, value: &Value) {
    let empty = value.as_array().is_none_or(Vec::is_empty);
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let Some(map) = parent.as_object_mut() else { return };
    if empty {
        map.remove(field);
    } else {
        map.insert(field.into(), value.clone());
    }
}

/// Takes over what a resize may change. Where the containers are not the old ones in the old order, all of them are taken over, for
/// validation to refuse.
fn resize(kept: &mut Object, wanted: &Object) {
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    let count = |pod: &Object, list: &str| pod["spec"][list].as_array().map_or(0, Vec::len);
    if LISTS.iter().any(|list| count(kept, list) != count(wanted, list)) {
        kept["spec"] = wanted["spec"].clone();
        return;
    }
    for list in LISTS {
        let asked = part(wanted, &format!("/spec/{list}"));
        if !names(asked).eq(names(&kept["spec"][list])) {
            kept["spec"][list] = asked.clone();
            continue;
        }
        let containers = kept["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, asked) in containers.zip(asked.as_array().into_iter().flatten()) {
            carry(container, asked, "resources");
            carry(container, asked, "resizePolicy");
        }
    }
    carry(&mut kept["spec"], &wanted["spec"], "resources");
}

/// Conditions tell when they were last told, and since when they hold.
pub fn stamp_conditions(ctx: &Context, request: &mut Object, old: &Object) {
    let now = jiff::Timestamp::from_second(ctx.now).unwrap_or_default().to_string();
    let Some(conditions) = request["status"].get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let before = part(old, "/status/conditions").as_array().map(Vec::as_slice).unwrap_or_default();
    for condition in conditions {
        let unset = |field: &str| condition.get(field).is_none_or(Value::is_null);
        let held = before.iter().find(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
        let since = held.map(|c| c["lastTransitionTime"].clone()).filter(|since| !since.is_null());
        let (told, changed) = (unset("lastUpdateTime"), unset("lastTransitionTime"));
        if told {
            condition["lastUpdateTime"] = now.clone().into();
        }
        if changed {
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone().into());
        }
    }
}

/// Everything wrong with the change.
pub fn validate(name: &str, object: &Object, old: &Object) -> ErrorList {
    match name {
        "ephemeralcontainers" => ephemeral_containers(object, old),
        "resize" => {
            let mut checker = Checker::new();
            pod_resize::validate(&mut checker, object, old);
            checker.into_errors()
        }
        "approval" => {
            let mut checker = Checker::new();
            signing_request::validate_approval(&mut checker, object, old);
            checker.into_errors()
        }
        "finalize" => {
            let mut checker = Checker::new();
            core::namespace(&mut checker, object);
            checker.into_errors()
        }
        _ => ErrorList::new(),
    }
}

fn ephemeral_containers(object: &Object, old: &Object) -> ErrorList {
    let root = Path::ROOT;
    let spec = root.child("spec");
    let path = spec.child("ephemeralContainers");
    let (new, before) = (part(object, "/spec/ephemeralContainers"), part(old, "/spec/ephemeralContainers"));
    let mut errors = ErrorList::new();
    for name in names(before) {
        match named(new, name) {
            None => errors.push(FieldError::forbidden(
                &path,
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            )),
            Some(container) if Some(container) != named(before, name) => {
                errors.push(FieldError::forbidden(
                    &path,
                    format!("existing ephemeral containers {name:?} may not be changed\n"),
                ));
            }
            Some(_) => {}
        }
    }
    for (i, container) in new.as_array().into_iter().flatten().enumerate() {
        ephemeral_container(&path.index(i), container, object, new, i, &mut errors);
    }
    errors
}

fn ephemeral_container(
    path: &Path<'_>,
    container: &Value,
    pod: &Object,
    all: &Value,
    i: usize,
    errors: &mut ErrorList,
) {
    let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if text("image").is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    }
    let elsewhere = ["/spec/containers", "/spec/initContainers"].iter().any(|l| named(part(pod, l), name).is_some());
    if !name.is_empty() && (elsewhere || names(all).take(i).any(|n| n == name)) {
        errors.push(FieldError::duplicate(&path.child("name"), &json!(name)));
    }
    let target = text("targetContainerName");
    let known = ["/spec/containers", "/spec/initContainers"].iter().any(|l| named(part(pod, l), target).is_some());
    if !target.is_empty() && !known {
        errors.push(FieldError::not_found(&path.child("targetContainerName"), &json!(target)));
    }
    for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
        let set = container.get(field).is_some_and(|v| match v {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
        if set {
            errors.push(FieldError::forbidden(&path.child(field), "cannot be set for an Ephemeral Container"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Object {
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}],
            "ephemeralContainers": [{"name": "d", "image": "i"}]}})
    }

    #[test]
    fn only_the_part_of_the_subresource_changes() {
        let old = pod();
        let mut new = pod();
        new["metadata"]["labels"]["a"] = "other".into();
        new["spec"]["nodeName"] = "other".into();
        new["spec"]["containers"][0]["image"] = "other".into();
        new["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        let mut debug = new.clone();
        debug["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}, {"name": "e", "image": "i"}]);
        prepare(&Context::default(), "ephemeralcontainers", &mut debug, &old);
        let mut want = pod();
        want["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}, {"name": "e", "image": "i"}]);
        assert_eq!(debug, want);
        prepare(&Context::default(), "resize", &mut new, &old);
        let mut want = pod();
        want["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        assert_eq!(new, want);
    }

    #[test]
    fn ephemeral_containers_are_only_ever_added() {
        let mut without = pod();
        without["spec"]["ephemeralContainers"] = json!([]);
        assert_eq!(validate("ephemeralcontainers", &without, &pod())[0].path, "spec.ephemeralContainers");
        let mut more = pod();
        let added = json!({"name": "c", "image": "i", "targetContainerName": "none", "ports": [{"containerPort": 1}]});
        more["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(added);
        let errors = validate("ephemeralcontainers", &more, &pod());
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        let at = |field: &str| format!("spec.ephemeralContainers[1].{field}");
        assert_eq!(paths, [at("name"), at("targetContainerName"), at("ports")]);
    }

    #[test]
    fn an_approval_stays() {
        let with = |kinds: &[&str]| {
            let conditions: Vec<Value> = kinds.iter().map(|k| json!({"type": k, "status": "True"})).collect();
            json!({"metadata": {"name": "r"}, "status": {"conditions": conditions}})
        };
        let wrong = |new: &[&str], old: &[&str]| {
            let errors = validate("approval", &with(new), &with(old));
            errors.iter().filter(|error| error.path.starts_with("status")).count()
        };
        assert_eq!(wrong(&["Approved"], &[]), 0);
        assert_eq!(wrong(&[], &["Approved"]), 1);
        assert_eq!(wrong(&["Approved", "Denied"], &[]), 1);
    }
}
