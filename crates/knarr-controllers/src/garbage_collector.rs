//! Garbage collection by owner references: what is left of an owner goes with it, or waits for it, or is let go.
//!
//! [`graph`] knows who owns whom, [`monitor`] keeps it current with a metadata watch on every deletable resource, custom ones too,
//! and this module acts: before anything is deleted, the object and its doubtful owners are read live, since a watch may lag.

mod graph;
mod monitor;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use knarr_client::error::found;
use knarr_client::{Action, Controller, Error, Reconciler, WorkQueue};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::context::Context;
use crate::discovery::Discovered;
use graph::{FOREGROUND, Graph, Identity, ORPHAN, Work};

const CONTROLLER: &str = "generic-garbage-collector";

pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let graph = Arc::new(Mutex::new(Graph::default()));
    let (resources, known) = watch::channel(Vec::new());
    let (unsynced, synced) = watch::channel(usize::MAX);
    let client = context.client(CONTROLLER);
    let collector = Arc::new(Collector { graph: graph.clone(), client: client.clone(), known, synced });
    let monitors = monitor::run(
        monitor::Monitors::new(context.informers.client(), graph, queue.clone(), resources, unsynced),
        context.shutdown.clone(),
    );
    let work = Controller::with_queue(collector, queue).workers(20).run(context.shutdown.clone());
    tokio::join!(monitors, work);
}

struct Collector {
    graph: Arc<Mutex<Graph>>,
    client: Client,
    /// The resources that are watched.
    known: watch::Receiver<Vec<Arc<Discovered>>>,
    /// How many resources have not been listed yet.
    synced: watch::Receiver<usize>,
}

/// Owners of an object by what they mean for it.
#[derive(Default)]
struct Owners {
    solid: usize,
    dangling: Vec<String>,
    waiting: Vec<String>,
}

#[async_trait::async_trait]
impl Reconciler for Collector {
    type Key = Work;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, work: &Work) -> Result<Action, Error> {
        // An owner that has not been listed yet looks as if it were gone; an error means shutdown.
        let _ = self.synced.clone().wait_for(|left| *left == 0).await;
        match work {
            Work::Delete(uid) => self.attempt_to_delete(uid).await?,
            Work::Orphan(uid) => self.orphan_dependents(uid).await?,
        }
        Ok(Action::Done)
    }
}

impl Collector {
    async fn attempt_to_delete(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.graph.lock().identity(uid) else { return Ok(()) };
        let Some(resource) = node.resource.clone() else { return self.verify_virtual(uid, &node).await };
        let latest = self.live(&resource, &node.namespace, &node.name).await?;
        let Some(latest) = latest.filter(|latest| latest.uid.as_deref() == Some(uid)) else {
            // Gone; the watch will say so, and says it to the dependents.
            return Ok(());
        };
        let waits_for_dependents = has_finalizer(&latest, FOREGROUND) && latest.deletion_timestamp.is_some();
        if waits_for_dependents {
            return self.finish_foreground(uid, &resource, &latest).await;
        }
        if latest.deletion_timestamp.is_some() {
            return Ok(());
        }
        let owners = self.classify(&latest).await?;
        if owners.solid > 0 {
            return self.drop_owners(&resource, &latest, &[owners.dangling, owners.waiting].concat()).await;
        }
        if owners.dangling.is_empty() && owners.waiting.is_empty() {
            return Ok(());
        }
        let waited_for = !owners.waiting.is_empty() && self.graph.lock().has_dependents(uid);
        if waited_for && self.graph.lock().may_close_a_circle(uid) {
            return self.break_circle(uid, &resource, &latest).await;
        }
        let policy = match () {
            () if waited_for => PropagationPolicy::Foreground,
            () if has_finalizer(&latest, ORPHAN) => PropagationPolicy::Orphan,
            () if has_finalizer(&latest, FOREGROUND) => PropagationPolicy::Foreground,
            () => PropagationPolicy::Background,
        };
        self.delete(&resource, &latest, policy).await
    }

    /// An object that its owner waits for, and that would wait for what waits for it: it goes too, but its owners wait no more.
    async fn break_circle(&self, uid: &str, resource: &Discovered, latest: &ObjectMeta) -> Result<(), Error> {
        let mut owners = latest.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch_metadata(resource, latest, serde_json::json!({ "ownerReferences": owners })).await?;
        let (namespace, name) = (latest.namespace.as_deref(), latest.name.as_deref());
        let latest = self.live(resource, namespace.unwrap_or_default(), name.unwrap_or_default()).await?;
        match latest.filter(|latest| latest.uid.as_deref() == Some(uid)) {
            Some(latest) => self.delete(resource, &latest, PropagationPolicy::Foreground).await,
            None => Ok(()),
        }
    }

    /// An owner that was named but never seen: if it is not there, its dependents hear that it is gone.
    async fn verify_virtual(&self, uid: &str, node: &Identity) -> Result<(), Error> {
        let there = self.owner_is_there(&node.as_owner(uid), &node.namespace).await?;
        if there.is_none() {
            self.graph.lock().remove_virtual(uid);
        }
        Ok(())
    }

