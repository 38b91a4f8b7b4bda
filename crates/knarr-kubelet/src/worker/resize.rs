//! In-place resize: what a pod may use, against what its spec wants now and what its running containers were given.
//!
//! The API's status is the record: what a running container was given is what its status says, so that a kubelet that was restarted
//! goes on where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use knarr_client::events::EventType;
use serde::Serialize;

use super::{Done, PodWorker, Task};
use crate::pod::{ContainerKind, DesiredContainer, DesiredPod, PodSource, resources};
use crate::runtime::container_config::linux_resources;
use crate::runtime::observed::ObservedContainer;

/// A resize that waits for room is looked at again after this time: room comes when other pods go or shrink.
const RETRY: Duration = Duration::from_secs(5);

/// The conditions of a pod that tell of a resize.
pub const CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

type OfContainers = HashMap<String, ResourceRequirements>;

/// What a pod's containers have, and what keeps them from what they want.
#[derive(Default)]
pub struct Resizes {
    /// What the node gave the pod to use, by container; `None` before the first look.
    allocated: Option<OfContainers>,
    /// What running containers were given, by container.
    given: OfContainers,
    /// Why the node does not give what the spec wants.
    pending: Option<Pending>,
    /// What was given is being brought to the containers, since then.
    in_progress: Option<Timestamp>,
    /// Why it does not come to them.
    error: Option<String>,
}

#[derive(Clone, PartialEq)]
struct Pending {
    reason: &'static str,
    message: String,
    since: Timestamp,
}

impl PodWorker {
    /// The pod with the resources that the node gave it, after deciding whether it may have those that its spec wants.
    pub(super) fn allocate(&mut self, pod: &Arc<DesiredPod>) -> Arc<DesiredPod> {
        let wanted = of_spec(pod);
        let Some(allocated) = self.resizes.allocated.take() else {
            self.resizes.given = of_status(pod);
            let before = wanted.iter().map(|(name, own)| {
                let given = self.resizes.given.get(name).filter(|given| amounts(given) != amounts(own));
                (name.clone(), given.unwrap_or(own).clone())
            });
            self.resizes.allocated = Some(before.collect());
            return self.allocate(pod);
        };
        let changed =
            wanted.iter().any(|(name, own)| allocated.get(name).is_none_or(|had| amounts(had) != amounts(own)));
        self.resizes.allocated = Some(match changed.then(|| self.judge(pod)) {
            None => {
                self.resizes.pending = None;
                allocated
            }
            Some(None) => {
                self.begin_resize(pod);
                wanted.clone()
            }
            Some(Some((reason, message))) => {
                self.put_off(pod, reason, message);
                allocated
            }
        });
        let allocated = self.resizes.allocated.clone().unwrap_or_default();
        let pod = if allocated == wanted { pod.clone() } else { Arc::new(pod.with_resources(&allocated)) };
        self.node.allocations.lock().insert(pod.uid.clone(), resources::pod_requests(pod.spec()));
        pod
    }

    /// Why the node cannot give what the spec wants, if so.
    fn judge(&self, pod: &DesiredPod) -> Option<(&'static str, String)> {
        if pod.source == PodSource::Static {
            return Some(("Infeasible", "In-place resize of static-pods is not supported".to_owned()));
        }
        let wanted = resources::pod_requests(pod.spec());
        let others = self.node.allocations.lock();
        for name in ["cpu", "memory"] {
            let unit = if name == "cpu" { 1 } else { 1000 };
            let request = wanted.get(name).copied().unwrap_or(0);
            let capacity = self.node.allocatable.get(name).copied().unwrap_or(0);
            let held: i64 = others.iter().filter(|(uid, _)| **uid != pod.uid).filter_map(|(_, of)| of.get(name)).sum();
            if request > capacity - held {
                let (request, held, capacity) = (request / unit, held / unit, capacity / unit);
                let message = format!(
                    "Node didn't have enough resource: {name}, requested: {request}, used: {held}, capacity: {capacity}"
                );
                return Some(("Deferred", message));
            }
        }
        None
    }

    fn begin_resize(&mut self, pod: &DesiredPod) {
        self.resizes.pending = None;
        self.resizes.error = None;
        self.resizes.in_progress.get_or_insert_with(Timestamp::now);
        self.event(EventType::Normal, "ResizeStarted", format!("Pod resize started: {}", described(pod, "")));
    }

    fn put_off(&mut self, pod: &DesiredPod, reason: &'static str, message: String) {
        let same = self.resizes.pending.as_ref().is_some_and(|old| old.reason == reason && old.message == message);
        if !same {
            let event = if reason == "Deferred" { "ResizeDeferred" } else { "ResizeInfeasible" };
            let told = format!("Pod resize {reason}: {}", described(pod, &message));
            self.event(EventType::Warning, event, told);
            let since = self.resizes.pending.as_ref().map_or_else(Timestamp::now, |old| old.since);
            self.resizes.pending = Some(Pending { reason, message, since });
        }
        if reason == "Deferred" {
            self.look_again_in(RETRY);
        }
    }

    /// Brings what was allocated to the containers that run with something else.
    pub(super) fn bring_resources(&mut self, pod: &Arc<DesiredPod>) {
        let mut settled = true;
        let running: Vec<ObservedContainer> = self.observed.running().cloned().collect();
        for observed in running {
            let Some(container) = pod.container(&observed.name).filter(|container| is_resizable(container)) else {
                continue;
            };
            let own = container.spec.resources.clone().unwrap_or_default();
            let given = self.resizes.given.entry(observed.name.clone()).or_insert_with(|| own.clone());
            let (had, wants) = (amounts(given), amounts(&own));
            if had == wants {
                continue;
            }
            settled = false;
            if needs_restart(container, had, wants) {
                let message = format!("Container {} resize requires restart", observed.name);
                self.stop(pod, &observed, message, self.grace(pod));
            } else {
                self.resize_one(pod, &observed, container.clone(), own);
            }
        }
        if settled && self.resizes.in_progress.take().is_some() {
            self.resizes.error = None;
            self.event(EventType::Normal, "ResizeCompleted", format!("Pod resize completed: {}", described(pod, "")));
        }
    }

