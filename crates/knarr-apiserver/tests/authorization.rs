//! May they: webhooks, impersonation and reviews.

#[path = "support/access.rs"]
mod access;
#[path = "support/https_service.rs"]
mod https_service;

use std::path::Path;

use access::{Guarded, admin, default_modes};
use https_service::HttpsService;
use knarr_apiserver::access::TokenSources;
use knarr_apiserver::authentication::User;
use knarr_apiserver::authorization::configuration::AuthorizationConfiguration;
use serde_json::{Value, json};

/// Answers by the user's name: `yes`, `no`, `unsure`, `both`, `broken`.
async fn decider() -> HttpsService {
    HttpsService::start(|_, review| {
        let status = match review["spec"]["user"].as_str().unwrap_or_default() {
            "yes" => json!({"allowed": true, "reason": "because"}),
            "no" => json!({"allowed": false, "denied": true, "reason": "never"}),
            "both" => json!({"allowed": true, "denied": true}),
            "broken" => {
                return (400, json!({"kind": "Status", "status": "Failure", "message": "out of order", "code": 400}));
            }
            _ => json!({"allowed": false, "reason": "ask another"}),
        };
        (200, json!({"apiVersion": review["apiVersion"], "kind": "SubjectAccessReview", "status": status}))
    })
    .await
}

fn configuration(kubeconfig: &Path, policy: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  name: decider\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    failurePolicy: {policy}\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n- {{type: Node, name: node}}\n- {{type: RBAC, name: rbac}}\n",
        kubeconfig.display()
    )
}

