//! Jobs: pods that run to their end, so many at once, so many successes, so many failures allowed.
//!
//! Every pod carries a finalizer until it is counted ([`tracking`]), so that none is counted twice or forgotten; [`look`] is what one look
//! finds, [`status`] what that means, and this module makes and deletes pods.

mod backoff;
mod failure_policy;
mod index_set;
mod indexes;
mod look;
mod per_index;
mod status;
mod success_policy;
mod tracking;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use knarr_client::error::found;
use knarr_client::events::reference_to;
use knarr_client::expectations::Expectations;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;

use self::look::Look;
use crate::context::Context;
use crate::{meta, pods, replicas};

const CONTROLLER: &str = "job-controller";
/// Pods that are let go of at once.
const AT_ONCE: usize = 64;

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
        written: Mutex::default(),
        let_go: Mutex::default(),
    });
    let observing = loop_.clone();
    Controller::shared(loop_)
        .watch(&jobs, |event| vec![Work::Job(ObjectKey::of(&**event.object()))])
        .watch(&pods, move |event| observing.work_of_pod(event))
        .run(context.shutdown.clone())
        .await;
}

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Job(ObjectKey),
    /// A pod that carries the finalizer of jobs and has no controller.
    Orphan(ObjectKey),
}

struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    client: Client,
    /// Finished jobs are deleted in another name.
    ttl_client: Client,
    recorder: Recorder,
    expectations: Expectations<ObjectKey>,
    /// The versions of the statuses written last: nothing is decided on older ones.
    written: Mutex<HashMap<ObjectKey, u64>>,
    /// Pods that were let go of, as long as the cache does not show it.
    let_go: Mutex<HashSet<String>>,
}

#[async_trait::async_trait]
impl Reconciler for Jobs {
    type Key = Work;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, work: &Work) -> Result<Action, Error> {
        let key = match work {
            Work::Job(key) => key,
            Work::Orphan(pod) => return self.release_orphan(pod).await,
        };
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.forget(key);
            self.release_pods_of_gone_job(key).await?;
            return Ok(Action::Done);
        };
        let by_another =
            spec(&job).managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller");
        match (status::finished(&job).is_some(), by_another) {
            (true, true) => self.delete_expired(&job).await,
            (true, false) => {
                self.forget(key);
                self.release_pods_of_finished_job(&job).await?;
                self.delete_expired(&job).await
            }
            (false, true) => Ok(Action::Done),
            (false, false) => self.work_on(key, &job).await,
        }
    }
}

impl Jobs {
    fn work_of_pod(&self, event: &Event<Pod>) -> Vec<Work> {
        let pod = event.object();
        let controller = meta::controller_of(&pod.metadata);
        if let Some(key) = meta::controller_key::<Job>(&pod.metadata) {
            if matches!(event, Event::Added(_)) {
                self.expectations.creation_observed(&key);
            }
            if matches!(event, Event::Deleted(_)) || meta::is_deleted(&**pod) {
                self.expectations.deletion_observed(&key, meta::uid_of(&**pod));
            }
        }
        if matches!(event, Event::Deleted(_)) || !tracking::is_tracked(pod) {
            self.let_go.lock().remove(meta::uid_of(&**pod));
        }
        let jobs = event.objects().filter_map(|pod| meta::controller_key::<Job>(&pod.metadata));
        let mut work: Vec<_> = jobs.map(Work::Job).collect();
        work.dedup();
        if controller.is_none() && tracking::is_tracked(pod) && !matches!(event, Event::Deleted(_)) {
            work.push(Work::Orphan(ObjectKey::of(&**pod)));
        }
        work
    }

