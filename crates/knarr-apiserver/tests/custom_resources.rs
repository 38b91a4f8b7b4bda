//! Custom resources through the whole chain: definitions, and objects of the kinds that they define.

mod support;

use serde_json::{Value, json};
use support::definitions::{DEFINITIONS, define, is, until};
use support::{Answer, Server};

const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn tab_schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)( (\\d+|\\*)){4}$", "description": "When."},
            "image": {"type": "string", "default": "busybox"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "kind": {"type": "string", "enum": ["a", "b"]},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "number": {"type": "integer", "maximum": 100}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }})
}

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}]}],
        },
    })
}

fn tab(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": {"cronSpec": "* * * * *"}})
}

fn named(name: &str) -> String {
    format!("{TABS}/{name}")
}

/// Changes a definition and waits until it is served so: the first write that shows it.
async fn redefine(server: &Server, name: &str, patch: &Value) -> Value {
    server.merge(&format!("{DEFINITIONS}/{name}"), patch).await.ok()
}

async fn started() -> Server {
    let server = Server::start().await;
    define(&server, &definition(tab_schema())).await;
    server
}

async fn request(server: &Server, method: &str, target: &str, content_type: &str, body: &Value) -> Answer {
    server.call(method, target, content_type, body.to_string()).await
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_are_served_at_once() {
    let server = Server::start().await;
    assert_eq!(server.get(TABS).await.code, 404);
    let established = define(&server, &definition(tab_schema())).await;
    assert!(is(&established, "NamesAccepted"));
    let status = &established["status"];
    assert_eq!(status["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(status["storedVersions"], json!(["v1"]));

    let created = server.post(TABS, &tab("a")).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let created = created.json();
    assert_eq!(created["spec"], json!({"cronSpec": "* * * * *", "image": "busybox"}));
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(server.get(&named("a")).await.ok(), created);
    let list = server.get(TABS).await.ok();
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("CronTabList"), &json!("CronTab")));
    let deleted = server.delete(&named("a")).await.ok();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(server.get(&named("a")).await.code, 404);
}

#[tokio::test]
async fn unknown_fields_are_pruned_warned_of_or_refused() {
    let server = started().await;
    let mut object = tab("a");
    object["spec"]["zzz"] = json!({"deep": 1});
    object["spec"]["free"] = json!({"any": {"thing": [1, null]}});
    object["spec"]["template"] =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "zzz": 1}, "spec": {"a": 1}});
    object["metadata"]["zzz"] = 1.into();
    let created = server.post(TABS, &object).await;
    let warnings: Vec<&str> = created.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
    assert_eq!(
        warnings,
        [
            "299 - \"unknown field \\\"metadata.zzz\\\"\"",
            "299 - \"unknown field \\\"spec.zzz\\\"\"",
            "299 - \"unknown field \\\"spec.template.metadata.zzz\\\"\"",
        ]
    );
    let created = created.ok();
    assert_eq!(created["spec"]["free"], json!({"any": {"thing": [1, null]}}));
    assert_eq!(created["spec"]["template"]["metadata"], json!({"name": "x"}));
    assert_eq!(created["spec"]["template"]["spec"], json!({"a": 1}));
    assert!(created["spec"].get("zzz").is_none());

    let strict = server.post(&format!("{TABS}?fieldValidation=Strict"), &object).await;
    assert_eq!(
        (strict.code, strict.json()["message"].as_str()),
        (
            400,
            Some(
                "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \
                 \"metadata.zzz\", unknown field \"spec.zzz\", unknown field \"spec.template.metadata.zzz\""
            )
        )
    );
    let twice = r#"{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"b"},"spec":{"cronSpec":"* * * * *","cronSpec":"1 * * * *"}}"#;
    let strict = server.call("POST", &format!("{TABS}?fieldValidation=Strict"), "application/json", twice).await;
    assert!(strict.json()["message"].as_str().is_some_and(|m| m.ends_with("duplicate field \"spec.cronSpec\"")));
    let patched = server
        .call(
            "PATCH",
            &format!("{}?fieldValidation=Strict", named("a")),
            "application/merge-patch+json",
            r#"{"spec":{"nope":1}}"#,
        )
        .await;
    assert!(patched.code == 422 && patched.causes()[0].starts_with("patch: "), "{}", patched.json());
}

