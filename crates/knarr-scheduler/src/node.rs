//! A node as the scheduler sees it: what it has, what is taken, and who is on it.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Taint};
use knarr_client::fit::HostPort;

use crate::{cluster::NodeIndex, pod::PodInfo, resources::Resources, selector::Labels};

/// The label by which nodes are in zones.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The label by which every node is its own domain.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A node and the sums over its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// Its place among the cluster's nodes.
    pub index: NodeIndex,
    /// The API has the node; pods may outlive it for a while.
    pub exists: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub most_pods: i64,
    /// Sizes of the images that it has, by name.
    pub images: HashMap<Arc<str>, i64>,
    pub requested: Resources,
    pub requested_for_scores: Resources,
    pub pods: Vec<Arc<PodInfo>>,
    pub ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn named(name: &str, index: NodeIndex) -> NodeInfo {
        NodeInfo { name: name.into(), index, ..NodeInfo::default() }
    }

    /// Takes over what the API says of the node; its pods stay.
    pub fn describe(&mut self, node: &Node) {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        self.exists = true;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable.unwrap_or(false);
        let mut allocatable =
            status.and_then(|status| status.allocatable.as_ref()).map(Resources::parse).unwrap_or_default();
        self.most_pods = std::mem::take(allocatable.slot("pods"));
        self.allocatable = allocatable;
        self.images = status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.as_str().into(), size))
            })
            .collect();
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.exact);
        self.requested_for_scores.add(&pod.requests.for_scores);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let position = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(position);
        self.requested.subtract(&pod.requests.exact);
        self.requested_for_scores.subtract(&pod.requests.for_scores);
        for port in &pod.ports {
            if let Some(position) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(position);
            }
        }
        Some(pod)
    }
}
