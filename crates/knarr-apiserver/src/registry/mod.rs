//! One implementation of every verb over every resource.
//!
//! A read loads a snapshot of the resource's cache and sends its bytes. A write builds a tree, takes it through the
//! strategy and admission, stores it with compare-and-swap, and is answered once the caches have it: whoever got an
//! answer can read what was written.

pub mod apply;
pub mod collection;
pub mod commit;
pub mod continuation;
pub mod create;
pub mod delete;
mod managed;
mod objects;
pub mod options;
pub mod patch;
pub mod read;
pub mod render;
pub mod scale;
pub mod scale_requests;
pub mod special;
pub mod table;
pub(crate) mod typed;
pub mod update;
pub mod watch;
mod watch_converted;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use knarr_api::status::{Cause, Details, Reason};
use knarr_api::strategy;
use knarr_api::{GroupResource, Object, StatusError, convert, resource};
use knarr_store::{LeaseId, Store, StoreError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::allocation::Allocator;
use crate::authentication::User;
use crate::authorization;
use crate::cache::follow::store_key;
use crate::cache::{Cache, Caches, FieldsOf, Reader};
use crate::chain::request_info::RequestInfo;
use crate::custom_resources;
use crate::metrics::Metrics;
use options::WriteOptions;
pub use table::{Held, Served, Table};

/// How long a read waits for a revision that the server has not seen yet, as upstream.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// Objects, whatever their kind: the only door to the store.
pub struct Registry {
    store: Arc<dyn Store>,
    pub(crate) caches: Arc<Caches>,
    table: ArcSwap<Table>,
    hooks: OnceLock<Hooks>,
    event_lease: Mutex<Option<(tokio::time::Instant, LeaseId)>>,
    /// Why the last write failed, if the store was to blame.
    store_failure: Mutex<Option<String>>,
    meter: OnceLock<Arc<Metrics>>,
    /// Other servers write to the store too, so that a consistent read must ask it how far it is.
    shared_store: bool,
    /// Cancelled when the caches stop following the store.
    pub shutdown: CancellationToken,
}

/// What runs around every write.
#[derive(Clone, Default)]
pub struct Hooks {
    pub admission: admission::Chain,
    pub allocators: Vec<Arc<dyn Allocator>>,
    /// Who may create what a request to change it does not find; the server sets them.
    pub creators: Option<authorization::Chain>,
}

/// A write as its caller asked for it.
#[derive(Clone)]
pub struct Writer {
    pub user: Arc<User>,
    pub options: WriteOptions,
    /// The server's own write: admission does not see it.
    pub unadmitted: bool,
    /// Ownership of fields is already recorded (by an apply).
    pub fields_managed: bool,
    /// The object says of lists or maps that they are empty ([`knarr_api::decode::empties`]).
    pub says_empty: bool,
    /// Texts for `Warning` headers end up here.
    pub warnings: Vec<String>,
}

impl Writer {
    pub fn new(user: Arc<User>) -> Self {
        Writer {
            user,
            options: WriteOptions::default(),
            unadmitted: false,
            fields_managed: false,
            says_empty: false,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn strategy_context(&self) -> strategy::Context {
        strategy::Context {
            username: self.user.name.clone(),
            user_uid: self.user.uid.clone(),
            groups: self.user.groups.clone(),
            extra: self.user.extra.clone(),
            now: jiff::Timestamp::now().as_second(),
        }
    }
}

impl Registry {
    /// Loads everything that is stored and starts to follow the store, until `shutdown`.
    pub fn open(
        store: Arc<dyn Store>,
        shared_store: bool,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<Arc<Self>, StoreError>> {
        Box::pin(async move {
            let caches = Arc::new(Caches::new(first_reader));
            let rows = &resource::built_in().resources;
            let rows = rows.iter().map(|row| {
                let cache = caches.of(&table::stored_resource(row));
                Arc::new(Served::built_in(row, cache, convert::storage_version(&row.gvk())))
            });
            let table = ArcSwap::from_pointee(Table::new(rows.collect()));
            let stream = caches.load(&*store).await?;
            tokio::spawn(follow(caches.clone(), stream, store.clone(), shutdown.clone()));
            let registry = Registry {
                store,
                caches,
                table,
                hooks: OnceLock::new(),
                event_lease: Mutex::new(None),
                store_failure: Mutex::new(None),
                meter: OnceLock::new(),
                shared_store,
                shutdown,
            };
            registry.catch_up().await?;
            let registry = Arc::new(registry);
            custom_resources::start(&registry);
            Ok(registry)
        })
    }

    /// Sets what runs around every write; the first call counts.
    pub fn set_hooks(&self, hooks: Hooks) {
        if self.hooks.set(hooks).is_err() {
            tracing::warn!("the registry's hooks are already set");
        }
    }

    fn hooks(&self) -> &Hooks {
        static NONE: std::sync::LazyLock<Hooks> = std::sync::LazyLock::new(Hooks::default);
        self.hooks.get().unwrap_or(&NONE)
    }

    /// Where writes are measured; the first call counts.
    pub fn set_meter(&self, metrics: Arc<Metrics>) {
        let _ = self.meter.set(metrics);
    }

    /// Where others measure what they do for this registry.
    pub(crate) fn meter(&self) -> Option<&Arc<Metrics>> {
        self.meter.get()
    }

    /// Notes how a write to the store went.
    fn note_store<T>(
        &self,
        operation: &str,
        resource: &GroupResource,
        started: std::time::Instant,
        outcome: &Result<T, StoreError>,
    ) {
        if let Some(metrics) = self.meter.get() {
            metrics.stored(operation, &resource.group, &resource.resource, started);
        }
        let failure = match outcome {
            Err(error @ (StoreError::Backend(_) | StoreError::Closed)) => Some(error.to_string()),
            _ => None,
        };
        let mut last = self.store_failure.lock();
        if failure.is_some() || last.is_some() {
            *last = failure;
        }
    }

    /// Somebody asked for an API that is to go.
    pub fn count_deprecated(&self, info: &RequestInfo, removed: &str) {
        if let Some(metrics) = self.meter.get() {
            metrics.deprecated(info, removed);
        }
    }

    /// Why the store took the last write not, if it did not.
    pub fn last_store_failure(&self) -> Option<String> {
        self.store_failure.lock().clone()
    }

    /// Whether the caches hear of what happens in the store.
    pub fn is_following(&self) -> bool {
        self.caches.is_following()
    }

    /// Whether other servers write to the store too.
    pub fn is_shared(&self) -> bool {
        self.shared_store
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Everything served now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Adds and removes resources in one step.
    pub fn change_table(&self, change: impl Fn(&mut Vec<Arc<Served>>)) {
        self.table.rcu(|table| {
            let mut rows = table.rows.clone();
            change(&mut rows);
            Table::new(rows)
        });
    }

    pub fn served(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Served>> {
        self.table.load().get(group, version, resource).cloned()
    }

    /// The cache of a resource, whatever its version.
    pub fn cache(&self, resource: &GroupResource) -> Arc<Cache> {
        self.caches.of(resource)
    }

    /// The revision a consistent read is as of; every write acknowledged before can be read once this returns.
    pub async fn wait_until_fresh(&self) -> Result<u64, StatusError> {
        if self.shared_store {
            self.catch_up().await.map_err(store_error)?;
        }
        Ok(self.caches.applied())
    }

    /// Waits until the caches are where the store is now.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let revision = self.store.revision().await?;
        if self.caches.applied() < revision.0 {
            // The newest revisions may be of keys that are not ours: then only a progress mark tells.
            self.store.request_progress().await?;
            self.caches.reached(revision.0).await;
        }
        Ok(())
    }

    /// Waits a little for `revision`; upstream's answer where it does not come.
    pub async fn wait_for(&self, revision: u64) -> Result<u64, StatusError> {
        if self.caches.applied() < revision
            && tokio::time::timeout(FRESHNESS_WAIT, self.caches.reached(revision)).await.is_err()
        {
            return Err(too_large(revision, self.caches.applied()));
        }
        Ok(self.caches.applied())
    }

    /// Refuses, where an object is not in the cache, to call one absent that is there and cannot be decrypted.
    pub(super) fn check_absent(&self, served: &Served, key: &str) -> Result<(), StatusError> {
        let key = store_key(&served.cache.resource, key);
        match self.store.unreadable(&key) {
            Some(StoreError::Unreadable { key: found, why }) if *found == key => Err(StatusError::internal(why)),
            _ => Ok(()),
        }
    }

    /// Refuses to list what is in the cache where there is more that cannot be decrypted.
    pub(super) fn check_complete(&self, served: &Served, namespace: &str) -> Result<(), StatusError> {
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        match self.store.unreadable(&store_key(&served.cache.resource, &namespace)) {
            Some(StoreError::Unreadable { key, why }) => {
                Err(StatusError::internal(format!("unable to transform key {key:?}: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Ends every watch politely.
    pub fn close_watches(&self) {
        self.caches.close_watches();
    }
}

/// How a built-in kind's objects are read; what a custom kind's look like is said once its definition is known.
fn first_reader(resource: &GroupResource) -> Reader {
    let Some(row) = resource::built_in().resources.iter().find(|r| r.group_resource() == *resource) else {
        return Reader::default();
    };
    let strategy = strategy::strategy(resource, &row.gvk());
    let fields_of = || Arc::new(move |object: &Object| strategy.selectable_fields(object)) as FieldsOf;
    Reader { shape: None, fields_of: strategy.has_selectable_fields().then(fields_of) }
}

/// Keeps the caches for as long as the server lives: a broken stream is read again from the start of what is kept.
async fn follow(
    caches: Arc<Caches>,
    first: knarr_store::WatchStream,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
) {
    let mut stream = first;
    while let Err(error) = caches.follow(stream, shutdown.clone()).await {
        tracing::error!(%error, "the store's watch ended; reading everything again");
        caches.close_watches();
        stream = loop {
            if shutdown.is_cancelled() {
                return;
            }
            match caches.load(&*store).await {
                Ok(stream) => break stream,
                Err(error) => tracing::error!(%error, "cannot read the store"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
    }
}

/// The store's failure as an answer.
pub(crate) fn store_error(error: StoreError) -> StatusError {
    match error {
        StoreError::Compacted { .. } => {
            StatusError::new(Reason::Expired, "The resourceVersion for the provided list is too old.")
        }
        StoreError::Unreadable { why, .. } => StatusError::internal(why),
        other => StatusError::internal(other),
    }
}

fn too_large(requested: u64, current: u64) -> StatusError {
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    StatusError {
        details: Some(Box::new(Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() })),
        ..StatusError::new(
            Reason::Timeout,
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
        )
    }
}

impl From<crate::cache::TooOld> for StatusError {
    fn from(error: crate::cache::TooOld) -> Self {
        StatusError::new(Reason::Expired, error.to_string())
    }
}
