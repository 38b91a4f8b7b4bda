//! Deployments: a ReplicaSet a pod template, scaled from one to the next as the strategy says.
//!
//! [`revision`] finds and makes ReplicaSets, [`rollout`] decides their sizes, [`progress`] writes the status.

mod progress;
mod revision;
mod rollout;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use knarr_client::error::found;
use knarr_client::events::reference_to;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::context::Context;
use crate::{meta, pods};

const CONTROLLER: &str = "deployment-controller";

pub(crate) async fn run(context: Arc<Context>) {
    let deployments = context.informers.all::<Deployment>();
    let replica_sets = context.informers.all::<ReplicaSet>();
    let pods = context.informers.all::<Pod>();
    replica_sets.add_index(meta::BY_CONTROLLER, meta::controller_uid);
    replica_sets.add_index(meta::ORPHANS, meta::orphan_namespace);
    pods.add_index(meta::BY_CONTROLLER, meta::controller_uid);
    let client = context.client(CONTROLLER);
    let recorder = context.recorder(&client, CONTROLLER);
    let loop_ = Arc::new(Deployments {
        deployments: deployments.clone(),
        replica_sets: replica_sets.clone(),
        pods: pods.clone(),
        client,
        recorder,
    });
    let of_replica_set = {
        let loop_ = loop_.clone();
        move |event: &Event<ReplicaSet>| loop_.keys_of_replica_set(event)
    };
    let of_pod = {
        let loop_ = loop_.clone();
        move |event: &Event<Pod>| loop_.keys_of_deleted_pod(event)
    };
    Controller::shared(loop_)
        .watch(&deployments, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&replica_sets, of_replica_set)
        .watch(&pods, of_pod)
        .run(context.shutdown.clone())
        .await;
}

struct Deployments {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    client: Client,
    recorder: Recorder,
}

/// One look at one deployment: the object as it is being worked on, and its ReplicaSets.
struct Look<'a> {
    all: &'a Deployments,
    deployment: Deployment,
    replica_sets: Vec<Arc<ReplicaSet>>,
}

#[async_trait::async_trait]
impl Reconciler for Deployments {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let selector = &spec(&deployment).selector;
        if selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
            && selector.match_expressions.as_ref().is_none_or(|e| e.is_empty())
        {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&reference_to(&*deployment), EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let replica_sets = self.claim(&deployment).await?;
        let mut look = Look { all: self, deployment: (*deployment).clone(), replica_sets };
        look.run().await
    }
}

impl Deployments {
    fn keys_of_replica_set(&self, event: &Event<ReplicaSet>) -> Vec<ObjectKey> {
        let mut keys: Vec<_> =
            event.objects().filter_map(|set| meta::controller_key::<Deployment>(&set.metadata)).collect();
        let set = event.object();
        if keys.is_empty() && !matches!(event, Event::Deleted(_)) && meta::controller_of(&set.metadata).is_none() {
            keys = self.deployments_selecting(set);
        }
        keys.dedup();
        keys
    }

    fn deployments_selecting(&self, set: &ReplicaSet) -> Vec<ObjectKey> {
        let selecting = |deployment: &&Arc<Deployment>| {
            meta::selector_of(&spec(deployment).selector)
                .is_ok_and(|selector| !selector.selects_all() && meta::selects(&selector, &set.metadata))
        };
        let deployments = self.deployments.in_namespace(meta::namespace_of(set));
        deployments.iter().filter(selecting).map(|deployment| ObjectKey::of(&**deployment)).collect()
    }

    /// A Recreate deployment waits for the last old pod to go.
    fn keys_of_deleted_pod(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let Event::Deleted(pod) = event else { return Vec::new() };
        let Some(set) = meta::controller_key::<ReplicaSet>(&pod.metadata) else { return Vec::new() };
        let Some(set) = self.replica_sets.get(&set.namespace, &set.name) else { return Vec::new() };
        let key = meta::controller_key::<Deployment>(&set.metadata);
        let recreates = |key: &ObjectKey| {
            self.deployments.get(&key.namespace, &key.name).is_some_and(|deployment| recreates(&deployment))
        };
        key.filter(recreates).into_iter().collect()
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let selector = meta::selector_of(&spec(deployment).selector)?;
        let mut claimed = Vec::new();
        for set in self.replica_sets.indexed(meta::BY_CONTROLLER, meta::uid_of(deployment)) {
            if meta::selects(&selector, &set.metadata) {
                claimed.push(set);
            } else if !meta::is_deleted(deployment) && !meta::is_deleted(&*set) {
                let owner = serde_json::json!({ "$patch": "delete", "uid": deployment.metadata.uid });
                self.patch_owners(&set, owner).await?;
            }
        }
        if meta::is_deleted(deployment) {
            return Ok(claimed);
        }
        for set in self.replica_sets.indexed(meta::ORPHANS, meta::namespace_of(deployment)) {
            if !meta::is_deleted(&*set) && meta::selects(&selector, &set.metadata) {
                let owner = serde_json::json!(meta::controller_reference(deployment));
                claimed.extend(self.patch_owners(&set, owner).await?.map(Arc::new));
            }
        }
        Ok(claimed)
    }

    async fn patch_owners(&self, set: &ReplicaSet, owner: serde_json::Value) -> Result<Option<ReplicaSet>, Error> {
        let patch = serde_json::json!({ "metadata": { "uid": set.metadata.uid, "ownerReferences": [owner] } });
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), meta::namespace_of(set));
        Ok(found(api.patch(meta::name_of(set), &PatchParams::default(), &Patch::Strategic(patch)).await)?)
    }

    /// Whether a pod of the old ReplicaSets may still be running.
    fn old_pods_running(&self, old: &[ReplicaSet]) -> bool {
        old.iter().any(|set| {
            self.pods.indexed(meta::BY_CONTROLLER, meta::uid_of(set)).iter().any(|pod| !pods::is_finished(pod))
        })
    }
}

impl Look<'_> {
    async fn run(&mut self) -> Result<Action, Error> {
        if meta::is_deleted(&self.deployment) {
            let (new, old) = self.sync_revisions(false).await?;
            return self.sync_status(new.as_ref(), &old).await;
        }
        self.note_pause().await?;
        if spec(&self.deployment).paused == Some(true) || self.was_scaled() {
            return self.sync_scale().await;
        }
        match recreates(&self.deployment) {
            true => self.roll_recreate().await,
            false => self.roll_update().await,
        }
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.all.client.clone(), meta::namespace_of(&self.deployment))
    }

    fn replica_set_api(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.all.client.clone(), meta::namespace_of(&self.deployment))
    }

    fn event(&self, kind: EventType, reason: &str, message: String) {
        self.all.recorder.event(&reference_to(&self.deployment), kind, reason, message);
    }
}

fn recreates(deployment: &Deployment) -> bool {
    spec(deployment).strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"))
}

/// The spec; the API requires one.
fn spec(deployment: &Deployment) -> &DeploymentSpec {
    static EMPTY: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
    deployment.spec.as_ref().unwrap_or(&EMPTY)
}

fn wanted_replicas(deployment: &Deployment) -> i32 {
    spec(deployment).replicas.unwrap_or(1)
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}