    fn resize_one(
        &mut self,
        pod: &Arc<DesiredPod>,
        observed: &ObservedContainer,
        container: DesiredContainer,
        resources: ResourceRequirements,
    ) {
        let (node, pod, id, name) = (self.node.clone(), pod.clone(), observed.id.clone(), observed.name.clone());
        self.start_job_of_running(Task::Resize(name.clone()), async move {
            let update = linux_resources(&pod, &container, node.memory());
            // The pod's own group must hold its containers at every moment: it grows before them, and shrinks after them.
            node.cgroups.set(&pod);
            let outcome = node.runtime.update_container_resources(&id, update).await;
            node.cgroups.prepare(&pod);
            Done::Resized { name, resources: Box::new(resources), outcome }
        });
    }

    pub(super) fn resized(
        &mut self,
        name: String,
        resources: ResourceRequirements,
        outcome: knarr_cri::Result<()>,
    ) -> bool {
        match outcome {
            Ok(()) => {
                self.resizes.given.insert(name, resources);
                true
            }
            Err(error) => {
                let message = error.message();
                let pod = self.wanted.borrow().pod().clone();
                let told = format!("Pod resize error: {}", described(&pod, &message));
                self.event(EventType::Warning, "ResizeError", told);
                tracing::warn!(pod = %pod.described(), container = name, error = message, "a container cannot be resized");
                self.resizes.error = Some(message);
                false
            }
        }
    }

    /// A container that starts is given what the pod has by then.
    pub(super) fn given_at_start(&mut self, container: &DesiredContainer) {
        let own = container.spec.resources.clone().unwrap_or_default();
        self.resizes.given.insert(container.name().to_owned(), own);
    }
}

impl Resizes {
    /// What a running container was given.
    pub fn given(&self, container: &str) -> Option<&ResourceRequirements> {
        self.given.get(container)
    }

    /// The conditions that tell of a resize.
    pub fn conditions(&self, generation: Option<i64>) -> Vec<PodCondition> {
        let condition = |kind: &str, reason: Option<&str>, message: Option<&String>, since: Timestamp| PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message: message.cloned(),
            last_transition_time: Some(Time(since)),
            observed_generation: generation,
            last_probe_time: None,
        };
        let pending = self
            .pending
            .as_ref()
            .map(|pending| condition(CONDITIONS[0], Some(pending.reason), Some(&pending.message), pending.since));
        let error = self.error.as_ref();
        let in_progress = self.in_progress.map(|since| condition(CONDITIONS[1], error.map(|_| "Error"), error, since));
        pending.into_iter().chain(in_progress).collect()
    }
}

fn is_resizable(container: &DesiredContainer) -> bool {
    matches!(container.kind, ContainerKind::App | ContainerKind::Sidecar)
}

fn of_spec(pod: &DesiredPod) -> OfContainers {
    let resizable = pod.containers.iter().filter(|container| is_resizable(container));
    resizable
        .map(|container| (container.name().to_owned(), container.spec.resources.clone().unwrap_or_default()))
        .collect()
}

/// What the API says that running containers were given.
fn of_status(pod: &DesiredPod) -> OfContainers {
    let lists = pod.status().map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let statuses = lists.into_iter().flatten().flatten().flatten();
    let given = |status: &ContainerStatus| {
        let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
        Some((status.name.clone(), status.resources.clone()?)).filter(|_| runs)
    };
    statuses.filter_map(given).collect()
}

/// The part of a container's resources that may change while it runs, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amounts {
    cpu: (i64, i64),
    memory: (i64, i64),
}

fn amounts(resources: &ResourceRequirements) -> Amounts {
    let of = |name: &str| {
        let request = resources::request_millis(Some(resources), name).unwrap_or(0);
        (request, resources::limit_millis(Some(resources), name).unwrap_or(0))
    };
    Amounts { cpu: of("cpu"), memory: of("memory") }
}

fn needs_restart(container: &DesiredContainer, had: Amounts, wants: Amounts) -> bool {
    let restarts = |name: &str| {
        let policies = container.spec.resize_policy.iter().flatten();
        policies.clone().any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    (had.cpu != wants.cpu && restarts("cpu")) || (had.memory != wants.memory && restarts("memory"))
}

/// The resources of all containers and the generation that wants them, as events tell them.
fn described(pod: &DesiredPod, error: &str) -> String {
    let of_kinds = |kinds: &[ContainerKind]| -> Vec<Told> {
        let told = |container: &DesiredContainer| Told {
            name: container.name().to_owned(),
            resources: container.spec.resources.clone().unwrap_or_default(),
        };
        pod.containers.iter().filter(|container| kinds.contains(&container.kind)).map(told).collect()
    };
    let summary = Summary {
        init_containers: of_kinds(&[ContainerKind::Init, ContainerKind::Sidecar]),
        containers: of_kinds(&[ContainerKind::App]),
        generation: pod.object.metadata.generation.unwrap_or(0),
        error: error.to_owned(),
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Told>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Told>,
    generation: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct Told {
    name: String,
    resources: ResourceRequirements,
}
