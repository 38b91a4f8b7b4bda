//! `x-kubernetes-validations` of custom resources.

mod support;

use serde_json::{Value, json};
use support::Server;
use support::definitions::{DEFINITIONS, define};

const OLD: &str = "/apis/stable.example.com/v1/namespaces/default/hosts";

fn ruled(rules: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
                    "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string", "maxLength": 10}}}}}}}],
        },
    })
}

fn host(spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "Host", "metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn rules_hold_on_every_write() {
    let server = Server::start().await;
    let wrong = server.post(DEFINITIONS, &ruled(json!([{"rule": "self.nope > 1"}]))).await;
    assert_eq!(wrong.code, 422);
    let fields = wrong.causes();
    assert!(
        fields[0].starts_with("spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule:"),
        "{fields:?}"
    );
    let rules = json!([
        {"rule": "self.min <= self.max", "message": "min may not be more than max"},
        {"rule": "self.name == oldSelf.name", "messageExpression": "'name stays ' + oldSelf.name", "reason": "FieldValueForbidden", "fieldPath": ".name"},
    ]);
    define(&server, &ruled(rules)).await;
    let refused = server.post(OLD, &host(json!({"min": 2, "max": 1, "name": "n"}))).await;
    assert_eq!(
        (refused.code, refused.causes()),
        (422, vec!["spec: Invalid value: min may not be more than max".to_string()])
    );
    server.post(OLD, &host(json!({"min": 1, "max": 2, "name": "n"}))).await.ok();
    let refused = server.merge(&format!("{OLD}/a"), &json!({"spec": {"name": "m"}})).await;
    assert_eq!((refused.code, refused.causes()), (422, vec!["spec.name: Forbidden: name stays n".to_string()]));
    server.merge(&format!("{OLD}/a"), &json!({"spec": {"max": 3}})).await.ok();
    let unchecked = server.merge(&format!("{OLD}/a"), &json!({"spec": {"max": "x"}})).await;
    let causes = unchecked.causes();
    assert!(causes.iter().any(|c| c.contains("some validation rules were not checked")), "{causes:?}");
}

#[tokio::test]
async fn rules_hold_for_defaults() {
    let server = Server::start().await;
    let mut definition = ruled(json!([{"rule": "self.min <= self.max", "message": "min may not be more than max"}]));
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = definition.pointer_mut(spec).expect("a schema");
    spec["default"] = json!({"min": 2, "max": 1});
    let refused = server.post(DEFINITIONS, &definition).await;
    let expected =
        "spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: min may not be more than max";
    assert_eq!((refused.code, refused.causes()), (422, vec![expected.to_string()]));
    definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec").expect("a schema")["default"] =
        json!({"min": 1, "max": 1});
    server.post(DEFINITIONS, &definition).await.ok();
}
