//! Pod affinity and anti-affinity: the pod's own, and that of the pods that are there already. Required terms refuse nodes, preferred
//! ones score them.

use super::{MOST, Plugin};
use crate::{
    census::{ColumnId, Columns, CountsId, Group, Role},
    cluster::Cluster,
    diagnosis::Rejection,
    node::NodeInfo,
    pod::{AffinityTerm, PodInfo},
};

/// Where to read how many pods a term is about.
#[derive(Clone, Copy)]
struct Asked {
    column: ColumnId,
    counts: CountsId,
}

impl Asked {
    /// How many pods all of the terms are about, over the topology of `term`.
    fn of(terms: &[AffinityTerm], term: &AffinityTerm, cluster: &mut Cluster) -> Asked {
        let column = cluster.column(&term.topology_key);
        Asked { column, counts: cluster.ask(&Group::Affine(terms.to_vec()), column) }
    }

    fn around(&self, node: &NodeInfo, cluster: &Cluster) -> i64 {
        let census = cluster.census();
        census.counts(self.counts).around(self.column, node.index, census.columns())
    }
}

/// What a cycle needs to know of the other pods. Empty for a pod that affinity does not concern.
#[derive(Default)]
pub struct State {
    required: Vec<Asked>,
    /// It is the first of a group that wants to be together: it may go wherever the labels are.
    is_first: bool,
    anti: Vec<Asked>,
    preferred: Vec<(i64, Asked)>,
    /// Domains whose pods keep it out.
    closed: Vec<Sums>,
}

/// A copy of the sums of terms of pods on nodes that are about the pod.
struct Sums {
    column: ColumnId,
    by_domain: Vec<i64>,
}

impl Sums {
    fn around(&self, node: &NodeInfo, columns: &Columns) -> i64 {
        let domain = columns.domain(self.column, node.index);
        domain.and_then(|domain| self.by_domain.get(domain as usize)).copied().unwrap_or(0)
    }
}

impl State {
    pub fn of(pod: &PodInfo, cluster: &mut Cluster) -> State {
        let affinities = &pod.affinities;
        let required: Vec<_> =
            affinities.required.iter().map(|term| Asked::of(&affinities.required, term, cluster)).collect();
        let mut alone = |term: &AffinityTerm| Asked::of(std::slice::from_ref(term), term, cluster);
        let anti = affinities.required_anti.iter().map(&mut alone).collect();
        let preferred = affinities.preferred.iter().map(|(weight, term)| (*weight, alone(term))).collect();
        let census = cluster.census();
        let nobody = required.iter().all(|asked| census.counts(asked.counts).is_empty_over(asked.column));
        State {
            is_first: nobody && affinities.required.iter().all(|term| is_about(term, pod, cluster)),
            required,
            anti,
            preferred,
            closed: demands(pod, cluster, &[Role::KeepsOut]),
        }
    }
}

fn is_about(term: &AffinityTerm, pod: &PodInfo, cluster: &Cluster) -> bool {
    term.matches(&pod.key.namespace, &pod.labels, cluster.namespace(&pod.key.namespace))
}

/// What pods on nodes mean by their terms that are about the pod.
fn demands(pod: &PodInfo, cluster: &Cluster, roles: &[Role]) -> Vec<Sums> {
    let columns = cluster.census().columns();
    let demands = cluster.census().demands();
    let about = demands.filter(|(demand, ..)| roles.contains(&demand.role) && is_about(&demand.term, pod, cluster));
    let sums = about.map(|(_, column, weights)| {
        let domains = 0..columns.domains(column) as u32;
        Sums { column, by_domain: domains.map(|domain| weights.in_domain(column, domain)).collect() }
    });
    sums.collect()
}

pub fn filter(node: &NodeInfo, state: &State, cluster: &Cluster) -> Result<(), Rejection> {
    let columns = cluster.census().columns();
    let has_label = |asked: &Asked| columns.domain(asked.column, node.index).is_some();
    let satisfied = |asked: &Asked| has_label(asked) && (state.is_first || asked.around(node, cluster) > 0);
    if !state.required.iter().all(satisfied) {
        return Err(Rejection::lasting(Plugin::InterPodAffinity, "node(s) didn't match pod affinity rules"));
    }
    if state.anti.iter().any(|asked| asked.around(node, cluster) > 0) {
        return Err(Rejection::crowded(Plugin::InterPodAffinity, "node(s) didn't match pod anti-affinity rules"));
    }
    if state.closed.iter().any(|sums| sums.around(node, columns) > 0) {
        let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
        return Err(Rejection::crowded(Plugin::InterPodAffinity, reason));
    }
    Ok(())
}

/// From 0 to 100 for each node; `None` if no preference of anybody concerns the pod.
pub fn score(pod: &PodInfo, nodes: &[&NodeInfo], state: &State, cluster: &Cluster) -> Option<Vec<i64>> {
    // A required term of a pod that is there counts as a preference of weight 1: upstream's `hardPodAffinityWeight`.
    let theirs = demands(pod, cluster, &[Role::Requires, Role::Prefers]);
    if theirs.is_empty() && state.preferred.is_empty() {
        return None;
    }
    let columns = cluster.census().columns();
    let total = |node: &&NodeInfo| {
        let own = state.preferred.iter().map(|(weight, asked)| weight * asked.around(node, cluster));
        own.sum::<i64>() + theirs.iter().map(|sums| sums.around(node, columns)).sum::<i64>()
    };
    Some(normalize(nodes.iter().map(total).collect()))
}

/// Stretches the scores so that they go from 0 to 100.
fn normalize(scores: Vec<i64>) -> Vec<i64> {
    let least = scores.iter().copied().min().unwrap_or(0);
    let range = scores.iter().copied().max().unwrap_or(0) - least;
    let one = |score: i64| if range == 0 { 0 } else { (MOST as f64 * (score - least) as f64 / range as f64) as i64 };
    scores.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
