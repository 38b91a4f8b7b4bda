//! Every verb, through the whole chain.

mod support;

use serde_json::{Value, json};
use support::Server;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": {"k": value}})
}

fn named(name: &str) -> String {
    format!("{CONFIG_MAPS}/{name}")
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = Server::start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a", "1")).await;
    assert_eq!(created.code, 201);
    let created = created.json();
    let metadata = &created["metadata"];
    assert!(metadata["uid"].is_string() && metadata["creationTimestamp"].is_string(), "{created}");
    assert_eq!(metadata["namespace"], "default");

    assert_eq!(server.get(&named("a")).await.ok(), created);
    let updated = server.put(&named("a"), &config_map("a", "2")).await.ok();
    assert_eq!(updated["data"]["k"], "2");
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let patched = server.merge(&named("a"), &json!({"data": {"l": "3"}})).await.ok();
    assert_eq!(patched["data"], json!({"k": "2", "l": "3"}));

    let deleted = server.delete(&named("a")).await.ok();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["uid"], created["metadata"]["uid"]);
    let gone = server.get(&named("a")).await;
    assert_eq!((gone.code, gone.json()["message"].as_str()), (404, Some("configmaps \"a\" not found")));
}

#[tokio::test]
async fn writes_that_do_not_fit_are_refused() {
    let server = Server::start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let again = server.post(CONFIG_MAPS, &config_map("a", "1")).await;
    assert_eq!((again.code, again.json()["reason"].as_str()), (409, Some("AlreadyExists")));

    server.put(&named("a"), &config_map("a", "2")).await.ok();
    let mut stale = config_map("a", "3");
    stale["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    let conflict = server.put(&named("a"), &stale).await.json();
    assert_eq!(
        conflict["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );
    let renamed = server.put(&named("a"), &config_map("b", "3")).await;
    assert_eq!(renamed.code, 400);
    let mut elsewhere = config_map("b", "1");
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(server.post(CONFIG_MAPS, &elsewhere).await.code, 400);
    assert_eq!(server.put(&named("none"), &config_map("none", "1")).await.code, 404);
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::start().await;
    let mut object = config_map("", "1");
    object["metadata"] = json!({"generateName": "x-"});
    let first = server.post(CONFIG_MAPS, &object).await.ok();
    let second = server.post(CONFIG_MAPS, &object).await.ok();
    let name = first["metadata"]["name"].as_str().unwrap_or_default();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let server = Server::start().await;
    let target = format!("{CONFIG_MAPS}?dryRun=All");
    assert_eq!(server.post(&target, &config_map("a", "1")).await.code, 201);
    assert_eq!(server.get(&named("a")).await.code, 404);
    let bad = server.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("a", "1")).await;
    assert_eq!(bad.code, 422);
}

#[tokio::test]
async fn lists_select_and_page() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIG_MAPS, &config_map(name, "1")).await.ok();
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_string()).collect()
    };
    let all = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(names(&all), ["a", "b", "c"]);
    assert_eq!((all["kind"].as_str(), all["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));
    assert_eq!(all["items"][0].get("kind"), None);
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?labelSelector=app%3Db")).await.ok()), ["b"]);
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?labelSelector=app+in+(a,c)")).await.ok()), ["a", "c"]);
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc")).await.ok()), ["c"]);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x%3Dc")).await.code, 400);

    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    // What happens in between does not show: the second page is of the first one's revision.
    server.delete(&named("c")).await.ok();
    server.post(CONFIG_MAPS, &config_map("d", "1")).await.ok();
    let token = first["metadata"]["continue"].as_str().expect("a continue token");
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
    let future = server.get(&format!("{CONFIG_MAPS}?resourceVersion=abc")).await;
    assert_eq!(future.code, 400);
}

