//! What is made of all objects of one resource, made again when one changes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Cache, Snapshot};

struct Made<T> {
    of: Arc<Snapshot>,
    value: Arc<T>,
}

/// A value that depends on nothing but what is stored of one resource. Whoever asks sees what is stored at that moment: there is no
/// follower that could lag, and asking while nothing changes costs two pointer loads.
pub struct Derived<T> {
    cache: Arc<Cache>,
    make: fn(&Snapshot, Option<&T>) -> T,
    made: ArcSwapOption<Made<T>>,
}

impl<T> Derived<T> {
    /// `make` is given what was made before, to take over what has not changed.
    pub fn new(cache: Arc<Cache>, make: fn(&Snapshot, Option<&T>) -> T) -> Self {
        Derived { cache, make, made: ArcSwapOption::empty() }
    }

    /// Whether no object is stored.
    pub fn is_empty(&self) -> bool {
        self.cache.snapshot().entries.is_empty()
    }

    pub fn get(&self) -> Arc<T> {
        let snapshot = self.cache.snapshot();
        let made = self.made.load();
        if let Some(made) = made.as_ref().filter(|made| Arc::ptr_eq(&made.of, &snapshot)) {
            return made.value.clone();
        }
        let value = Arc::new((self.make)(&snapshot, made.as_ref().map(|made| &*made.value)));
        self.made.store(Some(Arc::new(Made { of: Arc::clone(&snapshot), value: value.clone() })));
        value
    }
}
