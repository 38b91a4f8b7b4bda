//! A worker a pod: looks at what is wanted and what is, plans, acts, and tells the API.
//!
//! A worker never waits for what it started: everything slow (volumes, sandboxes, starts, stops, patches) is a job whose end makes the
//! worker look again. Stopping the worker drops its jobs and leaves the pod running.

mod act;
pub mod backoff;
pub mod plan;
mod push;
pub mod resize;
mod start;
pub mod status;
mod stop;
mod terminate;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PodStatus, ResourceRequirements};
use knarr_client::events::EventType;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::pod::{ContainerKind, DesiredPod, PodSource};
use crate::probes::{Probed, Probes};
use crate::runtime::observed::{ContainerState, ObservedContainer, ObservedPod, Observer};
use crate::static_pods;
use crate::volumes::references::{self, ReferenceWatch};
use crate::volumes::{PodVolumes, SetUpError};

use backoff::RestartBackOff;
use push::Pushed;
use resize::Resizes;
use status::{Readiness, StatusInput, Verdict, Waiting};

/// The first and the longest wait before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A pod that the API keeps although it was deleted, because of finalizers, is deleted again after this time.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

/// What is wanted of a worker.
#[derive(Clone)]
pub enum Wanted {
    /// This pod, as it is now.
    Pod(Arc<DesiredPod>),
    /// The pod left the API: stop and clean up.
    Gone(Arc<DesiredPod>),
}

impl Wanted {
    /// The pod, wanted or not.
    pub fn pod(&self) -> &Arc<DesiredPod> {
        match self {
            Wanted::Pod(pod) | Wanted::Gone(pod) => pod,
        }
    }
}

/// The kubelet's end of a worker.
pub struct WorkerHandle {
    pub wanted: watch::Sender<Wanted>,
    pub wake: Arc<Notify>,
    /// The newest status the worker found.
    pub status: Arc<Mutex<Option<PodStatus>>>,
    /// Why the pod is to end although nobody deleted it.
    pub evicted: Arc<Mutex<Option<Verdict>>>,
}

/// How far a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Its containers are being stopped for good.
    Terminating,
    /// Nothing of it runs any more; what is left is cleaned up.
    Terminated,
}

/// What came of a job.
enum Done {
    Volumes(Result<PodVolumes, SetUpError>),
    Sandbox(Result<(), String>),
    SandboxStopped(knarr_cri::Result<()>),
    Started {
        name: String,
        outcome: Result<(), Waiting>,
    },
    Stopped(knarr_cri::Result<()>),
    Status {
        pushed: Box<PodStatus>,
        outcome: Result<Pushed, kube::Error>,
    },
    CleanedUp(std::io::Result<()>),
    Deleted(Result<Pushed, kube::Error>),
    Resized {
        name: String,
        resources: Box<ResourceRequirements>,
        outcome: knarr_cri::Result<()>,
    },
    /// False if something is left that could not be removed yet.
    Collected(bool),
    /// The pod is to end, and the job served only its running.
    GivenUp,
}

/// What a job is at work on; no two jobs are at the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Volumes,
    Sandbox,
    Start(String),
    Stop { id: String, grace: Duration },
    Resize(String),
    Status,
    CleanUp,
    Deletion,
    Collection,
}

type Fields = Option<std::collections::BTreeMap<String, String>>;

/// The worker of one pod.
pub struct PodWorker {
    node: Arc<NodeContext>,
    wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    stale_volumes: Arc<Notify>,
    shown: Arc<Mutex<Option<PodStatus>>>,
    evicted: Arc<Mutex<Option<Verdict>>>,
    observer: Observer,
    observed: ObservedPod,
    probes: Probes,
    backoff: RestartBackOff,
    waiting: HashMap<String, Waiting>,
    resizes: Resizes,
    stage: Stage,
    verdict: Option<Verdict>,
    volumes: Option<PodVolumes>,
    volumes_asked: Option<Instant>,
    shown_fields: Option<(Fields, Fields)>,
    following: Vec<Arc<ReferenceWatch>>,
    followed: Vec<references::Reference>,
    jobs: FuturesUnordered<BoxFuture<'static, (Task, Done)>>,
    busy: HashSet<Task>,
    /// Cancelled when the pod is to end: gives up the jobs that served only its running.
    ending: CancellationToken,
    failures: u32,
    not_before: HashMap<Task, Instant>,
    last_pushed: Option<PodStatus>,
    /// The uid of the object of the API that `last_pushed` is about: another than the pod's where it is a mirror.
    told: Option<String>,
    cleaned_up: bool,
    began: Timestamp,
    next: Option<Instant>,
}

