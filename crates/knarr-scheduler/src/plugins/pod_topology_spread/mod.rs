//! Spreads pods evenly over the domains of topologies: hard constraints refuse nodes, soft ones score them. A pod without constraints
//! of its own has upstream's default ones over the pods of its Services and its controller.

mod hard;
mod soft;

use std::sync::{Arc, LazyLock};

use knarr_api::selector::LabelSelector;

pub use hard::{Hard, filter};
pub use soft::{Soft, score};

use super::{node_affinity, taint_toleration};
use crate::{
    census::{ColumnId, CountsId, Group},
    cluster::Cluster,
    node::{HOSTNAME, NodeInfo, ZONE},
    pod::{PodInfo, SpreadConstraint},
};

/// A constraint and where to read how many pods there are that it is about.
struct Asked {
    constraint: SpreadConstraint,
    column: ColumnId,
    /// `None`: it is about none.
    counts: Option<CountsId>,
}

impl Asked {
    fn of(constraint: &SpreadConstraint, pod: &PodInfo, cluster: &mut Cluster) -> Asked {
        let column = cluster.column(&constraint.topology_key);
        let selector = constraint.selector.clone();
        // As upstream has it, a selector that asks for nothing counts no pods, though it matches the pod itself.
        let counts = (!selector.is_everything()).then(|| {
            let group = Group::Selected { namespace: pod.key.namespace.clone(), selector };
            cluster.ask(&group, column)
        });
        Asked { constraint: constraint.clone(), column, counts }
    }

    fn on_node(&self, node: &NodeInfo, cluster: &Cluster) -> i64 {
        self.counts.map_or(0, |counts| cluster.census().counts(counts).on_node(node.index))
    }

    /// Whether the pods on the node count, by the constraint's policies on nodes that the pod may not run on.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.constraint.honor_affinity || node_affinity::filter(pod, node).is_ok())
            && (!self.constraint.honor_taints || taint_toleration::filter(pod, node).is_ok())
    }

    /// Whether it includes any node for this pod.
    fn includes_all(&self, pod: &PodInfo) -> bool {
        (!self.constraint.honor_affinity || pod.required_nodes.is_any()) && !self.constraint.honor_taints
    }
}

fn has_labels(node: &NodeInfo, constraints: &[Asked], cluster: &Cluster) -> bool {
    let columns = cluster.census().columns();
    constraints.iter().all(|asked| columns.domain(asked.column, node.index).is_some())
}

/// What upstream calls the system's default constraints; the selector is to be filled in.
fn default_constraints(selector: &LabelSelector) -> [SpreadConstraint; 2] {
    static HOST: LazyLock<Arc<str>> = LazyLock::new(|| HOSTNAME.into());
    static ZONES: LazyLock<Arc<str>> = LazyLock::new(|| ZONE.into());
    [(&HOST, 3), (&ZONES, 5)].map(|(key, max_skew)| SpreadConstraint {
        topology_key: Arc::clone(key),
        max_skew,
        selector: selector.clone(),
        min_domains: 1,
        hard: false,
        honor_affinity: true,
        honor_taints: false,
    })
}

#[cfg(test)]
mod tests;