    async fn work_on(&self, key: &ObjectKey, job: &Job) -> Result<Action, Error> {
        if version_of(job) < self.written.lock().get(key).copied().unwrap_or(0) {
            return Ok(Action::Done);
        }
        // Asked before the pods are read, as for ReplicaSets.
        let settled = self.expectations.satisfied(key);
        let Some(selector) = &spec(job).selector else { return Err(Error::other("the job has no selector yet")) };
        let selector = meta::selector_of(selector)?;
        let owned = pods::claim(&self.client, &self.pods, job, &selector, Some(tracking::FINALIZER)).await?;
        let owned = self.without_those_let_go(owned);
        let look = Look::at(job, &owned);
        let verdict = status::judge(&look);
        if verdict.end.is_some() {
            self.end_active(&look).await?;
        }
        // A pod that is not seen yet must not outlive its job.
        let end = verdict.end.as_ref().filter(|_| settled);
        let mut updated = job.clone();
        let counted = tracking::count(&mut updated, &look, end);
        status::start(&mut updated, verdict.suspended);
        status::describe(&mut updated, &look, verdict.suspended, end);
        self.write_status(key, job, &updated).await?;
        self.let_go_of(&counted).await?;
        if let Some(condition) = status::finished(&updated) {
            self.tell_end(&updated, condition);
            return Ok(Action::Done);
        }
        self.tell_suspension(job, &updated);
        let wait = match settled && verdict.end.is_none() && !meta::is_deleted(job) {
            true => self.adjust(key, &look, verdict.suspended).await?,
            false => None,
        };
        Ok(wait.into_iter().chain(verdict.look_again).min().map_or(Action::Done, Action::RequeueAfter))
    }

    /// The pods as the cache will show them: those that were let go of without the finalizer.
    fn without_those_let_go(&self, mut owned: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let let_go = self.let_go.lock();
        for pod in owned.iter_mut().filter(|pod| let_go.contains(meta::uid_of(&***pod))) {
            tracking::forget_finalizer(Arc::make_mut(pod));
        }
        owned
    }

    async fn let_go_of(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let all: Vec<_> = pods.iter().map(|pod| self.let_go_of_one(pod)).collect();
        futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn let_go_of_one(&self, pod: &Pod) -> Result<(), Error> {
        let uid = meta::uid_of(pod);
        self.let_go.lock().insert(uid.into());
        match tracking::release(&self.client, pod).await {
            Ok(true) => Ok(()),
            // Nothing will be seen of it.
            other => {
                self.let_go.lock().remove(uid);
                other.map(drop)
            }
        }
    }

    /// Deletes the pods at work of a job that has come to its end. Their finalizers stay until they are counted.
    async fn end_active(&self, look: &Look<'_>) -> Result<(), Error> {
        for pod in &look.active {
            self.delete_pod(look.job, pod).await?;
        }
        Ok(())
    }

    async fn write_status(&self, key: &ObjectKey, before: &Job, updated: &Job) -> Result<(), Error> {
        if before.status == updated.status {
            return Ok(());
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), meta::namespace_of(before));
        let written = api.replace_status(meta::name_of(before), &PostParams::default(), updated).await?;
        self.written.lock().insert(key.clone(), version_of(&written));
        Ok(())
    }

    fn tell_end(&self, job: &Job, condition: &JobCondition) {
        let about = reference_to(job);
        if condition.type_ != "Complete" {
            let (reason, message) = (condition.reason.as_deref(), condition.message.clone());
            return self.recorder.event(
                &about,
                EventType::Warning,
                reason.unwrap_or("Failed"),
                message.unwrap_or_default(),
            );
        }
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
        if spec(job).completions.is_some_and(|completions| succeeded > completions) {
            let message = "Too many succeeded pods running after completion count reached";
            self.recorder.event(&about, EventType::Warning, "TooManySucceededPods", message);
        }
        self.recorder.event(&about, EventType::Normal, "Completed", "Job completed");
    }

    fn tell_suspension(&self, before: &Job, now: &Job) {
        let about = reference_to(now);
        match (status::is_true(before, "Suspended"), status::is_true(now, "Suspended")) {
            (false, true) => self.recorder.event(&about, EventType::Normal, "Suspended", "Job suspended"),
            (true, false) => self.recorder.event(&about, EventType::Normal, "Resumed", "Job resumed"),
            _ => {}
        }
    }