/// What is sent as the spec, and the causes of the answer.
const REFUSED: &[(&str, &[&str])] = &[
    (r#"{}"#, &["spec.cronSpec: Required value"]),
    (
        r#"{"cronSpec":"* * * * *","replicas":11}"#,
        &["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"],
    ),
    (
        r#"{"cronSpec":"* * * * *","replicas":"2"}"#,
        &[
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 2 is of the type string, expected int64",
        ],
    ),
    (
        r#"{"cronSpec":"x"}"#,
        &[r#"spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\d+|\*)( (\d+|\*)){4}$'"#],
    ),
    (
        r#"{"cronSpec":"* * * * *","kind":"c"}"#,
        &["spec.kind: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    ),
    (
        r#"{"cronSpec":"* * * * *","port":true}"#,
        &["spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\""],
    ),
    (
        r#"{"cronSpec":"* * * * *","ports":[{"name":"a"},{"name":"a"}]}"#,
        &["spec.ports[1]: Duplicate value: {\"name\":\"a\"}"],
    ),
    (r#"{"cronSpec":"* * * * *","tags":["a","b","a"]}"#, &["spec.tags[2]: Duplicate value: \"a\""]),
    (
        r#"{"cronSpec":"* * * * *","template":{"metadata":{}}}"#,
        &["spec.template.apiVersion: Required value", "spec.template.kind: Required value"],
    ),
];

#[tokio::test]
async fn objects_that_do_not_fit_their_schema_are_refused_in_upstreams_words() {
    let server = started().await;
    for (spec, wanted) in REFUSED {
        let mut object = tab("a");
        object["spec"] = serde_json::from_str(spec).expect("a case is JSON");
        let answer = server.post(TABS, &object).await;
        assert_eq!(answer.code, 422, "{spec}: {}", answer.json());
        assert_eq!(answer.causes(), *wanted, "{spec}");
    }
    let mut other = tab("a");
    other["kind"] = "Other".into();
    let answer = server.post(TABS, &other).await;
    assert_eq!(answer.causes(), ["kind: Invalid value: \"Other\": must be CronTab"]);
    other["kind"] = "CronTab".into();
    other["apiVersion"] = "stable.example.com/v9".into();
    assert_eq!(server.post(TABS, &other).await.code, 400);
}

#[tokio::test]
async fn what_was_wrong_before_and_did_not_change_is_let_pass() {
    let server = started().await;
    let mut object = tab("a");
    object["spec"]["replicas"] = 9.into();
    object["spec"]["ports"] = json!([{"name": "a", "number": 90}, {"name": "b", "number": 1}]);
    server.post(TABS, &object).await.ok();
    let mut narrower = tab_schema();
    narrower["properties"]["spec"]["properties"]["replicas"]["maximum"] = 5.into();
    narrower["properties"]["spec"]["properties"]["ports"]["items"]["properties"]["number"]["maximum"] = 50.into();
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": narrower}}]);
    redefine(&server, "crontabs.stable.example.com", &json!({"spec": {"versions": versions}})).await;
    let mut tried = tab("b");
    tried["spec"]["replicas"] = 9.into();
    // The new schema is served once it refuses what the old one took.
    while server.post(&format!("{TABS}?dryRun=All"), &tried).await.code != 422 {
        tokio::task::yield_now().await;
    }
    server.merge(&named("a"), &json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
    server.merge(&named("a"), &json!({"spec": {"image": "other"}})).await.ok();
    let ports = json!({"spec": {"ports": [{"name": "b", "number": 2}, {"name": "a", "number": 90}]}});
    server.merge(&named("a"), &ports).await.ok();
    let worse = server.merge(&named("a"), &json!({"spec": {"replicas": 8}})).await;
    assert_eq!(worse.code, 422);
    let ports = json!({"spec": {"ports": [{"name": "a", "number": 91}]}});
    assert_eq!(server.merge(&named("a"), &ports).await.code, 422);
}

#[tokio::test]
async fn status_and_scale_are_endpoints_of_their_own() {
    let server = started().await;
    let mut object = tab("a");
    object["spec"]["replicas"] = 2.into();
    object["status"] = json!({"replicas": 7});
    let created = server.post(TABS, &object).await.ok();
    assert!(created.get("status").is_none());
    let status = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"labels": {"no": "no"}},
        "spec": {"cronSpec": "1 1 1 1 1"}, "status": {"replicas": 1, "selector": "a=b"}});
    let updated = server.merge(&format!("{}/status", named("a")), &status).await.ok();
    assert_eq!(updated["status"], json!({"replicas": 1, "selector": "a=b"}));
    assert_eq!((&updated["spec"], &updated["metadata"]["labels"]), (&created["spec"], &Value::Null));
    assert_eq!(updated["metadata"]["generation"], 1);
    let wrong = server.merge(&format!("{}/status", named("a")), &json!({"status": {"replicas": "x"}})).await;
    assert_eq!(
        wrong.causes()[0],
        "status.replicas: Invalid value: \"string\": replicas in body must be of type integer: \"string\""
    );
    let spec = server.merge(&named("a"), &json!({"spec": {"image": "x"}, "status": {"replicas": 5}})).await.ok();
    assert_eq!((&spec["status"]["replicas"], &spec["metadata"]["generation"]), (&json!(1), &json!(2)));

    let scale = server.get(&format!("{}/scale", named("a"))).await.ok();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled = server.merge(&format!("{}/scale", named("a")), &json!({"spec": {"replicas": 4}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 4);
    assert_eq!(server.get(&named("a")).await.ok()["spec"]["replicas"], 4);
    assert_eq!(server.get(&format!("{}/log", named("a"))).await.code, 404);
}

#[tokio::test]
async fn an_update_names_the_version_that_it_changes() {
    let server = started().await;
    let created = server.post(TABS, &tab("a")).await.ok();
    let refused = server.put(&named("a"), &tab("a")).await;
    assert_eq!(refused.causes(), ["metadata.resourceVersion: Invalid value: 0: must be specified for an update"]);
    let mut object = created.clone();
    object["spec"]["image"] = "other".into();
    assert_eq!(server.put(&named("a"), &object).await.ok()["metadata"]["generation"], 2);
    assert_eq!(server.put(&named("a"), &object).await.code, 409);
    assert_eq!(server.put(&named("none"), &tab("none")).await.code, 404);
    let strategic = request(&server, "PATCH", &named("a"), "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(strategic.code, 415);
    let protobuf = server.call("POST", TABS, "application/vnd.kubernetes.protobuf", "k8s\0").await;
    assert_eq!(protobuf.code, 415);
    let json_patch = json!([{"op": "replace", "path": "/spec/image", "value": "third"}]);
    let patched = request(&server, "PATCH", &named("a"), "application/json-patch+json", &json_patch).await.ok();
    assert_eq!(patched["spec"]["image"], "third");
}

#[tokio::test]
async fn apply_merges_by_the_schema_and_records_owners() {
    let server = started().await;
    let apply = |manager: &str, ports: Value| {
        let mut object = tab("a");
        object["spec"]["ports"] = ports;
        (format!("{}?fieldManager={manager}", named("a")), object)
    };
    const APPLY: &str = "application/apply-patch+yaml";
    let (target, object) = apply("one", json!([{"name": "a", "number": 1}]));
    let created = request(&server, "PATCH", &target, APPLY, &object).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let (target, object) = apply("two", json!([{"name": "b", "number": 2}]));
    let merged = request(&server, "PATCH", &target, APPLY, &object).await.ok();
    assert_eq!(merged["spec"]["ports"], json!([{"name": "a", "number": 1}, {"name": "b", "number": 2}]));
    let fields = &merged["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:ports"]["k:{\"name\":\"a\"}"], json!({".": {}, "f:name": {}, "f:number": {}}));
    let (target, object) = apply("two", json!([{"name": "a", "number": 3}]));
    let conflict = request(&server, "PATCH", &target, APPLY, &object).await;
    assert_eq!(conflict.code, 409, "{}", conflict.json());
    let mut unknown = tab("a");
    unknown["spec"]["zzz"] = 1.into();
    let refused = request(&server, "PATCH", &target, APPLY, &unknown).await.json();
    assert!(
        refused["message"].as_str().is_some_and(|m| m.ends_with(".spec.zzz: field not declared in schema")),
        "{refused}"
    );
}

#[tokio::test]
async fn objects_are_selected_by_their_fields() {
    let server = started().await;
    for (name, image) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = tab(name);
        object["spec"]["image"] = image.into();
        server.post(TABS, &object).await.ok();
    }
    let list = server.get(&format!("{TABS}?fieldSelector=spec.image%3Dx")).await.ok();
    let names: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    let mut watch = server.watch(&format!("{TABS}?watch=true&fieldSelector=spec.image%3Dy")).await;
    assert_eq!(watch.line().await, "ADDED b");
    server.merge(&named("a"), &json!({"spec": {"image": "y"}})).await.ok();
    assert_eq!(watch.line().await, "ADDED a");
    server.merge(&named("b"), &json!({"spec": {"image": "z"}})).await.ok();
    assert_eq!(watch.line().await, "DELETED b");
    let unknown = server.get(&format!("{TABS}?fieldSelector=spec.replicas%3D1")).await;
    assert_eq!(
        (unknown.code, unknown.json()["message"].as_str()),
        (400, Some("field label not supported: spec.replicas"))
    );
}

#[tokio::test]
async fn tables_and_metadata_are_other_forms() {
    let server = started().await;
    server.post(TABS, &tab("a")).await.ok();
    let form = async |accept: &str| {
        let request = http::Request::builder().uri(TABS).header("accept", accept);
        let response = server.send(request.body(http_body_util::Full::default()).expect("a request")).await;
        let code = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        (code, serde_json::from_slice::<Value>(&body).unwrap_or_default())
    };
    let (_, table) = form("application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(columns, ["Name", "Spec", "Replicas"]);
    let described = "Custom resource definition column (in JSONPath format): .spec.cronSpec";
    assert_eq!(table["columnDefinitions"][1]["description"], described);
    let document = server.get("/openapi/v2").await.ok();
    let selectable = &document["definitions"]["com.example.stable.v1.CronTab"]["x-kubernetes-selectable-fields"];
    assert_eq!(selectable, &json!([{"fieldPath": "spec.image"}]));
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* * * * *", null]));
    let (_, metadata) = form("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!((&metadata["kind"], &metadata["items"][0]["spec"]), (&json!("PartialObjectMetadataList"), &Value::Null));
    assert_eq!(form("application/vnd.kubernetes.protobuf").await.0, 406);
}

#[tokio::test]
async fn discovery_and_openapi_tell_of_the_kind_and_forget_it() {
    let server = Server::start().await;
    let aggregated = async || {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let request = http::Request::builder().uri("/apis").header("accept", accept);
        let response = server.send(request.body(http_body_util::Full::default()).expect("a request")).await;
        response.headers()["etag"].clone()
    };
    let before = aggregated().await;
    define(&server, &definition(tab_schema())).await;
    assert_ne!(aggregated().await, before);
    let group = server.get("/apis/stable.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["groupVersion"], "stable.example.com/v1");
    let resources = server.get("/apis/stable.example.com/v1").await.ok();
    let names: Vec<&str> =
        resources["resources"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(
        (&resources["resources"][0]["shortNames"], &resources["resources"][0]["categories"]),
        (&json!(["ct"]), &json!(["all"]))
    );

    let index = server.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().expect("listed").to_string();
    let document = server.get(&url).await.ok();
    let kind = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(kind["properties"]["spec"]["properties"]["cronSpec"]["description"], "When.");
    assert_eq!(kind["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    assert!(
        document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"].is_object()
    );
    let v2 = server.get("/openapi/v2").await.ok();
    assert!(v2["definitions"]["com.example.stable.v1.CronTabList"].is_object());
    assert!(v2["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]["free"].is_object());

    redefine(&server, "crontabs.stable.example.com", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    until(&server, "crontabs.stable.example.com", Value::is_null).await;
    while server.get("/apis/stable.example.com").await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert!(server.get("/openapi/v3").await.ok()["paths"].get("apis/stable.example.com/v1").is_none());
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let server = started().await;
    let mut held = tab("held");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    server.post(TABS, &held).await.ok();
    server.post(TABS, &tab("free")).await.ok();
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let deleting = server.delete(&definition).await.ok();
    assert!(is(&deleting, "Terminating"), "{deleting}");
    assert_eq!(deleting["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    while server.get(&named("held")).await.ok()["metadata"]["deletionTimestamp"].is_null() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get(&named("free")).await.code, 404);
    let refused = server.post(TABS, &tab("new")).await;
    assert_eq!(
        (refused.code, refused.json()["message"].as_str()),
        (
            403,
            Some(
                "crontabs.stable.example.com \"new\" is forbidden: create not allowed while custom resource definition is \
                 terminating"
            )
        )
    );
    let shown = server.get("/apis/stable.example.com/v1").await.ok();
    assert_eq!(shown["resources"][0]["verbs"], json!(["delete", "deletecollection", "get", "list", "watch"]));
    server.merge(&named("held"), &json!({"metadata": {"finalizers": null}})).await.ok();
    until(&server, "crontabs.stable.example.com", Value::is_null).await;
    // Again, and empty.
    define(&server, &self::definition(tab_schema())).await;
    assert_eq!(server.get(TABS).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn names_are_given_to_whoever_asked_first() {
    let server = started().await;
    let mut rival = definition(tab_schema());
    rival["metadata"]["name"] = "others.stable.example.com".into();
    rival["spec"]["names"] =
        json!({"plural": "others", "singular": "other", "kind": "CronTab", "listKind": "OtherList"});
    server.post(DEFINITIONS, &rival).await.ok();
    let refused = until(&server, "others.stable.example.com", |o| !o["status"]["conditions"].is_null()).await;
    let condition = &refused["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("NamesAccepted"), &json!("False")));
    assert_eq!(
        (&condition["reason"], &condition["message"]),
        (&json!("KindConflict"), &json!("\"CronTab\" is already in use"))
    );
    assert!(!is(&refused, "Established"));
    assert_eq!(server.get("/apis/stable.example.com/v1/namespaces/default/others").await.code, 404);
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    until(&server, "others.stable.example.com", |o| is(o, "Established")).await;
    server.get("/apis/stable.example.com/v1/namespaces/default/others").await.ok();
}

/// Others' kinds have no route there; of the server's own, upstream says that there is no such method.
#[tokio::test]
async fn what_is_in_a_namespace_is_made_and_taken_away_nowhere_else() {
    let server = Server::start().await;
    define(&server, &definition(tab_schema())).await;
    let everywhere = "/apis/stable.example.com/v1/crontabs";
    assert_eq!(server.post(everywhere, &tab("a")).await.code, 404);
    assert_eq!(server.delete(everywhere).await.code, 404);
    assert_eq!(server.get(everywhere).await.code, 200);
    assert_eq!(server.delete("/api/v1/configmaps").await.code, 405);
}

#[tokio::test]
async fn defaults_show_in_objects_that_were_stored_without() {
    let server = started().await;
    server.post(TABS, &tab("a")).await.ok();
    let mut schema = tab_schema();
    schema["properties"]["spec"]["properties"]["replicas"]["default"] = 3.into();
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
    let before = server.get(&named("a")).await.ok();
    redefine(&server, "crontabs.stable.example.com", &json!({"spec": {"versions": versions}})).await;
    while server.get(&named("a")).await.ok()["spec"]["replicas"] != 3 {
        tokio::task::yield_now().await;
    }
    let after = server.get(&named("a")).await.ok();
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

/// What an embedded object's metadata does not know is dropped when the default is taken; a default elsewhere must be whole.
#[tokio::test]
async fn a_default_of_embedded_metadata_may_say_too_much() {
    let server = Server::start().await;
    let metadata = json!({"type": "object", "default": {"name": "x", "unknown": "y"}});
    let mut schema = tab_schema();
    schema["properties"]["spec"]["properties"]["template"]["properties"] = json!({"metadata": metadata});
    define(&server, &definition(schema)).await;
    let mut schema = tab_schema();
    schema["properties"]["spec"]["properties"]["other"] =
        json!({"type": "object", "properties": {"metadata": metadata}});
    let mut object = definition(schema);
    object["metadata"]["name"] = "others.stable.example.com".into();
    object["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    let refused = server.post(DEFINITIONS, &object).await;
    assert!(refused.code == 422 && refused.causes()[0].ends_with("must not have unknown fields"), "{}", refused.json());
}

#[tokio::test]
async fn a_definition_whose_webhook_nobody_could_trust_is_not_established() {
    let server = Server::start().await;
    let mut object = definition(tab_schema());
    let service = json!({"namespace": "default", "name": "converter"});
    object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": {"caBundle": "Q2Vr", "service": service}}});
    server.post(DEFINITIONS, &object).await.ok();
    let reason = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "Established").map(|c| c["reason"].clone())
    };
    let settled = until(&server, "crontabs.stable.example.com", |object| reason(object).is_some()).await;
    assert_eq!(reason(&settled), Some(json!("InvalidCABundle")));
}

#[tokio::test]
async fn versions_differ_in_name_and_schema() {
    let server = Server::start().await;
    let mut object = definition(tab_schema());
    let mut second = tab_schema();
    second["properties"]["spec"]["properties"]["extra"] = json!({"type": "string"});
    object["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": tab_schema()}, "deprecated": true},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": second}},
    ]);
    define(&server, &object).await;
    let created = server.post(TABS, &tab("a")).await;
    let warning = created.headers["warning"].to_str().expect("text").to_string();
    assert_eq!(warning, "299 - \"stable.example.com/v1 CronTab is deprecated; use stable.example.com/v2 CronTab\"");
    const NEW: &str = "/apis/stable.example.com/v2/namespaces/default/crontabs";
    let read = server.get(&format!("{NEW}/a")).await.ok();
    assert_eq!((&read["apiVersion"], &read["spec"]), (&json!("stable.example.com/v2"), &created.json()["spec"]));
    let mut watch = server.watch(&format!("{NEW}?watch=true")).await;
    assert_eq!(watch.next().await.expect("an event")["object"]["apiVersion"], "stable.example.com/v2");

    let versions = json!([
        {"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": tab_schema()}},
        {"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": second}},
    ]);
    let changed = redefine(&server, "crontabs.stable.example.com", &json!({"spec": {"versions": versions}})).await;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let mut new = tab("b");
    new["apiVersion"] = "stable.example.com/v2".into();
    new["spec"]["extra"] = "x".into();
    while server.post(NEW, &new).await.json()["spec"]["extra"] != "x" {
        server.delete(&format!("{NEW}/b")).await;
    }
    let both = server.get(NEW).await.ok();
    assert!(
        both["items"]
            .as_array()
            .is_some_and(|i| i.len() == 2 && i.iter().all(|o| o["apiVersion"] == "stable.example.com/v2"))
    );
    assert!(server.get(&named("b")).await.ok()["spec"].get("extra").is_none());
}

/// A change of the definition's spec, and where it is refused.
const WRONG_DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
        "\"\"",
        "spec.validation.openAPIV3Schema.properties[spec].type",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-preserve-unknown-fields",
        "false",
        "spec.validation.openAPIV3Schema.x-kubernetes-preserve-unknown-fields",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/a",
        "{\"type\":\"array\"}",
        "spec.validation.openAPIV3Schema.properties[a].items",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/a",
        "{\"type\":\"string\",\"pattern\":\"(\"}",
        "spec.validation.openAPIV3Schema.properties[a].pattern",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/metadata",
        "{\"type\":\"object\",\"properties\":{\"labels\":{\"type\":\"object\"}}}",
        "spec.validation.openAPIV3Schema.properties[metadata]",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/a",
        "{\"type\":\"integer\",\"default\":\"x\"}",
        "spec.validation.openAPIV3Schema.properties[a].default",
    ),
    (
        "/spec/versions/0/schema/openAPIV3Schema/properties/a",
        "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"x-kubernetes-list-type\":\"map\"}",
        "spec.validation.openAPIV3Schema.properties[a].x-kubernetes-list-map-keys",
    ),
    (
        "/spec/versions/0/subresources/scale/specReplicasPath",
        "\"spec.replicas\"",
        "spec.subresources.scale.specReplicasPath",
    ),
    ("/spec/versions/0/additionalPrinterColumns/0/type", "\"text\"", "spec.additionalPrinterColumns[0].type"),
    ("/spec/versions/0/selectableFields/0/jsonPath", "\".spec.ports\"", "spec.selectableFields[0].jsonPath"),
    ("/spec/conversion", "{\"strategy\":\"Webhook\"}", "spec.conversion.webhookClientConfig"),
    ("/spec/preserveUnknownFields", "true", "spec.preserveUnknownFields"),
    ("/spec/group", "\"example\"", "spec.group"),
    ("/spec/versions/0/storage", "false", "spec.versions"),
];

#[tokio::test]
async fn definitions_that_make_no_sense_are_refused_where_they_do_not() {
    let server = Server::start().await;
    for (pointer, value, field) in WRONG_DEFINITIONS {
        let mut object = definition(tab_schema());
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let slot = object.pointer_mut(parent).expect(parent);
        let value: Value = serde_json::from_str(value).expect("a case is JSON");
        match key.parse::<usize>() {
            Ok(index) => slot[index] = value,
            Err(_) => slot[key] = value,
        }
        let answer = server.post(DEFINITIONS, &object).await;
        assert_eq!(answer.code, 422, "{pointer}: {}", answer.json());
        let fields: Vec<String> = answer.causes();
        assert!(fields.iter().any(|f| f.starts_with(&format!("{field}:"))), "{pointer}: {fields:?}");
    }
}

/// An object whose free field is nested so that the whole has `depth` levels.
fn deep_tab(name: &str, depth: usize) -> String {
    let (open, close) = ("{\"a\":".repeat(depth - 3), "}".repeat(depth - 3));
    let kind = "\"apiVersion\":\"stable.example.com/v1\",\"kind\":\"CronTab\"";
    let spec = format!("\"cronSpec\":\"* * * * *\",\"free\":{{\"a\":{open}1{close}}}");
    format!("{{{kind},\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{{spec}}}}}")
}

async fn deep_objects_live() {
    let server = started().await;
    // Who owns its fields is said a few levels deeper than they are, and a patch is of the whole object.
    let depth = knarr_api::tree::MAX_DEPTH - 8;
    let deepest = deep_tab("a", depth);
    let created = server.call("POST", TABS, "application/json", deepest.clone()).await;
    assert_eq!(created.code, 201, "{}", String::from_utf8_lossy(&created.body[..created.body.len().min(500)]));
    let opened = |answer: &Answer| answer.body.windows(5).filter(|at| at == b"{\"a\":").count();
    assert_eq!(opened(&created), depth - 2);
    let labelled = server.merge(&named("a"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((labelled.code, opened(&labelled)), (200, depth - 2));
    let target = format!("{}?fieldManager=m&force=true", named("a"));
    let applied = server.call("PATCH", &target, "application/apply-patch+yaml", deepest.clone()).await;
    assert_eq!((applied.code, opened(&applied)), (200, depth - 2));
    let applied = knarr_api::tree::parse(&applied.body).expect("an object");
    let version = &applied["metadata"]["resourceVersion"];
    let deepest = deepest.replacen("\"name\":", &format!("\"resourceVersion\":{version},\"name\":"), 1);
    let put = server.call("PUT", &named("a"), "application/json", deepest).await;
    assert_eq!((put.code, opened(&put)), (200, depth - 2));
    assert_eq!(opened(&server.get(TABS).await), depth - 2);
    let most = server.call("POST", TABS, "application/json", deep_tab("b", depth + 8)).await;
    assert_eq!((most.code, opened(&most)), (201, depth + 6));
    // One level more is refused, whatever way it comes.
    let refused = server.call("POST", TABS, "application/json", deep_tab("c", depth + 9)).await;
    assert_eq!(refused.code, 400);
    let path = format!("/spec/free{}/b", "/a".repeat(20));
    let copy = json!([{"op": "copy", "from": "/spec/free", "path": path}]);
    let copied = server.call("PATCH", &named("a"), "application/json-patch+json", copy.to_string()).await;
    assert_eq!(copied.code, 422);
    assert_eq!(server.delete(&named("a")).await.code, 200);
    assert_eq!(server.get(&named("a")).await.code, 404);
}

#[test]
fn objects_may_be_as_deep_as_upstreams() {
    support::on_object_stack(deep_objects_live);
}
