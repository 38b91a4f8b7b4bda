use serde_json::json;

use super::*;
use crate::resource::GroupVersionKind;
use crate::schema::schema;

const NOW: i64 = 1_700_000_000;

fn scope(api_version: &'static str, kind: &'static str, subresource: &'static str) -> Scope<'static> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = schema().by_gvk(&GroupVersionKind::new(group, version, kind)).expect("a kind");
    Scope { schema: schema(), ty, api_version, kind, subresource, reset: reset_fields(kind, true, subresource) }
}

fn deployments() -> Scope<'static> {
    scope("apps/v1", "Deployment", "")
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec})
}

fn owner<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
    &entries.iter().find(|e| e["manager"] == manager).expect("the manager")["fieldsV1"]
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.filter_map(|e| e["manager"].as_str()).collect()
}

#[test]
fn a_create_owns_what_it_sets_as_upstream_records_it() {
    let mut object = deployment(json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "x"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "securityContext": {}}}}));
    object["metadata"]["labels"] = json!({"app": "x"});
    object["status"] = json!({"replicas": 1});
    update_managed_fields(&deployments(), None, &mut object, "kubectl-create", NOW);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["time"], "2023-11-14T22:13:20Z");
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                            {".": {}, "f:containerPort": {}, "f:protocol": {}}}, "f:resources": {}}},
                        "f:securityContext": {}}}}})
    );
}

#[test]
fn an_update_moves_only_what_changed() {
    let mut old = deployment(json!({"replicas": 1, "paused": true}));
    update_managed_fields(&deployments(), None, &mut old, "a", NOW);
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(2);
    update_managed_fields(&deployments(), Some(&old), &mut new, "b", NOW + 5);
    assert_eq!(owner(&new, "a")["f:spec"].get("f:replicas"), None);
    assert_eq!(owner(&new, "a")["f:spec"]["f:paused"], json!({}));
    assert_eq!(owner(&new, "b"), &json!({"f:spec": {"f:replicas": {}}}));
    let mut same = new.clone();
    update_managed_fields(&deployments(), Some(&new), &mut same, "c", NOW + 9);
    assert_eq!(same, new, "an update without a change changes no ownership");
}

#[test]
fn a_status_update_owns_status_only() {
    let mut object = deployment(json!({"replicas": 1}));
    update_managed_fields(&deployments(), None, &mut object, "a", NOW);
    let mut new = object.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["spec"]["replicas"] = json!(9);
    let status = scope("apps/v1", "Deployment", "status");
    update_managed_fields(&status, Some(&object), &mut new, "controller", NOW + 1);
    let entry = new["metadata"]["managedFields"].as_array().and_then(|e| e.last()).expect("an entry");
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}},
            "f:replicas": {}}})
    );
}

#[test]
fn ownership_that_is_reset_starts_anew() {
    let mut old = deployment(json!({"replicas": 1}));
    update_managed_fields(&deployments(), None, &mut old, "a", NOW);
    let mut new = old.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    update_managed_fields(&deployments(), Some(&old), &mut new, "b", NOW);
    assert_eq!(new["metadata"].get("managedFields"), None);
}

#[test]
fn managers_of_one_name_are_one_the_last() {
    let mut old = deployment(json!({"replicas": 1}));
    update_managed_fields(&deployments(), None, &mut old, "a", NOW);
    let mut live = old.clone();
    live["spec"]["paused"] = true.into();
    update_managed_fields(&deployments(), Some(&old), &mut live, "b", NOW);
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = "b".into();
    update_managed_fields(&deployments(), Some(&live), &mut new, "c", NOW);
    assert_eq!(managers(&new), ["b"]);
    assert_eq!(owner(&new, "b"), &json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn the_eleventh_manager_folds_the_oldest() {
    let mut live = deployment(json!({}));
    live["metadata"]["labels"] = json!({"l": "0"});
    update_managed_fields(&deployments(), None, &mut live, "m0", NOW);
    for i in 1..13 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i}")] = json!("x");
        update_managed_fields(&deployments(), Some(&live), &mut new, &format!("m{i}"), NOW + i);
        live = new;
    }
    let names = managers(&live);
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
    assert_eq!(names[9], "m12");
}

fn applied(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Value, StatusError> {
    apply(&deployments(), live, config, manager, force, NOW)
}

#[test]
fn apply_creates_owns_and_is_idempotent() {
    let config =
        deployment(json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}));
    let object = applied(None, &config, "me", false).expect("creates");
    assert_eq!(object["spec"], config["spec"]);
    assert_eq!(
        owner(&object, "me"),
        &json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}":
            {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let again = apply(&deployments(), Some(&object), &config, "me", false, NOW + 60).expect("applies");
    assert_eq!(again, object);
}

