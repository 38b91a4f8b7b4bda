//! Admission webhooks, against HTTPS servers of the test.

mod support;

use base64::Engine;
use knarr_apiserver::admission::{self, MutatingAdmissionWebhook, ValidatingAdmissionWebhook};
use knarr_apiserver::authorization;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::outbound::Outbound;
use knarr_apiserver::registry::Hooks;
use knarr_apiserver::{Config, Registry};
use serde_json::{Value, json};
use std::sync::Arc;
use support::Server;
use support::remote::Remote;

const CONFIG_MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A server that calls webhooks and has the namespaces `ns` and `exempt` (which says so in a label).
async fn server() -> Server {
    let server = Server::start_with(|registry: &Arc<Registry>| {
        let objects: Arc<dyn Objects> = registry.clone();
        let outbound = Outbound::new(objects.clone());
        let authorizers = authorization::Chain::default();
        let admission = admission::Chain::new(vec![
            Arc::new(MutatingAdmissionWebhook::new(&objects, &outbound, authorizers.clone())),
            Arc::new(ValidatingAdmissionWebhook::new(&objects, &outbound, authorizers)),
        ]);
        Config { hooks: Hooks { admission, ..Hooks::default() }, ..Config::default() }
    })
    .await;
    for (name, labels) in [("ns", json!({})), ("exempt", json!({"skip": "yes"}))] {
        server.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await.ok();
    }
    server
}

/// One hook that sees every write of config maps, changed by `more`.
fn hook(name: &str, client: Value, more: Value) -> Value {
    let mut hook = json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hook
}

