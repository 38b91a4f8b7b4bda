//! Required pod affinity and anti-affinity: the pod's own, and the anti-affinity of the pods that are there already.

use std::{collections::HashSet, sync::Arc};

use super::Plugin;
use crate::{
    cluster::Cluster,
    diagnosis::Rejection,
    node::NodeInfo,
    pod::{AffinityTerm, PodInfo},
    selector::Labels,
};

/// A domain of a topology: a label and its value.
type Domain = (Arc<str>, String);

/// What a cycle needs to know of the other pods. Empty for a pod that affinity does not concern.
#[derive(Default)]
pub struct State {
    /// Domains with a pod that matches every affinity term; `None`: the pod has no affinity, or is the first of its kind.
    wanted: Option<HashSet<Domain>>,
    /// Domains that the pod's anti-affinity keeps it from.
    shunned: HashSet<Domain>,
    /// Domains whose pods' anti-affinity keeps it away.
    closed: HashSet<Domain>,
}

fn domain(term: &AffinityTerm, node: &NodeInfo) -> Option<Domain> {
    let value = node.labels.get(&*term.topology_key)?;
    Some((term.topology_key.clone(), value.clone()))
}

impl State {
    pub fn of(pod: &PodInfo, cluster: &Cluster) -> State {
        let mut state = State { closed: closed_domains(pod, cluster), ..State::default() };
        let (required, anti) = (&pod.affinities.required, &pod.affinities.required_anti);
        if required.is_empty() && anti.is_empty() {
            return state;
        }
        let mut wanted = HashSet::new();
        for node in cluster.nodes() {
            for other in &node.pods {
                let matches = |term: &AffinityTerm| about(term, other, cluster);
                if !required.is_empty() && required.iter().all(matches) {
                    wanted.extend(required.iter().filter_map(|term| domain(term, node)));
                }
                state.shunned.extend(anti.iter().filter(|term| matches(term)).filter_map(|term| domain(term, node)));
            }
        }
        // The first pod of a group that wants to be together may go anywhere that has the label.
        let first = wanted.is_empty() && required.iter().all(|term| about(term, pod, cluster));
        state.wanted = (!required.is_empty() && !first).then_some(wanted);
        state
    }
}

fn about(term: &AffinityTerm, pod: &PodInfo, cluster: &Cluster) -> bool {
    static NONE: Labels = Labels::new();
    let namespace_labels = cluster.namespace(&pod.key.namespace).unwrap_or(&NONE);
    term.matches(&pod.key.namespace, &pod.labels, namespace_labels)
}

fn closed_domains(pod: &PodInfo, cluster: &Cluster) -> HashSet<Domain> {
    let mut closed = HashSet::new();
    for (other, node) in cluster.pods_with_anti_affinity() {
        let terms = other.affinities.required_anti.iter().filter(|term| about(term, pod, cluster));
        closed.extend(terms.filter_map(|term| domain(term, node)));
    }
    closed
}

pub fn filter(pod: &PodInfo, node: &NodeInfo, state: &State) -> Result<(), Rejection> {
    let lacks = |term: &AffinityTerm| match (domain(term, node), &state.wanted) {
        (None, _) => true,
        (Some(domain), Some(wanted)) => !wanted.contains(&domain),
        (Some(_), None) => false,
    };
    if pod.affinities.required.iter().any(lacks) {
        return Err(Rejection::lasting(Plugin::InterPodAffinity, "node(s) didn't match pod affinity rules"));
    }
    let within = |domains: &HashSet<Domain>| domains.iter().any(|(key, value)| node.labels.get(&**key) == Some(value));
    if within(&state.shunned) {
        return Err(Rejection::crowded(Plugin::InterPodAffinity, "node(s) didn't match pod anti-affinity rules"));
    }
    if within(&state.closed) {
        let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
        return Err(Rejection::crowded(Plugin::InterPodAffinity, reason));
    }
    Ok(())
}