#[test]
fn what_is_no_longer_applied_is_removed_unless_others_own_it() {
    let both = deployment(json!({"replicas": 2, "template": {"spec": {"containers":
        [{"name": "a", "image": "x", "tty": true}, {"name": "b", "image": "y"}]}}}));
    let live = applied(None, &both, "me", false).expect("creates");
    let other = deployment(json!({"template": {"spec": {"containers": [{"name": "b", "stdin": true}]}}}));
    let live = applied(Some(&live), &other, "other", false).expect("no conflict");
    let less = deployment(json!({"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}));
    let object = applied(Some(&live), &less, "me", false).expect("applies");
    assert_eq!(
        object["spec"],
        json!({"template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "stdin": true}]}}})
    );
}

#[test]
fn what_others_own_is_a_conflict_in_upstreams_words() {
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    update_managed_fields(&deployments(), None, &mut live, "kubectl", NOW);
    let config = deployment(json!({"replicas": 2}));
    let error = applied(Some(&live), &config, "me", false).expect_err("a conflict");
    assert_eq!(error.code, 409);
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas");
    let cause = &error.details.expect("details").causes[0];
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(cause.field, ".spec.replicas");
    assert_eq!(cause.message, "conflict with \"kubectl\" using apps/v1");
    let two = deployment(json!({"replicas": 2, "paused": false}));
    assert_eq!(
        applied(Some(&live), &two, "me", false).expect_err("conflicts").message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let forced = applied(Some(&live), &config, "me", true).expect("forced");
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(owner(&forced, "me"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owner(&forced, "kubectl")["f:spec"].get("f:replicas"), None);
}

#[test]
fn a_null_takes_away_what_may_be_others() {
    let live = applied(None, &deployment(json!({"replicas": 1, "paused": true})), "other", false).expect("creates");
    let config = deployment(json!({"replicas": null}));
    let conflict = applied(Some(&live), &config, "me", false).expect_err("a conflict");
    assert_eq!(conflict.details.expect("details").causes[0].field, ".spec.replicas");
    let nothing = deployment(json!({"minReadySeconds": null}));
    let object = applied(Some(&live), &nothing, "me", false).expect("no conflict");
    assert_eq!(object["spec"], live["spec"]);
}

#[test]
fn an_equal_value_is_owned_together() {
    let mut live = deployment(json!({"replicas": 1}));
    update_managed_fields(&deployments(), None, &mut live, "a", NOW);
    let shared = applied(Some(&live), &deployment(json!({"replicas": 1})), "me", false).expect("no conflict");
    assert_eq!(owner(&shared, "me"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owner(&shared, "a")["f:spec"]["f:replicas"], json!({}));
}

#[test]
fn kubectl_takes_over_what_it_applied_client_side() {
    let mut live = deployment(json!({"replicas": 1}));
    let last = live.to_string();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    update_managed_fields(&deployments(), None, &mut live, "kubectl-client-side-apply", NOW);
    let config = deployment(json!({"replicas": 3}));
    assert_eq!(applied(Some(&live), &config, "someone", false).map_err(|e| e.code), Err(409));
    let object = applied(Some(&live), &config, "kubectl", false).expect("adopted");
    assert_eq!(object["spec"]["replicas"], 3);
    let refreshed = object["metadata"]["annotations"][LAST_APPLIED].as_str().expect("an annotation");
    assert_eq!(serde_json::from_str::<Value>(refreshed).expect("JSON")["spec"]["replicas"], 3);
}

#[test]
fn an_untracked_object_is_tracked_at_its_first_apply() {
    let live = deployment(json!({"replicas": 1, "paused": true}));
    let object = applied(Some(&live), &deployment(json!({"replicas": 1})), "me", false).expect("applies");
    assert_eq!(managers(&object), ["me", BEFORE_FIRST_APPLY]);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (config, code, message) in [
        (json!({"apiVersion": "v1", "kind": "Pod"}), 400, "invalid object type: /v1, Kind=Pod"),
        (
            deployment(json!({"nope": 1})),
            500,
            "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
        ),
        (
            deployment(json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}})),
            500,
            "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
    ] {
        let error = applied(None, &config, "me", false).expect_err("refused");
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(
        applied(None, &managed, "me", false).expect_err("refused").message,
        "metadata.managedFields must be nil"
    );
}

#[test]
fn lists_keep_the_appliers_order_around_what_others_have() {
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        list.iter().map(|c| c["name"].as_str().unwrap_or_default().to_string()).collect()
    };
    let with = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        deployment(json!({"template": {"spec": {"containers": containers}}}))
    };
    let live = applied(None, &with(&["a", "b", "c"]), "first", false).expect("creates");
    let object = applied(Some(&live), &with(&["c", "n", "a"]), "second", false).expect("applies");
    assert_eq!(names(&object), ["b", "c", "n", "a"]);
}
