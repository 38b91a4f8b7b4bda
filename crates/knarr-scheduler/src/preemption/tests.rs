use serde_json::{Value, json};

use super::*;
use crate::{
    cycle::Cycles,
    testing::{node, pod},
};

fn asking(cpu: &str, priority: i32) -> Value {
    json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

/// Pods as (name, node, CPUs, priority); nodes have 4 CPUs.
fn cluster(nodes: &[&str], pods: &[(&str, &str, &str, i32)]) -> Cluster {
    let mut cluster = Cluster::default();
    for name in nodes {
        cluster.set_node(&node(name, json!({})));
    }
    for (name, node, cpu, priority) in pods {
        cluster.set_pod(Arc::new(pod(name, name, &asking(cpu, *priority))), node);
    }
    cluster
}

fn budget(app: &str, allowed: i32) -> Budgets {
    let mut budgets = Budgets::default();
    let budget = json!({
        "metadata": {"name": app, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    budgets.set(&serde_json::from_value(budget).unwrap());
    budgets
}

/// The node and the victims, or the message.
fn outcome(pod: &PodInfo, cluster: &mut Cluster, budgets: &Budgets) -> Result<(String, Vec<String>), String> {
    let mut diagnosis = Cycles::new(0).place(pod, cluster).unwrap_err();
    match preempt(pod, cluster, budgets, &mut diagnosis) {
        Some(found) => {
            let victims = found.victims.iter().map(|pod| pod.uid.to_string()).collect();
            Ok((cluster.node(found.node).name.to_string(), victims))
        }
        None => Err(diagnosis.message()),
    }
}

#[test]
fn the_least_harm_is_done() {
    type Pods = &'static [(&'static str, &'static str, &'static str, i32)];
    let cases: [(&str, Pods, &str, &[&str]); 5] = [
        ("lowest priority", &[("a", "n1", "4", 5), ("b", "n2", "4", 3)], "n2", &["b"]),
        ("fewest victims", &[("a", "n1", "2", 1), ("b", "n1", "2", 1), ("c", "n2", "4", 1)], "n2", &["c"]),
        ("spares what it can", &[("a", "n1", "1", 4), ("b", "n1", "3", 2), ("c", "n2", "4", 50)], "n1", &["b"]),
        (
            "smallest sum",
            &[("a", "n1", "2", 5), ("b", "n1", "2", 4), ("c", "n2", "2", 5), ("d", "n2", "2", 1)],
            "n2",
            &["c", "d"],
        ),
        ("equals stay", &[("a", "n1", "4", 10), ("b", "n2", "4", 9)], "n2", &["b"]),
    ];
    for (name, pods, node, victims) in cases {
        let mut cluster = cluster(&["n1", "n2"], pods);
        let new = pod("new", "new", &asking("3", 10));
        let expected = (node.to_owned(), victims.iter().map(|victim| (*victim).to_owned()).collect());
        assert_eq!(outcome(&new, &mut cluster, &Budgets::default()), Ok(expected), "{name}");
        for (uid, ..) in pods {
            assert!(cluster.has_pod(uid), "{name}: {uid} is back");
        }
    }
}

#[test]
fn budgets_are_kept_if_possible() {
    let pods = [("a", "n1", "4", 1), ("b", "n2", "4", 5)];
    let new = pod("new", "new", &asking("3", 10));
    let on = |node: &str, victim: &str| Ok((node.to_owned(), vec![victim.to_owned()]));
    let mut cluster = cluster(&["n1", "n2"], &pods);
    assert_eq!(outcome(&new, &mut cluster, &budget("a", 1)), on("n1", "a"));
    assert_eq!(outcome(&new, &mut cluster, &budget("a", 0)), on("n2", "b"));
    cluster.remove_node("n2");
    assert_eq!(outcome(&new, &mut cluster, &budget("a", 0)), on("n1", "a"));
}

#[test]
fn the_message_says_why_it_would_not_help() {
    let mut full = cluster(&["n1", "n2"], &[("a", "n1", "4", 10), ("b", "n2", "4", 10)]);
    let cases = [
        (
            asking("3", 10),
            "2 Insufficient cpu",
            "0/2 nodes are available: 2 No preemption victims found for incoming pod.",
        ),
        (asking("5", 20), "2 Insufficient cpu", "0/2 nodes are available: 2 Preemption is not helpful for scheduling."),
    ];
    for (spec, reason, preemption) in cases {
        let message = format!("0/2 nodes are available: {reason}. preemption: {preemption}");
        assert_eq!(outcome(&pod("new", "new", &spec), &mut full, &Budgets::default()), Err(message));
    }
    let mut never = asking("3", 20);
    never["preemptionPolicy"] = json!("Never");
    let message = outcome(&pod("new", "new", &never), &mut full, &Budgets::default()).unwrap_err();
    assert!(message.ends_with(" preemption: not eligible due to preemptionPolicy=Never."), "{message}");
}

#[test]
fn room_is_made_for_anti_affinity_too() {
    let apart = json!({"priority": 10, "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
    let mut cluster = cluster(&["n1"], &[("a", "n1", "1", 1), ("b", "n1", "1", 1)]);
    let found = outcome(&pod("new", "new", &apart), &mut cluster, &Budgets::default());
    assert_eq!(found, Ok(("n1".into(), vec!["a".into()])));
}
