//! `ScheduleAnyway`: the fewer pods in a node's domains, the better.

use std::collections::BTreeSet;

use super::{Asked, default_constraints, has_labels};
use crate::{
    cluster::Cluster,
    node::{HOSTNAME, NodeInfo},
    plugins::MOST,
    pod::PodInfo,
};

/// The soft constraints of a pod, its own or the default ones.
#[derive(Default)]
pub struct Soft {
    constraints: Vec<Asked>,
    /// Nodes must have all the labels to be scored: not asked of the default constraints.
    needs_labels: bool,
}

impl Soft {
    pub fn of(pod: &PodInfo, cluster: &mut Cluster) -> Soft {
        if !pod.spread.is_empty() {
            let soft = pod.spread.iter().filter(|constraint| !constraint.hard);
            let constraints = soft.map(|constraint| Asked::of(constraint, pod, cluster)).collect();
            return Soft { constraints, needs_labels: true };
        }
        let Some(selector) = cluster.selectors.of(pod) else { return Soft::default() };
        let defaults = default_constraints(&selector);
        Soft {
            constraints: defaults.iter().map(|constraint| Asked::of(constraint, pod, cluster)).collect(),
            needs_labels: false,
        }
    }

    fn scores(&self, node: &NodeInfo, cluster: &Cluster) -> bool {
        !self.needs_labels || has_labels(node, &self.constraints, cluster)
    }
}

/// From 0 to 100 for each node; `None` if the pod has no soft constraints.
pub fn score(pod: &PodInfo, nodes: &[&NodeInfo], soft: &Soft, cluster: &Cluster) -> Option<Vec<i64>> {
    if soft.constraints.is_empty() {
        return None;
    }
    let scored: Vec<bool> = nodes.iter().map(|node| soft.scores(node, cluster)).collect();
    let candidates: Vec<&NodeInfo> =
        nodes.iter().zip(&scored).filter(|(_, scored)| **scored).map(|(n, _)| *n).collect();
    let mut totals = vec![0.0; nodes.len()];
    for asked in &soft.constraints {
        let spread = Spread::of(asked, pod, &candidates, soft, cluster);
        for ((node, total), _) in nodes.iter().zip(&mut totals).zip(&scored).filter(|(_, scored)| **scored) {
            *total += spread.score(node, cluster).unwrap_or(0.0);
        }
    }
    let totals: Vec<Option<i64>> =
        totals.iter().zip(&scored).map(|(total, scored)| scored.then(|| total.round() as i64)).collect();
    Some(normalize(&totals))
}

/// One constraint over the nodes that are candidates.
struct Spread<'a> {
    asked: &'a Asked,
    /// Pods by domain; `None`: nodes are their own domains.
    by_domain: Option<Vec<i64>>,
    weight: f64,
}

impl<'a> Spread<'a> {
    fn of(asked: &'a Asked, pod: &PodInfo, candidates: &[&NodeInfo], soft: &Soft, cluster: &Cluster) -> Spread<'a> {
        if &*asked.constraint.topology_key == HOSTNAME {
            return Spread { asked, by_domain: None, weight: weight(candidates.len()) };
        }
        let columns = cluster.census().columns();
        let domains: BTreeSet<_> =
            candidates.iter().filter_map(|node| columns.domain(asked.column, node.index)).collect();
        let by_domain = Some(pods_by_domain(asked, pod, soft, cluster));
        Spread { asked, by_domain, weight: weight(domains.len()) }
    }

    /// `None`: the node is in no domain.
    fn score(&self, node: &NodeInfo, cluster: &Cluster) -> Option<f64> {
        let domain = cluster.census().columns().domain(self.asked.column, node.index)?;
        let pods = match &self.by_domain {
            Some(pods) => pods.get(domain as usize).copied().unwrap_or(0),
            None => self.asked.on_node(node, cluster),
        };
        Some(pods as f64 * self.weight + (self.asked.constraint.max_skew - 1) as f64)
    }
}

/// Topologies with many domains have few pods in each; the weight makes up for it.
fn weight(domains: usize) -> f64 {
    ((domains + 2) as f64).ln()
}

fn pods_by_domain(asked: &Asked, pod: &PodInfo, soft: &Soft, cluster: &Cluster) -> Vec<i64> {
    let columns = cluster.census().columns();
    let domains = columns.domains(asked.column);
    if asked.includes_all(pod) && !soft.needs_labels {
        let Some(counts) = asked.counts else { return vec![0; domains] };
        let counts = cluster.census().counts(counts);
        return (0..domains).map(|domain| counts.in_domain(asked.column, domain as u32)).collect();
    }
    let mut pods = vec![0; domains];
    for node in cluster.nodes().filter(|node| soft.scores(node, cluster) && asked.includes(pod, node)) {
        if let Some(domain) = columns.domain(asked.column, node.index) {
            pods[domain as usize] += asked.on_node(node, cluster);
        }
    }
    pods
}

/// Turned round, so that the fewest pods score highest; nodes that take no part score nothing.
fn normalize(totals: &[Option<i64>]) -> Vec<i64> {
    let least = totals.iter().flatten().copied().min().unwrap_or(0);
    let most = totals.iter().flatten().copied().max().unwrap_or(0);
    let one = |total: &Option<i64>| match total {
        None => 0,
        Some(_) if most == 0 => MOST,
        Some(total) => MOST * (most + least - total) / most,
    };
    totals.iter().map(one).collect()
}
