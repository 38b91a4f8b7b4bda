//! Refuses nodes with taints that the pod does not tolerate, and prefers those with fewer soft ones.

use knarr_client::fit::tolerated;

use super::Plugin;
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    let hard = node.taints.iter().filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    match hard.into_iter().all(|taint| tolerated(taint, &pod.tolerations)) {
        true => Ok(()),
        false => Err(Rejection::lasting(Plugin::TaintToleration, "node(s) had untolerated taint(s)")),
    }
}

/// How many `PreferNoSchedule` taints the pod does not tolerate.
pub fn intolerable(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerated(taint, &pod.tolerations)).count() as i64
}
