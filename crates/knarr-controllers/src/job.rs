//! Jobs: pods that run to their end, so many at once, so many successes, so many failures allowed.
//!
//! Every pod carries a finalizer until it is counted ([`tracking`]), so that none is counted twice or forgotten; [`status`] is what the
//! counts mean, and this module makes and deletes pods.

mod failure_policy;
mod indexes;
mod status;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use knarr_client::error::found;
use knarr_client::events::reference_to;
use knarr_client::expectations::Expectations;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use crate::context::Context;
use crate::{meta, pods, replicas};

const CONTROLLER: &str = "job-controller";

pub(crate) async fn run(context: Arc<Context>) {
    let jobs = context.informers.all::<Job>();
    let pods = context.informers.all::<Pod>();
    pods.add_index(meta::BY_CONTROLLER, meta::controller_uid);
    pods.add_index(meta::ORPHANS, meta::orphan_namespace);
    let client = context.client(CONTROLLER);
    let loop_ = Arc::new(Jobs {
        jobs: jobs.clone(),
        pods: pods.clone(),
        recorder: context.recorder(&client, CONTROLLER),
        client,
        ttl_client: context.client("ttl-after-finished-controller"),
        expectations: Expectations::new(),
    });
    let observing = loop_.clone();
    Controller::shared(loop_)
        .watch(&jobs, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&pods, move |event| observing.keys_of_pod(event))
        .run(context.shutdown.clone())
        .await;
}

struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    client: Client,
    /// Finished jobs are deleted in another name.
    ttl_client: Client,
    recorder: Recorder,
    expectations: Expectations<ObjectKey>,
}

#[async_trait::async_trait]
impl Reconciler for Jobs {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            self.release_pods_of_gone_job(key).await?;
            return Ok(Action::Done);
        };
        let by_another =
            spec(&job).managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller");
        if by_another {
            return Ok(Action::Done);
        }
        if status::finished(&job).is_some() {
            return self.after_the_end(&job).await;
        }
        self.work_on(key, &job).await
    }
}

impl Jobs {
    fn keys_of_pod(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let pod = event.object();
        if let Some(key) = meta::controller_key::<Job>(&pod.metadata) {
            if matches!(event, Event::Added(_)) {
                self.expectations.creation_observed(&key);
            }
            if matches!(event, Event::Deleted(_)) || meta::is_deleted(&**pod) {
                self.expectations.deletion_observed(&key, meta::uid_of(&**pod));
            }
        }
        let mut keys: Vec<_> = event.objects().filter_map(|pod| meta::controller_key::<Job>(&pod.metadata)).collect();
        keys.dedup();
        keys
    }

    async fn work_on(&self, key: &ObjectKey, job: &Job) -> Result<Action, Error> {
        // Asked before the pods are read, as for ReplicaSets.
        let may_act = self.expectations.satisfied(key) && !meta::is_deleted(job);
        let Some(selector) = &spec(job).selector else { return Err(Error::other("the job has no selector yet")) };
        let owned = pods::claim(&self.client, &self.pods, job, &meta::selector_of(selector)?).await?;
        let mut updated = job.clone();
        tracking::count(&mut updated, &owned);
        let active: Vec<_> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let verdict = status::judge(&updated, &owned, &active);
        status::start(&mut updated, verdict.suspended);
        status::describe(&mut updated, &owned, &active, &verdict);
        let ended = status::finished(&updated).cloned();
        self.write_status(job, &updated).await?;
        tracking::release_counted(&self.client, &updated, &owned).await?;
        if let Some(condition) = ended {
            self.tell_end(&updated, &condition.type_, condition.reason.as_deref(), condition.message);
            return Ok(Action::Done);
        }
        self.tell_suspension(job, &updated);
        match may_act {
            true => self.adjust(key, &updated, &owned, &active, &verdict).await,
            false => Ok(verdict.look_again.map_or(Action::Done, Action::RequeueAfter)),
        }
    }

