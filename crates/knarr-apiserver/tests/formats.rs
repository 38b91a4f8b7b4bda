//! What the server says of itself, and the forms that objects are shown in.

mod support;

use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use knarr_apiserver::Config;
use serde_json::{Value, json};
use support::Server;

async fn get_as(server: &Server, target: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let request = Request::builder().uri(target).header("accept", accept).body(Full::default()).expect("a request");
    let response = server.send(request).await;
    let content_type = response.headers()["content-type"].to_str().unwrap_or_default().to_string();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, content_type, body.to_vec())
}

/// The recorded facts, where this machine has them.
fn facts(name: &str) -> Option<Value> {
    let root = std::env::var("KNARR_FACTS").unwrap_or_else(|_| "../../../shared/k8s".into());
    let text = std::fs::read_to_string(format!("{root}/{name}")).ok()?;
    serde_json::from_str(&text).ok()
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn discovery_is_upstreams() {
    let Some(facts) = facts("discovery.json") else { return eprintln!("skipped: no recorded facts here") };
    let server = Server::start().await;
    for path in ["/api", "/apis"] {
        let (_, content_type, body) = get_as(&server, path, AGGREGATED).await;
        assert!(content_type.contains("as=APIGroupDiscoveryList"), "{content_type}");
        let ours: Value = serde_json::from_slice(&body).expect("JSON");
        let (ours, theirs) = (by_group(&ours), by_group(&facts[path]));
        assert_eq!(ours.len(), theirs.len(), "{path}");
        for (group, versions) in theirs {
            assert_eq!(ours.get(&group), Some(&versions), "{path} {group}");
        }
    }
}

/// Group to its versions; what differs from run to run left out.
fn by_group(list: &Value) -> std::collections::BTreeMap<String, Value> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let mut groups = std::collections::BTreeMap::new();
    for mut item in items {
        let name = item["metadata"]["name"].as_str().unwrap_or_default().to_string();
        for version in item["versions"].as_array_mut().into_iter().flatten() {
            version.as_object_mut().map(|v| v.remove("freshness"));
            for resource in version["resources"].as_array_mut().into_iter().flatten() {
                normalise(resource);
            }
        }
        groups.insert(name, item["versions"].take());
    }
    groups
}

fn normalise(resource: &mut Value) {
    let name = |s: &Value| s["subresource"].as_str().unwrap_or_default().to_string();
    if let Some(subresources) = resource["subresources"].as_array_mut() {
        subresources.sort_by_key(name);
    }
}

#[tokio::test]
async fn discovery_has_an_entity_tag() {
    let server = Server::start().await;
    let ask = |tag: String| Request::builder().uri("/apis").header("accept", AGGREGATED).header("if-none-match", tag);
    let first = server.send(ask("none".into()).body(Full::default()).expect("a request")).await;
    let tag = first.headers()["etag"].to_str().expect("text").to_string();
    let again = server.send(ask(tag).body(Full::default()).expect("a request")).await;
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn pages_answer() {
    let server = Server::start().await;
    for (path, contains) in [
        ("/version", "v1.36"),
        ("/healthz", "ok"),
        ("/livez?verbose", "[+]ping ok"),
        ("/readyz/ping", "ok"),
        ("/readyz?verbose&exclude=etcd", "etcd excluded: ok"),
        ("/", "/apis/apps/v1"),
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "preferredVersion"),
        ("/api/v1", "pods/exec"),
        ("/openapi/v3", "apis/apps/v1"),
        ("/openapi/v3/apis/apps/v1", "io.k8s.api.apps.v1.Deployment"),
        ("/openapi/v2", "io.k8s.api.core.v1.Pod"),
        ("/metrics", "apiserver_request_total"),
    ] {
        let answer = server.get(path).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.code == 200 && text.contains(contains), "{path}: {} {:.300}", answer.code, text);
    }
}

