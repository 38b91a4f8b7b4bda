//! Why a pod fits nowhere: the numbers behind the event and the condition that users read.

use std::{borrow::Cow, collections::BTreeMap};

use smallvec::{SmallVec, smallvec};

use crate::{cluster::NodeIndex, plugins::Plugin, preemption};

/// A node that a plugin refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: Plugin,
    pub reasons: SmallVec<[Cow<'static, str>; 1]>,
    /// Whether taking pods off the node might help.
    pub resolvable: bool,
}

impl Rejection {
    /// For a reason that lies in the node itself.
    pub fn lasting(plugin: Plugin, reason: &'static str) -> Rejection {
        Rejection { plugin, reasons: smallvec![Cow::Borrowed(reason)], resolvable: false }
    }

    /// For a reason that lies in the pods on the node.
    pub fn crowded(plugin: Plugin, reason: &'static str) -> Rejection {
        Rejection { resolvable: true, ..Rejection::lasting(plugin, reason) }
    }
}

/// What a cycle found out about a pod that fits nowhere.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    pub nodes: usize,
    reasons: BTreeMap<Cow<'static, str>, usize>,
    plugins: Vec<Plugin>,
    /// Nodes where fewer pods might help.
    resolvable: Vec<NodeIndex>,
    preemption: String,
}

impl Diagnosis {
    pub fn of(nodes: usize) -> Diagnosis {
        Diagnosis { nodes, ..Diagnosis::default() }
    }

    /// Notes that `count` nodes were refused alike.
    pub fn refuse(&mut self, rejection: Rejection, count: usize) {
        self.note(&rejection.reasons, count);
        if !self.plugins.contains(&rejection.plugin) {
            self.plugins.push(rejection.plugin);
        }
    }

    /// Notes that a node was refused.
    pub fn refuse_node(&mut self, node: NodeIndex, rejection: Rejection) {
        if rejection.resolvable {
            self.resolvable.push(node);
        }
        self.refuse(rejection, 1);
    }

    /// Counts these reasons for that many nodes.
    pub fn note(&mut self, reasons: &[Cow<'static, str>], count: usize) {
        if count == 0 {
            return;
        }
        for reason in reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// The nodes where fewer pods might help.
    pub fn resolvable(&self) -> &[NodeIndex] {
        &self.resolvable
    }

    /// Notes why no room was made: the second half of the message.
    pub fn preemption_refused(&mut self, why: &str) {
        why.clone_into(&mut self.preemption);
    }

    /// Whether no room was made because it is being made.
    pub fn awaits_victims(&self) -> bool {
        self.preemption == preemption::AWAITS_VICTIMS
    }

    /// Who refused: when something changes, these are asked whether it may help.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The text of the event and of the condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        let message = format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "));
        if self.preemption.is_empty() { message } else { format!("{message} preemption: {}", self.preemption) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_nodes_by_reason() {
        let mut diagnosis = Diagnosis::of(3);
        diagnosis.refuse(Rejection::lasting(Plugin::TaintToleration, "node(s) had untolerated taint(s)"), 2);
        let insufficient = Rejection::crowded(Plugin::NodeResourcesFit, "Insufficient cpu");
        diagnosis.refuse(insufficient, 1);
        assert_eq!(
            diagnosis.message(),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s)."
        );
        assert_eq!(diagnosis.plugins(), [Plugin::TaintToleration, Plugin::NodeResourcesFit]);
        assert_eq!(Diagnosis::of(0).message(), "no nodes available to schedule pods");
    }
}
