//! Shared informers: one LIST+WATCH and one typed cache a resource a process.
//!
//! [`Informers`] hands out [`Informer`]s; the first ask for a resource starts its watch, later ones share it. A cached object carries no
//! `managedFields`: no loop reads them and they are half of many an object.

mod cache;
mod subscription;
mod watch;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use cache::Cache;
pub use subscription::Subscription;

/// A type that can be watched: any of `k8s_openapi`'s top-level kinds.
pub trait Watched: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K> Watched for K where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// `namespace/name`, or `name` for cluster-scoped objects (an empty namespace).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object that the API has named.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// A change that an informer saw. A resynchronised or repeated object comes as `Updated` with equal ends.
#[derive(Clone, Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The object as the event left it (for a deletion, as it last was).
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Added(object) | Event::Updated { new: object, .. } | Event::Deleted(object) => object,
        }
    }

    /// Both ends of the change: for mapping an object to what it belongs to, now and before.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<K>> {
        let (first, second) = match self {
            Event::Updated { old, new } => (new, Some(old)),
            Event::Added(object) | Event::Deleted(object) => (object, None),
        };
        std::iter::once(first).chain(second)
    }
}

/// Which objects of a resource an informer holds; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    pub namespace: Option<String>,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

impl Selection {
    pub fn namespace(namespace: &str) -> Self {
        Selection { namespace: Some(namespace.into()), ..Selection::default() }
    }

    pub fn fields(selector: &str) -> Self {
        Selection { field_selector: Some(selector.into()), ..Selection::default() }
    }

    pub fn labels(selector: &str) -> Self {
        Selection { label_selector: Some(selector.into()), ..Selection::default() }
    }
}

/// Hands out shared informers over one client; one per process part (clones are the same).
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Shared>,
}

struct Shared {
    client: kube::Client,
    shutdown: CancellationToken,
    watches: TaskTracker,
    /// Started informers; each value is an `Informer<K>` of the key's type.
    started: Mutex<HashMap<(TypeId, Selection), Box<dyn Any + Send + Sync>>>,
}

impl Informers {
    /// Informers that read through `client` until `shutdown`.
    pub fn new(client: kube::Client, shutdown: CancellationToken) -> Informers {
        let started = Mutex::new(HashMap::new());
        Informers { inner: Arc::new(Shared { client, shutdown, watches: TaskTracker::new(), started }) }
    }

    pub fn client(&self) -> kube::Client {
        self.inner.client.clone()
    }

    /// The informer of every `K` of the cluster.
    pub fn all<K: Watched>(&self) -> Informer<K> {
        self.selected(Selection::default())
    }

    /// The informer of those `K` that `selection` selects; equal selections share one watch.
    pub fn selected<K: Watched>(&self, selection: Selection) -> Informer<K> {
        let mut started = self.inner.started.lock();
        let key = (TypeId::of::<K>(), selection);
        if let Some(informer) = started.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = Informer::start(self, key.1.clone());
        started.insert(key, Box::new(informer.clone()));
        informer
    }

    /// Returns when every watch has ended, after shutdown.
    pub async fn stopped(&self) {
        self.inner.shutdown.cancelled().await;
        self.inner.watches.close();
        self.inner.watches.wait().await;
    }
}

/// A typed cache of a resource, kept current by a watch. Clones are the same cache.
pub struct Informer<K> {
    cache: Arc<RwLock<Cache<K>>>,
    synced: tokio::sync::watch::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { cache: self.cache.clone(), synced: self.synced.clone() }
    }
}

impl<K: Watched> Informer<K> {
    fn start(informers: &Informers, selection: Selection) -> Self {
        let cache = Arc::new(RwLock::new(Cache::new()));
        let (report, synced) = tokio::sync::watch::channel(false);
        let run = watch::run(informers.client(), selection, cache.clone(), report);
        let shutdown = informers.inner.shutdown.clone();
        informers.inner.watches.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = run => {}
            }
        });
        Informer { cache, synced }
    }

    /// Returns when the first list is in the cache, or at shutdown.
    pub async fn synced(&self) {
        // An error means that the watch has ended: nobody should go on waiting.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The object of that name; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache.read().get(namespace, name)
    }

    /// Every object, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.read().list()
    }

    pub fn len(&self) -> usize {
        self.cache.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache.read().in_namespace(namespace)
    }

    /// Keeps an index from the keys that `keys_of` gives to objects. A second index of the same name is the first one.
    pub fn add_index(&self, name: &'static str, keys_of: fn(&K) -> Vec<String>) {
        self.cache.write().add_index(name, keys_of);
    }

    /// The objects under `key` of an index; none if there is no such index.
    pub fn indexed(&self, index: &'static str, key: &str) -> Vec<Arc<K>> {
        self.cache.read().indexed(index, key)
    }

    /// What happens from now on, beginning with `Added` for all that is there.
    pub fn subscribe(&self) -> Subscription<K> {
        self.cache.write().subscribe()
    }
}

#[cfg(test)]
mod tests;