#[tokio::test]
async fn objects_take_the_form_that_is_asked_for() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    server.post(maps, &object).await.ok();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, _, body) = get_as(&server, maps, table).await;
    let shown: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(shown["kind"], "Table");
    assert_eq!((&shown["rows"][0]["cells"][0], &shown["rows"][0]["cells"][1]), (&json!("a"), &json!(1)));
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, _, body) = get_as(&server, maps, partial).await;
    let shown: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((shown["kind"].as_str(), shown["items"][0].get("data")), (Some("PartialObjectMetadataList"), None));
    let (_, content_type, body) = get_as(&server, &format!("{maps}/a"), "application/vnd.kubernetes.protobuf").await;
    assert_eq!(content_type, "application/vnd.kubernetes.protobuf");
    assert!(body.starts_with(b"k8s\0"));
    let again = server.call("PUT", &format!("{maps}/a"), "application/vnd.kubernetes.protobuf", body).await;
    assert_eq!(again.ok()["data"]["k"], "v");
    let (_, _, body) = get_as(&server, &format!("{maps}/a"), "application/yaml").await;
    assert!(String::from_utf8_lossy(&body).contains("kind: ConfigMap"));
    assert_eq!(get_as(&server, maps, "image/png").await.0, 406);
}

/// What client-go's metadata client asks for, and with it upstream's garbage collector.
#[tokio::test]
async fn metadata_alone_comes_in_protobuf_too() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["b.c/d"]}, "data": {"k": "v"}});
    let created = server.post(maps, &object).await.ok();
    let form = |kind: &str| {
        let said = format!("as={kind};g=meta.k8s.io;v=v1");
        format!("application/vnd.kubernetes.protobuf;{said},application/json;{said},application/json")
    };
    let read = |body: &[u8]| {
        knarr_api::protobuf::decode(knarr_api::schema::schema(), body, None).expect("an object in protobuf")
    };
    let metadata =
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": created["metadata"]});
    let (code, kind, body) = get_as(&server, &format!("{maps}/a"), &form("PartialObjectMetadata")).await;
    assert_eq!((code, &*kind), (200, "application/vnd.kubernetes.protobuf"));
    assert_eq!(read(&body), metadata);
    let (_, _, body) = get_as(&server, maps, &form("PartialObjectMetadataList")).await;
    let list = read(&body);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"], json!([{"metadata": created["metadata"]}]));
    let request = Request::builder().uri(format!("{maps}?watch=true")).header(
        "accept",
        "application/vnd.kubernetes.protobuf;stream=watch;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    );
    let mut watch = server.send(request.body(Full::default()).expect("a request")).await.into_body();
    let frame = watch.frame().await.expect("an event").expect("no error").into_data().expect("bytes");
    let start = frame.windows(4).position(|bytes| bytes == b"k8s\0").expect("an object within");
    assert_eq!(read(&frame[start..]), metadata);
}

#[tokio::test]
async fn nothing_is_watched_in_yaml() {
    let server = Server::start().await;
    for accept in ["application/yaml", "application/yaml;as=Table;v=v1;g=meta.k8s.io"] {
        let (code, _, body) = get_as(&server, "/api/v1/configmaps?watch=1", accept).await;
        let text = String::from_utf8_lossy(&body);
        assert!(code == 406 && text.contains("application/vnd.kubernetes.protobuf;stream=watch"), "{code} {text}");
    }
}

