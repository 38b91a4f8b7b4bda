//! ReplicaSets and ReplicationControllers: so many pods of a template, no more and no fewer. One loop for both kinds ([`kind`]).

mod kind;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use knarr_client::events::reference_to;
use knarr_client::expectations::Expectations;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::context::Context;
use crate::{meta, pods};
pub(crate) use kind::ReplicaOwner;
use kind::{Counts, Failure, Wanted};

pub(crate) async fn run<K: ReplicaOwner>(context: Arc<Context>) {
    let owners = context.informers.all::<K>();
    let pods = context.informers.all::<Pod>();
    pods.add_index(meta::BY_CONTROLLER, meta::controller_uid);
    pods.add_index(meta::ORPHANS, meta::orphan_namespace);
    let client = context.client(K::CONTROLLER);
    let loop_ = Arc::new(Replicas {
        owners: owners.clone(),
        pods: pods.clone(),
        recorder: context.recorder(&client, K::CONTROLLER),
        client,
        expectations: Expectations::new(),
    });
    let of_pod = {
        let loop_ = loop_.clone();
        move |event: &Event<Pod>| loop_.keys_of_pod(event)
    };
    Controller::shared(loop_)
        .watch(&owners, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&pods, of_pod)
        .run(context.shutdown.clone())
        .await;
}

struct Replicas<K: ReplicaOwner> {
    owners: Informer<K>,
    pods: Informer<Pod>,
    client: Client,
    recorder: Recorder,
    expectations: Expectations<ObjectKey>,
}

