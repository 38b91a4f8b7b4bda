//! Makes room for a pod that fits nowhere by taking pods of lower priority off a node: upstream's DefaultPreemption.
//!
//! Trying a node out means taking its pods off the cluster and putting back as many as possible; in the end the cluster is as before.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;

use crate::{
    cluster::{Cluster, NodeIndex},
    diagnosis::Diagnosis,
    disruption::Budgets,
    plugins::{self, Gathered},
    pod::PodInfo,
};

/// Look for candidates on at least so many nodes, and on a tenth of them in large clusters.
const LEAST_CANDIDATES: usize = 100;

/// Why a pod has nobody else taken away while it waits for those that were.
pub const AWAITS_VICTIMS: &str = "not eligible due to a terminating pod on the nominated node.";

/// A node and the pods to take off it.
#[derive(Debug)]
pub struct Candidate {
    pub node: NodeIndex,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them their disruption budgets would rather keep.
    violations: usize,
}

/// The best node to make room on. `None`: there is none, and the diagnosis says why.
pub fn preempt(
    pod: &PodInfo,
    cluster: &mut Cluster,
    budgets: &Budgets,
    diagnosis: &mut Diagnosis,
) -> Option<Candidate> {
    if let Some(reason) = not_eligible(pod, cluster, diagnosis) {
        diagnosis.preemption_refused(reason);
        return None;
    }
    let promising = diagnosis.resolvable().to_vec();
    let enough = (promising.len() / 10).max(LEAST_CANDIDATES);
    let mut outcome = Diagnosis::of(diagnosis.nodes);
    let mut candidates = Vec::new();
    for node in &promising {
        match victims_on(*node, pod, cluster, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => outcome.note(&reasons, 1),
        }
        if candidates.len() >= enough && candidates.iter().any(|candidate| candidate.violations == 0) {
            break;
        }
    }
    let best = candidates.into_iter().reduce(better);
    if best.is_none() {
        let others = diagnosis.nodes.saturating_sub(promising.len());
        outcome.note(&["Preemption is not helpful for scheduling".into()], others);
        diagnosis.preemption_refused(&outcome.message());
    }
    best
}

/// Why the pod may not have others taken away at all.
fn not_eligible(pod: &PodInfo, cluster: &Cluster, diagnosis: &Diagnosis) -> Option<&'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = cluster.named(pod.nominated_node()?)?;
    let room_is_made = |other: &Arc<PodInfo>| other.priority < pod.priority && other.is_leaving_preempted();
    let waits = diagnosis.resolvable().contains(&nominated) && cluster.node(nominated).pods.iter().any(room_is_made);
    waits.then_some(AWAITS_VICTIMS)
}

type Reasons = Vec<std::borrow::Cow<'static, str>>;

fn victims_on(node: NodeIndex, pod: &PodInfo, cluster: &mut Cluster, budgets: &Budgets) -> Result<Candidate, Reasons> {
    let lower = cluster.node(node).pods.iter().filter(|other| other.priority < pod.priority);
    let mut lower: Vec<_> = lower.cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".into()]);
    }
    lower.sort_by_key(|pod| importance(pod));
    let name = cluster.node(node).name.clone();
    lower.iter().for_each(|other| drop(cluster.remove_pod(&other.uid)));
    let found = match fits(node, pod, cluster) {
        Ok(()) => Ok(spare(node, pod, cluster, &lower, budgets)),
        Err(reasons) => Err(reasons),
    };
    // Those that were spared are there already; setting them again changes nothing.
    lower.into_iter().for_each(|other| drop(cluster.set_pod(other, &name)));
    found
}

fn fits(node: NodeIndex, pod: &PodInfo, cluster: &mut Cluster) -> Result<(), Reasons> {
    let gathered = Gathered::of(pod, cluster);
    let refused = plugins::filter(pod, cluster.node(node), &gathered, cluster);
    refused.map_err(|rejection| rejection.reasons.into_vec())
}

/// Puts back whom there is room for, those with exhausted budgets first, the most important first.
fn spare(
    node: NodeIndex,
    pod: &PodInfo,
    cluster: &mut Cluster,
    lower: &[Arc<PodInfo>],
    budgets: &Budgets,
) -> Candidate {
    let name = cluster.node(node).name.clone();
    let violating = budgets.violated_by(lower);
    let mut stays = |other: &Arc<PodInfo>| {
        cluster.set_pod(other.clone(), &name);
        let stays = fits(node, pod, cluster).is_ok();
        if !stays {
            cluster.remove_pod(&other.uid);
        }
        stays
    };
    let pairs = || lower.iter().zip(&violating);
    let mut victims: Vec<_> =
        pairs().filter(|(other, violates)| **violates && !stays(other)).map(|(other, _)| other.clone()).collect();
    let violations = victims.len();
    victims.extend(pairs().filter(|(other, violates)| !**violates && !stays(other)).map(|(other, _)| other.clone()));
    victims.sort_by_key(|pod| importance(pod));
    Candidate { node, victims, violations }
}

/// Less is more important: higher priority, then longer running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.started_at())
}

/// The candidate that does less harm; the first if they do the same.
fn better(first: Candidate, second: Candidate) -> Candidate {
    if harm(&second) < harm(&first) { second } else { first }
}

/// Broken budgets, then the highest priority, then the sum of priorities, then the number of victims, then how long the most
/// important of them have been running.
fn harm(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    // Raised above zero, so that a few victims of negative priority do less harm than many.
    let sum = victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
    let eldest = victims.iter().filter(|pod| pod.priority == highest).map(|pod| pod.started_at()).min();
    (candidate.violations, highest, sum, victims.len(), Reverse(eldest.unwrap_or(Timestamp::MAX)))
}

#[cfg(test)]
mod tests;
