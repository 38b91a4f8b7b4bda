//! The store that encrypts on the way down and decrypts on the way up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use knarr_store::{
    Event, Expect, KeyValue, LeaseId, Range, Result, Revision, Store, StoreError, WatchBatch, WatchStream,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Rules, Transformer};

/// The group and resource of a key; `None` for a key that holds no object.
pub type Locate = fn(&str) -> Option<(&str, &str)>;

/// What decides, shared with the watches that are open.
struct Inner {
    rules: ArcSwap<Rules>,
    locate: Locate,
    /// What could not be decrypted when it was last read, and why.
    unreadable: Mutex<BTreeMap<String, String>>,
    any_unreadable: AtomicBool,
    /// Counts the times that something unreadable may have become readable: open watches then end, to be begun anew.
    mended: watch::Sender<u64>,
}

/// A store whose values are encrypted as [`Rules`] say.
pub struct EncryptedStore {
    store: Arc<dyn Store>,
    inner: Arc<Inner>,
}

impl Inner {
    fn transformer(&self, key: &str) -> Option<Arc<Transformer>> {
        let (group, resource) = (self.locate)(key)?;
        self.rules.load().of(group, resource).cloned()
    }

    /// Decrypts in place; what cannot be decrypted stays as it is and is noted.
    async fn open(&self, item: &mut KeyValue) {
        let Some(transformer) = self.transformer(&item.key) else { return };
        match transformer.decrypt(&item.value, &item.key).await {
            Ok(plain) => {
                item.value = plain.value.into();
                self.forget(&item.key);
            }
            Err(error) => {
                tracing::error!(key = &*item.key, %error, "stored value cannot be decrypted");
                self.unreadable.lock().insert(item.key.to_string(), error.to_string());
                self.any_unreadable.store(true, Ordering::Release);
            }
        }
    }

    fn forget(&self, key: &str) {
        if self.any_unreadable.load(Ordering::Acquire) {
            let mut unreadable = self.unreadable.lock();
            unreadable.remove(key);
            self.any_unreadable.store(!unreadable.is_empty(), Ordering::Release);
        }
    }

    async fn open_event(&self, event: &mut Event) {
        match event {
            Event::Put { current, previous } => {
                // First the older: the note of what is unreadable must be about the newer.
                if let Some(previous) = previous {
                    self.open(previous).await;
                }
                self.open(current).await;
            }
            Event::Delete { current, previous } => {
                self.open(previous).await;
                self.forget(&current.key);
            }
        }
    }

    async fn open_batch(&self, mut batch: WatchBatch) -> WatchBatch {
        for event in &mut batch.events {
            self.open_event(event).await;
        }
        batch
    }
}

impl EncryptedStore {
    pub fn new(store: Arc<dyn Store>, rules: Rules, locate: Locate) -> Self {
        let inner = Inner {
            rules: ArcSwap::from_pointee(rules),
            locate,
            unreadable: Mutex::default(),
            any_unreadable: AtomicBool::new(false),
            mended: watch::Sender::new(0),
        };
        EncryptedStore { store, inner: Arc::new(inner) }
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.inner.rules.load_full()
    }

    /// Other rules from now on.
    pub fn replace_rules(&self, rules: Rules) -> BoxFuture<'_, ()> {
        self.inner.rules.store(Arc::new(rules));
        self.mend()
    }

    /// Looks whether something that could not be read can be read now; if so, open watches end with an error, and who begins them
    /// anew reads everything.
    pub fn mend(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.mended())
    }

    async fn mended(&self) {
        let keys: Vec<String> = self.inner.unreadable.lock().keys().cloned().collect();
        for key in keys {
            let Some(transformer) = self.inner.transformer(&key) else { continue };
            let Ok(Some(item)) = self.store.get(&key).await else { continue };
            if transformer.decrypt(&item.value, &key).await.is_ok() {
                self.inner.mended.send_modify(|n| *n += 1);
                return;
            }
        }
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let mut item = self.store.get(key).await?;
        if let Some(item) = &mut item {
            self.inner.open(item).await;
        }
        Ok(item)
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Range> {
        let mut range = self.store.range(prefix, after, limit, at).await?;
        for item in &mut range.items {
            self.inner.open(item).await;
        }
        Ok(range)
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Revision> {
        let Some(transformer) = self.inner.transformer(key) else {
            return self.store.put(key, value, expect, lease).await;
        };
        let sealed = transformer.encrypt(&value, key).await;
        let sealed = sealed.map_err(|e| StoreError::Unreadable { key: key.into(), why: e.to_string() })?;
        self.store.put(key, sealed.into(), expect, lease).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, KeyValue)> {
        let (revision, mut gone) = self.store.delete(key, expect).await?;
        self.inner.open(&mut gone).await;
        self.inner.forget(key);
        Ok((revision, gone))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let mut mended = self.inner.mended.subscribe();
        mended.mark_unchanged();
        let inner = self.inner.clone();
        let batches = self.store.watch(prefix, after).await?;
        let opened = batches.then(move |batch| {
            let inner = inner.clone();
            async move { Ok(inner.open_batch(batch?).await) }
        });
        let opened = opened.chain(futures::stream::once(async { Err(StoreError::Closed) }));
        let ended = futures::stream::once(async move {
            match mended.changed().await {
                Ok(()) => Err(StoreError::Backend("what could not be decrypted can be now".into())),
                // The store is gone, and with it the watch.
                Err(_) => std::future::pending().await,
            }
        });
        let mut over = false;
        let until_error = move |item: &Result<WatchBatch>| {
            let goes_on = !over;
            over = item.is_err();
            std::future::ready(goes_on)
        };
        Ok(futures::stream::select(opened, ended).take_while(until_error).boxed())
    }

    fn check(&self) -> Result<()> {
        self.store.check()
    }

    async fn request_progress(&self) -> Result<()> {
        self.store.request_progress().await
    }

    async fn revision(&self) -> Result<Revision> {
        self.store.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.store.compact(revision).await
    }

    async fn grant_lease(&self, ttl_seconds: u32) -> Result<LeaseId> {
        self.store.grant_lease(ttl_seconds).await
    }

    fn unreadable(&self, prefix: &str) -> Option<StoreError> {
        if !self.inner.any_unreadable.load(Ordering::Acquire) {
            return None;
        }
        let unreadable = self.inner.unreadable.lock();
        let (key, why) = unreadable.range(prefix.to_string()..).next().filter(|(key, _)| key.starts_with(prefix))?;
        Some(StoreError::Unreadable { key: key.as_str().into(), why: why.clone() })
    }

    async fn is_stale(&self, key: &str) -> bool {
        let Some(transformer) = self.inner.transformer(key) else { return false };
        let Ok(Some(item)) = self.store.get(key).await else { return false };
        transformer.decrypt(&item.value, key).await.is_ok_and(|plain| plain.stale)
    }
}
