//! The task behind an informer: LIST, then WATCH, for ever, into the cache.

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::Deserialize;

use super::cache::Cache;
use super::{ObjectKey, Selection, Watched};

/// Runs until dropped. Errors are logged and tried again after a back-off; the cache keeps its last state meanwhile.
pub(super) async fn run<K: Watched>(
    client: kube::Client,
    selection: Selection,
    cache: Arc<RwLock<Cache<K>>>,
    synced: tokio::sync::watch::Sender<bool>,
) {
    let _close = CloseOnDrop(cache.clone());
    let config = watcher::Config {
        field_selector: selection.field_selector,
        label_selector: selection.label_selector,
        ..watcher::Config::default()
    };
    let api: Api<Scoped<K>> = match &selection.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &()),
        None => Api::all_with(client, &()),
    };
    let mut changes = pin!(watcher(api, config).backoff(RetryDelay::default()));
    let mut relist = HashSet::new();
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Init) => relist = cache.read().keys().into_iter().collect(),
            Ok(watcher::Event::InitApply(object)) => {
                relist.remove(&ObjectKey::of(&object.0));
                cache.write().apply(stripped(object.0));
            }
            Ok(watcher::Event::InitDone) => {
                for gone in relist.drain() {
                    cache.write().remove(gone, None);
                }
                synced.send_replace(true);
            }
            Ok(watcher::Event::Apply(object)) => cache.write().apply(stripped(object.0)),
            Ok(watcher::Event::Delete(object)) => {
                cache.write().remove(ObjectKey::of(&object.0), Some(stripped(object.0)))
            }
            Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted"),
        }
    }
}

/// Ends the subscriptions when the watch ends, however it ends.
struct CloseOnDrop<K: Watched>(Arc<RwLock<Cache<K>>>);

impl<K: Watched> Drop for CloseOnDrop<K> {
    fn drop(&mut self) {
        self.0.write().close();
    }
}

fn stripped<K: Watched>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// A `K` whose scope is decided at run time, so that one informer type serves both scopes.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
struct Scoped<K>(K);

impl<K: Watched> Resource for Scoped<K> {
    type DynamicType = ();
    type Scope = kube::core::DynamicResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }
    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }
    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }
    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// Waits between failed tries: short at first, since at start the API server comes up beside us.
#[derive(Default)]
pub(crate) struct RetryDelay {
    failures: u32,
}

impl Iterator for RetryDelay {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(50 << self.failures.min(8));
        self.failures += 1;
        Some(delay.min(Duration::from_secs(10)))
    }
}

impl Backoff for RetryDelay {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
