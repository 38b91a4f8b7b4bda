//! Acting on the plan of a pod that runs or is to run.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::node::v1::RuntimeClass;
use knarr_client::events::EventType;
use knarr_cri::v1::PodSandboxConfig;
use tokio::time::Instant;

use super::plan::{self, Health, Kill, KillReason, Plan};
use super::start::{Start, Started};
use super::status::Waiting;
use super::stop::Stop;
use super::{Done, PodWorker, Task, Wanted, backoff};
use crate::context::NodeContext;
use crate::environment::KeyedSource;
use crate::environment::fields::FieldSource;
use crate::network::dns::{self, ClusterDns};
use crate::pod::{DesiredContainer, DesiredPod, PodSource};
use crate::probes::ProbeKind;
use crate::runtime::images::{Answer, PullPolicy, Wish};
use crate::runtime::observed::{ContainerState, ObservedContainer};
use crate::runtime::{pull_secrets, sandbox_config};
use crate::volumes::references::ApiKeyedSource;
use crate::volumes::{self, Sources};

/// How often volumes are brought up to date although nothing told: the pod's own fields may have changed.
const VOLUME_PERIOD: Duration = Duration::from_secs(60);
/// The least grace of a pod, as upstream's.
const LEAST_GRACE: Duration = Duration::from_secs(1);

impl PodWorker {
    /// Plans and starts what the plan says.
    pub(super) async fn act(&mut self, pod: &Arc<DesiredPod>) {
        self.bring_volumes_up_to_date(pod);
        let plan = self.plan(pod);
        if plan.finished && self.jobs.is_empty() {
            return self.begin_termination();
        }
        if plan.stop_sandbox {
            return self.stop_sandbox(pod);
        }
        if let Some(attempt) = plan.create_sandbox {
            return self.create_sandbox(pod, attempt);
        }
        self.collect_dead_containers();
        for kill in plan.kill {
            self.kill(pod, kill);
        }
        for name in plan.start {
            let Some(container) = pod.container(&name).cloned() else { continue };
            let task = Task::Start(name);
            if !self.is_busy(&task) && !self.is_held_back(&task) {
                self.start(pod, container).await;
            }
        }
        self.bring_resources(pod);
    }

    fn plan(&self, pod: &DesiredPod) -> Plan {
        let health = |container: &ObservedContainer| match self.probes.verdicts(&container.id) {
            Some(verdicts) => Health {
                started: verdicts.started,
                startup_failed: verdicts.startup_failed,
                liveness_failed: !verdicts.live,
            },
            None => Health::default(),
        };
        plan::plan(pod, &self.observed, &health)
    }

    fn bring_volumes_up_to_date(&mut self, pod: &Arc<DesiredPod>) {
        let fresh = self.volumes_asked.is_some_and(|asked| asked.elapsed() < VOLUME_PERIOD);
        let expired =
            self.volumes.as_ref().and_then(|volumes| volumes.refresh_at).is_some_and(|at| at <= Timestamp::now());
        if fresh && !expired {
            return self.look_again_when_volumes_age(pod);
        }
        if self.is_busy(&Task::Volumes) {
            return;
        }
        let (node, pod, ips) = (self.node.clone(), pod.clone(), self.pod_ips(pod));
        self.start_job_of_running(Task::Volumes, async move {
            node.cgroups.prepare(&pod);
            let keyed = ApiKeyedSource { client: node.client.clone(), namespace: pod.namespace.clone() };
            let host_ips = node.host_ips();
            let fields = FieldSource {
                pod: &pod,
                pod_ips: &ips,
                host_ips: &host_ips,
                node_name: &node.config.node_name,
                node_allocatable: &node.allocatable,
            };
            let context = pod.spec().security_context.as_ref();
            let fs_group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
            let sources =
                Sources { keyed: &keyed, fields: &fields, tokens: &node.tokens, fs_user: common_user(&pod), fs_group };
            Done::Volumes(volumes::set_up(&pod, &node.config.pod_dir(&pod.uid), &sources).await)
        });
        if self.is_busy(&Task::Volumes) {
            self.volumes_asked = Some(Instant::now());
        }
    }