async fn configure(server: &Server, at: &str, name: &str, hooks: Value) {
    server.post(at, &json!({"metadata": {"name": name}, "webhooks": hooks})).await.ok();
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn patch(steps: Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(steps.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

fn allow() -> Value {
    json!({"allowed": true})
}

/// The mutators of upstream's own test: the second acts on what the first has done.
fn mutator(path: &str, request: &Value) -> Value {
    let has = |key: &str| request["object"]["data"].get(key).is_some();
    let add = |key: &str| patch(json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]));
    match path {
        "/stage-1" if has("start") => add("stage-1"),
        "/stage-2" if has("stage-1") => add("stage-2"),
        "/late" if has("stage-2") && !has("late") => add("late"),
        _ => allow(),
    }
}

#[tokio::test]
async fn mutators_run_in_order_and_again_where_they_want_to() {
    let server = server().await;
    let remote = Remote::webhook(mutator).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    // Configurations run in the order of their names.
    configure(
        &server,
        MUTATING,
        "b",
        json!([hook("s1", remote.at("/stage-1"), json!({})), hook("s2", remote.at("/stage-2"), json!({}))]),
    )
    .await;
    configure(&server, MUTATING, "a", json!([hook("late", remote.at("/late"), again)])).await;
    let created = server.post(CONFIG_MAPS, &config_map("c", json!({"start": "yes"}))).await.ok();
    assert_eq!(created["data"], json!({"start": "yes", "stage-1": "yes", "stage-2": "yes", "late": "yes"}));
    let stored = server.get(&format!("{CONFIG_MAPS}/c")).await.ok();
    assert_eq!(stored["data"], created["data"]);
    let paths = remote.asked.lock().len();
    assert_eq!(paths, 4, "three hooks, and the first once more");

    let untouched = server.post(CONFIG_MAPS, &config_map("d", json!({"other": "yes"}))).await.ok();
    assert_eq!(untouched["data"], json!({"other": "yes"}));
}

#[tokio::test]
async fn a_review_says_what_upstreams_says() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| json!({"allowed": true, "warnings": ["careful"]})).await;
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), json!({}))])).await;
    let answer = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("c", json!({}))).await;
    assert_eq!(answer.headers["warning"], "299 - \"careful\"");
    server.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "g-"}})).await.ok();
    let name = server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.ok()["metadata"]["name"].clone();
    server.merge(&format!("{CONFIG_MAPS}/c"), &json!({"data": {"a": "b"}})).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/c")).await.ok();

    let reviews = remote.asked.lock().clone();
    let request = &reviews[0]["request"];
    assert_eq!(reviews[0]["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["namespace"], &request["name"]), (&json!("ns"), &json!("c")));
    assert_eq!((&request["operation"], &request["dryRun"]), (&json!("CREATE"), &json!(true)));
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!((&request["object"]["kind"], &request["oldObject"]), (&json!("ConfigMap"), &Value::Null));
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert!(reviews[1]["request"]["name"].as_str().unwrap().starts_with("g-"), "validators see the generated name");
    assert_eq!(name, "c");
    let update = &reviews[3]["request"];
    assert_eq!((&update["operation"], &update["options"]["kind"]), (&json!("UPDATE"), &json!("UpdateOptions")));
    assert_eq!((&update["object"]["data"]["a"], update["oldObject"].get("data")), (&json!("b"), None));
    let delete = &reviews[4]["request"];
    assert_eq!((&delete["operation"], &delete["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(delete["oldObject"]["data"]["a"], "b");
}

#[tokio::test]
async fn validators_refuse_creates_updates_and_deletes() {
    let server = server().await;
    let remote = Remote::webhook(|_, request| {
        let object = if request["object"].is_null() { &request["oldObject"] } else { &request["object"] };
        match object["data"]["bad"].as_str() {
            Some(reason) => json!({"allowed": false, "status": {"message": "bad data", "reason": reason, "code": 403}}),
            None => allow(),
        }
    })
    .await;
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), json!({}))])).await;
    let refused = server.post(CONFIG_MAPS, &config_map("c", json!({"bad": "Mine"}))).await;
    assert_eq!(refused.code, 403);
    let status = refused.json();
    assert_eq!(status["message"], "admission webhook \"v.example.com\" denied the request: bad data");
    assert_eq!((&status["reason"], &status["status"]), (&json!("Mine"), &json!("Failure")));
    server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.ok();
    let at = format!("{CONFIG_MAPS}/c");
    assert_eq!(server.put(&at, &config_map("c", json!({"bad": "X"}))).await.code, 403);
    assert_eq!(server.merge(&at, &json!({"data": {"bad": "X"}})).await.code, 403);

    // What is stored already may be bad: then it cannot be deleted, nor its collection.
    let mut spoil = |object: &mut Value| {
        object["data"] = json!({"bad": "X"});
        Ok(())
    };
    let resource = knarr_api::GroupResource::new("", "configmaps");
    server.registry.modify(&resource, "ns", "c", &mut spoil).await.unwrap();
    assert_eq!(server.delete(&at).await.code, 403);
    assert_eq!(server.delete(CONFIG_MAPS).await.code, 403);
    server.delete(&format!("{VALIDATING}/v")).await.ok();
    server.delete(&at).await.ok();
}

