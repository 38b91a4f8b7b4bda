//! What an informer does with what it hears: objects are decoded, and kept in the cache.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::RwLock;

use super::cache::Cache;
use super::{ObjectKey, Selection, Watched};
use crate::follow::{Change, Source, follow, metadata_of};

/// Runs until dropped. Errors are logged and tried again after a back-off; the cache keeps its last state meanwhile.
pub(super) fn run<K: Watched>(
    client: kube::Client,
    selection: Selection,
    cache: Arc<RwLock<Cache<K>>>,
    synced: tokio::sync::watch::Sender<bool>,
) -> BoxFuture<'static, ()> {
    let mut keeper = Keeper { cache, unlisted: HashSet::new(), synced };
    follow(client, Source::of::<K>(&(), selection), Box::new(move |change| keeper.hear(change)))
}

struct Keeper<K: Watched> {
    cache: Arc<RwLock<Cache<K>>>,
    /// What the cache holds and the list under way has not named.
    unlisted: HashSet<ObjectKey>,
    synced: tokio::sync::watch::Sender<bool>,
}

impl<K: Watched> Keeper<K> {
    fn hear(&mut self, change: Change<'_>) {
        match change {
            Change::Relisting => self.unlisted = self.cache.read().keys().into_iter().collect(),
            Change::Listed(text) => self.listed(text),
            Change::Settled => {
                for gone in self.unlisted.drain() {
                    self.cache.write().remove(gone, None);
                }
                self.synced.send_replace(true);
            }
            Change::Applied(text) => match decoded(text) {
                Some(object) => self.cache.write().apply(object),
                None => self.remove(text),
            },
            Change::Deleted(text) => self.remove(text),
            Change::Interrupted(interruption) => {
                tracing::debug!(kind = %K::kind(&()), %interruption, "watch interrupted");
            }
        }
    }

    fn listed(&mut self, text: &str) {
        // What cannot be decoded stays unlisted: an older state of it would be worse than none.
        if let Some(object) = decoded::<K>(text) {
            self.unlisted.remove(&ObjectKey::of(&object));
            self.cache.write().apply(object);
        }
    }

    fn remove(&mut self, text: &str) {
        match decoded::<K>(text) {
            Some(last) => self.cache.write().remove(ObjectKey::of(&last), Some(last)),
            None => {
                let Ok(last) = metadata_of(text) else { return };
                let key = ObjectKey::new(&last.namespace.unwrap_or_default(), &last.name.unwrap_or_default());
                self.cache.write().remove(key, None);
            }
        }
    }
}

/// Ends the subscriptions when the watch ends, however it ends.
impl<K: Watched> Drop for Keeper<K> {
    fn drop(&mut self) {
        self.cache.write().close();
    }
}

/// The object, without its `managedFields`; `None`, and a warning, if it is none of this kind.
fn decoded<K: Watched>(text: &str) -> Option<K> {
    match serde_json::from_str::<K>(text) {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Some(object)
        }
        Err(error) => {
            let name = metadata_of(text).ok().and_then(|metadata| metadata.name);
            tracing::warn!(kind = %K::kind(&()), name, %error, "an object that cannot be read is passed over");
            None
        }
    }
}
