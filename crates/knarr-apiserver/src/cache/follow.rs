//! The task that follows the store and keeps every cache.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use knarr_api::GroupResource;
use knarr_store::{Event, KeyValue, Revision, Store, StoreError, WatchStream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Cache, CacheMap, Change, Entry, Reader};

/// Every key starts with it.
pub const ROOT: &str = "/registry/";

/// How far back a restarted server reads the store's history, so that watches resume.
const REPLAYED_REVISIONS: u64 = 2_000;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Watchers hear of changes at most so often: one change goes out at once, and of many that follow each other several go together, as a
/// packet and a wake-up for each of them would cost more than the writes.
const TELLING_INTERVAL: Duration = Duration::from_millis(1);

/// The caches whose watchers have not heard of the latest changes.
struct Untold {
    caches: Vec<Arc<Cache>>,
    /// When they last were told.
    since: Instant,
}

impl Default for Untold {
    fn default() -> Self {
        Untold { caches: Vec::new(), since: Instant::now() }
    }
}

impl Untold {
    fn add(&mut self, cache: Arc<Cache>) {
        if !self.caches.iter().any(|known| Arc::ptr_eq(known, &cache)) {
            self.caches.push(cache);
        }
    }
}

type ReaderByResource = Box<dyn Fn(&GroupResource) -> Reader + Send + Sync>;

/// The caches of all resources, those unknown yet included (a custom resource's objects may come before its definition).
pub struct Caches {
    by_resource: ArcSwap<CacheMap>,
    grow: Mutex<()>,
    /// Everything up to this revision is in the caches.
    applied: AtomicU64,
    /// Everything up to this revision is in the watchers' mailboxes.
    told: AtomicU64,
    progress: watch::Sender<u64>,
    /// A watch of the store is open.
    following: AtomicBool,
    /// How objects of each kind are read at first.
    reader_of: ReaderByResource,
}

/// The key of an object: `/registry/[group/]resource/[namespace/]name`.
pub fn store_key(resource: &GroupResource, key: &str) -> String {
    let GroupResource { group, resource } = resource;
    if group.is_empty() { format!("{ROOT}{resource}/{key}") } else { format!("{ROOT}{group}/{resource}/{key}") }
}

/// The group and resource of an object's key, told by the built-in resources which first words are no groups.
pub fn locate(key: &str) -> Option<(&str, &str)> {
    static CORE: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let rows = knarr_api::resource::built_in().resources.iter();
        rows.filter(|r| r.group.is_empty()).map(|r| r.resource.as_str()).collect()
    });
    let rest = key.strip_prefix(ROOT)?;
    let (first, rest) = rest.split_once('/')?;
    if CORE.contains(first) {
        return Some(("", first));
    }
    let (resource, _) = rest.split_once('/')?;
    Some((first, resource))
}

/// The way back from [`store_key`]. A group has a dot or is one of the few old ones; no core resource is named so.
fn parse_store_key(key: &str, is_core: impl Fn(&str) -> bool) -> Option<(GroupResource, &str)> {
    let rest = key.strip_prefix(ROOT)?;
    let (first, rest) = rest.split_once('/')?;
    if is_core(first) {
        return Some((GroupResource::new("", first.to_string()), rest));
    }
    let (resource, rest) = rest.split_once('/')?;
    Some((GroupResource::new(first.to_string(), resource.to_string()), rest))
}

impl Caches {
    pub fn new(reader_of: impl Fn(&GroupResource) -> Reader + Send + Sync + 'static) -> Self {
        Caches {
            by_resource: ArcSwap::default(),
            grow: Mutex::new(()),
            applied: AtomicU64::new(0),
            told: AtomicU64::new(0),
            progress: watch::Sender::new(0),
            following: AtomicBool::new(false),
            reader_of: Box::new(reader_of),
        }
    }

    /// The cache of a resource, made where there is none.
    pub fn of(&self, resource: &GroupResource) -> Arc<Cache> {
        if let Some(cache) = self.by_resource.load().get(resource) {
            return cache.clone();
        }
        let _growing = self.grow.lock();
        let mut map = CacheMap::clone(&self.by_resource.load());
        let make = || Arc::new(Cache::new(resource.clone(), (self.reader_of)(resource), self.applied()));
        let cache = map.entry(resource.clone()).or_insert_with(make).clone();
        self.by_resource.store(Arc::new(map));
        cache
    }

    pub fn all(&self) -> Vec<Arc<Cache>> {
        self.by_resource.load().values().cloned().collect()
    }

    /// The newest revision that all caches have reached.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The newest revision of which every watcher has been told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Waits until everything up to `revision` can be read.
    pub async fn reached(&self, revision: u64) {
        if self.applied() < revision {
            // The sender lives in self, so that waiting cannot fail.
            let _ = self.progress.subscribe().wait_for(|applied| *applied >= revision).await;
        }
    }