#[tokio::test]
async fn watches_see_what_they_select() {
    let server = Server::start().await;
    let first = server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let version = first["metadata"]["resourceVersion"].as_str().expect("a version").to_string();
    let mut all = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let mut since = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    let mut labelled = server.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=app%3Db")).await;
    let mut one = server.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    let mut elsewhere = server.watch("/api/v1/namespaces/other/configmaps?watch=1").await;
    server.post(CONFIG_MAPS, &config_map("b", "1")).await.ok();
    server.merge(&named("b"), &json!({"metadata": {"labels": {"app": "other"}}})).await.ok();
    server.delete(&named("b")).await.ok();
    server.post("/api/v1/namespaces/other/configmaps", &config_map("z", "1")).await.ok();
    for expected in ["ADDED a", "ADDED b", "MODIFIED b", "DELETED b"] {
        assert_eq!(all.line().await, expected);
    }
    for expected in ["ADDED b", "MODIFIED b", "DELETED b"] {
        assert_eq!(since.line().await, expected);
        assert_eq!(one.line().await, expected);
    }
    // It stops matching before it is deleted.
    for expected in ["ADDED b", "DELETED b"] {
        assert_eq!(labelled.line().await, expected);
    }
    assert_eq!(elsewhere.line().await, "ADDED z");
}

