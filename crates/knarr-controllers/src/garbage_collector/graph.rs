//! Who owns whom, by UID.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use knarr_client::WorkQueue;
use kube::core::ObjectMeta;

use super::has_finalizer;
use crate::discovery::Discovered;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Perhaps nobody owns it any more, or it waits for its dependents.
    Delete(String),
    /// It is being deleted and its dependents are to be let go.
    Orphan(String),
}

/// Where an object is. Without a resource it was only ever named as an owner ("virtual").
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub resource: Option<Arc<Discovered>>,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Identity {
    pub fn as_owner(&self, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            uid: uid.into(),
            ..OwnerReference::default()
        }
    }
}

struct Node {
    identity: Identity,
    owners: Vec<OwnerReference>,
    /// UIDs of objects that name this one as an owner. Each of them is in the graph.
    dependents: HashSet<String>,
    deleting: bool,
    deleting_dependents: bool,
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    queue: WorkQueue<Work>,
}

impl Graph {
    /// Sends work to `queue`.
    pub fn set_queue(&mut self, queue: WorkQueue<Work>) {
        self.queue = queue;
    }

    pub fn identity(&self, uid: &str) -> Option<Identity> {
        self.nodes.get(uid).map(|node| node.identity.clone())
    }

    pub fn has_dependents(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| !node.dependents.is_empty())
    }

    /// Whether a dependent waits for its own dependents, of which this object may be one.
    pub fn may_close_a_circle(&self, uid: &str) -> bool {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        dependents.filter_map(|dependent| self.nodes.get(dependent)).any(|node| node.deleting_dependents)
    }

    pub fn dependents(&self, uid: &str) -> Vec<Identity> {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        dependents.filter_map(|dependent| self.identity(dependent)).collect()
    }

    /// Whether the owner was seen, is not being deleted, and may own something in `namespace`.
    pub fn is_solid(&self, uid: &str, namespace: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| {
            let reachable = node.identity.namespace.is_empty() || node.identity.namespace == namespace;
            node.identity.resource.is_some() && !node.deleting && reachable
        })
    }

    /// UIDs of the objects of a resource.
    pub fn uids_of(&self, resource: &Arc<Discovered>) -> HashSet<String> {
        let of = |node: &Node| node.identity.resource.as_ref().is_some_and(|known| known.kind == resource.kind);
        self.nodes.iter().filter(|(_, node)| of(node)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes in an object as it now is.
    pub fn upsert(&mut self, resource: &Arc<Discovered>, object: ObjectMeta) {
        let Some(uid) = object.uid.clone() else { return };
        let owners = object.owner_references.clone().unwrap_or_default();
        let deleting = object.deletion_timestamp.is_some();
        let deleting_dependents = deleting && has_finalizer(&object, FOREGROUND);
        let orphaning = deleting && has_finalizer(&object, ORPHAN);
        let known = self.nodes.remove(&uid);
        let was_owned_by = known.as_ref().map(|node| node.owners.clone()).unwrap_or_default();
        let was_deleting_dependents = known.as_ref().is_some_and(|node| node.deleting_dependents);
        let identity = Identity {
            api_version: resource.kind.api_version.clone(),
            kind: resource.kind.kind.clone(),
            resource: Some(resource.clone()),
            namespace: object.namespace.unwrap_or_default(),
            name: object.name.unwrap_or_default(),
        };
        let misplaced =
            known.as_ref().map(|node| self.cannot_be_owned_by(&identity, &node.dependents)).unwrap_or_default();
        let dependents = known.map(|node| node.dependents).unwrap_or_default();
        let namespace = identity.namespace.clone();
        self.nodes
            .insert(uid.clone(), Node { identity, owners: owners.clone(), dependents, deleting, deleting_dependents });
        self.link(&uid, &namespace, &was_owned_by, &owners);
        misplaced.into_iter().for_each(|dependent| self.queue.add(Work::Delete(dependent)));
        if orphaning {
            self.queue.add(Work::Orphan(uid));
        } else if deleting_dependents && !was_deleting_dependents {
            self.push_blocking_dependents(&uid);
            self.push_dependents(&uid);
            self.queue.add(Work::Delete(uid));
        }
    }

    /// Dependents in another namespace than their owner's, who named it wrongly.
    fn cannot_be_owned_by(&self, owner: &Identity, dependents: &HashSet<String>) -> Vec<String> {
        let elsewhere = |uid: &&String| {
            self.nodes
                .get(*uid)
                .is_some_and(|node| !owner.namespace.is_empty() && node.identity.namespace != owner.namespace)
        };
        dependents.iter().filter(elsewhere).cloned().collect()
    }

    fn link(&mut self, uid: &str, namespace: &str, before: &[OwnerReference], now: &[OwnerReference]) {
        for owner in before.iter().filter(|owner| now.iter().all(|kept| kept.uid != owner.uid)) {
            self.unlink(uid, &owner.uid);
        }
        for owner in now {
            let virtual_owner = || Node {
                identity: Identity {
                    resource: None,
                    api_version: owner.api_version.clone(),
                    kind: owner.kind.clone(),
                    namespace: namespace.into(),
                    name: owner.name.clone(),
                },
                owners: Vec::new(),
                dependents: HashSet::new(),
                deleting: false,
                deleting_dependents: false,
            };
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(virtual_owner);
            node.dependents.insert(uid.into());
            if node.identity.resource.is_none() {
                self.queue.add(Work::Delete(owner.uid.clone()));
            }
            if node.deleting_dependents {
                self.queue.add(Work::Delete(uid.into()));
            }
            // An unblocking change of the reference may be what the owner waits for.
            let unblocked =
                before.iter().any(|was| was.uid == owner.uid && was.block_owner_deletion != owner.block_owner_deletion);
            if unblocked {
                self.queue.add(Work::Delete(owner.uid.clone()));
            }
        }
    }

    fn unlink(&mut self, dependent: &str, owner: &str) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(dependent);
        if node.deleting_dependents {
            self.queue.add(Work::Delete(owner.into()));
        }
        if node.identity.resource.is_none() && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    /// The object is gone: its dependents may have to go too, and an owner may have waited for it.
    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.nodes.remove(uid) else { return };
        for owner in &node.owners {
            self.unlink(uid, &owner.uid);
        }
        for dependent in &node.dependents {
            self.queue.add(Work::Delete(dependent.clone()));
        }
    }

    /// As [`remove`](Self::remove), for an owner that was never seen, unless it has been seen since.
    pub fn remove_virtual(&mut self, uid: &str) {
        if self.nodes.get(uid).is_some_and(|node| node.identity.resource.is_none()) {
            self.remove(uid);
        }
    }

    /// Queues the dependents that keep `uid` from going; true if there are any.
    pub fn push_blocking_dependents(&self, uid: &str) -> bool {
        let Some(node) = self.nodes.get(uid) else { return false };
        let blocks = |dependent: &&String| {
            self.nodes.get(*dependent).is_some_and(|node| {
                node.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
        };
        let blocking: Vec<_> = node.dependents.iter().filter(blocks).collect();
        for dependent in &blocking {
            if self.nodes.get(*dependent).is_some_and(|node| !node.deleting) {
                self.queue.add(Work::Delete((*dependent).clone()));
            }
        }
        !blocking.is_empty()
    }

    fn push_dependents(&self, uid: &str) {
        for dependent in self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents) {
            self.queue.add(Work::Delete(dependent.clone()));
        }
    }
}
