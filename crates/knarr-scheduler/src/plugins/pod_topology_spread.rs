//! Hard topology spread constraints.

use std::collections::HashMap;

use super::{Plugin, node_affinity, taint_toleration};
use crate::{
    cluster::Cluster,
    diagnosis::Rejection,
    node::NodeInfo,
    pod::{PodInfo, SpreadConstraint},
};

/// For each hard constraint: how many matching pods each domain has.
#[derive(Default)]
pub struct State {
    constraints: Vec<Counts>,
}

struct Counts {
    /// Which of the pod's constraints this is.
    position: usize,
    by_domain: HashMap<String, i64>,
    least: i64,
}

impl State {
    pub fn of(pod: &PodInfo, cluster: &Cluster) -> State {
        let hard = pod.spread.iter().enumerate().filter(|(_, constraint)| constraint.hard);
        let constraints = hard.map(|(position, constraint)| count(pod, position, constraint, cluster)).collect();
        State { constraints }
    }
}

fn count(pod: &PodInfo, position: usize, constraint: &SpreadConstraint, cluster: &Cluster) -> Counts {
    let mut by_domain = HashMap::<String, i64>::new();
    for node in cluster.nodes().filter(|node| takes_part(pod, constraint, node)) {
        let Some(value) = node.labels.get(&*constraint.topology_key) else { continue };
        let matching = node.pods.iter().filter(|other| {
            other.key.namespace == pod.key.namespace && !other.terminating && constraint.selector.matches(&other.labels)
        });
        *by_domain.entry(value.clone()).or_default() += matching.count() as i64;
    }
    // With fewer domains than demanded, an empty one is imagined.
    let enough = by_domain.len() as i64 >= constraint.min_domains;
    let least = if enough { by_domain.values().copied().min().unwrap_or(0) } else { 0 };
    Counts { position, by_domain, least }
}

fn takes_part(pod: &PodInfo, constraint: &SpreadConstraint, node: &NodeInfo) -> bool {
    let mut hard = pod.spread.iter().filter(|constraint| constraint.hard);
    hard.all(|constraint| node.labels.contains_key(&*constraint.topology_key))
        && (!constraint.honor_affinity || node_affinity::filter(pod, node).is_ok())
        && (!constraint.honor_taints || taint_toleration::filter(pod, node).is_ok())
}

pub fn filter(pod: &PodInfo, node: &NodeInfo, state: &State) -> Result<(), Rejection> {
    for counts in &state.constraints {
        let constraint = &pod.spread[counts.position];
        let Some(value) = node.labels.get(&*constraint.topology_key) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Rejection::lasting(Plugin::PodTopologySpread, reason));
        };
        let itself = i64::from(constraint.selector.matches(&pod.labels));
        let there = counts.by_domain.get(value).copied().unwrap_or(0);
        if there + itself - counts.least > constraint.max_skew {
            let reason = "node(s) didn't match pod topology spread constraints";
            return Err(Rejection::crowded(Plugin::PodTopologySpread, reason));
        }
    }
    Ok(())
}
