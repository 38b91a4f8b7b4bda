//! Validating and mutating admission policies, through the server.

mod support;

use std::sync::Arc;

use knarr_apiserver::admission::{self, MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
use knarr_apiserver::authorization::{self, Attributes, Authorizer, Decision};
use knarr_apiserver::objects::Objects;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::{Config, Registry};
use serde_json::{Value, json};
use support::Server;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";

/// Allows everything but the verb `escape`.
struct AllButEscape;

#[async_trait::async_trait]
impl Authorizer for AllButEscape {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match attributes.verb {
            "escape" => Decision::Deny { reason: "no escape".to_string() },
            _ => Decision::Allow { reason: "sure".to_string() },
        }
    }
}

async fn server() -> Server {
    let server = Server::start_with(|registry: &Arc<Registry>| {
        let objects: Arc<dyn Objects> = registry.clone();
        let authorization = authorization::Chain::new(vec![Arc::new(AllButEscape)]);
        let admission = admission::Chain::new(vec![
            Arc::new(MutatingAdmissionPolicy::new(&objects, authorization.clone())),
            Arc::new(ValidatingAdmissionPolicy::new(&objects, authorization)),
        ]);
        Config { hooks: Hooks { admission, ..Hooks::default() }, ..Config::default() }
    })
    .await;
    for (name, labels) in [("ns", json!({"env": "prod"})), ("other", json!({}))] {
        server.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await.ok();
    }
    server
}

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [
        {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    ]})
}

/// A validating policy `p` over config maps with these parts of its spec, bound as `b` with these of the binding's.
async fn validating(server: &Server, spec: Value, binding: Value) {
    let mut whole = json!({"matchConstraints": constraints("", "configmaps")});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let policy = json!({"metadata": {"name": "p"}, "spec": whole});
    server.post(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await.ok();
    let mut whole = json!({"policyName": "p", "validationActions": ["Deny"]});
    whole.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
    let binding = json!({"metadata": {"name": "b"}, "spec": whole});
    server.post(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await.ok();
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_false_validation_refuses_with_its_message() {
    let server = server().await;
    let validations = json!({"validations": [
        {"expression": "has(object.data) && 'a' in object.data"},
        {"expression": "object.data['a'] != 'bad'", "message": "a is bad", "reason": "Forbidden"},
        {"expression": "object.data['a'].size() < 5", "messageExpression": "'too long: ' + object.data['a']"},
    ]});
    validating(&server, validations, json!({})).await;
    server.post(CONFIG_MAPS, &config_map("good", json!({"a": "x"}))).await.ok();
    let start = "is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request:";
    for (name, data, code, why) in [
        ("none", json!({}), 422, "failed expression: has(object.data) && 'a' in object.data"),
        ("bad", json!({"a": "bad"}), 403, "a is bad"),
        ("long", json!({"a": "123456"}), 422, "too long: 123456"),
    ] {
        let answer = server.post(CONFIG_MAPS, &config_map(name, data)).await;
        assert_eq!(answer.code, code, "{}", answer.json());
        assert_eq!(answer.json()["message"], format!("configmaps \"{name}\" {start} {why}"));
    }
    server.delete(&format!("{CONFIG_MAPS}/good")).await.ok();
}

#[tokio::test]
async fn updates_see_the_old_object() {
    let server = server().await;
    let validations = json!({"validations": [
        {"expression": "request.operation != 'UPDATE' || oldObject.data.a == object.data.a", "message": "a is immutable"}
    ]});
    validating(&server, validations, json!({})).await;
    server.post(CONFIG_MAPS, &config_map("x", json!({"a": "1"}))).await.ok();
    let path = format!("{CONFIG_MAPS}/x");
    server.merge(&path, &json!({"data": {"b": "2"}})).await.ok();
    assert_eq!(server.merge(&path, &json!({"data": {"a": "2"}})).await.code, 422);
}

#[tokio::test]
async fn actions_warn_and_failure_policies_decide() {
    let server = server().await;
    validating(
        &server,
        json!({"validations": [{"expression": "false"}]}),
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    let answer = server.post(CONFIG_MAPS, &config_map("x", json!({}))).await;
    answer.ok();
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(
        warning
            .contains("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: false"),
        "{warning}"
    );

    for (policy, code) in [("Fail", 422), ("Ignore", 201)] {
        let server = self::server().await;
        let spec = json!({"failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
        validating(&server, spec, json!({})).await;
        let answer = server.post(CONFIG_MAPS, &config_map("x", json!({"a": "1"}))).await;
        assert_eq!(answer.code, code);
        if code == 422 {
            let why = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
            assert!(answer.json()["message"].as_str().unwrap().ends_with(why), "{}", answer.json());
        }
    }
}

#[tokio::test]
async fn variables_are_composed_and_conditions_and_selectors_choose() {
    let server = server().await;
    let spec = json!({
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "variables": [
            {"name": "data", "expression": "has(object.data) ? object.data : {}"},
            {"name": "size", "expression": "variables.data.size()"},
        ],
        "validations": [{"expression": "variables.size > 0 && namespaceObject.metadata.labels.env == 'prod'"}],
    });
    let binding = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}});
    validating(&server, spec, binding).await;
    server.post(CONFIG_MAPS, &config_map("full", json!({"a": "1"}))).await.ok();
    server.post(CONFIG_MAPS, &config_map("exempt", json!({}))).await.ok();
    server.post("/api/v1/namespaces/other/configmaps", &config_map("free", json!({}))).await.ok();
    assert_eq!(server.post(CONFIG_MAPS, &config_map("empty", json!({}))).await.code, 422);
}

#[tokio::test]
async fn parameters_come_from_where_the_binding_says() {
    let server = server().await;
    let param =
        |name: &str, max: &str| json!({"metadata": {"name": name, "labels": {"role": "limit"}}, "data": {"max": max}});
    server.post("/api/v1/namespaces/other/configmaps", &param("limits", "3")).await.ok();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "params == null || object.data.size() <= int(params.data.max)"}],
    });
    let by_name = json!({"paramRef": {"name": "limits", "namespace": "other", "parameterNotFoundAction": "Deny"}});
    validating(&server, spec, by_name).await;
    let large = json!({"a": "1", "b": "2", "c": "3", "d": "4"});
    server.post(CONFIG_MAPS, &config_map("small", json!({"a": "1"}))).await.ok();
    assert_eq!(server.post(CONFIG_MAPS, &config_map("large", large.clone())).await.code, 422);

    server.delete("/api/v1/namespaces/other/configmaps/limits").await.ok();
    let answer = server.post(CONFIG_MAPS, &config_map("lost", json!({}))).await;
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(answer.json()["message"].as_str().unwrap().contains(why), "{}", answer.json());

    let binding = format!("{GROUP}/validatingadmissionpolicybindings/b");
    let selector = json!({"selector": {"matchLabels": {"role": "limit"}}, "namespace": "other", "name": null, "parameterNotFoundAction": "Allow"});
    server.merge(&binding, &json!({"spec": {"paramRef": selector}})).await.ok();
    server.post(CONFIG_MAPS, &config_map("free", large.clone())).await.ok();
    server.post("/api/v1/namespaces/other/configmaps", &param("again", "3")).await.ok();
    assert_eq!(server.post(CONFIG_MAPS, &config_map("held", large)).await.code, 422);
}