impl PodWorker {
    pub fn new(node: Arc<NodeContext>, pod: Arc<DesiredPod>, verdict: Option<Verdict>) -> (PodWorker, WorkerHandle) {
        let (sender, wanted) = watch::channel(Wanted::Pod(pod));
        let wake = Arc::new(Notify::new());
        let shown = Arc::new(Mutex::new(None));
        let evicted = Arc::new(Mutex::new(None));
        let handle =
            WorkerHandle { wanted: sender, wake: wake.clone(), status: shown.clone(), evicted: evicted.clone() };
        let worker = PodWorker {
            probes: Probes::new(node.runtime.clone(), node.recorder.clone(), wake.clone()),
            node,
            wanted,
            wake,
            stale_volumes: Arc::new(Notify::new()),
            shown,
            evicted,
            observer: Observer::default(),
            observed: ObservedPod::default(),
            backoff: RestartBackOff::default(),
            waiting: HashMap::new(),
            resizes: Resizes::default(),
            stage: Stage::Running,
            verdict,
            volumes: None,
            volumes_asked: None,
            shown_fields: None,
            following: Vec::new(),
            followed: Vec::new(),
            jobs: FuturesUnordered::new(),
            busy: HashSet::new(),
            ending: CancellationToken::new(),
            failures: 0,
            not_before: HashMap::new(),
            last_pushed: None,
            told: None,
            cleaned_up: false,
            began: Timestamp::now(),
            next: None,
        };
        (worker, handle)
    }

