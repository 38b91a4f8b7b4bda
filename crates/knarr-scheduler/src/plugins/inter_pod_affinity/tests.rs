use serde_json::{Value, json};

use super::*;
use crate::testing::{fill, pod, zones};

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn preferred(kind: &str, weight: i64, app: &str, key: &str) -> Value {
    let weighted = json!([{"weight": weight, "podAffinityTerm": term(app, key)}]);
    json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn scores(pod: &PodInfo, cluster: &mut Cluster) -> Option<Vec<i64>> {
    let state = State::of(pod, cluster);
    let nodes: Vec<_> = ["a1", "a2", "b1", "c"].iter().filter_map(|name| cluster.named(name)).collect();
    let nodes: Vec<&NodeInfo> = nodes.iter().map(|index| cluster.node(*index)).collect();
    score(pod, &nodes, &state, cluster)
}

#[test]
fn preferences_score_domains() {
    let required = json!({"affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term("web", ZONE)]}}});
    // The incoming pod's spec, that of the pod on `a1`, and the scores of a1, a2, b1 and c.
    let cases: [(Value, Value, Option<[i64; 4]>); 6] = [
        (json!({}), json!({}), None),
        (preferred("podAffinity", 5, "db", ZONE), json!({}), Some([100, 100, 0, 0])),
        (preferred("podAffinity", 5, "db", HOST), json!({}), Some([100, 0, 0, 0])),
        (preferred("podAntiAffinity", 5, "db", ZONE), json!({}), Some([0, 0, 100, 100])),
        (json!({}), preferred("podAntiAffinity", 9, "web", HOST), Some([0, 100, 100, 100])),
        (json!({}), required, Some([100, 100, 0, 0])),
    ];
    for (incoming, present, expected) in cases {
        let mut cluster = zones();
        fill(&mut cluster, "db", &["a1"], &present);
        let found = scores(&pod("new", "web", &incoming), &mut cluster);
        assert_eq!(found, expected.map(Vec::from), "{incoming} {present}");
    }
}

#[test]
fn what_pods_demand_goes_with_them() {
    let mut cluster = zones();
    fill(&mut cluster, "db", &["a1", "a1"], &preferred("podAffinity", 3, "web", ZONE));
    let new = pod("new", "web", &json!({}));
    assert_eq!(scores(&new, &mut cluster), Some(vec![100, 100, 0, 0]));
    cluster.remove_pod("db-a1-0");
    assert_eq!(scores(&new, &mut cluster), Some(vec![100, 100, 0, 0]));
    cluster.remove_pod("db-a1-1");
    assert_eq!(scores(&new, &mut cluster), None);
}

#[test]
fn terms_may_ask_for_namespaces_by_label() {
    let mut cluster = zones();
    let mut away = term("web", ZONE);
    away["namespaceSelector"] = json!({"matchLabels": {"team": "x"}});
    let spec = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [away]}}});
    fill(&mut cluster, "web", &["a1"], &json!({}));
    let new = pod("new", "db", &spec);
    let fits = |cluster: &mut Cluster| {
        let state = State::of(&new, cluster);
        cluster.named("a2").is_some_and(|index| filter(cluster.node(index), &state, cluster).is_ok())
    };
    assert!(fits(&mut cluster));
    cluster.set_namespace("default", Some([("team".to_owned(), "x".to_owned())].into()));
    assert!(!fits(&mut cluster));
    cluster.set_namespace("default", None);
    assert!(fits(&mut cluster));
}
