//! Definitions of custom resources, on their way to be served.

use serde_json::Value;

use super::Server;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Whether a definition has a condition.
pub fn is(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

/// Follows a definition until `done`.
pub async fn until(server: &Server, name: &str, done: impl Fn(&Value) -> bool) -> Value {
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let event = watch.next().await.expect("the watch goes on");
        if event["type"] == "DELETED" && done(&Value::Null) {
            return Value::Null;
        }
        if event["type"] != "DELETED" && done(&event["object"]) {
            return event["object"].clone();
        }
    }
}

/// Makes a definition and waits until it is served.
pub async fn define(server: &Server, object: &Value) -> Value {
    let created = server.post(DEFINITIONS, object).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let name = object["metadata"]["name"].as_str().expect("a name").to_string();
    until(server, &name, |object| is(object, "Established")).await
}
