//! One scheduling cycle: from a pod to a node, or to the reasons why there is none.

use crate::{
    cluster::{Cluster, NodeIndex},
    diagnosis::{Diagnosis, Rejection},
    node::NodeInfo,
    plugins::{self, Gathered, Plugin},
    pod::PodInfo,
};

/// Clusters up to this size are looked at whole.
const FEW_NODES: usize = 100;
const LEAST_PERCENTAGE: usize = 5;

/// Where the next cycle begins to look, and how ties are broken.
pub struct Cycles {
    next_start: usize,
    percentage: usize,
    random: u64,
}

impl Cycles {
    /// `percentage` of the nodes are to be found feasible before scoring; 0: as many as upstream finds enough.
    pub fn new(percentage: u32) -> Cycles {
        Cycles { next_start: 0, percentage: percentage as usize, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// The best node for the pod.
    pub fn place(&mut self, pod: &PodInfo, cluster: &mut Cluster) -> Result<NodeIndex, Diagnosis> {
        cluster.trim();
        let gathered = Gathered::of(pod, cluster);
        let look = Look { pod, cluster, gathered };
        let feasible = self.feasible(&look)?;
        if let [only] = feasible[..] {
            return Ok(only);
        }
        let nodes: Vec<&NodeInfo> = feasible.iter().map(|index| look.cluster.node(*index)).collect();
        let scores = plugins::score(pod, look.cluster, &nodes, &look.gathered);
        Ok(feasible[self.best(&scores)])
    }

    /// Whether the pod may run on this node, which is then as good as any: it was nominated.
    pub fn fits(pod: &PodInfo, node: NodeIndex, cluster: &mut Cluster) -> bool {
        let gathered = Gathered::of(pod, cluster);
        plugins::filter(pod, cluster.node(node), &gathered, cluster).is_ok()
    }

    fn feasible(&mut self, look: &Look<'_>) -> Result<Vec<NodeIndex>, Diagnosis> {
        let (pod, cluster) = (look.pod, look.cluster);
        let order = cluster.order();
        let mut diagnosis = Diagnosis::of(order.len());
        let mut feasible = Vec::new();
        if let Some(names) = pod.required_nodes.only_names() {
            let named: Vec<_> = names.iter().filter_map(|name| cluster.named(name)).collect();
            named.iter().for_each(|index| look.at(*index, &mut feasible, &mut diagnosis));
            let other = Rejection::lasting(Plugin::NodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]");
            let others = order.len() - named.len().min(order.len());
            if others > 0 && feasible.is_empty() {
                diagnosis.refuse(other, others);
            }
        } else {
            self.sample(look, &mut feasible, &mut diagnosis);
        }
        if feasible.is_empty() { Err(diagnosis) } else { Ok(feasible) }
    }

    fn sample(&mut self, look: &Look<'_>, feasible: &mut Vec<NodeIndex>, diagnosis: &mut Diagnosis) {
        let order = look.cluster.order();
        let enough = self.enough(order.len());
        let start = if order.is_empty() { 0 } else { self.next_start % order.len() };
        let (before, after) = order.split_at(start);
        let mut looked_at = 0;
        for index in after.iter().chain(before) {
            if feasible.len() == enough {
                break;
            }
            looked_at += 1;
            look.at(*index, feasible, diagnosis);
        }
        self.next_start = start + looked_at;
    }

    fn enough(&self, nodes: usize) -> usize {
        if nodes <= FEW_NODES {
            return nodes;
        }
        let percentage = match self.percentage {
            0 => 50usize.saturating_sub(nodes / 125).max(LEAST_PERCENTAGE),
            percentage => percentage.min(100),
        };
        (nodes * percentage / 100).max(FEW_NODES)
    }

    /// One of the highest scores, each as likely as the others.
    fn best(&mut self, scores: &[i64]) -> usize {
        let (mut best, mut ties) = (0, 1);
        for (position, score) in scores.iter().enumerate().skip(1) {
            if *score > scores[best] {
                (best, ties) = (position, 1);
            } else if *score == scores[best] {
                ties += 1;
                if self.random_below(ties) == 0 {
                    best = position;
                }
            }
        }
        best
    }

    /// Xorshift: spreading ties needs no better.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

/// A pod looking for nodes.
struct Look<'a> {
    pod: &'a PodInfo,
    cluster: &'a Cluster,
    gathered: Gathered,
}

impl Look<'_> {
    fn at(&self, index: NodeIndex, feasible: &mut Vec<NodeIndex>, diagnosis: &mut Diagnosis) {
        match plugins::filter(self.pod, self.cluster.node(index), &self.gathered, self.cluster) {
            Ok(()) => feasible.push(index),
            Err(rejection) => diagnosis.refuse_node(index, rejection),
        }
    }
}

#[cfg(test)]
mod tests;
