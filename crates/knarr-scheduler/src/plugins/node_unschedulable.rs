//! Refuses cordoned nodes.

use k8s_openapi::api::core::v1::Taint;
use knarr_client::fit::tolerated;

use super::Plugin;
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    if !node.unschedulable || tolerated(&cordon(), &pod.tolerations) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::NodeUnschedulable, "node(s) were unschedulable"))
}

/// A cordoned node counts as tainted with this, whether or not the taint is there yet.
fn cordon() -> Taint {
    Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() }
}
