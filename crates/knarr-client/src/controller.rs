//! The harness of a control loop: it watches, maps events to keys, queues them, works on them, backs off and stops.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::informer::{Event, Informer, Watched};
use crate::queue::WorkQueue;

/// What follows a reconcile that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Another look after this long, whatever happens.
    RequeueAfter(Duration),
}

/// A control loop: compares what is wanted for a key with what is, and acts on the difference.
#[async_trait::async_trait]
pub trait Reconciler: Send + Sync + 'static {
    type Key: Key;

    /// The name in logs and metrics.
    fn name(&self) -> &'static str;

    /// One look at one key. It never runs twice at once for the same key. An error backs off and retries.
    async fn reconcile(&self, key: &Self::Key) -> Result<Action, Error>;
}

/// Hears of every reconcile, for metrics.
pub trait Observer: Send + Sync + 'static {
    fn reconciled(&self, controller: &'static str, took: Duration, failed: bool, queued: usize);
}

/// What a key may be: of few types, for the harness is compiled once for each of them (and not for each reconciler).
pub trait Key: Clone + Eq + Hash + Send + Sync + Debug + 'static {}

impl<K: Clone + Eq + Hash + Send + Sync + Debug + 'static> Key for K {}

/// A reconciler with its sources and its queue; [`run`](Controller::run) sets it going.
pub struct Controller<K: Key> {
    reconciler: Arc<dyn Reconciler<Key = K>>,
    queue: WorkQueue<K>,
    workers: usize,
    observer: Option<Arc<dyn Observer>>,
    /// Each waits until its cache is filled.
    caches: Vec<BoxFuture<'static, ()>>,
    /// Each turns the events of one informer into keys, until the informer ends.
    sources: Vec<BoxFuture<'static, ()>>,
}

impl<K: Key> Controller<K> {
    pub fn new(reconciler: impl Reconciler<Key = K>) -> Self {
        Self::shared(Arc::new(reconciler))
    }

    /// For a reconciler that others hold too.
    pub fn shared(reconciler: Arc<dyn Reconciler<Key = K>>) -> Self {
        Self::with_queue(reconciler, WorkQueue::new())
    }

    /// For a reconciler that adds keys to its own queue.
    pub fn with_queue(reconciler: Arc<dyn Reconciler<Key = K>>, queue: WorkQueue<K>) -> Self {
        Controller { reconciler, queue, workers: 5, observer: None, caches: Vec::new(), sources: Vec::new() }
    }

    /// Queues the keys that `keys_of` gives for each event of `informer`; the workers wait for its first list.
    #[must_use]
    pub fn watch<O: Watched>(
        mut self,
        informer: &Informer<O>,
        mut keys_of: impl FnMut(&Event<O>) -> Vec<K> + Send + 'static,
    ) -> Self {
        self = self.after(informer);
        let (informer, queue) = (informer.clone(), self.queue.clone());
        self.sources.push(Box::pin(async move {
            let mut events = informer.subscribe();
            while let Some(event) = events.recv().await {
                for key in keys_of(&event) {
                    queue.add(key);
                }
            }
        }));
        self
    }

    /// The workers wait for the first list of `informer`, which the reconciler reads.
    #[must_use]
    pub fn after<O: Watched>(mut self, informer: &Informer<O>) -> Self {
        let informer = informer.clone();
        self.caches.push(Box::pin(async move { informer.synced().await }));
        self
    }

    /// How many keys may be in work at once.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    #[must_use]
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The queue, for keys that come from elsewhere than an informer.
    pub fn queue(&self) -> WorkQueue<K> {
        self.queue.clone()
    }

    /// Works until `shutdown`, then lets the reconciles under way finish and returns.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Controller { reconciler, queue, workers, observer, caches, sources } = self;
            let mut tasks: JoinSet<()> = JoinSet::new();
            for source in sources {
                tasks.spawn(until(shutdown.clone(), source));
            }
            let ready = shutdown.run_until_cancelled(futures::future::join_all(caches)).await.is_some();
            if ready {
                for _ in 0..workers {
                    tasks.spawn(work(reconciler.clone(), queue.clone(), observer.clone(), shutdown.clone()));
                }
            }
            shutdown.cancelled().await;
            queue.close();
            while tasks.join_next().await.is_some() {}
        })
    }
}

fn until(shutdown: CancellationToken, source: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        shutdown.run_until_cancelled(source).await;
    })
}

fn work<K: Key>(
    reconciler: Arc<dyn Reconciler<Key = K>>,
    queue: WorkQueue<K>,
    observer: Option<Arc<dyn Observer>>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        while let Some(key) = queue.get().await {
            if shutdown.is_cancelled() {
                return;
            }
            let start = Instant::now();
            let result = reconciler.reconcile(&key).await;
            if let Some(observer) = &observer {
                observer.reconciled(reconciler.name(), start.elapsed(), result.is_err(), queue.len());
            }
            settle(&*reconciler, &queue, &key, result);
        }
    })
}

/// What becomes of a key that was looked at.
fn settle<K: Key>(reconciler: &dyn Reconciler<Key = K>, queue: &WorkQueue<K>, key: &K, result: Result<Action, Error>) {
    match result {
        Ok(action) => {
            queue.forget(key);
            if let Action::RequeueAfter(delay) = action {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            tracing::debug!(controller = reconciler.name(), ?key, %error, "will try again");
            queue.add_rate_limited(key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
