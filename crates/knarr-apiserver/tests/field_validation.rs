//! What strict decoding does not accept, in every way that an object can be written: refused, warned of or passed over.

mod support;

use serde_json::{Value, json};
use support::{Answer, Server};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

const REPEATED_YAML: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  name: NAME
spec:
  zzz: 1
  paused: true
  paused: false
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
      - name: c
        image: i
        imagePullPolicy: Always
        imagePullPolicy: Never
";

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
            "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    })
}

fn warnings(answer: &Answer) -> Vec<String> {
    let texts = answer.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok());
    let bare = texts.filter_map(|text| text.strip_prefix("299 - \"").and_then(|text| text.strip_suffix('"')));
    bare.map(|text| text.replace("\\\"", "\"")).collect()
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_string()
}

async fn started() -> (Server, String) {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, &deployment("d")).await.ok();
    (server, format!("{DEPLOYMENTS}/d"))
}

#[tokio::test]
async fn keys_that_stand_twice_in_yaml_are_told_by_their_lines() {
    let server = Server::start().await;
    let create = async |validation: &str| {
        let name = validation.to_lowercase();
        let target = format!("{DEPLOYMENTS}?fieldValidation={validation}");
        server.call("POST", &target, "application/yaml", REPEATED_YAML.replace("NAME", &name)).await
    };
    let lines = ["5: key \"name\"", "9: key \"paused\"", "18: key \"imagePullPolicy\""];
    let lines = lines.map(|line| format!("line {line} already set in map"));
    let warned = create("Warn").await;
    assert_eq!(warnings(&warned), [&lines[0], &lines[1], &lines[2], "unknown field \"spec.zzz\""]);
    let object = warned.ok();
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Never");
    let ignored = create("Ignore").await;
    assert_eq!((ignored.code, warnings(&ignored).len()), (201, 0));
    let strict = create("Strict").await;
    let wanted =
        format!("strict decoding error: yaml: unmarshal errors:\n  {}, unknown field \"spec.zzz\"", lines.join("\n  "));
    assert_eq!((strict.code, message(&strict).split_once(": ")), (400, Some((HANDLED, wanted.as_str()))));
}

const HANDLED: &str = "Deployment in version \"v1\" cannot be handled as a Deployment";

#[tokio::test]
async fn an_apply_tells_of_keys_that_stand_twice_and_refuses_fields_that_there_are_not() {
    let server = Server::start().await;
    let apply = async |name: &str, validation: &str, body: String| {
        let target = format!("{DEPLOYMENTS}/{name}?fieldManager=m&fieldValidation={validation}");
        server.call("PATCH", &target, APPLY, body).await
    };
    let twice = |name: &str| REPEATED_YAML.replace("NAME", name).replace("  zzz: 1\n", "");
    let warned = apply("warn", "Warn", twice("warn")).await;
    let lines = ["5: key \"name\"", "8: key \"paused\"", "17: key \"imagePullPolicy\""];
    let lines = lines.map(|line| format!("line {line} already set in map"));
    assert_eq!((warned.code, warnings(&warned)), (201, lines.to_vec()));
    let ignored = apply("ignore", "Ignore", twice("ignore")).await;
    assert_eq!((ignored.code, warnings(&ignored).len()), (201, 0));
    let strict = apply("strict", "Strict", twice("strict")).await;
    let wanted = lines.join("\n  ");
    let wanted =
        format!("error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {wanted}");
    assert_eq!((strict.code, message(&strict)), (400, wanted));

    let in_json = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"json"},"spec":{"paused":true,
        "paused":false,"selector":{"matchLabels":{"app":"a"}},"template":{"metadata":{"labels":{"app":"a"}}}}}"#;
    let strict = apply("json", "Strict", in_json.into()).await;
    assert!(message(&strict).ends_with("errors:\n  line 2: key \"paused\" already set in map"), "{}", message(&strict));

    for validation in ["Ignore", "Warn", "Strict"] {
        let mut unknown = deployment("unknown");
        unknown["spec"]["zzz"] = 1.into();
        let refused = apply("unknown", validation, unknown.to_string()).await;
        let said = message(&refused);
        assert!(
            refused.code == 500 && said.starts_with("failed to create typed patch object ("),
            "{validation}: {said}"
        );
        assert!(said.ends_with("apps/v1, Kind=Deployment): .spec.zzz: field not declared in schema"), "{said}");
    }
}