#[tokio::test]
async fn objects_are_defaulted_after_mutation() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| {
        let container = json!({"name": "added", "image": "i", "nonsense": true});
        patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    })
    .await;
    let rules =
        json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&server, MUTATING, "m", json!([hook("m", remote.at("/"), rules)])).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = server.post("/api/v1/namespaces/ns/pods", &pod).await.ok();
    let added = &pod["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File");
    assert_eq!(added.get("nonsense"), None);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_closed_or_open() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| Value::Null).await;
    let nowhere = json!({"url": "https://127.0.0.1:1/x", "caBundle": remote.ca_bundle()});
    let mut stranger = remote.at("/strange");
    stranger.as_object_mut().unwrap().remove("caBundle");
    let slow = format!("Post \"https://{}/slow?timeout=1s\": context deadline exceeded", remote.address);
    let strange = format!(
        "Post \"https://{}/strange?timeout=1s\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
        remote.address
    );
    let closed = "Post \"https://127.0.0.1:1/x?timeout=1s\": dial tcp 127.0.0.1:1: connect: connection refused";
    let service = json!({"service": {"namespace": "ns", "name": "none"}, "caBundle": remote.ca_bundle()});
    let missing = "Post \"https://none.ns.svc:443/?timeout=1s\": service \"none\" not found";
    for (client, why) in [(nowhere, closed), (stranger, &strange), (remote.at("/slow"), &slow), (service, missing)] {
        let of =
            |policy: &str| json!([hook("v", client.clone(), json!({"failurePolicy": policy, "timeoutSeconds": 1}))]);
        configure(&server, VALIDATING, "v", of("Fail")).await;
        let refused = server.post(CONFIG_MAPS, &config_map("c", json!({}))).await;
        let message =
            format!("Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: {why}");
        assert_eq!((refused.code, refused.json()["message"].as_str()), (500, Some(&*message)));
        assert_eq!(refused.json()["reason"], "InternalError");
        server.delete(&format!("{VALIDATING}/v")).await.ok();
        for at in [VALIDATING, MUTATING] {
            configure(&server, at, "v", of("Ignore")).await;
            server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.ok();
            server.delete(&format!("{at}/v")).await.ok();
            server.delete(&format!("{CONFIG_MAPS}/c")).await.ok();
        }
    }
}

#[tokio::test]
async fn selectors_choose_namespaces_and_objects() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| json!({"allowed": false})).await;
    let more = json!({
        "namespaceSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "objectSelector": {"matchLabels": {"watched": "yes"}},
    });
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), more)])).await;
    let mut labelled = config_map("c", json!({}));
    labelled["metadata"]["labels"] = json!({"watched": "yes"});
    let refused = server.post(CONFIG_MAPS, &labelled).await;
    assert_eq!(refused.json()["message"], "admission webhook \"v.example.com\" denied the request without explanation");
    assert_eq!(refused.code, 400);
    server.post(CONFIG_MAPS, &config_map("plain", json!({}))).await.ok();
    server.post("/api/v1/namespaces/exempt/configmaps", &labelled).await.ok();
    // Taking the label away is seen by who watches over it.
    let removed =
        server.merge(&format!("{CONFIG_MAPS}/plain"), &json!({"metadata": {"labels": {"watched": "yes"}}})).await;
    assert_eq!(removed.code, 400);
}

#[tokio::test]
async fn equivalent_resources_are_converted_for_the_hook() {
    let server = server().await;
    let remote = Remote::webhook(|path, request| {
        assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "Event"}), "{path}");
        match path {
            "/m" => patch(json!([{"op": "replace", "path": "/message", "value": "changed"}])),
            _ => allow(),
        }
    })
    .await;
    let rules =
        json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["events"]}]});
    configure(&server, MUTATING, "m", json!([hook("m", remote.at("/m"), rules.clone())])).await;
    let mut exact = rules;
    exact["matchPolicy"] = "Exact".into();
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), exact)])).await;
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.example.com/x",
        "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal", "note": "asked",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "ns"},
    });
    let event = server.post("/apis/events.k8s.io/v1/namespaces/ns/events", &event).await.ok();
    assert_eq!((&event["apiVersion"], &event["note"]), (&json!("events.k8s.io/v1"), &json!("changed")));
    let asked = remote.asked.lock().clone();
    assert_eq!(asked.len(), 1, "an exact hook does not see other versions");
    assert_eq!(asked[0]["request"]["requestKind"]["group"], "events.k8s.io");
    assert_eq!(asked[0]["request"]["object"]["message"], "asked");
}

