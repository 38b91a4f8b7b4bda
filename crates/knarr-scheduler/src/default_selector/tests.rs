use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn pod(owners: Value) -> PodInfo {
    let metadata = json!({"name": "p", "namespace": "default", "uid": "p", "labels": {"app": "web", "tier": "front"},
        "ownerReferences": owners});
    PodInfo::new(Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).unwrap()))
}

fn owner(api_version: &str, kind: &str, controller: bool) -> Value {
    json!([{"apiVersion": api_version, "kind": kind, "name": "web", "uid": "o", "controller": controller}])
}

#[test]
fn services_and_the_controller_are_added_up() {
    let mut selectors = Selectors::default();
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    selectors.set_service("default", "web", Some(labels("app", "web")));
    selectors.set_service("default", "other", Some(labels("app", "db")));
    selectors.set_service("elsewhere", "front", Some(labels("tier", "front")));
    selectors.set_owner(Owner::ReplicaSet, "default", "web", LabelSelector::parse("hash=1").ok());
    let cases = [
        (json!([]), Some("app=web")),
        (owner("apps/v1", "ReplicaSet", true), Some("app=web,hash=1")),
        (owner("apps/v1", "ReplicaSet", false), Some("app=web")),
        (owner("apps/v1", "StatefulSet", true), Some("app=web")),
        (owner("batch/v1", "Job", true), Some("app=web")),
    ];
    for (owners, expected) in cases {
        let found = selectors.of(&pod(owners.clone())).map(|selector| selector.to_string());
        assert_eq!(found.as_deref(), expected, "{owners}");
    }
    selectors.set_service("default", "web", None);
    assert_eq!(selectors.of(&pod(json!([]))), None);
}
