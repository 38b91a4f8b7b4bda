//! What is stored, in memory: per resource an ordered persistent map, replaced on every change.
//!
//! One task follows the store ([`follow`]) and applies its batches; readers load a [`Snapshot`] pointer and are never
//! blocked, nor block. A bounded window of past [`Change`]s lets a watch start in the past and a continued LIST see
//! its old revision.
//!
//! Invariants: a snapshot with revision R holds every change up to R of its resource. [`Caches::applied`] is never
//! ahead of any snapshot, and [`Caches::told`] never ahead of what was sent to watchers.

pub mod derived;
pub mod entry;
mod feed;
pub mod follow;
pub mod mailbox;
pub mod rendered;
mod snapshot;
pub mod watchers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use knarr_api::GroupResource;
use parking_lot::Mutex;

pub use derived::Derived;
pub use entry::{Entry, FieldsOf, Reader};
use feed::Feed;
pub use follow::Caches;
use rendered::Rendered;
pub use rendered::Whole;
pub use snapshot::Snapshot;
pub use watchers::{EventType, Selection};

/// One object's step from one revision to the next.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub before: Option<Arc<Entry>>,
    pub after: Option<Arc<Entry>>,
}

impl Change {
    /// The event that a selection sees of this change: an object that stops matching is deleted to it.
    pub fn seen_by(&self, selection: &Selection) -> Option<(EventType, &Arc<Entry>)> {
        let before = self.before.as_ref().filter(|e| selection.matches(e));
        let after = self.after.as_ref().filter(|e| selection.matches(e));
        match (before, after) {
            (None, None) => None,
            (None, Some(entry)) => Some((EventType::Added, entry)),
            (Some(_), Some(entry)) => Some((EventType::Modified, entry)),
            (Some(entry), None) => Some((EventType::Deleted, entry)),
        }
    }
}

/// A revision that the window no longer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {requested} ({oldest})")]
pub struct TooOld {
    pub requested: u64,
    pub oldest: u64,
}

/// The objects of one resource and who watches them.
pub struct Cache {
    pub resource: GroupResource,
    reader: ArcSwap<Reader>,
    current: ArcSwap<Snapshot>,
    feed: Mutex<Feed>,
    /// Watches that no index narrows: each of them hears of every write.
    broad_watches: Arc<AtomicUsize>,
    /// Wakes those who wait for the next change.
    changed: tokio::sync::Notify,
    pub rendered: Rendered,
}

impl Cache {
    fn new(resource: GroupResource, reader: Reader, floor: u64) -> Self {
        Cache {
            resource,
            reader: ArcSwap::from_pointee(reader),
            current: ArcSwap::from_pointee(Snapshot::new(floor, [])),
            feed: Mutex::new(Feed::starting_at(floor)),
            broad_watches: Arc::default(),
            changed: tokio::sync::Notify::new(),
            rendered: Rendered::default(),
        }
    }

    /// What stands now.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    pub fn watcher_count(&self) -> usize {
        self.feed.lock().watchers.len()
    }

    /// How many watches hear of every write.
    pub fn broad_watchers(&self) -> usize {
        self.broad_watches.load(Ordering::Relaxed)
    }

    /// Counts a watch of this selection until the guard is dropped.
    pub fn count_watch(&self, selection: &Selection) -> Option<CountedWatch> {
        selection.is_broad().then(|| {
            self.broad_watches.fetch_add(1, Ordering::Relaxed);
            CountedWatch(self.broad_watches.clone())
        })
    }

    /// Events that watchers were sent since the start.
    pub fn delivered_events(&self) -> u64 {
        self.feed.lock().watchers.delivered
    }

    /// What stood at `revision`, by way of the nearest state that is kept.
    pub fn snapshot_at(&self, revision: u64) -> Result<Arc<Snapshot>, TooOld> {
        let way = {
            let feed = self.feed.lock();
            feed.way_to(revision, &self.current.load_full())?
        };
        Ok(way.walk(revision))
    }

    /// Starts a watch: the snapshot it starts from, and the changes after `since` up to that snapshot. Everything later
    /// arrives in the mailbox.
    pub fn watch(
        &self,
        selection: Arc<Selection>,
        render: Arc<dyn watchers::Render>,
        since: Option<u64>,
    ) -> Result<Started, TooOld> {
        let mut feed = self.feed.lock();
        let missed = since.map_or(Ok(Vec::new()), |revision| feed.since(revision))?;
        // What is gathered for the others is before this watch's time.
        feed.watchers.flush();
        let (sender, receiver) = mailbox::mailbox();
        feed.watchers.add(selection, render, sender);
        Ok(Started { snapshot: self.current.load_full(), missed, receiver })
    }

    /// Applies changes whose objects were read by `reader`. Watchers hear of them at the next [`Cache::tell`].
    fn apply(&self, changes: Vec<Change>, reader: &Arc<Reader>) {
        let mut feed = self.feed.lock();
        let mut next = Snapshot::clone(&self.current.load());
        let current = self.reader.load();
        let outdated = !Arc::ptr_eq(&current, reader);
        for mut change in changes {
            if outdated && let Some(again) = change.after.as_ref().and_then(|e| e.read_again(&current).ok()) {
                change.after = Some(Arc::new(again));
            }
            next.redo(&change);
            feed.remember(change);
        }
        let next = Arc::new(next);
        feed.remember_root(&next);
        self.current.store(next);
        self.rendered.forget();
        drop(feed);
        self.changed.notify_waiters();
    }

    /// Sends watchers what has been gathered for them.
    fn tell(&self) {
        self.feed.lock().watchers.flush();
    }

    /// Every change after `revision`, in order.
    pub fn changes_since(&self, revision: u64) -> Result<Vec<Arc<Change>>, TooOld> {
        self.feed.lock().since(revision)
    }

    /// Waits until something has changed after `revision`.
    pub async fn changed_after(&self, revision: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before looking, so that no change can slip between.
            changed.as_mut().enable();
            if self.current.load().revision > revision {
                return;
            }
            changed.await;
        }
    }

    fn load(&self, entries: Vec<Arc<Entry>>, revision: u64) {
        let mut feed = self.feed.lock();
        feed.watchers.flush();
        feed.restart(revision);
        self.current.store(Arc::new(Snapshot::new(revision, entries)));
        self.rendered.forget();
    }

    /// Reads every object in another way from now on, those that are here already too. Nobody is told: it is not a change.
    pub fn set_reader(&self, reader: Reader) {
        let _writing = self.feed.lock();
        let mut next = Snapshot::clone(&self.current.load());
        for entry in self.current.load().entries.values() {
            match entry.read_again(&reader) {
                Ok(again) => next.insert(Arc::new(again)),
                Err(error) => tracing::error!(%error, "left as it was"),
            }
        }
        self.reader.store(Arc::new(reader));
        self.current.store(Arc::new(next));
        self.rendered.forget();
    }

    /// Ends every watch of this resource.
    pub fn close_watches(&self) {
        self.feed.lock().watchers.close();
    }

    fn sweep(&self) {
        self.feed.lock().watchers.sweep();
        self.rendered.sweep();
    }
}

/// One of [`Cache::broad_watchers`].
pub struct CountedWatch(Arc<AtomicUsize>);

impl Drop for CountedWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch that has begun.
pub struct Started {
    pub snapshot: Arc<Snapshot>,
    pub missed: Vec<Arc<Change>>,
    pub receiver: mailbox::Receiver,
}

type CacheMap = HashMap<GroupResource, Arc<Cache>, RandomState>;