#[tokio::test]
async fn a_watch_of_tables_says_once_what_their_columns_are() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        server.post(maps, &json!({"metadata": {"name": name}})).await.ok();
    }
    let table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    let (_, _, body) = get_as(&server, &format!("{maps}?watch=1&timeoutSeconds=1"), table).await;
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let events: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("an event")).collect();
    let columns: Vec<usize> =
        events.iter().map(|e| e["object"]["columnDefinitions"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(columns, [3, 0], "{events:?}");
    assert_eq!(events[1]["object"]["rows"][0]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
    let (code, _, body) = get_as(&server, &format!("{maps}?includeObject=x"), table).await;
    let why = "Unable to convert to Table as requested: includeObject: Invalid value: \\\"x\\\": must be";
    assert!(code == 400 && String::from_utf8_lossy(&body).contains(why), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn people_get_their_json_indented() {
    let server = Server::start().await;
    let ask = async |target: &str, agent: &str| {
        let request = Request::builder().uri(target).header("user-agent", agent);
        let request = request.body(Full::default()).expect("a request");
        let body = server.send(request).await.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8_lossy(&body).into_owned()
    };
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await.ok();
    let (one, none) = ("/api/v1/namespaces/a", "/api/v1/namespaces/none");
    assert!(ask(one, "curl/8.5.0").await.contains("\n  \"kind\": \"Namespace\""));
    assert!(ask(none, "curl/8.5.0").await.contains("\n  \"code\": 404"));
    assert!(ask(&format!("{one}?pretty=true"), "kubectl/v1.36.2").await.contains("\n  \"kind\": \"Namespace\""));
    assert!(!ask(&format!("{one}?pretty=0"), "Mozilla/5.0 (X11)").await.contains("\n  "));
    assert!(!ask(one, "kubectl/v1.36.2").await.contains("\n  "));
}

/// The Python client's tests compare the text.
#[tokio::test]
async fn a_refusal_is_written_in_upstreams_order_of_fields() {
    let server = Server::start().await;
    let (_, _, body) = get_as(&server, "/api/v1/namespaces/none", "application/json").await;
    let wanted = "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
                  \"message\":\"namespaces \\\"none\\\" not found\",\"reason\":\"NotFound\",\
                  \"details\":{\"name\":\"none\",\"kind\":\"namespaces\"},\"code\":404}\n";
    assert_eq!(String::from_utf8_lossy(&body), wanted);
}

/// Scripts search the text.
#[tokio::test]
async fn resources_are_listed_in_upstreams_order_of_fields() {
    let server = Server::start().await;
    let (_, _, body) = get_as(&server, "/api/v1", "application/json").await;
    let text = String::from_utf8_lossy(&body);
    assert!(text.starts_with("{\"kind\":\"APIResourceList\",\"groupVersion\":\"v1\",\"resources\":["));
    let maps = "{\"name\":\"configmaps\",\"singularName\":\"configmap\",\"namespaced\":true,\"kind\":\"ConfigMap\",\
                \"verbs\":[\"create\",\"delete\",\"deletecollection\",\"get\",\"list\",\"patch\",\"update\",\"watch\"],\
                \"shortNames\":[\"cm\"],\"storageVersionHash\":";
    assert!(text.contains(maps), "{text}");
    for (target, kind) in [("/api", "APIVersions"), ("/apis", "APIGroupList"), ("/api/v1", "APIResourceList")] {
        let (_, content_type, body) = get_as(&server, target, "application/yaml").await;
        let text = String::from_utf8_lossy(&body);
        assert!(content_type == "application/yaml" && text.contains(&format!("kind: {kind}\n")), "{target}: {text}");
    }
}

/// client-go deletes in protobuf what it creates in protobuf.
#[tokio::test]
async fn deletions_may_be_asked_for_in_protobuf() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    server.post(maps, &json!({"metadata": {"name": "a"}})).await.ok();
    let delete = async |options: Value| {
        let body = knarr_api::protobuf::encode(knarr_api::schema::schema(), &options).expect("encodes");
        server.call("DELETE", &format!("{maps}/a"), "application/vnd.kubernetes.protobuf", body).await.code
    };
    let options = |more: Value| {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        options.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        options
    };
    assert_eq!(delete(options(json!({"preconditions": {"uid": "another"}}))).await, 409);
    assert_eq!(delete(options(json!({"dryRun": ["All"]}))).await, 200);
    assert_eq!(server.get(&format!("{maps}/a")).await.code, 200);
    assert_eq!(delete(options(json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"}))).await, 200);
    assert_eq!(server.get(&format!("{maps}/a")).await.code, 404);
}

#[tokio::test]
async fn an_older_client_gets_the_openapi_document_in_protobuf() {
    let server = Server::start().await;
    let older = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let (code, content_type, body) = get_as(&server, "/openapi/v2", older).await;
    let newer = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((code, content_type.as_str()), (200, newer));
    assert!(body.starts_with(b"\x0a\x032.0"), "field 1 is the version");
    let holds = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("io.k8s.api.apps.v1.Deployment") && holds("x-kubernetes-group-version-kind"));
    assert_eq!(server.get("/openapi/v3").await.code, 200);
}

#[tokio::test]
async fn forms_that_do_not_fit_are_not_acceptable() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    server.post(maps, &object).await.ok();
    let one = "application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io";
    let many = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (code, _, body) = get_as(&server, &format!("{maps}/a"), one).await;
    let shown: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((code, &shown["apiVersion"]), (200, &json!("meta.k8s.io/v1beta1")));
    let (code, _, body) = get_as(&server, maps, one).await;
    let shown: Value = serde_json::from_slice(&body).expect("JSON");
    let why = "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
    assert_eq!((code, &shown["message"]), (406, &json!(why)));
    assert_eq!(get_as(&server, &format!("{maps}/a"), many).await.0, 406);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    use std::io::Read;
    let server = Server::start().await;
    let ask = |encoding: &str| {
        let request = Request::builder().uri("/openapi/v2").header("accept-encoding", encoding);
        request.body(Full::default()).expect("a request")
    };
    let plain = server.send(ask("identity")).await;
    assert!(!plain.headers().contains_key("content-encoding"));
    let plain = plain.into_body().collect().await.expect("a body").to_bytes();
    let packed = server.send(ask("gzip, deflate")).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.into_body().collect().await.expect("a body").to_bytes();
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(plain, unpacked);
}

#[tokio::test]
async fn two_versions_share_their_objects() {
    let server = Server::start().await;
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let made = server.post(&path("v1"), &scaler).await.ok();
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let newer = server.get(&format!("{}/h", path("v2"))).await.ok();
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let list = server.get(&path("v1")).await.ok();
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 50);
}

#[tokio::test]
async fn scale_is_a_view() {
    let server = Server::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    server.post(deployments, &deployment).await.ok();
    let scale = format!("{deployments}/d/scale");
    let view = server.get(&scale).await.ok();
    assert_eq!((&view["spec"]["replicas"], &view["status"]["selector"]), (&json!(2), &json!("a=b")));
    assert_eq!(server.merge(&scale, &json!({"spec": {"replicas": 5}})).await.ok()["spec"]["replicas"], 5);
    let scaled = server.get(&format!("{deployments}/d")).await.ok();
    assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert_eq!(server.merge(&scale, &json!({"spec": {"replicas": -1}})).await.code, 422);
}

#[tokio::test]
async fn applies_own_their_fields() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/configmaps/a";
    let apply = async |manager: &str, data: Value, force: bool| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        let target = format!("{path}?fieldManager={manager}&force={force}");
        server.call("PATCH", &target, "application/apply-patch+yaml", body.to_string()).await
    };
    assert_eq!(apply("one", json!({"k": "1", "l": "1"}), false).await.code, 201);
    let conflict = apply("two", json!({"k": "2"}), false).await;
    assert_eq!((conflict.code, conflict.json()["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(apply("two", json!({"k": "2"}), true).await.ok()["data"], json!({"k": "2", "l": "1"}));
    assert_eq!(apply("one", json!({}), false).await.ok()["data"], json!({"k": "2"}));
    assert_eq!(server.call("PATCH", path, "application/apply-patch+yaml", "{}").await.code, 422);
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments/d?fieldManager=one";
    let made = server.call("PATCH", path, "application/apply-patch+yaml", deployment.to_string()).await.ok();
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    let container = json!({".": {}, "f:image": {}, "f:name": {}});
    assert_eq!(owned["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"], container);
    assert_eq!(owned.get("f:strategy"), None, "what nobody said, nobody owns");
}

#[tokio::test]
async fn a_refusal_is_written_as_the_client_reads() {
    let server = Server::start().await;
    for (accept, content_type, begins) in [
        ("application/json", "application/json", "{"),
        ("application/yaml", "application/yaml", "apiVersion: v1\ncode: 404\n"),
        ("application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", "k8s\0"),
        ("application/vnd.kubernetes.protobuf, application/json", "application/vnd.kubernetes.protobuf", "k8s\0"),
        (TABLE_OR_JSON, "application/json", "{"),
        ("text/html", "application/json", "{"),
    ] {
        let (code, spoken, body) = get_as(&server, "/api/v1/namespaces/none", accept).await;
        let expected = if accept == "text/html" { 406 } else { 404 };
        assert_eq!((code, spoken.as_str()), (expected, content_type), "{accept}");
        assert!(body.starts_with(begins.as_bytes()), "{accept}: {}", String::from_utf8_lossy(&body));
    }
}

const TABLE_OR_JSON: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn queries_are_checked_as_upstream_checks_them() {
    let server = Server::start().await;
    let cases: [(&str, u16, &str); 14] = [
        ("continue=x&resourceVersion=x", 400, "continue key is not valid"),
        ("limit=-1", 200, ""),
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("limit=99999999999999999999", 400, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        ("timeoutSeconds=1.5", 400, "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
        ("watch=1&timeoutSeconds=-1", 200, ""),
        ("resourceVersion=+1", 400, "invalid syntax"),
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Other&resourceVersion=1", 422, "Unsupported value: \"Other\""),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "is forbidden for resourceVersion \"0\""),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("watch=1&resourceVersionMatch=Exact", 422, "Unsupported value: \"Exact\": supported values: \"NotOlderThan\""),
        ("watch=1&sendInitialEvents=true", 422, "requires setting resourceVersionMatch to NotOlderThan"),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
            422,
            "resourceVersionMatch is forbidden when continue is provided",
        ),
    ];
    for (query, expected, message) in cases {
        let (code, _, body) = get_as(&server, &format!("/api/v1/namespaces?{query}"), "application/json").await;
        let body = String::from_utf8_lossy(&body).replace("\\\"", "\"");
        assert_eq!((code, body.contains(message)), (expected, true), "{query}: {body}");
    }
    let (code, _, body) = get_as(&server, "/api/v1/namespaces/default?export=true", "application/json").await;
    assert!(code == 400 && String::from_utf8_lossy(&body).contains("no longer supported"));
    let one = "/api/v1/watch/namespaces/a?fieldSelector=metadata.name%3Db&timeoutSeconds=1";
    assert_eq!(get_as(&server, one, "application/json").await.0, 400);
}

#[tokio::test]
async fn a_deletion_may_be_asked_for_in_every_encoding() {
    let server = Server::start().await;
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    let protobuf = knarr_api::protobuf::encode(knarr_api::schema::schema(), &options).expect("options");
    server.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    let target = format!("{MAPS}/a");
    for (content_type, body) in [
        ("application/json", options.to_string().into_bytes()),
        ("application/yaml", b"kind: DeleteOptions\napiVersion: v1\npreconditions: {uid: other}\n".to_vec()),
        ("application/vnd.kubernetes.protobuf", protobuf),
    ] {
        let refused = server.call("DELETE", &target, content_type, body).await;
        let message = refused.json()["message"].as_str().unwrap_or_default().to_string();
        let expected =
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match";
        assert_eq!((refused.code, message.starts_with(expected)), (409, true), "{content_type}: {message}");
    }
    assert_eq!(server.call("DELETE", &target, "text/plain", "x").await.code, 415);
    assert_eq!(server.call("DELETE", &format!("{target}?gracePeriodSeconds=x"), "", "").await.code, 400);
    assert_eq!(server.call("DELETE", &target, "text/plain", "").await.code, 200);
}

#[tokio::test]
async fn people_get_json_with_line_breaks() {
    let server = Server::start().await;
    let config_map = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let path = "/api/v1/namespaces/default/configmaps";
    let created = server.post(&format!("{path}?pretty=true"), &config_map).await;
    assert!(created.body.starts_with(b"{\n  \""), "{created:?}");
    assert!(!created.body.ends_with(b"\n"));
    for target in [format!("{path}/c"), path.to_string(), "/apis".into(), format!("{path}/none"), "/api/v1".into()] {
        let plain = server.get(&target).await;
        let asked = server.get(&format!("{target}?pretty=1")).await;
        assert_eq!(plain.json(), asked.json(), "{target}");
        assert!(!plain.body.starts_with(b"{\n") && asked.body.starts_with(b"{\n  \""), "{target} {asked:?}");
        let request = Request::builder().uri(&target).header("user-agent", "curl/8.5.0").body(Full::default()).unwrap();
        let curl = server.send(request).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(curl, asked.body, "{target}");
    }
    let mut watch = server.watch(&format!("{path}?watch=true&pretty=true")).await;
    assert_eq!(watch.line().await, "ADDED c", "events stay on their lines");
    assert!(server.get("/version").await.body.starts_with(b"{\n  \""));
}

#[tokio::test]
async fn a_server_says_what_it_is_and_how_it_was_started() {
    let flags = [("bind", "127.0.0.1:1"), ("data-dir", "/d")].map(|(name, value)| (name.into(), value.into())).into();
    let server = Server::start_with(|_| Config { flags, ..Config::default() }).await;
    let ask = async |target: &str, accept: &str| {
        let request = Request::builder().uri(target).header("accept", accept).body(Full::default()).unwrap();
        let (parts, body) = server.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    };
    for accept in ["", "*/*", "text/plain", "application/json, */*"] {
        let (code, headers, text) = ask("/flagz", accept).await;
        assert_eq!((code, &headers["content-type"]), (200, &HeaderValue::from_static("text/plain; charset=utf-8")));
        assert!(
            text.starts_with("\napiserver flagz\nWarning: ") && text.ends_with("\nbind: 127.0.0.1:1\ndata-dir: /d\n")
        );
    }
    let (_, _, text) = ask("/statusz", "").await;
    for line in ["apiserver statusz", "Binary version: 1.36.2", "Emulation version: 1.36"] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    assert!(
        text.lines().any(|line| line.starts_with("Paths: ") && line.contains(" /livez /metrics /readyz ")),
        "{text}"
    );
    let structured = |version: &str, kind: &str| format!("application/json;as={kind};g=config.k8s.io;v={version}");
    let (_, headers, text) = ask("/flagz", &structured("v1beta1", "Flagz")).await;
    let expected = json!({"kind": "Flagz", "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": "apiserver"},
        "flags": {"bind": "127.0.0.1:1", "data-dir": "/d"}});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert!(!headers.contains_key("warning"));
    let (_, headers, text) = ask("/statusz", &structured("v1alpha1", "Statusz")).await;
    let deprecated = "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\"";
    assert_eq!(headers["warning"], deprecated);
    assert!(serde_json::from_str::<Value>(&text).unwrap()["uptimeSeconds"].is_u64(), "{text}");
    for accept in ["application/json", &structured("v1beta1", "Statusz"), &structured("v2", "Flagz")] {
        let (code, _, text) = ask("/flagz", accept).await;
        let status: Value = serde_json::from_str(&text).unwrap();
        let why = "only the following media types are accepted: application/json, application/yaml, text/plain";
        assert_eq!((code, &status["message"]), (406, &json!(why)), "{accept}");
    }
}