async fn decided(policy: &str) -> (Guarded, HttpsService, tempfile::TempDir) {
    let (service, directory) = (decider().await, tempfile::tempdir().expect("a directory"));
    let text = configuration(&service.kubeconfig(directory.path(), "/authorize"), policy);
    let config = AuthorizationConfiguration::parse(&text).expect("a configuration");
    (Guarded::start(TokenSources::default(), config).await, service, directory)
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn list(server: &Guarded, user: &str, target: &str) -> (u16, Value) {
    let (code, _, answer) = server.call(User::new(user, &["system:authenticated"]), "GET", target, &Value::Null).await;
    (code, answer)
}

#[tokio::test]
async fn a_webhook_decides_and_what_it_leaves_open_goes_on() {
    let (server, service, _directory) = decided("NoOpinion").await;
    assert_eq!(list(&server, "yes", PODS).await.0, 200);
    let (code, refusal) = list(&server, "no", PODS).await;
    assert_eq!(
        (code, refusal["message"].as_str()),
        (
            403,
            Some(
                r#"pods is forbidden: User "no" cannot list resource "pods" in API group "" in the namespace "default": never"#
            )
        )
    );
    let (code, refusal) = list(&server, "unsure", PODS).await;
    assert_eq!(code, 403);
    assert!(refusal["message"].as_str().unwrap_or_default().ends_with(": ask another"), "{refusal}");
    assert_eq!(list(&server, "unsure", "/version").await.0, 200, "RBAC allows it after the webhook");
    assert_eq!(list(&server, "both", PODS).await.0, 500);
    assert_eq!(list(&server, "broken", PODS).await.0, 500);
    assert_eq!(list(&server, "broken", "/version").await.0, 200, "no opinion is no denial");
    let calls = service.calls();
    assert_eq!(list(&server, "yes", PODS).await.0, 200);
    assert_eq!(list(&server, "no", PODS).await.0, 403);
    assert_eq!(service.calls(), calls, "decisions are remembered");
    let masters = server.call(admin(), "GET", PODS, &Value::Null).await;
    assert_eq!((masters.0, service.calls()), (200, calls), "masters are not asked about");
}

#[tokio::test]
async fn a_webhook_is_asked_about_what_its_conditions_match() {
    let (server, service, directory) = decided("NoOpinion").await;
    let conditions = "    matchConditionSubjectAccessReviewVersion: v1\n    matchConditions:\n    - {expression: has(request.resourceAttributes)}\n    - {expression: \"request.resourceAttributes.resource == 'pods'\"}\n";
    let kubeconfig = service.kubeconfig(directory.path(), "/");
    let text = configuration(&kubeconfig, "Deny").replace("- {type: Node", &format!("{conditions}- {{type: Node"));
    server.access.reload_authorization(&text).expect("a configuration");
    let calls = service.calls();
    assert_eq!(list(&server, "yes", "/api/v1/namespaces/default/configmaps").await.0, 403);
    assert_eq!(list(&server, "broken", "/version").await.0, 200);
    assert_eq!(service.calls(), calls, "it was not asked");
    assert_eq!(list(&server, "yes", PODS).await.0, 200);
    let bad = text.replace("has(request.resourceAttributes)", "request.nothing");
    assert!(server.access.reload_authorization(&bad).is_err_and(|e| e.contains("compilation failed")));
}

#[tokio::test]
async fn a_webhook_that_fails_may_deny() {
    let (server, _service, _directory) = decided("Deny").await;
    assert_eq!(list(&server, "broken", "/version").await.0, 500);
    assert_eq!(list(&server, "unsure", "/version").await.0, 200);
}

#[tokio::test]
async fn a_webhook_is_told_what_is_selected() {
    let (server, service, _directory) = decided("NoOpinion").await;
    list(&server, "yes", &format!("{PODS}?fieldSelector=spec.nodeName%3Dn1&labelSelector=app%20in%20(a,b),!old")).await;
    let asked = service.received.lock().last().cloned().unwrap_or_default();
    assert_eq!(
        asked["spec"]["resourceAttributes"],
        json!({"namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
            "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]}})
    );
    assert_eq!((&asked["spec"]["user"], &asked["spec"]["groups"]), (&json!("yes"), &json!(["system:authenticated"])));
    list(&server, "yes", "/metrics").await;
    let asked = service.received.lock().last().cloned().unwrap_or_default();
    assert_eq!(asked["spec"]["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
}

#[tokio::test]
async fn a_changed_configuration_takes_effect() {
    let (server, service, directory) = decided("NoOpinion").await;
    assert_eq!(list(&server, "broken", "/version").await.0, 200);
    let kubeconfig = service.kubeconfig(directory.path(), "/");
    server.access.reload_authorization(&configuration(&kubeconfig, "Deny")).expect("a configuration");
    assert_eq!(list(&server, "broken", "/version").await.0, 500);
    let without = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: RBAC, name: rbac}\n";
    let error = server.access.reload_authorization(without).expect_err("Node must stay");
    assert!(error.contains("Node"), "{error}");
    assert_eq!(list(&server, "broken", "/version").await.0, 500, "the old one holds");
}

#[tokio::test]
async fn faults_of_a_configuration_are_named() {
    let parse = |authorizers: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}\n"
        );
        AuthorizationConfiguration::parse(&text).expect_err("a fault")
    };
    assert_eq!(parse("[]"), "authorizers: Required value: at least one authorization mode must be defined");
    assert!(
        parse("[{type: RBAC, name: a}, {type: RBAC, name: b}]")
            .contains("authorizers[1].type: Duplicate value: \"RBAC\"")
    );
    assert!(parse("[{type: Magic, name: a}]").contains("authorizers[0].type: Unsupported value: \"Magic\""));
    assert!(
        parse("[{type: Webhook, name: a}]")
            .contains("authorizers[0].webhook: Required value: required when type=Webhook")
    );
    let webhook = parse(
        "[{type: Webhook, name: a, webhook: {timeout: 31s, failurePolicy: Maybe, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /nonexistent}}}]",
    );
    for fault in [
        "must be > 0s and <= 30s",
        "subjectAccessReviewVersion: Required value",
        "failurePolicy: Unsupported value",
        "error loading file",
    ] {
        assert!(webhook.contains(fault), "{webhook}");
    }
}

#[tokio::test]
async fn impersonation_is_seen_by_whoami_and_holds_for_the_request() {
    let server = Guarded::start(TokenSources::default(), default_modes()).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let target = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "42"),
        ("impersonate-extra-acme.test%2fscope", "all"),
    ];
    let (code, _, answer) = server.send_as(Some(admin()), "POST", target, &headers, &review).await;
    assert_eq!(code, 201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "uid": "42", "groups": ["dev", "system:authenticated"], "extra": {"acme.test/scope": ["all"]}})
    );
    let (code, _, _) = server.send_as(Some(admin()), "GET", PODS, &headers[..1], &Value::Null).await;
    assert_eq!(code, 403, "jane may not list pods, whoever speaks as her");
    let (code, _, _) = server.send_as(Some(admin()), "GET", PODS, &headers[1..2], &Value::Null).await;
    assert_eq!(code, 400);
}

