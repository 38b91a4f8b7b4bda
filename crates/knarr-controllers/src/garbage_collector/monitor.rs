//! One metadata watch on each deletable resource, kept in step with what the API serves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use knarr_client::follow::{self, Change, Source, metadata_of};
use knarr_client::{Selection, WorkQueue};
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
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
        let source = Source::of::<DynamicObject>(&resource.kind, Selection::default()).metadata();
        let graph = self.graph.clone();
        let mut follower = Follower {
            resource: resource.clone(),
            graph: graph.clone(),
            synced: FirstSync { unsynced: self.unsynced.clone(), done: false },
            kinds_changed: announces_kinds(&resource.kind).then(|| self.kinds_changed.clone()),
            unlisted: HashSet::new(),
        };
        let follow = follow::follow(self.client.clone(), source, Box::new(move |change| follower.hear(change)));
        async move {
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

/// Brings what is heard of one resource into the graph.
struct Follower {
    resource: Arc<Discovered>,
    graph: Arc<Mutex<Graph>>,
    synced: FirstSync,
    kinds_changed: Option<Arc<Notify>>,
    /// What the graph holds of the resource and the list under way has not named.
    unlisted: HashSet<String>,
}

impl Follower {
    fn hear(&mut self, change: Change<'_>) {
        match change {
            Change::Relisting => self.unlisted = self.graph.lock().uids_of(&self.resource),
            Change::Listed(object) => {
                let Some(metadata) = self.read(object) else { return };
                metadata.uid.as_ref().map(|uid| self.unlisted.remove(uid));
                self.graph.lock().upsert(&self.resource, metadata);
            }
            Change::Settled => {
                let mut graph = self.graph.lock();
                self.unlisted.drain().for_each(|uid| graph.remove(&uid));
                drop(graph);
                self.synced.done();
            }
            Change::Applied(object) => {
                let Some(metadata) = self.read(object) else { return };
                self.graph.lock().upsert(&self.resource, metadata);
                self.announce();
            }
            Change::Deleted(object) => {
                let Some(metadata) = self.read(object) else { return };
                metadata.uid.iter().for_each(|uid| self.graph.lock().remove(uid));
                self.announce();
            }
            Change::Interrupted(interruption) => {
                tracing::debug!(resource = self.resource.kind.plural, %interruption, "watch interrupted");
                // A resource that cannot be listed must not keep all others from being collected.
                self.synced.done();
            }
        }
    }

    fn announce(&self) {
        self.kinds_changed.iter().for_each(|changed| changed.notify_one());
    }

    fn read(&self, object: &str) -> Option<ObjectMeta> {
        let unread = |error| tracing::warn!(resource = self.resource.kind.plural, %error, "metadata cannot be read");
        metadata_of(object).map_err(unread).ok()
    }
}
