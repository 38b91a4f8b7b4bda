//! Node ports: of one server in its memory, of servers that share a store in a bitmap there, changed by compare-and-swap.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::StatusError;
use knarr_store::{Expect, Store, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::ranges::PortRange;

/// Where servers that share a store keep which ports are taken; no object's key begins so.
const KEY: &str = "/knarr/servicenodeports";
/// Lost races before giving up.
const ATTEMPTS: usize = 100;

pub struct NodePorts {
    pub range: PortRange,
    kept: Kept,
}

enum Kept {
    Here(Mutex<Pool>),
    Shared(Arc<dyn Store>),
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    range: String,
    /// The bitmap, in base64.
    taken: String,
}

impl NodePorts {
    /// `store` is the one that other servers share; `None` where there is no other.
    pub fn new(range: PortRange, store: Option<Arc<dyn Store>>) -> Self {
        let kept = match store {
            Some(store) => Kept::Shared(store),
            None => Kept::Here(Mutex::new(Pool::new(range.size(), range.band()))),
        };
        NodePorts { range, kept }
    }

    /// Takes a port, by offset; whether it was free.
    pub async fn take(&self, offset: u64) -> Result<bool, StatusError> {
        let taken = self.change(|pool| pool.take(offset).then_some(())).await?;
        Ok(taken.is_some())
    }

    /// Whether a port is taken, by offset.
    pub async fn is_taken(&self, offset: u64) -> Result<bool, StatusError> {
        let mut taken = false;
        self.change(|pool| -> Option<()> {
            taken = pool.is_taken(offset);
            None
        })
        .await?;
        Ok(taken)
    }

    /// Takes any port that is free.
    pub async fn take_any(&self) -> Result<Option<u64>, StatusError> {
        self.change(Pool::take_any).await
    }

    pub async fn release(&self, offset: u64) {
        let released = self.change(|pool| pool.release(offset).then_some(())).await;
        if let Err(error) = released {
            tracing::warn!(%error, offset, "cannot release a node port; it is tried again later");
        }
    }

    /// Takes all that are used already.
    pub async fn load(&self, used: &HashSet<u64>) -> Result<(), StatusError> {
        let changed = |pool: &mut Pool| used.iter().fold(false, |changed, offset| pool.take(*offset) | changed);
        self.change(|pool| changed(pool).then_some(())).await.map(|_| ())
    }

    /// What is taken and nobody uses.
    pub async fn leaked(&self, used: &HashSet<u64>) -> Result<HashSet<u64>, StatusError> {
        let mut leaked = HashSet::new();
        self.change(|pool| -> Option<()> {
            leaked = pool.taken().filter(|offset| !used.contains(offset)).collect();
            None
        })
        .await?;
        Ok(leaked)
    }

    /// Takes a step on what is taken; nothing is written where the step answers `None`.
    async fn change<T>(&self, mut step: impl FnMut(&mut Pool) -> Option<T>) -> Result<Option<T>, StatusError> {
        let store = match &self.kept {
            Kept::Here(pool) => return Ok(step(&mut pool.lock())),
            Kept::Shared(store) => store,
        };
        for _ in 0..ATTEMPTS {
            let current = store.get(KEY).await.map_err(StatusError::internal)?;
            let mut pool = current.as_ref().and_then(|kv| self.read(&kv.value)).unwrap_or_else(|| self.empty());
            let Some(outcome) = step(&mut pool) else { return Ok(None) };
            let expect = current.map_or(Expect::Absent, |kv| Expect::Revision(kv.mod_revision));
            match store.put(KEY, self.write(&pool)?.into(), expect, None).await {
                Ok(_) => return Ok(Some(outcome)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(StatusError::internal(error)),
            }
        }
        Err(StatusError::internal("too many servers ask for node ports at once"))
    }

    fn empty(&self) -> Pool {
        Pool::new(self.range.size(), self.range.band())
    }

    /// `None` for what was written for another range: what services have is taken again at start.
    fn read(&self, bytes: &[u8]) -> Option<Pool> {
        let stored: Stored =
            serde_json::from_slice(bytes).ok().filter(|stored: &Stored| stored.range == self.range.shown())?;
        let bits = STANDARD.decode(stored.taken).ok()?;
        let mut pool = self.empty();
        let is_set = |offset: &u64| bits.get(*offset as usize / 8).is_some_and(|byte| byte & (1 << (offset % 8)) != 0);
        for offset in (0..self.range.size()).filter(is_set) {
            pool.take(offset);
        }
        Some(pool)
    }

    fn write(&self, pool: &Pool) -> Result<Vec<u8>, StatusError> {
        let mut bits = vec![0u8; self.range.size().div_ceil(8) as usize];
        for offset in pool.taken() {
            bits[offset as usize / 8] |= 1 << (offset % 8);
        }
        let stored = Stored { range: self.range.shown(), taken: STANDARD.encode(bits) };
        serde_json::to_vec(&stored).map_err(StatusError::internal)
    }
}
