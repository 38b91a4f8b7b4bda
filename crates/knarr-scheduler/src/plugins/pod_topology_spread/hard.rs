//! `DoNotSchedule`: no domain may have more than `maxSkew` pods above the emptiest.

use super::{Asked, has_labels};
use crate::{cluster::Cluster, diagnosis::Rejection, node::NodeInfo, plugins::Plugin, pod::PodInfo};

/// The hard constraints of a pod and the counts of their domains.
#[derive(Default)]
pub struct Hard {
    constraints: Vec<Counted>,
}

struct Counted {
    asked: Asked,
    /// By domain; `None`: no node that counts is in it.
    pods: Vec<Option<i64>>,
    fewest: i64,
}

impl Hard {
    pub fn of(pod: &PodInfo, cluster: &mut Cluster) -> Hard {
        let hard = pod.spread.iter().filter(|constraint| constraint.hard);
        let asked: Vec<_> = hard.map(|constraint| Asked::of(constraint, pod, cluster)).collect();
        if asked.is_empty() {
            return Hard::default();
        }
        let mut pods: Vec<Vec<Option<i64>>> = vec![Vec::new(); asked.len()];
        let columns = cluster.census().columns();
        for node in cluster.nodes().filter(|node| has_labels(node, &asked, cluster)) {
            for (asked, pods) in asked.iter().zip(&mut pods).filter(|(asked, _)| asked.includes(pod, node)) {
                let Some(domain) = columns.domain(asked.column, node.index) else { continue };
                pods.resize(columns.domains(asked.column), None);
                *pods[domain as usize].get_or_insert(0) += asked.on_node(node, cluster);
            }
        }
        Hard { constraints: asked.into_iter().zip(pods).map(|(asked, pods)| Counted::new(asked, pods)).collect() }
    }
}

impl Counted {
    fn new(asked: Asked, pods: Vec<Option<i64>>) -> Counted {
        let domains = pods.iter().flatten().count() as i64;
        // With fewer domains than demanded, an empty one is imagined.
        let enough = domains >= asked.constraint.min_domains;
        let fewest = if enough { pods.iter().flatten().copied().min().unwrap_or(0) } else { 0 };
        Counted { asked, pods, fewest }
    }
}

pub fn filter(pod: &PodInfo, node: &NodeInfo, hard: &Hard, cluster: &Cluster) -> Result<(), Rejection> {
    for counted in &hard.constraints {
        let constraint = &counted.asked.constraint;
        let Some(domain) = cluster.census().columns().domain(counted.asked.column, node.index) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Rejection::lasting(Plugin::PodTopologySpread, reason));
        };
        let itself = i64::from(constraint.selector.matches(&pod.labels));
        let there = counted.pods.get(domain as usize).copied().flatten().unwrap_or(0);
        if there + itself - counted.fewest > constraint.max_skew {
            let reason = "node(s) didn't match pod topology spread constraints";
            return Err(Rejection::crowded(Plugin::PodTopologySpread, reason));
        }
    }
    Ok(())
}
