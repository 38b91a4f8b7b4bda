//! Nodes that are promised to pods, while others are taken off them to make room.

use std::{collections::HashMap, sync::Arc};

use crate::{cluster::Cluster, pod::PodInfo};

struct Nomination {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    /// Who is to leave. Until they have, nobody else need leave for this pod.
    victims: Vec<Arc<str>>,
}

/// Nominated pods, by uid. None of them is in the cluster, except while [`Nominations::reserve`]d.
#[derive(Default)]
pub struct Nominations {
    by_uid: HashMap<Arc<str>, Nomination>,
}

impl Nominations {
    /// Promises a node, on which the victims are to make room.
    pub fn promise(&mut self, pod: &Arc<PodInfo>, node: &str, victims: Vec<Arc<str>>) {
        self.by_uid.insert(pod.uid.clone(), Nomination { pod: pod.clone(), node: node.into(), victims });
    }

    /// Takes over what the API says, if nothing was promised here.
    pub fn learn(&mut self, pod: &Arc<PodInfo>) {
        if let Some(node) = pod.nominated_node().filter(|_| !self.by_uid.contains_key(&pod.uid)) {
            self.promise(pod, node, Vec::new());
        }
    }

    pub fn forget(&mut self, uid: &str) -> bool {
        self.by_uid.remove(uid).is_some()
    }

    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.by_uid.get(uid).map(|nomination| &nomination.node)
    }

    /// Nobody leaves for this pod any more.
    pub fn release_victims(&mut self, uid: &str) {
        if let Some(nomination) = self.by_uid.get_mut(uid) {
            nomination.victims.clear();
        }
    }

    /// Whether pods that were told to leave for this one are still there.
    pub fn awaits_victims(&self, uid: &str, cluster: &Cluster) -> bool {
        let victims = self.by_uid.get(uid).map(|nomination| &nomination.victims);
        victims.into_iter().flatten().any(|victim| cluster.has_pod(victim))
    }

    /// Withdraws what was promised on a node to pods less important than this.
    pub fn withdraw_below(&mut self, priority: i32, node: &str) -> Vec<Arc<PodInfo>> {
        let lower = self.by_uid.extract_if(|_, other| *other.node == *node && other.pod.priority < priority);
        lower.map(|(_, nomination)| nomination.pod).collect()
    }

    /// Puts the nominated pods that are at least as important on their nodes, as if they were there already.
    pub fn reserve(&self, pod: &PodInfo, cluster: &mut Cluster) -> Vec<Arc<str>> {
        let others =
            self.by_uid.values().filter(|other| other.pod.uid != pod.uid && other.pod.priority >= pod.priority);
        let others: Vec<_> = others.filter(|other| !cluster.has_pod(&other.pod.uid)).collect();
        others.iter().for_each(|other| drop(cluster.set_pod(other.pod.clone(), &other.node)));
        others.iter().map(|other| other.pod.uid.clone()).collect()
    }
}
