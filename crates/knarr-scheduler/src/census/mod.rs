//! Standing counts of pods by topology domain, so that spreading and pod affinity need not look at every pod in every cycle.
//!
//! Two kinds, both kept by deltas as pods come and go:
//!
//! * [`Group`]s that pods waiting for a node ask about ("how many pods like these does each zone have?"). The first question counts
//!   once over the whole cluster; from then on the answer is kept, until nobody has asked for long.
//! * [`Demand`]s that placed pods make of those to come (their affinity terms), alike ones added up.
//!
//! Invariant: every count equals what counting afresh over the cluster's pods and nodes would give.

mod columns;
mod counts;

use std::{collections::HashMap, sync::Arc};

use knarr_api::selector::LabelSelector;

pub use columns::{ColumnId, Columns};
pub use counts::Counts;

use crate::{
    cluster::NodeIndex,
    node::NodeInfo,
    pod::{AffinityTerm, PodInfo},
    selector::Labels,
};

/// Answers that are kept; beyond these the half that was asked for longest ago is dropped.
const MOST_GROUPS: usize = 1024;

/// Which pods to count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Those of a namespace with these labels, but for pods that are being deleted.
    Selected { namespace: Arc<str>, selector: LabelSelector },
    /// Those that every one of the terms is about.
    Affine(Vec<AffinityTerm>),
}

/// What a pod on a node means by one of its affinity terms, to pods that come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Required anti-affinity: keeps others out of its domain.
    KeepsOut,
    /// Required affinity: likes them there.
    Requires,
    /// Preferred affinity or anti-affinity, with its weight.
    Prefers,
}

/// A term that pods on nodes have, and the domains of its topology key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Demand {
    pub role: Role,
    pub term: AffinityTerm,
}

/// A standing answer. Good until [`Census::trim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountsId(usize);

struct Standing {
    group: Group,
    counts: Counts,
    asked_at: u64,
}

struct Made {
    column: ColumnId,
    weights: Counts,
    pods: usize,
}

/// What counting needs to know of the cluster.
pub struct Surroundings<'a> {
    pub nodes: &'a [NodeInfo],
    pub namespaces: &'a HashMap<String, Labels>,
}

impl Surroundings<'_> {
    fn counts(&self, group: &Group, pod: &PodInfo) -> bool {
        match group {
            Group::Selected { namespace, selector } => {
                pod.key.namespace == *namespace && !pod.terminating && selector.matches(&pod.labels)
            }
            Group::Affine(terms) => {
                let namespace = &pod.key.namespace;
                let labels = namespace_labels(self.namespaces, namespace);
                terms.iter().all(|term| term.matches(namespace, &pod.labels, labels))
            }
        }
    }
}

/// The labels of a namespace; one that is not known has none.
pub fn namespace_labels<'a>(namespaces: &'a HashMap<String, Labels>, name: &str) -> &'a Labels {
    static NONE: Labels = Labels::new();
    namespaces.get(name).unwrap_or(&NONE)
}

#[derive(Default)]
pub struct Census {
    columns: Columns,
    standing: Vec<Standing>,
    by_group: HashMap<Group, usize>,
    demands: HashMap<Demand, Made>,
    clock: u64,
}

impl Census {
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The column of a topology key, made if there is none yet.
    pub fn column(&mut self, key: &Arc<str>, nodes: &[NodeInfo]) -> ColumnId {
        self.columns.of_key(key, nodes)
    }

    /// The standing count of a group over a topology, begun now if nobody asked before.
    pub fn ask(&mut self, group: &Group, column: ColumnId, around: &Surroundings<'_>) -> CountsId {
        self.clock += 1;
        let position = match self.by_group.get(group) {
            Some(position) => *position,
            None => self.begin(group, around),
        };
        let standing = &mut self.standing[position];
        standing.asked_at = self.clock;
        standing.counts.add_column(column, &self.columns);
        CountsId(position)
    }

    fn begin(&mut self, group: &Group, around: &Surroundings<'_>) -> usize {
        let mut counts = Counts::default();
        for node in around.nodes {
            let members = node.pods.iter().filter(|pod| around.counts(group, pod)).count();
            counts.add(node.index, members as i64, &self.columns);
        }
        self.standing.push(Standing { group: group.clone(), counts, asked_at: self.clock });
        self.by_group.insert(group.clone(), self.standing.len() - 1);
        self.standing.len() - 1
    }