#[tokio::test]
async fn expressions_may_ask_the_authorizer() {
    let server = server().await;
    let spec = json!({"validations": [
        {"expression": "authorizer.requestResource.check('create').allowed()"},
        {"expression": "authorizer.serviceAccount('ns', 'robot').group('').resource('pods').namespace('x').check('escape').allowed()",
         "messageExpression": "'asked by ' + request.userInfo.username"},
    ]});
    validating(&server, spec, json!({})).await;
    let answer = server.post(CONFIG_MAPS, &config_map("x", json!({}))).await;
    assert!(
        answer.json()["message"].as_str().unwrap().ends_with("denied request: asked by admin"),
        "{}",
        answer.json()
    );
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused_at_their_places() {
    let server = server().await;
    let spec = json!({
        "matchConstraints": constraints("", "configmaps"),
        "matchConditions": [{"name": "c", "expression": "object.x +"}],
        "variables": [{"name": "v", "expression": "nope"}],
        "validations": [{"expression": "'a'"}, {"expression": "true", "messageExpression": "1"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "1"}],
    });
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    let answer = server.post(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(answer.code, 422);
    let causes = answer.json()["details"]["causes"].as_array().unwrap().clone();
    let found: Vec<(&str, &str)> =
        causes.iter().map(|c| (c["field"].as_str().unwrap(), c["message"].as_str().unwrap())).collect();
    for (field, why) in [
        ("spec.matchConditions[0].expression", "compilation failed: ERROR: <input>:1:11: Syntax error"),
        ("spec.variables[0].expression", "undeclared reference to 'nope' (in container '')"),
        ("spec.validations[0].expression", "must evaluate to bool but got string"),
        ("spec.validations[1].messageExpression", "must evaluate to string but got int"),
        ("spec.auditAnnotations[0].valueExpression", "must evaluate to one of [string null_type] but got int"),
    ] {
        assert!(found.iter().any(|(f, m)| *f == field && m.contains(why)), "{field}: {why} in {found:?}");
    }
}

/// A mutating policy with this mutation, bound.
async fn mutating(server: &Server, name: &str, resource: (&str, &str), mutation: Value) {
    let spec = json!({
        "matchConstraints": constraints(resource.0, resource.1),
        "reinvocationPolicy": "IfNeeded",
        "failurePolicy": "Fail",
        "mutations": [mutation],
    });
    server
        .post(&format!("{GROUP}/mutatingadmissionpolicies"), &json!({"metadata": {"name": name}, "spec": spec}))
        .await
        .ok();
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    server.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding).await.ok();
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    }})
}

