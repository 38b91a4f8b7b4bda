//! The plugins, by upstream's names. A filter refuses a node or does not; a score is 0 to 100 after it is normalised; a hint says
//! whether a change may help a pod that the plugin refused.

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use crate::{cluster::Cluster, diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub const MOST: i64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    PodTopologySpread,
    InterPodAffinity,
}

/// Something that happened in the cluster.
pub enum Change<'a> {
    /// A node came, or is not as it was.
    Node(&'a NodeInfo),
    /// A pod is on a node, or is not as it was there.
    PodCame(&'a PodInfo),
    /// A pod is gone from its node.
    PodLeft(&'a PodInfo),
}

type Filter = fn(&PodInfo, &NodeInfo) -> Result<(), Rejection>;

/// In the order in which upstream asks them.
const FILTERS: [(Plugin, Filter); 6] = [
    (Plugin::NodeUnschedulable, node_unschedulable::filter),
    (Plugin::NodeName, node_name::filter),
    (Plugin::TaintToleration, taint_toleration::filter),
    (Plugin::NodeAffinity, node_affinity::filter),
    (Plugin::NodePorts, node_ports::filter),
    (Plugin::NodeResourcesFit, node_resources_fit::filter),
];

/// What the filters of one cycle ask of the other pods, gathered before the first node is looked at.
pub struct Gathered {
    hard_spread: pod_topology_spread::Hard,
    soft_spread: pod_topology_spread::Soft,
    affinity: inter_pod_affinity::State,
}

impl Gathered {
    pub fn of(pod: &PodInfo, cluster: &mut Cluster) -> Gathered {
        Gathered {
            hard_spread: pod_topology_spread::Hard::of(pod, cluster),
            soft_spread: pod_topology_spread::Soft::of(pod, cluster),
            affinity: inter_pod_affinity::State::of(pod, cluster),
        }
    }
}

/// Whether the pod may run on the node; the first refusal counts.
pub fn filter(pod: &PodInfo, node: &NodeInfo, gathered: &Gathered, cluster: &Cluster) -> Result<(), Rejection> {
    FILTERS.iter().try_for_each(|(_, filter)| filter(pod, node))?;
    pod_topology_spread::filter(pod, node, &gathered.hard_spread, cluster)?;
    inter_pod_affinity::filter(node, &gathered.affinity, cluster)
}

/// Whether the change may make a node feasible that `plugin` refused.
pub fn may_help(plugin: Plugin, pod: &PodInfo, change: &Change<'_>) -> bool {
    match change {
        Change::Node(node) => match plugin {
            Plugin::NodeResourcesFit => node_resources_fit::could_fit(pod, node),
            Plugin::NodePorts | Plugin::PodTopologySpread | Plugin::InterPodAffinity => true,
            plugin => FILTERS.iter().filter(|(other, _)| *other == plugin).all(|(_, filter)| filter(pod, node).is_ok()),
        },
        Change::PodCame(came) => match plugin {
            Plugin::PodTopologySpread => came.key.namespace == pod.key.namespace,
            Plugin::InterPodAffinity => true,
            _ => false,
        },
        Change::PodLeft(left) => match plugin {
            Plugin::NodeResourcesFit | Plugin::InterPodAffinity => true,
            Plugin::PodTopologySpread => left.key.namespace == pod.key.namespace,
            Plugin::NodePorts => left.ports.iter().any(|freed| pod.ports.iter().any(|port| port.conflicts(freed))),
            _ => false,
        },
    }
}

/// The total score of each feasible node.
pub fn score(pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo], gathered: &Gathered) -> Vec<i64> {
    let mut totals: Vec<i64> = nodes
        .iter()
        .map(|node| {
            node_resources_fit::score(pod, node)
                + node_resources_balanced_allocation::score(pod, node)
                + image_locality::score(pod, node, cluster)
        })
        .collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    if nodes.iter().any(|node| !node.taints.is_empty()) {
        add(3, normalized(nodes.iter().map(|node| taint_toleration::intolerable(pod, node)).collect(), true));
    }
    if !pod.preferred_nodes.is_empty() {
        add(2, normalized(nodes.iter().map(|node| node_affinity::preference(pod, node)).collect(), false));
    }
    if let Some(scores) = pod_topology_spread::score(pod, nodes, &gathered.soft_spread, cluster) {
        add(2, scores);
    }
    if let Some(scores) = inter_pod_affinity::score(pod, nodes, &gathered.affinity, cluster) {
        add(2, scores);
    }
    totals
}

/// Stretches scores so that the largest is 100; reversed, the largest is 0.
fn normalized(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let stretched = if largest == 0 { 0 } else { *score * MOST / largest };
        *score = if reverse { MOST - stretched } else { stretched };
    }
    scores
}
