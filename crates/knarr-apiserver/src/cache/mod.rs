//! What is stored, in memory: per resource an ordered persistent map, replaced on every change.
//!
//! One task follows the store ([`follow`]) and applies its batches; readers load a [`Snapshot`] pointer and are never
//! blocked, nor block. A bounded window of past [`Change`]s lets a watch start in the past and a continued LIST see
//! its old revision.
//!
//! Invariants: a snapshot with revision R holds every change up to R of its resource. [`Caches::applied`] is never
//! ahead of any snapshot, nor of what was sent to watchers.

pub mod derived;
pub mod entry;
pub mod follow;
pub mod mailbox;
pub mod watchers;

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use imbl::OrdMap;
use knarr_api::GroupResource;
use parking_lot::Mutex;

pub use derived::Derived;
pub use entry::{Entry, FieldsOf, Reader};
pub use follow::Caches;
pub use watchers::{EventType, Selection};

/// Changes kept per resource for watches and lists from the past.
const WINDOW: usize = 10_000;

/// The objects of one resource at one revision.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// It holds every change of its resource up to this revision.
    pub revision: u64,
    pub entries: OrdMap<Arc<str>, Arc<Entry>>,
}

impl Snapshot {
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// The entries of a namespace (empty: of all) in key order, after `after` (exclusive).
    pub fn range<'a>(&'a self, namespace: &str, after: Option<&str>) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let (first, end) = if namespace.is_empty() {
            (String::new(), None)
        } else {
            // '0' is the character after '/'.
            (format!("{namespace}/"), Some(format!("{namespace}0")))
        };
        let lower = match after {
            Some(after) if after >= first.as_str() => Bound::Excluded(after),
            _ => Bound::Included(first.as_str()),
        };
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let empty = matches!((lower, upper), (Bound::Excluded(a) | Bound::Included(a), Bound::Excluded(b)) if a >= b);
        let range = (!empty).then(|| self.entries.range::<_, str>((lower, upper)));
        range.into_iter().flatten().map(|(_, entry)| entry)
    }
}

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

#[derive(Default)]
struct Feed {
    watchers: watchers::Watchers,
    window: VecDeque<Arc<Change>>,
    /// Everything after this revision is in the window.
    floor: u64,
}

/// The objects of one resource and who watches them.
pub struct Cache {
    pub resource: GroupResource,
    reader: ArcSwap<Reader>,
    current: ArcSwap<Snapshot>,
    feed: Mutex<Feed>,
    /// Wakes those who wait for the next change.
    changed: tokio::sync::Notify,
}

impl Cache {
    fn new(resource: GroupResource, reader: Reader, floor: u64) -> Self {
        let feed = Feed { floor, ..Feed::default() };
        let current = ArcSwap::from_pointee(Snapshot { revision: floor, entries: OrdMap::new() });
        let reader = ArcSwap::from_pointee(reader);
        Cache { resource, reader, current, feed: Mutex::new(feed), changed: tokio::sync::Notify::new() }
    }

    /// What stands now.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    pub fn watcher_count(&self) -> usize {
        self.feed.lock().watchers.len()
    }

    /// What stood at `revision`, by undoing the changes since.
    pub fn snapshot_at(&self, revision: u64) -> Result<Arc<Snapshot>, TooOld> {
        let (current, undo) = {
            let feed = self.feed.lock();
            (self.current.load_full(), feed.since(revision)?)
        };
        if undo.is_empty() {
            return Ok(current);
        }
        let mut past = Snapshot { revision, entries: current.entries.clone() };
        for change in undo.iter().rev() {
            match (&change.before, &change.after) {
                (Some(before), _) => drop(past.entries.insert(before.key.clone(), before.clone())),
                (None, Some(after)) => drop(past.entries.remove(&*after.key)),
                (None, None) => {}
            }
        }
        Ok(Arc::new(past))
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
        let (sender, receiver) = mailbox::mailbox();
        feed.watchers.add(selection, render, sender);
        Ok(Started { snapshot: self.current.load_full(), missed, receiver })
    }

    /// Applies changes whose objects were read by `reader`.
    fn apply(&self, changes: Vec<Change>, reader: &Arc<Reader>) {
        let mut feed = self.feed.lock();
        let mut next = Snapshot::clone(&self.current.load());
        let current = self.reader.load();
        let outdated = !Arc::ptr_eq(&current, reader);
        for mut change in changes {
            if outdated && let Some(again) = change.after.as_ref().and_then(|e| e.read_again(&current).ok()) {
                change.after = Some(Arc::new(again));
            }
            next.revision = change.revision;
            match (&change.before, &change.after) {
                (_, Some(after)) => drop(next.entries.insert(after.key.clone(), after.clone())),
                (Some(before), None) => drop(next.entries.remove(&*before.key)),
                (None, None) => continue,
            }
            feed.remember(change);
        }
        self.current.store(Arc::new(next));
        feed.watchers.flush();
        drop(feed);
        self.changed.notify_waiters();
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
        feed.floor = revision;
        let entries = entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        self.current.store(Arc::new(Snapshot { revision, entries }));
    }

    /// Reads every object in another way from now on, those that are here already too. Nobody is told: it is not a change.
    pub fn set_reader(&self, reader: Reader) {
        let _writing = self.feed.lock();
        let mut next = Snapshot::clone(&self.current.load());
        for entry in self.current.load().entries.values() {
            match entry.read_again(&reader) {
                Ok(again) => drop(next.entries.insert(entry.key.clone(), Arc::new(again))),
                Err(error) => tracing::error!(%error, "left as it was"),
            }
        }
        self.reader.store(Arc::new(reader));
        self.current.store(Arc::new(next));
    }

    /// Ends every watch of this resource.
    pub fn close_watches(&self) {
        self.feed.lock().watchers.close();
    }

    fn sweep(&self) {
        self.feed.lock().watchers.sweep();
    }
}

impl Feed {
    fn since(&self, revision: u64) -> Result<Vec<Arc<Change>>, TooOld> {
        if revision < self.floor {
            return Err(TooOld { requested: revision, oldest: self.floor });
        }
        let start = self.window.partition_point(|c| c.revision <= revision);
        Ok(self.window.range(start..).cloned().collect())
    }

    fn remember(&mut self, change: Change) {
        if !self.watchers.is_empty() {
            self.watchers.dispatch(&change);
        }
        if self.window.len() == WINDOW
            && let Some(oldest) = self.window.pop_front()
        {
            self.floor = oldest.revision;
        }
        self.window.push_back(Arc::new(change));
    }
}

/// A watch that has begun.
pub struct Started {
    pub snapshot: Arc<Snapshot>,
    pub missed: Vec<Arc<Change>>,
    pub receiver: mailbox::Receiver,
}

type CacheMap = HashMap<GroupResource, Arc<Cache>, RandomState>;
