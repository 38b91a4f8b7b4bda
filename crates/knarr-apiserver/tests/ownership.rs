//! Who owns what of an object, where it is not plain: zeros, views, defaults, what is too large.

mod support;

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use knarr_apiserver::authentication::{TransportIdentity, User};
use serde_json::{Value, json};
use support::{Answer, Server};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NODE: &str = "/api/v1/nodes/n";

async fn apply(server: &Server, target: &str, manager: &str, config: &Value) -> Answer {
    let joint = if target.contains('?') { '&' } else { '?' };
    let target = format!("{target}{joint}fieldManager={manager}");
    server.call("PATCH", &target, "application/apply-patch+yaml", config.to_string()).await
}

fn owned_by<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().find(|entry| entry["manager"] == manager).map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

fn node(unschedulable: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable}})
}

#[tokio::test]
async fn who_says_zero_owns_it() {
    let server = Server::start().await;
    let made = apply(&server, NODE, "one", &node(false)).await.ok();
    assert_eq!(owned_by(&made, "one")["f:spec"], json!({"f:unschedulable": {}}));
    let conflict = apply(&server, NODE, "two", &node(true)).await;
    assert_eq!(conflict.code, 409, "{}", conflict.json());
}

#[tokio::test]
async fn an_apply_that_names_an_object_by_its_uid_makes_no_other() {
    let server = Server::start().await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}});
    let refused = apply(&server, &format!("{MAPS}/a"), "one", &config).await;
    let why = "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and no \
               existing object was found";
    assert_eq!((refused.code, refused.json()["message"].as_str()), (409, Some(why)));
}

/// By an update as by a patch.
#[tokio::test]
async fn an_empty_list_of_managers_ends_the_tracking() {
    let server = Server::start().await;
    let target = format!("{MAPS}/a");
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    for end in ["PUT", "PATCH"] {
        apply(&server, &target, "one", &object).await.ok();
        object["metadata"]["managedFields"] = json!([]);
        match end {
            "PUT" => server.put(&target, &object).await.ok(),
            _ => server.merge(&target, &json!({"metadata": {"managedFields": []}})).await.ok(),
        };
        let after = server.merge(&target, &json!({"data": {"k": end}})).await.ok();
        assert_eq!(after["metadata"].get("managedFields"), None, "{end}");
        object["metadata"] = json!({"name": "a"});
        server.delete(&target).await.ok();
    }
}

#[tokio::test]
async fn a_scale_is_applied_to_what_it_scales() {
    let server = Server::start().await;
    let target = "/apis/apps/v1/namespaces/default/deployments/d";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    apply(&server, target, "one", &deployment).await.ok();
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 7}});
    let conflict = apply(&server, &format!("{target}/scale"), "two", &scale).await;
    assert_eq!(conflict.code, 409, "{}", conflict.json());
    assert!(conflict.json()["message"].as_str().is_some_and(|m| m.contains("\"one\"")), "{}", conflict.json());
    let scaled = apply(&server, &format!("{target}/scale?force=true"), "two", &scale).await.ok();
    assert_eq!((scaled["kind"].as_str(), &scaled["spec"]["replicas"]), (Some("Scale"), &json!(7)));
    let object = server.get(target).await.ok();
    assert_eq!(object["spec"]["replicas"], 7);
    assert_eq!(owned_by(&object, "two"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned_by(&object, "one")["f:spec"].get("f:replicas"), None);
    let nobody =
        server.call("PATCH", &format!("{target}/scale"), "application/apply-patch+yaml", scale.to_string()).await;
    assert_eq!(nobody.code, 422, "an apply needs a manager");
}

#[tokio::test]
async fn an_apply_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let target = "/apis/apps/v1/namespaces/default/statefulsets/s";
    let config = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {
        "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"limits": {"memory": "2048Mi"}}}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    let made = apply(&server, target, "one", &config).await.ok();
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"], "2Gi");
    let again = apply(&server, target, "one", &config).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

/// What kubelets do when they introduce themselves; of every other kind, a creator's status is dropped.
#[tokio::test]
async fn a_node_comes_with_its_status() {
    let server = Server::start().await;
    let mut node = node(false);
    node["status"] = json!({"capacity": {"memory": "1Gi"}});
    assert_eq!(server.post("/api/v1/nodes", &node).await.ok()["status"]["capacity"]["memory"], "1Gi");
    node["metadata"]["name"] = "m".into();
    let told = async |node: &Value| {
        let refused = server.post("/api/v1/nodes", node).await;
        assert_eq!(refused.code, 422, "{}", refused.json());
        refused.causes()
    };
    // What may be allocated is by default what there is.
    let both = |why: &str| ["capacity", "allocatable"].map(|field| format!("status.{field}.{why}"));
    node["status"]["capacity"]["pods"] = "1500m".into();
    assert_eq!(told(&node).await, both("pods: Invalid value: \"1500m\": must be an integer"));
    node["status"]["capacity"] = json!({"memory": "-1"});
    let why = "memory: Invalid value: \"-1\": must be greater than or equal to 0";
    assert_eq!(told(&node).await, both(why));
}

#[tokio::test]
async fn the_status_of_some_kinds_leaves_their_metadata_alone() {
    let server = Server::start().await;
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "f", "labels": {"a": "1"}},
        "spec": {"priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": 10}});
    server.post(schemas, &schema).await.ok();
    let label = json!({"metadata": {"labels": {"a": "2", "b": "3"}, "annotations": {"c": "4"}}});
    let patched = server.merge(&format!("{schemas}/f/status"), &label).await.ok();
    let metadata = &patched["metadata"];
    assert_eq!((&metadata["labels"], metadata.get("annotations")), (&json!({"a": "1"}), None));
    // Namespaces are of the others.
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await.ok();
    let space = server.merge("/api/v1/namespaces/a/status", &label).await.ok();
    assert_eq!(space["metadata"]["labels"]["b"], "3");
}