#[tokio::test]
async fn patches_tell_of_what_strict_decoding_does_not_accept() {
    let (server, target) = started().await;
    let json_patch = r#"[
        {"op": "add", "path": "/spec/zzz", "value": 1, "foo": "bar"},
        {"op": "add", "path": "/spec/paused", "path": "/spec/zz", "value": 1}]"#;
    let duplicates = r#"{"spec": {"zzz": 1, "paused": true, "paused": false, "zz": 2}}"#;
    let repeated = "duplicate field \"spec.paused\"";
    let (zz, zzz) = ("unknown field \"spec.zz\"", "unknown field \"spec.zzz\"");
    for (kind, body, told) in [
        (
            JSON,
            json_patch,
            vec!["json patch unknown field \"[0].foo\"", "json patch duplicate field \"[1].path\"", zz, zzz],
        ),
        (MERGE, duplicates, vec![repeated, zz, zzz]),
        (STRATEGIC, duplicates, vec![repeated, zz, zzz]),
    ] {
        let ignored = server.call("PATCH", &format!("{target}?fieldValidation=Ignore"), kind, body).await;
        assert_eq!((ignored.code, warnings(&ignored).len()), (200, 0), "{kind}");
        let warned = server.call("PATCH", &target, kind, body).await;
        assert_eq!(warnings(&warned), told, "{kind}");
        let strict = server.call("PATCH", &format!("{target}?fieldValidation=Strict"), kind, body).await;
        let said = message(&strict);
        let wanted = format!("strict decoding error: {}", told.join(", "));
        assert!(
            strict.code == 422 && said.starts_with(" \"\" is invalid: patch: ") && said.ends_with(&wanted),
            "{said}"
        );
    }
}

/// As Go reads them: a group may be empty on paper, and what is no version is none.
#[tokio::test]
async fn what_says_the_same_in_other_words_is_taken() {
    let server = Server::start().await;
    let map = json!({"apiVersion": "/v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "none"}});
    let made = server.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    assert_eq!(made["apiVersion"], "v1");
    let mut late = map.clone();
    late["metadata"] = json!({"name": "b", "resourceVersion": "7"});
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", &late).await.code, 500);
}

#[tokio::test]
async fn a_patch_whose_result_is_no_such_object_is_told_what_does_not_fit() {
    let (server, target) = started().await;
    for (kind, body, shown, why) in [
        (
            STRATEGIC,
            r#"{"metadata":{"labels":"invalid"}}"#,
            "\"map[metadata:map[labels:invalid]]\"",
            "cannot restore map from string",
        ),
        (STRATEGIC, r#"{"spec":{"replicas":"x"}}"#, "\"map[spec:map[replicas:x]]\"", "unrecognized type: int32"),
        (
            MERGE,
            r#"{"metadata":{"labels":"invalid"}}"#,
            "\"{\\\"apiVersion\\\":",
            "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            JSON,
            r#"[{"op":"add","path":"/spec/replicas","value":"x"}]"#,
            "\"{\\\"apiVersion\\\":",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
    ] {
        let refused = server.call("PATCH", &target, kind, body).await;
        let said = message(&refused);
        let begin = format!(" \"\" is invalid: patch: Invalid value: {shown}");
        assert!(refused.code == 422 && said.starts_with(&begin) && said.ends_with(why), "{} {said}", refused.code);
        assert_eq!(refused.json()["details"]["causes"][0]["field"], "patch");
    }
}
