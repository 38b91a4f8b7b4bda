//! What is in the namespaces that have quotas: a watch on each resource that a quota of the namespace counts, ended with the last
//! such quota. Of an object only what it uses is kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use knarr_api::GroupResource;
use knarr_api::quantity::Quantity;
use knarr_api::quota::{self, Counted, Quota, Usage};
use knarr_client::follow::{self, Change, Source};
use knarr_client::{Error, Informer, ObjectKey, Selection, WorkQueue};
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{discovery, meta};

/// How soon quotas are counted again after something was seen to go.
const GOING: Duration = Duration::from_millis(50);
/// How soon after something came, which admission has counted already.
const COMING: Duration = Duration::from_secs(1);
/// How long to wait for a first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

pub(super) struct Census {
    client: Client,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    /// Where resources are served, as far as asked.
    kinds: Mutex<HashMap<GroupResource, ApiResource>>,
    sections: Mutex<HashMap<(String, GroupResource), Section>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

type Objects = Arc<RwLock<HashMap<String, Counted>>>;

/// One resource in one namespace.
struct Section {
    objects: Objects,
    listed: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Drop for Section {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Census {
    pub fn new(
        client: Client,
        quotas: Informer<ResourceQuota>,
        queue: WorkQueue<ObjectKey>,
        shutdown: CancellationToken,
    ) -> Self {
        let (kinds, sections) = Default::default();
        Census { client, quotas, queue, kinds, sections, tasks: TaskTracker::new(), shutdown }
    }

    /// What the quota's objects use of what it limits. A name that no served resource is counted under is left out.
    pub async fn usage(&self, namespace: &str, quota: &Quota) -> Result<Usage, Error> {
        let (mut used, now) = (Usage::new(), Timestamp::now());
        for resource in quota.resources() {
            let Some(kind) = self.kind(&resource).await else { continue };
            let objects = self.section(namespace, &resource, kind).await?;
            let objects = objects.read();
            for name in quota.hard.keys().filter(|name| quota::counts(name).as_ref() == Some(&resource)) {
                let amounts = objects.values().filter(|counted| quota.selects(counted));
                let amounts = amounts.filter_map(|counted| counted.amount(name, now));
                used.insert(name.clone(), amounts.fold(Quantity::from_i64(0), |sum, amount| sum + amount));
            }
        }
        Ok(used)
    }

    async fn kind(&self, resource: &GroupResource) -> Option<ApiResource> {
        if let Some(known) = self.kinds.lock().get(resource) {
            return Some(known.clone());
        }
        let (found, _) = discovery::preferred_resources(&self.client).await;
        let found = found.into_iter().find(|served| {
            served.namespaced && served.kind.group == resource.group && served.kind.plural == resource.resource
        })?;
        self.kinds.lock().insert(resource.clone(), found.kind.clone());
        Some(found.kind)
    }

    /// The objects of a resource, once listed.
    async fn section(&self, namespace: &str, resource: &GroupResource, kind: ApiResource) -> Result<Objects, Error> {
        let (objects, mut listed) = {
            let mut sections = self.sections.lock();
            let place = (namespace.to_string(), resource.clone());
            let section = sections.entry(place).or_insert_with(|| self.open(namespace, resource, &kind));
            (section.objects.clone(), section.listed.clone())
        };
        match tokio::time::timeout(FIRST_LIST, listed.wait_for(|listed| *listed)).await {
            Ok(Ok(_)) => Ok(objects),
            _ => Err(Error::other(format!("{resource} of namespace {namespace} could not be listed"))),
        }
    }

    fn open(&self, namespace: &str, resource: &GroupResource, kind: &ApiResource) -> Section {
        let objects = Objects::default();
        let (report, listed) = watch::channel(false);
        let stop = self.shutdown.child_token();
        let notice = Notice { quotas: self.quotas.clone(), queue: self.queue.clone(), namespace: namespace.into() };
        let source = Source::of::<DynamicObject>(kind, Selection::namespace(namespace));
        let source = if needs_content(resource) { source } else { source.metadata() };
        let mut follower = Follower {
            resource: resource.clone(),
            objects: objects.clone(),
            listing: HashMap::new(),
            listed: report,
            notice,
        };
        let follow = follow::follow(self.client.clone(), source, Box::new(move |change| follower.hear(change)));
        let stopping = stop.clone();
        self.tasks.spawn(async move {
            stopping.run_until_cancelled(follow).await;
        });
        Section { objects, listed, stop }
    }

    /// Ends the watches that no quota needs any more.
    pub fn release_unneeded(&self) {
        let mut needed = HashSet::new();
        for object in self.quotas.list() {
            let hard = object.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            let names = hard.into_iter().flat_map(|hard| hard.keys());
            let namespace = meta::namespace_of(&*object);
            needed.extend(names.filter_map(|name| quota::counts(name)).map(|of| (namespace.to_string(), of)));
        }
        self.sections.lock().retain(|place, _| needed.contains(place));
    }

    /// Returns when every watch has ended, after shutdown.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Tells the quotas of a namespace that their usage may have changed.
struct Notice {
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    namespace: String,
}

impl Notice {
    fn send(&self, delay: Duration) {
        for quota in self.quotas.in_namespace(&self.namespace) {
            self.queue.add_after(ObjectKey::of(&*quota), delay);
        }
    }
}

/// Whether it takes more than its existence to say what an object uses.
fn needs_content(resource: &GroupResource) -> bool {
    match &*resource.group {
        "" => matches!(&*resource.resource, "pods" | "services" | "persistentvolumeclaims"),
        "resource.k8s.io" => resource.resource == "resourceclaims",
        _ => false,
    }
}

struct Follower {
    resource: GroupResource,
    objects: Objects,
    /// What the list under way has named.
    listing: HashMap<String, Counted>,
    listed: watch::Sender<bool>,
    notice: Notice,
}

impl Follower {
    fn hear(&mut self, change: Change<'_>) {
        match change {
            Change::Relisting => self.listing = HashMap::new(),
            Change::Listed(object) => {
                let (name, counted) = self.count(object);
                self.listing.insert(name, counted);
            }
            Change::Settled => {
                *self.objects.write() = std::mem::take(&mut self.listing);
                self.listed.send_replace(true);
                self.notice.send(GOING);
            }
            Change::Applied(object) => {
                let (name, now) = self.count(object);
                if let Some(lapses) = now.lapses {
                    let left = Duration::try_from(lapses.duration_since(Timestamp::now())).unwrap_or_default();
                    self.notice.send(left + COMING);
                }
                let before = self.objects.write().insert(name, now.clone());
                if before.as_ref() != Some(&now) {
                    self.notice.send(if before.is_some() { GOING } else { COMING });
                }
            }
            Change::Deleted(object) => {
                self.objects.write().remove(&self.count(object).0);
                self.notice.send(GOING);
            }
            Change::Interrupted(interruption) => {
                tracing::debug!(resource = %self.resource, %interruption, "watch interrupted");
            }
        }
    }

    /// An object's name and what it uses. One that cannot be read as a tree counts for its existence.
    fn count(&self, object: &str) -> (String, Counted) {
        let read = serde_json::from_str::<serde_json::Value>(object);
        let tree = read.unwrap_or_else(|_| serde_json::json!({ "metadata": follow::metadata_of(object).ok() }));
        let name = tree["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, Counted::of(&self.resource, &tree))
    }
}
