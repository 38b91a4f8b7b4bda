//! Container statuses.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Readiness, StatusInput};
use crate::pod::{ContainerKind, DesiredContainer};
use crate::runtime::observed::{self, Exit, ObservedContainer};

/// Why a container that should run does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: Option<String>,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Waiting {
        Waiting { reason: reason.to_owned(), message: Some(message.into()) }
    }
}

pub fn statuses(input: &StatusInput, kinds: &[ContainerKind]) -> Option<Vec<ContainerStatus>> {
    let of_kinds = input.pod.containers.iter().filter(|container| kinds.contains(&container.kind));
    let statuses: Vec<_> = of_kinds.map(|container| status_of(input, container)).collect();
    (!statuses.is_empty()).then_some(statuses)
}

fn status_of(input: &StatusInput, container: &DesiredContainer) -> ContainerStatus {
    let newest = input.observed.container(container.name());
    let mut status = match newest {
        Some(newest) => observed_status(input, container, newest),
        None => unobserved_status(input, container),
    };
    if let Some(waiting) = waits(input, container, newest) {
        let state = status.state.take();
        if state.as_ref().is_some_and(|state| state.terminated.is_some()) {
            status.last_state = state;
        }
        status.state = Some(waiting_state(waiting.clone()));
    }
    let could_start = container.kind != ContainerKind::App || has_initialized(input);
    if input.over && could_start && status.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
        status.state = Some(lost_state());
    }
    set_readiness(input, container, newest, &mut status);
    status
}

/// Whether every init container that ends has ended well: before that no other is missed.
fn has_initialized(input: &StatusInput) -> bool {
    let mut first = input.pod.containers.iter().filter(|container| container.kind == ContainerKind::Init);
    first.all(|container| {
        let ended = status_of(input, container).state.and_then(|state| state.terminated);
        ended.is_some_and(|ended| ended.exit_code == 0)
    })
}

/// A container that is to be started (again) and cannot be yet, with the reason.
fn waits<'a>(
    input: &'a StatusInput,
    container: &DesiredContainer,
    newest: Option<&ObservedContainer>,
) -> Option<&'a Waiting> {
    let reason = input.waiting.get(container.name())?;
    let to_start = match newest.map(|newest| &newest.state) {
        Some(observed::ContainerState::Running { .. }) => false,
        Some(observed::ContainerState::Exited(exit)) => container.restarts(exit.code) && !input.pod.is_deleted(),
        _ => true,
    };
    to_start.then_some(reason)
}

fn observed_status(input: &StatusInput, container: &DesiredContainer, newest: &ObservedContainer) -> ContainerStatus {
    let previous = input.observed.all_named(container.name()).nth(1);
    let last_state = match previous.and_then(ObservedContainer::exit).zip(previous) {
        Some((exit, previous)) => Some(terminated_state(input, previous, exit)),
        None => remembered_last_state(input, container, newest),
    };
    ContainerStatus {
        name: container.name().to_owned(),
        image: newest.image.clone(),
        image_id: newest.image_id.clone(),
        container_id: Some(qualified_id(input, newest)),
        restart_count: i32::try_from(newest.attempt).unwrap_or(i32::MAX),
        state: Some(state_of(input, container, newest)),
        last_state: Some(last_state.unwrap_or_default()),
        resources: newest
            .is_running()
            .then(|| input.resizes.given(container.name()).cloned().or_else(|| container.spec.resources.clone()))
            .flatten(),
        allocated_resources: container.spec.resources.as_ref().and_then(|resources| resources.requests.clone()),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    }
}

/// The container before was collected; what the API remembers of it still holds.
fn remembered_last_state(
    input: &StatusInput,
    container: &DesiredContainer,
    newest: &ObservedContainer,
) -> Option<ContainerState> {
    let old = old_status(input, container)?;
    let same = old.container_id.as_deref() == Some(&qualified_id(input, newest));
    let old_state =
        if same { old.last_state.clone() } else { old.state.clone().filter(|state| state.terminated.is_some()) };
    old_state.filter(|_| newest.attempt > 0)
}

fn unobserved_status(input: &StatusInput, container: &DesiredContainer) -> ContainerStatus {
    let old = old_status(input, container);
    let mut status = ContainerStatus {
        name: container.name().to_owned(),
        image: container.image().to_owned(),
        state: Some(waiting_state(default_waiting(input, container))),
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    let ended = old.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let ran = old.state.as_ref().is_some_and(|state| state.running.is_some());
    if ended {
        // An ended container that the runtime collected did not un-end.
        return ContainerStatus { ready: false, ..old.clone() };
    }
    if ran {
        status.container_id = old.container_id.clone();
        status.image_id = old.image_id.clone();
        status.last_state = Some(gone_state(&old.container_id));
        status.restart_count += i32::from(!input.over);
    } else if let Some(last) = &old.last_state {
        status.last_state = Some(last.clone());
    }
    status
}

fn old_status<'a>(input: &'a StatusInput, container: &DesiredContainer) -> Option<&'a ContainerStatus> {
    let old = input.old;
    let list = match container.kind {
        ContainerKind::Init | ContainerKind::Sidecar => &old.init_container_statuses,
        ContainerKind::App => &old.container_statuses,
        ContainerKind::Ephemeral => &old.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == container.name())
}