#[tokio::test]
async fn a_deletion_is_newer_than_what_it_deletes() {
    let server = Server::start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let version = |v: &Value| v["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.delete(&named("a")).await.ok();
    watch.next().await;
    let gone = watch.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert!(version(&gone["object"]) > version(&created));
}

#[tokio::test]
async fn a_watch_list_marks_its_end() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let options = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{options}")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let mark = watch.next().await.expect("a bookmark");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_too_old_watch_is_told_so() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    // What is kept of the past is bounded in bytes too, so that a few large objects fill it.
    for i in 0..80 {
        server.merge(&named("a"), &json!({"data": {"k": format!("{i}{}", "x".repeat(500_000))}})).await.ok();
    }
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=2")).await;
    let error = watch.next().await.expect("an event");
    assert_eq!((error["type"].as_str(), error["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert_eq!(error["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn finalizers_hold_a_deletion() {
    let server = Server::start().await;
    let mut object = config_map("a", "1");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CONFIG_MAPS, &object).await.ok();
    let held = server.delete(&named("a")).await.ok();
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    assert_eq!(server.get(&named("a")).await.code, 200);
    server.merge(&named("a"), &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(server.get(&named("a")).await.code, 404);
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let server = Server::start().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let held = server.call("DELETE", &named("a"), "application/json", options.to_string()).await.ok();
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
        server.merge(&named("a"), &json!({"metadata": {"finalizers": null}})).await.ok();
    }
    server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let wrong = server.delete(&format!("{}?propagationPolicy=Nope", named("a"))).await;
    assert_eq!(wrong.code, 422);
    let uid = json!({"preconditions": {"uid": "other"}});
    assert_eq!(server.call("DELETE", &named("a"), "application/json", uid.to_string()).await.code, 409);
}

/// A pod without a node is marked and then removed; whoever sees the mark may remove it first, as the garbage collector of pods does.
#[tokio::test]
async fn a_delete_that_others_finish_succeeds() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let server = Server::start().await;
    let mut marks = server.watch(&format!("{PODS}?watch=true")).await;
    for round in 0..50 {
        let name = format!("p{round}");
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        server.post(PODS, &pod).await.ok();
        let path = format!("{PODS}/{name}");
        let hurry = async {
            while !marks.line().await.starts_with("MODIFIED") {}
            server.delete(&path).await;
            while !marks.line().await.starts_with("DELETED") {}
        };
        let (deleted, ()) = tokio::join!(server.delete(&path), hurry);
        assert_eq!(deleted.ok()["metadata"]["name"], name.as_str());
    }
}

#[tokio::test]
async fn collections_are_deleted() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIG_MAPS, &config_map(name, "1")).await.ok();
    }
    let deleted = server.delete(&format!("{CONFIG_MAPS}?labelSelector=app!%3Db")).await.ok();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    let left = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn routes_that_do_not_exist_are_refused() {
    let server = Server::start().await;
    for (method, target, code) in [
        ("GET", "/api/v1/namespaces/default/nothings", 404),
        ("GET", "/apis/none/v1/things", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/a/status", 404),
        ("POST", "/api/v1/namespaces/default/configmaps/a", 405),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
        ("DELETE", "/api/v1/configmaps", 405),
        ("GET", "/api/v1/namespaces/default/pods/../x", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/%ff", 400),
    ] {
        let answer = server.call(method, target, "application/json", "{}").await;
        assert_eq!(answer.code, code, "{method} {target} {}", answer.json());
    }
    let text = server.call("POST", CONFIG_MAPS, "text/csv", "a").await;
    assert_eq!(text.code, 415);
    let huge = server.call("POST", CONFIG_MAPS, "application/json", vec![b' '; 4 << 20]).await;
    assert_eq!((huge.code, huge.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
}

/// `tests/cases/refusals.yaml`: what is refused, and in which words.
#[tokio::test]
async fn refusals_read_as_upstreams() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    let text = std::fs::read_to_string("tests/cases/refusals.yaml").expect("a table of cases");
    let cases: Vec<Value> = serde_saphyr::from_str(&text).expect("a list of cases");
    for case in cases {
        let word = |field: &str| case[field].as_str().unwrap_or_default().to_string();
        let answer = server.call(&word("method"), &word("path"), &word("type"), word("body")).await;
        assert_eq!(Some(u64::from(answer.code)), case["code"].as_u64(), "{case}: {}", answer.json());
        let (said, wanted) = (answer.json()["message"].as_str().unwrap_or_default().to_string(), word("says"));
        assert!(said.contains(&wanted), "{case}: {said}");
    }
}

/// What admission and the strategies of kinds add has no owner, and zeros that are always there have none either.
#[tokio::test]
async fn writers_own_what_they_wrote() {
    let server = Server::start().await;
    let owned = |object: &Value| object["metadata"]["managedFields"][0]["fieldsV1"].clone();
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/v"}}});
    let volume = server.post("/api/v1/persistentvolumes", &volume).await.ok();
    assert!(volume["status"]["lastPhaseTransitionTime"].is_string(), "{volume}");
    assert_eq!(owned(&volume)["f:metadata"], Value::Null, "{volume}");
    let event =
        json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default", "name": "x"}, "message": "m"});
    let event = server.post("/api/v1/namespaces/default/events", &event).await.ok();
    assert_eq!(owned(&event), json!({"f:involvedObject": {}, "f:message": {}}));
    let review = json!({"spec": {"user": "x", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let review = server.post(reviews, &review).await;
    if review.code == 201 {
        assert_eq!(owned(&review.json())["f:spec"]["f:user"], json!({}));
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_right() {
    use bytes::Bytes;
    use http_body_util::Full;
    use tower::ServiceExt;
    let server = Server::start().await;
    let request = http::Request::builder().uri(CONFIG_MAPS).body(Full::<Bytes>::default()).expect("a request");
    let answer = server.service().oneshot(request).await.expect("the chain never fails");
    assert_eq!(answer.status(), 401);
    let client = server.api.client(knarr_apiserver::authentication::User::new("x", &[]));
    let request = http::Request::get(CONFIG_MAPS).body(Vec::new()).expect("a request");
    let refused = client.request_text(request).await.expect_err("no right");
    assert!(refused.to_string().contains("configmaps is forbidden"), "{refused}");
}

/// The one worker of the runtime must go on with other requests while a large one is checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_body_holds_nobody_up() {
    let server = std::sync::Arc::new(Server::start().await);
    let data: serde_json::Map<String, Value> =
        (0..60_000).map(|i| (format!("key/{i}"), "v".repeat(20).into())).collect();
    let large =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": data}).to_string();
    let (one, other) = (server.clone(), server.clone());
    let large = tokio::spawn(async move { one.call("POST", CONFIG_MAPS, "application/json", large).await.code });
    let small = tokio::spawn(async move { other.get("/api/v1/namespaces/default").await.code });
    small.await.expect("an answer");
    assert!(!large.is_finished(), "the small request came after the large one and is answered before it");
    assert_eq!(large.await.expect("an answer"), 422);
}
