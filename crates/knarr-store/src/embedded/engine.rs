//! The engine (fjall) as this store uses it: two keyspaces and a few marks.
//!
//! * `log`: `r` + revision → [`Version`]; `m` + name → a mark; `l` + lease → when it expires.
//! * `values`: revision → value.
//!
//! Nothing here is synced when it is written: the write-ahead log makes writes durable, [`Engine::checkpoint`] relieves it.

use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot};

use super::change::{Change, Operation, Version};
use crate::{LeaseId, StoreError};

const BLOCK_CACHE: u64 = 8 << 20;
const LOG_MEMTABLE: u64 = 4 << 20;
const VALUES_MEMTABLE: u64 = 16 << 20;
const JOURNAL: u64 = 64 << 20;

const COMPACTED: &[u8] = b"mcompacted";
const CHECKPOINT: &[u8] = b"mcheckpoint";

/// A handle; clones share one database.
#[derive(Clone)]
pub(super) struct Engine {
    database: Database,
    log: Keyspace,
    values: Keyspace,
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        StoreError::Backend(error.to_string())
    }
}

fn version_key(revision: u64) -> [u8; 9] {
    let mut key = [b'r'; 9];
    key[1..].copy_from_slice(&revision.to_be_bytes());
    key
}

fn lease_key(lease: LeaseId) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&lease.0.to_be_bytes());
    key
}

fn number_at_end(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Backend(format!("the store is damaged: {what}"))
}

impl Engine {
    /// Opens or makes the database. [`StoreError::InUse`] if another process has it.
    pub fn open(directory: &Path) -> Result<Engine, StoreError> {
        let database = Database::builder(directory)
            .cache_size(BLOCK_CACHE)
            .max_journaling_size(JOURNAL)
            .manual_journal_persist(true)
            .worker_threads(1)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => StoreError::InUse(directory.display().to_string()),
                error => StoreError::Backend(format!("cannot open {}: {error}", directory.display())),
            })?;
        let log = database.keyspace("log", || KeyspaceCreateOptions::default().max_memtable_size(LOG_MEMTABLE))?;
        let values =
            database.keyspace("values", || KeyspaceCreateOptions::default().max_memtable_size(VALUES_MEMTABLE))?;
        Ok(Engine { database, log, values })
    }

    /// Applies operations that the write-ahead log holds. Doing it twice does no harm.
    pub fn apply<'a>(&self, operations: impl Iterator<Item = &'a Operation>) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for operation in operations {
            match operation {
                Operation::Change(change) => self.insert_change(&mut batch, change),
                Operation::Compact(revision) => batch.insert(&self.log, COMPACTED, revision.to_le_bytes()),
                Operation::Grant { lease, expires } => {
                    batch.insert(&self.log, lease_key(*lease), expires.to_le_bytes());
                }
                Operation::Revoke(lease) => batch.remove(&self.log, lease_key(*lease)),
            }
        }
        Ok(batch.commit()?)
    }

    fn insert_change(&self, batch: &mut OwnedWriteBatch, Change { version, value }: &Change) {
        let mut record = Vec::new();
        version.encode_into(&mut record);
        batch.insert(&self.log, version_key(version.revision), record);
        if !version.is_deletion() {
            batch.insert(&self.values, version.revision.to_be_bytes(), value.clone());
        }
    }

    /// Drops versions that no read can reach any more.
    pub fn forget(&self, revisions: &[u64]) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for revision in revisions {
            batch.remove(&self.log, version_key(*revision));
            batch.remove(&self.values, revision.to_be_bytes());
        }
        Ok(batch.commit()?)
    }

    /// Makes everything applied so far durable, and notes that the write-ahead log up to `generation` has nothing to add.
    pub fn checkpoint(&self, generation: u64) -> Result<(), StoreError> {
        self.log.insert(CHECKPOINT, generation.to_le_bytes())?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    /// The generation of the last [`Engine::checkpoint`], 0 before the first.
    pub fn checkpointed(&self) -> Result<u64, StoreError> {
        self.mark(CHECKPOINT)
    }

    /// The revision before which history is gone.
    pub fn compacted(&self) -> Result<u64, StoreError> {
        self.mark(COMPACTED)
    }

    fn mark(&self, name: &[u8]) -> Result<u64, StoreError> {
        let Some(bytes) = self.log.get(name)? else { return Ok(0) };
        Ok(u64::from_le_bytes(bytes[..].try_into().map_err(|_| corrupt("a mark is not a number"))?))
    }

    /// Leases and when they expire.
    pub fn leases(&self) -> Result<Vec<(LeaseId, u64)>, StoreError> {
        self.log.prefix("l").map(|guard| lease_entry(guard.into_inner()?)).collect()
    }

    /// A frozen view.
    pub fn view(&self) -> View {
        View { snapshot: self.database.snapshot(), log: self.log.clone(), values: self.values.clone() }
    }
}

fn lease_entry((key, value): fjall::KvPair) -> Result<(LeaseId, u64), StoreError> {
    let lease = number_at_end(&key).ok_or_else(|| corrupt("a lease without a number"))?;
    let expires = value[..].try_into().map_err(|_| corrupt("a lease without a time"))?;
    Ok((LeaseId(lease as i64), u64::from_le_bytes(expires)))
}

/// The engine at one moment; later compaction does not show.
pub(super) struct View {
    snapshot: Snapshot,
    log: Keyspace,
    values: Keyspace,
}

impl View {
    /// The value written at a revision. A copy: what the engine hands out may hold a whole block in memory.
    pub fn value(&self, revision: u64) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(&self.values, revision.to_be_bytes())?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The versions with a revision in `from..=to`, in order.
    pub fn versions(&self, from: u64, to: u64) -> impl Iterator<Item = Result<Version, StoreError>> + use<> {
        self.snapshot.range(&self.log, version_key(from)..=version_key(to)).map(|guard| {
            let (key, value) = guard.into_inner()?;
            number_at_end(&key)
                .and_then(|revision| Version::decode(revision, &value))
                .ok_or_else(|| corrupt("a version of an unknown form"))
        })
    }
}
