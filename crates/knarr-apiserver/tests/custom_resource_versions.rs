//! Versions of a custom kind that a webhook converts between.

mod support;

use serde_json::{Value, json};
use support::Server;
use support::definitions::{DEFINITIONS, define};
use support::remote::Remote;

const OLD: &str = "/apis/stable.example.com/v1/namespaces/default/hosts";
const NEW: &str = "/apis/stable.example.com/v2/namespaces/default/hosts";

/// `v1` has `hostPort: host:port`, `v2` has `host` and `port`.
fn convert(_path: &str, request: &Value) -> Value {
    let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = to.into();
        let Some(root) = object.as_object_mut() else { return Value::Null };
        if to.ends_with("/v2") {
            let joined = root.remove("hostPort").unwrap_or_default();
            let (host, port) = joined.as_str().and_then(|j| j.split_once(':')).unwrap_or_default();
            root.insert("host".into(), host.into());
            root.insert("port".into(), port.into());
        } else {
            let (host, port) = (root.remove("host").unwrap_or_default(), root.remove("port").unwrap_or_default());
            let joined = format!("{}:{}", host.as_str().unwrap_or_default(), port.as_str().unwrap_or_default());
            root.insert("hostPort".into(), joined.into());
        }
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(one).collect();
    if objects.iter().any(|o| o["metadata"]["name"] == "broken") {
        return json!({"result": {"status": "Failed", "message": "cannot be converted"}});
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn definition(webhook: Value, stored: &str) -> Value {
    let fields = |names: &[&str]| {
        let properties: Value =
            names.iter().map(|n| (n.to_string(), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>().into();
        json!({"openAPIV3Schema": {"type": "object", "properties": properties}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": webhook, "conversionReviewVersions": ["v1"]}},
            "versions": [
                {"name": "v1", "served": true, "storage": stored == "v1", "schema": fields(&["hostPort"]),
                    "selectableFields": [{"jsonPath": ".hostPort"}]},
                {"name": "v2", "served": true, "storage": stored == "v2", "schema": fields(&["host", "port"]),
                    "selectableFields": [{"jsonPath": ".host"}, {"jsonPath": ".port"}]},
            ],
        },
    })
}

async fn started(stored: &str) -> (Server, Remote) {
    let server = Server::start().await;
    let remote = Remote::webhook(convert).await;
    define(&server, &definition(remote.at("/convert"), stored)).await;
    (server, remote)
}

fn old(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "Host", "metadata": {"name": name}, "hostPort": host_port})
}

#[tokio::test]
async fn a_webhook_converts_what_is_read_and_written() {
    let (server, _remote) = started("v1").await;
    server.post(OLD, &old("a", "x:1")).await.ok();
    let read = server.get(&format!("{NEW}/a")).await.ok();
    assert_eq!(
        (&read["apiVersion"], &read["host"], &read["port"]),
        (&json!("stable.example.com/v2"), &json!("x"), &json!("1"))
    );
    let patched =
        server.merge(&format!("{NEW}/a"), &json!({"port": "2", "metadata": {"labels": {"l": "m"}}})).await.ok();
    assert_eq!((&patched["port"], patched.get("hostPort")), (&json!("2"), None));
    assert_eq!(server.get(&format!("{OLD}/a")).await.ok()["hostPort"], "x:2");

    // From now on objects are stored in the other version; both are read in either.
    let Some(Value::Array(versions)) =
        server.get(&format!("{DEFINITIONS}/hosts.stable.example.com")).await.ok().pointer("/spec/versions").cloned()
    else {
        panic!("no versions")
    };
    let mut versions = versions;
    versions[0]["storage"] = false.into();
    versions[1]["storage"] = true.into();
    server
        .merge(&format!("{DEFINITIONS}/hosts.stable.example.com"), &json!({"spec": {"versions": versions}}))
        .await
        .ok();
    server.post(OLD, &old("b", "y:3")).await.ok();
    for (target, field, values) in [(NEW, "host", ["x", "y"]), (OLD, "hostPort", ["x:2", "y:3"])] {
        let list = server.get(target).await.ok();
        let found: Vec<&str> =
            list["items"].as_array().expect("items").iter().filter_map(|o| o[field].as_str()).collect();
        assert_eq!(found, values, "{list}");
    }
    server.post(OLD, &old("broken", "z:4")).await;
    let failed = server.get(NEW).await;
    if failed.code != 200 {
        let message = failed.json()["message"].as_str().unwrap_or_default().to_string();
        assert_eq!(
            (failed.code, message.as_str()),
            (500, "conversion webhook for stable.example.com/v1, Kind=Host failed: cannot be converted")
        );
    }
}

#[tokio::test]
async fn fields_are_those_of_the_version_that_is_asked_for() {
    let (server, _remote) = started("v1").await;
    for (name, host_port) in [("a", "x:1"), ("b", "y:1"), ("c", "x:2")] {
        server.post(OLD, &old(name, host_port)).await.ok();
    }
    let list = server.get(&format!("{NEW}?fieldSelector=host%3Dx")).await.ok();
    let names: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|o| o["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(server.get(&format!("{NEW}?fieldSelector=hostPort%3Dx:1")).await.code, 400);
    let mut watch = server.watch(&format!("{NEW}?watch=true&fieldSelector=host%3Dx")).await;
    let first = watch.next().await.expect("an event");
    assert_eq!((&first["type"], &first["object"]["host"]), (&json!("ADDED"), &json!("x")));
    assert_eq!(watch.line().await, "ADDED c");
    server.merge(&format!("{OLD}/b"), &json!({"hostPort": "x:9"})).await.ok();
    assert_eq!(watch.line().await, "ADDED b");
    server.merge(&format!("{OLD}/a"), &json!({"hostPort": "z:9"})).await.ok();
    assert_eq!(watch.line().await, "DELETED a");
    let since = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let mut later = server.watch(&format!("{NEW}?watch=true&fieldSelector=host%3Dx&resourceVersion={since}")).await;
    assert_eq!((later.line().await, later.line().await), ("ADDED b".into(), "DELETED a".into()));
}

#[tokio::test]
async fn a_collection_is_deleted_by_the_fields_of_the_version_that_is_asked_for() {
    let (server, _remote) = started("v1").await;
    for (name, host_port) in [("a", "x:1"), ("b", "y:1"), ("c", "x:2")] {
        server.post(OLD, &old(name, host_port)).await.ok();
    }
    server.delete(&format!("{NEW}?fieldSelector=host%3Dx")).await.ok();
    let left = server.get(OLD).await.ok();
    let names: Vec<&str> =
        left["items"].as_array().expect("items").iter().filter_map(|o| o["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(server.delete(&format!("{NEW}?fieldSelector=hostPort%3Dx:1")).await.code, 400);
}