    fn locate<'a>(&self, key: &'a str) -> Option<(Arc<Cache>, &'a str)> {
        let core = |word: &str| self.by_resource.load().contains_key(&GroupResource::new("", word.to_string()));
        let (resource, rest) = parse_store_key(key, core)?;
        Some((self.of(&resource), rest))
    }

    /// Reads the store as of a little ago and returns the stream of everything since.
    pub async fn load(&self, store: &dyn Store) -> Result<WatchStream, StoreError> {
        let now = store.revision().await?;
        let mut from = Revision(now.0.saturating_sub(REPLAYED_REVISIONS));
        loop {
            match self.load_at(store, from).await {
                Ok(stream) => return Ok(stream),
                Err(StoreError::Compacted { oldest, .. }) if oldest > from && from < now => from = oldest.min(now),
                Err(error) => return Err(error),
            }
        }
    }

    async fn load_at(&self, store: &dyn Store, from: Revision) -> Result<WatchStream, StoreError> {
        let items = if from.0 == 0 { Vec::new() } else { store.range(ROOT, None, 0, Some(from)).await?.items };
        let stream = store.watch(ROOT, from).await?;
        let mut loaded: HashMap<GroupResource, Vec<Arc<Entry>>> = HashMap::new();
        for item in &items {
            if let Some((cache, key)) = self.locate(&item.key)
                && let Some(entry) = parse_entry(&cache.reader.load(), key, item)
            {
                loaded.entry(cache.resource.clone()).or_default().push(entry);
            }
        }
        for cache in self.all() {
            cache.load(loaded.remove(&cache.resource).unwrap_or_default(), from.0);
        }
        self.advance(from.0);
        self.tell(&mut Untold::default());
        Ok(stream)
    }

    /// Applies what the store reports until it ends or `shutdown`.
    pub async fn follow(&self, stream: WatchStream, shutdown: CancellationToken) -> Result<(), StoreError> {
        self.following.store(true, Ordering::Release);
        let ended = self.follow_until_it_ends(stream, shutdown).await;
        self.following.store(false, Ordering::Release);
        ended
    }

    /// Whether the caches hear of what happens in the store.
    pub fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    async fn follow_until_it_ends(
        &self,
        mut stream: WatchStream,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut untold = Untold::default();
        let ended = loop {
            let due = untold.since + TELLING_INTERVAL;
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = tokio::time::sleep_until(due), if !untold.caches.is_empty() => {
                    self.tell(&mut untold);
                    continue;
                }
                _ = sweep.tick() => { self.all().iter().for_each(|c| c.sweep()); continue }
                () = shutdown.cancelled() => break Ok(()),
            };
            let batch = match batch {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => break Err(error),
                None => break Err(StoreError::Closed),
            };
            self.apply(&batch.events, &mut untold);
            self.advance(batch.revision.0);
            if untold.caches.is_empty() || due <= Instant::now() {
                self.tell(&mut untold);
            }
        };
        self.tell(&mut untold);
        ended
    }

    /// Sends watchers all that they have not been told yet.
    fn tell(&self, untold: &mut Untold) {
        if !untold.caches.is_empty() {
            untold.caches.drain(..).for_each(|cache| cache.tell());
            untold.since = Instant::now();
        }
        self.told.store(self.applied(), Ordering::Release);
    }

    fn advance(&self, revision: u64) {
        if revision > self.applied() {
            self.applied.store(revision, Ordering::Release);
            self.progress.send_replace(revision);
        }
    }

    fn apply(&self, events: &[Event], untold: &mut Untold) {
        let mut batches: Vec<(Arc<Cache>, Arc<Reader>, Vec<Change>)> = Vec::new();
        for event in events {
            let (Event::Put { current, .. } | Event::Delete { current, .. }) = event;
            let Some((cache, key)) = self.locate(&current.key) else { continue };
            let at = batches.iter().position(|(c, ..)| Arc::ptr_eq(c, &cache)).unwrap_or_else(|| {
                batches.push((cache.clone(), cache.reader.load_full(), Vec::new()));
                batches.len() - 1
            });
            let (_, reader, changes) = &mut batches[at];
            let before = newest(&cache, changes, key);
            let after = match event {
                Event::Put { .. } => parse_entry(reader, key, current),
                Event::Delete { .. } => None,
            };
            changes.push(Change { revision: current.mod_revision.0, before, after });
        }
        for (cache, reader, changes) in batches {
            cache.apply(changes, &reader);
            untold.add(cache);
        }
    }

    /// Ends every watch, as a server does that shuts down.
    pub fn close_watches(&self) {
        self.all().iter().for_each(|cache| cache.close_watches());
    }
}

/// What stands under `key` once the batch so far is applied.
fn newest(cache: &Cache, changes: &[Change], key: &str) -> Option<Arc<Entry>> {
    let same = |e: &Option<Arc<Entry>>| e.as_ref().is_some_and(|e| &*e.key == key);
    match changes.iter().rev().find(|c| same(&c.before) || same(&c.after)) {
        Some(change) => change.after.clone(),
        None => cache.snapshot().get(key).cloned(),
    }
}

/// An object that cannot be read is logged and left out: it must not stop the others.
fn parse_entry(reader: &Reader, key: &str, item: &KeyValue) -> Option<Arc<Entry>> {
    match Entry::parse(key.into(), &item.value, item.mod_revision.0, reader) {
        Ok(entry) => Some(Arc::new(entry)),
        Err(error) => {
            tracing::error!(%error, "left out");
            None
        }
    }
}
