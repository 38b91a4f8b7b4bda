//! Ending a pod: its containers, then its sandbox, then what it left, then its object.

use std::sync::Arc;
use std::time::Duration;

use super::{Done, PodWorker, Stage, Task, push};
use crate::pod::{ContainerKind, DesiredPod, PodSource};
use crate::runtime::observed::ObservedContainer;
use crate::volumes;

/// How long a group may take to be empty after its last process was killed.
const GROUP_DELAY: Duration = Duration::from_millis(200);

impl PodWorker {
    /// From here on nothing of the pod is started; what serves only its running is given up.
    pub(super) fn begin_termination(&mut self) {
        self.stage = Stage::Terminating;
        self.following.clear();
        self.ending.cancel();
        self.not_before.clear();
        self.wake.notify_one();
    }

    /// Stops what runs: first the containers, then the sidecars from the last to the first, then the sandbox.
    pub(super) fn terminate(&mut self, pod: &Arc<DesiredPod>) {
        // What comes of a start that is on its way in the runtime is to be stopped too.
        let starting = self.busy.iter().any(|task| matches!(task, Task::Start(_)));
        if self.observed.is_stopped() && !starting {
            self.probes.keep_only(&[]);
            self.stage = Stage::Terminated;
            return;
        }
        let grace = self.grace(pod);
        for container in self.next_to_stop(pod) {
            let message = format!("Stopping container {}", container.name);
            self.stop(pod, &container, message, grace);
        }
        if self.observed.running().next().is_none() && !starting {
            self.stop_sandbox(pod);
        }
    }

    fn next_to_stop(&self, pod: &DesiredPod) -> Vec<ObservedContainer> {
        let is_sidecar = |container: &&ObservedContainer| {
            pod.container(&container.name).is_some_and(|found| found.kind == ContainerKind::Sidecar)
        };
        let others: Vec<_> = self.observed.running().filter(|container| !is_sidecar(container)).cloned().collect();
        if !others.is_empty() {
            return others;
        }
        let mut sidecars = pod.init_sequence().rev().filter(|container| container.kind == ContainerKind::Sidecar);
        let last = sidecars.find_map(|sidecar| self.observed.running().find(|running| running.name == sidecar.name()));
        last.cloned().into_iter().collect()
    }

    /// Cleans up after a pod whose containers ended; true when nothing is left of it.
    pub(super) fn wind_up(&mut self, pod: &Arc<DesiredPod>, gone: bool) -> bool {
        if !self.cleaned_up {
            // Nothing may be made below the directory that is being removed.
            if !self.is_busy(&Task::Volumes) {
                self.clean_up(pod);
            }
            return false;
        }
        let status_told = !self.is_busy(&Task::Status) && self.last_pushed.as_ref() == self.shown.lock().as_ref();
        if gone {
            self.forget(pod);
            return self.jobs.is_empty() && self.observed.containers.is_empty() && self.observed.sandboxes.is_empty();
        }
        if pod.is_deleted() && pod.source == PodSource::Api && status_told && !self.is_busy(&Task::Deletion) {
            let (client, pod) = (self.node.client.clone(), pod.clone());
            self.start_job(Task::Deletion, async move { Done::Deleted(push::deletion(client, &pod).await) });
        }
        false
    }

    fn clean_up(&mut self, pod: &Arc<DesiredPod>) {
        let (node, pod) = (self.node.clone(), pod.clone());
        self.start_job(Task::CleanUp, async move {
            node.images.forget_pod(&pod.uid);
            node.tokens.forget_pod(&pod.uid);
            let outcome = volumes::tear_down(node.config.pod_dir(&pod.uid)).await;
            let mut removed = node.cgroups.remove(&pod);
            if removed.is_err() {
                // The kernel takes its time with the last process of a group.
                tokio::time::sleep(GROUP_DELAY).await;
                removed = node.cgroups.remove(&pod);
            }
            Done::CleanedUp(outcome.and(removed))
        });
    }

    /// Removes containers, sandboxes and logs of a pod that the API has no more.
    fn forget(&mut self, pod: &Arc<DesiredPod>) {
        let sandboxes: Vec<String> = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        let containers: Vec<String> = self.observed.containers.iter().map(|container| container.id.clone()).collect();
        if sandboxes.is_empty() && containers.is_empty() {
            crate::logs::remove_pod(&self.node.config.pod_log_dir(&pod.namespace, &pod.name, &pod.uid));
            return;
        }
        let runtime = self.node.runtime.clone();
        self.start_job(Task::Collection, async move {
            let mut all = true;
            for id in containers {
                if let Err(error) = runtime.remove_container(&id).await {
                    tracing::debug!(%error, id, "a container of a pod that is gone cannot be removed");
                    all = false;
                }
            }
            for id in sandboxes {
                if let Err(error) = runtime.remove_pod_sandbox(&id).await {
                    tracing::warn!(%error, id, "a sandbox of a pod that is gone cannot be removed");
                    all = false;
                }
            }
            Done::Collected(all)
        });
    }
}