    /// Only volumes that show the pod itself or tokens change without an event.
    fn look_again_when_volumes_age(&mut self, pod: &DesiredPod) {
        let mut volumes = pod.spec().volumes.iter().flatten();
        if volumes.any(|volume| volume.downward_api.is_some() || volume.projected.is_some()) {
            self.look_again_in(VOLUME_PERIOD);
        }
    }

    pub(super) fn stop_sandbox(&mut self, pod: &Arc<DesiredPod>) {
        let running: Vec<_> = self.observed.running().cloned().collect();
        for container in running {
            let message = format!("Stopping container {}", container.name);
            self.stop(pod, &container, message, self.grace(pod));
        }
        if self.observed.running().next().is_some() {
            return;
        }
        let ready: Vec<String> =
            self.observed.sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.id.clone()).collect();
        if ready.is_empty() {
            return;
        }
        let (runtime, wake) = (self.node.runtime.clone(), self.wake.clone());
        self.start_job(Task::Sandbox, async move {
            for id in ready {
                if let Err(error) = runtime.stop_pod_sandbox(&id).await {
                    return Done::SandboxStopped(Err(error));
                }
            }
            wake.notify_one();
            Done::SandboxStopped(Ok(()))
        });
    }

    fn create_sandbox(&mut self, pod: &Arc<DesiredPod>, attempt: u32) {
        if self.volumes.is_none() || self.is_busy(&Task::Sandbox) || self.is_busy(&Task::Volumes) {
            return;
        }
        if attempt > 0 && !self.not_before.contains_key(&Task::Sandbox) {
            self.event(EventType::Normal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        let (node, pod) = (self.node.clone(), pod.clone());
        self.start_job_of_running(Task::Sandbox, async move {
            let log_dir = node.config.pod_log_dir(&pod.namespace, &pod.name, &pod.uid);
            let made = std::fs::create_dir_all(&log_dir).map_err(|error| error.to_string());
            let config = made.and_then(|()| sandbox_config_of(&node, &pod, attempt));
            let config = match config {
                Ok(config) => config,
                Err(error) => return Done::Sandbox(Err(error)),
            };
            let handler = match runtime_handler(&node, &pod).await {
                Ok(handler) => handler,
                Err(error) => return Done::Sandbox(Err(error)),
            };
            let outcome = node.runtime.run_pod_sandbox(config, &handler).await;
            Done::Sandbox(outcome.map(drop).map_err(|error| error.to_string()))
        });
    }

    fn kill(&mut self, pod: &Arc<DesiredPod>, kill: Kill) {
        let Some(container) = self.observed.containers.iter().find(|container| container.id == kill.id).cloned() else {
            return;
        };
        let message = if kill.message.is_empty() { format!("Stopping container {}", kill.name) } else { kill.message };
        let probe = match kill.reason {
            KillReason::LivenessProbe => Some(ProbeKind::Liveness),
            KillReason::StartupProbe => Some(ProbeKind::Startup),
            KillReason::DefinitionChanged | KillReason::Stray => None,
        };
        let own = probe.zip(pod.container(&kill.name)).and_then(|(probe, container)| probe.of(container));
        let grace = own.and_then(|probe| probe.termination_grace_period_seconds);
        let grace = grace.map_or_else(|| self.grace(pod), |seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
        self.stop(pod, &container, message, grace);
    }

    /// Stops a container, unless it is being stopped at least as fast already.
    pub(super) fn stop(
        &mut self,
        pod: &Arc<DesiredPod>,
        container: &ObservedContainer,
        message: String,
        grace: Duration,
    ) {
        let stopping = self
            .busy
            .iter()
            .any(|task| matches!(task, Task::Stop { id, grace: given } if *id == container.id && *given <= grace));
        if stopping {
            return;
        }
        let stop = Stop {
            node: self.node.clone(),
            pod: pod.clone(),
            id: container.id.clone(),
            name: container.name.clone(),
            message,
            grace,
            pod_ip: self.pod_ips(pod).into_iter().next().unwrap_or_default(),
        };
        let task = Task::Stop { id: container.id.clone(), grace };
        self.start_job(task, async move { Done::Stopped(stop.run().await) });
    }

    /// Even what is deleted by force is asked before it is killed. What is evicted has no time: the node runs out.
    pub(super) fn grace(&self, pod: &DesiredPod) -> Duration {
        let evicted = self.verdict.as_ref().is_some_and(|verdict| verdict.reason == crate::eviction::EVICTED);
        // A pod that still runs when its object is gone was deleted by force, whatever grace the object spoke of.
        let forced = pod.source == PodSource::Api && matches!(*self.wanted.borrow(), Wanted::Gone(_));
        if evicted || forced {
            return LEAST_GRACE;
        }
        Duration::from_secs(pod.grace_seconds().unsigned_abs()).max(LEAST_GRACE)
    }

    async fn start(&mut self, pod: &Arc<DesiredPod>, container: DesiredContainer) {
        let Some(sandbox) = self.observed.ready_sandbox().cloned() else { return };
        let Some(volumes) = self.volumes.clone() else { return };
        let name = container.name().to_owned();
        let finished = self.last_end(&name);
        if finished.is_some_and(|finished| self.is_backing_off(pod, &container, finished)) {
            return;
        }
        let sandbox_config = match sandbox_config_of(&self.node, pod, sandbox.attempt) {
            Ok(config) => config,
            Err(error) => return drop(self.waiting.insert(name, Waiting::new("CreateContainerConfigError", error))),
        };
        let about = ObjectReference { field_path: Some(container.field_path()), ..pod.reference() };
        let wish = Wish {
            about,
            pod_uid: pod.uid.clone(),
            image: container.image().to_owned(),
            policy: PullPolicy::of(container.spec.image_pull_policy.as_deref(), container.image()),
            auths: credentials(&self.node, pod, container.image()).await,
            sandbox: sandbox_config.clone(),
        };
        let (image, user) = match self.node.images.clone().ensure(wish, &self.wake).await {
            Answer::Ready { reference, user } => (reference, user),
            Answer::Pulling => return,
            Answer::Unavailable { waiting, again_after } => {
                self.waiting.insert(name, waiting);
                return again_after.into_iter().for_each(|wait| self.look_again_in(wait));
            }
        };
        if let Some(finished) = finished {
            self.backoff.count_start(&name, &container.hash, finished, Timestamp::now());
        }
        let target = container
            .target
            .as_deref()
            .and_then(|target| self.observed.container(target))
            .map(|found| found.id.clone());
        self.given_at_start(&container);
        let start = Start {
            node: self.node.clone(),
            pod: pod.clone(),
            attempt: self.next_attempt(pod, &name),
            sandbox: sandbox.id,
            sandbox_config,
            pod_ips: self.pod_ips(pod),
            image,
            user,
            volumes,
            target,
            container,
        };
        let ending = self.ending.clone();
        self.start_job(Task::Start(name.clone()), async move {
            match start.run(ending).await {
                Ok(Started::GivenUp) => Done::GivenUp,
                outcome => Done::Started { name, outcome: outcome.map(drop) },
            }
        });
    }

    /// When the newest container of that name ended.
    fn last_end(&self, name: &str) -> Option<Timestamp> {
        self.observed
            .container(name)
            .and_then(ObservedContainer::exit)
            .map(|exit| exit.finished_at.unwrap_or(self.began))
    }

    fn is_backing_off(&mut self, pod: &DesiredPod, container: &DesiredContainer, finished: Timestamp) -> bool {
        let name = container.name();
        let Some((left, whole)) = self.backoff.waits(name, &container.hash, finished, Timestamp::now()) else {
            return false;
        };
        let message =
            format!("back-off {} restarting failed container={name} pod={}", backoff::in_words(whole), pod.described());
        let waiting = Waiting::new("CrashLoopBackOff", message);
        if self.waiting.insert(name.to_owned(), waiting.clone()) != Some(waiting) {
            let event = format!("Back-off restarting failed container {name} in pod {}", pod.described());
            self.node.recorder.event(&Self::about_container(pod, name), EventType::Warning, "BackOff", event);
        }
        self.look_again_in(left);
        true
    }

    fn next_attempt(&self, pod: &DesiredPod, name: &str) -> u32 {
        if let Some(newest) = self.observed.all_named(name).map(|container| container.attempt).max() {
            return newest + 1;
        }
        // The runtime forgot the container; the API may remember that there was one.
        let status = self.last_pushed.as_ref().or(pod.status());
        let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let mut statuses = lists.into_iter().flatten().flatten().flatten();
        let known = statuses.find(|status| status.name == name && status.container_id.is_some());
        known.map_or(0, |known| u32::try_from(known.restart_count).unwrap_or(0) + 1)
    }

    /// Removes dead containers that are older than those `kubectl logs --previous` shows, with their logs, and empty old sandboxes.
    fn collect_dead_containers(&mut self) {
        let kept = self.node.config.dead_containers_kept;
        let mut seen = std::collections::HashMap::<&str, usize>::new();
        let mut dead = Vec::new();
        for container in &self.observed.containers {
            let count = seen.entry(container.name.as_str()).or_default();
            let newest = *count == 0;
            *count += 1;
            if !newest && *count > kept + 1 && matches!(container.state, ContainerState::Exited(_)) {
                dead.push((container.id.clone(), container.log_path.clone()));
            }
        }
        let in_use = |id: &str| self.observed.containers.iter().any(|container| container.sandbox == id);
        let sandboxes: Vec<String> = self
            .observed
            .sandboxes
            .iter()
            .skip(1)
            .filter(|sandbox| !sandbox.ready && !in_use(&sandbox.id))
            .map(|sandbox| sandbox.id.clone())
            .collect();
        if dead.is_empty() && sandboxes.is_empty() {
            return;
        }
        let runtime = self.node.runtime.clone();
        self.start_job_of_running(Task::Collection, async move {
            for (id, log) in dead {
                if let Err(error) = runtime.remove_container(&id).await {
                    tracing::debug!(%error, id, "a dead container cannot be removed");
                } else {
                    crate::logs::remove(&log);
                }
            }
            for id in sandboxes {
                if let Err(error) = runtime.remove_pod_sandbox(&id).await {
                    tracing::debug!(%error, id, "a dead sandbox cannot be removed");
                }
            }
            Done::Collected(true)
        });
    }
}

/// The handler that the pod's runtime class names; the runtime's own where it has none.
async fn runtime_handler(node: &NodeContext, pod: &DesiredPod) -> Result<String, String> {
    let Some(class) = pod.spec().runtime_class_name.as_deref().filter(|class| !class.is_empty()) else {
        return Ok(String::new());
    };
    let found = kube::Api::<RuntimeClass>::all(node.client.clone()).get_opt(class).await;
    let found = found.map_err(|error| format!("failed to get RuntimeClass {class}: {error}"))?;
    found.map(|class| class.handler).ok_or_else(|| format!("RuntimeClass \"{class}\" not found"))
}

/// The credentials that the pod's pull secrets hold for an image.
async fn credentials(node: &NodeContext, pod: &DesiredPod, image: &str) -> Vec<knarr_cri::v1::AuthConfig> {
    let keyed = ApiKeyedSource { client: node.client.clone(), namespace: pod.namespace.clone() };
    let mut credentials = Vec::new();
    for secret in pod.spec().image_pull_secrets.iter().flatten() {
        match keyed.secret(&secret.name).await {
            Ok(Some(values)) => credentials.extend(pull_secrets::credentials(&values, image)),
            Ok(None) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    secret.name
                );
                node.recorder.event(&pod.reference(), EventType::Warning, "FailedToRetrieveImagePullSecret", message);
            }
            Err(error) => tracing::warn!(error, secret = secret.name, "a pull secret cannot be read"),
        }
    }
    credentials
}

/// The user that all containers of the pod run as, if they name the same one.
fn common_user(pod: &DesiredPod) -> Option<u32> {
    let of_pod = pod.spec().security_context.as_ref().and_then(|context| context.run_as_user);
    let of = |container: &DesiredContainer| {
        container.spec.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    };
    let mut users = pod.containers.iter().map(of);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn sandbox_config_of(
    node: &crate::context::NodeContext,
    pod: &DesiredPod,
    attempt: u32,
) -> Result<PodSandboxConfig, String> {
    let resolv_conf = std::fs::read_to_string(&node.config.resolv_conf).unwrap_or_default();
    let cluster = ClusterDns {
        servers: &node.config.cluster_dns,
        domain: &node.config.cluster_domain,
        node_resolv_conf: &resolv_conf,
    };
    sandbox_config::sandbox_config(
        pod,
        attempt,
        &node.config,
        dns::config_of(pod, &cluster),
        node.cgroups.parent_of(pod),
    )
}