#[tokio::test]
async fn what_only_ownership_makes_too_large_is_stored_without_it() {
    let server = Server::start().await;
    let key = |n: usize| format!("this-key-is-very-long-so-as-to-create-a-very-large-serialized-fieldset-{n}");
    let data: Value = (0..9999).map(|n| (key(n), json!("A"))).collect::<serde_json::Map<_, _>>().into();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let made = server.post(MAPS, &object).await.ok();
    assert_eq!(made["metadata"].get("managedFields"), None);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let refused = apply(&server, &format!("{MAPS}/a"), "one", &config).await;
    assert_eq!((refused.code, refused.json()["message"].as_str()), (500, Some("etcdserver: request is too large")));
}

/// A request for a certificate, as good as any.
const REQUEST: &str = concat!(
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISE1IQUNBUUF3RGpFTU1Bb0dBMVVFQXd3RFltOWlNRmt3RXdZSEtvWkl6aj",
    "BDQVFZSUtvWkl6ajBEQVFjRApRZ0FFdEU0UnZ5NG1IT1E4TkZHMTNLTms0VVEvVEpYQ3lMbTlWUzhkdytPSlRTTkFHbVpDYzRUMU0vL2d4bEoz",
    "CmZwb1JnQXJYcVQxNE1NV3h3NTlLdFR1Mmw2QUFNQW9HQ0NxR1NNNDlCQU1DQTBjQU1FUUNJRytUd3d5YUFyWGYKbXFDWGUxL1FMT3BsN3V0eE",
    "VsalFRSWxQV1psQlRvbmJBaUJ5ZUZjT1gzQVZZWjNoNENLaWdnN2dJTHlkVlBXNgpTd0RzMkdoY0JkVU43Zz09Ci0tLS0tRU5EIENFUlRJRklD",
    "QVRFIFJFUVVFU1QtLS0tLQo=",
);

#[tokio::test]
async fn who_asks_for_a_certificate_is_written_down() {
    let server = Server::start().await;
    let asked = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": REQUEST, "signerName": "example.com/any", "usages": ["client auth"], "extra": {"k": ["forged"]}}});
    let mut user = User::new("bob", &["system:masters"]);
    user.extra.insert("key".into(), vec!["one,two".into(), "three".into()]);
    let request = Request::post("/apis/certificates.k8s.io/v1/certificatesigningrequests");
    let mut request = request.body(Full::from(asked.to_string())).expect("a request");
    request.extensions_mut().insert(TransportIdentity(Arc::new(user)));
    let response = server.service().oneshot(request).await.expect("the chain never fails");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let made: Value = serde_json::from_slice(&body).expect("JSON");
    let spec = &made["spec"];
    assert_eq!((&spec["username"], &spec["groups"]), (&json!("bob"), &json!(["system:masters"])), "{made}");
    assert_eq!(spec["extra"], json!({"key": ["one,two", "three"]}));
}

#[tokio::test]
async fn what_is_in_no_namespace_may_say_one() {
    let server = Server::start().await;
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}});
    assert_eq!(server.post("/api/v1/namespaces", &space).await.ok()["metadata"].get("namespace"), None);
}

/// However many write at once, a patch that names no version finds its turn.
#[tokio::test]
async fn patches_at_once_are_all_made() {
    let server = Server::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    server.post(MAPS, &map).await.ok();
    let target = format!("{MAPS}/a");
    let patches: Vec<Value> = (0..24).map(|n| json!({"data": {format!("k{n}"): "v"}})).collect();
    let answers = futures::future::join_all(patches.iter().map(|patch| server.merge(&target, patch))).await;
    assert_eq!(answers.iter().map(|answer| answer.code).collect::<Vec<_>>(), [200; 24]);
    let data = server.get(&target).await.ok()["data"].clone();
    assert_eq!(data.as_object().map(|data| data.len()), Some(24));
}

/// Of a patch, only what admission leaves is looked at.
#[tokio::test]
async fn owners_that_stand_twice_are_told_of_once() {
    let server = Server::start().await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"});
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "ownerReferences": [owner, owner]}});
    let told = |answer: &Answer| -> Vec<String> {
        let warnings = answer.headers.get_all("warning").iter().filter_map(|text| text.to_str().ok());
        warnings.filter_map(|text| text.split(';').next()).map(str::to_string).collect()
    };
    const TWICE: &str = "299 - \".metadata.ownerReferences contains duplicate entries";
    assert_eq!(told(&server.post(MAPS, &map).await), [TWICE]);
    let target = format!("{MAPS}/a");
    assert_eq!(told(&server.put(&target, &map).await), [TWICE]);
    let again = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]).to_string();
    let patched = server.call("PATCH", &target, "application/json-patch+json", again).await;
    assert_eq!(told(&patched), [format!("{TWICE} after mutating admission happens")]);
    assert_eq!(patched.ok()["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
}