    async fn write_status(&self, before: &Job, updated: &Job) -> Result<(), Error> {
        if before.status == updated.status {
            return Ok(());
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), meta::namespace_of(before));
        api.replace_status(meta::name_of(before), &PostParams::default(), updated).await?;
        Ok(())
    }

    fn tell_end(&self, job: &Job, kind: &str, reason: Option<&str>, message: Option<String>) {
        let about = reference_to(job);
        match kind {
            "Complete" => self.recorder.event(&about, EventType::Normal, "Completed", "Job completed"),
            _ => {
                self.recorder.event(&about, EventType::Warning, reason.unwrap_or("Failed"), message.unwrap_or_default())
            }
        }
    }

    fn tell_suspension(&self, before: &Job, now: &Job) {
        let about = reference_to(now);
        match (status::is_true(before, "Suspended"), status::is_true(now, "Suspended")) {
            (false, true) => self.recorder.event(&about, EventType::Normal, "Suspended", "Job suspended"),
            (true, false) => self.recorder.event(&about, EventType::Normal, "Resumed", "Job resumed"),
            _ => {}
        }
    }

    /// Makes or deletes pods until as many are active as should be.
    async fn adjust(
        &self,
        key: &ObjectKey,
        job: &Job,
        owned: &[Arc<Pod>],
        active: &[Arc<Pod>],
        verdict: &status::Verdict,
    ) -> Result<Action, Error> {
        let wanted = status::wanted_active(job, active.len(), verdict);
        if active.len() > wanted {
            self.delete_pods(key, job, active, active.len() - wanted).await?;
            return Ok(verdict.look_again.map_or(Action::Done, Action::RequeueAfter));
        }
        let holding = status::holding(job, owned);
        if holding.len() < wanted {
            if let Some(wait) = status::backoff(job, owned).filter(|wait| !wait.is_zero()) {
                return Ok(Action::RequeueAfter(wait));
            }
            self.create_pods(key, job, owned, &holding, (wanted - holding.len()).min(pods::BURST)).await?;
        }
        Ok(verdict.look_again.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn create_pods(
        &self,
        key: &ObjectKey,
        job: &Job,
        owned: &[Arc<Pod>],
        holding: &[Arc<Pod>],
        count: usize,
    ) -> Result<(), Error> {
        let made: Vec<Pod> = match indexes::is_indexed(job) {
            true => {
                indexes::missing(job, owned, holding, count).into_iter().map(|index| indexes::pod(job, index)).collect()
            }
            false => (0..count).map(|_| tracking::tracked_pod(job)).collect(),
        };
        self.expectations.expect_creations(key, made.len());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let (api, made) = (&api, &made);
        let (created, error) = pods::slow_start(made.len(), |n| self.create_pod(api, job, &made[n])).await;
        (created..made.len()).for_each(|_| self.expectations.creation_observed(key));
        error.map_or(Ok(()), Err)
    }

    async fn create_pod(&self, api: &Api<Pod>, job: &Job, pod: &Pod) -> Result<(), Error> {
        match api.create(&PostParams::default(), pod).await.map_err(Error::from) {
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name_of(&created));
                self.recorder.event(&reference_to(job), EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {}", replicas::describe(&error));
                self.recorder.event(&reference_to(job), EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete_pods(&self, key: &ObjectKey, job: &Job, active: &[Arc<Pod>], count: usize) -> Result<(), Error> {
        let mut doomed: Vec<_> = active.iter().collect();
        doomed.sort_by(|a, b| pods::by_dispensability(a, b, |_| 0));
        doomed.truncate(count);
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| meta::uid_of(&***pod).to_string()));
        for (done, pod) in doomed.iter().enumerate() {
            if let Err(error) = pods::delete(&self.client, pod).await {
                doomed[done..].iter().for_each(|pod| self.expectations.deletion_observed(key, meta::uid_of(&***pod)));
                return Err(error);
            }
            let message = format!("Deleted pod: {}", meta::name_of(&***pod));
            self.recorder.event(&reference_to(job), EventType::Normal, "SuccessfulDelete", message);
        }
        Ok(())
    }

    /// A finished job: nothing of it stays tracked, and it is deleted when its time to live is over.
    async fn after_the_end(&self, job: &Job) -> Result<Action, Error> {
        for pod in self.pods.indexed(meta::BY_CONTROLLER, meta::uid_of(job)) {
            tracking::release(&self.client, &pod).await?;
        }
        let end = status::finished(job).and_then(|condition| condition.last_transition_time.as_ref());
        let (Some(ttl), Some(end)) = (spec(job).ttl_seconds_after_finished, end) else { return Ok(Action::Done) };
        if meta::is_deleted(job) {
            return Ok(Action::Done);
        }
        let left = Duration::from_secs(ttl.max(0) as u64).saturating_sub(meta::since(end));
        if !left.is_zero() {
            return Ok(Action::RequeueAfter(left));
        }
        let preconditions = Preconditions { uid: job.metadata.uid.clone(), ..Preconditions::default() };
        let api: Api<Job> = Api::namespaced(self.ttl_client.clone(), meta::namespace_of(job));
        found(api.delete(meta::name_of(job), &DeleteParams::foreground().preconditions(preconditions)).await)?;
        Ok(Action::Done)
    }

    /// Nobody counts these pods any more: they must not be kept.
    async fn release_pods_of_gone_job(&self, key: &ObjectKey) -> Result<(), Error> {
        for pod in self.pods.in_namespace(&key.namespace) {
            if meta::controller_key::<Job>(&pod.metadata).as_ref() == Some(key) {
                tracking::release(&self.client, &pod).await?;
            }
        }
        Ok(())
    }
}

/// The spec; the API requires one.
fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}