#[tokio::test]
async fn configurations_of_admission_are_nobodys_business() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| json!({"allowed": false})).await;
    let rules =
        json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), rules.clone())])).await;
    configure(&server, MUTATING, "m", json!([hook("m", remote.at("/m"), rules)])).await;
    assert_eq!(server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.code, 400);
    server.delete(&format!("{MUTATING}/m")).await.ok();
    server.delete(&format!("{VALIDATING}/v")).await.ok();
    server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.ok();
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_called_at_its_endpoint() {
    let server = server().await;
    let remote = Remote::webhook(|path, _| json!({"allowed": false, "status": {"message": path}})).await;
    remote.as_service(&server, 8443).await;
    let client = |port: u16| {
        let service = json!({"namespace": "ns", "name": "server", "port": port, "path": "/deny"});
        json!({"service": service, "caBundle": remote.ca_bundle()})
    };
    configure(&server, VALIDATING, "v", json!([hook("v", client(8443), json!({}))])).await;
    let refused = server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.json();
    assert_eq!(refused["message"], "admission webhook \"v.example.com\" denied the request: /deny");
    server.delete(&format!("{VALIDATING}/v")).await.ok();
    configure(&server, VALIDATING, "v", json!([hook("v", client(443), json!({}))])).await;
    let refused = server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.json();
    let why = "Post \"https://server.ns.svc:443/deny?timeout=10s\": no service port 443 found for service \"server\"";
    assert_eq!(
        refused["message"],
        format!("Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: {why}")
    );
}

#[tokio::test]
async fn match_conditions_choose_requests() {
    let server = server().await;
    let remote = Remote::webhook(|_, _| json!({"allowed": false})).await;
    let conditions = json!({"matchConditions": [
        {"name": "named", "expression": "object.metadata.name != 'free'"},
        {"name": "labelled", "expression": "object.metadata.name != 'wrong' || object.metadata.labels['x'] == 'y'"},
    ]});
    configure(&server, VALIDATING, "v", json!([hook("v", remote.at("/v"), conditions)])).await;
    server.post(CONFIG_MAPS, &config_map("free", json!({}))).await.ok();
    let refused = server.post(CONFIG_MAPS, &config_map("held", json!({}))).await;
    assert_eq!(refused.json()["message"], "admission webhook \"v.example.com\" denied the request without explanation");
    let failed = server.post(CONFIG_MAPS, &config_map("wrong", json!({}))).await;
    assert_eq!(failed.code, 403);
    let why = "resulted in error: no such key: labels";
    assert!(failed.json()["message"].as_str().unwrap().contains(why), "{}", failed.json());
}

#[tokio::test]
async fn calls_are_measured_under_upstreams_names() {
    let server = server().await;
    let refuse = |_: &str, _: &Value| json!({"allowed": false, "status": {"code": 418, "message": "no"}});
    let (refusing, changing) = (Remote::webhook(refuse).await, Remote::webhook(|_, _| allow()).await);
    let nowhere = json!({"url": "https://127.0.0.1:1/"});
    let open = json!({"failurePolicy": "Ignore"});
    let hooks = json!([hook("yes", changing.at("/"), json!({})), hook("gone", nowhere, open)]);
    configure(&server, MUTATING, "m", hooks).await;
    configure(&server, VALIDATING, "v", json!([hook("no", refusing.at("/"), json!({}))])).await;
    assert_eq!(server.post(CONFIG_MAPS, &config_map("c", json!({}))).await.code, 418);
    let page = String::from_utf8_lossy(&server.get("/metrics").await.body).into_owned();
    for line in [
        "apiserver_admission_webhook_request_total{code=\"200\",name=\"yes.example.com\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"} 1",
        "apiserver_admission_webhook_request_total{code=\"418\",name=\"no.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"} 1",
        "apiserver_admission_webhook_fail_open_count{name=\"gone.example.com\",type=\"admit\"} 1",
        "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"no.example.com\",operation=\"CREATE\",rejection_code=\"418\",type=\"validating\"} 1",
        "apiserver_admission_webhook_admission_duration_seconds_count{name=\"no.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"} 1",
        "rest_client_requests_total{code=\"<error>\",host=\"127.0.0.1:1\",method=\"POST\"} 1",
    ] {
        assert!(page.contains(line), "{line}");
    }
}
