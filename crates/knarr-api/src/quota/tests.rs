use serde_json::{Value, json};

use super::*;

fn counted(resource: &'static str, object: &Value) -> Counted {
    Counted::of(&GroupResource::new("", resource), object)
}

fn used(resource: &'static str, object: &Value) -> Value {
    let usage = counted(resource, object).usage;
    usage
        .into_iter()
        .map(|(name, quantity)| (name, Value::from(quantity.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn a_pod_counts_its_largest_moment() {
    let container = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu, "example.com/gpu": "1" } } });
    let pod =
        json!({ "spec": { "containers": [container("100m"), container("200m")], "initContainers": [container("1")] } });
    let wanted =
        json!({ "count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1", "requests.example.com/gpu": "2" });
    assert_eq!(used("pods", &pod), wanted);
    let finished = json!({ "spec": pod["spec"], "status": { "phase": "Failed" } });
    assert_eq!(used("pods", &finished), json!({ "count/pods": "1" }));
}

#[test]
fn a_pod_that_is_resized_counts_for_the_most_it_may_have() {
    let list = |cpu: &str| json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu } });
    let pod = |reason: &str| {
        json!({ "spec": { "containers": [{ "name": "a", "resources": list("3") }] }, "status": {
            "conditions": [{ "type": "PodResizePending", "status": "True", "reason": reason }],
            "containerStatuses": [{ "name": "a", "resources": list("1"), "allocatedResources": { "cpu": "2" } }] } })
    };
    let cpu = |reason: &str| {
        let used = used("pods", &pod(reason));
        (used["requests.cpu"].clone(), used["limits.cpu"].clone())
    };
    assert_eq!(cpu("Deferred"), (json!("3"), json!("3")));
    assert_eq!(cpu("Infeasible"), (json!("2"), json!("1")));
}

#[test]
fn a_pod_that_is_stuck_in_its_end_counts_for_its_existence() {
    let pod = json!({
        "metadata": { "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30 },
        "spec": { "containers": [{ "resources": { "requests": { "cpu": "1" } } }] },
    });
    let counted = counted("pods", &pod);
    let at = |time: &str, name: &str| counted.amount(name, time.parse().expect("a time")).map(|n| n.to_string());
    for (name, while_it_may, afterwards) in
        [("requests.cpu", Some("1"), None), ("pods", Some("1"), None), ("count/pods", Some("1"), Some("1"))]
    {
        assert_eq!(at("2026-01-01T00:00:59Z", name).as_deref(), while_it_may, "{name}");
        assert_eq!(at("2026-01-01T00:01:01Z", name).as_deref(), afterwards, "{name}");
    }
}

#[test]
fn services_and_claims_count_by_their_kind() {
    let ports = json!([{ "port": 1 }, { "port": 2, "nodePort": 30000 }]);
    let balanced =
        json!({ "spec": { "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports } });
    let wanted =
        json!({ "count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1" });
    assert_eq!(used("services", &balanced), wanted);
    let claim = json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "2Gi" } } } });
    let wanted = json!({ "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "fast.storageclass.storage.k8s.io/requests.storage": "2Gi" });
    assert_eq!(used("persistentvolumeclaims", &claim), wanted);
}

#[test]
fn scopes_select_pods_and_nothing_else() {
    let quota = |spec: Value| Quota::of(&json!({ "spec": spec }));
    let selector = |operator: &str, values: Value| {
        quota(
            json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": operator, "values": values }] } }),
        )
    };
    let plain = counted("pods", &json!({ "spec": { "containers": [{}] } }));
    let urgent = json!({ "spec": { "priorityClassName": "high", "activeDeadlineSeconds": 5, "containers": [{ "resources": { "limits": { "cpu": "1" } } }] } });
    let urgent = counted("pods", &urgent);
    let other = counted("configmaps", &json!({}));
    let rows = [
        (quota(json!({})), [true, true, true]),
        (quota(json!({ "scopes": ["Terminating"] })), [false, true, false]),
        (quota(json!({ "scopes": ["NotTerminating", "BestEffort"] })), [true, false, false]),
        (quota(json!({ "scopes": ["NotBestEffort"] })), [false, true, false]),
        (selector("In", json!(["high"])), [false, true, false]),
        (selector("NotIn", json!(["high"])), [true, false, false]),
        (selector("Exists", json!([])), [false, true, false]),
        (selector("DoesNotExist", json!([])), [true, false, false]),
    ];
    for (quota, wanted) in rows {
        assert_eq!([&plain, &urgent, &other].map(|object| quota.selects(object)), wanted, "{quota:?}");
    }
}

#[test]
fn a_name_tells_whose_objects_it_counts() {
    let rows = [
        ("requests.cpu", Some(("", "pods"))),
        ("requests.storage", Some(("", "persistentvolumeclaims"))),
        ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
        ("count/widgets.example.com", Some(("example.com", "widgets"))),
        ("count/configmaps", Some(("", "configmaps"))),
        ("hugepages-2Mi", Some(("", "pods"))),
        ("bananas", None),
    ];
    for (name, wanted) in rows {
        assert_eq!(counts(name), wanted.map(|(group, resource)| GroupResource::new(group, resource)), "{name}");
    }
}
