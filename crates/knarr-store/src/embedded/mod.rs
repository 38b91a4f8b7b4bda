//! The store of one process, on its own disk.
//!
//! The way of a write: [`Store::put`] hands it to the `committer`, a thread that decides all waiting writes against the `index`,
//! appends them to the write-ahead log (`wal`) with one sync, applies them to the `engine` (fjall), shows them to the `index` and
//! the `window`, and answers. Reads take a version from the index and its value from the engine. A watch (`watch`) reads the
//! window of recent events, or, when it is behind, the engine's log.
//!
//! Invariants:
//!
//! * Only the committer writes. What the index and the window show is durable.
//! * Every revision is exactly one change of one key; the engine keeps it until it is superseded and compacted.
//! * The log holds every operation that the engine may not have made durable; applying operations twice does no harm.

mod change;
mod committer;
mod engine;
mod index;
mod leases;
mod wal;
mod watch;
mod window;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use self::{
    change::Version,
    committer::{Committer, Reply, Request, key_value},
    engine::{Engine, View},
    index::{Entry, Index},
    leases::Leases,
    window::Window,
};
use crate::{Expect, KeyValue, LeaseId, Range, Result, Revision, Store, StoreError, WatchStream};

/// The largest value; a log frame must have room for it beside the rest of a batch.
const VALUE_LIMIT: usize = 8 << 20;
const KEY_LIMIT: usize = 4 << 10;
/// A read of more values than this leaves the async threads.
const READ_INLINE: usize = 64;
/// The revision of an empty store, as etcd has it: 0 would mean "any" to the API.
const FIRST_HEAD: u64 = 1;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// History older than this, and younger than twice this, is forgotten.
    pub compaction_interval: Duration,
    /// Superseded versions kept at most.
    pub history_versions: usize,
    /// Bytes of superseded values kept at most.
    pub history_bytes: u64,
    /// Events in memory for watches.
    pub recent_events: usize,
    pub recent_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            compaction_interval: Duration::from_secs(5 * 60),
            history_versions: 250_000,
            history_bytes: 512 << 20,
            recent_events: 4096,
            recent_bytes: 8 << 20,
        }
    }
}

/// The embedded store. Dropping it waits for writes under way and leaves nothing to replay; its directory is free for another
/// once its watches are dropped too.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What reads, watches and the committer have in common.
struct Shared {
    engine: Engine,
    index: RwLock<Index>,
    window: Window,
    compacted: AtomicU64,
}

impl Embedded {
    /// Opens the store in `directory`, made if it is missing. Blocks while it reads; a second process is refused.
    pub fn open(directory: &Path) -> Result<Embedded> {
        Embedded::open_with(directory, Limits::default())
    }

    pub fn open_with(directory: &Path, limits: Limits) -> Result<Embedded> {
        std::fs::create_dir_all(directory).map_err(|error| cannot_open(directory, &error))?;
        let engine = Engine::open(&directory.join("engine"))?;
        let wal = replay(directory, &engine)?;
        let (index, leases) = load(&engine)?;
        let window = Window::new(index.head(), limits.recent_events, limits.recent_bytes);
        let compacted = AtomicU64::new(engine.compacted()?);
        let shared = Arc::new(Shared { engine, index: RwLock::new(index), window, compacted });
        let (sender, receiver) = mpsc::channel();
        let committer = Committer::new(shared.clone(), wal, receiver, leases, limits);
        let committer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || committer.run())
            .map_err(|error| cannot_open(directory, &error))?;
        Ok(Embedded { shared, requests: Some(sender), committer: Mutex::new(Some(committer)) })
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(committer) = self.committer.lock().take() {
            let _ = committer.join();
        }
    }
}

fn cannot_open(directory: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Backend(format!("cannot open {}: {error}", directory.display()))
}

/// Brings the engine up to what the write-ahead log holds.
fn replay(directory: &Path, engine: &Engine) -> Result<wal::Wal> {
    let recovered =
        wal::recover(&directory.join("log"), engine.checkpointed()?).map_err(|error| cannot_open(directory, &error))?;
    if !recovered.operations.is_empty() {
        tracing::info!(operations = recovered.operations.len(), "replaying the store's log");
        engine.apply(recovered.operations.iter())?;
        engine.checkpoint(recovered.last_generation())?;
    }
    let checkpointer = engine.clone();
    recovered
        .into_wal(move |generation| checkpointer.checkpoint(generation).map_err(std::io::Error::other))
        .map_err(|error| cannot_open(directory, &error))
}

