//! Refuses nodes other than the one that the pod names.

use super::Plugin;
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    match pod.node_name() {
        Some(name) if name != &*node.name => {
            Err(Rejection::lasting(Plugin::NodeName, "node(s) didn't match the requested node name"))
        }
        _ => Ok(()),
    }
}
