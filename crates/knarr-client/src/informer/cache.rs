//! The objects an informer holds, their indexes, and who hears of changes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;

use super::subscription::{Mailbox, Subscription};
use super::{ObjectKey, Watched};

type Map<Q, V> = HashMap<Q, V, RandomState>;

/// Objects by namespace and name. Every index holds exactly the objects of `namespaces`.
pub(super) struct Cache<K> {
    namespaces: Map<Arc<str>, Map<Arc<str>, Arc<K>>>,
    indexes: Vec<Index<K>>,
    subscribers: Vec<Weak<Mailbox<K>>>,
    closed: bool,
}

struct Index<K> {
    name: &'static str,
    keys_of: fn(&K) -> Vec<String>,
    entries: Map<String, Map<ObjectKey, Arc<K>>>,
}

impl<K: Watched> Cache<K> {
    pub fn new() -> Self {
        Cache { namespaces: Map::default(), indexes: Vec::new(), subscribers: Vec::new(), closed: false }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.namespaces.get(namespace)?.get(name).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.namespaces.values().map(Map::len).sum()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.namespaces.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.objects().map(|object| ObjectKey::of(&**object)).collect()
    }

    fn objects(&self) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.values().flat_map(Map::values)
    }

    pub fn add_index(&mut self, name: &'static str, keys_of: fn(&K) -> Vec<String>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, keys_of, entries: Map::default() };
        for object in self.objects() {
            index.insert(&ObjectKey::of(&**object), object);
        }
        self.indexes.push(index);
    }

    pub fn indexed(&self, name: &str, key: &str) -> Vec<Arc<K>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        let objects = index.and_then(|index| index.entries.get(key));
        objects.map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    pub fn subscribe(&mut self) -> Subscription<K> {
        let mailbox = Arc::new(Mailbox::new());
        for object in self.objects() {
            mailbox.deliver(ObjectKey::of(&**object), None, Some(object.clone()));
        }
        if self.closed {
            mailbox.close();
        }
        self.subscribers.push(Arc::downgrade(&mailbox));
        Subscription::new(mailbox)
    }

    /// Takes the object in, unless it is the very revision already held.
    pub fn apply(&mut self, object: K) {
        let key = ObjectKey::of(&object);
        let object = Arc::new(object);
        let old = self.get(&key.namespace, &key.name);
        if old.as_ref().is_some_and(|old| same_revision(&**old, &*object)) {
            return;
        }
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        self.namespaces.entry(key.namespace.clone()).or_default().insert(key.name.clone(), object.clone());
        self.publish(key, old, Some(object));
    }

    /// Drops the object of that key. `last` is how it was when deleted, where the watch said so.
    pub fn remove(&mut self, key: ObjectKey, last: Option<K>) {
        let Some(objects) = self.namespaces.get_mut(&key.namespace) else { return };
        let Some(old) = objects.remove(&key.name) else { return };
        if objects.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        for index in &mut self.indexes {
            index.remove(&key, &old);
        }
        self.publish(key, Some(last.map(Arc::new).unwrap_or(old)), None);
    }

    fn publish(&mut self, key: ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        self.subscribers.retain(|subscriber| {
            let Some(mailbox) = subscriber.upgrade() else { return false };
            mailbox.deliver(key.clone(), old.clone(), new.clone());
            true
        });
    }

    /// The watch has ended for good: subscriptions end once read to their end.
    pub fn close(&mut self) {
        self.closed = true;
        for mailbox in self.subscribers.drain(..).filter_map(|subscriber| subscriber.upgrade()) {
            mailbox.close();
        }
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &Arc<K>) {
        for value in (self.keys_of)(object) {
            self.entries.entry(value).or_default().insert(key.clone(), object.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &Arc<K>) {
        for value in (self.keys_of)(object) {
            let Some(objects) = self.entries.get_mut(&value) else { continue };
            objects.remove(key);
            if objects.is_empty() {
                self.entries.remove(&value);
            }
        }
    }
}

fn same_revision<K: kube::Resource>(a: &K, b: &K) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}