    /// The live metadata of an owner, if it is the object that the reference means.
    async fn owner_is_there(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<ObjectMeta>, Error> {
        let group = crate::meta::group_of(&owner.api_version);
        let fits = |resource: &&Arc<Discovered>| resource.kind.group == group && resource.kind.kind == owner.kind;
        let resource = self.known.borrow().iter().find(fits).cloned();
        let Some(resource) = resource else {
            return Err(Error::other(format!("no resource serves {} {}", owner.api_version, owner.kind)));
        };
        if resource.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned from inside a namespace: such an owner is never there.
            return Ok(None);
        }
        let latest = self.live(&resource, namespace, &owner.name).await?;
        Ok(latest.filter(|latest| latest.uid.as_deref() == Some(&owner.uid)))
    }

    async fn classify(&self, object: &ObjectMeta) -> Result<Owners, Error> {
        let mut owners = Owners::default();
        let namespace = object.namespace.as_deref().unwrap_or_default();
        for owner in object.owner_references.iter().flatten() {
            if self.graph.lock().is_solid(&owner.uid, namespace) {
                owners.solid += 1;
                continue;
            }
            match self.owner_is_there(owner, namespace).await? {
                None => owners.dangling.push(owner.uid.clone()),
                Some(live) if live.deletion_timestamp.is_some() && has_finalizer(&live, FOREGROUND) => {
                    owners.waiting.push(owner.uid.clone());
                }
                Some(_) => owners.solid += 1,
            }
        }
        Ok(owners)
    }

    /// An owner that waits for its dependents goes once none is left that blocks it.
    async fn finish_foreground(&self, uid: &str, resource: &Discovered, latest: &ObjectMeta) -> Result<(), Error> {
        let blocked = self.graph.lock().push_blocking_dependents(uid);
        if blocked {
            return Ok(());
        }
        self.drop_finalizer(resource, latest, FOREGROUND).await
    }

    async fn orphan_dependents(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.graph.lock().identity(uid) else { return Ok(()) };
        let Some(resource) = node.resource.clone() else { return Ok(()) };
        let dependents = self.graph.lock().dependents(uid);
        for dependent in dependents {
            let Some(of) = dependent.resource.clone() else { continue };
            if let Some(latest) = self.live(&of, &dependent.namespace, &dependent.name).await? {
                self.drop_owners(&of, &latest, &[uid.to_string()]).await?;
            }
        }
        match self.live(&resource, &node.namespace, &node.name).await? {
            Some(latest) if latest.uid.as_deref() == Some(uid) => self.drop_finalizer(&resource, &latest, ORPHAN).await,
            _ => Ok(()),
        }
    }

    fn api(&self, resource: &Discovered, namespace: &str) -> Api<DynamicObject> {
        match resource.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &resource.kind),
            false => Api::all_with(self.client.clone(), &resource.kind),
        }
    }

    async fn live(&self, resource: &Discovered, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let found = self.api(resource, namespace).get_metadata_opt(name).await?;
        Ok(found.map(|object: PartialObjectMeta<DynamicObject>| object.metadata))
    }

    async fn delete(&self, resource: &Discovered, latest: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        let preconditions =
            Preconditions { uid: latest.uid.clone(), resource_version: latest.resource_version.clone() };
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = self.api(resource, latest.namespace.as_deref().unwrap_or_default());
        found(api.delete(latest.name.as_deref().unwrap_or_default(), &parameters).await)?;
        Ok(())
    }

    async fn drop_owners(&self, resource: &Discovered, latest: &ObjectMeta, uids: &[String]) -> Result<(), Error> {
        let mut owners = latest.owner_references.clone().unwrap_or_default();
        let before = owners.len();
        owners.retain(|owner| !uids.contains(&owner.uid));
        if owners.len() == before {
            return Ok(());
        }
        self.patch_metadata(resource, latest, serde_json::json!({ "ownerReferences": owners })).await
    }

    async fn drop_finalizer(&self, resource: &Discovered, latest: &ObjectMeta, name: &str) -> Result<(), Error> {
        let mut finalizers = latest.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != name);
        self.patch_metadata(resource, latest, serde_json::json!({ "finalizers": finalizers })).await
    }

    /// A merge patch, which every kind understands, against the very revision that was read.
    async fn patch_metadata(
        &self,
        resource: &Discovered,
        latest: &ObjectMeta,
        mut change: serde_json::Value,
    ) -> Result<(), Error> {
        change["resourceVersion"] = serde_json::json!(latest.resource_version);
        change["uid"] = serde_json::json!(latest.uid);
        let patch = Patch::Merge(serde_json::json!({ "metadata": change }));
        let api = self.api(resource, latest.namespace.as_deref().unwrap_or_default());
        let name = latest.name.as_deref().unwrap_or_default();
        found(api.patch_metadata(name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

fn has_finalizer(object: &ObjectMeta, name: &str) -> bool {
    object.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}
