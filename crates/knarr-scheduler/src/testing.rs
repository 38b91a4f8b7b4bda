//! Nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::{cluster::Cluster, pod::PodInfo};

/// A node with 4 CPUs, 8 GiB and room for 110 pods, and these labels beside its hostname.
pub fn node(name: &str, labels: Value) -> Node {
    let mut all = json!({"kubernetes.io/hostname": name});
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": all}, "status": {"allocatable": allocatable}}))
        .unwrap()
}

/// A pod in `default` whose uid is its name, labelled with its app.
pub fn pod(name: &str, app: &str, spec: &Value) -> PodInfo {
    let mut full = json!({"containers": []});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": app}});
    PodInfo::new(Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": full})).unwrap()))
}

/// Nodes `a1`, `a2` in zone `a` and `b1` in zone `b`, and one without a zone, `c`.
pub fn zones() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        cluster.set_node(&node(name, json!({"topology.kubernetes.io/zone": zone})));
    }
    cluster.set_node(&node("c", json!({})));
    cluster
}

/// Puts pods of an app on nodes.
pub fn fill(cluster: &mut Cluster, app: &str, nodes: &[&str], spec: &Value) {
    for (number, node) in nodes.iter().enumerate() {
        cluster.set_pod(Arc::new(pod(&format!("{app}-{node}-{number}"), app, spec)), node);
    }
}
