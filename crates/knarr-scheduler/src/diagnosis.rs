//! Why a pod fits nowhere: the numbers behind the event and the condition that users read.

use std::{borrow::Cow, collections::BTreeMap};

use smallvec::{SmallVec, smallvec};

use crate::{plugins::Plugin, pod::PodInfo};

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
    resolvable: usize,
    preemption: String,
}

impl Diagnosis {
    pub fn of(nodes: usize) -> Diagnosis {
        Diagnosis { nodes, ..Diagnosis::default() }
    }

    /// Notes that `count` nodes were refused alike.
    pub fn refuse(&mut self, rejection: Rejection, count: usize) {
        self.resolvable += if rejection.resolvable { count } else { 0 };
        for reason in rejection.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        if !self.plugins.contains(&rejection.plugin) {
            self.plugins.push(rejection.plugin);
        }
    }

    /// Notes that making room would not help: the second half of the message, as upstream's DefaultPreemption puts it.
    pub fn without_preemption(&mut self, pod: &PodInfo) {
        if pod.spec().preemption_policy.as_deref() == Some("Never") {
            self.preemption = "not eligible due to preemptionPolicy=Never.".into();
            return;
        }
        let mut reasons = Vec::new();
        if self.resolvable > 0 {
            reasons.push(format!("{} No preemption victims found for incoming pod", self.resolvable));
        }
        if self.nodes > self.resolvable {
            reasons.push(format!("{} Preemption is not helpful for scheduling", self.nodes - self.resolvable));
        }
        reasons.sort();
        self.preemption = format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "));
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
