//! The status of a pod: a pure function of what is wanted, what is observed and what the worker knows beside.

mod conditions;
mod containers;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::resize::Resizes;
use crate::pod::{ContainerKind, DesiredPod, RestartPolicy};
use crate::runtime::observed::{ContainerState, ObservedContainer, ObservedPod};

pub use containers::Waiting;

/// What the probes say about a container, as its status shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    pub started: bool,
    pub ready: bool,
}

/// How long a container that somebody is to attach to runs before that is told.
const SETTLING: Duration = Duration::from_secs(1);

/// How long the pod's status is to be kept back still. `kubectl run -i` attaches as soon as it hears that its container runs, and of a
/// command that ends at once it would hear nothing; hearing that the pod has ended, it reads the log. (Upstream's kubelet looks at its
/// containers once a second, which comes to the same.)
pub fn settles_in(pod: &DesiredPod, observed: &ObservedPod, now: Timestamp) -> Option<Duration> {
    let attachable = pod
        .containers
        .iter()
        .filter(|container| container.spec.stdin_once == Some(true) && container.spec.stdin == Some(true));
    let left = attachable.filter_map(|container| match observed.container(container.name())?.state {
        ContainerState::Running { started_at } => {
            let runs = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
            Some(SETTLING.saturating_sub(runs)).filter(|left| !left.is_zero())
        }
        _ => None,
    });
    left.max()
}

/// Why a pod is over although its containers do not say so: evicted, past its deadline, refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

/// All that a pod's status is made of.
pub struct StatusInput<'a> {
    pub pod: &'a DesiredPod,
    /// The last status, with what others wrote into it.
    pub old: &'a PodStatus,
    pub observed: &'a ObservedPod,
    /// Why containers that should run do not, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    pub readiness: &'a dyn Fn(&ObservedContainer) -> Readiness,
    /// `containerd`: the scheme of container ids.
    pub runtime_name: &'a str,
    pub host_ips: &'a [IpAddr],
    pub verdict: Option<&'a Verdict>,
    pub resizes: &'a Resizes,
    /// Nothing of the pod runs and nothing will: containers that are not accounted for are lost.
    pub over: bool,
    /// When this kubelet took the pod on.
    pub started_at: Timestamp,
    pub now: Timestamp,
}

/// The status of a pod, keeping what others wrote into the last one.
pub fn pod_status(input: &StatusInput) -> PodStatus {
    let old = input.old;
    let mut status = PodStatus {
        init_container_statuses: containers::statuses(input, &[ContainerKind::Init, ContainerKind::Sidecar]),
        container_statuses: containers::statuses(input, &[ContainerKind::App]),
        ephemeral_container_statuses: containers::statuses(input, &[ContainerKind::Ephemeral]),
        qos_class: Some(input.pod.qos.as_str().to_owned()),
        start_time: old.start_time.clone().or(Some(Time(input.started_at))),
        observed_generation: input.pod.object.metadata.generation,
        nominated_node_name: None,
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        conditions: old.conditions.clone(),
        ..PodStatus::default()
    };
    set_addresses(&mut status, input, old);
    set_phase(&mut status, input, old);
    conditions::set(&mut status, input);
    status
}

/// The status of a pod that this node refuses to run.
pub fn refused(pod: &DesiredPod, verdict: &Verdict, now: Timestamp) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(verdict.reason.clone()),
        message: Some(verdict.message.clone()),
        qos_class: Some(pod.qos.as_str().to_owned()),
        start_time: Some(Time(now)),
        observed_generation: pod.object.metadata.generation,
        ..pod.status().cloned().unwrap_or_default()
    }
}

fn set_addresses(status: &mut PodStatus, input: &StatusInput, old: &PodStatus) {
    let host: Vec<String> = input.host_ips.iter().map(IpAddr::to_string).collect();
    status.host_ip = host.first().cloned();
    status.host_ips = (!host.is_empty()).then(|| host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let observed = input.observed.sandboxes.first();
    let ips = match observed {
        Some(sandbox) if sandbox.ready && input.pod.host_network() => host,
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        // A pod keeps the address it had to its end.
        Some(_) => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        None if input.over => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        None => Vec::new(),
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
}

fn set_phase(status: &mut PodStatus, input: &StatusInput, old: &PodStatus) {
    let terminal = |phase: &Option<String>| matches!(phase.as_deref(), Some("Failed" | "Succeeded"));
    let phase = if terminal(&old.phase) {
        // A phase that is over stays, whatever the runtime says now.
        status.reason = old.reason.clone();
        status.message = old.message.clone();
        old.phase.clone().unwrap_or_default()
    } else if let Some(verdict) = input.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
        "Failed".to_owned()
    } else {
        let phase = phase_of(input, status);
        let lost = input.over && !matches!(phase, "Succeeded" | "Failed");
        (if lost { "Failed" } else { phase }).to_owned()
    };
    status.phase = Some(phase);
}

#[derive(Default)]
struct Tally {
    unknown: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

fn tally(statuses: &[ContainerStatus]) -> Tally {
    let mut tally = Tally::default();
    for status in statuses {
        let state = status.state.clone().unwrap_or_default();
        let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if state.running.is_some() {
            tally.running += 1;
        } else if let Some(terminated) = state.terminated {
            tally.stopped += 1;
            tally.succeeded += usize::from(terminated.exit_code == 0);
        } else if state.waiting.is_some() && ended_before {
            tally.stopped += 1;
        } else if state.waiting.is_some() {
            tally.waiting += 1;
        } else {
            tally.unknown += 1;
        }
    }
    tally
}

fn phase_of(input: &StatusInput, status: &PodStatus) -> &'static str {
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let apps = status.container_statuses.as_deref().unwrap_or_default();
    let tally = tally(apps);
    let started = tally.running + tally.stopped > 0;
    if !started {
        if init.iter().any(|init| init_failed_for_good(input, init)) {
            return "Failed";
        }
        return "Pending";
    }
    if tally.waiting > 0 {
        return "Pending";
    }
    if tally.running > 0 || tally.unknown > 0 {
        return "Running";
    }
    let all_succeeded = tally.stopped == tally.succeeded;
    let may_restart = apps.iter().any(|app| restarts(input, app));
    match input.pod.restart_policy {
        _ if input.over && all_succeeded => "Succeeded",
        _ if input.over => "Failed",
        RestartPolicy::Always => "Running",
        _ if all_succeeded => "Succeeded",
        _ if may_restart => "Running",
        _ => "Failed",
    }
}

fn restarts(input: &StatusInput, status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let code = ended.map_or(1, |terminated| terminated.exit_code);
    input.pod.container(&status.name).is_some_and(|container| container.restarts(code))
}

fn init_failed_for_good(input: &StatusInput, status: &ContainerStatus) -> bool {
    let is_init = input.pod.container(&status.name).is_some_and(|container| container.kind == ContainerKind::Init);
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    is_init && ended.is_some_and(|terminated| terminated.exit_code != 0) && !restarts(input, status)
}
