use std::sync::Arc;

use serde_json::json;

use crate::{
    census::{Census, Group, Surroundings},
    cluster::Cluster,
    selector::label_selector,
    testing::{node, pod, zones},
};

/// A number from 0 to `below`.
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

fn by_zone(cluster: &mut Cluster, app: &str) -> Vec<i64> {
    let selector = serde_json::from_value(json!({"matchLabels": {"app": app}})).unwrap();
    let group = Group::Selected { namespace: "default".into(), selector: label_selector(Some(&selector)) };
    let column = cluster.column(&"topology.kubernetes.io/zone".into());
    let id = cluster.ask(&group, column);
    let (census, names) = (cluster.census(), ["a1", "a2", "b1", "c"]);
    let nodes = names.iter().filter_map(|name| cluster.named(name));
    nodes.map(|node| census.counts(id).around(column, node, census.columns())).collect()
}

/// The same by looking at every pod.
fn by_zone_afresh(cluster: &Cluster, app: &str) -> Vec<i64> {
    let names = ["a1", "a2", "b1", "c"];
    let nodes: Vec<_> = names.iter().filter_map(|name| cluster.named(name)).map(|index| cluster.node(index)).collect();
    let zone = |node: &crate::node::NodeInfo| node.labels.get("topology.kubernetes.io/zone").cloned();
    let of = |wanted: &str| {
        let there = cluster.nodes().filter(|node| zone(node).as_deref() == Some(wanted));
        there.flat_map(|node| &node.pods).filter(|pod| pod.labels["app"] == app).count() as i64
    };
    nodes.iter().map(|node| zone(node).map_or(0, |zone| of(&zone))).collect()
}

#[test]
fn standing_counts_are_what_counting_afresh_gives() {
    let (mut cluster, mut state) = (zones(), 88_172_645_463_325_252);
    for step in 0..2000 {
        let name = format!("p{}", random(&mut state, 40));
        let on = ["a1", "a2", "b1", "c", "unknown"][random(&mut state, 5) as usize];
        match random(&mut state, 10) {
            0..6 => {
                let app = ["web", "db"][random(&mut state, 2) as usize];
                cluster.set_pod(Arc::new(pod(&name, app, &json!({}))), on);
            }
            6..8 => drop(cluster.remove_pod(&name)),
            8 => {
                let zone = ["a", "b", "d"][random(&mut state, 3) as usize];
                cluster.set_node(&node(on, json!({"topology.kubernetes.io/zone": zone})));
            }
            _ => cluster.remove_node(on),
        }
        for app in ["web", "db"] {
            assert_eq!(by_zone(&mut cluster, app), by_zone_afresh(&cluster, app), "step {step}, {app}");
        }
    }
}

#[test]
fn groups_that_nobody_asks_for_are_forgotten() {
    let mut census = Census::default();
    let around = Surroundings { nodes: &[], namespaces: &std::collections::HashMap::new() };
    let column = census.column(&"zone".into(), &[]);
    let group = |number: usize| Group::Selected {
        namespace: number.to_string().as_str().into(),
        selector: knarr_api::selector::LabelSelector::nothing(),
    };
    for number in 0..=super::MOST_GROUPS {
        census.ask(&group(number), column, &around);
    }
    census.trim();
    assert_eq!(census.standing.len(), super::MOST_GROUPS / 2);
    assert!(census.by_group.contains_key(&group(super::MOST_GROUPS)));
    assert!(!census.by_group.contains_key(&group(0)));
}
