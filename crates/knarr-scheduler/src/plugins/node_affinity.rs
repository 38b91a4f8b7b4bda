//! Node selectors and node affinity.

use super::Plugin;
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    if pod.required_nodes.is_any() || pod.required_nodes.matches(&node.name, &node.labels) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector"))
}

/// The weights of the preferences that the node meets.
pub fn preference(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let met = pod.preferred_nodes.iter().filter(|(_, term)| term.matches(&node.name, &node.labels));
    met.map(|(weight, _)| weight).sum()
}