#[async_trait::async_trait]
impl<K: ReplicaOwner> Reconciler for Replicas<K> {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        K::CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(owner) = self.owners.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        // Asked before the pods are read: what is observed in between can only be seen too late, not too early.
        let may_act = self.expectations.satisfied(key);
        let wanted = owner.wanted()?;
        let all = pods::claim(&self.client, &self.pods, &*owner, &wanted.selector, None).await?;
        let active: Vec<_> = all.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let outcome = match may_act && !meta::is_deleted(&*owner) {
            true => self.scale(key, &owner, &wanted, &active).await,
            false => Ok(()),
        };
        let until_available =
            self.update_status(&owner, &wanted, &all, &active, may_act, outcome.as_ref().err()).await?;
        outcome?;
        Ok(until_available.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl<K: ReplicaOwner> Replicas<K> {
    fn keys_of_pod(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        self.observe(event);
        let mut keys: Vec<_> = event.objects().filter_map(|pod| meta::controller_key::<K>(&pod.metadata)).collect();
        let pod = event.object();
        if keys.is_empty() && !matches!(event, Event::Deleted(_)) && meta::controller_of(&pod.metadata).is_none() {
            keys = self.owners_selecting(pod);
        }
        keys.dedup();
        keys
    }

    fn observe(&self, event: &Event<Pod>) {
        let pod = event.object();
        let Some(key) = meta::controller_key::<K>(&pod.metadata) else { return };
        if matches!(event, Event::Added(_)) {
            self.expectations.creation_observed(&key);
        }
        if matches!(event, Event::Deleted(_)) || meta::is_deleted(&**pod) {
            self.expectations.deletion_observed(&key, meta::uid_of(&**pod));
        }
    }

    fn owners_selecting(&self, pod: &Pod) -> Vec<ObjectKey> {
        let owners = self.owners.in_namespace(meta::namespace_of(pod));
        let selecting = owners.iter().filter(|owner| {
            owner
                .wanted()
                .is_ok_and(|wanted| !wanted.selector.selects_all() && meta::selects(&wanted.selector, &pod.metadata))
        });
        selecting.map(|owner| ObjectKey::of(&**owner)).collect()
    }

    /// Creates or deletes pods up to the wanted number.
    async fn scale(&self, key: &ObjectKey, owner: &K, wanted: &Wanted<'_>, active: &[Arc<Pod>]) -> Result<(), Error> {
        let difference = active.len() as i64 - i64::from(wanted.replicas);
        let count = (difference.unsigned_abs() as usize).min(pods::BURST);
        match difference {
            0 => Ok(()),
            ..0 => self.create(key, owner, wanted, count).await,
            1.. => self.delete(key, owner, active, count).await,
        }
    }

    async fn create(&self, key: &ObjectKey, owner: &K, wanted: &Wanted<'_>, count: usize) -> Result<(), Error> {
        let template = wanted.template.ok_or_else(|| Error::other("no pod template"))?;
        let pod = pods::from_template(template, &key.name, meta::controller_reference(owner));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        self.expectations.expect_creations(key, count);
        let (api, pod) = (&api, &pod);
        let (created, error) = pods::slow_start(count, |_| self.create_one(api, pod, owner)).await;
        for _ in created..count {
            self.expectations.creation_observed(key);
        }
        match error {
            // The namespace is going away: nothing to try again for.
            Some(error) if is_namespace_terminating(&error) => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn create_one(&self, api: &Api<Pod>, pod: &Pod, owner: &K) -> Result<(), Error> {
        let about = reference_to(owner);
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name_of(&created));
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                let error = Error::from(error);
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", describe(&error));
                    self.recorder.event(&about, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, owner: &K, active: &[Arc<Pod>], count: usize) -> Result<(), Error> {
        let doomed = most_dispensable(active, count);
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| meta::uid_of(&***pod).to_string()));
        let about = reference_to(owner);
        let deletions = doomed.iter().map(|pod| async {
            let result = pods::delete(&self.client, pod).await;
            match &result {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", meta::name_of(&***pod));
                    self.recorder.event(&about, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    self.expectations.deletion_observed(key, meta::uid_of(&***pod));
                    let message = format!("Error deleting: {}", describe(error));
                    self.recorder.event(&about, EventType::Warning, "FailedDelete", message);
                }
            }
            result
        });
        futures::future::join_all(deletions).await.into_iter().collect()
    }

    /// Writes the status if it changed; returns when a ready pod will next become available.
    async fn update_status(
        &self,
        owner: &K,
        wanted: &Wanted<'_>,
        all: &[Arc<Pod>],
        active: &[Arc<Pod>],
        may_act: bool,
        failure: Option<&Error>,
    ) -> Result<Option<Duration>, Error> {
        let min_ready = Duration::from_secs(wanted.min_ready_seconds.max(0) as u64);
        let waits: Vec<_> = active.iter().filter_map(|pod| pods::until_available(pod, min_ready)).collect();
        let template_labels =
            wanted.template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
        let fully_labeled = |pod: &&Arc<Pod>| meta::contains_labels(&template_labels, pod.metadata.labels.as_ref());
        let terminating = all.iter().filter(|pod| meta::is_deleted(&***pod) && !pods::is_finished(pod)).count();
        let counts = Counts {
            replicas: active.len() as i32,
            fully_labeled: active.iter().filter(fully_labeled).count() as i32,
            ready: waits.len() as i32,
            available: waits.iter().filter(|wait| wait.is_zero()).count() as i32,
            terminating: terminating as i32,
        };
        let failure = match (failure, may_act) {
            (Some(error), _) => Failure::Because {
                reason: if active.len() as i64 > i64::from(wanted.replicas) { "FailedDelete" } else { "FailedCreate" },
                message: describe(error),
            },
            (None, true) => Failure::None,
            (None, false) => Failure::AsBefore,
        };
        let mut updated = owner.clone();
        updated.set_status(counts, failure);
        if updated.status_differs(owner) {
            let api: Api<K> = Api::namespaced(self.client.clone(), meta::namespace_of(owner));
            api.replace_status(meta::name_of(owner), &PostParams::default(), &updated).await?;
        }
        Ok(waits.into_iter().filter(|wait| !wait.is_zero()).min())
    }
}

/// The `count` pods whose loss costs least.
fn most_dispensable(active: &[Arc<Pod>], count: usize) -> Vec<&Arc<Pod>> {
    let mut sorted: Vec<_> = active.iter().collect();
    if count < sorted.len() {
        let mut crowds: HashMap<&str, usize> = HashMap::new();
        for node in active.iter().filter_map(|pod| pods::node_name(pod)) {
            *crowds.entry(node).or_default() += 1;
        }
        let crowd = |pod: &Pod| pods::node_name(pod).and_then(|node| crowds.get(node)).copied().unwrap_or(0);
        sorted.sort_by(|a, b| pods::by_dispensability(a, b, crowd));
        sorted.truncate(count);
    }
    sorted
}

fn is_namespace_terminating(error: &Error) -> bool {
    let causes = error.status().and_then(|status| status.details.as_ref()).map(|details| details.causes.as_slice());
    causes.unwrap_or_default().iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The error as users should read it: the API's own words where there are any.
pub(crate) fn describe(error: &Error) -> String {
    error.status().map_or_else(|| error.to_string(), |status| status.message.clone())
}
