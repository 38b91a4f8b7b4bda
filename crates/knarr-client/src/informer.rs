//! Shared informers: one LIST+WATCH and one typed cache a resource a process.
//!
//! The borrowed shapes below are what controllers, scheduler, kubelet and network build on.

use std::sync::Arc;

/// `namespace/name`, or `name` for cluster-scoped objects (an empty namespace).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A change that an informer saw. A resynchronised or repeated object comes as `Updated` with equal ends.
#[derive(Clone, Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}
