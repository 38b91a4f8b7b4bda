//! One metadata watch on each deletable resource, kept in step with what the API serves.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use knarr_client::WorkQueue;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::graph::{Graph, Work};
use crate::discovery::{self, Discovered};

/// How often what the API serves is asked for when nothing says that it changed (an aggregated API may change silently).
const REDISCOVERY: Duration = Duration::from_secs(30);
/// How soon discovery shows what an event announced.
const SETTLING: Duration = Duration::from_secs(1);
/// The time until discovery is tried again after it failed at start.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Monitors {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    resources: watch::Sender<Vec<Arc<Discovered>>>,
    unsynced: Arc<watch::Sender<usize>>,
    /// Kinds may have come or gone.
    kinds_changed: Arc<Notify>,
    running: Vec<(Arc<Discovered>, CancellationToken)>,
}

impl Monitors {
    pub fn new(
        client: Client,
        graph: Arc<Mutex<Graph>>,
        queue: WorkQueue<Work>,
        resources: watch::Sender<Vec<Arc<Discovered>>>,
        unsynced: watch::Sender<usize>,
    ) -> Self {
        graph.lock().set_queue(queue);
        let unsynced = Arc::new(unsynced);
        Monitors { client, graph, resources, unsynced, kinds_changed: Arc::new(Notify::new()), running: Vec::new() }
    }

    /// Starts and stops watches to match discovery. False if nothing could be discovered.
    async fn refresh(&mut self, tasks: &mut JoinSet<()>) -> bool {
        let (found, failures) = discovery::preferred_resources(&self.client).await;
        if found.is_empty() {
            return false;
        }
        let wanted: Vec<_> = found.into_iter().filter(is_collected).map(Arc::new).collect();
        // What could not be discovered may be down for a moment: its watches stay.
        if failures.is_empty() {
            self.stop_all_but(&wanted);
        }
        let new: Vec<_> =
            wanted.into_iter().filter(|w| self.running.iter().all(|(known, _)| known.kind != w.kind)).collect();
        let count = new.len();
        self.unsynced.send_modify(|left| *left = if *left == usize::MAX { count } else { *left + count });
        for resource in new {
            let stop = CancellationToken::new();
            self.running.push((resource.clone(), stop.clone()));
            tasks.spawn(self.watch(resource, stop));
        }
        self.resources.send_replace(self.running.iter().map(|(resource, _)| resource.clone()).collect());
        true
    }

    fn stop_all_but(&mut self, wanted: &[Arc<Discovered>]) {
        self.running.retain(|(known, stop)| {
            let served = wanted.iter().any(|resource| resource.kind == known.kind);
            if !served {
                stop.cancel();
            }
            served
        });
    }

    fn watch(&self, resource: Arc<Discovered>, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource.kind);
        let graph = self.graph.clone();
        let synced = FirstSync { unsynced: self.unsynced.clone(), done: false };
        let kinds_changed = announces_kinds(&resource.kind).then(|| self.kinds_changed.clone());
        async move {
            let follow = follow(api, resource.clone(), graph.clone(), synced, kinds_changed);
            stop.run_until_cancelled(follow).await;
            let mut graph = graph.lock();
            for uid in graph.uids_of(&resource) {
                graph.remove(&uid);
            }
        }
    }
}

/// Runs until `shutdown`.
pub(super) async fn run(mut monitors: Monitors, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let kinds_changed = monitors.kinds_changed.clone();
    let keep_in_step = async {
        while !monitors.refresh(&mut tasks).await {
            tokio::time::sleep(RETRY).await;
        }
        loop {
            tokio::select! {
                () = kinds_changed.notified() => tokio::time::sleep(SETTLING).await,
                () = tokio::time::sleep(REDISCOVERY) => {}
            }
            monitors.refresh(&mut tasks).await;
        }
    };
    shutdown.run_until_cancelled(keep_in_step).await;
    tasks.shutdown().await;
}

fn is_collected(resource: &Discovered) -> bool {
    let is_event = resource.kind.kind == "Event" && matches!(resource.kind.group.as_str(), "" | "events.k8s.io");
    !is_event && ["list", "watch", "delete"].iter().all(|verb| resource.can(verb))
}

fn announces_kinds(kind: &ApiResource) -> bool {
    matches!(kind.kind.as_str(), "CustomResourceDefinition" | "APIService")
}

/// Counts a resource as listed once, at its first list or when its watch is given up.
struct FirstSync {
    unsynced: Arc<watch::Sender<usize>>,
    done: bool,
}

impl FirstSync {
    fn done(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.unsynced.send_modify(|left| *left = left.saturating_sub(1));
        }
    }
}

impl Drop for FirstSync {
    fn drop(&mut self) {
        self.done();
    }
}

async fn follow(
    api: Api<PartialObjectMeta<DynamicObject>>,
    resource: Arc<Discovered>,
    graph: Arc<Mutex<Graph>>,
    mut synced: FirstSync,
    kinds_changed: Option<Arc<Notify>>,
) {
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut unlisted = HashSet::new();
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Init) => unlisted = graph.lock().uids_of(&resource),
            Ok(watcher::Event::InitApply(object)) => {
                object.metadata.uid.as_ref().map(|uid| unlisted.remove(uid));
                graph.lock().upsert(&resource, object.metadata);
            }
            Ok(watcher::Event::InitDone) => {
                let mut graph = graph.lock();
                unlisted.drain().for_each(|uid| graph.remove(&uid));
                drop(graph);
                synced.done();
            }
            Ok(watcher::Event::Apply(object)) => {
                graph.lock().upsert(&resource, object.metadata);
                kinds_changed.iter().for_each(|changed| changed.notify_one());
            }
            Ok(watcher::Event::Delete(object)) => {
                object.metadata.uid.iter().for_each(|uid| graph.lock().remove(uid));
                kinds_changed.iter().for_each(|changed| changed.notify_one());
            }
            Err(error) => {
                tracing::debug!(resource = resource.kind.plural, %error, "watch interrupted");
                // A resource that cannot be listed must not keep all others from being collected.
                synced.done();
            }
        }
    }
}