    pub fn counts(&self, id: CountsId) -> &Counts {
        &self.standing[id.0].counts
    }

    /// The terms of pods on nodes, the column of each, and the sums of their weights.
    pub fn demands(&self) -> impl Iterator<Item = (&Demand, ColumnId, &Counts)> {
        self.demands.iter().map(|(demand, made)| (demand, made.column, &made.weights))
    }

    /// Forgets what was not asked for in a long while. To be called between cycles.
    pub fn trim(&mut self) {
        if self.standing.len() > MOST_GROUPS {
            self.standing.sort_by_key(|standing| std::cmp::Reverse(standing.asked_at));
            self.retain(|position, _| position < MOST_GROUPS / 2);
        }
    }

    /// A namespace's labels are not as they were: who is meant by terms that ask for them is to be counted anew.
    pub fn namespace_changed(&mut self) {
        self.retain(|_, group| match group {
            Group::Selected { .. } => true,
            Group::Affine(terms) => terms.iter().all(|term| !term.asks_for_namespace_labels()),
        });
    }

    fn retain(&mut self, keep: impl Fn(usize, &Group) -> bool) {
        let mut position = 0;
        self.standing.retain(|standing| {
            position += 1;
            keep(position - 1, &standing.group)
        });
        self.by_group =
            self.standing.iter().enumerate().map(|(position, standing)| (standing.group.clone(), position)).collect();
    }

    /// A pod is on a node.
    pub fn pod_came(&mut self, pod: &PodInfo, node: NodeIndex, around: &Surroundings<'_>) {
        self.count(pod, node, 1, around);
        for (demand, weight) in demands_of(pod) {
            let column = self.columns.of_key(&demand.term.topology_key, around.nodes);
            let made = self.demands.entry(demand).or_insert_with(|| Made::over(column, &self.columns));
            made.weights.add(node, weight, &self.columns);
            made.pods += 1;
        }
    }

    /// A pod is on its node no longer.
    pub fn pod_left(&mut self, pod: &PodInfo, node: NodeIndex, around: &Surroundings<'_>) {
        self.count(pod, node, -1, around);
        for (demand, weight) in demands_of(pod) {
            let Some(made) = self.demands.get_mut(&demand) else { continue };
            made.weights.add(node, -weight, &self.columns);
            made.pods -= 1;
            if made.pods == 0 {
                self.demands.remove(&demand);
            }
        }
    }

    fn count(&mut self, pod: &PodInfo, node: NodeIndex, by: i64, around: &Surroundings<'_>) {
        let about = self.standing.iter_mut().filter(|standing| around.counts(&standing.group, pod));
        about.for_each(|standing| standing.counts.add(node, by, &self.columns));
    }

    /// A node's labels are not as they were, or it came or went.
    pub fn node_changed(&mut self, node: &NodeInfo) {
        for (column, from, to) in self.columns.update(node) {
            let asked = self.standing.iter_mut().map(|standing| &mut standing.counts);
            let made = self.demands.values_mut().map(|made| &mut made.weights);
            asked.chain(made).for_each(|counts| counts.node_moved(node.index, column, from, to));
        }
    }
}

impl Made {
    fn over(column: ColumnId, columns: &Columns) -> Made {
        let mut weights = Counts::default();
        weights.add_column(column, columns);
        Made { column, weights, pods: 0 }
    }
}

fn demands_of(pod: &PodInfo) -> impl Iterator<Item = (Demand, i64)> {
    let with = |role: Role| move |term: &AffinityTerm| (Demand { role, term: term.clone() }, 1);
    let affinities = &pod.affinities;
    let kept_out = affinities.required_anti.iter().map(with(Role::KeepsOut));
    let required = affinities.required.iter().map(with(Role::Requires));
    let preferred = affinities.preferred.iter();
    let preferred = preferred.map(|(weight, term)| (Demand { role: Role::Prefers, term: term.clone() }, *weight));
    kept_out.chain(required).chain(preferred)
}

#[cfg(test)]
mod tests;