fn default_waiting(input: &StatusInput, container: &DesiredContainer) -> Waiting {
    let after_others = match container.kind {
        ContainerKind::Ephemeral => false,
        _ => input.pod.init_sequence().next().is_some(),
    };
    let reason = if after_others { "PodInitializing" } else { "ContainerCreating" };
    Waiting { reason: reason.to_owned(), message: None }
}

fn state_of(input: &StatusInput, wanted: &DesiredContainer, container: &ObservedContainer) -> ContainerState {
    match &container.state {
        observed::ContainerState::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
            ..ContainerState::default()
        },
        observed::ContainerState::Exited(exit) => terminated_state(input, container, exit),
        observed::ContainerState::Created | observed::ContainerState::Unknown => {
            waiting_state(default_waiting(input, wanted))
        }
    }
}

fn terminated_state(input: &StatusInput, container: &ObservedContainer, exit: &Exit) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(qualified_id(input, container)),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        started_at: exit.started_at.map(Time),
        finished_at: exit.finished_at.map(Time),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waiting_state(waiting: Waiting) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(waiting.reason), message: waiting.message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn lost_state() -> ContainerState {
    unknown_end("The container could not be located when the pod was terminated", None)
}

fn gone_state(container_id: &Option<String>) -> ContainerState {
    unknown_end(
        "The container could not be located when the pod was deleted.  The container used to be Running",
        container_id.clone(),
    )
}

fn unknown_end(message: &str, container_id: Option<String>) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id,
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn set_readiness(
    input: &StatusInput,
    container: &DesiredContainer,
    newest: Option<&ObservedContainer>,
    status: &mut ContainerStatus,
) {
    let running = newest
        .filter(|newest| newest.is_running() && status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let readiness = running.map(|running| (input.readiness)(running)).unwrap_or_default();
    let Readiness { started, ready } = readiness;
    match container.kind {
        ContainerKind::Init => {
            status.started = Some(running.is_some());
            status.ready =
                status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 0);
        }
        ContainerKind::Ephemeral => {
            status.ready = false;
            status.started = None;
        }
        ContainerKind::Sidecar | ContainerKind::App => {
            status.started = Some(started);
            status.ready = ready;
        }
    }
}

fn qualified_id(input: &StatusInput, container: &ObservedContainer) -> String {
    format!("{}://{}", input.runtime_name, container.id)
}

fn volume_mounts(container: &DesiredContainer) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.spec.volume_mounts.as_ref()?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            recursive_read_only: read_only.map(|_| "Disabled".to_owned()),
            read_only,
            ..VolumeMountStatus::default()
        }
    };
    (!mounts.is_empty()).then(|| mounts.iter().map(status).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::PodStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::{DesiredPod, PodSource};
    use crate::runtime::observed::ObservedPod;
    use crate::worker::resize::Resizes;

    /// The state of the only app container of a pod that is over and of which the runtime has nothing any more.
    fn state_at_the_end(init_containers: Value, old: Value) -> ContainerState {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Never", "initContainers": init_containers,
            "containers": [{"name": "main", "image": "b"}]}});
        let pod = DesiredPod::new(Arc::new(serde_json::from_value(pod).expect("a pod")), PodSource::Api);
        let old: PodStatus = serde_json::from_value(old).expect("a status");
        let now = Timestamp::UNIX_EPOCH;
        let input = StatusInput {
            pod: &pod,
            old: &old,
            observed: &ObservedPod::default(),
            waiting: &HashMap::new(),
            readiness: &|_| Readiness::default(),
            runtime_name: "containerd",
            host_ips: &[],
            verdict: None,
            resizes: &Resizes::default(),
            over: true,
            started_at: now,
            now,
        };
        let statuses = statuses(&input, &[ContainerKind::App]).expect("one");
        statuses[0].state.clone().expect("a state")
    }

    #[test]
    fn a_container_is_missed_only_once_it_could_have_started() {
        let init = json!([{"name": "first", "image": "b"}]);
        let ended = |code: i32| {
            json!({"initContainerStatuses": [{"name": "first", "image": "b", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]})
        };
        for (init, old, missed) in
            [(json!([]), json!({}), true), (init.clone(), ended(0), true), (init.clone(), ended(1), false)]
        {
            let state = state_at_the_end(init, old.clone());
            assert_eq!((state.terminated.is_some(), state.waiting.is_some()), (missed, !missed), "{old}");
        }
    }
}