/// An apply and some updates create what they do not find.
#[tokio::test]
async fn who_may_only_change_creates_nothing() {
    let server = Guarded::start(TokenSources::default(), default_modes()).await;
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let role = |verbs: &[&str]| {
        json!({"metadata": {"name": "r"}, "rules": [
            {"apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases"], "verbs": verbs}]})
    };
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "panda"}]});
    let allow = async |method: &str, target: String, object: &Value| {
        let (code, _, answer) = server.call(admin(), method, &target, object).await;
        assert!(code < 300, "{answer}");
    };
    allow("POST", format!("{RBAC}/clusterroles"), &role(&["patch", "update"])).await;
    allow("POST", format!("{RBAC}/clusterrolebindings"), &binding).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}});
    let writes = [
        ("PATCH", "application/apply-patch+yaml", "/api/v1/namespaces/default/configmaps/a?fieldManager=m", &map),
        ("PUT", "application/json", "/apis/coordination.k8s.io/v1/namespaces/default/leases/a", &lease),
    ];
    // The authorizer hears of roles a moment later.
    let write = async |(method, content_type, target, object): (&str, &str, &str, &Value), heard: fn(&str) -> bool| loop {
        let headers = [("content-type", content_type)];
        let (code, _, answer) = server.send_as(Some(User::new("panda", &[])), method, target, &headers, object).await;
        let message = answer["message"].as_str().unwrap_or_default();
        if heard(message) {
            return (code, message.to_string());
        }
        tokio::task::yield_now().await;
    };
    for (write_it, what) in
        writes.into_iter().zip(["configmaps\" in API group \"\"", "leases\" in API group \"coordination.k8s.io\""])
    {
        let (code, message) =
            write(write_it, |message| !message.contains("cannot patch") && !message.contains("cannot update")).await;
        let wanted =
            format!("\"a\" is forbidden: User \"panda\" cannot create resource \"{what} in the namespace \"default\"");
        assert!(code == 403 && message.ends_with(&wanted), "{code} {message}");
    }
    allow("PUT", format!("{RBAC}/clusterroles/r"), &role(&["patch", "update", "create"])).await;
    for write_it in writes {
        assert_eq!(write(write_it, |message| !message.contains("cannot create")).await.0, 201);
    }
}

#[tokio::test]
async fn reviews_answer_and_refuse_as_upstream() {
    let server = Guarded::start(TokenSources::default(), default_modes()).await;
    let ask = async |resource: &str, kind: &str, object: Value| {
        let mut review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind});
        review.as_object_mut().expect("an object").extend(object.as_object().cloned().unwrap_or_default());
        let (code, _, answer) =
            server.call(admin(), "POST", &format!("/apis/authorization.k8s.io/v1/{resource}"), &review).await;
        (code, answer)
    };
    let node = |selector: Value| {
        json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "resource": "pods", "version": "v1", "fieldSelector": selector}}})
    };
    let requirement = |operator: &str, value: &str| json!({"requirements": [{"key": "spec.nodeName", "operator": operator, "values": [value]}]});
    for (selector, allowed) in [
        (json!({"rawSelector": "spec.nodeName=n1"}), true),
        (json!({"rawSelector": "spec.nodeName=n2"}), false),
        (requirement("In", "n1"), true),
        (requirement("NotIn", "n1"), false),
    ] {
        let (code, answer) = ask("subjectaccessreviews", "SubjectAccessReview", node(selector.clone())).await;
        assert_eq!((code, answer["status"]["allowed"] == true), (201, allowed), "{selector}");
    }
    let (_, answer) = ask("subjectaccessreviews", "SubjectAccessReview", node(json!({"rawSelector": "a b"}))).await;
    assert_eq!(answer["status"]["evaluationError"], "spec.resourceAttributes.fieldSelector ignored due to parse error");
    let refused = [
        (node(json!({})), "spec.resourceAttributes.fieldSelector.requirements"),
        (
            node(json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]})),
            "spec.resourceAttributes.fieldSelector.rawSelector",
        ),
        (
            json!({"metadata": {"name": "x"}, "spec": {"user": "x", "nonResourceAttributes": {"path": "/", "verb": "get"}}}),
            "metadata",
        ),
        (json!({"spec": {"user": "x"}}), "spec.resourceAttributes"),
    ];
    for (object, field) in refused {
        let (code, answer) = ask("subjectaccessreviews", "SubjectAccessReview", object).await;
        assert_eq!((code, answer["details"]["causes"][0]["field"].as_str()), (422, Some(field)), "{answer}");
    }
    let (_, answer) =
        ask("selfsubjectrulesreviews", "SelfSubjectRulesReview", json!({"spec": {"namespace": "default"}})).await;
    assert!(
        answer["status"]["resourceRules"]
            .as_array()
            .is_some_and(|rules| rules.iter().any(|r| r["verbs"] == json!(["*"]) && r["resources"] == json!(["*"])))
    );
}