    /// Makes or deletes pods until as many are active as should be. Returns when to look again if pods must wait.
    async fn adjust(&self, key: &ObjectKey, look: &Look<'_>, suspended: bool) -> Result<Option<Duration>, Error> {
        let wanted = status::wanted_active(look, suspended);
        let mut doomed = look.dispensable(look.active.len().saturating_sub(wanted));
        if !doomed.is_empty() {
            doomed.truncate(pods::BURST);
            return self.delete_pods(key, look.job, &doomed).await.map(|()| None);
        }
        let count = wanted.saturating_sub(look.holding().count()).min(pods::BURST);
        if count == 0 {
            return Ok(None);
        }
        if per_index::is_limited(look.job) {
            return self.create_pods_of_ready_indexes(key, look, count).await;
        }
        let wait = backoff::of_job(look.job, look.pods);
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        let made = match indexes::is_indexed(look.job) {
            true => look.missing_indexes(count).into_iter().map(|index| indexes::pod(look.job, index)).collect(),
            false => (0..count).map(|_| tracking::tracked_pod(look.job)).collect(),
        };
        self.create_pods(key, look.job, made).await.map(|()| None)
    }

    /// Makes the pods of indexes that have waited long enough since their last failure; each waits for itself.
    async fn create_pods_of_ready_indexes(
        &self,
        key: &ObjectKey,
        look: &Look<'_>,
        count: usize,
    ) -> Result<Option<Duration>, Error> {
        let (mut made, mut waits) = (Vec::new(), Vec::new());
        for index in look.missing_indexes(count) {
            let before = look.awaiting.get(&index);
            match before.map_or(Duration::ZERO, |failed| backoff::of_index(failed)) {
                Duration::ZERO => {
                    let mut pod = indexes::pod(look.job, index);
                    per_index::inherit(look.job, &mut pod, before.map(|failed| &**failed));
                    made.push(pod);
                }
                wait => waits.push(wait),
            }
        }
        self.create_pods(key, look.job, made).await.map(|()| waits.into_iter().min())
    }

    async fn create_pods(&self, key: &ObjectKey, job: &Job, made: Vec<Pod>) -> Result<(), Error> {
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

    /// Deletes pods of which there are too many. They lose their finalizers first: this is no failure.
    async fn delete_pods(&self, key: &ObjectKey, job: &Job, doomed: &[Arc<Pod>]) -> Result<(), Error> {
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| meta::uid_of(&**pod).to_string()));
        for (done, pod) in doomed.iter().enumerate() {
            let deleted = match self.let_go_of_one(pod).await {
                Ok(()) => self.delete_pod(job, pod).await,
                refused => refused,
            };
            if let Err(error) = deleted {
                doomed[done..].iter().for_each(|pod| self.expectations.deletion_observed(key, meta::uid_of(&**pod)));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn delete_pod(&self, job: &Job, pod: &Pod) -> Result<(), Error> {
        pods::delete(&self.client, pod).await?;
        let message = format!("Deleted pod: {}", meta::name_of(pod));
        self.recorder.event(&reference_to(job), EventType::Normal, "SuccessfulDelete", message);
        Ok(())
    }

    async fn release_pods_of_finished_job(&self, job: &Job) -> Result<(), Error> {
        self.let_go_of(&self.pods.indexed(meta::BY_CONTROLLER, meta::uid_of(job))).await
    }

    /// Deletes a finished job, whoever managed it, when its time to live is over.
    async fn delete_expired(&self, job: &Job) -> Result<Action, Error> {
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

    /// A pod that no job controls any more is counted by none. One that a job is about to adopt is left to that.
    async fn release_orphan(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let adopts = |job: &Job| {
            let selector = spec(job).selector.as_ref().and_then(|selector| meta::selector_of(selector).ok());
            !meta::is_deleted(job)
                && status::finished(job).is_none()
                && selector.is_some_and(|selector| meta::selects(&selector, &pod.metadata))
        };
        let wanted = pods::is_active(&pod) && self.jobs.in_namespace(&key.namespace).iter().any(|job| adopts(job));
        if meta::controller_of(&pod.metadata).is_none() && !wanted {
            tracking::release(&self.client, &pod).await?;
        }
        Ok(Action::Done)
    }

    fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
        self.written.lock().remove(key);
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

fn version_of(job: &Job) -> u64 {
    job.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// The spec; the API requires one.
fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}
