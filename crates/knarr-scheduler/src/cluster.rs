//! The cluster by numbers: nodes in a dense array, pods by uid, both changed by deltas only.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Node;

use crate::{
    census::{self, Census, ColumnId, CountsId, Group, Surroundings},
    default_selector::Selectors,
    node::{NodeInfo, ZONE},
    pod::PodInfo,
    selector::Labels,
};

/// A place in the array of nodes. It stays a node's own for as long as the cluster runs.
pub type NodeIndex = u32;

/// All nodes, and all pods that have one.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    pods: HashMap<Arc<str>, NodeIndex>,
    /// The nodes that exist, zones taking turns, so that looking at some of them looks at all zones.
    order: Vec<NodeIndex>,
    census: Census,
    /// By what Services and controllers select their pods.
    pub selectors: Selectors,
    namespaces: HashMap<String, Labels>,
    /// On how many nodes an image is.
    image_nodes: HashMap<Arc<str>, usize>,
}

impl Cluster {
    pub fn node(&self, index: NodeIndex) -> &NodeInfo {
        &self.nodes[index as usize]
    }

    pub fn named(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied().filter(|index| self.node(*index).exists)
    }

    /// The nodes that exist, in the order in which to look at them.
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }

    pub fn image_nodes(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// The nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.order.iter().map(|index| self.node(*index))
    }

    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Lets the census forget what nobody asks for any more; answers got before are void.
    pub fn trim(&mut self) {
        self.census.trim();
    }

    /// The column of a topology key, to be asked about.
    pub fn column(&mut self, key: &Arc<str>) -> ColumnId {
        self.census.column(key, &self.nodes)
    }

    /// The standing count of a group of pods over a topology.
    pub fn ask(&mut self, group: &Group, column: ColumnId) -> CountsId {
        let around = Surroundings { nodes: &self.nodes, namespaces: &self.namespaces };
        self.census.ask(group, column, &around)
    }

    /// The labels of a namespace; one that is not known has none.
    pub fn namespace(&self, name: &str) -> &Labels {
        census::namespace_labels(&self.namespaces, name)
    }

    /// Takes note of a namespace's labels; `None`: it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        self.census.namespace_changed();
    }

    /// Adds or changes a node.
    pub fn set_node(&mut self, node: &Node) -> NodeIndex {
        let index = self.index_of(node.metadata.name.as_deref().unwrap_or_default());
        self.count_images(index, -1);
        let info = &mut self.nodes[index as usize];
        let (existed, zone) = (info.exists, info.labels.get(ZONE).cloned());
        info.describe(node);
        let moved = info.labels.get(ZONE) != zone.as_ref();
        self.count_images(index, 1);
        self.census.node_changed(&self.nodes[index as usize]);
        if !existed || moved {
            self.arrange();
        }
        index
    }

    /// The node is gone; what is on it stays until it is gone too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.named(name) else { return };
        self.count_images(index, -1);
        let info = &mut self.nodes[index as usize];
        info.exists = false;
        info.images.clear();
        self.census.node_changed(info);
        self.arrange();
    }

    /// Puts a pod on a node, off any other that it was thought to be on; gives back what it was until now.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<Arc<PodInfo>> {
        let before = self.remove_pod(&pod.uid);
        let index = self.index_of(node);
        self.pods.insert(pod.uid.clone(), index);
        let around = Surroundings { nodes: &self.nodes, namespaces: &self.namespaces };
        self.census.pod_came(&pod, index, &around);
        self.nodes[index as usize].add_pod(pod);
        before
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let index = self.pods.remove(uid)?;
        let pod = self.nodes[index as usize].remove_pod(uid)?;
        let around = Surroundings { nodes: &self.nodes, namespaces: &self.namespaces };
        self.census.pod_left(&pod, index, &around);
        Some(pod)
    }

    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn index_of(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.nodes.len() as NodeIndex;
        let info = NodeInfo::named(name, index);
        self.by_name.insert(info.name.clone(), index);
        self.nodes.push(info);
        index
    }

    fn count_images(&mut self, index: NodeIndex, by: isize) {
        for image in self.nodes[index as usize].images.keys() {
            let count = self.image_nodes.entry(image.clone()).or_default();
            *count = count.saturating_add_signed(by);
        }
    }

    fn arrange(&mut self) {
        let mut zones: Vec<(Option<&String>, Vec<NodeIndex>)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.exists) {
            let zone = node.labels.get(ZONE);
            match zones.iter_mut().find(|(other, _)| *other == zone) {
                Some((_, members)) => members.push(index as NodeIndex),
                None => zones.push((zone, vec![index as NodeIndex])),
            }
        }
        let longest = zones.iter().map(|(_, members)| members.len()).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| zones.iter().filter_map(move |(_, members)| members.get(turn)));
        self.order = turns.copied().collect();
    }
}
