use serde_json::json;

use super::*;
use crate::resource::GroupVersionKind;
use crate::schema::schema;

fn patched(kind: &str, object: Value, patch: Value) -> Result<Value, (u16, String)> {
    let group = if kind == "Deployment" { "apps" } else { "" };
    let ty = schema().by_gvk(&GroupVersionKind::new(group, "v1", kind.to_string())).expect("a kind");
    apply(schema(), ty, object, patch.to_string().as_bytes()).map_err(|e| (e.code, e.message))
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn lists_of_maps_merge_by_their_key() {
    let object = pod(json!([{"name": "a", "image": "x", "tty": true}, {"name": "b", "image": "y"}]));
    let patch = pod(json!([{"name": "b", "image": "z"}, {"name": "c", "image": "w"}]));
    let merged = pod(json!([
        {"name": "a", "image": "x", "tty": true}, {"name": "b", "image": "z"}, {"name": "c", "image": "w"}
    ]));
    assert_eq!(patched("Pod", object, patch), Ok(merged));
}

#[test]
fn nested_lists_and_maps_merge() {
    let object = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}});
    let patch = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"template": {"spec": {"containers": [
        {"name": "a", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}}}});
    let merged = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"template": {"spec": {"containers": [
        {"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
         "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}]}]}}}});
    assert_eq!(patched("Deployment", object, patch), Ok(merged));
}

#[test]
fn item_directives_delete_and_replace() {
    let object = pod(json!([{"name": "a"}, {"name": "b"}]));
    let delete = pod(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(patched("Pod", object.clone(), delete), Ok(pod(json!([{"name": "b"}]))));
    let replace = pod(json!([{"$patch": "replace"}, {"name": "c"}]));
    assert_eq!(patched("Pod", object, replace), Ok(pod(json!([{"name": "c"}]))));
}

#[test]
fn map_directives_delete_and_replace() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let replace = json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}});
    assert_eq!(patched("Pod", object.clone(), replace), Ok(json!({"metadata": {"labels": {"c": "3"}}})));
    let delete = json!({"metadata": {"labels": {"$patch": "delete"}}});
    assert_eq!(patched("Pod", object, delete), Ok(json!({"metadata": {"labels": {}}})));
}

#[test]
fn null_removes_and_is_dropped_from_what_is_new() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"labels": {"a": null}, "annotations": {"x": null, "y": "1"}}});
    let merged = json!({"metadata": {"labels": {"b": "2"}, "annotations": {"y": "1"}}});
    assert_eq!(patched("Pod", object, patch), Ok(merged));
}

#[test]
fn primitive_lists_merge_delete_and_order() {
    let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let add = json!({"metadata": {"finalizers": ["d", "b"]}});
    assert_eq!(patched("Pod", object.clone(), add), Ok(json!({"metadata": {"finalizers": ["d", "a", "b", "c"]}})));
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}});
    assert_eq!(patched("Pod", object.clone(), delete), Ok(json!({"metadata": {"finalizers": ["a", "c"]}})));
    let order = json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"]}});
    assert_eq!(patched("Pod", object, order), Ok(json!({"metadata": {"finalizers": ["b", "c", "a"]}})));
}

#[test]
fn set_element_order_orders_what_is_merged() {
    let object = pod(json!([{"name": "a"}, {"name": "server"}, {"name": "b"}]));
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "x"}]}});
    let names: Vec<Value> = patched("Pod", object, patch).expect("fits")["spec"]["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["c", "server", "b", "a"]);
}

#[test]
fn retain_keys_drops_the_rest() {
    let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched("Deployment", object.clone(), patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}});
    assert_eq!(patched("Deployment", object, bad), Err((400, "invalid patch format of retainKeys".into())));
}

#[test]
fn atomic_lists_are_replaced() {
    let object = json!({"spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}});
    let patch = json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}});
    assert_eq!(patched("Pod", object, patch.clone()), Ok(patch));
}

#[test]
fn errors_read_as_upstream_writes_them() {
    let object = pod(json!([{"name": "a"}]));
    for (patch, code, message) in [
        (pod(json!([{"image": "x"}])), 500, "map: map[image:x] does not contain declared merge key: name"),
        (pod(json!([1])), 500, "list element types are not identical: [[map[name:a]] [1]]"),
        (json!({"$patch": "fly"}), 500, "unknown patch type: fly in map: map[$patch:fly]"),
        (json!({"spec": {"$setElementOrder/containers": 1}}), 500, "expected a []interface {}, but received a int64"),
        (json!({"spec": {"$deleteFromPrimitiveListx": []}}), 400, "invalid patch format of primitive list"),
        (json!([]), 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ] {
        assert_eq!(patched("Pod", object.clone(), patch), Err((code, message.to_string())));
    }
}