    /// Works until the pod is gone or `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            if self.step().await {
                return;
            }
            let next = self.next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                () = self.stale_volumes.notified() => {
                    self.volumes_asked = None;
                    self.not_before.remove(&Task::Volumes);
                }
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some((task, done)) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(&task, done),
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// One look and what follows from it; true when there is nothing left to do.
    async fn step(&mut self) -> bool {
        let wanted = self.wanted.borrow_and_update().clone();
        let pod = self.as_in_api(wanted.pod());
        self.next = None;
        match self.observer.observe(&*self.node.runtime, &pod.uid).await {
            Ok(observed) => {
                self.observed = observed;
                self.observed.explained_in(Timestamp::now()).into_iter().for_each(|left| self.look_again_in(left));
            }
            Err(error) => {
                tracing::warn!(%error, pod = %pod.described(), "the runtime cannot be asked about a pod");
                self.look_again_in(RETRY);
                return false;
            }
        }
        let pod = self.allocate(&pod);
        let gone = matches!(wanted, Wanted::Gone(_));
        self.notice_changed_fields(&pod);
        if self.stage == Stage::Terminated && !self.observed.is_stopped() {
            // A call that was given up had its effect after all.
            self.stage = Stage::Terminating;
        }
        let evicted = self.evicted.lock().take();
        self.verdict = self.verdict.take().or(evicted);
        if self.stage == Stage::Running && (gone || pod.is_deleted() || pod.is_terminal() || self.verdict.is_some()) {
            self.begin_termination();
        }
        if self.stage == Stage::Running {
            self.hold_deadline(&pod);
        }
        if self.stage == Stage::Running {
            self.follow_references(&pod);
            self.run_probes(&pod);
            self.act(&pod).await;
        }
        if self.stage == Stage::Terminating {
            self.terminate(&pod);
        }
        self.push_status(&pod, gone);
        self.stage == Stage::Terminated && self.wind_up(&pod, gone)
    }

    /// The pod with what the API holds of its status: that of its mirror, where it is a static one.
    fn as_in_api(&mut self, pod: &Arc<DesiredPod>) -> Arc<DesiredPod> {
        let mirror = match pod.source {
            PodSource::Api => None,
            PodSource::Static => {
                let found = self.node.pods.get(&pod.namespace, &pod.name);
                found.filter(|found| static_pods::mirrored(found) == Some(&pod.uid))
            }
        };
        let told = match pod.source {
            PodSource::Api => Some(pod.uid.clone()),
            PodSource::Static => mirror.as_ref().and_then(|mirror| mirror.metadata.uid.clone()),
        };
        if self.told != told {
            // Another mirror knows nothing yet.
            self.told = told;
            self.last_pushed = None;
        }
        let Some(mirror) = mirror else { return pod.clone() };
        Arc::new(pod.with_status(mirror.status.clone()))
    }

    /// Volumes that show the pod's own labels and annotations follow these.
    fn notice_changed_fields(&mut self, pod: &DesiredPod) {
        let metadata = &pod.object.metadata;
        let fields = (metadata.labels.clone(), metadata.annotations.clone());
        if self.shown_fields.replace(fields.clone()).is_some_and(|before| before != fields) {
            self.volumes_asked = None;
        }
    }

    fn look_again_in(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Starts a job unless one is at the same task, or the task failed a moment ago.
    fn start_job(&mut self, task: Task, job: impl Future<Output = Done> + Send + 'static) {
        if self.is_held_back(&task) {
            return;
        }
        if self.busy.insert(task.clone()) {
            self.jobs.push(Box::pin(async move { (task, job.await) }));
        }
    }

    /// Starts a job that serves only the running of the pod: it is given up when the pod is to end. What the runtime made of a call
    /// that was given up is seen at the next look.
    fn start_job_of_running(&mut self, task: Task, job: impl Future<Output = Done> + Send + 'static) {
        let ending = self.ending.clone();
        self.start_job(task, async move { ending.run_until_cancelled_owned(job).await.unwrap_or(Done::GivenUp) });
    }

    /// Whether a task failed a moment ago and is to wait; the worker looks again when the wait is over.
    fn is_held_back(&mut self, task: &Task) -> bool {
        let left = self.not_before.get(task).map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.filter(|left| !left.is_zero());
        left.inspect(|left| self.look_again_in(*left)).is_some()
    }

    fn is_busy(&self, task: &Task) -> bool {
        self.busy.contains(task)
    }

    fn finish(&mut self, task: &Task, done: Done) {
        self.busy.remove(task);
        let succeeded = self.record(done);
        if succeeded {
            self.failures = 0;
            self.not_before.remove(task);
            if *task == Task::Deletion {
                self.not_before.insert(Task::Deletion, Instant::now() + DELETE_AGAIN);
            }
        } else {
            let wait = (RETRY * 2_u32.saturating_pow(self.failures.min(5))).min(LONGEST_RETRY);
            self.failures += 1;
            self.not_before.insert(task.clone(), Instant::now() + wait);
        }
    }

    /// Takes in what came of a job; false if it is to be tried again after a while.
    fn record(&mut self, done: Done) -> bool {
        match done {
            Done::Volumes(Ok(volumes)) => {
                self.volumes = Some(volumes);
                true
            }
            Done::Volumes(Err(error)) => {
                self.event(EventType::Warning, "FailedMount", error.to_string());
                // The next try comes with the back-off, or when a missing object appears.
                self.volumes_asked = None;
                false
            }
            Done::Sandbox(Ok(())) | Done::Deleted(Ok(_)) | Done::GivenUp => true,
            Done::Collected(all) => all,
            Done::Sandbox(Err(error)) => {
                self.event(
                    EventType::Warning,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
                false
            }
            Done::SandboxStopped(outcome) | Done::Stopped(outcome) => self.noted("a pod cannot be stopped", outcome),
            Done::Started { name, outcome: Ok(()) } => {
                self.waiting.remove(&name);
                true
            }
            Done::Started { name, outcome: Err(waiting) } => {
                self.waiting.insert(name, waiting);
                false
            }
            Done::Status { pushed, outcome } => {
                let outcome = outcome.map(|_| self.last_pushed = Some(*pushed));
                self.noted("a pod's status cannot be told", outcome)
            }
            Done::Resized { name, resources, outcome } => self.resized(name, *resources, outcome),
            Done::CleanedUp(outcome) => {
                self.cleaned_up = outcome.is_ok();
                self.noted("a pod's files cannot be removed", outcome)
            }
            Done::Deleted(Err(error)) => self.noted("a pod cannot be deleted", Err(error)),
        }
    }

    fn noted<E: std::fmt::Display>(&self, what: &str, outcome: Result<(), E>) -> bool {
        if let Err(error) = &outcome {
            tracing::warn!(%error, pod = %self.wanted.borrow().pod().described(), "{what}");
        }
        outcome.is_ok()
    }

    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        let pod = self.wanted.borrow().pod().clone();
        self.node.recorder.event(&pod.reference(), kind, reason, message);
    }

    fn about_container(pod: &DesiredPod, name: &str) -> ObjectReference {
        let field_path = pod.container(name).map(crate::pod::DesiredContainer::field_path);
        ObjectReference { field_path, ..pod.reference() }
    }

    fn follow_references(&mut self, pod: &DesiredPod) {
        let wanted = references::of_volumes(pod);
        if wanted != self.followed {
            self.following =
                wanted.iter().map(|reference| self.node.references.follow(reference, &self.stale_volumes)).collect();
            self.followed = wanted;
        }
    }

    fn hold_deadline(&mut self, pod: &DesiredPod) {
        let started = pod.status().and_then(|status| status.start_time.as_ref()).map_or(self.began, |time| time.0);
        let Some(seconds) = pod.spec().active_deadline_seconds else { return };
        let passed = Duration::try_from(Timestamp::now().duration_since(started)).unwrap_or_default();
        let left = Duration::from_secs(seconds.max(0).unsigned_abs()).saturating_sub(passed);
        if !left.is_zero() {
            return self.look_again_in(left);
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.event(EventType::Normal, "DeadlineExceeded", message);
        self.verdict = Some(Verdict { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
        self.begin_termination();
    }

    fn pod_ips(&self, pod: &DesiredPod) -> Vec<String> {
        if pod.host_network() {
            return self.node.host_ips();
        }
        self.observed.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    /// Probes what runs, and nothing else.
    fn run_probes(&mut self, pod: &DesiredPod) {
        let running: Vec<ObservedContainer> = self.observed.running().cloned().collect();
        let ids: Vec<&str> = running.iter().map(|container| container.id.as_str()).collect();
        self.probes.keep_only(&ids);
        let Some(pod_ip) = self.pod_ips(pod).into_iter().next() else { return };
        for observed in &running {
            let (Some(container), ContainerState::Running { started_at }) =
                (pod.container(&observed.name), &observed.state)
            else {
                continue;
            };
            if !matches!(container.kind, ContainerKind::App | ContainerKind::Sidecar) {
                continue;
            }
            let (known_started, known_ready) = self.known_verdicts(pod, observed);
            let probed = Probed {
                id: observed.id.clone(),
                container: Arc::new(container.clone()),
                pod_ip: pod_ip.clone(),
                started_at: *started_at,
                about: Self::about_container(pod, &observed.name),
            };
            self.probes.start(probed, known_started, known_ready);
        }
    }

    /// What the API already says of this very container: a kubelet that was restarted takes it over.
    fn known_verdicts(&self, pod: &DesiredPod, observed: &ObservedContainer) -> (bool, bool) {
        let id = format!("{}://{}", self.node.runtime_name(), observed.id);
        let status = pod.status();
        let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let mut known = lists.into_iter().flatten().flatten().flatten();
        let same = known.find(|status| status.container_id.as_deref() == Some(&id));
        same.map_or((false, false), |status| (status.started == Some(true), status.ready))
    }

    /// Everything has ended for good: no more probes, and the status says so.
    fn is_over(&self) -> bool {
        self.stage == Stage::Terminated
    }

    /// Shows the pod's status, and tells the API if it changed.
    fn push_status(&mut self, pod: &Arc<DesiredPod>, gone: bool) {
        let old = self.old_status(pod);
        let readiness = |container: &ObservedContainer| match self.probes.verdicts(&container.id) {
            Some(verdicts) => Readiness { started: verdicts.started, ready: verdicts.started && verdicts.ready },
            None => Readiness::default(),
        };
        let new = status::pod_status(&StatusInput {
            pod,
            old: &old,
            observed: &self.observed,
            waiting: &self.waiting,
            readiness: &readiness,
            runtime_name: self.node.runtime_name(),
            host_ips: &self.node.config.node_ips,
            verdict: self.verdict.as_ref(),
            resizes: &self.resizes,
            over: self.is_over(),
            started_at: self.began,
            now: Timestamp::now(),
        });
        *self.shown.lock() = Some(new.clone());
        if let Some(left) = status::settles_in(pod, &self.observed, Timestamp::now()) {
            return self.look_again_in(left);
        }
        let Some(uid) = self.told.clone().filter(|_| !gone && !self.is_busy(&Task::Status)) else { return };
        if new == old {
            self.last_pushed = Some(new);
            return;
        }
        let (client, pod) = (self.node.client.clone(), pod.clone());
        self.start_job(Task::Status, async move {
            let outcome = push::status(client, &pod, &uid, &old, &new).await;
            Done::Status { pushed: Box::new(new), outcome }
        });
    }

    /// The status as the API has it: what was pushed last, since the informer may be behind, with the conditions of others.
    fn old_status(&self, pod: &DesiredPod) -> PodStatus {
        let in_api = pod.status().cloned().unwrap_or_default();
        let Some(mut old) = self.last_pushed.clone() else { return in_api };
        let evicted = self.verdict.as_ref().is_some_and(|verdict| verdict.reason == crate::eviction::EVICTED);
        let own = |kind: &str| {
            ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].contains(&kind)
                || resize::CONDITIONS.contains(&kind)
                || (evicted && kind == "DisruptionTarget")
        };
        let foreign = in_api.conditions.into_iter().flatten().filter(|condition| !own(&condition.type_));
        let mut conditions: Vec<_> =
            old.conditions.take().into_iter().flatten().filter(|condition| own(&condition.type_)).collect();
        conditions.extend(foreign);
        old.conditions = Some(conditions);
        old
    }
}
