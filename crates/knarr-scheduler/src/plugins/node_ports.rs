//! Refuses nodes whose ports are taken.

use super::Plugin;
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    if pod.ports.iter().any(|port| node.ports.iter().any(|taken| taken.conflicts(port))) {
        return Err(Rejection::crowded(
            Plugin::NodePorts,
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    Ok(())
}
