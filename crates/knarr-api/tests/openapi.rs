//! The OpenAPI documents against upstream's, where the release's facts are at hand.

use std::collections::BTreeSet;
use std::path::PathBuf;

use knarr_api::openapi;
use knarr_api::resource::built_in;
use serde_json::{Map, Value};

fn upstream() -> Option<Value> {
    let facts =
        std::env::var("KNARR_FACTS").map(PathBuf::from).unwrap_or_else(|_| PathBuf::from("../../../shared/k8s"));
    let text = std::fs::read(facts.join("openapi/swagger.json")).ok();
    if text.is_none() {
        eprintln!("skipped: no facts of the release (set KNARR_FACTS)");
    }
    text.map(|text| serde_json::from_slice(&text).expect("upstream's document is JSON"))
}

fn map(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("a map")
}

/// Without unions (which no client reads), and lists whose order says nothing sorted.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let kept = entries.iter().filter(|(key, _)| *key != "x-kubernetes-unions");
            kept.map(|(k, v)| (k.clone(), if k == "required" { sorted(v) } else { bare(v) })).collect()
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

fn sorted(value: &Value) -> Value {
    let mut words: Vec<String> = value.as_array().into_iter().flatten().map(|v| v.to_string()).collect();
    words.sort();
    words.into()
}

#[test]
fn definitions_are_upstreams() {
    let Some(upstream) = upstream() else { return };
    let ours = openapi::v2();
    let (theirs, ours) = (map(&upstream["definitions"]), map(&ours["definitions"]));
    // These two claim a kind in every group version there is; the table knows them as plain types.
    let everywhere = |name: &str| name.ends_with(".DeleteOptions") || name.ends_with(".WatchEvent");
    let wrong: Vec<String> = theirs
        .iter()
        .filter(|(name, _)| !everywhere(name))
        .filter(|(name, definition)| ours.get(*name).map(bare) != Some(bare(definition)))
        .map(|(name, definition)| {
            format!("{name}\n theirs {}\n ours   {:?}", bare(definition), ours.get(name).map(bare))
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(theirs.len(), ours.len());
}

#[test]
fn paths_and_operations_are_upstreams() {
    let Some(upstream) = upstream() else { return };
    let served: BTreeSet<String> = built_in()
        .group_versions
        .iter()
        .map(|gv| if gv.group.is_empty() { "/api/v1/".into() } else { format!("/apis/{}/{}/", gv.group, gv.version) })
        .collect();
    let operations = |document: &Value| -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        for (path, item) in map(&document["paths"]) {
            if !served.iter().any(|prefix| path.starts_with(prefix.as_str())) {
                continue;
            }
            for (method, operation) in map(item).iter().filter(|(method, _)| *method != "parameters") {
                let answer = &operation["responses"]["200"]["schema"];
                out.insert(format!(
                    "{method} {path} {} {} {} {answer}",
                    operation["operationId"],
                    operation["x-kubernetes-action"],
                    operation["x-kubernetes-group-version-kind"]
                ));
            }
        }
        out
    };
    let (theirs, ours) = (operations(&upstream), operations(&openapi::v2()));
    let missing: Vec<&String> = theirs.difference(&ours).collect();
    let extra: Vec<&String> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
}

#[test]
fn every_v3_document_is_whole() {
    for path in openapi::v3_paths() {
        let document = openapi::v3(&path).unwrap_or_else(|| panic!("{path} is listed"));
        let schemas = map(&document["components"]["schemas"]);
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(entries) => open.extend(entries.values()),
                Value::Array(items) => open.extend(items),
                Value::String(text) => {
                    if let Some(name) = text.strip_prefix("#/components/schemas/") {
                        assert!(schemas.contains_key(name), "{path}: {name} is referred to");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(openapi::v3("apis/none/v1").is_none());
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    let apps = openapi::v3("apis/apps/v1").expect("apps");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = patch["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    let schemas = &apps["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"];
    assert_eq!(spec["format"], "int32");
    assert!(spec["description"].as_str().is_some_and(|text| text.contains("pods")));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
}
