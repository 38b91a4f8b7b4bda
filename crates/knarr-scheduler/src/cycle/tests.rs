use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn node(name: &str, spec: Value) -> k8s_openapi::api::core::v1::Node {
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": allocatable},
    });
    serde_json::from_value(node).unwrap()
}

fn pod(name: &str, spec: Value) -> PodInfo {
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn cluster(nodes: &[(&str, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, spec) in nodes {
        cluster.set_node(&node(name, spec.clone()));
    }
    cluster
}

fn place(pod: &PodInfo, cluster: &mut Cluster) -> Result<String, String> {
    let placed = Cycles::new(0).place(pod, cluster);
    placed.map(|index| cluster.node(index).name.to_string()).map_err(|diagnosis| diagnosis.message())
}

#[test]
fn a_pod_goes_where_there_is_most_room() {
    let mut cluster = cluster(&[("a", json!({})), ("b", json!({})), ("c", json!({}))]);
    cluster.set_pod(Arc::new(pod("one", asking("2"))), "a");
    cluster.set_pod(Arc::new(pod("two", asking("1"))), "c");
    assert_eq!(place(&pod("three", asking("1")), &mut cluster), Ok("b".into()));
    cluster.remove_pod("one");
    cluster.set_pod(Arc::new(pod("three", asking("2"))), "b");
    assert_eq!(place(&pod("four", asking("1")), &mut cluster), Ok("a".into()));
}

#[test]
fn every_refusal_is_counted() {
    let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let mut cluster = cluster(&[("a", taint.clone()), ("b", taint), ("c", json!({}))]);
    assert_eq!(
        place(&pod("large", asking("5")), &mut cluster),
        Err("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).".into())
    );
}

#[test]
fn filters_refuse_and_tolerations_and_selectors_let_through() {
    let mut cluster = cluster(&[
        ("tainted", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})),
        ("cordoned", json!({"unschedulable": true})),
        ("plain", json!({})),
    ]);
    let mut merged = |extra: Value| {
        let mut spec = json!({"containers": []});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        place(&pod("p", spec), &mut cluster)
    };
    assert_eq!(merged(json!({})), Ok("plain".into()));
    let to = |name: &str| json!({"kubernetes.io/hostname": name});
    let tolerations = json!([{"key": "k", "operator": "Equal", "value": "v"}]);
    assert_eq!(merged(json!({"nodeSelector": to("tainted"), "tolerations": tolerations})), Ok("tainted".into()));
    let exists = json!([{"operator": "Exists"}]);
    assert_eq!(merged(json!({"nodeSelector": to("cordoned"), "tolerations": exists})), Ok("cordoned".into()));
    let by_field = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["plain"]}]},
    ]}}});
    assert_eq!(merged(json!({"affinity": by_field})), Ok("plain".into()));
    assert_eq!(
        merged(json!({"nodeName": "elsewhere"})),
        Err("0/3 nodes are available: 1 node(s) were unschedulable, \
             2 node(s) didn't match the requested node name."
            .into())
    );
}

#[test]
fn host_ports_are_taken_once() {
    let port = |port: i32| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]});
    let mut cluster = cluster(&[("a", json!({}))]);
    cluster.set_pod(Arc::new(pod("one", port(8080))), "a");
    assert_eq!(
        place(&pod("two", port(8080)), &mut cluster),
        Err("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.".into())
    );
    assert_eq!(place(&pod("three", port(8081)), &mut cluster), Ok("a".into()));
}

#[test]
fn ties_spread_over_nodes() {
    let nodes: Vec<_> = (0..8).map(|n| format!("n{n}")).collect();
    let mut cluster = cluster(&nodes.iter().map(|name| (name.as_str(), json!({}))).collect::<Vec<_>>());
    let mut cycles = Cycles::new(0);
    let pod = pod("p", json!({"containers": []}));
    let placed: std::collections::BTreeSet<_> =
        (0..200).filter_map(|_| cycles.place(&pod, &mut cluster).ok()).collect();
    assert_eq!(placed.len(), 8);
}

fn labelled(name: &str, app: &str, spec: Value) -> PodInfo {
    let labels = json!({"app": app});
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels}, "spec": spec});
    PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
}

fn term(app: &str) -> Value {
    json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}])
}

#[test]
fn anti_affinity_keeps_apart_both_ways() {
    let mut cluster = cluster(&[("a", json!({})), ("b", json!({}))]);
    let apart = json!({"containers": [], "affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": term("web")}}});
    cluster.set_pod(Arc::new(labelled("one", "web", apart.clone())), "a");
    assert_eq!(place(&labelled("two", "web", apart.clone()), &mut cluster), Ok("b".into()));
    assert_eq!(place(&labelled("plain", "web", json!({"containers": []})), &mut cluster), Ok("b".into()));
    cluster.set_pod(Arc::new(labelled("two", "web", apart.clone())), "b");
    assert_eq!(
        place(&labelled("three", "web", apart), &mut cluster),
        Err("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.".into())
    );
    assert_eq!(
        place(&labelled("plain", "web", json!({"containers": []})), &mut cluster),
        Err("0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.".into())
    );
}

#[test]
fn affinity_gathers_and_the_first_of_a_group_may_begin() {
    let mut cluster = cluster(&[("a", json!({})), ("b", json!({}))]);
    let together = |app: &str| {
        json!({"containers": [], "affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": term(app)}}})
    };
    assert!(place(&labelled("first", "web", together("web")), &mut cluster).is_ok());
    assert_eq!(
        place(&labelled("other", "db", together("web")), &mut cluster),
        Err("0/2 nodes are available: 2 node(s) didn't match pod affinity rules.".into())
    );
    cluster.set_pod(Arc::new(labelled("first", "web", together("web"))), "b");
    assert_eq!(place(&labelled("other", "db", together("web")), &mut cluster), Ok("b".into()));
}

#[test]
fn hard_spreading_bounds_the_skew() {
    let mut cluster = cluster(&[("a", json!({})), ("b", json!({"unschedulable": true}))]);
    let spread = json!({"containers": [], "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]});
    cluster.set_pod(Arc::new(labelled("one", "web", spread.clone())), "a");
    assert_eq!(
        place(&labelled("two", "web", spread.clone()), &mut cluster),
        Err("0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
             1 node(s) were unschedulable."
            .into())
    );
    cluster.set_node(&node("b", json!({})));
    assert_eq!(place(&labelled("two", "web", spread), &mut cluster), Ok("b".into()));
}
