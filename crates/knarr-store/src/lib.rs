//! Keys, bytes and revisions, with etcd's meaning. Knows nothing of Kubernetes.
//!
//! Every change takes the next [`Revision`], one for the whole store. A write names the revision it expects of its key
//! ([`Expect`]) and fails with [`StoreError::Conflict`] if that is not the current one. No write is acknowledged before it is
//! on disk. [`Store::watch`] delivers every change under a prefix after a revision, in order, exactly once, or fails with
//! [`StoreError::Compacted`].
//!
//! One trait, two backends, the same tests over both: [`embedded`] (one process, the default) and [`etcd`] (many servers).
//!
//! Invariants that every backend keeps:
//!
//! * Revisions only grow, across restarts too; one write takes one revision.
//! * A write is visible to every read and every watch when it is acknowledged, and never before it is durable.
//! * A watch that falls behind costs its reader time, never the store memory.

pub mod embedded;
pub mod etcd;
mod follower;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

pub use embedded::Embedded;
pub use etcd::Etcd;

/// A point in the store's history. The first write makes revision 1 or higher; 0 means "before everything".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// A key with its value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// What a write demands of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist with this mod revision.
    Revision(Revision),
    /// No demand (of a delete: the key must exist).
    Any,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put {
        current: KeyValue,
        previous: Option<KeyValue>,
    },
    /// `current` has no value and no create revision; `current.mod_revision` is the revision of the deletion.
    Delete {
        current: KeyValue,
        previous: KeyValue,
    },
}

/// Events of one or more whole revisions, in order. An empty batch is a progress mark: one comes soon after other keys changed,
/// and at once after [`Store::request_progress`].
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    /// Everything up to and including this revision has been delivered.
    pub revision: Revision,
    pub events: Vec<Event>,
}

pub type WatchStream = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// A page of a range.
#[derive(Clone, Debug, Default)]
pub struct Range {
    pub items: Vec<KeyValue>,
    /// More keys follow the last one.
    pub more: bool,
    /// The store's revision at which this was read.
    pub revision: Revision,
}

/// Handle of a lease: its keys are deleted when it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The key is not as [`Expect`] demanded; `current` is what is there.
    #[error("key {key} is not at the expected revision")]
    Conflict { key: Arc<str>, current: Option<Box<KeyValue>> },
    /// The revision asked for is older than what the store keeps.
    #[error("revision {requested:?} has been compacted; the oldest kept is {oldest:?}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision asked for has not been written yet.
    #[error("revision {requested:?} is in the future; the store is at {current:?}")]
    Future { requested: Revision, current: Revision },
    /// The lease was never granted or has expired.
    #[error("lease {0:?} does not exist")]
    LeaseNotFound(LeaseId),
    /// Another process has the store open.
    #[error("the store in {0} is in use by another process")]
    InUse(String),
    #[error("the value of {key} has {size} bytes; the store takes at most {limit}")]
    TooLarge { key: String, size: usize, limit: usize },
    /// The value is encrypted (or was to be), and what it takes to do so is not there.
    #[error("the value of {key} cannot be transformed: {why}")]
    Unreadable { key: Arc<str>, why: String },
    #[error("the store is closed")]
    Closed,
    /// The backend failed; the write may or may not have happened.
    #[error("store: {0}")]
    Backend(String),
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An etcd-like store. All methods may be called concurrently.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The current value; sees every write acknowledged before the call.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>>;

    /// Keys that start with `prefix`, in order, after `after` (exclusive), at most `limit` (0: all), as of `at` (`None`: now).
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Range>;

    /// Writes and returns the new revision. Durable once it returns.
    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Revision>;

    /// Deletes and returns the revision of the deletion and what was there.
    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, KeyValue)>;

    /// Changes under `prefix` with a revision greater than `after`. The stream ends after its first error.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream>;

    /// Makes every open watch deliver, at once, all it has yet to deliver, or a progress mark at the current revision if there is
    /// nothing. What a consistent read from a cache waits for.
    async fn request_progress(&self) -> Result<()>;

    /// The newest revision that an acknowledged write may have.
    async fn revision(&self) -> Result<Revision>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// A lease that expires `ttl_seconds` from now; the keys it is then attached to are deleted. It outlives a restart.
    async fn grant_lease(&self, ttl_seconds: u32) -> Result<LeaseId>;

    /// Why a value under `prefix` cannot be read, if one was met that cannot: it is stored encrypted, and its key is missing. Reads
    /// and watches deliver such a value as it is stored.
    fn unreadable(&self, _prefix: &str) -> Option<StoreError> {
        None
    }

    /// Whether the value is stored otherwise than it would be written now (with an older encryption key), so that writing it anew
    /// is worth while even where nothing else changes.
    async fn is_stale(&self, _key: &str) -> bool {
        false
    }
    /// Whether the store works, as far as is known without asking it.
    fn check(&self) -> Result<()>;
}
