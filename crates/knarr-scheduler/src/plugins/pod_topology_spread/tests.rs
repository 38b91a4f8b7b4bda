use serde_json::{Value, json};

use super::*;
use crate::{
    default_selector::Owner,
    plugins::MOST,
    selector::Labels,
    testing::{fill, pod, zones},
};

fn constraint(key: &str, skew: i64, when: &str) -> Value {
    let selector = json!({"matchLabels": {"app": "web"}});
    json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector})
}

fn scores(pod: &PodInfo, cluster: &mut Cluster) -> Option<Vec<i64>> {
    let soft = Soft::of(pod, cluster);
    let nodes: Vec<_> = ["a1", "a2", "b1", "c"].iter().filter_map(|name| cluster.named(name)).collect();
    let nodes: Vec<&NodeInfo> = nodes.iter().map(|index| cluster.node(*index)).collect();
    score(pod, &nodes, &soft, cluster)
}

#[test]
fn soft_constraints_score_by_pods_in_the_domain() {
    // Scores of a1, a2, b1 and c. The expected numbers follow upstream's formula, ln(domains + 2) being the weight of a pod.
    let cases: [(&str, &[&str], [i64; 4]); 4] = [
        (ZONE, &[], [0, 0, 0, 0]),
        (ZONE, &["a1", "a2", "b1"], [33, 33, 100, 0]),
        (HOSTNAME, &["a1", "a1", "b1"], [0, 100, 50, 100]),
        (HOSTNAME, &["a1", "a2", "b1", "c"], [100, 100, 100, 100]),
    ];
    for (key, present, expected) in cases {
        let mut cluster = zones();
        fill(&mut cluster, "web", present, &json!({}));
        fill(&mut cluster, "other", &["b1", "b1"], &json!({}));
        let spec = json!({"topologySpreadConstraints": [constraint(key, 1, "ScheduleAnyway")]});
        let found = scores(&pod("new", "web", &spec), &mut cluster).unwrap();
        let expected = if present.is_empty() { [MOST, MOST, MOST, 0] } else { expected };
        assert_eq!(found, expected, "{key} {present:?}");
    }
}

#[test]
fn pods_without_constraints_are_spread_by_what_selects_them() {
    let mut cluster = zones();
    let web: Labels = [("app".to_owned(), "web".to_owned())].into();
    assert_eq!(scores(&pod("new", "web", &json!({})), &mut cluster), None, "nothing selects it");
    cluster.selectors.set_service("default", "web", Some(web));
    fill(&mut cluster, "web", &["a1"], &json!({}));
    let found = scores(&pod("new", "web", &json!({})), &mut cluster).unwrap();
    assert!(found[0] < found[1] && found[1] < found[2], "{found:?}");
    assert_eq!(scores(&pod("new", "db", &json!({})), &mut cluster), None);
    cluster.selectors.set_service("default", "web", None);
    cluster.selectors.set_owner(Owner::ReplicaSet, "default", "web", None);
    assert_eq!(scores(&pod("new", "web", &json!({})), &mut cluster), None);
}

#[test]
fn counts_follow_pods_and_labels_as_they_change() {
    let mut cluster = zones();
    let new = pod("new", "web", &json!({"topologySpreadConstraints": [constraint(ZONE, 1, "DoNotSchedule")]}));
    let fits = |cluster: &mut Cluster, name: &str| {
        let hard = Hard::of(&new, cluster);
        cluster.named(name).is_some_and(|index| filter(&new, cluster.node(index), &hard, cluster).is_ok())
    };
    assert!(fits(&mut cluster, "a1"));
    assert!(!fits(&mut cluster, "c"), "it has no zone");
    fill(&mut cluster, "web", &["a1"], &json!({}));
    assert!(!fits(&mut cluster, "a2"));
    assert!(fits(&mut cluster, "b1"));
    cluster.set_node(&crate::testing::node("a1", json!({"topology.kubernetes.io/zone": "b"})));
    assert!(fits(&mut cluster, "a2"));
    assert!(!fits(&mut cluster, "b1"));
    cluster.remove_pod("web-a1-0");
    assert!(fits(&mut cluster, "b1"));
}