fn load(engine: &Engine) -> Result<(Index, Leases)> {
    let (mut index, mut leases) = (Index::default(), Leases::default());
    for (lease, expires) in engine.leases()? {
        leases.grant(lease, expires);
    }
    for version in engine.view().versions(0, u64::MAX) {
        let version: Version = version?;
        leases.attach(&version.key, version.lease);
        index.apply(&version);
    }
    // Compaction may have forgotten the newest revision itself, when it was a deletion.
    index.advance_to(engine.compacted()?.max(FIRST_HEAD));
    Ok((index, leases))
}

impl Shared {
    fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Acquire)
    }

    fn set_compacted(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
    }

    /// Whether what followed `revision` is still known.
    fn require_kept(&self, revision: u64) -> Result<()> {
        let oldest = self.compacted();
        if revision < oldest {
            return Err(StoreError::Compacted { requested: Revision(revision), oldest: Revision(oldest) });
        }
        Ok(())
    }

    fn read(&self, view: &View, key: &Arc<str>, entry: Entry) -> Result<KeyValue> {
        let value = view.value(entry.revision)?;
        let value = value.ok_or_else(|| StoreError::Backend(format!("the store is damaged: {key} has no value")))?;
        Ok(key_value(key, entry, value))
    }

    fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let (entry, key, view) = {
            let index = self.index.read();
            let (Some(entry), Some(key)) = (index.current(key), index.shared_key(key)) else { return Ok(None) };
            // Under the lock: the view then has all that the index names.
            (entry, key, self.engine.view())
        };
        self.read(&view, &key, entry).map(Some)
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<FoundRange> {
        let index = self.index.read();
        let revision = at.map_or(index.head(), |at| at.0);
        if revision > index.head() {
            return Err(StoreError::Future { requested: Revision(revision), current: Revision(index.head()) });
        }
        self.require_kept(if at.is_some() { revision } else { u64::MAX })?;
        let (found, more) = index.range(prefix, after, limit, revision);
        Ok(FoundRange { found, more, revision: Revision(revision), view: self.engine.view() })
    }
}

/// A range whose values are yet to be read.
struct FoundRange {
    found: Vec<index::Found>,
    more: bool,
    revision: Revision,
    view: View,
}

impl FoundRange {
    fn read(self, shared: &Shared) -> Result<Range> {
        let items = self.found.iter().map(|found| shared.read(&self.view, &found.key, found.entry));
        Ok(Range { items: items.collect::<Result<_>>()?, more: self.more, revision: self.revision })
    }
}

fn require_fitting(key: &str, value: &Bytes) -> Result<()> {
    let too_large = |size, limit| {
        let key = key.chars().take(256).collect();
        Err(StoreError::TooLarge { key, size, limit })
    };
    if key.len() > KEY_LIMIT {
        return too_large(key.len(), KEY_LIMIT);
    }
    if value.len() > VALUE_LIMIT {
        return too_large(value.len(), VALUE_LIMIT);
    }
    Ok(())
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.shared.get(key)
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Range> {
        let found = self.shared.range(prefix, after, limit, at)?;
        if found.found.len() <= READ_INLINE {
            return found.read(&self.shared);
        }
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || found.read(&shared)).await.map_err(|_| StoreError::Closed)?
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Revision> {
        require_fitting(key, &value)?;
        let key = key.to_owned();
        self.ask(|reply| Request::Put { key, value, expect, lease, reply }).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, KeyValue)> {
        let key = key.to_owned();
        self.ask(|reply| Request::Delete { key, expect, reply }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        watch::open(self.shared.clone(), prefix, after)
    }

    async fn request_progress(&self) -> Result<()> {
        self.shared.window.mark_progress();
        Ok(())
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.shared.window.head()))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }

    async fn grant_lease(&self, ttl_seconds: u32) -> Result<LeaseId> {
        let ttl = Duration::from_secs(ttl_seconds.into());
        self.ask(|reply| Request::Grant { ttl, reply }).await
    }

    fn check(&self) -> Result<()> {
        if self.shared.window.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }
}