#[tokio::test]
async fn apply_configurations_merge_by_keys() {
    let server = server().await;
    let expression = "Object{spec: Object.spec{replicas: object.spec.replicas + 4, template: Object.spec.template{spec: \
        Object.spec.template.spec{initContainers: [Object.spec.template.spec.initContainers{name: 'side', image: 's', restartPolicy: 'Always'}]}}}}";
    mutating(&server, "p", ("apps", "deployments"), apply(expression)).await;
    let made = server.post(DEPLOYMENTS, &deployment("web")).await.ok();
    assert_eq!(made["spec"]["replicas"], 5);
    let spec = &made["spec"]["template"]["spec"];
    assert_eq!(spec["initContainers"][0]["image"], "s");
    assert_eq!(spec["initContainers"][0]["terminationMessagePath"], "/dev/termination-log", "it is defaulted");
    assert_eq!(spec["containers"][0]["image"], "i");
}

#[tokio::test]
async fn json_patches_add_test_and_escape() {
    let server = server().await;
    let expression = "[
        JSONPatch{op: 'test', path: '/metadata/name', value: object.metadata.name},
        JSONPatch{op: 'add', path: '/metadata/annotations', value: {'seen': 'yes'}},
        JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'},
    ]";
    mutating(&server, "p", ("", "configmaps"), json_patch(expression)).await;
    let made = server.post(CONFIG_MAPS, &config_map("x", json!({}))).await.ok();
    assert_eq!(made["metadata"]["annotations"], json!({"seen": "yes", "a/b": "c"}));
}

#[tokio::test]
async fn a_mutation_that_fails_refuses() {
    let server = server().await;
    mutating(&server, "p", ("", "configmaps"), json_patch("[JSONPatch{op: 'remove', path: '/data/x'}]")).await;
    let answer = server.post(CONFIG_MAPS, &config_map("x", json!({}))).await;
    assert!(answer.code >= 400);
    let start = "policy 'p' with binding 'p' denied request: JSON Patch:";
    assert!(answer.json()["message"].as_str().unwrap().starts_with(start), "{}", answer.json());
}

#[tokio::test]
async fn mutations_that_do_not_compile_are_refused() {
    let server = server().await;
    let spec = json!({
        "matchConstraints": constraints("", "configmaps"),
        "reinvocationPolicy": "Never",
        "mutations": [apply("'a'"), json_patch("Object{}")],
    });
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    let answer = server.post(&format!("{GROUP}/mutatingadmissionpolicies"), &policy).await.json();
    let fields: Vec<&str> =
        answer["details"]["causes"].as_array().unwrap().iter().filter_map(|c| c["field"].as_str()).collect();
    assert_eq!(fields, ["spec.mutations[0].applyConfiguration.expression", "spec.mutations[1].jsonPatch.expression"]);
}

#[tokio::test]
async fn device_selectors_are_checked_when_they_are_written() {
    let server = server().await;
    let selector = |expression: &str| json!([{"cel": {"expression": expression}}]);
    let class = |expression: &str| json!({"metadata": {"name": "c"}, "spec": {"selectors": selector(expression)}});
    let claim = |expression: &str| {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "c", "selectors": selector(expression)}});
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}})
    };
    const CLASSES: &str = "/apis/resource.k8s.io/v1/deviceclasses";
    const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/ns/resourceclaims";
    for (target, object, field, why) in [
        (CLASSES, class("device.drive == 'd'"), "spec.selectors[0].cel.expression", "undefined field 'drive'"),
        (CLASSES, class("device.driver"), "spec.selectors[0].cel.expression", "must evaluate to bool"),
        (
            CLAIMS,
            claim("nothing"),
            "spec.devices.requests[0].exactly.selectors[0].cel.expression",
            "undeclared reference to 'nothing'",
        ),
    ] {
        let refused = server.post(target, &object).await;
        let cause = refused.json()["details"]["causes"][0].clone();
        let message = cause["message"].as_str().unwrap_or_default().to_string();
        assert_eq!((refused.code, &cause["field"], message.contains(why)), (422, &json!(field), true), "{cause}");
    }
    server.post(CLASSES, &class("device.driver == 'd'")).await.ok();
    server.post(CLAIMS, &claim("device.attributes['d'].size > 3")).await.ok();
}
